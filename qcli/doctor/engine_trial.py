"""The embedded model end to end: a text that is known, and bits that must be the same whichever way they are computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qcli.catalog.resolve import resolve
from qcli.doctor.finding import FAIL, MAKE_ANEW, PASS, Finding
from qcli.gguf.file import GGUFFile
from qcli.host.temporary import temporary_folder
from qcli.host.threads import default_threads
from qcli.progress import Progress
from qcli.runtime import saved_text
from qcli.runtime.build import streamed_model_of
from qcli.runtime.engine import Engine
from qcli.runtime.prefix_cache import PrefixCache
from qcli.text.tokenizer import Tokenizer

PROMPT: Final = "Once upon a time"
# The likeliest words after it; the second likeliest of each is well apart (0.12 in logits at the least).
ANSWER: Final = ", there was a little girl named Lily. She loved to play outside in the sunshine. One day,"
_CTX: Final = 128  # tokens
_STEPS: Final = 4  # tokens one by one
_SLOTS: Final = 2  # experts of a layer in memory, where they are streamed

Logits = list[NDArray[np.float32]]


def check(progress: Progress) -> Iterator[Finding]:
    """Load the embedded model, and compare."""
    path, _ = resolve(None)
    many = max(2, default_threads())
    with GGUFFile.open(path) as file, closing(Engine.load(file, threads=many, ctx=_CTX, progress=progress)) as engine:
        tokenizer = Tokenizer.from_gguf(file)
        yield _golden(engine, tokenizer)
        ids = tokenizer.encode(PROMPT + ANSWER)
        expected = _logits(engine, ids)
        progress("several tokens at once", 0.3)
        same, count = _same(expected, _logits_of_a_step(engine, ids)), _STEPS
        said = f"a step of {count} tokens gives the same bits as {count} steps"
        yield _told("several tokens", same, said, f"a step of {count} tokens gives other bits than {count} steps")
        progress("threads", 0.4)
        with closing(Engine.load(file, threads=1, ctx=_CTX)) as other:
            same = _same(expected, _logits(other, ids))
            yield _told("threads", same, f"1 and {many} threads give the same bits", f"1 and {many} threads disagree")
            progress("saved texts", 0.6)
            yield _saved(file, engine, other, ids)
        progress("experts from the disk", 0.8)
        with closing(_streamed(file, many, lambda stage, _: progress(stage, 0.8))) as streamed:
            same = _same(expected, _logits(streamed, ids))
        said = "experts read from the disk give the same bits as those in memory"
        yield _told("streaming", same, said, "experts read from the disk give other bits than those in memory")


def _told(name: str, same: bool, good: str, bad: str) -> Finding:
    return Finding(name, PASS, good) if same else Finding(name, FAIL, bad, MAKE_ANEW)


def _golden(engine: Engine, tokenizer: Tokenizer) -> Finding:
    """The likeliest words, one after the other."""
    expected = tokenizer.encode(ANSWER)
    logits, said = engine.prefill(tokenizer.encode(PROMPT)), list[int]()
    for _ in expected:
        said.append(int(logits.argmax()))
        logits = engine.step(said[-1])
    bad = f"the embedded model says {tokenizer.decode(said)!r:.60}, which it should not"
    return _told("text", said == expected, "the embedded model tells the story that it should", bad)


def _logits(engine: Engine, ids: Sequence[int]) -> Logits:
    """Of a prompt, and of tokens one by one after it."""
    engine.reset()
    return [engine.prefill(ids[:-_STEPS]).copy(), *_steps(engine, ids[-_STEPS:])]


def _logits_of_a_step(engine: Engine, ids: Sequence[int]) -> Logits:
    """Of the same prompt, and of the tokens after it, all of them in one step."""
    engine.reset()
    return [engine.prefill(ids[:-_STEPS]).copy(), *engine.steps(ids[-_STEPS:]).copy()]


def _steps(engine: Engine | PrefixCache, ids: Sequence[int]) -> Logits:
    return [engine.step(token).copy() for token in ids]


def _same(a: Logits, b: Logits) -> bool:
    """To the bit."""
    return all(one.tobytes() == other.tobytes() for one, other in zip(a, b, strict=True))


def _saved(file: GGUFFile, engine: Engine, other: Engine, ids: Sequence[int]) -> Finding:
    """A text gone on with, gone back to, and read from a file by another engine."""
    text, rest = _from_the_start(engine), ids[-_STEPS:]
    text.prefill(ids[:-_STEPS])
    checkpoint = text.checkpoint()
    with temporary_folder() as folder:
        saved_text.save(folder / "text", checkpoint, engine.state, file, overwrite=False)
        expected = _steps(text, rest)
        text.restore(checkpoint)
        back = _same(expected, _steps(text, rest))
        read = _from_the_start(other)
        read.adopt(lambda: saved_text.load(folder / "text", other.vocab_size, other.state, file))
        loaded = _same(expected, _steps(read, rest))
    good = "a text that is left, or saved and read again, goes on with the same bits"
    bad = "a text goes on with other bits after it was " + ("saved and read again" if back else "left and come back to")
    return _told("saved texts", back and loaded, good, bad)


def _from_the_start(engine: Engine) -> PrefixCache:
    engine.reset()
    return PrefixCache(engine)


def _streamed(file: GGUFFile, threads: int, progress: Progress) -> Engine:
    """An engine with hardly any expert in memory, which leaves no notes about their usage."""
    model, state, loader = streamed_model_of(file, _CTX, "f16", None)
    loader.saves_usage = False
    engine = Engine(model, state, threads, _CTX, progress, expert_loader=loader)
    loader.allocate(max(_SLOTS, loader.experts_per_token))
    return engine
