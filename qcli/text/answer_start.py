"""Where thoughts end and the answer begins: blank lines between the two are no part of the answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from qcli.text.thoughts import Thought
from qcli.tools.call import MalformedCall, ToolCall


class AnswerStart:
    """Passes the pieces of an answer on; line ends around the thoughts that it begins with become Thoughts, too."""

    def __init__(self) -> None:
        self._lines = ""  # before the answer's first character, and it is not known yet what they belong to
        self._thought = self._begun = False  # whether a thought has come, whether the answer has begun

    def push(self, pieces: Iterable[str]) -> Iterator[str]:
        """The pieces, as far as it is known what they belong to."""
        for piece in pieces:
            if self._begun or not piece:
                yield piece
            elif isinstance(piece, ToolCall | MalformedCall):
                self._begun = True
                if self._thought:
                    yield from self.flush()
                self._lines = ""
                yield piece
            elif isinstance(piece, Thought):
                self._thought = True
                yield from self.flush()
                yield piece
            else:
                text = piece.lstrip("\n")
                self._lines += piece[: len(piece) - len(text)]
                self._begun = bool(text)
                if self._begun or self._thought:
                    yield from self.flush()
                    yield text

    def flush(self) -> Iterator[str]:
        """The line ends that were kept back, now that it is known what they belong to."""
        lines, self._lines = self._lines, ""
        yield Thought(lines) if self._thought else lines
