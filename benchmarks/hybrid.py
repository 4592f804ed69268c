"""Decoding where one core is slower than the other: a thread's core is given a share of its time only.

    sudo python benchmarks/hybrid.py -m MODEL [--shares 100,75,50,25] [--rounds 3] [--seconds 1.5] [--peer llama-bench]

Linux, cgroups of version 1 that may be made, and two cores. The first thread has a core to itself; the second one is kept on
another, and in a cgroup whose time ends after that share of every two to eight milliseconds. Such a core stops and goes, where
a slow one would be slow all the time, so that this is the harder case. Ideal: what the default makes with both cores whole,
times the mean of the shares. A figure is the median of the rounds, in tok/s, with the least and the most.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median

from busy import decoded, figure, peer_line, peer_speed

from qcli.catalog.resolve import resolve
from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine

_GROUP = Path("/sys/fs/cgroup/cpu/qcli-slow-core")
_LEAST_US = 1000  # that a quota may be


@contextmanager
def slow_core(share: int) -> Iterator[None]:
    """A cgroup whose threads have so many percent of a core together."""
    _GROUP.mkdir(exist_ok=True)
    try:
        quota = _LEAST_US if share <= 50 else 3 * _LEAST_US
        (_GROUP / "cpu.cfs_period_us").write_text(str(quota * 100 // share))
        (_GROUP / "cpu.cfs_quota_us").write_text(str(quota if share < 100 else -1))
        yield
    finally:
        for thread in (_GROUP / "tasks").read_text().split():
            _move(thread, _GROUP.parent)
        _GROUP.rmdir()


def _move(thread: str, group: Path) -> None:
    with suppress(ProcessLookupError):  # it has ended
        (group / "tasks").write_text(thread)


def keep_on_slow_core(process: int | str, but: int) -> None:
    """Keep all threads of a process that compute on the second core, but for one, which gets the first."""
    for thread in os.listdir(f"/proc/{process}/task"):
        try:
            os.sched_setaffinity(int(thread), {int(int(thread) != but)})
        except ProcessLookupError:
            continue
        if int(thread) != but:
            _move(thread, _GROUP)


def our_decoded(engine: Engine, seconds: float) -> float:
    """Tokens a second of an engine whose helpers have the slow core."""
    keep_on_slow_core("self", threading.get_native_id())
    return decoded(engine, seconds)


def peer_decoded(command: str, model: str, threads: int) -> float:
    """What llama-bench says of 32 tokens, its threads placed alike."""
    line = peer_line(command, model, threads, 32)
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        while running.poll() is None:
            try:
                keep_on_slow_core(running.pid, running.pid)
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
    parser.add_argument("--shares", default="100,75,50,25")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--peer", help="llama-bench")
    given = parser.parse_args()
    path = resolve(given.model)[0]
    with GGUFFile.open(path) as file:
        runs: dict[str, Callable[[], float]] = {
            name: partial(our_decoded, Engine.load(file, threads=threads, ctx=256), given.seconds)
            for name, threads in (("default", None), ("-t 1", 1), ("-t 2", 2))
        }
        for threads in (1, 2) if given.peer else ():
            runs[f"llama.cpp -t {threads}"] = partial(peer_decoded, given.peer, str(path), threads)
        whole = 0.0
        for share in map(int, given.shares.split(",")):
            found: dict[str, list[float]] = {name: [] for name in runs}
            with slow_core(share):
                for turn in range(given.rounds):
                    for name in list(runs)[:: 1 if turn % 2 else -1]:
                        found[name].append(runs[name]())
            whole = whole or median(found["default"])
            told = (figure(name, speeds) for name, speeds in found.items())
            print(f"{share} %", *told, f"ideal {whole * (100 + share) / 200:.1f}", sep=" | ", flush=True)


if __name__ == "__main__":
    main()
