"""What chat templates may call: filters and functions, each with a bound on what it makes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final, NoReturn

from jinja2 import TemplateError

_NOT_ASCII: Final = re.compile("[^\\x00-\\x7f\\ufdd0-\\ufdef]+")  # but for the marks of qcli.text.user_text
_WIDE: Final = re.compile(r"\d{5,}|\*|{[^{}]*:[^{}]*{")  # in a format: a huge width, or one that an argument says


class RefusalError(TemplateError):
    """The template called raise_exception."""


class EndlessError(Exception):
    """The template ran out of time or space."""


def check_format(text: str) -> None:
    """Refuse a format that pads to a huge width, or to one that an argument says."""
    if _WIDE.search(text):
        raise EndlessError("it pads a text to a huge width")


def _format(text: Any, *values: Any, **named: Any) -> str:
    check_format(str(text))
    formatted: str = str(text) % (named or values)
    return formatted


def _round(value: float, precision: int = 0, method: str = "common") -> float:
    return round(value, max(-20, min(precision, 20)))


def _sum(values: Iterable[Any], attribute: str | None = None) -> Any:
    return sum(value if attribute is None else value[attribute] for value in values)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **layout: Any) -> str:
    """As json.dumps: jinja2's own filter escapes <, > and & for HTML, which no model was trained on."""
    text = json.dumps(value, ensure_ascii=False, indent=min(indent, 16) if indent else indent, **layout)
    return _NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text) if ensure_ascii else text


FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "format": _format,
    "round": _round,
    "sum": _sum,
    "tojson": _tojson,
}


def refuse(message: str) -> NoReturn:
    """raise_exception: the template does not take this conversation."""
    raise RefusalError(message)


def strftime_now(format: str) -> str:
    """The time now, as the template wants it written."""
    if len(format) > 1000 or re.search(r"%[_^#0-]*\d", format):
        raise EndlessError("it pads a date to a huge width")
    return datetime.now().strftime(format)
