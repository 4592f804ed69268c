"""Models among the files that the cache of downloads holds, of whatever tool fetched them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from qcli.errors import ModelNotFoundError
from qcli.hub.address import Address
from qcli.hub.cache import hub_cache
from qcli.hub.quant_names import is_model_file
from qcli.hub.repo_files import RepoFile, choose, variants

_MOST: Final = 10_000  # files of one repository that are looked at
_COMMIT: Final = 40  # hexadecimal digits
_BEGINNING: Final = 7  # of them, which are enough to name one


def cached_model(address: Address) -> Path | None:
    """The first file of a model that was downloaded, with all its parts; of several revisions the newest; None for none.

    Raises UsageError if it could be one of several.
    """
    for snapshot in _snapshots(address):
        with suppress(ModelNotFoundError):
            return snapshot / choose(files_in(snapshot), address).name
    return None


def cached_labels(repo: str) -> list[str]:
    """What there is of a repository, each quantization once, the smallest of the newest revision first."""
    snapshots = _snapshots(Address(repo))
    return list(dict.fromkeys(one.label for snapshot in snapshots for one in variants(files_in(snapshot))))


def files_in(snapshot: Path) -> list[RepoFile]:
    """The model files below a folder, named from there on; links that lead nowhere are left out."""
    found: list[RepoFile] = []
    for folder, _, names in os.walk(snapshot):
        for name in names:
            path = Path(folder, name)
            with suppress(OSError):  # the link's target is gone
                if is_model_file(name) and len(found) < _MOST and path.is_file():
                    found.append(RepoFile(path.relative_to(snapshot).as_posix(), path.stat().st_size))
    return found


def _snapshots(address: Address) -> list[Path]:
    """The folders of a repository's revisions that fit, the one that was downloaded last first."""
    found = [
        (folder.stat().st_mtime, folder)
        for repo in _repo_folders(address.repo)
        for folder in _children(repo / "snapshots")
        if address.revision is None or _is_revision(repo, folder.name, address.revision)
    ]
    return [folder for _, folder in sorted(found, reverse=True)]


def _repo_folders(repo: str) -> list[Path]:
    """The folder of a repository; if there is none, those whose names differ in case, of which the hub takes no notice."""
    hub, name = hub_cache(), f"models--{repo.replace('/', '--')}"
    if hub is None or (hub / name).is_dir():
        return [hub / name] if hub else []
    try:
        return [hub / other for other in os.listdir(hub) if other.lower() == name.lower()]
    except OSError:
        return []


def _children(folder: Path) -> list[Path]:
    try:
        return [child for child in folder.iterdir() if child.is_dir()]
    except OSError:
        return []


def _is_revision(repo: Path, commit: str, wanted: str) -> bool:
    """Whether a revision is the commit that a branch, a tag or a commit's beginning names."""
    if len(wanted) >= _BEGINNING and commit.startswith(wanted.lower()):
        return True
    with suppress(OSError, UnicodeDecodeError):
        return (repo / "refs" / wanted).read_text("utf-8")[:_COMMIT] == commit
    return False
