"""Grammars as people write them: in Lark's syntax, or in llama.cpp's GBNF, which llguidance translates."""

from __future__ import annotations

import re

from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark

from qcli.errors import UsageError

_GBNF = re.compile(r"^\s*[\w-]+\s*::=", re.MULTILINE)


def lark_of(text: str, where: str) -> str:
    """A grammar in Lark's syntax; where: what it is called. Raises UsageError with the line of what is wrong in GBNF."""
    if not _GBNF.search(text):
        return text
    try:
        return gbnf_to_lark(text)
    except GbnfToLarkError as problem:
        line = text.count("\n", 0, problem.pos.pos) + 1
        said = str(problem).partition(" at line ")[0]
        raise UsageError(f"{where}: line {line}: {said}", "see llama.cpp's grammars/README.md for GBNF") from None
    except RecursionError:
        raise UsageError(f"{where}: nested too deep", "give parts of it names") from None
    except Exception as problem:  # the translator raises nothing narrower for a rule that is missing
        raise UsageError(f"{where}: {problem}", "see llama.cpp's grammars/README.md for GBNF") from None
