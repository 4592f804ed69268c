"""Why a grammar cannot be followed, in words of people who give one."""

from __future__ import annotations

import re
from typing import Final

_TYPES: Final = "string, integer, number, boolean, array, object, null"
TOO_LARGE: Final = "it is too large"
_WORDED: Final = (  # what llguidance says -> what a person reads
    (r".*too big.*|.*too large.*|.*too many.*|.*size limit.*|.*Current row has.*|panic:.*", TOO_LARGE),
    (r".*Too many items.*", "it is too complex, or no text of an end fits it"),
    (r"Unknown format: (.*)", r"the format \1 cannot be followed"),
    (r"Invalid type: (.*)", rf"\1 is none of the types {_TYPES}"),
    (r"decimal literal invalid", "a number in it is too large"),
    (r"NoExtension.*", "no text fits it"),
    (r"LexerTooComplex|ParserTooComplex", "it is too complex"),
    (r".*Default retriever does not fetch.*", "it refers to what is outside of it"),
    (r".*look-around.*", "it looks ahead or behind, which cannot be followed"),
    (r".*backreferences are not supported.*", "it has backreferences, which cannot be followed"),
    (r"Unimplemented keys: \[(.*)\]", r"\1 cannot be followed"),
    (r"oneOf constraints are not supported.*", "oneOf cannot be followed where one value may fit several: anyOf can"),
    (r"no tokenizer - can't validate .*", "it names tokens of a model; a text alone can be constrained"),
)


def worded(said: str) -> str:
    """One line of what llguidance says of a wrong grammar, with its place in the text where it has one."""
    lines = [line.strip() for line in said.strip().splitlines() if line.strip()]
    line = next((line for line in lines if line.startswith("error:")), lines[0] if lines else "it is wrong")
    line = line.removeprefix("error:").strip()
    place = re.match(r"(?:at )?(\d+)\((\d+)\): (.*)", lines[0]) if lines else None
    if place and line == lines[0]:
        line = place[3]
    for pattern, replacement in _WORDED:
        if re.search(pattern, line):
            line = re.sub(f"^.*?{pattern}.*$", replacement, line, flags=re.DOTALL)
            break
    at = f"line {place[1]}, column {place[2]}: " if place and not lines[0].startswith("at 1(8): invalid regex") else ""
    return at + line
