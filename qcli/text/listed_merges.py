"""Gemma 4's BPE (tokenizer.ggml.model "gemma4"): characters as in SentencePiece, merged in the order of a list.

No word reaches across the border between line feeds and other characters, and line feeds that together are a token become
that one. Nothing is put before a text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from qcli.gguf.file import GGUFFile
from qcli.text.sentencepiece import SentencePiece
from qcli.text.vocabulary import KEY, broken, texts

_LINES = r"(?<=\n)(?=[^\n])|(?<=[^\n])(?=\n)"


class ListedMerges(SentencePiece):
    """Text to ids by the order of merges. Raises ModelFileError."""

    _begins_with_space = False
    _joint = " "

    def _read_ranks(self, file: GGUFFile, count: int) -> Mapping[str, float]:
        merges = texts(file, "merges")
        if not all(" " in merge for merge in merges):
            raise broken(file, f"{KEY}merges must each name two tokens, with a space between")
        return {merge: rank for rank, merge in enumerate(merges)}

    def _word_breaks(self) -> re.Pattern[str]:
        return re.compile(f"{super()._word_breaks().pattern}|{_LINES}")

    def _merged(self, word: str) -> list[int]:
        if word in self._ids and not word.strip("\n"):
            return [self._ids[word]]
        return super()._merged(word)
