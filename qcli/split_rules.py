"""How text is cut into words before byte-pair merging, by the name a GGUF file gives in tokenizer.ggml.pre.

Each rule is the one published in the model family's tokenizer.json, in the dialect of the tokenizers library.
Text is not normalized first: GGUF carries no normalizer.
"""

from __future__ import annotations

from typing import Final

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACE = r"\s*[\r\n]+|\s+(?!\S)|\s+"

SPLIT_RULES: Final = {
    # Qwen2, Qwen2.5, Qwen3, Qwen3-Next: words, single digits, punctuation
    "qwen2": rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACE}",
    # Qwen3.5: the same, with combining marks as parts of words
    "qwen35": (
        rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
        rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACE}"
    ),
}
