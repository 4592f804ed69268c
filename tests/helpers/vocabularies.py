"""Vocabulary-only GGUF files, written from keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gguf import GGUFValueType, GGUFWriter
from places import DATA

FOLDER = DATA / "vocabularies"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def write(path: Path, keys: dict[str, Any], architecture: str = "qwen2", template: str = "") -> Path:
    """Keys of tokenizer.ggml.*; a value of None leaves one out; template: a chat template to go with them."""
    writer = GGUFWriter(path, architecture)
    if template:
        writer.add_chat_template(template)
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


def of_bytes(path: Path, special: dict[str, int], eos: str | None = None, template: str = "") -> Path:
    """A token for each byte, one merge, and tokens of other types (TokenType)."""
    letters = [token for token in real("smollm")["tokens"] if len(token) == 1]
    tokens = [*letters, "qz", *special]
    keys: dict[str, Any] = {"model": "gpt2", "pre": "smollm", "tokens": tokens, "merges": ["q z"]}
    keys["token_type"] = [1] * (len(letters) + 1) + [*special.values()]
    keys["eos_token_id"] = None if eos is None else tokens.index(eos)
    return write(path, keys, template=template)


def _type_of(value: Any) -> GGUFValueType:
    if isinstance(value, bool):
        return GGUFValueType.BOOL
    return GGUFValueType.UINT32 if isinstance(value, int) else GGUFValueType.get_type(value)
