"""Token ids as a caller gives them: whole numbers of any class that the vocabulary has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import index

from qcli.errors import PromptError, UsageError
from qcli.wording import shortened


def token_ids(ids: Iterable[int], vocab_size: int) -> list[int]:
    """The ids as ints of Python; UsageError for one that is no whole number, as 1.5 or True, or that no token has."""
    found = []
    for id in ids:
        try:
            number = None if isinstance(id, bool) else index(id)
        except TypeError:
            number = None
        if number is None:
            raise UsageError(f"{shortened(repr(id))} is no id of a token", _range(vocab_size))
        check_id(number, vocab_size)
        found.append(number)
    return found


def check_ids(ids: Sequence[int], vocab_size: int) -> None:
    """Raise PromptError for a prompt of no ids, UsageError for an id that no token has."""
    if not len(ids):
        raise PromptError("the prompt is empty", "give it some text")
    for id in (min(ids), max(ids)):
        check_id(id, vocab_size)


def check_id(id: int, vocab_size: int) -> None:
    """Raise UsageError for an id that no token has."""
    if not 0 <= id < vocab_size:
        raise UsageError(f"no token has the id {shortened(str(id))}", _range(vocab_size))


def _range(vocab_size: int) -> str:
    return f"ids go from 0 to {vocab_size - 1}"
