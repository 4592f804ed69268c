"""Processes that compile kernels beside the program, in the order in which it needs them."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import CodeType
from typing import Any

from quant import kernel_cache, numba_environment
from quant.declarations import Inline
from quant.jit import Kernel


class Compilers:
    """Some processes at a time, each with a thread that hands it one kernel after the other; they end when none is left.

    What they leave out, as there is no interpreter or thread to start or a compiler has ended, is for whoever needs it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: list[list[Kernel]] = []  # that wait, those that are needed first in front
        self._under_way: set[str] = set()  # names
        self._running = 0  # processes
        self._processes: set[subprocess.Popen[str]] = set()

    def add(self, groups: Iterable[Sequence[Kernel]], most: int) -> None:
        """Have kernels compiled that are not about to be, a group after the other, by at most so many processes."""
        with self._lock:
            known = self._under_way | {kernel.name for group in self._groups for kernel in group}
            for group in groups:
                new = sorted((kernel for kernel in group if kernel.name not in known), key=_length, reverse=True)
                self._groups.append(new)
            wanted = max(0, min(most, sum(map(len, self._groups))) - self._running)
            self._running += wanted
        for started in range(wanted):
            try:
                threading.Thread(target=self._work, daemon=True).start()
            except RuntimeError:  # the system has no more threads for this user
                for _ in range(wanted - started):
                    self._end()
                return

    def hurry(self, kernels: Sequence[Kernel]) -> None:
        """Put kernels in front of all that wait."""
        names = {kernel.name for kernel in kernels}
        with self._lock:
            first = [kernel for group in self._groups for kernel in group if kernel.name in names]
            others = [[kernel for kernel in group if kernel.name not in names] for group in self._groups]
            self._groups = [first, *others]

    def pending(self, kernels: Sequence[Kernel]) -> list[Kernel]:
        """Those of the kernels that are being compiled, or about to be."""
        if not self._running:
            return []
        with self._lock:
            known = self._under_way | {kernel.name for group in self._groups for kernel in group}
        return [kernel for kernel in kernels if kernel.name in known]

    def stop(self) -> None:
        """Forget what waits, and end the processes."""
        with self._lock:
            self._groups.clear()
            processes = list(self._processes)
        for process in processes:
            process.kill()

    def forget(self) -> None:
        """In a child of a fork: what the parent's threads do there."""
        self.__init__()  # type: ignore[misc]

    def _work(self) -> None:
        """Have one process compile until nothing is left."""
        modules: set[str] = set()
        try:
            with _started() as process:
                with self._lock:
                    self._processes.add(process)
                while kernel := self._next(modules):
                    modules.add(kernel.module)
                    came = _compiled(process, kernel)
                    with self._lock:
                        self._under_way.discard(kernel.name)
                    if not came:
                        self._end()
                        break
                with self._lock:
                    self._processes.discard(process)
        except (
            OSError,
            RuntimeError,
            MemoryError,
        ):  # no such interpreter, as in a frozen program; no process or memory left
            self._end()

    def _next(self, modules: set[str]) -> Kernel | None:
        """A kernel that is needed first; of these, one of a module whose helpers a process has compiled, else the longest."""
        with self._lock:
            while self._groups and not self._groups[0]:
                del self._groups[0]
            if not self._groups:
                self._running -= 1
                return None
            group = self._groups[0]
            kernel = next((kernel for kernel in group if kernel.module in modules), group[0])
            group.remove(kernel)
            self._under_way.add(kernel.name)
            return kernel

    def _end(self) -> None:
        """A process has ended; without another one nobody compiles what is left."""
        with self._lock:
            self._running -= 1
            if not self._running:
                self._groups.clear()


def _started() -> subprocess.Popen[str]:
    environment = {**numba_environment.without(os.environ), "NUMBA_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "quant.compile_worker", str(kernel_cache.root())],
        env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _compiled(process: subprocess.Popen[str], kernel: Kernel) -> bool:
    """Hand a kernel to a process; whether that has answered, and lives."""
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write(f"{kernel.name}\n")
        process.stdin.flush()
        return bool(process.stdout.readline())
    except OSError:
        return False


def _length(kernel: Kernel) -> int:
    """How much code a kernel consists of: those that take long to compile are begun first."""
    return sum(len(body.co_code) for body in _bodies(kernel))


def _bodies(kernel: Kernel) -> Iterator[CodeType]:
    """Its own code and that of its helpers, each once."""
    ahead, seen = [kernel.body], set[Callable[..., Any]]()
    while ahead:
        body = ahead.pop()
        if body not in seen:
            seen.add(body)
            yield body.__code__
            used = (body.__globals__.get(name) for name in body.__code__.co_names)
            ahead.extend(helper.body for helper in used if isinstance(helper, Inline))


COMPILERS = Compilers()  # of this process
atexit.register(COMPILERS.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=COMPILERS.forget)
