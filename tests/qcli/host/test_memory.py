"""How much memory is free, on made-up machines."""

from __future__ import annotations

import pytest

from qcli.host import cgroups, memory


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Writes files of a Linux machine: machine(path, content)."""
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(cgroups, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cgroups, "_MOUNT", tmp_path / "sys")
    monkeypatch.setattr(memory.sys, "platform", "linux")

    def write(path, content):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)

    write("meminfo", "MemTotal: 100 kB\nMemFree: 10 kB\nMemAvailable:   64 kB\n")
    return write


def test_what_the_system_calls_available(machine):
    assert memory.available_memory() == 64 << 10


def test_a_system_that_keeps_its_numbers_to_itself(machine, monkeypatch):
    """Without a readable /proc there is what POSIX tells, of which a quarter is left to other programs."""
    monkeypatch.setattr(memory.os, "access", lambda *_: False)
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}.get, raising=False)
    assert (memory.total_memory(), memory.available_memory()) == (4_096_000, 3_072_000)


def test_the_page_cache_of_a_cgroup_is_free(machine):
    machine("cgroup", "0::/user/me\n")
    machine("sys/user/me/memory.max", "30000\n")
    machine("sys/user/me/memory.current", "20000\n")
    machine("sys/user/me/memory.stat", "anon 5000\nfile 15000\n")
    assert memory.available_memory() == 25000


def test_the_limit_of_a_group_around_it_holds_too(machine):
    machine("cgroup", "0::/user/me\n")
    machine("sys/user/memory.max", "30000\n")
    machine("sys/user/memory.current", "20000\n")
    machine("sys/user/memory.stat", "file 0\n")
    assert memory.available_memory() == 10000


def test_a_cgroup_without_a_limit(machine):
    machine("cgroup", "0::/\n")
    machine("sys/memory.max", "max\n")
    machine("sys/memory.current", "20000\n")
    machine("sys/memory.stat", "file 1\n")
    assert memory.available_memory() == 64 << 10


def test_version_1_in_a_container(machine):
    machine("cgroup", "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n")
    machine("sys/memory/memory.limit_in_bytes", "9000\n")
    machine("sys/memory/memory.usage_in_bytes", "8000\n")
    machine("sys/memory/memory.stat", "cache 1\ntotal_cache 500\n")
    assert memory.available_memory() == 1500


def test_this_machine_has_some():
    assert memory.available_memory() > 1 << 20
