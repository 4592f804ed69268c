"""The models in the cache of huggingface.co, which qcli, llama.cpp and others share.

models--owner--name/snapshots/<revision>/file.gguf -> ../../blobs/<checksum>
"""

from __future__ import annotations

import re
from pathlib import Path

from qcli.hub.cache import hub_cache
from qcli.local_models.found import Found, in_repository, whole_models
from qcli.local_models.walk import Walk

TOOL = "hub cache"
_FOLDER = re.compile(r"models--([\w.-]+?)--([\w.-]+)")


def find(walk: Walk) -> list[Found]:
    """Its models, by owner/name; of several revisions of a file the one that was downloaded last."""
    folder = hub_cache()
    return below(folder, walk, TOOL) if folder else []


def below(folder: Path, walk: Walk, tool: str) -> list[Found]:
    """The models of a folder that is laid out so, as those of a tool."""
    found = []
    for name in walk.folders(folder):
        if repo := _FOLDER.fullmatch(name):
            snapshots = folder / name / "snapshots"
            newest: dict[tuple[str, ...], tuple[Path, ...]] = {}
            for revision in sorted(walk.folders(snapshots), key=lambda each: _changed(snapshots / each)):
                for names in whole_models(walk.files(snapshots / revision, ".gguf")):
                    newest[names] = tuple(snapshots / revision / name for name in names)
            found += in_repository(f"{repo[1]}/{repo[2]}", newest, tool)
    return found


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
