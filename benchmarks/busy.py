"""Decoding beside other programs: ours by default and with each fixed number of threads, and llama.cpp, in turns.

    python benchmarks/busy.py -m MODEL [-m MODEL ...] [--loops 0,1,2] [--kinds busy,nice,stop] [-t 1,2] [--rounds 5]
                              [--seconds 1.5] [--peer llama-bench [--peer-threads 2] [--peer-tokens 64]]

Busy loops are processes that compute without end: as they are, niced to 19, or computing and sleeping for 0.3 s each in turn.
A figure is the median of the rounds, in tok/s, with the least and the most.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

from qcli.catalog.resolve import resolve
from qcli.gguf.file import GGUFFile
from qcli.host.threads import default_threads
from qcli.runtime.engine import Engine

_LOOPS = {
    "busy": "while True: pass",
    "nice": "import os; os.nice(19)\nwhile True: pass",
    "stop": "import time\nwhile True:\n    end = time.time() + 0.3\n    while time.time() < end: pass\n    time.sleep(0.3)",
}
_TEXT = 256  # tokens, before the state is emptied


@contextmanager
def beside(count: int, kind: str) -> Iterator[None]:
    """Busy loops of a kind, while the block lasts."""
    loops = [subprocess.Popen([sys.executable, "-c", _LOOPS[kind]]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def decoded(engine: Engine, seconds: float) -> float:
    """Tokens decoded in a second, over so many seconds."""
    engine.reset()
    began, count = perf_counter(), 0
    while (now := perf_counter()) - began < seconds or count < 8:
        if engine.position >= min(_TEXT, engine.ctx):
            engine.reset()
        engine.step(1 + count * 7919 % (engine.vocab_size - 1))
        count += 1
    return count / (now - began)


def peer_decoded(command: str, model: str, threads: int, tokens: int) -> float:
    """What llama-bench says of so many tokens, after one that warms up."""
    line = peer_line(command, model, threads, tokens)
    return peer_speed(subprocess.run(line, capture_output=True, text=True, check=True).stdout)


def peer_line(command: str, model: str, threads: int, tokens: int) -> list[str]:
    """How llama-bench is asked to decode so many tokens once."""
    return [command, "-m", model, "-t", str(threads), "-p", "0", "-n", str(tokens), "-r", "1", "-o", "json"]


def peer_speed(said: str) -> float:
    """The tok/s that it tells."""
    return float(json.loads(said)[0]["avg_ts"])


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", action="append", help="again and again for several, one after the other")
    parser.add_argument("--loops", default="0,1,2")
    parser.add_argument("--kinds", default="busy,nice,stop")
    parser.add_argument("-t", "--threads")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--peer", help="llama-bench; its own default are all cores")
    parser.add_argument("--peer-threads", help="those of -t, unless given")
    parser.add_argument("--peer-tokens", type=int, default=64, help="beside busy programs one may take a second")
    given = parser.parse_args()
    for model in given.model or [None]:
        measure(given, resolve(model)[0])


def measure(given: argparse.Namespace, path: Path) -> None:
    """Tell a line of figures of a model for each number of loops of each kind."""
    counts = numbers(given.threads) if given.threads else sorted({1, default_threads()})
    peers = numbers(given.peer_threads) if given.peer_threads else counts
    kinds, loops = given.kinds.split(","), numbers(given.loops)
    beside_what = [(count, kind) for kind in kinds for count in loops if count or kind == kinds[0]]
    print(path.stem, flush=True)
    with GGUFFile.open(path) as file:
        threads_of = {"default": None, **{f"-t {count}": count for count in counts}}
        engines = {name: Engine.load(file, threads=threads, ctx=_TEXT) for name, threads in threads_of.items()}
        runs: dict[str, Callable[[], float]]
        runs = {name: partial(decoded, engine, given.seconds) for name, engine in engines.items()}
        for count in peers if given.peer else []:
            runs[f"llama.cpp -t {count}"] = partial(peer_decoded, given.peer, str(path), count, given.peer_tokens)
        for count, kind in beside_what:
            found: dict[str, list[float]] = {name: [] for name in runs}
            with beside(count, kind):
                for turn in range(given.rounds):
                    for name in list(runs)[:: 1 if turn % 2 else -1]:
                        found[name].append(runs[name]())
            told = (figure(name, values) for name, values in found.items())
            print(f"{count} {kind}" if count else "quiet", *told, sep=" | ", flush=True)
        for engine in engines.values():
            engine.close()


def numbers(text: str) -> list[int]:
    """Those of an option, between commas."""
    return [int(number) for number in text.split(",")]


def figure(name: str, values: list[float]) -> str:
    """The median of some, with the least and the most."""
    return f"{name} {median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


if __name__ == "__main__":
    main()
