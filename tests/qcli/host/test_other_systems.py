"""What other systems are asked, and how their answers are read: their calls are replaced by ones that note and answer."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from qcli.errors import ModelFileError
from qcli.host import append_file, load, memory, systems, threads, unbuffered

LINUX, MAC, WINDOWS = "linux", "darwin", "win32"


@pytest.fixture
def on(monkeypatch):
    """Have the code believe that it runs on a system, with these functions of its kernel, or of its C library."""

    def pretend(system, **functions):
        monkeypatch.setattr(sys, "platform", system)
        library = SimpleNamespace(**functions)
        monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=library), raising=False)
        monkeypatch.setattr(ctypes, "CDLL", lambda _: library)

    return pretend


def pointed_at(reference):
    return reference._obj


def test_free_memory_of_macos(on, monkeypatch):
    def host_statistics64(host, what, pages, words):
        assert (host, what) == (7, 4)
        assert pointed_at(words).value == 38  # HOST_VM_INFO64_COUNT
        found = pointed_at(pages)
        found.free, found.speculative, found.of_files, found.purgeable, found.wired = 100, 30, 50, 5, 1000
        return 0

    on(MAC, mach_host_self=lambda: 7, host_statistics64=host_statistics64)
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 16384, "SC_PHYS_PAGES": 4000}[name])
    assert memory.available_memory() == 16384 * (100 - 30 + 50 + 5)
    on(MAC, mach_host_self=lambda: 7, host_statistics64=lambda *_: 1)
    assert memory.available_memory() == 16384 * 3000


def test_the_structure_of_macos_is_as_in_its_header():
    at = {
        name: getattr(memory._MacPages, name).offset for name in ("purgeable", "compressor", "of_files", "compressed")
    }
    assert at == {"purgeable": 88, "compressor": 128, "of_files": 136, "compressed": 144}
    assert ctypes.sizeof(memory._MacPages) == 152


def test_memory_of_windows(on):
    def status(reference):
        found = pointed_at(reference)
        assert found.length == 64
        found.free, found.physical = 3 << 30, 8 << 30

    def process(handle, reference, size):
        assert size == ctypes.sizeof(memory._ProcessMemory) == 72
        pointed_at(reference).resident = 12345

    on(WINDOWS, GlobalMemoryStatusEx=status, K32GetProcessMemoryInfo=process)
    assert (memory.available_memory(), memory.total_memory(), memory.process_memory()) == (3 << 30, 8 << 30, 12345)


def test_cores_of_macos(on):
    known = {b"hw.physicalcpu": 10, b"hw.perflevel0.physicalcpu": 4}

    def sysctlbyname(name, value, size, *_):
        if name not in known:
            return -1
        pointed_at(value).value = known[name]
        return 0

    on(MAC, sysctlbyname=sysctlbyname)
    assert threads._cores() == (10, 4)
    del known[b"hw.perflevel0.physicalcpu"]  # one of Intel
    assert threads._cores() == (10, 10)


def core(efficiency):
    """A record of GetLogicalProcessorInformationEx, 48 bytes."""
    return bytes([0, 0, 0, 0, 48, 0, 0, 0, 1, efficiency]) + bytes(38)


def test_cores_of_windows(on):
    records = core(1) * 4 + core(0) * 8

    def ask(what, data, size):
        assert what == 0
        pointed_at(size).value = len(records)
        if data is None:
            return 0
        ctypes.memmove(data, records, len(records))
        return 1

    on(WINDOWS, GetLogicalProcessorInformationEx=ask)
    assert threads._cores() == (12, 4)
    on(WINDOWS, GetLogicalProcessorInformationEx=lambda *_: 0)
    assert threads._cores() == (os.cpu_count(), os.cpu_count())


def test_load_of_windows(on, monkeypatch):
    """Of 40 s of four cores 10 are idle; the kernel's time has idle time in it."""
    passed = iter([(0, 0, 0), (10, 25, 15)])

    def times(*references):
        for reference, seconds in zip(references, next(passed), strict=True):
            pointed_at(reference).value = seconds * 10**7
        return 1

    clock = iter([0.0, 10.0])
    on(WINDOWS, GetSystemTimes=times)
    monkeypatch.setattr(load.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(load.time, "sleep", lambda _: None)
    monkeypatch.setattr(load.os, "times", lambda: SimpleNamespace(user=0.0, system=0.0))
    assert load.load(1.0) == load.Load(3.0, 0.0)


def test_load_of_macos(on, monkeypatch, tmp_path):
    on(MAC)
    monkeypatch.setattr(load, "_STAT", tmp_path / "none")
    monkeypatch.setattr(load.os, "getloadavg", lambda: (1.5, 0.0, 0.0), raising=False)
    monkeypatch.setattr(load.os, "cpu_count", lambda: 2)
    assert load.load(1.0) == load.Load(1.5, 0.0)
    monkeypatch.setattr(load.os, "getloadavg", lambda: (17.0, 0.0, 0.0), raising=False)
    assert load.load(1.0) == load.Load(2, 0.0)  # threads that wait use no core


@pytest.mark.parametrize(
    ("system", "words"), [(LINUX, ["a b", "cd"]), (MAC, ["a b", "cd"]), (WINDOWS, ["a b", r"c\d"])]
)
def test_words_of_a_line(on, system, words):
    on(system)
    assert systems.words_of(r'"a b" c\d') == words
    with pytest.raises(ValueError, match="quotation"):
        systems.words_of('"a')


@pytest.mark.parametrize(
    ("system", "editor", "device", "modes", "encoding"),
    [
        (LINUX, "", "/dev/tty", True, None),
        (MAC, "", "/dev/tty", True, None),
        (WINDOWS, "notepad", "CONOUT$", False, "utf-8"),
    ],
)
def test_terminals(on, system, editor, device, modes, encoding):
    on(system)
    found = systems.usual_editor(), systems.terminal_device(), systems.has_modes(), systems.encoding_of_pipes()
    assert found == (editor, device, modes, encoding)


@pytest.mark.parametrize(("system", "left"), [(LINUX, False), (MAC, False), (WINDOWS, True)])
def test_a_reader_that_has_left(on, system, left):
    on(system)
    assert systems.reader_has_left(OSError(errno.EPIPE, ""))
    assert systems.reader_has_left(OSError(errno.EINVAL, "")) == left
    assert not systems.reader_has_left(OSError(errno.ENOSPC, ""))


@pytest.mark.parametrize(("system", "reused"), [(LINUX, True), (MAC, True), (WINDOWS, False)])
def test_an_address_that_was_just_left(on, system, reused):
    on(system)
    with socket.socket() as listener:
        systems.claim(listener)
        assert bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)) == reused


