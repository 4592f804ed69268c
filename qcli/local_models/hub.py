"""The models in the cache of huggingface.co, which qcli, llama.cpp and others share, of whatever tool fetched them.

models--owner--name/snapshots/<revision>/file.gguf -> ../../blobs/<checksum>
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from qcli.errors import ModelNotFoundError
from qcli.hub.address import Address
from qcli.hub.cache import hub_cache
from qcli.hub.repo_files import RepoFile, choose, variants
from qcli.local_models.found import Found, in_repository, whole_models
from qcli.local_models.walk import Walk

TOOL = "hub cache"
_FOLDER = re.compile(r"models--([\w.-]+?)--([\w.-]+)")
_COMMIT: Final = 40  # hexadecimal digits
_BEGINNING: Final = 7  # of them, which are enough to name one


def find(walk: Walk) -> list[Found]:
    """Its models, by owner/name; of several revisions of a file the one that was downloaded last."""
    folder = hub_cache()
    return below(folder, walk, TOOL) if folder else []


def below(folder: Path, walk: Walk, tool: str) -> list[Found]:
    """The models of a folder that is laid out so, as those of a tool."""
    found = []
    for name in walk.folders(folder):
        if repo := _FOLDER.fullmatch(name):
            newest: dict[tuple[str, ...], tuple[Path, ...]] = {}
            for snapshot in reversed(_snapshots(folder / name, walk)):
                for names in whole_models(walk.files(snapshot, ".gguf")):
                    newest[names] = tuple(snapshot / name for name in names)
            found += in_repository(f"{repo[1]}/{repo[2]}", newest, tool)
    return found


def cached_model(address: Address) -> Path | None:
    """The first file of a model that was downloaded, with all its parts; of several revisions the newest; None for none.

    Raises UsageError if it could be one of several.
    """
    for snapshot, files in _downloaded(address):
        with suppress(ModelNotFoundError):
            return snapshot / choose(files, address).name
    return None


def cached_labels(repo: str) -> list[str]:
    """What there is of a repository, each quantization once, the smallest of the newest revision first."""
    return list(dict.fromkeys(one.label for _, files in _downloaded(Address(repo)) for one in variants(files)))


def _downloaded(address: Address) -> list[tuple[Path, list[RepoFile]]]:
    """The snapshots of the revisions that an address fits, the newest first, each with its .gguf files."""
    walk = Walk()
    fitting = [
        snapshot
        for repo in repo_folders(address.repo, walk)
        for snapshot in _snapshots(repo, walk)
        if address.revision is None or _is_revision(repo, snapshot.name, address.revision)
    ]
    return [
        (snapshot, [RepoFile(name, _bytes(snapshot / name)) for name in walk.files(snapshot, ".gguf")])
        for snapshot in fitting
    ]


def repo_folders(repo: str, walk: Walk) -> list[Path]:
    """The folder of a repository; if there is none, those whose names differ in case, of which the hub takes no notice."""
    hub, name = hub_cache(), f"models--{repo.replace('/', '--')}"
    if hub is None or (hub / name).is_dir():
        return [hub / name] if hub else []
    return [hub / other for other in walk.folders(hub) if other.lower() == name.lower()]


def _snapshots(repo: Path, walk: Walk) -> list[Path]:
    """The folders of a repository's revisions, the one that was downloaded last first."""
    folder = repo / "snapshots"
    return sorted((folder / revision for revision in walk.folders(folder)), key=_changed, reverse=True)


def _is_revision(repo: Path, commit: str, wanted: str) -> bool:
    """Whether a revision is the commit that a branch, a tag or a commit's beginning names."""
    if len(wanted) >= _BEGINNING and commit.startswith(wanted.lower()):
        return True
    with suppress(OSError, ValueError), open(repo / "refs" / wanted, "rb") as ref:
        return ref.read(_COMMIT).decode() == commit
    return False


def _changed(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _bytes(path: Path) -> int | None:
    with suppress(OSError):
        return path.stat().st_size
    return None
