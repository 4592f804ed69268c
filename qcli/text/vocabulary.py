"""The tokens of a GGUF file and what each is for (keys tokenizer.ggml.*)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qcli.errors import ModelFileError
from qcli.gguf.file import GGUFFile
from qcli.gguf.strings import StringArray
from qcli.text.turn_ends import never_text

KEY: Final = "tokenizer.ggml."


class TokenType(IntEnum):
    """tokenizer.ggml.token_type, one per token."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_NEVER_TEXT: Final = never_text()
_SPECIAL: Final = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.USER_DEFINED]


@dataclass(frozen=True)
class Vocabulary:
    """tokens: by id; types: TokenType int32 [tokens]; special: the ids of control and user-defined texts.

    mistyped: control tokens that the file calls ordinary text, as some converters do.
    """

    tokens: list[str]
    types: NDArray[np.int32]
    special: Mapping[str, int]
    mistyped: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, file: GGUFFile) -> Vocabulary:
        """Raises ModelFileError."""
        tokens = texts(file, "tokens")
        types = _types(file, len(tokens))
        mistyped = [id for id, text in enumerate(tokens) if text in _NEVER_TEXT and types[id] != TokenType.CONTROL]
        types[mistyped] = TokenType.CONTROL
        ids = np.flatnonzero(np.isin(types, _SPECIAL)).tolist()
        return cls(tokens, types, {tokens[id]: id for id in ids if tokens[id]}, [tokens[id] for id in mistyped])

    @property
    def user_defined(self) -> dict[str, int]:
        """The ids of user-defined tokens by their text: they are found in every text, control tokens only on request."""
        return {text: id for text, id in self.special.items() if self.types[id] == TokenType.USER_DEFINED}

    def of_type(self, *types: TokenType) -> Iterator[tuple[str, int]]:
        """Each token of these types, and its id."""
        for id in np.flatnonzero(np.isin(self.types, types)).tolist():
            yield self.tokens[id], id


class SpecialTokens:
    """Finds the texts of special tokens in a text; of several that begin at one place, the longest."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        self._ids = ids
        lengths: dict[str, set[int]] = {}
        for text in ids:
            lengths.setdefault(text[0], set()).add(len(text))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}
        self._first = re.compile(f"[{re.escape(''.join(lengths))}]") if lengths else None

    def split(self, text: str) -> Iterator[str | int]:
        """The ids of the special tokens in a text, and the texts between them, in order."""
        done = 0
        for place in self._first.finditer(text) if self._first else ():
            at = place.start()
            if at >= done and (length := self._length(text, at)):
                if at > done:
                    yield text[done:at]
                done = at + length
                yield self._ids[text[at:done]]
        if done < len(text):
            yield text[done:]

    def _length(self, text: str, at: int) -> int:
        return next((n for n in self._lengths[text[at]] if text[at : at + n] in self._ids), 0)


def strings(file: GGUFFile, name: str) -> StringArray:
    """The array of strings under tokenizer.ggml.<name>. Raises ModelFileError."""
    value = file.metadata.get(KEY + name)
    if not isinstance(value, StringArray):
        raise broken(file, f"{KEY}{name} must be an array of strings")
    return value


def texts(file: GGUFFile, name: str) -> list[str]:
    """An array of strings, decoded from UTF-8. Raises ModelFileError."""
    try:
        return strings(file, name).tolist("strict")
    except UnicodeDecodeError as error:
        raise broken(file, f"{KEY}{name} is not UTF-8") from error


def token_id(file: GGUFFile, name: str, count: int, default: int | None = None) -> int | None:
    """The id under tokenizer.ggml.<name>_token_id, below `count`; the default if the key is absent.

    An id that no token has is told and left out: converters write -1, or the size of another vocabulary.
    """
    key = f"{KEY}{name}_token_id"
    if key not in file.metadata:
        return default if default is not None and default < count else None
    id = file.get_int(key)
    if not 0 <= id < count:
        warnings.warn(f"{file.path}: {key} is {id}, and there are {count} tokens: it is left out", stacklevel=2)
        return None
    return id


def broken(file: GGUFFile, what: str) -> ModelFileError:
    """The error to raise for a vocabulary that contradicts itself."""
    return ModelFileError(f"{file.path}: {what}", "the file may be damaged: download or convert it again")


def _types(file: GGUFFile, count: int) -> NDArray[np.int32]:
    """TokenType of each token: int32 [count]; all normal where the file says nothing."""
    key = f"{KEY}token_type"
    if key not in file.metadata:
        return np.full(count, TokenType.NORMAL, np.int32)
    types = file.metadata[key]
    if not isinstance(types, np.ndarray) or types.dtype.kind not in "iu":
        raise broken(file, f"{key} must be an array of integers")
    if len(types) != count:
        raise broken(file, f"{key} has {len(types)} entries for {count} tokens")
    if not np.isin(types, list(TokenType)).all():
        raise broken(file, f"{key} holds a type outside 0 to {max(TokenType)}")
    return types.astype(np.int32)
