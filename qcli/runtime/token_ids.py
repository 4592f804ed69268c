"""Token ids as a caller gives them: whole numbers of any class that the vocabulary has."""

from __future__ import annotations

from collections.abc import Iterable
from operator import index

from qcli.errors import UsageError
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
