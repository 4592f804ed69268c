"""Whether a model is to call a tool, as OpenAI's clients and the command line say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from qcli.errors import UsageError
from qcli.tools.tool import Tools
from qcli.wording import shortened

WORDS: Final = ("auto", "none", "required")  # as the model likes; never; at least once; or a tool's name: that one


def checked_choice(given: Any, tools: Tools | None, named: str = "tool_choice") -> str:
    """A word of WORDS, or the name of a tool; `named` is what errors call it. Raises UsageError."""
    if given is None:
        return "auto"
    if isinstance(given, Mapping):  # {"type": "function", "function": {"name": …}}
        function = given.get("function", given)
        given = function.get("name") if isinstance(function, Mapping) else None
    if tools is None:
        hint = "give --tools FILE as well" if named.startswith("--") else "give tools as well"
        raise UsageError(f"{named} says how tools are called, and there are none", hint)
    if given in WORDS or (isinstance(given, str) and tools.get(given)):
        return str(given)
    what = shortened(given if isinstance(given, str) else repr(given))
    raise UsageError(f"{named} cannot be {what}", f"give {', '.join((*WORDS, *tools.names[:8]))}")
