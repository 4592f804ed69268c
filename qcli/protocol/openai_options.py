"""The options of OpenAI's requests, and some that llama.cpp's and vLLM's servers have beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from qcli.errors import UsageError
from qcli.protocol.errors import RequestError
from qcli.protocol.fields import Fields, shown
from qcli.runtime.sampling import OPTIONS

if TYPE_CHECKING:
    from qcli.runtime.answer_options import Options

_MOST_STOPS: Final = 16
_LONGEST_STOP: Final = 1000  # characters
MOST_TOKENS: Final = 1 << 31
_MOST_ANSWERS: Final = 32  # to one request
_SAMPLING: Final = {  # by the name that a request has
    **{name: name for name in ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty")},
    "repeat_penalty": "repeat_penalty",
    "repetition_penalty": "repeat_penalty",
}
_EFFORTS: Final = {"none": "off", "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high"}
_REFUSED: Final = {  # fields that would change the answer, and what they must be to change nothing
    "best_of": 1,
    "echo": False,
    "suffix": "",
    "logit_bias": {},
    "functions": [],
    "function_call": "none",
    "modalities": ["text"],
    "audio": {},
}


def common_options(fields: Fields) -> Options:
    """Those of chats and of plain completions. Raises RequestError."""
    for name, nothing in _REFUSED.items():
        if fields.has(name) and fields.values[name] != nothing:
            hint = "give tools instead" if name.startswith("function") else "leave it out"
            raise RequestError(f"{fields.path(name)} is not supported", hint, param=fields.path(name))
    options = sampling_options(fields, _SAMPLING)
    if fields.has("seed"):
        seed = fields.whole("seed", -(2**63), 2**64 - 1)
        options["seed"] = None if seed is None else seed % 2**64
    if stops := stop_strings(fields, "stop"):
        options["stop"] = stops
    if (most := fields.whole("max_tokens", 1, MOST_TOKENS)) is not None:
        options["max_tokens"] = most
    return options


def count_of(fields: Fields) -> int:
    """How many answers a request wants. Raises RequestError."""
    return fields.whole("n", 1, _MOST_ANSWERS) or 1


def sampling_options(fields: Fields, names: dict[str, str]) -> Options:
    """Sampling options, by the names that requests have for them. Raises RequestError for a value out of its range."""
    found: Options = {}
    for given, name in names.items():
        if fields.has(given):
            try:
                found[name] = OPTIONS[name].check(given, fields.values[given])  # type: ignore[literal-required]
            except UsageError as problem:
                raise RequestError(problem.message, problem.hint, param=given) from None
    return found


def stop_strings(fields: Fields, name: str) -> list[str]:
    """Texts before which the answer ends: one, or a list."""
    given = fields.values.get(name)
    listed = [given] if isinstance(given, str) else given or []
    good = isinstance(listed, list) and all(isinstance(one, str) and 0 < len(one) <= _LONGEST_STOP for one in listed)
    if not good or len(listed) > _MOST_STOPS:
        raise fields.wrong(name, f"give a text, or at most {_MOST_STOPS} of them, none of them empty")
    return listed


def form_options(fields: Fields, name: str) -> Options:
    """What the answer has to be, as response_format says it: any text, JSON, or JSON by a schema."""
    form = fields.table(name)
    if form is None:
        return {}
    match form.word("type", ("text", "json_object", "json_schema")):
        case "json_object":
            return held_to({"type": "object"}, form.path("type"))
        case "json_schema":
            inner = form.table("json_schema") or form  # Responses have the schema beside the type
            schema = inner.values.get("schema")
            if not isinstance(schema, dict):
                raise inner.wrong("schema", "give a JSON Schema")
            return held_to(schema, inner.path("schema"))
        case None:
            raise form.wrong("type", "give text, json_object or json_schema")
    return {}


def held_to(schema: dict[str, Any], where: str) -> Options:
    """The option that holds an answer to a JSON Schema. Raises RequestError for one that cannot be followed."""
    from qcli.constraints.constraint import constraint

    try:
        return {"constraint": constraint(schema)}
    except UsageError as problem:
        raise RequestError(problem.message, problem.hint, param=where) from None


def tool_options(fields: Fields, listed: Any, choice: Any) -> Options:
    """Tools that may be called, as OpenAI's chats list them, and whether they have to be. Raises RequestError."""
    from qcli.tools.choice import checked_choice
    from qcli.tools.tool import checked_tools

    if not listed and (listed is None or isinstance(listed, list)):
        if choice in (None, "auto", "none"):
            return {}
        raise RequestError(f"tool_choice cannot be {shown(choice)}", "give tools as well", param="tool_choice")
    try:
        tools = checked_tools(listed)
    except UsageError as problem:
        raise RequestError(problem.message, problem.hint, param=fields.path("tools")) from None
    try:
        return {"tools": tools, "tool_choice": checked_choice(choice, tools)}
    except UsageError as problem:
        raise RequestError(problem.message, problem.hint, param=fields.path("tool_choice")) from None


def think_options(fields: Fields, effort: Any) -> tuple[Options, bool]:
    """How the model thinks, and whether that is a wish: efforts are, which clients send to every model.

    `think` is qcli's own, and no wish. Raises RequestError.
    """
    if fields.has("think"):
        from qcli.text.think_setting import think_setting

        try:
            return {"think": think_setting("think", fields.values["think"])}, False
        except UsageError as problem:
            raise RequestError(problem.message, problem.hint, param="think") from None
    if effort is not None:
        if not isinstance(effort, str) or effort not in _EFFORTS:
            raise RequestError(f"the effort cannot be {shown(effort)}", f"give {', '.join(_EFFORTS)}")
        return {"think": _EFFORTS[effort]}, True
    variables = fields.table("chat_template_kwargs")
    if variables and variables.has("enable_thinking"):
        return {"think": "on" if variables.flag("enable_thinking") else "off"}, True
    return {}, False
