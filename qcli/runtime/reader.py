"""What reads the ids of an answer as they come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class Reader(Protocol):
    """Makes text of ids, thoughts as Thought: AnswerParser, and what stands before it."""

    @property
    def thinking(self) -> bool:
        """Whether what comes next belongs to a thought."""

    def push(self, id: int) -> Iterator[str]:
        """The pieces that this id completes."""

    def flush(self) -> Iterator[str]:
        """The rest of the text, after the last id."""
