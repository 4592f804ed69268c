"""The form that an answer is to have, as it is given: a JSON schema, a regular expression, choices or a grammar."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llguidance import LLMatcher

from qcli.constraints import json_schema
from qcli.constraints.check import check
from qcli.constraints.grammar_file import lark_of
from qcli.errors import UsageError
from qcli.terminal.text_input import STDIN, read_file
from qcli.wording import counted, shortened

_LONGEST: Final = 1 << 20  # characters of what is given
_MOST_CHOICES: Final = 10_000


@dataclass(frozen=True)
class Constraint:
    """A form that was checked."""

    grammar: str  # as llguidance reads it
    is_json: bool = False  # whether answers are JSON


def constraint(
    schema: Any = None,
    regex: str | None = None,
    choices: Sequence[str] | None = None,
    grammar: str | Path | None = None,
) -> Constraint | None:
    """The one of these that is given, checked; None if none is.

    schema: a JSON Schema as a mapping, as JSON, or as the path of a file; a pydantic model, a dataclass, or another type;
    regex: of a whole answer, in the syntax of Rust's regex; choices: whole answers; grammar: the path of a file in Lark's
    syntax or in GBNF, or a text in either. Raises UsageError for one that is wrong or too large, and for more than one.
    """
    given = {"a schema": schema, "a regular expression": regex, "choices": choices, "a grammar": grammar}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise UsageError(f"{named[0]} and {named[1]} cannot be used together", "give one of them")
    if schema is not None:
        return Constraint(json_schema.grammar_of(*_read_schema(schema)), is_json=True)
    if regex is not None:
        return Constraint(_regex(regex))
    if choices is not None:
        return Constraint(_choices(choices))
    return None if grammar is None else Constraint(_grammar(grammar))


def _read_schema(given: Any) -> tuple[Any, str]:
    """A schema, and what it is called."""
    if given == "":
        raise UsageError("the schema is empty", "give a JSON Schema, or the path of a file")
    if isinstance(given, str) and not given.lstrip().startswith(("{", "[")) and given.strip() not in ("true", "false"):
        given = Path(given)
    if isinstance(given, Path):
        return json_schema.parsed(_read(given, "the schema"), str(given)), str(given)
    if isinstance(given, str):
        return json_schema.parsed(_limited(given, "the schema"), "the schema"), "the schema"
    if isinstance(given, dict | bool):
        return given, "the schema"
    from qcli.constraints.python_types import schema_of

    return schema_of(given), f"the schema of {getattr(given, '__name__', given)}"


def _regex(given: str) -> str:
    if not isinstance(given, str):
        raise UsageError(f"{given!r:.60} is not a regular expression", "give a text")
    grammar: str = LLMatcher.grammar_from_regex(_limited(given, "the regular expression"))
    check(grammar, "the regular expression", given)
    return grammar


def _choices(given: Sequence[str]) -> str:
    if not isinstance(given, list | tuple | set) or not all(isinstance(choice, str) for choice in given):
        raise UsageError(f"{given!r:.60} are no choices", "give a list of texts")
    choices = list(dict.fromkeys(given))
    if not choices or "" in choices:
        raise UsageError("a choice cannot be empty", "give each a text")
    if len(choices) > _MOST_CHOICES:
        raise UsageError(f"{counted(len(choices), 'choice')} are too many", f"give at most {_MOST_CHOICES:,}")
    _limited("".join(choices), "the choices")
    grammar: str = LLMatcher.grammar_from_lark("start: CHOICE\nCHOICE: " + " | ".join(map(json.dumps, choices)))
    check(grammar, "the choices")
    return grammar


def _grammar(given: str | Path) -> str:
    if not isinstance(given, str | Path):
        raise UsageError(f"{given!r:.60} is not a grammar", "give its text, or the path of a file")
    if given == "":
        raise UsageError("the grammar is empty", "give its text, or the path of a file")
    is_text = isinstance(given, str) and any(sign in given for sign in ("\n", "::=", "start:"))
    text = _limited(str(given), "the grammar") if is_text else _read(Path(given), "the grammar")
    where = "the grammar" if is_text else str(given)
    lark = lark_of(text, where)
    grammar: str = LLMatcher.grammar_from_lark(lark)
    check(grammar, where, is_as_typed=lark == text)
    return grammar


def _read(path: Path, what: str) -> str:
    if str(path) == STDIN:
        raise UsageError(f"{what} cannot come from standard input", "give the name of a file")
    return _limited(read_file(str(path)), str(path))


def _limited(text: str, where: str) -> str:
    if len(text) > _LONGEST:
        raise UsageError(f"{shortened(where)} is too long: {len(text):,} characters", f"give at most {_LONGEST:,}")
    return text
