"""What surrounds qcli: its folders, kept kernels, settings, versions."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple

from qcli import __version__
from qcli.doctor.disk import existing
from qcli.doctor.finding import FAIL, FREE_SPACE, PASS, WARN, Finding, Status
from qcli.errors import QcliError
from qcli.host import folders
from qcli.host.kernels import compile_all
from qcli.hub.cache import hub_cache
from qcli.progress import Progress
from qcli.settings.declared import SETTINGS
from qcli.settings.values import Settings
from qcli.wording import counted, duration, size
from quant import kernel_cache

_TRIED: Final = 1 << 16  # bytes that are written for a trial
_LITTLE: Final = 1_000_000_000  # bytes
_MOST_NAMED: Final = 3
_VARIABLES: Final = ("QCLI_", "NUMBA_", "HF_", "OMP_", "XDG_", "NO_COLOR", "PYTHONPATH")


class _Folder(NamedTuple):
    name: str
    path: Callable[[], Path | None]
    lost: str  # what is lost if nothing can be written there
    severity: Status
    hint: str


def _places() -> list[_Folder]:
    """The folders that are written to."""
    return [
        _Folder("cache", folders.some_cache, *_without_cache(),
                f"give it to yourself with chmod or chown, or choose another: {folders.CHOOSES_CACHE}=/full/path"),
        _Folder("conversations", folders.data, "no conversation can be saved", FAIL,
                "give it to yourself with chmod or chown, or type `qcli chat --no-save`"),
        _Folder("settings", folders.config, "`qcli config set` cannot work", WARN,
                "give it to yourself with chmod or chown"),
        _Folder("downloads", hub_cache, "`qcli pull` cannot work", WARN,
                "give it to yourself with chmod or chown, or choose another: HF_HOME=/full/path"),
    ]  # fmt: skip


def _without_cache() -> tuple[str, Status]:
    """What is lost if nothing can be written there: less where kernels are kept in a temporary folder instead."""
    place, own = kernel_cache.root(), None
    with suppress(OSError):
        own = folders.some_cache()
    if place and own and place != own and not unwritable(place):
        return f"compiled kernels are in {place} instead, until it is emptied, and chats are read again", WARN
    return "every start compiles anew, and chats are read again", FAIL


def all_folders(_progress: Progress) -> Iterator[Finding]:
    """Whether each can be written to, and has space."""
    for folder in _places():
        name = f"folder: {folder.name}"
        try:
            path = folder.path()
        except FileNotFoundError:
            path = None
        if path is None:
            hint = "set the variable HOME to a folder of yours"
            yield Finding(name, folder.severity, f"there is no home folder: {folder.lost}", hint)
        else:
            yield _of_folder(name, path, folder)


def _of_folder(name: str, path: Path, folder: _Folder) -> Finding:
    figures: dict[str, object] = {"path": str(path)}
    if problem := unwritable(path):
        full = problem.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
        hint = FREE_SPACE if full else folder.hint
        reason = "the disk is full" if full else f"cannot be written to ({_reason(problem)})"
        status = FAIL if full else folder.severity
        return Finding(name, status, f"{path}: {reason}: {folder.lost}", hint, figures)
    free = shutil.disk_usage(existing(path)).free
    figures["free"] = free
    if free < _LITTLE:
        return Finding(name, WARN, f"{path}: only {size(free)} are free on this disk", FREE_SPACE, figures)
    return Finding(name, PASS, f"{path}: can be written to, {size(free)} free", "", figures)


def unwritable(path: Path) -> OSError | None:
    """Why a folder, or if it is not there one that it would be made in, cannot be written to; None if it can.

    Tried by a file without a name: of permissions alone, root and read-only file systems know nothing.
    """
    try:
        with tempfile.TemporaryFile(dir=existing(path)) as file:
            file.write(bytes(_TRIED))
            file.flush()
            os.fsync(file.fileno())
    except OSError as problem:
        return problem
    return None


def _reason(problem: OSError) -> str:
    return problem.strerror or str(problem)


def kernels(progress: Progress) -> Iterator[Finding]:
    """Where compiled kernels are kept, how many, and whether they are as they were written."""
    place = kernel_cache.folder()
    refused = unwritable(place) if place else None
    if place is None or refused:
        reason = f"{place}: cannot be written to ({_reason(refused)})" if refused else "there is no folder for it"
        hint = f"choose another folder: {folders.CHOOSES_CACHE}=/full/path"
        yield Finding("kernel cache", FAIL, f"{reason}: every start compiles anew, which takes half a minute", hint)
        return
    files, damaged = kernel_cache.kept(), []
    for done, path in enumerate(files):
        progress("", done / len(files))
        if not kernel_cache.is_whole(path):
            damaged.append(path)
    n_bytes = sum(path.stat().st_size for path in files)
    figures = {"path": str(place), "files": len(files), "bytes": n_bytes, "damaged": [path.name for path in damaged]}
    said = f"{place}: {counted(len(files), 'compiled function')}, {size(n_bytes)}"
    if damaged:
        names = ", ".join(path.name for path in damaged[:_MOST_NAMED]) + (", …" if damaged[_MOST_NAMED:] else "")
        hint = "`qcli cache clear kernels` has them made anew; if it happens again, the disk or the memory is failing"
        yield Finding("kernel cache", FAIL, f"{said}; damaged: {names}", hint, figures)
    else:
        yield Finding("kernel cache", PASS, f"{said}, all whole", "", figures)


def compiling(progress: Progress) -> Iterator[Finding]:
    """Have every kernel compiled, so that no model will wait for that."""
    began = monotonic()
    done, count = compile_all(progress)
    seconds = monotonic() - began
    said = f"{counted(done, 'function')} of {count} compiled in {duration(seconds)}; no model will wait for that"
    yield Finding("compiling", PASS, said, "", {"compiled": done, "functions": count, "seconds": seconds})


def settings(_progress: Progress) -> Iterator[Finding]:
    """What the user has set, and whether it can be meant."""
    found = Settings()
    set_, wrong = [], dict[str, QcliError]()
    for key in SETTINGS:
        try:
            if found.value(key).source != "default":
                set_.append(key)
        except QcliError as problem:
            wrong[problem.message] = problem
    yield from (Finding("settings", FAIL, each.message, each.hint) for each in wrong.values())
    if wrong:
        return
    for remark in found.remarks():
        yield Finding("settings", WARN, remark, "`qcli config unset KEY` removes it")
    said = f"set: {', '.join(set_)}" if set_ else "nothing is set: all is as it comes"
    yield Finding("settings", PASS, said, "", {"set": set_})


def versions(_progress: Progress) -> Iterator[Finding]:
    """Of programs that matter, and of the system; and which variables of the environment are set."""
    found = {"qcli": __version__, "Python": platform.python_version()}
    found |= {name: version(name) for name in ("numpy", "numba", "llvmlite")}
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    variables = sorted(name for name in os.environ if name.startswith(_VARIABLES))
    said = f"{', '.join(f'{name} {number}' for name, number in found.items())}; {system}"
    yield Finding("versions", PASS, said, "", found | {"system": system})
    if variables:
        yield Finding("environment", PASS, f"set: {', '.join(variables)}", "", {"variables": variables})
