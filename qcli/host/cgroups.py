"""Control groups of Linux, versions 1 and 2, by which containers and services limit a process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

_CGROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


def folders(controller: str) -> list[Path]:
    """Where the limits of a controller ("cpu", "memory") on this process may be: its groups, and all that they are in.

    Not every one exists: in a container the paths are often those that its host sees, and its own group is at the top.
    """
    try:
        return _folders(read(_CGROUPS), controller, _MOUNT)
    except OSError:
        return _folders("", controller, _MOUNT)


def read(path: Path) -> str:
    """What a file of the system says. Raises OSError; quick where there is none, as for most groups."""
    file = os.open(path, os.O_RDONLY)
    try:
        parts = []
        while part := os.read(file, 1 << 16):
            parts.append(part)
        return b"".join(parts).decode()
    finally:
        os.close(file)


@lru_cache(maxsize=8)
def _folders(groups: str, controller: str, mount: Path) -> list[Path]:
    """The same, by what the system says of the groups: that of a process seldom changes."""
    found = [mount, mount / controller]
    for hierarchy, group in _groups(groups, controller, mount):
        found += [hierarchy / part for part in (group, *group.parents)]
    return list(dict.fromkeys(found))


def _groups(groups: str, controller: str, mount: Path) -> Iterator[tuple[Path, PurePosixPath]]:
    """Each hierarchy that may know the controller, and the group of this process in it."""
    for line in groups.splitlines():
        controllers, path = line.split(":", 2)[1:]
        group = PurePosixPath(path.lstrip("/"))
        if ".." in group.parts:  # outside of what the container may see
            continue
        if not controllers:  # version 2, alone or beside version 1
            yield mount, group
            yield mount / "unified", group
        elif controller in controllers.split(","):
            yield mount / controllers, group
            yield mount / controller, group
