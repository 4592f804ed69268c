"""A vocabulary of SentencePiece that one can follow on paper: bytes, three letters, and the words made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import vocabularies

# ids: 0-2 special, 3-258 bytes, then letters and words; the score is how soon a word is made
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
WORDS = {"▁": -90, "a": -91, "b": -92, "c": -93, "ab": -1, "bc": -2, "abc": -3, "▁a": -4, "▁▁": -5, "aa": -6, "aaa": -7}
SPECIAL = {"[INST]": 3, "<tool>": 4, "  ": 4, "unused": 5}
TOKENS = ["<unk>", "<s>", "</s>", *BYTES, *WORDS, *SPECIAL]
TYPES = [2, 3, 3, *[6] * 256, *[1] * len(WORDS), *SPECIAL.values()]
SCORES = [0.0] * 259 + [float(score) for score in WORDS.values()] + [-1000.0] * len(SPECIAL)
ID = {token: id for id, token in enumerate(TOKENS)}


def write(path: Path, **changes: Any) -> Path:
    """A vocabulary-only file in this folder; changes: keys to replace."""
    keys = {"model": "llama", "tokens": TOKENS, "token_type": TYPES, "scores": SCORES}
    return vocabularies.write(path / "vocab.gguf", keys | changes, "llama")
