"""Temporary folders that are gone even if the program ends at once, as it does at Ctrl-C while kernels are compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_made: set[str] = set()


@contextmanager
def temporary_folder(near: Path | None = None) -> Iterator[Path]:
    """A folder that is there until the block ends; near: the folder to make it in, else that of the system. Raises OSError."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="qcli-", dir=near, ignore_cleanup_errors=True) as name:
        _made.add(name)
        try:
            yield Path(name)
        finally:
            _made.discard(name)


def remove_all() -> None:
    """Delete those that are there now, before the program is ended."""
    for name in list(_made):
        import shutil

        shutil.rmtree(name, ignore_errors=True)
