"""Complaints of the command line and its help, in plain words."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import warnings

import pytest
from terminal import in_terminal

from qcli import cli
from qcli.cli import COMMANDS, _hear_warnings
from qcli.commands import examples


@pytest.mark.parametrize(
    ("line", "said", "hint"),
    [
        ("run x --threads abc", "--threads needs a whole number", "qcli run --help"),
        ("run x --threads 1.5", "--threads needs a whole number", "qcli run --help"),
        ("run x --threads 0", "--threads needs 1 or more", "qcli run --help"),
        ("run x -t 9999", "--threads needs 1024 or less", "qcli run --help"),
        ("run x --temp warm", "--temperature needs a number", "qcli run --help"),
        ("run x --threads", "--threads needs a value", "--help"),
        ("run x --json=5", "--json takes no value", "--help"),
        ("run x --bogus", "there is no option --bogus", "qcli run --help"),
        ("run x --jso", "there is no option --jso", "did you mean --json"),
        ("cook", "there is no command cook", "qcli --help"),
        ("chta", "there is no command chta", "did you mean chat?"),
        ("run x y", "one word too many: y", "quotes"),
    ],
)
def test_what_is_wrong_with_a_command_line(type_line, line, said, hint):
    code, out, err = type_line(*line.split())
    first, second = err.splitlines()
    assert (code, out, first) == (2, "", f"error: {said}")
    assert hint in second


@pytest.mark.parametrize("command", [[], ["run"], ["show"], ["quantize"]])
def test_help_in_a_terminal_shows_no_types(command):
    code = f"from qcli.cli import invoke\nimport sys\nsys.exit(invoke({[*command, '--help']}))"
    seen = in_terminal(code, COLUMNS="120")
    plain = re.sub(r"\x1b\[[\d;]*m", "", seen)
    assert "--help" in plain
    assert not re.search(r"<\w+>", plain)


def test_a_line_reads_its_own_command_alone():
    code = "import sys\nfrom qcli.cli import invoke\ninvoke(['rm', '--help'])\nsys.exit('qcli.commands.bench' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: qcli rm ")


def test_what_stands_before_a_command(type_line):
    assert type_line("--help", "rm") == type_line("--help")
    assert type_line("--", "rm", "--help") == type_line("rm", "--help")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_two_examples_that_can_be_typed(type_line, name):
    command = cli.program().commands[name]
    shown = examples.of(command.callback)
    assert len(shown) >= 2
    _, help, _ = type_line(name, "--help")
    for typed, does in shown:
        assert f"  {typed}\n    {does}\n" in help
        program, called, *words = shlex.split(typed.rpartition("| ")[2])
        assert (program, called) == ("qcli", name)
        assert command.make_context(name, words).args == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_tells_no_ranges(type_line, name):
    assert not re.search(r"\[[^]]*[<>]=", type_line(name, "--help")[1])


@pytest.mark.parametrize("line", ["run -m {} hi", "show {}", "run hi -f {}", "plan {}", "run {} hi"])
def test_a_name_longer_than_any_file_has(type_line, line):
    code, out, err = type_line(*line.format("a/" * 3000).split())
    assert (code in (1, 2), out, len(err.splitlines())) == (True, "", 2)
    assert len(err) < 400


@pytest.mark.skipif(sys.platform == "win32", reason="a folder where somebody is stays")
def test_a_folder_that_was_deleted_is_told(type_line, tmp_path, monkeypatch):
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert type_line("show", "x.gguf")[::2] == (
        1,
        "error: x.gguf: no such file\nhint: `qcli models` lists the models it knows\n",
    )
    code, _, err = type_line("models", "add", "x.gguf")
    assert (code, err.splitlines()[0]) == (1, "error: the folder that this was typed in was deleted")


def test_warnings_are_remarks_whatever_the_environment_says(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _hear_warnings()
        warnings.warn("memory is short", RuntimeWarning, stacklevel=1)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert capsys.readouterr().err == "memory is short\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("quantize storyteller OUT= Q4_0", "OUT takes the name of a file"),
        ("quantize IN= x.gguf Q4_0", "IN takes the name of a file"),
        ("quantize storyteller x.gguf Q4_0 --imatrix=", "--imatrix takes the name of a file"),
        ("imatrix storyteller text.txt --output=", "-o takes the name of a file"),
        ("perplexity storyteller text.txt --save-logits=", "--save-logits takes the name of a file"),
        ("perplexity storyteller --against=", "--against takes the name of a file"),
        ("run Hi --file=", "-f takes the name of a file"),
        ("run Hi --grammar=", "--grammar takes the name of a file"),
        ("run Hi --draft-model=", "--draft-model takes the name of a file"),
        ("run Hi --tools=", "--tools takes the name of a file"),
        ("chat --tools=", "--tools takes the name of a file"),
        ("chat --mcp=", "--mcp takes the name of a file"),
        ("experts --file=", "--file takes the name of a file"),
        ("sessions export --output=", "-o takes the name of a file"),
        ("pull owner/name --to=", "--to takes the name of a folder"),
    ],
)
def test_a_name_that_is_empty_is_not_the_folder_one_is_in(refused, line, said):
    refused([re.sub(r"^(IN|OUT)=$", "", word) for word in line.split()], 2, f"{said}, and it is empty")
