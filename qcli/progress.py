"""What long work tells of itself: progress(stage, fraction from 0 to 1); people read the stages as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from qcli.wording import counted

Progress = Callable[[str, float], None]


def reading(tokens: int) -> str:
    """The stage of a prompt of which so many tokens are new."""
    return f"reading {counted(tokens, 'token')}"


def part_of(progress: Progress | None, stage: str, before: float, part: float, whole: float) -> Progress | None:
    """The progress of a part, told as that of the whole; before: what of the whole was done earlier."""
    if not progress:
        return None
    return lambda _stage, fraction: progress(stage, (before + fraction * part) / whole)


@contextmanager
def heard_out(progress: Progress | None, but: tuple[type[BaseException], ...] = ()) -> Iterator[Progress | None]:
    """Within the block, what whoever is told raises waits for the block's end, and nothing more is told; all but `but`."""
    came: list[BaseException] = []

    def told(stage: str, fraction: float) -> None:
        assert progress
        try:
            if not came:
                progress(stage, fraction)
        except but:
            raise
        except BaseException as problem:
            came.append(problem)

    yield told if progress else None
    if came:
        raise came[0]
