"""Where the answer of `qcli run` goes: all of it, its first block of code, or JSON; to stdout, or into a file."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcli import console
from qcli.commands.answer import Screen, discard, show, thoughts_aside
from qcli.commands.forms import ANY, Form
from qcli.commands.tool_calls import Calls
from qcli.errors import OutputError, QcliError, UsageError
from qcli.host.folders import expanded
from qcli.sessions.session import COMPLETE
from qcli.text.thoughts import Thought, without_tags
from qcli.wording import quantity

if TYPE_CHECKING:
    from qcli.llm import LLM
    from qcli.runtime.stats import Stats
    from qcli.text.code_blocks import FirstBlock

_PARTIAL = ".partial"  # at the end of the name of what is not whole
_WHY = {
    "cancelled": "it was interrupted",
    "length": "it reached --max-tokens, or the context is full",
    "loop": "it repeats itself",
}


@dataclass(frozen=True)
class Output:
    """What was typed of it."""

    as_json: bool = False
    code: bool = False  # the first block alone
    to: str | None = None
    force: bool = False  # replaces a file
    raw: bool = False
    plain: bool = False
    quiet: bool = False
    think: str | int | None = None  # as it was typed
    form: Form = ANY
    max_tokens: int | None = None
    calls: Calls | None = None  # of tools, where there are tools

    def check(self, reads: Iterable[str | Path]) -> None:
        """Raise UsageError, OutputError for a file that cannot be written; reads: what it may not replace."""
        from qcli.host.atomic_files import AtomicFiles

        if self.form.constraint and self.code:
            raise UsageError(
                "-x cannot be used together with --schema, --regex, --choice or --grammar", "leave out one of them"
            )
        if self.force and self.to is None:
            raise UsageError("--force is only for use with -o FILE", "add -o FILE, or leave out --force")
        if self.to == "-":
            raise UsageError("-o takes the name of a file", "leave out -o: without it, the answer is printed")
        if self.to is not None:
            AtomicFiles([expanded(self.to)], self.force, reads=[expanded(path) for path in reads])

    def read(self, pieces: Generator[str, None, None], bar: console.status, llm: LLM) -> Answered:
        """Read an answer to its end, or to that of the code that is wanted of it, and show it as it comes if it is to be."""
        from qcli.text.code_blocks import FirstBlock

        pieces = self.calls.apart(pieces) if self.calls else pieces
        thoughts: list[str] = []
        block = FirstBlock() if self.code else None
        aside = thoughts.append if self.as_json else thoughts_aside(llm, self.think, self.quiet)
        if self._is_unseen():
            said: list[str] = []
            interrupted = show(_unseen(pieces, said, bar, block), bar, discard, aside)[1]
            text = "".join(said)
        else:
            screen = Screen(self.plain or self.raw or self.form.constraint is not None)
            text, interrupted = show(pieces, bar, screen, aside)
            if text or not (self.calls and self.calls.whole):
                screen.end_line(text)
        finish = "stop" if block and block.found is not None else llm.stats.finish_reason
        cut = interrupted or finish not in (("stop", "length") if self.raw else COMPLETE)
        if self.form.constraint:
            cut = interrupted or not llm.stats.fits
        code = block.end() if block and not cut else None
        return Answered(text, without_tags("".join(thoughts)), code, finish, interrupted, cut)

    def write(self, answer: Answered, llm: LLM, reads: Iterable[Path]) -> None:
        """Print what is wanted of an answer and was not shown yet, or write it into the file.

        A file of that name holds what is whole: what was cut is written beside it. Raises OutputError if it cannot be
        written; an answer that was not shown is then printed.
        """
        if self.to is not None:
            if (text := self._text(answer, llm)) and (answer.text or not answer.cut):
                self._write_file(text, answer, reads)
        elif answer.cut and self.form.hides_what_is_cut:
            return
        elif self.as_json:
            console.json(self._as_json(answer, llm))
        elif answer.code is not None:
            console.out(answer.code)
        elif self.form.is_shown_whole:
            console.out(self._text(answer, llm))

    def lacks(self, answer: Answered, stats: Stats) -> QcliError | None:
        """What of what is wanted an answer does not have, if it was not told yet."""
        if self.form.constraint and not answer.interrupted and (self.to is None or self.quiet):
            return self.form.lacks(stats, self.max_tokens)
        if not self.code or answer.code is not None or answer.interrupted:
            return None
        if answer.cut:
            hint = "leave out -x to see what there is of the answer"
            return QcliError(f"the answer has no complete block of code: {_WHY[answer.why]}", hint)
        return QcliError("the answer has no block of code", "leave out -x to see it, or ask for code")

    def _text(self, answer: Answered, llm: LLM) -> str:
        if self.as_json:
            return json.dumps(self._as_json(answer, llm), ensure_ascii=False, indent=2) + "\n"
        if self.code:
            return answer.code or ""
        return answer.text if answer.text.endswith("\n") else answer.text + "\n"

    def _write_file(self, text: str, answer: Answered, reads: Iterable[Path]) -> None:
        from qcli.host.atomic_files import AtomicFiles

        to = expanded(self.to or "")
        path = to.with_name(to.name + _PARTIAL) if answer.cut else to
        data = text.encode("utf-8", "replace")
        try:
            with AtomicFiles([path], self.force or answer.cut, reads=reads) as files:
                files.open(path).write(data)
        except OutputError:
            if self._is_unseen():
                console.out(text)
            raise
        if not self.quiet:
            cut = f"the answer is not complete: {_WHY[answer.why]}; " if answer.cut else ""
            console.info(f"{cut}written to {path} · {quantity(len(data), 'B')}")

    def _is_unseen(self) -> bool:
        """Whether an answer is not shown as it comes."""
        return (
            self.as_json
            or self.code
            or self.form.is_shown_whole
            or (self.to is not None and not console.answers_a_person())
        )

    def _as_json(self, answer: Answered, llm: LLM) -> dict[str, Any]:
        stats = llm.stats
        timings = ("load_s", "ttft_s", "prefill_tok_per_s", "decode_tok_per_s")
        return {
            "model": llm.name,
            "text": answer.text,
            **self.form.as_json(answer.text, stats),
            **({"code": answer.code} if self.code else {}),
            "thoughts": answer.thoughts,
            "prompt_tokens": stats.prompt_tokens,
            "new_tokens": stats.new_tokens,
            "finish_reason": answer.finish_reason,
            **({"tool_calls": self.calls.listed()} if self.calls else {}),
            **({"logprobs": stats.logprobs} if stats.logprobs else {}),
            "timings": {name: round(getattr(stats, name), 4) for name in timings},
        }


@dataclass(frozen=True)
class Answered:
    """An answer that was read."""

    text: str
    thoughts: str
    code: str | None  # its first block, if it is whole
    finish_reason: str
    interrupted: bool
    cut: bool  # whether there would be more of it

    @property
    def why(self) -> str:
        """Why it is cut."""
        return "cancelled" if self.interrupted else self.finish_reason


def _unseen(
    pieces: Generator[str, None, None], said: list[str], bar: console.status, block: FirstBlock | None
) -> Generator[str, None, None]:
    """The thoughts of an answer; its text is added to `said`, up to the end of the block that is looked for, if one is."""
    size = 0
    with closing(pieces):
        for piece in pieces:
            if isinstance(piece, Thought):
                yield piece
                continue
            said.append(piece)
            size += len(piece)
            bar.update("answering", 0.0, f"{size:,} characters")
            if block and block.push(piece):
                return
