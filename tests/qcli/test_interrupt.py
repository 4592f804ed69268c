"""Signals: what a terminal looks like when a command was stopped, or ended by `kill` or its own end."""

from __future__ import annotations

import os
import signal

import pytest
from terminal import in_terminal

from qcli import console, interrupt

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

KILLED = """
import os, signal, time
from contextlib import nullcontext
from qcli import interrupt
interrupt.raises()
console.STATUS_DELAY = 0.05
with console.status("loading") as bar, {around}:
    time.sleep(0.3)
    os.kill(os.getpid(), signal.{name})
    time.sleep(60)
"""


@pytest.mark.parametrize("around", ["nullcontext()", "interrupt.ends_all(bar)"])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGQUIT"])
def test_an_order_to_end_leaves_no_bar(name, around):
    seen = in_terminal(KILLED.format(name=name, around=around), -getattr(signal, name))
    assert "loading" in seen
    assert seen.endswith("\r\x1b[2K")
    assert "Traceback" not in seen


def test_an_order_to_end_is_obeyed_without_a_bar():
    code = "from qcli import interrupt; interrupt.raises(); import os; os.kill(os.getpid(), 15); console.out('on')"
    assert in_terminal(code, -signal.SIGTERM) == ""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_no_temporary_folder_is_left(name, tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from qcli import interrupt
from qcli.host.temporary import temporary_folder
with temporary_folder(Path({str(tmp_path)!r})) as folder, interrupt.ends_all(console.status("loading")):
    (folder / "scratch").write_bytes(bytes(99))
    os.kill(os.getpid(), signal.{name})
"""
    in_terminal(code, interrupt.EXIT_CODE if name == "SIGINT" else -signal.SIGTERM)
    assert list(tmp_path.iterdir()) == []


def test_what_was_heard_before_is_heard_again():
    usual = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with interrupt.cleans_up(), interrupt.ends_all(console.status("loading")), interrupt.gives_back():
        assert signal.getsignal(signal.SIGTERM) not in usual
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == usual


def test_an_order_to_end_at_a_prompt_puts_the_terminal_back():
    code = """
import os, signal
from qcli import interrupt
from qcli.terminal import modes
modes.put_back = lambda stream: lambda: console.out("as before")
with interrupt.gives_back():
    os.kill(os.getpid(), signal.SIGTERM)
"""
    assert in_terminal(code, -signal.SIGTERM).startswith("as before")


def test_ctrl_c_that_is_pressed_again_breaks_nothing_of_what_the_first_one_has_done():
    done = []

    def stopped():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            done.append("recorded")

    with interrupt.does_nothing():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), interrupt.raises_once():
            stopped()
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), interrupt.raises_once():
            signal.raise_signal(signal.SIGINT)
    assert done == ["recorded"]


def test_an_order_to_end_is_obeyed_once_what_was_said_is_kept():
    code = """
import os, signal
from qcli import interrupt
with interrupt.raises_once():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        console.out("kept")
console.out("and on")
"""
    assert in_terminal(code, -signal.SIGTERM) == "kept"