@pytest.mark.parametrize(
    ("system", "started", "ended"),
    [
        (LINUX, {"start_new_session": True}, [("killpg", 42)]),
        (MAC, {"start_new_session": True}, [("killpg", 42)]),
        (WINDOWS, {"creationflags": 0x200}, [r"W:\Windows/System32/taskkill.exe /F /T /PID 42", "kill"]),
    ],
)
def test_processes_on_their_own(on, monkeypatch, system, started, ended):
    on(system)
    done: list[object] = []
    monkeypatch.setenv("SYSTEMROOT", r"W:\Windows")
    monkeypatch.setattr(subprocess, "run", lambda command, **_: done.append(" ".join(command)))
    monkeypatch.setattr(os, "killpg", lambda number, _: done.append(("killpg", number)), raising=False)
    monkeypatch.setattr(signal, "SIGKILL", 9, raising=False)
    systems.end(SimpleNamespace(pid=42, poll=lambda: None, kill=lambda: done.append("kill")))
    assert systems.on_its_own() == started
    assert done == ended


@pytest.mark.parametrize("problem", [FileNotFoundError(), subprocess.TimeoutExpired("taskkill", 5)])
def test_a_process_of_windows_ends_also_without_what_ends_its_children(on, monkeypatch, problem):
    def fail(*_, **__):
        raise problem

    on(WINDOWS)
    monkeypatch.setattr(subprocess, "run", fail)
    done: list[str] = []
    systems.end(SimpleNamespace(pid=42, poll=lambda: None, kill=lambda: done.append("kill")))
    assert done == ["kill"]


