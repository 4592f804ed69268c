"""Checks a grammar before a model is there: whether it can be read, is small enough, and allows anything."""

from __future__ import annotations

import re
from functools import cache

from llguidance import LLMatcher

from qcli.constraints.matcher import LIMITS, PREFIX, Matcher
from qcli.constraints.reasons import worded
from qcli.constraints.vocabulary import Vocabulary
from qcli.errors import QcliError, UsageError
from qcli.wording import shortened

_STEPS = 48  # tokens of a text that are tried
_RUNS = (2, 4, 8, 16, 32, 64, 128)  # letters in a row that are one token


@cache
def _simple() -> Vocabulary:
    """A vocabulary that is made in 3 ms: bytes, and runs of letters, so that repetitions are as hard as with words."""
    letters = [bytes([byte]) for byte in range(0x20, 0x7F)]
    runs = [letter * length for letter in letters for length in _RUNS]
    return Vocabulary([bytes([byte]) for byte in range(256)] + runs, lambda text: list(text.encode()))


def refusal(grammar: str) -> str | None:
    """Why a grammar is refused as soon as it is read, in one line; None if it is not."""
    wrong, said = LLMatcher.validate_grammar_with_warnings(grammar, limits=LIMITS)
    if said and (wrong or any("can't validate" in warning for warning in said)):
        return worded(said[0])
    return None


def reason(grammar: str) -> str | None:
    """Why a grammar cannot be followed, in one line; None if it can."""
    if why := refusal(grammar):
        return why
    try:
        _try(Matcher(_simple(), grammar))
    except QcliError as problem:
        return problem.message.removeprefix(PREFIX)
    return None


def check(grammar: str, where: str, text: str = "", is_as_typed: bool = True) -> None:
    """Raise UsageError for a grammar that cannot be followed; where: what it is called; text: a short one, to show.

    is_as_typed: whether its lines are those of the text that was given, so that a place means something to a person.
    """
    if why := reason(grammar):
        why = why if is_as_typed else re.sub(r"^line \d+, column \d+: ", "", why)
        shown = f"{where} {shortened(text)}" if text else where
        raise UsageError(f"{shown}: {why}", "see `qcli run --help` for what can be given")


def _try(matcher: Matcher) -> None:
    """Take the beginning of a text. Raises QcliError where it cannot go on, or takes too long."""
    for _ in range(_STEPS):
        mask, _ = matcher.mask()
        ids = matcher.forced() or [id for id in range(256) if _simple().has(mask, id)][:1]
        if not ids:
            return
        matcher.accept_all(ids)  # all that is forced, which may be long, and would be made for each token again
