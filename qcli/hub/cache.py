"""The folder in which huggingface_hub, and other tools with it, keep downloads."""

from __future__ import annotations

import os
from pathlib import Path

from qcli.host import folders


def cached(repo: str, file: str) -> Path | None:
    """A file that was downloaded into the cache, of several revisions the newest; None if there is none."""
    if (hub := hub_cache()) is None:
        return None
    revisions = hub / f"models--{repo.replace('/', '--')}" / "snapshots"
    found = [path for path in revisions.glob(f"*/{file}") if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def hub_cache() -> Path | None:
    """The folder, by the environment variables that huggingface_hub documents; None if nothing names one, not even a home."""
    if hub := os.environ.get("HF_HUB_CACHE"):
        return folders.expanded(hub)
    try:
        given = os.environ.get("HF_HOME")
        return (folders.expanded(given) if given else folders.shared_cache() / "huggingface") / "hub"
    except FileNotFoundError:
        return None
