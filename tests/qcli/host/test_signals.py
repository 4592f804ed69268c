"""Ctrl-C in the midst of foreign code."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from qcli.host.signals import hearing_interrupts


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_call_that_hears_nothing_is_left_alone():
    going_on = threading.Event()

    def call():
        os.kill(os.getpid(), signal.SIGINT)
        going_on.wait()

    with pytest.raises(KeyboardInterrupt):
        hearing_interrupts(call)
    assert "foreign call" in [thread.name for thread in threading.enumerate()]
    going_on.set()


def test_what_a_call_gives_and_what_it_raises():
    assert hearing_interrupts(lambda: threading.current_thread().name) == "foreign call"
    with pytest.raises(ZeroDivisionError):
        hearing_interrupts(lambda: 1 // 0)


def test_in_another_thread_a_call_is_made_there():
    found = []
    thread = threading.Thread(target=lambda: found.append(hearing_interrupts(threading.current_thread)))
    thread.start()
    thread.join()
    assert found == [thread]
