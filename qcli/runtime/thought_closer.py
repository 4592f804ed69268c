"""Closes a thought before the model does: when its tokens are used up, or when somebody has had enough of it.

The closing words are not drawn but given, one id after the other as if the model had chosen them, so that whoever goes on
with the answer finds them among its ids. What comes next follows from the ids so far alone: an answer that was interrupted,
in the midst of these words too, goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from qcli.text.thoughts import AnswerParser

_PATIENCE = 8  # ids that a half-written character or tag is waited for


class ThoughtCloser:
    """Stands before the parser of an answer, which it feeds, and knows which id has to come next."""

    def __init__(self, parser: AnswerParser, words: Callable[[], Sequence[int]], budget: int | None = None) -> None:
        """words: the ids that close a thought, asked for when they are needed; budget: tokens of each thought, None: any."""
        self._parser, self._words, self._budget = parser, words, budget
        self._asked = False  # whether this thought has been enough
        self._used = self._waited = 0  # ids of this thought, and of them those since it was to be closed
        self._coming: list[int] = []  # the ids that have to come next

    @property
    def thinking(self) -> bool:
        """Whether what comes next belongs to a thought."""
        return self._parser.thinking

    def push(self, id: int) -> Iterator[str]:
        """The pieces that this id completes, as the parser makes them."""
        thought = self._parser.thinking
        pieces = list(self._parser.push(id))
        self._used += 1
        if self._coming[:1] == [id]:
            del self._coming[0]
            if not self._coming:
                self._rest()
        else:  # the ids of an answer that was begun under another budget
            self._coming = []
        if not (thought and self._parser.thinking):
            self._rest()
        self._waited += self._is_enough()
        self._close_if_due()
        return iter(pieces)

    def flush(self) -> Iterator[str]:
        """The rest of the text, after the last id."""
        return self._parser.flush()

    def end_thought(self) -> None:
        """Close the thought that the answer is in; nothing outside of one. From any thread."""
        self._asked = self._parser.thinking

    def next_id(self) -> int | None:
        """The id that has to come next; None if the model is free to choose."""
        self._close_if_due()
        return self._coming[0] if self._coming else None

    def _is_enough(self) -> bool:
        return self._asked or (self._budget is not None and self._parser.thinking and self._used >= self._budget)

    def _close_if_due(self) -> None:
        """Have the closing words come, once no character and no tag is half-written."""
        if self._coming or not self._parser.thinking or not self._is_enough():
            return
        if self._parser.is_whole or self._waited > _PATIENCE:
            self._coming = [*self._words()]

    def _rest(self) -> None:
        """As before any thought: closed, or closing words that this text does not end by would come without end."""
        self._asked, self._used, self._waited = False, 0, 0
