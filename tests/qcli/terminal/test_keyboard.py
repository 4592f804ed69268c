"""Keys while an answer comes, and the terminal given back as it was: after the end, Ctrl-Z and `kill`."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from qcli.terminal import keyboard as keyboard_module
from qcli.terminal import modes
from qcli.terminal.keyboard import CTRL_T, Keyboard, edited, left_to_others

posix = pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("and then", "and then"),
        ("one\ntwo\n", "one\ntwo"),
        ("one\r\ntwo\r", "one\ntwo"),
        ("\n\n", ""),
        ("helo\x7flo", "hello"),
        ("one two \x17three", "one three"),
        ("one\ntwo\x15three", "one\nthree"),
        ("\x1b[A\x1b[1;5Cup\x1bOP", "up"),
        ("\x1b[200~def f():\n\treturn 1\x1b[201~", "def f():\n\treturn 1"),
        ("\x1bnow\x03\x04\x00\x9b", "now"),
        ("日本 👩‍🚀 e\u0301", "日本 👩‍🚀 e\u0301"),
    ],
)
def test_what_keys_make(keys, text):
    assert edited(keys) == text


def modes_of(terminal):
    import termios

    return termios.tcgetattr(terminal)


def echoes(terminal):
    import termios

    return bool(modes_of(terminal)[3] & termios.ECHO)


def wait_for(check):
    """Wait until something holds."""
    end = time.monotonic() + 10
    while not check():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture
def terminal(monkeypatch):
    """A terminal in the foreground, as standard input; both of its ends."""
    pty = pytest.importorskip("pty")
    mine, theirs = pty.openpty()
    monkeypatch.setattr(modes, "is_ours", lambda terminal: True)
    with open(theirs, closefd=False) as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        yield mine, theirs
    os.close(mine)
    os.close(theirs)


def type_to(keyboard, mine, keys, so_far):
    """Type keys, and wait until the keyboard has these characters."""
    os.write(mine, keys)
    wait_for(lambda: "".join(keyboard._typed) == so_far)


def echoed(mine):
    os.set_blocking(mine, False)
    try:
        return os.read(mine, 4096)
    except BlockingIOError:
        return b""


@posix
def test_what_is_typed_is_kept_and_not_shown_and_a_key_does_something(terminal):
    mine, theirs = terminal
    before, pressed = modes_of(theirs), []
    keyboard = Keyboard()
    keyboard.keys[CTRL_T] = lambda: pressed.append(True)
    with keyboard:
        type_to(keyboard, mine, "and é".encode()[:-1], "and ")
        type_to(keyboard, mine, "é".encode()[-1:] + b"\x14", "and é")
        wait_for(lambda: pressed)
        type_to(keyboard, mine, b" then\n", "and é then\n")
    assert keyboard.typed() == "and é then"
    assert keyboard.typed() == ""
    assert echoed(mine) == b""
    assert modes_of(theirs) == before


@posix
def test_it_may_be_entered_again(terminal):
    mine, _ = terminal
    keyboard = Keyboard()
    for word, sofar in ((b"one ", "one "), (b"two ", "one two "), (b"three", "one two three")):
        with keyboard, keyboard:
            type_to(keyboard, mine, word, sofar)
    assert keyboard.typed() == "one two three"


@posix
def test_a_question_has_the_keys_for_itself(terminal):
    mine, theirs = terminal
    before = modes_of(theirs)
    keyboard = Keyboard()
    with keyboard:
        with left_to_others():
            assert modes_of(theirs) == before
            os.write(mine, b"yes\n")
            assert os.read(theirs, 9) == b"yes\n"
        assert modes_of(theirs) != before
        type_to(keyboard, mine, b"more", "more")
    assert keyboard.typed() == "more"


@posix
def test_without_a_terminal_nothing_is_done(monkeypatch):
    read, write = os.pipe()
    with os.fdopen(read) as stream, os.fdopen(write, "wb") as pipe:
        monkeypatch.setattr(sys, "stdin", stream)
        with Keyboard() as keyboard:
            pipe.write(b"piped")
        pipe.close()
        assert keyboard.typed() == ""
        assert stream.read() == "piped"
    monkeypatch.setattr(sys, "stdin", None)
    with Keyboard():
        pass


@posix
def test_in_the_background_keys_are_left_alone(terminal, monkeypatch):
    mine, theirs = terminal
    monkeypatch.setattr(modes, "is_ours", lambda terminal: False)
    before = modes_of(theirs)
    with Keyboard() as keyboard:
        assert modes_of(theirs) == before
        os.write(mine, b"ls\n")
    assert keyboard.typed() == ""


@posix
def test_modes_that_somebody_else_has_changed_are_his(terminal):
    import termios

    _, theirs = terminal
    give_back = modes.take(modes.without_echo, sys.stdin)
    his = modes_of(theirs)
    his[3] &= ~termios.ICANON
    termios.tcsetattr(theirs, termios.TCSANOW, his)
    give_back()
    assert not modes_of(theirs)[3] & termios.ICANON


@posix
def test_whoever_has_changed_modes_they_are_put_back(terminal):
    import tty

    _, theirs = terminal
    before, put_back = modes_of(theirs), modes.put_back(sys.stdin)
    tty.setraw(theirs)
    assert modes_of(theirs) != before
    put_back()
    assert modes_of(theirs) == before


@posix
def test_who_takes_them_first_keeps_them(terminal):
    _, theirs = terminal
    before = modes_of(theirs)
    with Keyboard():
        held = modes_of(theirs)
        modes.take(modes.without_echo, sys.stdin)()
        assert modes_of(theirs) == held != before
    assert modes_of(theirs) == before


def test_windows_tells_keys_one_by_one():
    class Console:
        def __init__(self):
            self.keys = list("Hi\r\xe0H\x00;!")

        def kbhit(self):
            return bool(self.keys)

        def getwch(self):
            return self.keys.pop(0)

    taken: list[str] = []
    end = keyboard_module._read_console(Console(), taken.append)
    wait_for(lambda: len(taken) == 4)
    end()
    assert edited("".join(taken)) == "Hi\n!"


# The shell of a terminal: it runs one job, tells how the terminal is after each change of it, and goes on with it.
SHELL = """
import os, signal, sys, termios
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if not job:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
while True:
    _, status = os.waitpid(job, os.WUNTRACED)
    os.tcsetpgrp(0, os.getpgrp())
    echo = "echo" if termios.tcgetattr(0)[3] & termios.ECHO else "silence"
    print(f"[{echo} {'stopped' if os.WIFSTOPPED(status) else 'over'}]", flush=True)
    if not os.WIFSTOPPED(status):
        break
    os.tcsetpgrp(0, job)
    os.killpg(job, signal.SIGCONT)
