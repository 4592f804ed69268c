"""The functions of a Python file as tools: read from its source, of which nothing runs.

Every function at the margin is a tool unless its name begins with _, or the file's __all__ leaves it out. Its docstring
says what it does; its parameters have types, and a docstring in Google's manner or Sphinx's may say what each is.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import Any, Final

from qcli.errors import UsageError
from qcli.tools.annotations import TYPES, UnknownTypeError, schema_of
from qcli.tools.tool import Tools, checked_tools
from qcli.wording import shortened

_ARGUMENTS: Final = re.compile(r"^\s*(?:Args|Arguments|Parameters)\s*:\s*$")
_SECTION: Final = re.compile(r"^\s*(?:Returns?|Raises|Yields?|Examples?|Notes?)\s*:\s*$")
_ARGUMENT: Final = re.compile(r"^(\s*)\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_SPHINX: Final = re.compile(r"^\s*:(param|return|returns|raises|type|rtype)\b\s*([^:]*?)\s*:\s*(.*)$")


def tools_of(source: str, path: str) -> Tools:
    """The tools of a Python file's text; `path` is what errors call it. Raises UsageError."""
    try:
        with warnings.catch_warnings(action="ignore"):
            module = ast.parse(source)
    except (SyntaxError, ValueError) as problem:
        line = f":{problem.lineno}" if isinstance(problem, SyntaxError) and problem.lineno else ""
        message = problem.msg if isinstance(problem, SyntaxError) else str(problem)
        raise UsageError(f"{path}{line}: is not Python: {message}", "mend that line") from None
    except (RecursionError, MemoryError):
        raise UsageError(f"{path}: is nested too deeply to be read", "give a simpler file") from None
    wanted = _all_of(module)
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    found = [f for f in functions if (f.name in wanted if wanted is not None else not f.name.startswith("_"))]
    if not found:
        raise UsageError(f"{path}: has no function that could be a tool", "define one whose name does not begin with _")
    try:
        return checked_tools([_listed(function, path) for function in found])
    except RecursionError:
        raise UsageError(f"{path}: has a type that is nested too deeply", "give a simpler one") from None


def _all_of(module: ast.Module) -> list[str] | None:
    """The names in the file's __all__; None if it has none that can be read."""
    for node in module.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            try:
                return [str(name) for name in ast.literal_eval(node.value)]
            except (ValueError, TypeError):
                return None
    return None


def _listed(function: ast.FunctionDef | ast.AsyncFunctionDef, path: str) -> dict[str, Any]:
    where = f"{path}:{function.lineno}: {function.name}"
    described = ast.get_docstring(function)
    if not described:
        raise UsageError(f"{where} has no docstring", "begin it with one that tells a model what it does")
    if isinstance(function, ast.AsyncFunctionDef):
        raise UsageError(f"{where} is async", "define it without async")
    description, about = _parts(described)
    arguments = function.args
    if arguments.vararg or arguments.kwarg or arguments.posonlyargs:
        raise UsageError(f"{where} takes arguments without names", "name each, without * ** and /")
    properties, required = {}, []
    defaults = [None] * (len(arguments.args) - len(arguments.defaults)) + arguments.defaults
    for argument, default in zip(
        [*arguments.args, *arguments.kwonlyargs], [*defaults, *arguments.kw_defaults], strict=True
    ):
        properties[argument.arg] = _schema(argument, default, about.get(argument.arg, ""), where)
        if default is None:
            required.append(argument.arg)
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    return {
        "name": function.name,
        "description": description,
        "parameters": parameters | ({"required": required} if required else {}),
    }


def _schema(argument: ast.arg, default: ast.expr | None, about: str, where: str) -> dict[str, Any]:
    if argument.annotation is None:
        raise UsageError(f"{where}: {argument.arg} has no type", f"write {argument.arg}: str, or one of {TYPES}")
    try:
        schema = schema_of(argument.annotation)
    except UnknownTypeError as unknown:
        what = f"{where}: {argument.arg} has the type {shortened(str(unknown))}"
        raise UsageError(f"{what}, which no model can write", f"give one of {TYPES}") from None
    if about:
        schema["description"] = about
    try:
        value = ast.literal_eval(default) if default is not None else None
    except (ValueError, TypeError, MemoryError, RecursionError):
        return schema  # what the function takes for itself
    return schema | ({"default": value} if isinstance(value, str | int | float | bool) else {})


def _parts(docstring: str) -> tuple[str, dict[str, str]]:
    """What a docstring says of a function, and of each argument."""
    told: list[str] = []
    about: dict[str, list[str]] = {}
    section, last, margin = "told", "", None
    for line in docstring.splitlines():
        if sphinx := _SPHINX.match(line):
            section, last = "arguments", sphinx[2].split()[-1] if sphinx[1] == "param" and sphinx[2] else ""
            about.setdefault(last, []).append(sphinx[3])
        elif _ARGUMENTS.match(line):
            section, last, margin = "arguments", "", None
        elif _SECTION.match(line):
            section = "other"
        elif section == "told":
            told.append(line)
        elif section == "arguments":
            found = _ARGUMENT.match(line)
            if found and (margin is None or len(found[1]) <= margin):
                margin, last = len(found[1]), found[2]
                about.setdefault(last, []).append(found[3])
            elif last:
                about[last].append(line.strip())
    return "\n".join(told).strip(), {name: " ".join(" ".join(lines).split()) for name, lines in about.items()}
