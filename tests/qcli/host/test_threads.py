"""How many threads are the default, on machines made of files."""

from __future__ import annotations

import os

import pytest

from qcli.host import cgroups, threads


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Describe a machine: a core of each CPU that the process may use, and files of its cgroup."""

    def describe(cores: list[int], cgroup: dict[str, str] | None = None, groups: str = "0::/\n") -> int:
        files = {f"cgroup/{name}": text for name, text in (cgroup or {}).items()} | {"groups": groups}
        for cpu, core in enumerate(cores):
            siblings = ",".join(str(other) for other, its in enumerate(cores) if its == core)
            files[f"cpu/cpu{cpu}/topology/thread_siblings_list"] = siblings + "\n"
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(len(cores))), raising=False)
        return threads.default_threads()

    monkeypatch.setattr(threads, "_CPUS", tmp_path / "cpu")
    monkeypatch.setattr(cgroups, "_MOUNT", tmp_path / "cgroup")
    monkeypatch.setattr(cgroups, "_CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(threads, "_HYBRID", tmp_path / "cpu_core")
    monkeypatch.setattr("sys.platform", "linux")
    return describe


def test_siblings_of_a_core_count_once(machine):
    assert machine([0, 1, 2, 3, 0, 1, 2, 3]) == 4


def test_every_cpu_counts_where_cores_are_not_described(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert threads.default_threads() == 3


def test_only_cpus_that_the_process_may_run_on_count(machine, monkeypatch):
    machine([0, 1, 2, 3, 0, 1, 2, 3])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 6}, raising=False)
    assert threads.default_threads() == 2


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max 100000", 4), ("200000 100000", 2), ("250000 100000", 2), ("50000 100000", 1), ("900000 100000", 4),
     ("nonsense", 4), ("100000 0", 4)],
)  # fmt: skip
def test_the_limit_of_a_cgroup(machine, limit, expected):
    assert machine([0, 1, 2, 3], {"cpu.max": limit + "\n"}) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 4), ("300000", 3), ("10000", 1)])
def test_the_limit_of_an_older_cgroup(machine, quota, expected):
    files = {"cpu/cpu.cfs_quota_us": quota + "\n", "cpu/cpu.cfs_period_us": "100000\n"}
    assert machine([0, 1, 2, 3], files) == expected


@pytest.mark.parametrize(
    ("groups", "path"),
    [
        ("0::/user/job\n", "user/job/cpu.max"),
        ("0::/user/job/step\n", "user/cpu.max"),  # the limit of a group holds for all in it
        ("4:memory:/x\n3:cpu,cpuacct:/docker/abc\n", "cpu,cpuacct/docker/abc/cpu.cfs"),
        ("3:cpu,cpuacct:/docker/abc\n", "cpu/docker/cpu.cfs"),
        ("0::/../../elsewhere\n", "cpu.max"),  # a container whose group is outside of what it sees
        ("3:cpu:/docker/abc\n", "cpu/cpu.cfs"),  # a container that sees its group at the top, by the host's name
    ],
)
def test_the_limit_of_the_process_is_that_of_its_own_group_and_those_around_it(machine, groups, path):
    if path.endswith("max"):
        files = {path: "200000 100000\n"}
    else:
        files = {f"{path}_quota_us": "200000\n", f"{path}_period_us": "100000\n"}
    assert machine([0, 1, 2, 3], files, groups) == 2


def test_the_tightest_limit_counts(machine):
    files = {"cpu.max": "max 100000\n", "a/cpu.max": "100000 100000\n", "a/b/cpu.max": "300000 100000\n"}
    assert machine([0, 1, 2, 3], files, "0::/a/b\n") == 1
    assert machine([0, 1, 2, 3], files, "0::/elsewhere\n") == 4


def test_compilers_keep_to_the_quota_and_may_use_every_hardware_thread(machine):
    machine([0, 0, 1, 1], {"cpu.max": "300000 100000\n"})
    assert threads.processors() == 3
    assert threads.default_threads() == 2


def test_this_machine():
    assert 1 <= threads.default_threads() <= (os.cpu_count() or 1)


def test_efficiency_cores_of_a_hybrid_are_left_out(machine, tmp_path):
    (tmp_path / "cpu_core").write_text("0-3\n")  # two performance cores of two threads, then four efficiency cores
    assert machine([0, 0, 1, 1, 2, 3, 4, 5]) == 2


def test_small_cores_are_left_out(machine, tmp_path):
    for cpu, capacity in enumerate([1024, 1024, 900, 900, 300, 300]):
        (tmp_path / "cpu" / f"cpu{cpu}").mkdir(parents=True)
        (tmp_path / "cpu" / f"cpu{cpu}" / "cpu_capacity").write_text(f"{capacity}\n")
    assert machine([0, 1, 2, 3, 4, 5]) == 4


def test_windows_tells_classes_of_cores():
    def core(kind):
        return (0).to_bytes(4, "little") + (48).to_bytes(4, "little") + bytes([1, kind]) + bytes(38)

    assert threads._classes(core(1) * 6 + core(0) * 8) == [1] * 6 + [0] * 8
    assert threads._classes(b"") == []


def test_all_that_is_to_know_of_cores(machine, tmp_path):
    (tmp_path / "cpu_core").write_text("0-3\n")
    machine([0, 0, 1, 1, 2, 3], {"cpu.max": "100000 100000\n"})
    found = threads.cores()
    assert (found.allowed, found.physical, found.performance, found.quota) == (6, 4, 2, 1)
    machine([0, 1], {"cpu.max": "max 100000\n"})
    assert threads.cores().quota is None


@pytest.mark.parametrize(("cores", "threads_"), [(1, 1), (2, 2), (8, 8), (10, 8), (16, 12), (64, 48)])
def test_lanes_that_read_have_cores_of_their_own_where_there_are_many(monkeypatch, cores, threads_):
    monkeypatch.setattr(threads, "default_threads", lambda: cores)
    assert threads.streaming_threads() == threads_