"""

JOB = """
import os, sys, time
from qcli import console, interrupt
from qcli.terminal.keyboard import Keyboard
interrupt.raises()
console.STATUS_DELAY = 0.0
with {held}:
    print("[begun]", flush=True)
    while True:
        time.sleep(0.01)
"""


def until(terminal, word):
    seen = b""
    while word not in seen:
        seen += os.read(terminal, 4096)
    return seen


@posix
@pytest.mark.parametrize("held", ["Keyboard()", "console.silent_keyboard()", "console.status('loading')"])
def test_the_terminal_is_given_back_when_a_program_is_stopped_and_when_it_ends(held):
    import pty

    shell, terminal = pty.fork()
    if not shell:
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, [sys.executable, "-c", SHELL, JOB.format(held=held)])
    until(terminal, b"[begun]")
    wait_for(lambda: not echoes(terminal))
    os.write(terminal, b"unseen\x1a")
    assert b"unseen" not in until(terminal, b"[echo stopped]")
    wait_for(lambda: not echoes(terminal))
    os.write(terminal, b"unseen\x03")
    assert b"unseen" not in until(terminal, b"[echo over]")
    os.waitpid(shell, 0)
    os.close(terminal)


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP] if os.name != "nt" else [])
def test_an_order_to_end_gives_the_terminal_back(number):
    import pty

    child, mine = pty.fork()
    if not child:
        code = JOB.format(held="Keyboard()").replace(
            "while True", f"os.kill(os.getpid(), {int(number)})\n    while True"
        )
        os.execv(sys.executable, [sys.executable, "-c", code])
    until(mine, b"[begun]")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -number
    assert echoes(mine)
    os.close(mine)
