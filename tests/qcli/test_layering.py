"""The rules of the house, read from its source."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

from places import ROOT
from source_tree import circles, decorators, functions, import_graph, imports, module, name, nodes, sources

TERMINAL = {"rich", "typer", "click", "prompt_toolkit", "curses", "readline"}
AT_THE_TERMINAL = {"qcli/console.py", "qcli/line_input.py"}  # what is printed, what is typed
DRAWN = {  # what an answer looks like; the console prints it
    "qcli/terminal/inline_markdown.py",
    "qcli/terminal/markdown.py",
    "qcli/terminal/markdown_leaves.py",
    "qcli/terminal/wrapped_lines.py",
}
STREAMS = {"print", "sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__"}
EVERY = (*sources("qcli"), *sources("quant"))


def roots(path: Path) -> set[str]:
    return {target.split(".")[0] for target in imports(path)}


@cache
def names(path: Path) -> frozenset[str]:
    """Every name in a file, dotted as written: print, sys.stdout; of what is no name, as in f().x, nothing is told."""
    return frozenset(filter(None, map(dotted, nodes(path))))


def dotted(node: ast.AST) -> str:
    """The name that a node spells; empty if it is none."""
    if isinstance(node, ast.Attribute):
        return f"{owner}.{node.attr}" if (owner := dotted(node.value)) else ""
    return node.id if isinstance(node, ast.Name) else ""


def lines(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def test_imports_are_read_wherever_they_are():
    assert {"qcli.errors", "qcli.errors.QcliError", "rich.console"} <= set(imports(ROOT / "qcli" / "console.py"))
    assert "sys.stdout" in names(ROOT / "qcli" / "console.py")
    assert "qcli.llm" in import_graph("qcli")["qcli"]  # in a function


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a", "e"}, "e": {"d"}}) == [["b", "c"], ["d", "e"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_module_imports_itself_by_way_of_others():
    """Not in functions either, nor for types alone."""
    assert circles(import_graph("qcli", "quant")) == []


def test_imports_are_absolute():
    relative = {
        name(path)
        for path in (*EVERY, *sources("tests"), *sources("benchmarks"))
        for node in nodes(path)
        if isinstance(node, ast.ImportFrom) and node.level
    }
    assert relative == set()


def test_quant_imports_only_arrays_and_the_compiler():
    allowed = {"quant", "numpy", "numba", "llvmlite"} | set(sys.stdlib_module_names) - {
        "mmap",
        "curses",
        "readline",
    }
    more = {"quant/blocks/grids.py": {"gguf"}}  # the tables of the IQ types, when one of them is compiled
    foreign = {name(path): roots(path) - allowed for path in sources("quant")}
    assert {path: found for path, found in foreign.items() if found - more.get(path, set())} == {}


def test_quant_knows_no_application():
    """Neither its name nor a folder of the user: whoever uses it passes these in."""
    known = {name(path) for path in sources("quant") if "qcli" in path.read_text("utf-8").lower()}
    assert known == set()
    folders = {"os.path.expanduser", "Path.home", "os.environ", "os.environ.get"}
    asked = {name(path): names(path) & folders for path in sources("quant")}
    allowed = {
        "quant/cpu.py": {"os.environ", "os.environ.get"},  # NUMBA_CPU_NAME, as Numba documents it
        "quant/numba_environment.py": {"os.environ"},  # those variables that are set aside
        "quant/compilers.py": {"os.environ"},  # passed on to the processes that compile
    }
    assert {path: found for path, found in asked.items() if found - allowed.get(path, set())} == {}


def test_what_systems_do_each_in_its_own_way_is_in_few_files():
    """Where the system is asked for: in `qcli/host`, and for compiled code in four files of `quant`."""
    told = {"sys.platform", "os.name", "platform.system"}
    asking = {name(path) for path in EVERY if names(path) & told and not name(path).startswith("qcli/host/")}
    # platform.system: for the line of versions that `qcli doctor` prints
    kernels = {"quant/hwcap.py", "quant/loader.py", "quant/prebuilt.py", "quant/system_calls.py"}
    assert asking == kernels | {"qcli/doctor/programs.py"}


def test_links_are_followed_in_one_way():
    """`Path.resolve` raises RuntimeError for links that lead back, before Python 3.13; `named_files.resolved` does not."""
    calls = {name(path) for path in EVERY for node in nodes(path) if _is_method(node, "resolve")}
    assert calls == set()


def _is_method(node: ast.AST, called: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == called


def test_processes_are_started_never_forked():
    """Windows has no fork, and threads do not survive one: what a process needs it is told by its command and its pipes."""
    forking = {"os.fork", "os.forkpty", "pty.fork", "ProcessPoolExecutor"}
    assert {name(path) for path in EVERY if names(path) & forking or roots(path) & {"multiprocessing", "pty"}} == set()
    given = {(name(path), word.arg) for path in EVERY for word in nodes(path) if isinstance(word, ast.keyword)}
    assert {path for path, word in given if word == "preexec_fn"} == set()


def test_models_know_no_terminal_and_no_command():
    upper = ("qcli.console", "qcli.cli", "qcli.commands", *TERMINAL)
    found = {(name(path), m) for path in sources("qcli/models") for m in imports(path) if m.startswith(upper)}
    assert found == set()


def test_no_room_knows_the_commands_but_the_command_line():
    allowed = {"qcli.cli", "qcli.__main__"}
    users = {
        importer
        for importer, targets in import_graph("qcli").items()
        if not importer.startswith("qcli.commands")
        and any(t.startswith(("qcli.commands", "qcli.cli")) for t in targets)
    }
    assert users <= allowed


def test_only_the_command_line_knows_terminal_libraries():
    def allowed(path: Path) -> bool:
        return name(path) in {"qcli/cli.py", *AT_THE_TERMINAL, *DRAWN} or path.parent.name == "commands"

    assert {name(path) for path in sources("qcli") if roots(path) & TERMINAL and not allowed(path)} == set()


def test_only_the_console_prints():
    assert {name(path) for path in EVERY if names(path) & STREAMS} <= AT_THE_TERMINAL
    assert {name(path) for path in EVERY if names(path) & {"print", "sys.stdout"}} == {"qcli/console.py"}


def test_nobody_imports_click():
    assert {name(path) for path in EVERY if "click" in roots(path)} == set()


def test_nobody_waits_for_the_reference_reader():
    slow = {"gguf.GGUFReader", "gguf.gguf_reader"}  # 3.5 s for a large vocabulary
    assert {name(path) for path in sources("qcli") if slow & set(imports(path))} == set()


def test_files_are_short():
    assert {name(path): lines(path) for path in EVERY if lines(path) > 300} == {}
    assert {name(path): lines(path) for path in sources("tests") if lines(path) > 400} == {}


def test_the_root_holds_what_a_user_imports_or_everything_needs():
    assert len([path for path in sources("qcli") if path.parent == ROOT / "qcli"]) <= 14


def test_kernels_have_few_parameters():
    """More operands than a reader can follow belong into a table with named fields: quant/layout.py."""
    no_kernel = {"inline", "intrinsic", "staticmethod", "classmethod", "options.with_sampling", "examples"}
    found = {
        f"{module(path)}.{function}": len(node.args.args)
        for path in EVERY
        for function, node in functions(path)
        if len(node.args.args) > 12 and decorators(node) - no_kernel
    }
    assert found == {}


def test_public_functions_say_what_they_do():
    """Those that answer to a protocol of Python (`__len__`), and kernels of a format, whose contract is the format's, too."""
    silent = [
        f"{module(path)}.{function}"
        for path in EVERY
        for function, node in functions(path)
        if not any(part.startswith("_") for part in function.split("."))
        and ast.get_docstring(node) is None
        and not decorators(node) & {"overload"}
        and not any(decorator.endswith(".setter") for decorator in decorators(node))
    ]
    assert silent == []
