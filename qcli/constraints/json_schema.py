"""JSON Schema: read, checked, and made a grammar of compact JSON."""

from __future__ import annotations

import json
from math import isfinite
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from llguidance import LLMatcher

from qcli.constraints.check import reason, refusal
from qcli.constraints.multiples import MOST, remainders
from qcli.constraints.narrowing import closed, without_branches, without_remarks
from qcli.constraints.reasons import TOO_LARGE
from qcli.constraints.schema_parts import DEFINITIONS, parts_of
from qcli.errors import UsageError
from qcli.wording import shortened

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

_DEEPEST: Final = 50  # levels of a schema; llguidance reads 127 levels of JSON
_MOST: Final = 10_000  # values in a schema
_LONGEST: Final = 200_000  # characters of all its texts
_SEARCHED: Final = 0.3  # seconds in which parts of a wrong schema are tried, to tell which it is
_OPTIONS: Final[JsonCompileOptions] = {
    "whitespace_flexible": False,
    "item_separator": ",",
    "key_separator": ":",
}  # white space can be endless
_EXAMPLE: Final = '{"type": "object", "properties": {…}}'
_WRAPPERS: Final = ("json_schema", "schema")
_WORDS: Final = frozenset(
    """
    $schema $id $ref $defs $anchor $comment $dynamicRef $dynamicAnchor $recursiveRef $recursiveAnchor $vocabulary
    definitions id title description default examples deprecated readOnly writeOnly type enum const not if then else allOf
    anyOf oneOf properties patternProperties additionalProperties unevaluatedProperties propertyNames required
    minProperties maxProperties dependentRequired dependentSchemas dependencies items prefixItems additionalItems
    unevaluatedItems contains minContains maxContains minItems maxItems uniqueItems minLength maxLength pattern format
    contentEncoding contentMediaType contentSchema minimum maximum exclusiveMinimum exclusiveMaximum multipleOf
    """.split()
)
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")


def parsed(text: str, where: str) -> Any:
    """A schema of its JSON; where: what the text is called. Raises UsageError with the line of what is no JSON."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except json.JSONDecodeError as problem:
        place = f"line {problem.lineno}, column {problem.colno}"
        raise UsageError(f"{where}: is not valid JSON: {place}: {problem.msg}", "give a JSON Schema") from None
    except RecursionError:
        raise _too_deep(where) from None
    except ValueError as problem:
        raise UsageError(f"{where}: is not valid JSON: {problem}", "give a JSON Schema") from None


def grammar_of(schema: Any, where: str) -> str:
    """A grammar of JSON that fits a schema; where: what the schema is called. Raises UsageError with the place."""
    if not isinstance(schema, dict | bool):
        raise UsageError(f"{where}: a schema is an object", f"give one such as {_EXAMPLE}")
    if isinstance(schema, bool):
        schema = {} if schema else {"enum": []}
    _check_size(schema, where)
    _check_words(schema, where)
    for pointer, part in parts_of(schema):
        for key in _REFERENCES:
            target = part.get(key)
            if isinstance(target, str) and not target.startswith("#") and target != schema.get("$id"):
                message = f"{where}: {_place(pointer)}: {key} to {shortened(target)}, which is outside of the schema"
                raise UsageError(message, "put what it names under $defs, and refer to it as #/$defs/NAME")
    if remainders(schema) > MOST:
        message = f"{where}: multipleOf cannot be followed: there are too many remainders"
        raise UsageError(message, f"give {MOST:,} at most, or more with zeros at the end")
    schema = without_remarks(schema)
    try:
        grammar, why = _grammar_and_reason(schema)
        if why not in (None, TOO_LARGE):
            other, still = _grammar_and_reason(_without_branches(schema))
            grammar, why = (grammar, why) if still else (other, None)
    except ValueError as problem:
        raise UsageError(f"{where}: {problem}", "give a JSON Schema") from None
    if why:
        place = "" if why == TOO_LARGE else f"{_place(_wrong_part(schema, why))}: "
        raise UsageError(f"{where}: {place}{why}", "put it right, or leave it out")
    return grammar


def _grammar_and_reason(schema: Any) -> tuple[str, str | None]:
    """A grammar of what fits a schema, and why it cannot be followed."""
    grammar = _grammar(schema)
    if any("oneOf" in part for _, part in parts_of(schema)) and (why := reason(grammar)):
        return grammar, why  # were its branches closed, they would seem not to overlap
    narrowed = _grammar(closed(schema))
    why = reason(narrowed)
    return (narrowed, why) if why in (None, TOO_LARGE) else (grammar, reason(grammar))


def _without_branches(schema: Any) -> Any:
    until = monotonic() + _SEARCHED
    shared = _definitions(schema)
    return without_branches(schema, lambda part: monotonic() > until or not refusal(_grammar({**shared, **part})))


def _definitions(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: schema[key] for key in DEFINITIONS if key in schema}


def _grammar(schema: Any) -> str:
    grammar: str = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_OPTIONS)
    return grammar


def _check_size(schema: Any, where: str) -> None:
    """Raise UsageError for a schema that is too deep or too large, or holds something that is not JSON."""
    waiting, seen, characters = [(schema, 0)], 0, 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        characters += len(value) if isinstance(value, str) else 0
        if depth > _DEEPEST:
            raise _too_deep(where)
        if seen > _MOST:
            raise UsageError(f"{where} is too large: more than {_MOST:,} values", "give a smaller one")
        if characters > _LONGEST:
            raise UsageError(f"{where} is too large: more than {_LONGEST:,} characters", "give a smaller one")
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            characters += sum(map(len, value))
            waiting += [(part, depth + 1) for part in value.values()]
        elif isinstance(value, list | tuple):
            waiting += [(part, depth + 1) for part in value]
        elif not isinstance(value, str | int | float | bool | None) or (
            isinstance(value, float) and not isfinite(value)
        ):
            raise UsageError(f"{where} holds something that is not JSON: {value!r:.60}", "give a JSON Schema")


def _check_words(schema: dict[str, Any], where: str) -> None:
    """Raise UsageError for what is an example of an answer, or has the schema within it as OpenAI's clients send it."""
    within = next((key for key in _WRAPPERS if isinstance(schema.get(key), dict)), None)
    if within and "properties" not in schema:
        raise UsageError(f"{where}: what stands under {within} is the schema", "give that part alone")
    if schema and not any(key in _WORDS for key in schema):
        named = shortened(", ".join(schema))
        raise UsageError(f"{where}: no word of JSON Schema in it: {named}", f"describe an answer: {_EXAMPLE}")


def _wrong_part(schema: Any, why: str) -> str:
    """The pointer of the innermost schema that cannot be followed for the same reason."""
    found, shared = "", _definitions(schema)
    why_not = refusal if refusal(_grammar(schema)) else reason
    until = monotonic() + _SEARCHED
    for pointer, part in parts_of(schema):
        if monotonic() > until:
            break
        if pointer.startswith(found) and why_not(_grammar({**shared, **part})) == why:
            found = pointer
    return found


def _place(pointer: str) -> str:
    return f"at {shortened('#' + pointer)}"


def _too_deep(where: str) -> UsageError:
    return UsageError(f"{where} is nested too deep: more than {_DEEPEST} levels", "name its parts under $defs")


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
