"""Token ids as a caller gives them: whole numbers of any class that the vocabulary has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import index

from qcli.errors import PromptError, UsageError
from qcli.wording import shortened


def token_ids(ids: Iterable[int], vocab_size: int) -> list[int]:
    """The ids as ints of Python; UsageError for one that is no whole number, as 1.5 or True, or that no token has."""
    hint = f"ids go from 0 to {vocab_size - 1}"
    found = []
    for id in ids:
        try:
            number = None if isinstance(id, bool) else index(id)
        except TypeError:
            number = None
        if number is None:
            raise UsageError(f"{shortened(repr(id))} is no id of a token", hint)
        if not 0 <= number < vocab_size:
            raise UsageError(f"no token has the id {shortened(str(id))}", hint)
        found.append(number)
    return found


def check_ids(ids: Sequence[int], vocab_size: int) -> None:
    """Raise PromptError for a prompt of no ids, UsageError for an id that no token has."""
    if not len(ids):
        raise PromptError("the prompt is empty", "give it some text")
    for id in (min(ids), max(ids)):
        if not 0 <= id < vocab_size:
            raise UsageError(f"no token has the id {id}", f"ids go from 0 to {vocab_size - 1}")
