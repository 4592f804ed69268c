"""A hint names no option that the command which prints it lacks: read from the source, and as it is printed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_tree import ROOT

from qcli import cli, console
from qcli.errors import QcliError, options_in
from qcli.gguf.file import GGUFFile

# Modules that only these commands use: the hints there may name options that all of these have.
COMMANDS_OF = {
    "batch/": ["batch"],
    "bench/": ["bench"],
    "commands/chat_settings.py": ["chat"],
    "commands/configured.py": ["run", "chat", "batch"],
    "commands/forms.py": ["run", "batch"],
    "commands/recording.py": ["run", "chat"],
    "commands/run_output.py": ["run"],
    "commands/talk.py": ["chat"],
    "commands/tool_calls.py": ["chat"],
    "constraints/": ["run", "batch"],
    "evaluate/expert_counts.py": ["experts"],
    "evaluate/log_probs_file.py": ["perplexity"],
    "evaluate/scored_text.py": ["perplexity", "imatrix"],
    "quantize/": ["quantize"],
    "serving/": ["serve"],
    "sessions/": ["run", "chat"],
    "tools/": ["run", "chat"],
} | {f"commands/{name}.py": [name] for name in cli.COMMANDS}
PACKAGE = ROOT / "qcli"


def options_of(command: str) -> set[str]:
    parameters = cli.program(command).commands[command].params
    return {name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)}


def literals(node: ast.AST) -> Iterator[str]:
    """The texts of an expression, each f-string with what it fills in left blank."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    else:
        for child in ast.iter_child_nodes(node):
            yield from literals(child)


def meant(node: ast.expr, tree: ast.Module) -> list[ast.expr]:
    """An expression, or what is given to the variable that it is; each branch of a condition."""
    if isinstance(node, ast.IfExp):
        return [*meant(node.body, tree), *meant(node.orelse, tree)]
    if isinstance(node, ast.Name):
        given = [a for a in ast.walk(tree) if isinstance(a, ast.Assign | ast.AnnAssign) and a.value]
        targets = [(a.targets if isinstance(a, ast.Assign) else [a.target], a.value) for a in given]
        return [value for names, value in targets for name in names if getattr(name, "id", "") == node.id and value]
    return [node]


def hints() -> Iterator[tuple[str, int, ast.expr]]:
    """Every hint of an error of ours: its file, its line, and what it is."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "").endswith("Error") and len(call.args) > 1:
                for hint in meant(call.args[1], tree):
                    yield path.relative_to(PACKAGE).as_posix(), call.lineno, hint


def commands_of(file: str) -> list[str] | None:
    return next((COMMANDS_OF[start] for start in (file, f"{Path(file).parts[0]}/") if start in COMMANDS_OF), None)


def test_a_hint_names_options_of_its_commands_or_has_something_else_to_say():
    found = list(hints())
    assert len(found) > 400
    wrong = []
    for file, line, hint in found:
        commands = commands_of(file)
        allowed = set.intersection(*map(options_of, commands)) | {"--help"} if commands else {"--help"}
        ways = [" ".join(literals(way)) for way in hint.elts] if isinstance(hint, ast.Tuple) else []
        if any(not options_in(way) for way in ways):
            continue
        named = {option for text in literals(hint) for option in options_in(text)}
        if named - allowed and not any("qcli " in text or text.startswith("type: ") for text in literals(hint)):
            wrong.append(f"{file}:{line}: {sorted(named - allowed)}")
    assert wrong == []


@pytest.fixture
def no_command():
    yield
    console.hint_at(None)


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("run", "give --ram 9GB, give a smaller --ctx, or take a smaller file"),
        ("bench", "give --ram 9GB, or take a smaller file"),
        ("imatrix", "give a smaller --ctx, or take a smaller file"),
        ("quantize", "take a smaller file"),
    ],
)
def test_a_command_tells_of_its_own_options(monkeypatch, type_line, no_command, command, hint):
    problem = QcliError("no room", ("give --ram 9GB", "give a smaller --ctx", "take a smaller file"))
    lines = {"run": ["run", "-m", "storyteller", "Hi"], "bench": ["bench", "-m", "storyteller"]}
    lines |= {
        "imatrix": ["imatrix", "storyteller", "t", "-o", "o"],
        "quantize": ["quantize", "storyteller", "y", "Q4_0"],
    }

    def refuse(*_):
        raise problem

    monkeypatch.setattr(GGUFFile, "open", refuse)
    assert type_line(*lines[command]) == (1, "", f"error: no room\nhint: {hint}\n")


def test_a_hint_of_one_thing_is_told_as_it_is():
    assert QcliError("x", "type: uv pip install --python p").hint_with(()) == "type: uv pip install --python p"
    assert QcliError("x", ("a", "b")).hint == "a, or b"
    assert QcliError("x").hint == ""
    assert options_in("give --ctx 5, or `qcli run --raw`, or long--dash") == ["--ctx"]
