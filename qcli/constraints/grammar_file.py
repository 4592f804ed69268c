"""Grammars as people write them: in Lark's syntax, or in llama.cpp's GBNF, which llguidance translates."""

from __future__ import annotations

import re
from typing import Final

from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark

from qcli.errors import UsageError

_GBNF: Final = re.compile(r"^\s*[\w-]+\s*::=", re.MULTILINE)
_ESCAPE: Final = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|.)", re.DOTALL)
_SYNTAX: Final = frozenset('"\\[]^-/')  # characters that mean something in a text or in a class of characters
_HINT: Final = "see llama.cpp's grammars/README.md for GBNF"


def lark_of(text: str, where: str) -> str:
    """A grammar in Lark's syntax; where: what it is called. Raises UsageError with the line of what is wrong in GBNF."""
    if text.lstrip().startswith("{"):  # which llguidance would take for a grammar of its own
        raise UsageError(f"{where}: is JSON, not a grammar", "give it as --schema (schema= in Python)")
    if not _GBNF.search(text):
        return text
    try:
        return _of_one_terminal(gbnf_to_lark(_ESCAPE.sub(_plain, text)))
    except GbnfToLarkError as problem:
        line = problem.pos.text.count("\n", 0, problem.pos.pos) + 1
        said = str(problem).partition(" at line ")[0]
        raise UsageError(f"{where}: line {line}: {said}", _HINT) from None
    except RecursionError:
        raise UsageError(f"{where}: nested too deep", "give parts of it names") from None
    except Exception as problem:  # the translator raises nothing narrower for a rule that is missing
        raise UsageError(f"{where}: {problem}", _HINT) from None


def _plain(escape: re.Match[str]) -> str:
    """An escape as the translator understands it: the character itself, unless that is a part of the syntax."""
    digits = escape[1] or escape[2] or escape[3]
    if digits is None:
        return escape[0]
    code = int(digits, 16)
    if code > 0x10FFFF or 0xD800 <= code < 0xE000:
        raise ValueError(f"{escape[0]} is no character")
    character = chr(code)
    return character if character.isprintable() and character not in _SYNTAX else f"\\x{code:02X}"


def _of_one_terminal(lark: str) -> str:
    """The same grammar as one regular expression, if it is one.

    Else each terminal takes as much of a text as it can, and nothing is left for what follows: [a-z]+ [a-z0-9]+ would never
    be complete.
    """
    rules = re.findall(r"^(\w+):", lark, re.MULTILINE)
    body = lark.partition("\nstart:")[2]
    if [name for name in rules if not name.isupper()] != ["start"] or re.search(r"\bstart\b|\bSTART\b", body):
        return lark
    return lark.replace("\nstart:", "\nstart: START\nSTART:", 1)