def test_the_number_of_a_process_of_windows_that_has_ended_may_be_anothers(on, monkeypatch):
    on(WINDOWS)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("it is asked to end another"))
    systems.end(SimpleNamespace(pid=42, poll=lambda: 0, kill=lambda: None))


@pytest.mark.parametrize(("system", "count"), [(LINUX, 1), (MAC, 0), (WINDOWS, 0)])
def test_a_thread_that_steps_back(on, monkeypatch, system, count):
    on(system)
    done = []
    monkeypatch.setattr(os, "setpriority", lambda *how: done.append(how), raising=False)
    monkeypatch.setattr(os, "PRIO_PROCESS", 0, raising=False)
    systems.step_back()
    assert done == [(0, threading.get_native_id(), 10)] * count


def test_names_of_processors(on, monkeypatch, tmp_path):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="Apple M2\n"))
    monkeypatch.setattr("platform.processor", lambda: "Intel64 Family 6")
    monkeypatch.setattr(systems, "_CPUINFO", tmp_path / "cpuinfo")
    for system, name in [(MAC, "Apple M2"), (WINDOWS, "Intel64 Family 6"), (LINUX, "Intel64 Family 6")]:
        on(system)
        assert systems.processor_name() == name
    systems._CPUINFO.write_text("processor : 0\nmodel name : AMD EPYC 7B13\n")
    assert systems.processor_name() == "AMD EPYC 7B13"


def test_files_of_macos_are_read_past_the_cache_by_a_mode(on, monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"1")
    done = []
    fake = SimpleNamespace(F_NOCACHE=48, fcntl=lambda descriptor, what, value: done.append((what, value)))
    monkeypatch.setitem(sys.modules, "fcntl", fake)
    on(MAC)
    direct, buffered = unbuffered.open_to_read(tmp_path / "file", True)
    os.close(buffered)
    assert (direct, done) == (None, [(48, 1)])
    assert not unbuffered.reads_wait_for_each_other()


def test_files_of_windows_are_read_by_handles(on, monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"1")
    on(WINDOWS)
    monkeypatch.delattr(os, "O_DIRECT", raising=False)
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(get_osfhandle=lambda descriptor: 1000 + descriptor))
    direct, buffered = unbuffered.open_to_read(tmp_path / "file", True)
    os.close(buffered)
    assert unbuffered.handles(direct, buffered) == (-1, 1000 + buffered)
    assert unbuffered.reads_wait_for_each_other()
    assert not unbuffered.can_tell()
    assert not unbuffered.can_forget()
    unbuffered.forget(tmp_path / "file")
    with pytest.raises(ModelFileError, match="cannot be read"):
        unbuffered.open_to_read(tmp_path / "none", True)


def test_locks_of_windows_are_of_a_byte_that_no_file_has(on, monkeypatch, tmp_path):
    done = []
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)

    def locking(which, mode, count):
        done.append((which, mode, count, os.lseek(which, 0, os.SEEK_CUR)))
        if len(done) > 1:
            raise PermissionError(errno.EACCES, "locked")

    on(WINDOWS)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(LK_NBLCK=2, locking=locking))
    assert append_file._lock(descriptor)
    assert not append_file._lock(descriptor)
    os.close(descriptor)
    assert done == 2 * [(descriptor, 2, 1, (1 << 31) - 2)]
