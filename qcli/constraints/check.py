"""Checks a grammar before a model is there: whether it can be read, is small enough, and allows anything."""

from __future__ import annotations

from functools import cache

from llguidance import LLMatcher

from qcli.constraints.matcher import LIMITS, PREFIX, Matcher
from qcli.constraints.reasons import worded
from qcli.constraints.vocabulary import Vocabulary
from qcli.errors import QcliError, UsageError
from qcli.wording import shortened

_bytes = cache(Vocabulary.of_bytes)


def reason(grammar: str) -> str | None:
    """Why a grammar cannot be followed, in one line; None if it can."""
    wrong, said = LLMatcher.validate_grammar_with_warnings(grammar, limits=LIMITS)
    if said and (wrong or any("can't validate" in warning for warning in said)):
        return worded(said[0])
    try:
        Matcher(_bytes(), grammar).mask()
    except QcliError as problem:
        return problem.message.removeprefix(PREFIX)
    return None


def check(grammar: str, where: str, text: str = "") -> None:
    """Raise UsageError for a grammar that cannot be followed; where: what it is called; text: a short one, to show."""
    if why := reason(grammar):
        shown = f"{where} {shortened(text)}" if text else where
        raise UsageError(f"{shown}: {why}", "see `qcli run --help` for what can be given")
