"""A chat as it looks in a terminal: what is typed, what comes, and what stands on the screen in the end.

QCLI_KEEP_SCREENS=1 writes the screens that are compared with; QCLI_IN_TMUX=1 drives tmux in place of our own terminal.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from places import DATA, ROOT
from screens import Terminal, Tmux, check
from scripted_chat import WAITS

from qcli.commands.chat_commands import COMMANDS

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")

HELPERS = ROOT / "tests" / "helpers"
PASTED = "def add(a, b):\n    return a + b\n"
VARIES = {  # what differs from run to run and from machine to machine, and what stands for it in the screens that are kept
    r"storyteller ·\s/[^>]*?\.\s?g\s?g\s?u\s?f": "storyteller · FILE",
    r"\d[\d,.]* tok/s · [\d.]+ s": "0 tok/s · 0 s",
    r"at [\d,.]+\s+t\s?o\s?k\s?/\s?s": "at 0 tok/s",
    r"[\d,.]+ GB/s": "0 GB/s",
    r"token after [\d.]+ s": "token after 0 s",
    r"tokens, [\d.]+ s": "tokens, 0 s",
}


COMMANDS_TYPED = [
    "/help undo", "/system Be brief.", "/system", "/set temperature 0.2", "/think", "/model", "/stats", "/tools", "/tokens",
    "/undo", "/redo", "/undo 9", "/regenerate", "/continue", "/read notes.txt", "about it", "/copy", "/export talk.md",
    "/edit", "/fork", "/save kept", "/sessions", "/resume -", "/compact", "/clear", "/hlep", "/undoo",
]  # fmt: skip
EDITOR = "import sys, pathlib; p = pathlib.Path(sys.argv[1]); p.write_text(p.read_text().replace('about', 'all about'))"


@pytest.fixture
def chat(tmp_path, monkeypatch):
    """Opens a chat in a terminal of so many columns; several share their folders."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("A note.\n")
    variables = {
        **{f"XDG_{kind}_HOME": str(tmp_path / kind.lower()) for kind in ("CONFIG", "DATA", "STATE")},
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(HELPERS))),
        "EDITOR": f'{sys.executable} -c "{EDITOR}"',
        "HF_HOME": str(tmp_path / "hub"),
        "HOME": str(tmp_path),
    }
    kind = Tmux if os.environ.get("QCLI_IN_TMUX") else Terminal
    return lambda columns, *options, **more: kind(
        columns, str(HELPERS / "scripted_chat.py"), "chat", *options, **variables, **more
    )


def talk(terminal) -> None:
    """Messages of every kind: one line, several, pasted, from the history; tables, code, and one that is stopped."""
    terminal.wait_for(lambda lines: lines[-1] == ">")
    terminal.say("hello")
    terminal.say('"""two\rlines"""')
    terminal.type(f"\x1b[200~{PASTED}\x1b[201~")
    terminal.wait("return a + b")
    terminal.enter()
    terminal.type("\x1b[A" * 10)  # up to the first line of the history
    terminal.wait("> hello", 2)
    terminal.enter()
    terminal.say("show a table")
    terminal.say("some code")
    stop(terminal)


def stop(terminal) -> None:
    """Stop an answer in its midst."""
    terminal.type("count\r")
    terminal.wait_for(lambda lines: os.path.exists(WAITS))
    terminal.type("\x03")
    terminal.wait("stopped")
    terminal.wait_for(lambda lines: lines[-1] == ">")


def seen(lines: list[str], folder: Path) -> list[str]:
    """Lines without what differs from run to run."""
    text = "\n".join(lines).replace(str(folder), "FOLDER")
    for what, shown in VARIES.items():
        text = re.sub(what, shown, text)
    return text.split("\n")


@pytest.mark.parametrize(("columns", "colour"), [(40, False), (80, True), (200, False)])
def test_a_tour(chat, tmp_path, columns, colour):
    with chat(columns, **({} if colour else {"NO_COLOR": "1"})) as terminal:
        talk(terminal)
        for line in COMMANDS_TYPED:
            terminal.say(line)
        terminal.type("\x04")
        assert terminal.end() == 0
        check(DATA / "screens" / f"tour-{columns}.txt", seen(terminal.styled(), tmp_path))
    assert {line.split()[0] for line in COMMANDS_TYPED if line[0] == "/"} >= {f"/{name}" for name in COMMANDS} - {
        "/exit"
    }


def test_a_chat_is_left_and_resumed(chat, tmp_path):
    with chat(80) as terminal:
        terminal.wait_for(lambda lines: lines[-1] == ">")
        terminal.say("show a table")
        terminal.type("/exit\r")
        assert terminal.end() == 0
    with chat(80, "-c") as terminal:
        terminal.wait_for(lambda lines: lines[-1] == ">")
        terminal.say("hello")
        terminal.type("/quit\r")
        assert terminal.end() == 0
        check(DATA / "screens" / "resumed-80.txt", seen(terminal.styled(), tmp_path))


def test_a_window_that_is_resized_while_it_answers(chat):
    """Lines that stand keep their width; every word comes once, in order, and no line is wider than the window."""
    with chat(60, NO_COLOR="1") as terminal:
        terminal.wait_for(lambda lines: lines[-1] == ">")
        terminal.type("go slow\r")
        terminal.wait("word9")
        terminal.resize(100)
        terminal.wait("context")
        terminal.wait_for(lambda lines: lines[-1] == ">")
        terminal.say("show a table")
        lines = terminal.lines()
    words = re.findall(r"word\d+", "\n".join(lines))
    assert words == [f"word{i}" for i in range(30)]
    assert max(map(len, lines)) > 60
