"""Ollama's models: a manifest for each name and tag says which blob is the GGUF file.

manifests/registry.ollama.ai/library/qwen3/30b -> {"layers": [{"mediaType": "….image.model", "digest": "sha256:…"}]}
blobs/sha256-…
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from qcli.local_models import places
from qcli.local_models.found import Found
from qcli.local_models.walk import Walk

TOOL = "Ollama"
_LAYER = "application/vnd.ollama.image."
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_PART_OF_NAME = re.compile(r"[\w.-]{1,128}")


def find(walk: Walk) -> list[Found]:
    """Its models; those that are only in its cloud, or that an adapter changes, are left out."""
    found = []
    for folder in places.ollama():
        for manifest in walk.files(folder / "manifests"):
            words = manifest.split("/")
            if len(words) == 4 and all(map(_PART_OF_NAME.fullmatch, words)):
                blob = _model_blob(folder, places.read_json(folder / "manifests" / manifest))
                if blob:
                    name, others = _names(*words)
                    found.append(Found(name, TOOL, (blob,), others))
    return found


def _names(host: str, namespace: str, model: str, tag: str) -> tuple[str, tuple[str, ...]]:
    """What `ollama list` calls a model, and what else Ollama would take for it."""
    owned = f"{namespace}/{model}"
    if host != "registry.ollama.ai":
        short, longer = f"{host}/{owned}", [owned] if host in ("hf.co", "huggingface.co") else []
    else:
        short, longer = (model, [owned]) if namespace == "library" else (owned, [])
    longer += [] if short.startswith(f"{host}/") else [f"{host}/{owned}"]
    others = [f"{name}:{tag}" for name in longer]
    others += [short, *longer] if tag == "latest" else []
    return f"{short}:{tag}", tuple(others)


def _model_blob(folder: Path, manifest: Any) -> Path | None:
    """The GGUF file of a manifest, if there is one and all of it is there."""
    layers = manifest.get("layers") if isinstance(manifest, dict) else None
    known = [layer for layer in layers if isinstance(layer, dict)] if isinstance(layers, list) else []
    if any(layer.get("mediaType") == f"{_LAYER}adapter" for layer in known):
        return None
    models = [layer for layer in known if layer.get("mediaType") == f"{_LAYER}model"]
    digest = _DIGEST.fullmatch(str(models[0].get("digest"))) if len(models) == 1 else None
    if digest is None:
        return None
    path = folder / "blobs" / f"sha256-{digest[1]}"
    try:
        is_whole = path.is_file() and models[0].get("size") in (None, path.stat().st_size)
    except OSError:
        return None
    return path if is_whole else None
