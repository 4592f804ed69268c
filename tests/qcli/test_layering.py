"""The rules of the house, read from its source."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from places import ROOT

TERMINAL = {"rich", "typer", "click", "prompt_toolkit", "curses", "readline"}
AT_THE_TERMINAL = {"qcli/console.py", "qcli/line_input.py"}  # what is printed, what is typed
STREAMS = {"print", "sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def sources(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, by its full name."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def roots(path: Path) -> set[str]:
    return {module.split(".")[0] for module in imports(path)}


def names(path: Path) -> set[str]:
    """Every name in a file, dotted as written: print, sys.stdout."""
    return {ast.unparse(node) for node in ast.walk(tree(path)) if isinstance(node, ast.Name | ast.Attribute)}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_imports_are_read_wherever_they_are():
    assert {"qcli.errors", "qcli.errors.QcliError", "rich.console"} <= set(imports(ROOT / "qcli" / "console.py"))
    assert "sys.stdout" in names(ROOT / "qcli" / "console.py")


def test_quant_imports_only_arrays_and_the_compiler():
    allowed = {"quant", "numpy", "numba", "llvmlite"} | set(sys.stdlib_module_names) - {
        "mmap",
        "curses",
        "readline",
    }
    more = {"quant/blocks/grids.py": {"gguf"}}  # the tables of the IQ types, when one of them is compiled
    foreign = {name(path): roots(path) - allowed for path in sources("quant")}
    assert {path: found for path, found in foreign.items() if found - more.get(path, set())} == {}


def test_models_know_no_terminal_and_no_command():
    upper = ("qcli.console", "qcli.cli", "qcli.commands", *TERMINAL)
    found = {(name(path), m) for path in sources("qcli/models") for m in imports(path) if m.startswith(upper)}
    assert found == set()


def test_only_the_command_line_knows_terminal_libraries():
    def allowed(path: Path) -> bool:
        return name(path) in {"qcli/cli.py", *AT_THE_TERMINAL} or path.parent.name == "commands"

    assert {name(path) for path in sources("qcli") if roots(path) & TERMINAL and not allowed(path)} == set()


def test_only_the_console_prints():
    every = [*sources("qcli"), *sources("quant")]
    assert {name(path) for path in every if names(path) & STREAMS} <= AT_THE_TERMINAL
    assert {name(path) for path in every if names(path) & {"print", "sys.stdout"}} == {"qcli/console.py"}


def test_nobody_imports_click():
    assert {name(path) for path in [*sources("qcli"), *sources("quant")] if "click" in roots(path)} == set()


def test_nobody_waits_for_the_reference_reader():
    slow = {"gguf.GGUFReader", "gguf.gguf_reader"}  # 3.5 s for a large vocabulary
    assert {name(path) for path in sources("qcli") if slow & set(imports(path))} == set()


def test_files_are_short():
    every = [*sources("qcli"), *sources("quant"), *sources("tests")]
    assert {name(path) for path in every if len(path.read_text("utf-8").splitlines()) > 500} == set()
