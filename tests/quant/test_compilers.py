"""Processes that compile beside: in order of need, each kernel once, and whoever needs one waits for it."""

from __future__ import annotations

import threading

import pytest

from quant import compilers, kernel_cache, prepare
from quant.compilers import Compilers
from quant.jit import function, inline
from quant.simd import store_i64


@inline
def _twice(x):
    return x + x


@function("pp")
def short(out, x):
    """out = x."""
    store_i64(out, x)


@function("pp")
def longer(out, x):
    """out = 4 x, by a helper that makes it longer."""
    store_i64(out, _twice(_twice(x)))


@function("pp")
def last(out, x):
    """out = 2 x."""
    store_i64(out, _twice(x))


class Scripted:
    """A process that answers when it is let, or ends."""

    def __init__(self):
        self.names, self.let, self.ends = [], threading.Semaphore(0), False
        self.stdin = self.stdout = self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def write(self, line):
        self.names.append(line.strip().rpartition(".")[2])

    def flush(self):
        """Nothing waits."""

    def readline(self):
        self.let.acquire()
        return "" if self.ends else "\n"

    def kill(self):
        self.ends = True
        self.let.release()


@pytest.fixture
def process(monkeypatch):
    scripted = Scripted()
    monkeypatch.setattr(compilers, "_started", lambda: scripted)
    return scripted


def until(condition):
    for _ in range(1000):
        if condition():
            return True
        threading.Event().wait(0.01)
    return False


def test_groups_come_in_order_and_the_longest_of_a_group_first(process):
    some = Compilers()
    some.add([[short, longer], [last]], 1)
    assert until(lambda: process.names == ["longer"])
    assert some.pending([short, longer, last]) == [short, longer, last]
    process.let.release(2)
    assert until(lambda: process.names == ["longer", "short", "last"])
    assert some.pending([short, longer, last]) == [last]
    process.let.release()
    assert until(lambda: not some.pending([short, longer, last]))


def test_what_somebody_waits_for_comes_next_and_nothing_twice(process):
    some = Compilers()
    some.add([[longer], [short, last]], 1)
    assert until(lambda: process.names == ["longer"])
    some.hurry([last])
    some.add([[longer, short, last]], 1)
    process.let.release(3)
    assert until(lambda: process.names == ["longer", "last", "short"])
    assert until(lambda: not some.pending([short, longer, last]))


def test_who_waits_is_not_left_waiting_by_a_compiler_that_ends(process):
    some = Compilers()
    some.add([[short, longer]], 1)
    process.ends = True
    process.let.release()
    assert until(lambda: not some.pending([short, longer]))


def test_nor_where_none_can_be_started(monkeypatch):
    def refuse():
        raise FileNotFoundError

    monkeypatch.setattr(compilers, "_started", refuse)
    some = Compilers()
    some.add([[short, longer]], 2)
    assert until(lambda: not some.pending([short, longer]))


@pytest.mark.parametrize("there_are", [0, 1])
def test_nor_where_the_system_has_too_few_threads(process, monkeypatch, there_are):
    """As RLIMIT_NPROC leaves: what is begun is finished by those that there are, or else left out."""
    start, starts = threading.Thread.start, []

    def begin(thread):
        starts.append(thread)
        if len(starts) > there_are:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", begin)
    some = Compilers()
    some.add([[short, longer, last]], 3)
    process.let.release(3)
    assert until(lambda: not some.pending([short, longer, last]))
    assert sorted(process.names) == ["last", "longer", "short"][: 3 * there_are]


def test_nor_by_one_that_has_no_memory(monkeypatch):
    def refuse():
        raise MemoryError

    monkeypatch.setattr(compilers, "_started", refuse)
    some = Compilers()
    some.add([[short]], 1)
    assert until(lambda: not some.pending([short]))


def test_a_stop_ends_the_processes(process):
    some = Compilers()
    some.add([[short, longer]], 1)
    assert until(lambda: process.names)
    some.stop()
    assert process.ends
    assert until(lambda: not some.pending([short, longer]))


def test_what_is_needed_later_is_compiled_by_a_process_and_found(monkeypatch, tmp_path):
    monkeypatch.setattr(kernel_cache, "root", lambda: tmp_path)
    monkeypatch.setattr(compilers, "COMPILERS", Compilers())
    monkeypatch.setattr(prepare, "COMPILERS", compilers.COMPILERS)
    kernel_cache.folder().mkdir(parents=True)
    prepare.prepare([], later=[[short]])
    assert prepare.are_coming([short])
    told: list[float] = []
    assert prepare.compile_missing([short], told.append) == [short]
    assert not prepare.are_coming([short])
    assert kernel_cache.has(short)
    assert told == [0.0] * len(told)
