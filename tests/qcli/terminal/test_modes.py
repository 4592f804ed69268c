"""A terminal's modes are given back even if the program ends in the midst of changing them."""

from __future__ import annotations

import os

import pytest

from qcli.terminal import modes

termios = pytest.importorskip("termios", reason="Windows has none")


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("before", [False, True])
def test_an_end_between_any_two_steps_gives_them_back(monkeypatch, at, before):
    """at: the change in whose midst a signal comes, that of taking or that of giving back; before: it is made or not."""
    mine, theirs = os.openpty()
    usual = termios.tcgetattr(theirs)
    set_modes, calls = termios.tcsetattr, []

    def interrupted(*given):
        calls.append(given)
        if len(calls) != at:
            set_modes(*given)
        elif before:
            modes.give_back()
            set_modes(*given) if at == 2 else None  # taking them ends with the program
        else:
            set_modes(*given)
            modes.give_back()

    monkeypatch.setattr(modes, "is_ours", lambda terminal: True)
    monkeypatch.setattr(termios, "tcsetattr", interrupted)
    with open(theirs, "w") as stream:
        give_back = modes.take(modes.without_echo, stream)
        if at == 2:
            assert not termios.tcgetattr(theirs)[3] & termios.ECHO
            give_back()
        assert termios.tcgetattr(theirs) == usual
        give_back()
        assert termios.tcgetattr(theirs) == usual
    os.close(mine)
