"""The folder in which huggingface_hub, and other tools with it, keep downloads: where what is, and how it gets there.

models--OWNER--NAME/ has blobs/ with contents by their ETag, snapshots/COMMIT/ with links to them by the names of a
repository, and refs/ with the commit of each branch; .locks/ has a file for each content that is being fetched.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from contextlib import suppress
from pathlib import Path

from qcli.errors import QcliError
from qcli.host import folders
from qcli.host.atomic_files import sync_folder
from quant.renaming import replace

_AS_NAME = re.compile(r"[\w-]{1,128}", re.ASCII)  # an ETag that can be a file's name


class CachedRepo:
    """A repository's place in the cache, at one commit; its parts are made when something is put there."""

    def __init__(self, repo: str, commit: str) -> None:
        """Raises QcliError if there is no folder for the cache."""
        if (hub := hub_cache()) is None:
            raise QcliError("there is no home folder to download to", ("set HF_HOME to one", "give --to FOLDER"))
        self._name = f"models--{repo.replace('/', '--')}"
        self._commit = commit
        self.hub = hub
        self.folder = hub / self._name

    def blob(self, etag: str) -> Path:
        """Where the content of an ETag is, or comes to be."""
        return self.folder / "blobs" / _as_name(etag)

    def lock(self, etag: str) -> Path:
        """The file that is locked while the content is fetched."""
        return self.hub / ".locks" / self._name / f"{_as_name(etag)}.lock"

    def path(self, name: str) -> Path:
        """Where a file of the repository is, or comes to be."""
        return self.folder / "snapshots" / self._commit / name

    def link(self, name: str, etag: str) -> Path:
        """Give a content that is there the name of a file; where links are not allowed, move it. Raises OSError."""
        path, blob = self.path(name), self.blob(etag)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if os.environ.get("HF_HUB_DISABLE_SYMLINKS", "").upper() in ("1", "ON", "YES", "TRUE"):
                raise NotImplementedError
            path.unlink(missing_ok=True)  # a link to what is no longer there
            os.symlink(os.path.relpath(blob, path.parent), path)
        except FileExistsError:  # another process was quicker
            if not path.samefile(blob):
                raise
        except (OSError, NotImplementedError):
            if blob.exists() or not path.is_file():  # nor was one here
                replace(blob, path)
        sync_folder(path.parent)
        return path

    def set_ref(self, revision: str) -> None:
        """Note that a branch or a tag is at the commit. Raises OSError."""
        if revision == self._commit:
            return
        ref = self.folder / "refs" / revision
        with suppress(OSError):
            if ref.read_text("utf-8") == self._commit:
                return
        ref.parent.mkdir(parents=True, exist_ok=True)
        written = ref.with_name(f"{ref.name}.{uuid.uuid4().hex[:8]}.tmp")
        written.write_text(self._commit, "utf-8")
        replace(written, ref)


def hub_cache() -> Path | None:
    """The folder, by the environment variables that huggingface_hub documents; None if nothing names one, not even a home."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if hub := os.environ.get(variable):
            return folders.expanded(os.path.expandvars(hub))
    try:
        given = os.environ.get("HF_HOME")
        home = folders.expanded(os.path.expandvars(given)) if given else folders.shared_cache() / "huggingface"
        return home / "hub"
    except FileNotFoundError:
        return None


def _as_name(etag: str) -> str:
    return etag if _AS_NAME.fullmatch(etag) else hashlib.sha256(etag.encode()).hexdigest()
