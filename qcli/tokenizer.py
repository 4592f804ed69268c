"""Text to token ids and back: byte-level BPE as a GGUF file describes it (keys tokenizer.ggml.*).

Control tokens (<|im_start|>) are found in a text only on request; user-defined ones (<tool_call>) always are.
"""

from __future__ import annotations

import codecs
import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from enum import IntEnum
from pathlib import Path
from typing import Final

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, models, pre_tokenizers

from .errors import ModelFileError, UnsupportedModelError, UsageError
from .gguf_file import GGUFFile, StringArray
from .split_rules import SPLIT_RULES

_KEY: Final = "tokenizer.ggml."

# Control tokens that end a turn, whatever the file says: the files of one family name now one, now another.
_END_TEXTS: Final = (
    *("<|im_end|>", "<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
    *("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<end_of_turn>"),
)


class TokenType(IntEnum):
    """tokenizer.ggml.token_type, one per token."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_SPECIAL: Final = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.USER_DEFINED]


def _byte_letters() -> dict[int, int]:
    """The byte that each letter of a byte-level vocabulary stands for; the table is GPT-2's."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: byte for byte in shown} | {256 + i: byte for i, byte in enumerate(hidden)}


_BYTE_OF_LETTER: Final = _byte_letters()


class Tokenizer:
    """A vocabulary, its merges and its special tokens, read from a GGUF file; raises ModelFileError."""

    def __init__(self, file: GGUFFile) -> None:
        split_rule = _split_rule(file)
        self._tokens = _texts(file, "tokens")
        self._types = _types(file, len(self._tokens))
        self.vocab_size = len(self._tokens)
        self.bos_id = _id(file, "bos", self.vocab_size)
        self.eos_id = _id(file, "eos", self.vocab_size)
        special = {self._tokens[id]: id for id in np.flatnonzero(np.isin(self._types, _SPECIAL)).tolist()}
        always = [text for text, id in special.items() if self._types[id] == TokenType.USER_DEFINED]
        bpe = _bpe(file, self._tokens)
        self._plain = _pipeline(bpe, split_rule, always)
        self._special = _pipeline(bpe, split_rule, special)
        named = [_id(file, name, self.vocab_size) for name in ("eot", "eom")]
        ends = {self.eos_id, *named, *(special.get(text) for text in _END_TEXTS)}
        self.end_ids = frozenset(id for id in ends if id is not None)

    @classmethod
    def from_gguf(cls, source: str | Path | GGUFFile) -> Tokenizer:
        """Read a model's tokenizer, or that of a vocabulary-only file. Raises ModelFileError."""
        opened = nullcontext(source) if isinstance(source, GGUFFile) else GGUFFile.open(source)
        with opened as file, _collector_paused():
            return cls(file)

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Token ids of a text; with `special`, control tokens written in it count as such."""
        pipeline = self._special if special else self._plain
        try:
            return pipeline.encode(text, add_special_tokens=False).ids
        except TypeError:  # lone surrogates, as Python reads undecodable bytes: take them for U+FFFD
            readable = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
            return pipeline.encode(readable, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int], special: bool = False) -> str:
        """The text of some ids, U+FFFD for bytes that make no character; `special`: control tokens too."""
        return b"".join(self._bytes(id, special) for id in ids).decode("utf-8", "replace")

    def stream(self, special: bool = False) -> StreamDecoder:
        """A decoder to feed one id at a time."""
        return StreamDecoder(self, special)

    def token(self, id: int) -> str:
        """A token as the vocabulary spells it. Raises UsageError for an id that it lacks."""
        if not 0 <= id < self.vocab_size:
            raise UsageError(f"no token has the id {id}", f"ids go from 0 to {self.vocab_size - 1}")
        return self._tokens[id]

    def _bytes(self, id: int, special: bool) -> bytes:
        text = self.token(id)
        match self._types[id]:
            case TokenType.NORMAL | TokenType.BYTE | TokenType.UNDEFINED:
                return _spelled_bytes(text)
            case TokenType.USER_DEFINED:
                return text.encode()
            case TokenType.CONTROL | TokenType.UNKNOWN:
                return text.encode() if special else b""
            case _:
                return b""


class StreamDecoder:
    """Text from ids that come one by one: a character shows once it is whole, or surely broken (U+FFFD)."""

    def __init__(self, tokenizer: Tokenizer, special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._special = special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, id: int) -> str:
        """The text that this id completes, possibly none."""
        return self._decoder.decode(self._tokenizer._bytes(id, self._special))

    def flush(self) -> str:
        """What a broken end leaves; the decoder can be used again."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Spare the garbage collector 300,000 new pairs and texts: 35 ms, far more in a large program."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _split_rule(file: GGUFFile) -> str:
    model = file.get_str(f"{_KEY}model")
    if model != "gpt2":
        raise UnsupportedModelError(
            f"{file.path}: no support for the tokenizer {model!r}", "qcli reads gpt2, that is byte-level BPE"
        )
    name = file.get_str(f"{_KEY}pre")
    if name not in SPLIT_RULES:
        raise UnsupportedModelError(
            f"{file.path}: no support for the split rule {name!r} ({_KEY}pre)",
            f"qcli knows {', '.join(SPLIT_RULES)}",
        )
    return SPLIT_RULES[name]


def _strings(file: GGUFFile, name: str) -> StringArray:
    value = file.metadata.get(_KEY + name)
    if not isinstance(value, StringArray):
        raise _broken(file, f"{_KEY}{name} must be an array of strings")
    return value


def _texts(file: GGUFFile, name: str) -> list[str]:
    try:
        return _strings(file, name).tolist("strict")
    except UnicodeDecodeError as error:
        raise _broken(file, f"{_KEY}{name} is not UTF-8") from error


def _types(file: GGUFFile, count: int) -> NDArray[np.int32]:
    """TokenType of each token: int32 [count]; all normal where the file says nothing."""
    key = f"{_KEY}token_type"
    if key not in file.metadata:
        return np.full(count, TokenType.NORMAL, np.int32)
    types = file.metadata[key]
    if not isinstance(types, np.ndarray) or types.dtype.kind not in "iu":
        raise _broken(file, f"{key} must be an array of integers")
    if len(types) != count:
        raise _broken(file, f"{key} has {len(types)} entries for {count} tokens")
    if not np.isin(types, list(TokenType)).all():
        raise _broken(file, f"{key} holds a type outside 0 to {max(TokenType)}")
    return types.astype(np.int32)


def _id(file: GGUFFile, name: str, count: int) -> int | None:
    key = f"{_KEY}{name}_token_id"
    if key not in file.metadata:
        return None
    id = file.get_int(key)
    if not 0 <= id < count:
        raise _broken(file, f"{key} is {id}, and there are {count} tokens")
    return id


def _bpe(file: GGUFFile, tokens: list[str]) -> models.BPE:
    merges = _texts(file, "merges")
    names = " ".join(merges).split(" ") if merges else []  # one call for all: 20 ms of 151,387 merges, not 90
    pairs = list(zip(names[::2], names[1::2], strict=False))
    if len(names) != 2 * len(merges) or not all(" " in merge for merge in merges) or not all(names):
        raise _broken(file, f"{_KEY}merges must each name two tokens, with a space between")
    # The library panics at a merge that is longer than every token.
    lengths = [_strings(file, name).lengths.max(initial=0) for name in ("merges", "tokens")]
    if lengths[0] - 1 > lengths[1]:
        raise _broken(file, f"{_KEY}merges make a token that is not in {_KEY}tokens")
    try:
        return models.BPE(dict(zip(tokens, range(len(tokens)), strict=True)), pairs)
    except Exception as error:  # the library raises nothing narrower
        reason = str(error).removeprefix("Error while initializing BPE: ")
        raise _broken(file, f"{_KEY}merges: {reason}") from error


def _broken(file: GGUFFile, what: str) -> ModelFileError:
    return ModelFileError(f"{file.path}: {what}", "the file may be damaged: download or convert it again")


def _pipeline(bpe: models.BPE, split_rule: str, special: Iterable[str]) -> tokenizers.Tokenizer:
    pipeline = tokenizers.Tokenizer(bpe)
    split = pre_tokenizers.Split(Regex(split_rule), behavior="isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pipeline.pre_tokenizer = pre_tokenizers.Sequence([split, letters])
    pipeline.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    return pipeline


def _spelled_bytes(text: str) -> bytes:
    """The bytes that byte letters stand for; other characters stand for themselves."""
    try:
        return bytes(_BYTE_OF_LETTER[ord(letter)] for letter in text)
    except KeyError:
        return b"".join(_letter_bytes(letter) for letter in text)


def _letter_bytes(letter: str) -> bytes:
    byte = _BYTE_OF_LETTER.get(ord(letter))
    return letter.encode() if byte is None else bytes([byte])
