"""The JSON of strangers: bounded in size and depth, with numbers that are some, and text that can be written."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

from qcli.protocol.errors import RequestError
from qcli.tools.tool import depth_of

MOST_BYTES: Final = 8 << 20  # some two million tokens of English
DEEPEST: Final = 64  # lists and tables within each other
_LONGEST_NUMBER: Final = 400  # digits, beyond any float
_NO_CHARACTERS: Final = re.compile("[\ud800-\udfff\ufdd0-\ufdef]")


def parsed(data: bytes) -> dict[str, Any]:
    """The object that a body is. Raises RequestError for anything else."""
    if len(data) > MOST_BYTES:
        raise RequestError(f"the body is larger than {MOST_BYTES >> 20} MiB", "send less", status=413)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise RequestError(f"the body is not UTF-8: byte {problem.start}", "send JSON in UTF-8") from None
    try:
        value = json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=_refused)
    except json.JSONDecodeError as problem:
        place = f"line {problem.lineno}, column {problem.colno}"
        raise RequestError(f"the body is not JSON: {place}: {problem.msg}", "send an object in JSON") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as problem:
        raise RequestError(f"the body is not JSON: {problem}"[:200], "send an object in JSON") from None
    if not isinstance(value, dict):
        raise RequestError("the body is not a JSON object", 'send one such as {"messages": […]}')
    if depth_of(value, DEEPEST) > DEEPEST:
        raise _too_deep()
    _check_characters(json.dumps(value, ensure_ascii=False) if "\\u" in text else text)
    return value


def _check_characters(text: str) -> None:
    """Raise RequestError for half of a character, as JSON can spell it, and for what Unicode says is no character."""
    if found := _NO_CHARACTERS.search(text):
        raise RequestError(f"the body holds U+{ord(found[0]):04X}, which is no character", "send text")


def _whole(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:  # Python refuses some, and names a function of its own to a stranger
        raise ValueError(f"a number of {len(text):,} digits is none of ordinary size")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is no number of ordinary size")
    return number


def _refused(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _too_deep() -> RequestError:
    return RequestError(f"the body is more than {DEEPEST} levels deep", "send fewer levels")
