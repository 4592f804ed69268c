"""Measure this version, an earlier one and other engines in turns on one machine, and keep the table of docs/speed.md.

    python benchmarks/speed.py [-m MODEL …] [--before COMMIT] [--peer NAME=LLAMA-BENCH …] [-t 1,2] [--rounds 5]
                               [--tests pp64,pp512,tg64] [--write docs/speed.md]

A figure is the median of the rounds, with the least and the most. A ratio is the median of the rounds' own ratios, as memory
of a shared machine may give half or double from one minute to the next: above 1, this version is the faster one. Every figure
comes from a process of its own, and engines take turns within a round. `--write` replaces what the file says of this machine.

An earlier version is checked out into a temporary folder, and each version has a kernel cache of its own there; the first
round only warms up. A peer is any program that takes the options of `llama-bench` and writes its JSON.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from qcli.catalog.resolve import resolve

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- speed: written by benchmarks/speed.py -->\n", "<!-- /speed -->\n"


@dataclass(frozen=True)
class Case:
    """One row: a model, a test as llama-bench calls it, and a number of threads."""

    model: str
    test: str
    threads: int

    def options(self) -> list[str]:
        """What both kinds of programs take."""
        kind, count = self.test[:2], self.test[2:]
        lengths = ["-p", count, "-n", "0"] if kind == "pp" else ["-p", "0", "-n", count]
        return ["-m", self.model, *lengths, "-t", str(self.threads)]


@dataclass
class Found:
    """What an engine made of a case: tokens a second of each round, and what memory gave meanwhile, GB/s."""

    speeds: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Version:
    """A checkout of this project."""

    name: str
    root: Path
    cache: Path

    def measure(self, case: Case) -> dict[str, Any]:
        """What `qcli bench --json` says."""
        path = os.pathsep.join([str(self.root), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = os.environ | {"PYTHONPATH": path, "QCLI_CACHE_DIR": str(self.cache)}
        line = [sys.executable, "-P", "-m", "qcli", "bench", *case.options(), "-r", "1", "--json"]
        test = json.loads(_output(line, env=env))[0]
        return {
            "tok_per_s": test["tok_per_s"],
            "gb_per_s": test["gb_per_s"],
            "memory": test["machine"]["bandwidth_gb_per_s"],
            "machine": f"{test['machine']['cpu']}, {test['machine']['cores']} cores, {test['machine']['dot_unit']}",
        }


@dataclass(frozen=True)
class Peer:
    """Another engine, by its llama-bench."""

    name: str
    command: str

    def measure(self, case: Case) -> dict[str, Any]:
        """What it says of a case; it warms up by itself."""
        return {"tok_per_s": json.loads(_output([self.command, *case.options(), "-r", "1", "-o", "json"]))[0]["avg_ts"]}


def _output(line: Sequence[str], env: dict[str, str] | None = None) -> str:
    done = subprocess.run(line, capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"{' '.join(line)}\nended with exit code {done.returncode}:\n{done.stderr.strip()[-1000:]}")
    return done.stdout


def _commit() -> str:
    """Which commit this version is; nothing where it is no checkout."""
    line = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    said = subprocess.run(line, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return "" if said.returncode else f"{said.stdout.strip()}, "


@contextmanager
def checkout(commit: str, folder: Path) -> Iterator[Path]:
    """The files of a commit, while the block lasts."""
    subprocess.run(["git", "-C", str(ROOT), "worktree", "add", "--quiet", "--detach", str(folder), commit], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(folder)], check=True)


def measure(
    engines: Sequence[Version | Peer], cases: Sequence[Case], rounds: int
) -> tuple[dict[tuple[str, Case], Found], str]:
    """All cases by all engines, in turns; and the machine, as this version tells it."""
    machine = ""
    found = {(engine.name, case): Found() for engine in engines for case in cases}
    for turn in range(rounds + 1):
        for case in cases:
            for engine in [*engines[turn % len(engines) :], *engines[: turn % len(engines)]]:
                said = engine.measure(case)
                machine = machine or said.get("machine", "")
                print(
                    f"round {turn}: {case.test} -t {case.threads} {engine.name}: {said['tok_per_s']:.1f}",
                    file=sys.stderr,
                )
                if turn:
                    of = found[engine.name, case]
                    of.speeds.append(said["tok_per_s"])
                    if "memory" in said:
                        of.used.append(said["gb_per_s"])
                        of.memory.append(said["memory"])
    return found, machine


def ratio(ours: Found, theirs: Found) -> str:
    """The median of the rounds' ratios, with the least and the most."""
    each = sorted(a / b for a, b in zip(ours.speeds, theirs.speeds, strict=True))
    return f"{median(each):.2f} ({each[0]:.2f}-{each[-1]:.2f})"


def table(engines: Sequence[Version | Peer], cases: Sequence[Case], found: dict[tuple[str, Case], Found]) -> str:
    """The rows, as Markdown."""
    ours, *others = engines
    names = "".join(f" beside {other.name} |" for other in others)
    lines = [f"| model | test | threads | tok/s | of what memory gives |{names}"]
    lines.append("|---|---|--:|--:|--:|" + "--:|" * len(others))
    for case in cases:
        own = found[ours.name, case]
        speeds = f"{median(own.speeds):,.0f} ({min(own.speeds):,.0f}-{max(own.speeds):,.0f})"
        share = median(a / b for a, b in zip(own.used, own.memory, strict=True))
        memory = f"{share:.0%} of {median(own.memory):.0f} GB/s" if case.test.startswith("tg") else ""
        ratios = "".join(f" {ratio(own, found[other.name, case])} |" for other in others)
        model = Path(case.model).stem
        lines.append(f"| {model} | {case.test} | {case.threads} | {speeds} | {memory} |{ratios}")
    return "\n".join(lines) + "\n"


def write(path: Path, machine: str, section: str) -> None:
    """Put a machine's section between the two marks of a file, in place of an older one of the same machine."""
    text = path.read_text()
    before, rest = text.split(BEGIN)
    between, after = rest.split(END)
    kept = [part for part in between.split("### ")[1:] if not part.startswith(machine + "\n")]
    sections = "".join(f"### {part.strip()}\n\n" for part in [*kept, f"{machine}\n\n{section}"])
    path.write_text(f"{before}{BEGIN}\n{sections}{END}{after}")


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", action="append")
    parser.add_argument("--before", metavar="COMMIT")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=LLAMA-BENCH")
    parser.add_argument("-t", "--threads", default=str(os.cpu_count()))
    parser.add_argument("--tests", default="pp64,pp512,tg64")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", type=Path, metavar="FILE")
    given = parser.parse_args()
    models = given.model or [str(resolve(None)[0])]
    threads = [int(count) for count in given.threads.split(",")]
    cases = [Case(model, test, count) for model in models for test in given.tests.split(",") for count in threads]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engines: list[Version | Peer] = [Version("this version", ROOT, folder / "cache")]
        if given.before:
            root = stack.enter_context(checkout(given.before, folder / "before"))
            engines.append(Version(given.before, root, folder / "cache before"))
        engines += [Peer(*peer.split("=", 1)) for peer in given.peer]
        found, machine = measure(engines, cases, given.rounds)
    about = f"{datetime.date.today()}, {_commit()}{given.rounds} rounds:\n\n"
    section = about + table(engines, cases, found)
    print(f"{machine}\n\n{section}")
    if given.write:
        write(given.write, machine, section)


if __name__ == "__main__":
    main()
