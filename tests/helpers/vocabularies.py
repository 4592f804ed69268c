"""Vocabulary-only GGUF files, written from keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gguf import GGUFValueType, GGUFWriter
from places import DATA

FOLDER = DATA / "vocabularies"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def write(path: Path, keys: dict[str, Any], architecture: str = "qwen2") -> Path:
    """Keys of tokenizer.ggml.*; a value of None leaves one out."""
    writer = GGUFWriter(path, architecture)
    for name, value in keys.items():
        if value is not None:
            writer.add_key_value(f"tokenizer.ggml.{name}", value, _type_of(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def real(name: str) -> dict[str, Any]:
    """The part of a published vocabulary that its `cases` need: keys, and texts with their ids."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return found


def _type_of(value: Any) -> GGUFValueType:
    if isinstance(value, bool):
        return GGUFValueType.BOOL
    return GGUFValueType.UINT32 if isinstance(value, int) else GGUFValueType.get_type(value)
