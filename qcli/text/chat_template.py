"""The chat template of a model file: messages in, the prompt text out; in the dialect Hugging Face renders.

The template is a program of the file's author, so it runs in jinja2's sandbox, for a bounded time and size.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence, Sized
from datetime import datetime
from types import FrameType
from typing import Any, Final, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from qcli.errors import ModelFileError, UsageError
from qcli.gguf.file import GGUFFile
from qcli.text.default_templates import default_template
from qcli.text.thoughts import without_thoughts
from qcli.text.tokenizer import Tokenizer

_SECONDS: Final = 5.0  # a template of 8 kB renders 100 messages in a hundredth of that
_CHARACTERS: Final = 1 << 26
_BITS: Final = 1 << 10
_ITSELF: Final = "use --raw to prompt without the template"


class ChatTemplate:
    """A compiled chat template. Raises ModelFileError if it does not parse."""

    def __init__(self, source: str, *, bos_token: str = "", eos_token: str = "", origin: str = "model") -> None:
        self._origin = origin
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._harmony = "<|channel|>final<|message|>" in source
        try:
            self._template = _environment().from_string(source)
        except TemplateSyntaxError as error:
            raise self._broken(f"line {error.lineno}: {error.message}") from error
        except (RecursionError, MemoryError, SyntaxError) as error:
            raise self._broken("too deep or too large to compile") from error

    @classmethod
    def from_gguf(cls, file: GGUFFile, tokenizer: Tokenizer) -> ChatTemplate:
        """The file's own template, or when it has none what its vocabulary suggests."""
        bos, eos = ("" if id is None else tokenizer.token(id) for id in (tokenizer.bos_id, tokenizer.eos_id))
        source = file.get_str("tokenizer.chat_template", "") or default_template(tokenizer)
        return cls(source, bos_token=bos, eos_token=eos, origin=str(file.path))

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, **variables: Any
    ) -> str:
        """The prompt for a conversation of {"role": …, "content": …}; `variables` are the template's own.

        Raises UsageError when the template refuses the conversation, ModelFileError when it fails.
        """
        given: dict[str, Any] = {"tools": None, "documents": None, **self._tokens, **variables}
        given |= {
            "messages": [without_thoughts(message) if self._harmony else dict(message) for message in messages],
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return _render(self._template, given)
        except _RefusalError as refusal:
            raise UsageError(f"the model's chat template says: {refusal}", _ITSELF) from refusal
        except Exception as error:  # whatever the program of a stranger may raise
            raise self._broken(str(error) or type(error).__name__) from error

    def _broken(self, reason: str) -> ModelFileError:
        return ModelFileError(f"{self._origin}: the chat template is broken: {reason}", _ITSELF)


class _RefusalError(TemplateError):
    """raise_exception was called."""


class _EndlessError(Exception):
    """Out of time or space."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Also refuses arithmetic of which one step could fill the memory or take forever."""

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The product or power of two values, as long as it is of moderate size."""
        if operator == "*" and (isinstance(left, Sized) or isinstance(right, Sized)):
            too_much = _extent(left) * _extent(right) > _CHARACTERS
        elif operator == "*":
            too_much = _bits(left) + _bits(right) > _BITS
        else:
            too_much = _bits(left) * abs(right) > _BITS
        if too_much:
            raise _EndlessError("it computes with huge numbers or texts")
        return super().call_binop(context, operator, left, right)


def _extent(value: Any) -> int:
    return len(value) if isinstance(value, Sized) else abs(value)


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


class _Generation(Extension):
    """{% generation %} marks what a model has written, for those who train one; what it holds is text like any."""

    tags = {"generation"}  # noqa: RUF012  (as jinja2 declares it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements inside the tag."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> _Sandbox:
    extensions = ["jinja2.ext.loopcontrols", _Generation]
    sandbox = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    sandbox.filters["tojson"] = _tojson
    sandbox.globals["raise_exception"] = _refuse
    sandbox.globals["strftime_now"] = _strftime_now
    return sandbox


def _tojson(value: Any, ensure_ascii: bool = False, **layout: Any) -> str:
    """As json.dumps: jinja2's own filter escapes <, > and & for HTML, which no model was trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **layout)


def _refuse(message: str) -> NoReturn:
    raise _RefusalError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _render(template: Template, variables: dict[str, Any]) -> str:
    deadline = time.monotonic() + _SECONDS

    def watch(frame: FrameType, event: str, argument: object) -> Any:
        if time.monotonic() > deadline:
            raise _EndlessError(f"it runs for more than {_SECONDS:g} s")
        return watch if frame.f_code.co_filename == "<template>" else None

    before = sys.gettrace()
    sys.settrace(watch)  # each line of the compiled template: the only way in that every platform has
    try:
        return _joined(template, variables)
    finally:
        sys.settrace(before)


def _joined(template: Template, variables: dict[str, Any]) -> str:
    parts: list[str] = []
    size = 0
    for part in template.generate(variables):
        size += len(part)
        if size > _CHARACTERS:
            raise _EndlessError(f"it writes more than {_CHARACTERS} characters")
        parts.append(part)
    return "".join(parts)
