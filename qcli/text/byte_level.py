"""Byte-level BPE (tokenizer.ggml.model "gpt2"): words cut by a pre-tokenizer, their bytes merged in the order of a list."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache, partial
from itertools import repeat
from operator import contains
from typing import Final

import tokenizers
from tokenizers import AddedToken, Regex, models, pre_tokenizers

from qcli.errors import ModelFileError, UnsupportedModelError
from qcli.gguf.file import GGUFFile
from qcli.host.signals import hearing_interrupts
from qcli.text.pieces import PIECE, reaching
from qcli.text.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer
from qcli.text.vocabulary import KEY, Vocabulary, broken, strings, texts

# Files from before May 2024 do not name their pre-tokenizer; these architectures have only ever had one.
_UNNAMED: Final = {"qwen2": "qwen2", "qwen2moe": "qwen2"}
_WORDS: Final = 1 << 15  # texts between two borders whose ids are kept
_SHORT: Final = 64  # characters of one, at most


def _byte_letters() -> dict[int, int]:
    """The byte that each letter of a byte-level vocabulary stands for; the table is GPT-2's."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: byte for byte in shown} | {256 + i: byte for i, byte in enumerate(hidden)}


_BYTE_OF_LETTER: Final = _byte_letters()


class ByteLevel:
    """Text to ids by the tokenizers library. Raises ModelFileError."""

    space_prefix = ""  # put in front of a text before it is encoded

    def __init__(self, file: GGUFFile, vocabulary: Vocabulary) -> None:
        self._pre = pre = _pre_tokenizer(file)
        bpe = _bpe(file, vocabulary.tokens)
        bpe.ignore_merges = pre.ignore_merges
        self._plain = _Pipeline(bpe, pre, vocabulary.user_defined)
        self._special = _Pipeline(bpe, pre, vocabulary.special)
        self.add_bos = pre.add_bos

    def encode(self, text: str, special: bool, begins: bool = True) -> list[int]:
        """Raises TypeError for lone surrogates. begins: whether the text goes on from no other one, which shows nowhere."""
        return (self._special if special else self._plain).encode(text)

    def may_cut(self, text: str, at: int) -> bool:
        """Whether a text can be encoded in two parts at a border of words."""
        return self._pre.may_cut(text, at)

    def token_bytes(self, token: str) -> bytes:
        """The bytes that a token's letters stand for; other characters stand for themselves."""
        try:
            return bytes(_BYTE_OF_LETTER[ord(letter)] for letter in token)
        except KeyError:
            return b"".join(_letter_bytes(letter) for letter in token)

    byte_token_bytes = token_bytes


def _pre_tokenizer(file: GGUFFile) -> PreTokenizer:
    """The pre-tokenizer that the file names. Raises UnsupportedModelError, ModelFileError."""
    key = f"{KEY}pre"
    if key not in file.metadata:
        return _unnamed_pre_tokenizer(file)
    name = file.get_str(key)
    if name not in PRE_TOKENIZERS:
        close = get_close_matches(name, PRE_TOKENIZERS, 1, 0.0)[0]
        raise UnsupportedModelError(
            f"{file.path}: no support for the pre-tokenizer {name!r} ({key})",
            f"of the {len(PRE_TOKENIZERS)} that qcli knows, the closest in name is {close}",
        )
    return PRE_TOKENIZERS[name]


def _unnamed_pre_tokenizer(file: GGUFFile) -> PreTokenizer:
    name = _UNNAMED.get(str(file.metadata.get("general.architecture")))
    if name is None:
        raise ModelFileError(
            f"{file.path}: does not say how its text is cut into words ({KEY}pre is missing)",
            "files from before May 2024 lack it: get a newer one, or convert the model again",
        )
    return PRE_TOKENIZERS[name]


def _bpe(file: GGUFFile, tokens: list[str]) -> models.BPE:
    merges = texts(file, "merges")
    names = " ".join(merges).split(" ") if merges else []  # one call for all: 20 ms of 151,387 merges, not 90
    pairs = list(zip(names[::2], names[1::2], strict=False))
    if len(names) != 2 * len(merges) or not all(map(contains, merges, repeat(" "))) or not all(names):
        raise broken(file, f"{KEY}merges must each name two tokens, with a space between")
    # The library panics at a merge that is longer than every token.
    lengths = [strings(file, name).lengths.max(initial=0) for name in ("merges", "tokens")]
    if lengths[0] - 1 > lengths[1]:
        raise broken(file, f"{KEY}merges make a token that is not in {KEY}tokens")
    try:
        return models.BPE(dict(zip(tokens, range(len(tokens)), strict=True)), pairs)
    except Exception as error:  # the library raises nothing narrower
        reason = str(error).removeprefix("Error while initializing BPE: ")
        raise broken(file, f"{KEY}merges: {reason}") from error


class _Pipeline:
    """The library's way from a text to ids, which words that have gone it before need not go again."""

    def __init__(self, bpe: models.BPE, pre: PreTokenizer, special: Iterable[str]) -> None:
        """special: the texts of tokens that are found in the midst of text."""
        special = list(special)
        self._borders, self._reaching = pre.borders, reaching(special)
        self._pipeline = pipeline = tokenizers.Tokenizer(bpe)
        splits = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in pre.patterns]
        letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        pipeline.pre_tokenizer = pre_tokenizers.Sequence([*splits, letters])
        pipeline.add_special_tokens([AddedToken(text, normalized=False) for text in special])
        self._short = lru_cache(_WORDS)(self._encoded)

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        if any(special in text for special in self._reaching):
            return self._encoded(text)
        ids: list[int] = []
        for word in self._borders.split(text):
            ids += self._short(word) if len(word) <= _SHORT else self._encoded(word)
        return ids

    def _encoded(self, text: str) -> list[int]:
        call = partial(self._pipeline.encode, text, add_special_tokens=False)
        encoding: tokenizers.Encoding = call() if len(text) < PIECE else hearing_interrupts(call)
        return encoding.ids


def _letter_bytes(letter: str) -> bytes:
    byte = _BYTE_OF_LETTER.get(ord(letter))
    return letter.encode() if byte is None else bytes([byte])
