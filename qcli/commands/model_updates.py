"""What has changed on huggingface.co of the models that were downloaded from there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qcli.errors import QcliError
from qcli.host.named_files import resolved
from qcli.wording import size

if TYPE_CHECKING:
    from qcli.hub.repo_files import RepoFile
    from qcli.local_models.found import Found
    from qcli.progress import Progress

State = Literal["same", "changed", "gone", "not asked"]
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Update:
    """How a downloaded model stands to what the hub has now."""

    name: str
    state: State
    revision: str = ""  # the commit that it was downloaded at
    newest: str = ""  # the hub's commit now
    bytes: int = 0  # of the files that have changed
    address: str = ""  # by which the same file is pulled, whatever else its repository has
    problem: str = ""

    @property
    def told(self) -> str:
        """In a few words."""
        if self.state == "changed":
            return f"changed: `qcli pull {self.address}` gets {size(self.bytes)}"
        return {"same": "up to date", "gone": "is not published there any more"}.get(self.state, self.problem)


def updates(progress: Progress | None = None) -> list[Update]:
    """Ask the hub about every repository in its cache, one after the other. Raises QcliError if it may not be asked."""
    from qcli.hub import api
    from qcli.local_models import hub
    from qcli.local_models.search import search

    models = [found for found in search().models if found.tool == hub.TOOL]
    repos = list(dict.fromkeys(found.repo for found in models))
    if repos:
        api.endpoint()  # raises where nobody may be asked
    told: list[Update] = []
    for number, repo in enumerate(repos):
        if progress:
            progress("asking", number / len(repos))
        its = [found for found in models if found.repo == repo]
        try:
            listing = api.list_files(repo)
        except QcliError as problem:
            told += [
                Update(found.name, "not asked", _revision(found), problem=problem.message.removeprefix(f"{repo}: "))
                for found in its
            ]
        else:
            files = {file.name: file for file in listing.files}
            told += [_compared(found, files, listing.commit) for found in its]
    return told


def _compared(found: Found, files: dict[str, RepoFile], newest: str) -> Update:
    from qcli.hub.quant_names import quant_of

    revision = _revision(found)
    there = [files.get(name) for name in found.files]
    if not all(there):
        return Update(found.name, "gone", revision, newest)
    changed = [file for file, path in zip(there, found.parts, strict=True) if file and _differs(path, file)]
    n_bytes = sum(file.bytes or 0 for file in changed)
    address = f"{found.repo}:{quant_of(found.files[0]) or found.files[0]}"
    return Update(found.name, "changed" if changed else "same", revision, newest, n_bytes, address)


def _revision(found: Found) -> str:
    """The name of the snapshot's folder."""
    return found.path.parents[found.files[0].count("/")].name


def _differs(path: Path, file: RepoFile) -> bool:
    """By the checksum, after which the cache names its blobs; where one is not told, by the length."""
    blob = resolved(path).name
    if file.sha256 and _SHA256.fullmatch(blob):
        return blob != file.sha256
    return file.bytes is not None and path.stat().st_size != file.bytes
