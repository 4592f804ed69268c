"""Functions of a file, called in a process of their own."""

from __future__ import annotations

import pytest

from qcli.tools.call import ToolCall
from qcli.tools.calling import Limits, Result, run_call
from qcli.tools.tools_file import ToolsFile, read_tools

FILE = '''
import os, sys, threading, time
_N = 0

def add(a: int, b: int = 2) -> dict:
    """Add."""
    os.write(1, b"noise")
    print("more noise")
    return {"sum": a + b, "text": "é"}

def shout(text: str) -> None:
    """Print."""
    print(text * 1000)

def fail() -> str:
    """Fail."""
    raise ValueError("no such city")

def leave() -> str:
    """Leave."""
    os._exit(3)

def wait() -> str:
    """Wait."""
    threading.Thread(target=time.sleep, args=(60,)).start()
    time.sleep(60)
'''

USUAL = Limits(20, 100)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> ToolsFile:
    path = tmp_path_factory.mktemp("tools") / "tools.py"
    path.write_text(FILE, "utf-8")
    return read_tools(path)


def called(file: ToolsFile, name: str, limits: Limits = USUAL, **arguments: object) -> Result:
    return run_call(file, ToolCall(name, arguments), limits)


def test_what_a_function_gives_back_or_prints(file: ToolsFile) -> None:
    result = called(file, "add", a=1)
    assert (result.text, result.ok) == ('{"sum": 3, "text": "é"}', True)
    long = called(file, "shout", text="ab")
    assert long.text == "ab" * 50 + "\n[the rest was left out: at most 100 characters]"


def test_what_goes_wrong_is_told_the_model(file: ToolsFile) -> None:
    assert called(file, "fail").text == "Error: ValueError: no such city"
    assert called(file, "leave").text == "Error: the process of leave ended early"
    late = called(file, "wait", Limits(0.05))
    assert (late.text, late.ok) == ("Error: wait took more than 0.05 seconds and was ended", False)


def test_calls_that_are_not_made(file: ToolsFile) -> None:
    assert called(file, "rm").text == "Error: there is no tool rm; there are add, shout, fail, leave, wait"
    assert called(file, "add", a="1").text == "Error: a of add is of the type integer, not '1'"
    assert called(file, "add").text == "Error: add needs the argument a"
