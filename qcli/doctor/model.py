"""What a model needs beside whole weights: a template, a vocabulary, memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from qcli.catalog.entry import Entry
from qcli.doctor import disk, model_file
from qcli.doctor.finding import FAIL, PASS, WARN, Check, Finding
from qcli.errors import ModelFileError, QcliError
from qcli.forecast.forecast import forecast
from qcli.forecast.words import rate, verdict
from qcli.gguf.file import GGUFFile
from qcli.gguf.summary import summarize
from qcli.progress import Progress
from qcli.streaming.dense import is_expert
from qcli.text.chat_template import ChatTemplate
from qcli.text.tokenizer import Tokenizer
from qcli.wording import counted, size

_TEXTS: Final = (
    "Hello, world! 1234.5",
    "Grüße, naïve café: ½ €",
    "你好，世界 🙂",
    "def f(x):\n    return x ** 2  # two  spaces\n",
)
_USER, _ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}
_SYSTEM: Final = {"role": "system", "content": "Be brief."}


def checks(path: Path, name: str, entry: Entry | None) -> list[Check]:
    """Of a model: of a file that cannot be opened, that alone."""
    try:
        file = GGUFFile.open(path)
    except ModelFileError as problem:
        return [Check("file", partial(_broken, problem))]
    return [
        Check("file", partial(_file, file, name)),
        Check("weights", partial(model_file.check, file, entry)),
        Check("vocabulary", partial(_vocabulary, file)),
        Check("chat template", partial(_template, file)),
        Check("disk speed", partial(_disk, file)),
        Check("plan", partial(_plan, file)),
    ]


def _broken(problem: QcliError, _progress: Progress) -> Iterator[Finding]:
    yield Finding("file", FAIL, problem.message, problem.hint_with(()))


def _file(file: GGUFFile, name: str, _progress: Progress) -> Iterator[Finding]:
    summary = summarize(file, name)
    said = f"{name}: {summary.architecture or 'no architecture'}, {size(summary.size_bytes)}"
    figures = {"architecture": summary.architecture, "bytes": summary.size_bytes, "mtp_layers": summary.layers.mtp}
    if not summary.supported:
        hint = "`qcli show --supported` lists the architectures that run"
        yield Finding("file", FAIL, f"{said}: qcli cannot run this architecture", hint, figures)
        return
    mtp = summary.layers.mtp
    drafts = f"has {counted(mtp, 'layer')} for predicting several tokens at once (MTP)" if mtp else "has no MTP layers"
    yield Finding("file", PASS, f"{said}; {drafts}", "", figures)


def _vocabulary(file: GGUFFile, _progress: Progress) -> Iterator[Finding]:
    """Texts to tokens and back."""
    tokenizer = Tokenizer.from_gguf(file)
    lost = [text for text in _TEXTS if tokenizer.decode(tokenizer.encode(text, special=False)).lstrip() != text]
    said = counted(tokenizer.vocab_size, "token")
    if lost:
        said += f": some texts do not come back as they were, the first {lost[0]!r}"
        yield Finding("vocabulary", WARN, said, "get the file from another publisher, or convert it again")
    else:
        yield Finding("vocabulary", PASS, f"{said}: texts of several scripts come back as they were")


def _template(file: GGUFFile, _progress: Progress) -> Iterator[Finding]:
    """A question, a conversation, instructions."""
    own = "tokenizer.chat_template" in file.metadata
    template = ChatTemplate.from_gguf(file, Tokenizer.from_gguf(file))
    for talk in ([_USER], [_USER, _ANSWER, _USER]):
        template.render(talk)
    try:
        template.render([_SYSTEM, _USER])
    except QcliError:
        said = "renders conversations; it refuses instructions (--system)"
        yield Finding("chat template", WARN, said, "put instructions into your message")
        return
    source = "renders conversations and instructions" if own else "the file has none; a usual one is used in its place"
    yield Finding("chat template", PASS, source)


def _disk(file: GGUFFile, progress: Progress) -> Iterator[Finding]:
    """The disk with the model, by pieces as large as a matrix of an expert; nothing of a model that is read in a moment."""
    experts = [tensor.n_bytes // tensor.shape[0] for tensor in file.tensors.values() if is_expert(tensor)]
    if experts and file.path.stat().st_size >= disk.LARGE:
        found = disk.measured(file.path, max(experts), progress)
        yield disk.told(found, f"the disk of {file.path.name}", max(experts))


def _plan(file: GGUFFile, progress: Progress) -> Iterator[Finding]:
    """Whether it fits, and how fast it would be."""
    result = forecast(file, progress=progress)
    said = verdict(result).replace("\n", "; ")
    if result.speed:
        said += f"; about {rate(result.speed.decode_tok_per_s)} tok/s"
    yield Finding("plan", FAIL if result.mode == "too large" else PASS, said, "", {"mode": result.mode})
