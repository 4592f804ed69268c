"""A chat as it looks in a terminal: what is typed, what comes, and what stands on the screen in the end.

QCLI_KEEP_SCREENS=1 writes the screens that are compared with; QCLI_IN_TMUX=1 drives tmux in place of our own terminal.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from places import ROOT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")

HELPERS = ROOT / "tests" / "helpers"
PASTED = "def add(a, b):\n    return a + b\n"
FIGURES = re.compile(r"\d[\d,.]* tok/s · [\d.]+ s")


@pytest.fixture
def chat(tmp_path):
    """Opens a chat in a terminal of so many columns; several share their folders."""
    from screens import Terminal, Tmux

    folders = {f"XDG_{kind}_HOME": str(tmp_path / kind.lower()) for kind in ("CONFIG", "DATA", "STATE")}
    variables = {
        **folders,
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(HELPERS))),
        "EDITOR": f"{sys.executable} {HELPERS / 'edit_aloud.py'}",
        "HF_HOME": str(tmp_path / "hub"),
        "HOME": str(tmp_path),
        "QCLI_IN": str(tmp_path),
    }
    kind = Tmux if os.environ.get("QCLI_IN_TMUX") and shutil.which("tmux") else Terminal

    def open_chat(columns: int, *options: str, **more: str):
        return kind(columns, str(HELPERS / "scripted_chat.py"), "chat", *options, **variables, **more)

    return open_chat


def seen(lines: list[str], folder: Path) -> list[str]:
    """Lines without what differs from run to run."""
    return [FIGURES.sub("0 tok/s · 0 s", line.replace(str(folder), "FOLDER")) for line in lines]


def talk(terminal) -> None:
    """Messages of every kind: one line, several, pasted, from the history; tables, code, and one that is stopped."""
    terminal.wait_for(lambda lines: lines[-1] == ">")
    terminal.say("hello")
    terminal.say('"""two\rlines"""')
    terminal.type(f"\x1b[200~{PASTED}\x1b[201~")
    terminal.wait("return a + b")
    terminal.enter()
    terminal.type("\x1b[A" * 3)
    terminal.wait("> hello", 2)
    terminal.enter()
    terminal.say("show a table")
    terminal.say("some code")
    terminal.type("go slow\r")
    terminal.wait("word7")
    terminal.type("\x03")
    terminal.wait("stopped")
    terminal.wait_for(lambda lines: lines[-1] == ">")


def obey(terminal) -> None:
    """Every command once."""
    for line in COMMANDS_TYPED:
        terminal.say(line)


COMMANDS_TYPED = [
    "/help undo", "/system Be brief.", "/system", "/set temperature 0.2", "/think", "/model", "/stats", "/tokens",
    "/undo", "/redo", "/undo 9", "/regenerate", "/continue", "/read notes.txt", "about it", "/copy", "/export talk.md",
    "/edit", "/fork", "/save kept", "/sessions", "/resume -", "/compact", "/clear", "/hlep", "/undoo",
]  # fmt: skip
