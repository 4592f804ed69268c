"""Random keys in random chats, in windows of random widths: typed while it waits, answers and thinks, also all at once.

No chat ends with a traceback or hangs, each leaves the terminal as it was, and each conversation can be gone on with. Not
part of the suite, as it takes ten minutes: python -m pytest tests/fuzz/fuzz_chat_keys.py
"""

from __future__ import annotations

import os
import random
import signal
import sys
import termios
from pathlib import Path
from time import monotonic

import pytest
from places import ROOT
from screens import Terminal

from qcli.sessions import reader

SESSIONS = int(os.environ.get("QCLI_FUZZ_SESSIONS", "200"))
SEED = int(os.environ.get("QCLI_FUZZ_SEED", "1"))
ENDS = 30.0  # seconds

THINKING = f"""
import sys
sys.path[:0] = [{str(ROOT / "tests" / "helpers")!r}, {str(ROOT / "tests" / "qcli")!r}]
from test_thinking_answers import thinking
from qcli.commands.recording import Wanted
usual = Wanted.note_use
Wanted.note_use = lambda self, llm: usual(self, thinking(llm))
sys.argv[0] = "qcli"
from qcli.cli import main
main()
"""
PROGRAMS = {
    "embedded": ["-m", "qcli", "chat"],
    "scripted": [str(ROOT / "tests" / "helpers" / "scripted_chat.py"), "chat"],
    "thinking": ["-c", THINKING, "chat"],
}
OPTIONS: tuple[list[str], ...] = (
    [],
    [],
    ["--plain"],
    ["-v"],
    ["-q"],
    ["--think", "hide"],
    ["--think", "12"],
    ["-n", "30"],
    ["-c"],
)
ENVIRONMENTS: tuple[dict[str, str], ...] = (
    {},
    {},
    {"NO_COLOR": "1"},
    {"TERM": "dumb"},
    {"LANG": "C"},
    {"PYTHONIOENCODING": "ascii"},
)
MESSAGES = (
    "Tell me a story.",
    "slow",
    "table",
    "code",
    "Why?",
    "虎太郎 🐟",
    "e\u0301",
    "@notes.txt what?",
    "@no.txt",
    "[/x]",
)
COMMANDS = (
    *("/undo", "/undo 2", "/redo", "/edit", "/regenerate", "/continue", "/read notes.txt", "/read no.txt", "/copy"),
    *("/copy code", "/compact", "/clear", "/fork", "/fork a/b", "/sessions", "/resume", "/resume 1", "/resume x"),
    *(
        "/save",
        "/save it",
        "/export out.md",
        "/export out.json",
        "/system",
        "/system Be short.",
        "/system off",
        "/model",
    ),
    *("/model no-such", "/set", "/set temperature 0.2", "/set temperature x", "/set stop_loops false", "/think"),
    *("/think off", "/think on", "/think hide", "/think 5", "/think low", "/tokens", "/stats", "/help", "/help s", "/"),
    *("/nosuch", "//", "/?", '"""a', 'b"""', '"""', "\\"),
)
KEYS = (
    *("\x03", "\x03", "\x14", "\t", "\t\t", "\x1b[A", "\x1b[B", "\x1b[D", "\x1b[3~", "\x1b", "\x1b\r", "\x7f", "\x15"),
    *("\x17", "\x12", "\x0c", "\x16", "\x1c", "\x13", "\x11", "\x1a", "\x00", "\x1b[200~def f():\n\treturn 1\n\x1b[201~", "\r"),
    *("\x1b[200~" + "pasted words " * 100 + "\x1b[201~", "\x1b[201~", "\x1b[<0;1;1M", "\x9b", "\x1b[1;1R"),
)  # fmt: skip


def session(chance: random.Random, home: Path) -> tuple[str, list[str]]:
    """Type at random in one chat; what went wrong, and what was typed."""
    program = chance.choice([*PROGRAMS])
    options, environment = chance.choice(OPTIONS), chance.choice(ENVIRONMENTS)
    columns = chance.choice((10, 40, 80, 200))
    typed = [f"{program} {options} {environment} {columns}"]
    homes = {f"XDG_{kind}_HOME": str(home / kind) for kind in ("DATA", "STATE", "CONFIG")}
    seed = ["--seed", str(chance.randrange(99))]
    more = homes | {"EDITOR": "true", "PYTHONFAULTHANDLER": "1"} | environment
    with Terminal(columns, *PROGRAMS[program], *options, *seed, **more) as terminal:
        usual = termios.tcgetattr(terminal._mine)

        def press(keys: str) -> None:
            typed.append(keys)
            terminal.type(keys)

        try:
            terminal.wait_for(lambda lines: lines[-1] == ">" or terminal.child.poll() is not None)
            for _ in range(chance.randrange(3, 30)):
                act(chance, terminal, press)
                terminal._read(chance.choice((0, 0, 0.01, 0.1, 0.4)))
                if terminal.child.poll() is not None:
                    break
            leave(terminal)
        except (AssertionError, OSError) as problem:
            terminal.child.send_signal(signal.SIGABRT)  # where it hangs, as Python tells of itself
            while terminal._read(0.5):
                pass
            return f"hangs: {problem!r:.60}", [*typed, *terminal.lines()]
        shown = "\n".join(terminal.lines())
        modes = termios.tcgetattr(terminal._mine)
        wrong = ""
        if "Traceback" in shown or "Error:" in shown or "Exception" in shown:
            wrong = "traceback"
        elif modes != usual:
            wrong = f"modes {usual[:4]} {modes[:4]}"
        elif terminal.child.returncode not in (0, 130, -signal.SIGQUIT) and options != ["-c"]:
            wrong = f"exit code {terminal.child.returncode}"
        return wrong, [*typed, shown]


def act(chance: random.Random, terminal: Terminal, press) -> None:
    """Do one thing that a person might."""
    what = chance.random()
    if what < 0.3:
        press(chance.choice(MESSAGES) + "\r")
    elif what < 0.6:
        press(chance.choice(COMMANDS) + "\r")
    elif what < 0.9:
        press(chance.choice(KEYS))
    elif what < 0.96:
        terminal.resize(chance.choice((10, 40, 80, 200)))
    else:
        terminal.child.send_signal(signal.SIGSTOP)
        press(chance.choice(KEYS))
        terminal.child.send_signal(signal.SIGCONT)


def leave(terminal: Terminal) -> None:
    """Stop what is under way, and leave."""
    until = monotonic() + ENDS
    while terminal.child.poll() is None:
        assert monotonic() < until, "it does not end"
        terminal.type("\x11\x03\x03")  # the first ends a Ctrl-S, or is quoted
        terminal._read(0.3)
        while terminal._read(0.02):
            pass
        if terminal.child.poll() is None:
            terminal.type("\x15\x04")
            terminal._read(0.2)
    terminal.end()


def test_nothing_breaks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("A cat named Mia.\n")
    found = []
    for number in range(SESSIONS):
        problem, told = session(random.Random(f"{SEED} {number}"), tmp_path / f"home{number % 5}")
        if problem:
            found.append(number)
            print(f"--- session {number}: {problem}", *map(repr, told[:-1]), told[-1], sep="\n", flush=True)
        for path in tmp_path.rglob("*.jsonl"):
            with path.open("rb") as file:
                assert not reader.read(file).damaged, (number, path)
        for name in ("out.md", "out.json"):
            Path(name).unlink(missing_ok=True)
    assert not found


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-s", "-n0"]))
