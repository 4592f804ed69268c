"""Decoding where some cores are slower than others: the threads on these are given a share of their time only.

    sudo python benchmarks/hybrid.py -m MODEL [--slow 1] [--shares 100,50,33] [-t 1,2] [--rounds 3] [--seconds 1.5]
                                     [--peer llama-bench]

Linux, and cgroups of version 1 that may be made. Each thread is kept on a core of its own; the last --slow cores have a cgroup
each, whose time ends after that share of every two to eight milliseconds. Such a core stops and goes, where a slow one would
be slow all the time, so that this is the harder case. Ideal: what the default makes with all cores whole, times the mean of
the shares. Held up: how often a slow core's time ended. A figure is the median of the rounds, in tok/s, with the least and
the most.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median

from busy import decoded, figure, numbers, peer_line, peer_speed

from qcli.catalog.resolve import resolve
from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine

_LEAST_US = 1000  # that a quota may be


def own_group() -> Path:
    """The cgroup of this process, by which processors give it time; ends the program where none can be made below it."""
    lines = (line.split(":") for line in Path("/proc/self/cgroup").read_text().splitlines())
    paths = [path for _, controllers, path in lines if "cpu" in controllers.split(",")]
    for path in paths:
        group = Path("/sys/fs/cgroup/cpu") / path.lstrip("/")
        if (group / "cpu.cfs_quota_us").exists() or (path == "/" and (group / "tasks").exists()):
            if os.access(group, os.W_OK):
                return group
            sys.exit(f"error: {group} cannot be written to: run this with sudo")
    sys.exit(
        "error: /sys/fs/cgroup/cpu has no cgroup of version 1 of this process: boot with systemd.unified_cgroup_hierarchy=0"
    )


class Cores:
    """A core for each thread, of which the last are slow within `slowed`."""

    def __init__(self, cores: list[int], slow: int) -> None:
        self._cores, self._home = cores, own_group()
        self._groups = {core: self._home / f"qcli-slow-core-{core}" for core in cores[len(cores) - slow :]}

    @contextmanager
    def slowed(self, share: int) -> Iterator[None]:
        """The slow cores' threads have so many percent of them."""
        quota = _LEAST_US if share <= 50 else 3 * _LEAST_US
        try:
            for group in self._groups.values():
                group.mkdir(exist_ok=True)
                (group / "cpu.cfs_period_us").write_text(str(quota * 100 // share))
                (group / "cpu.cfs_quota_us").write_text(str(quota if share < 100 else -1))
            yield
        finally:
            for group in filter(Path.exists, self._groups.values()):
                for thread in (group / "tasks").read_text().split():
                    _move(thread, self._home)
                group.rmdir()

    def held_up(self) -> int:
        """How often a slow core's time has ended."""
        stats = [
            dict(line.split() for line in (g / "cpu.stat").read_text().splitlines()) for g in self._groups.values()
        ]
        return sum(int(stat["nr_throttled"]) for stat in stats)

    def place(self, threads: list[int]) -> None:
        """Keep each thread on a core of its own, the first on the first."""
        for thread, core in zip(threads, self._cores * len(threads), strict=False):
            with suppress(ProcessLookupError):  # it has ended
                os.sched_setaffinity(thread, {core})
                _move(str(thread), self._groups.get(core, self._home))


def _move(thread: str, group: Path) -> None:
    with suppress(ProcessLookupError):
        (group / "tasks").write_text(thread)


def threads_of(process: int | str) -> list[int]:
    """Of a process, the one that was there first first."""
    return sorted(map(int, os.listdir(f"/proc/{process}/task")))


class Placed:
    """An engine whose threads have each a core."""

    def __init__(self, file: GGUFFile, threads: int | None, cores: Cores) -> None:
        others = set(threads_of("self"))
        self._engine, self._cores = Engine.load(file, threads=threads, ctx=256), cores
        self._helpers = [thread for thread in threads_of("self") if thread not in others]

    def decoded(self, seconds: float) -> float:
        """Tokens a second."""
        self._cores.place([threading.get_native_id(), *self._helpers])
        return decoded(self._engine, seconds)


def peer_decoded(command: str, model: str, threads: int, cores: Cores) -> float:
    """What llama-bench says of 32 tokens, its threads placed alike."""
    line = peer_line(command, model, threads, 32)
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        while running.poll() is None:
            try:
                cores.place(threads_of(running.pid))
                running.wait(0.02)
            except FileNotFoundError:
                break
            except subprocess.TimeoutExpired:
                pass
        return peer_speed(running.communicate()[0])


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model")
    parser.add_argument("--slow", type=int, default=1)
    parser.add_argument("--shares", default="100,50,33")
    parser.add_argument("-t", "--threads")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--peer", help="llama-bench")
    given = parser.parse_args()
    path, usable = resolve(given.model)[0], sorted(os.sched_getaffinity(0))
    if not 0 < given.slow < len(usable):
        parser.error(
            f"--slow must be from 1 to {len(usable) - 1} here, as one of {len(usable)} cores at least is whole"
        )
    cores = Cores(usable, given.slow)
    counts = numbers(given.threads) if given.threads else sorted({1, len(usable) - given.slow, len(usable)})
    with GGUFFile.open(path) as file:
        runs: dict[str, Callable[[], float]] = {
            name: partial(Placed(file, threads, cores).decoded, given.seconds)
            for name, threads in [("default", None), *((f"-t {count}", count) for count in counts)]
        }
        for threads in counts if given.peer else ():
            runs[f"llama.cpp -t {threads}"] = partial(peer_decoded, given.peer, str(path), threads, cores)
        whole = 0.0
        for share in numbers(given.shares):
            found: dict[str, list[float]] = {name: [] for name in runs}
            with cores.slowed(share):
                for turn in range(given.rounds):
                    for name in list(runs)[:: 1 if turn % 2 else -1]:
                        found[name].append(runs[name]())
                held_up = cores.held_up()
            whole = whole or median(found["default"])
            mean = (len(usable) - given.slow + given.slow * share / 100) / len(usable)
            told = (figure(name, speeds) for name, speeds in found.items())
            print(f"{share} %", *told, f"ideal {whole * mean:.1f}", f"held up {held_up} times", sep=" | ", flush=True)


if __name__ == "__main__":
    main()
