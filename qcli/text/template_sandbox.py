"""The sandbox that chat templates run in: jinja2 in the dialect Hugging Face renders, bounded in time and memory.

A template is a program of the model file's author. It may loop and compute, but no single step of it may take long or
make a large object. So every text and every container is measured where it is made, before it is made where one step can
multiply its size; what is printed, compared or hashed later is then as bounded as what it is made of.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sized
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any, Final

from jinja2 import Template, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from qcli.text.template_functions import FILTERS, EndlessError, check_format, refuse, strftime_now

_SECONDS: Final = 5.0  # a template of 8 kB renders 100 messages in a hundredth of that
_TEXT: Final = 1 << 22  # characters that a template may make, besides four times those it is given
_ITEMS: Final = 1 << 20  # of a container, those inside others counted as often as they are reached
_BITS: Final = 1 << 10

# Filters of jinja2 that published templates use, and others that make nothing larger than what they are given.
_FILTERS: Final = (
    *("abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "groupby", "int"),
    *("items", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "safe"),
    *(
        "select",
        "selectattr",
        "sort",
        "string",
        "title",
        "trim",
        "truncate",
        "unique",
        "upper",
        "urlencode",
        "wordcount",
    ),
)


def render(template: Template, variables: dict[str, Any]) -> str:
    """What a template of `compiled` writes. Raises RefusalError, EndlessError, and whatever the template raises."""
    sandbox = template.environment
    assert isinstance(sandbox, _Sandbox)
    sandbox.most = _TEXT + 4 * sum(_text_within(value) for value in variables.values())
    deadline = time.monotonic() + _SECONDS

    def watch(frame: FrameType, event: str, argument: object) -> Any:
        if time.monotonic() > deadline:
            raise EndlessError(f"it runs for more than {_SECONDS:g} s")
        return watch if frame.f_code.co_filename == "<template>" else None

    before = sys.gettrace()
    sys.settrace(watch)  # each line of the compiled template: the only way in that every platform has
    try:
        return sandbox.concat(template.generate(variables))
    finally:
        sys.settrace(before)


def compiled(source: str) -> Template:
    """A template in an environment of its own, whose limits `render` sets. Raises TemplateSyntaxError and its like."""
    sandbox = _environment()
    return Template.from_code(sandbox, _code(source), sandbox.make_globals(None))


@lru_cache(maxsize=8)
def _code(source: str) -> CodeType:
    """The Python code of a template, which every environment runs alike; 8 kB of template take 30 ms to compile."""
    return _environment().compile(source)


def _environment() -> ImmutableSandboxedEnvironment:
    sandbox = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation])
    sandbox.filters = {name: sandbox.filters[name] for name in _FILTERS} | sandbox.measured_filters()
    del sandbox.globals["lipsum"]
    sandbox.globals |= {"raise_exception": refuse, "strftime_now": strftime_now}
    return sandbox


class _Measured(CodeGenerator):
    """Compiles `a ~ b` and literals of containers to code that measures them."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802  (jinja2's names)
        self.write("environment.concatenated((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802
        self._made(super().visit_List, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        if node.ctx == "load":
            self._made(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        self._made(super().visit_Dict, node, frame)

    def _made(self, visit: Callable[..., None], node: nodes.Node, frame: Frame) -> None:
        self.write("environment.made(")
        visit(node, frame)
        self.write(")")


class _Sandbox(ImmutableSandboxedEnvironment):
    """Refuses a step that would fill the memory or take forever."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])
    code_generator_class = _Measured
    most = _TEXT  # characters of a text

    def concat(self, parts: Iterable[str]) -> str:
        """The text of a block that is kept in a variable, or of the whole template."""
        kept: list[str] = []
        size = 0
        for part in parts:
            size += len(part)
            self.check(size)
            kept.append(part)
        return "".join(kept)

    def concatenated(self, parts: tuple[Any, ...]) -> str:
        """a ~ b."""
        self.check(sum(len(part) for part in parts if isinstance(part, str)))
        return str_join(parts)

    def made(self, value: Any) -> Any:
        """A value that a step has made, if it is not too large."""
        if isinstance(value, str):
            self.check(len(value))
        elif _items_within(value) > _ITEMS:
            raise EndlessError("it makes a huge list")
        return value

    def check(self, size: int) -> None:
        """Raise EndlessError for a text of more characters than a template may make."""
        if size > self.most:
            raise EndlessError("it makes a huge text")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, str) and operator == "%":
            check_format(left)
        elif isinstance(left, Sized) or isinstance(right, Sized):
            self._check_sized(operator, left, right)
        elif operator != "+" and _bits(left) * (abs(right) if operator == "**" else 1) + _bits(right) > _BITS:
            raise EndlessError("it computes with huge numbers")
        return self.made(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call a function or method; of a text or a number only what cannot grow too large."""
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            __self._check_method(owner, __obj.__name__, [*args, *kwargs.values()])
        elif isinstance(owner, bytes | int | float):
            raise EndlessError(f"it calls {__obj.__name__} of a number or of bytes")
        return __self.made(super().call(__context, __obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """str.format, which the sandbox replaces by one that is safe: with bounded widths."""
        if getattr(value, "__name__", "") in ("format", "format_map") and isinstance(value.__self__, str):
            check_format(value.__self__)
        return super().wrap_str_format(value)

    def measured_filters(self) -> dict[str, Callable[..., Any]]:
        """Filters that may make more than they are given, and are checked first."""

        def join(values: Any, separator: str = "", attribute: str | None = None) -> str:
            parts = [str(value if attribute is None else value[attribute]) for value in values]
            self._check_joined(separator, parts)
            return separator.join(parts)

        def replace(text: Any, old: str, new: str, count: int | None = None) -> str:
            self._check_replaced(str(text), old, new)
            return str(text).replace(old, new, -1 if count is None else count)

        def indent(text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
            space = width if isinstance(width, str) else " " * min(width, 100)
            lines = str(text).split("\n")
            self.check(sum(len(line) + len(space) for line in lines))
            later = [space + line if line or blank else line for line in lines[1:]]
            return "\n".join([space + lines[0] if first else lines[0], *later])

        return {"join": join, "replace": replace, "indent": indent, **FILTERS}

    def _check_sized(self, operator: str, left: Any, right: Any) -> None:
        lists = not isinstance(left, str) and not isinstance(right, str)
        size = _extent(left) + _extent(right) if operator == "+" else _extent(left) * _extent(right)
        if lists and size > _ITEMS:
            raise EndlessError("it makes a huge list")
        self.check(size)

    def _check_method(self, text: str, name: str, arguments: list[Any]) -> None:
        first = arguments[0] if arguments else None
        if name in ("ljust", "rjust", "center", "zfill") and isinstance(first, int):
            self.check(first)
        elif name == "expandtabs":
            self.check(len(text) + text.count("\t") * (first if isinstance(first, int) else 8))
        elif name == "replace" and len(arguments) > 1:
            self._check_replaced(text, first, arguments[1])
        elif name == "join" and arguments:
            if not isinstance(first, Sized):
                raise EndlessError("it joins what has no end")
            self._check_joined(text, first)
        elif name in ("translate", "encode"):
            raise EndlessError(f"it calls {name} of a text")

    def _check_replaced(self, text: str, old: Any, new: Any) -> None:
        if isinstance(old, str) and isinstance(new, str):
            self.check(len(text) + text.count(old) * max(0, len(new) - len(old)))

    def _check_joined(self, separator: str, parts: Any) -> None:
        self.check(sum(len(part) + len(separator) for part in parts if isinstance(part, str)))


def _extent(value: Any) -> int:
    return len(value) if isinstance(value, Sized) else abs(value) if isinstance(value, int) else 1


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _inner(value: Any) -> Iterable[Any]:
    """What a container holds."""
    if isinstance(value, Mapping):
        return [*value, *value.values()]
    if isinstance(value, Namespace):
        return list(object.__getattribute__(value, "_Namespace__attrs").values())
    return value if isinstance(value, list | tuple | set | frozenset) else ()


def _items_within(value: Any) -> int:
    """How many values a container holds, at any depth; counting ends where they are too many."""
    count, ahead = 0, [value]
    while ahead and count <= _ITEMS:
        count += 1
        ahead.extend(_inner(ahead.pop()))
    return count


def _text_within(value: Any) -> int:
    """How many characters of text there are in a value, at any depth."""
    size, ahead = 0, [value]
    while ahead:
        one = ahead.pop()
        size += len(one) if isinstance(one, str) else 8
        ahead.extend(_inner(one))
    return size


class _Generation(Extension):
    """{% generation %} marks what a model has written, for those who train one; what it holds is text like any."""

    tags = {"generation"}  # noqa: RUF012  (as jinja2 declares it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
