"""Control groups of Linux, versions 1 and 2, by which containers and services limit a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_CGROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


def folders(controller: str) -> list[Path]:
    """Where the limits of a controller ("cpu", "memory") on this process may be: its groups, and all that they are in.

    Not every one exists: in a container the paths are often those that its host sees, and its own group is at the top.
    """
    found = [_MOUNT, _MOUNT / controller]
    for mount, group in _groups(controller):
        found += [mount / part for part in (group, *group.parents)]
    return list(dict.fromkeys(found))


def _groups(controller: str) -> Iterator[tuple[Path, PurePosixPath]]:
    """Each hierarchy that may know the controller, and the group of this process in it."""
    try:
        lines = _CGROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        controllers, path = line.split(":", 2)[1:]
        group = PurePosixPath(path.lstrip("/"))
        if ".." in group.parts:  # outside of what the container may see
            continue
        if not controllers:  # version 2, alone or beside version 1
            yield _MOUNT, group
            yield _MOUNT / "unified", group
        elif controller in controllers.split(","):
            yield _MOUNT / controllers, group
            yield _MOUNT / controller, group
