"""Faults of a machine, each planted, found and named with what to do."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile

import pytest

from qcli.bench import bandwidth
from qcli.doctor import disk, memory, processor, programs
from qcli.doctor.finding import FAIL, PASS, WARN, Check, Finding, examine
from qcli.errors import QcliError
from qcli.host import load, pages, threads
from qcli.host.threads import Cores
from quant import cpu, kernel_cache
from quant.team import replay


def looked(check):
    """The only finding of a check."""
    (finding,) = check(lambda *_: None)
    return finding


def assert_is(finding, status, said, hint=""):
    assert finding.status == status
    assert said in finding.said
    assert hint in finding.hint
    assert bool(finding.hint) == (status != PASS)


def test_a_check_that_goes_wrong_ends_no_other():
    def broken(_):
        raise ZeroDivisionError("by zero")

    def refused(_):
        yield Finding("first", PASS, "fine")
        raise QcliError("no", "type yes")

    def short(_):
        raise MemoryError

    told = []
    sections = {"one": [Check("a", broken), Check("b", refused)], "two": [Check("c", short)]}
    found = list(examine(sections, lambda *how: told.append(how)))
    assert [(title, finding.name, finding.status) for title, finding in found] == [
        ("one", "a", FAIL), ("one", "first", PASS), ("one", "b", FAIL), ("two", "c", FAIL),
    ]  # fmt: skip
    assert "ZeroDivisionError: by zero" in found[0][1].said
    assert (found[2][1].said, found[2][1].hint) == ("no", "type yes")
    assert told == [("a", 0), ("b", 1 / 3), ("c", 2 / 3)]


def test_a_processor_as_it_is():
    finding = looked(processor.processor)
    assert finding.figures["kernels"] == cpu.dot_unit()
    assert "kernels use" in finding.said


@pytest.mark.parametrize(
    ("unit", "best", "x86", "status", "said"),
    [
        ("avx512vnni", "avx512vnni", True, PASS, "AVX-512 VNNI, the fastest there are"),
        ("avx2", "avx2", True, PASS, "which it lacks: AVX-512 VNNI, AVX-VNNI, AVX-512"),
        ("avx2", "avx512vnni", True, WARN, "AVX2, though it has the faster AVX-512 VNNI"),
        ("dotprod", "dotprod", False, PASS, "which it lacks: I8MM"),
        ("neon", "neon", False, PASS, "NEON, the best that it has; faster ones, which it lacks: I8MM, DotProd"),
        ("portable", "portable", False, WARN, "it is slow"),
    ],
)
def test_kernels_of_processors(monkeypatch, unit, best, x86, status, said):
    monkeypatch.setattr(cpu, "dot_unit", lambda: unit)
    monkeypatch.setattr(cpu, "unit_of_machine", lambda: best)
    monkeypatch.setattr(cpu, "is_x86", lambda: x86)
    assert_is(looked(processor.processor), status, said)


def test_a_processor_that_is_forced_or_too_old(monkeypatch):
    monkeypatch.setenv("NUMBA_CPU_NAME", "abacus")
    monkeypatch.setattr(cpu, "wrongly_chosen", lambda: "NUMBA_CPU_NAME=abacus: the compiler knows no such processor")
    assert_is(looked(processor.processor), FAIL, "abacus", "unset NUMBA_CPU_NAME")
    monkeypatch.setattr(cpu, "wrongly_chosen", str)
    monkeypatch.setattr(cpu, "missing", lambda: "F16C")
    assert_is(looked(processor.processor), FAIL, "lacks F16C", "2013")


@pytest.mark.parametrize(
    ("cores", "status", "said", "hint"),
    [
        (Cores(8, 8, 8, 8, None), PASS, "8 cores", ""),
        (Cores(16, 16, 8, 8, 8), PASS, "8 cores", ""),
        (Cores(16, 16, 10, 6, None), PASS, "4 are slow ones", ""),
        (Cores(8, 8, 8, 8, 1), WARN, "a limit (cgroup) lets qcli use 1 of 8 cores", "docker run --cpus"),
        (Cores(16, 2, 2, 2, None), WARN, "2 of 16 hardware threads", "taskset"),
    ],
)
def test_cores(monkeypatch, cores, status, said, hint):
    monkeypatch.setattr(threads, "cores", lambda: cores)
    assert_is(looked(processor.cores), status, said, hint)


@pytest.mark.parametrize(
    ("now", "status", "said"),
    [
        (load.Load(0.1, 0.0), PASS, "free"),
        (load.Load(1.5, 0.0), WARN, "other programs use 1.5"),
        (load.Load(0, 6), WARN, "host"),
    ],
)
def test_load(monkeypatch, now, status, said):
    monkeypatch.setattr(processor, "load", lambda _: now)
    assert_is(looked(processor.others), status, said)


def test_nothing_is_said_of_a_load_that_nobody_tells(monkeypatch):
    monkeypatch.setattr(processor, "load", lambda _: None)
    assert list(processor.others(lambda *_: None)) == []


def test_the_load_is_what_others_computed(monkeypatch, tmp_path):
    clock, stat = iter([10.0, 12.0]), tmp_path / "stat"
    ticks = os.sysconf("SC_CLK_TCK")
    stat.write_text("cpu  0 0 0 0 0 0 0 0 0 0\n")

    def sleep(_):
        busy, stolen = 3 * ticks, ticks // 2
        stat.write_text(f"cpu  {busy} 0 0 9 9 0 0 {stolen} 0 0\ncpu0 1 2 3\n")

    monkeypatch.setattr(load, "_STAT", stat)
    monkeypatch.setattr(load.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(load.time, "sleep", sleep)
    times = iter([(1.0, 1.0), (1.5, 1.5)])  # of this process: one second
    monkeypatch.setattr(load.os, "times", lambda: os.times_result((*next(times), 0, 0, 0)))
    monkeypatch.setattr("sys.platform", "linux")
    assert load.load(2.0) == load.Load(1.0, 0.25)


@pytest.mark.parametrize(
    ("free", "limit", "status", "said", "hint"),
    [
        (20e9, None, PASS, "20.0 GB of 64.0 GB are free", ""),
        (1e9, None, WARN, "too little", "close other programs"),
        (1e9, int(2e9), WARN, "a limit (cgroup) allows 2.0 GB", "container"),
    ],
)
def test_memory(monkeypatch, free, limit, status, said, hint):
    monkeypatch.setattr(memory.memory, "total_memory", lambda: int(64e9))
    monkeypatch.setattr(memory.memory, "available_memory", lambda: int(free))
    monkeypatch.setattr(memory.memory, "memory_limit", lambda: limit)
    assert_is(looked(memory.free), status, said, hint)


def test_huge_pages(monkeypatch, tmp_path):
    monkeypatch.setattr(pages, "_HUGE", tmp_path / "enabled")
    assert list(memory.huge(lambda *_: None)) == []
    (tmp_path / "enabled").write_text("always madvise [never]\n")
    assert_is(looked(memory.huge), WARN, "no huge pages", "echo madvise")
    (tmp_path / "enabled").write_text("always [madvise] never\n")
    assert_is(looked(memory.huge), PASS, "")


def test_the_knee_is_the_fewest_threads_that_are_about_as_fast():
    assert memory.knee({1: 10.0, 2: 19.5, 4: 20.0, 8: 18.0}) == 2
    assert memory.knee({1: 5.0}) == 1


def test_speed_of_memory(monkeypatch):
    monkeypatch.setattr(bandwidth, "MOST", 1 << 22)
    assert looked(memory.speed).figures["knee"] >= 1
    monkeypatch.setattr(memory, "read_speeds", lambda _: {1: 3.0, 2: 4.0})
    assert_is(looked(memory.speed), WARN, "4.0 GB/s (2 threads are enough", "XMP")
    monkeypatch.setattr(memory, "read_speeds", lambda _: {1: 30.0, 2: 31.0})
    assert_is(looked(memory.speed), PASS, "at most 31 tok/s")


@pytest.fixture
def small_disk(monkeypatch, tmp_path):
    for name, value in {"_FILE": 1 << 20, "_WRITTEN": 1 << 18, "_SECONDS": 0.01}.items():
        monkeypatch.setattr(disk, name, value)
    monkeypatch.setattr(disk.folders, "some_cache", lambda: tmp_path / "not" / "there")
    return tmp_path


def test_speed_of_the_disk(small_disk):
    finding = looked(disk.own_disk)
    assert finding.figures["direct_gb_per_s"].keys() == {"1", "4", "8"}
    assert finding.figures["piece_bytes"] == disk.PIECE
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_is_nearly_full_is_not_written_to(small_disk, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 10**8))
    assert_is(looked(disk.own_disk), WARN, "only 100 MB are free", "qcli cache clear")


def test_a_disk_that_cannot_be_written_to_is_not_measured(small_disk, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(disk, "of_folder", refuse)
    said = f"not measured: no file can be written to {small_disk} (Permission denied)"
    assert_is(looked(disk.own_disk), WARN, said, "QCLI_CACHE_DIR")


@pytest.mark.parametrize(
    ("speed", "past_cache", "status", "said"),
    [(2e9, True, PASS, "2.0 GB/s"), (1e8, True, WARN, "slow"), (2e9, False, WARN, "cannot read past the cache")],
)
def test_what_speeds_of_a_disk_mean(speed, past_cache, status, said):
    finding = disk.told(disk.Speeds({1: speed / 2, 4: speed, 8: speed}, {}, past_cache), "here", 1)
    assert_is(finding, status, said)
    assert "4 reads at a time are enough" in finding.said


@pytest.fixture
def own_folders(monkeypatch, tmp_path, data_folder):
    """All folders of the user are new ones; gives that for caches."""
    monkeypatch.setenv("QCLI_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def of_folders():
    return {finding.name.removeprefix("folder: "): finding for finding in programs.all_folders(lambda *_: None)}


def test_folders(own_folders):
    found = of_folders()
    assert list(found) == ["cache", "conversations", "settings", "downloads"]
    assert {finding.status for finding in found.values()} == {PASS}
    assert list(own_folders.iterdir()) == []


def test_a_cache_that_cannot_be_written_to(own_folders, monkeypatch):
    own_folders.rmdir()
    own_folders.write_text("a file in its place")
    monkeypatch.setattr(kernel_cache, "root", lambda: own_folders)
    assert_is(of_folders()["cache"], FAIL, "cannot be written to (Not a directory)", "QCLI_CACHE_DIR")
    monkeypatch.setattr(kernel_cache, "folder", lambda: own_folders / "kernels")
    assert_is(looked(programs.kernels), FAIL, "every start compiles anew", "QCLI_CACHE_DIR")


def test_kernels_that_are_kept_in_a_temporary_folder(own_folders, monkeypatch, tmp_path):
    own_folders.rmdir()
    own_folders.write_text("a file in its place")
    monkeypatch.setattr(kernel_cache, "root", lambda: tmp_path)
    assert_is(of_folders()["cache"], WARN, f"compiled kernels are in {tmp_path} instead", "QCLI_CACHE_DIR")


@pytest.mark.parametrize(
    ("number", "said", "hint"),
    [
        (errno.EACCES, "Permission denied", "chmod"),
        (errno.EROFS, "Read-only", "chmod"),
        (errno.ENOSPC, "the disk is full", "free"),
    ],
)
def test_writing_that_the_system_refuses(own_folders, monkeypatch, number, said, hint):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert_is(of_folders()["cache"], FAIL, said, hint)


def test_a_disk_with_little_space(own_folders, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 10**8))
    assert_is(of_folders()["cache"], WARN, "only 100 MB are free", "qcli cache clear")


def test_no_home(monkeypatch):
    def nowhere():
        raise FileNotFoundError

    monkeypatch.setattr(programs.folders, "data", nowhere)
    assert_is(of_folders()["conversations"], FAIL, "there is no home folder", "HOME")


def test_a_flipped_bit_in_a_kernel(own_folders, monkeypatch):
    monkeypatch.setattr(kernel_cache, "folder", lambda: own_folders)
    kernel_cache.save(replay, "symbol", b"machine code")
    assert_is(looked(programs.kernels), PASS, "1 compiled function, 0 kB, all whole")
    (path,) = kernel_cache.kept()
    code = bytearray(path.read_bytes())
    code[-1] ^= 4
    path.write_bytes(code)
    assert_is(looked(programs.kernels), FAIL, f"damaged: {path.name}", "qcli cache clear kernels")


def test_settings(data_folder, type_line):
    assert_is(looked(programs.settings), PASS, "nothing is set")
    type_line("config", "set", "threads", "3")
    assert_is(looked(programs.settings), PASS, "set: threads")
    path = data_folder / "config" / "config.toml"
    path.write_text("threads = 0\nctx = 'all'\n")
    found = list(programs.settings(lambda *_: None))
    assert [finding.status for finding in found] == [FAIL, FAIL]
    assert "config.toml, line 1: threads cannot be 0" in found[0].said
    path.write_text("thread = 3\n")
    found = list(programs.settings(lambda *_: None))
    assert [finding.status for finding in found] == [WARN, PASS]


def test_versions():
    first, *_ = programs.versions(lambda *_: None)
    assert {"qcli", "Python", "numpy", "numba", "llvmlite", "system"} == first.figures.keys()
