"""Folders of other tools with models in them, as these tools lay them out."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from qcli.local_models import places


def no_models_of_others(monkeypatch: Any, folder: Path) -> None:
    """Have the folders in which models are looked for be empty ones of a test."""
    monkeypatch.setattr(places, "home", lambda: folder / "home")
    monkeypatch.setattr(places, "OLLAMA_SERVICES", ())
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.setenv("LLAMA_CACHE", str(folder / "llama.cpp"))
    monkeypatch.setenv("HF_HUB_CACHE", str(folder / "hub"))


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def ollama(folder: Path, name: str, data: bytes, **more: object) -> Path:
    """A model in Ollama's folder; name: namespace/model/tag below registry.ollama.ai, or with another host before it."""
    digest = hashlib.sha256(data).hexdigest()
    blob = put(folder / "blobs" / f"sha256-{digest}", data)
    model = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}", "size": len(data)}
    template = {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:" + 64 * "0", "size": 1}
    place = name if name.count("/") == 3 else f"registry.ollama.ai/{name}"
    manifest = {"schemaVersion": 2, "layers": [template, model | more]}
    put(folder / "manifests" / place, json.dumps(manifest).encode())
    return blob


def hub(folder: Path, repo: str, revision: str, files: dict[str, bytes], main: bool = True) -> Path:
    """Files of a repository in the hub's cache, as links to blobs; returns the snapshot's folder."""
    inside = folder / f"models--{repo.replace('/', '--')}"
    snapshot = inside / "snapshots" / revision
    for name, data in files.items():
        blob = put(inside / "blobs" / hashlib.sha256(data).hexdigest(), data)
        link = snapshot / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    if main:
        put(inside / "refs" / "main", revision.encode())
    return snapshot


def tree(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Of everything below a folder: how it is and when it was changed."""
    paths = [folder, *folder.rglob("*")]
    return {str(p): (p.lstat().st_mode, p.lstat().st_size, p.lstat().st_mtime_ns) for p in paths}
