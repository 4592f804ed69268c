"""Which functions of other systems compiled code is given: their libraries are replaced by ones that note what is asked."""

from __future__ import annotations

import ctypes
import sys

import pytest

from quant import loader, system_calls
from quant.layout import Layout


class Library:
    """Has a function for every name that is asked for, and notes the name."""

    def __init__(self, lacks=()):
        self.asked, self._lacks, self.kept = {}, lacks, []

    def __getattr__(self, name):
        if name in self._lacks:
            raise AttributeError(name)
        function = ctypes.CFUNCTYPE(None)(lambda: None)
        self.kept.append(function)
        self.asked[ctypes.cast(function, ctypes.c_void_p).value] = name
        return function


@pytest.fixture
def library(monkeypatch):
    found = Library()
    windows = type("Windll", (), {"kernel32": found})
    monkeypatch.setattr(ctypes, "windll", windows, raising=False)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: found)
    return found


def test_windows(monkeypatch, library):
    monkeypatch.setattr(sys, "platform", "win32")
    found = system_calls.addresses()
    assert found["read"] == 0
    named = {field: library.asked[address] for field, address in found.items() if address}
    assert named == {
        "read_file": "ReadFile",
        "error": "GetLastError",
        "lock": "AcquireSRWLockExclusive",
        "unlock": "ReleaseSRWLockExclusive",
        "sleep": "SleepConditionVariableSRW",
        "wake_all": "WakeAllConditionVariable",
        "give_way": "SwitchToThread",
        "nap": "SwitchToThread",
    }
    assert isinstance(system_calls.CALLS, Layout)
    assert set(found) == set(system_calls.CALLS.names)


@pytest.mark.parametrize(("system", "error"), [("darwin", "__error"), ("linux", "__errno_location")])
def test_posix(monkeypatch, library, system, error):
    monkeypatch.setattr(sys, "platform", system)
    found = system_calls.addresses()
    assert found["read_file"] == 0
    named = {field: library.asked[address] for field, address in found.items() if address}
    assert (named["read"], named["error"], named["sleep"]) == ("pread", error, "pthread_cond_wait")


def test_locks_of_windows_are_zeros(monkeypatch, library):
    monkeypatch.setattr(sys, "platform", "win32")
    system_calls.make_lock(0, 0)
    assert library.asked == {}


@pytest.mark.parametrize(
    ("system", "file"), [("linux", "libm.so.6"), ("win32", "ucrtbase.dll"), ("darwin", None)]
)  # macOS has them in a library that is loaded already
def test_functions_of_the_c_library(monkeypatch, system, file):
    opened, math = [], Library(lacks=("sincos",))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: opened.append(name) or math)
    monkeypatch.setattr(sys, "platform", system)
    assert [name for name, _ in loader._math_functions()] == ["exp", "expf", "log", "log1p", "log1pf", "sin", "cos"]
    assert opened == [file]
