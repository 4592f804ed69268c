"""What a check found, in words for who uses the machine; and the checks, one after the other, none of which ends the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from qcli.errors import QcliError
from qcli.progress import Progress

Status = Literal["PASS", "WARN", "FAIL"]
PASS: Final = "PASS"
WARN: Final = "WARN"
FAIL: Final = "FAIL"

REPORT: Final = "please report it as a bug, with what `qcli doctor --report` prints"
MAKE_ANEW: Final = f"`qcli cache clear kernels`, then look again; if it stays so, {REPORT}"
FREE_SPACE: Final = "free some space; `qcli cache clear` deletes what can be made again"


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str  # of what was looked at
    status: Status
    said: str  # what was found, and what that means
    hint: str = ""  # what to do
    figures: dict[str, Any] = field(default_factory=dict)  # for programs


class Check(NamedTuple):
    """What to look at; it tells how far it is."""

    name: str
    look: Callable[[Progress], Iterator[Finding]]


Sections = dict[str, Sequence[Check]]


def examine(sections: Sections, progress: Progress) -> Iterator[tuple[str, Finding]]:
    """Run all checks, each finding with the title of its section. What goes wrong in a check is a finding, too."""
    count, done = sum(map(len, sections.values())), 0
    for title, checks in sections.items():
        for check in checks:
            yield from ((title, finding) for finding in _looked(check, _part(progress, check.name, done, count)))
            done += 1


def _part(progress: Progress, name: str, done: int, count: int) -> Progress:
    def told(stage: str, fraction: float) -> None:
        progress(f"{name}: {stage}" if stage else name, (done + fraction) / count)

    return told


def _looked(check: Check, progress: Progress) -> Iterator[Finding]:
    progress("", 0.0)
    try:
        yield from check.look(progress)
    except QcliError as problem:
        yield Finding(check.name, FAIL, problem.message, problem.hint_with(()))
    except MemoryError:
        yield Finding(check.name, FAIL, "there is not enough memory to look at this", "close other programs")
    except Exception as problem:
        yield Finding(check.name, FAIL, f"this could not be looked at: {type(problem).__name__}: {problem}", REPORT)
