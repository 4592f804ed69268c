"""SentencePiece's BPE (tokenizer.ggml.model "llama"): the neighbours with the best score merge first.

Of equal scores the leftmost goes first; a character without a token becomes one byte token for each of its bytes.
The algorithm is Kudo and Richardson's (2018), as in their library.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from heapq import heappop, heappush
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qcli.gguf.file import GGUFFile
from qcli.text.vocabulary import KEY, SpecialTokens, TokenType, Vocabulary, broken, token_id

_SPACE: Final = "▁"  # how a token spells a space
_WORDS: Final = 1 << 15  # words whose ids are kept


class SentencePiece:
    """Text to ids by score. Raises ModelFileError."""

    add_bos = True  # a prompt begins with BOS where the file does not say
    _begins_with_space = True  # likewise a text with a space
    _joint = ""  # between two texts, where the rank of their merge is looked up

    def __init__(self, file: GGUFFile, vocabulary: Vocabulary) -> None:
        tokens = vocabulary.tokens
        mergeable = np.isin(vocabulary.types, [TokenType.CONTROL, TokenType.UNKNOWN, TokenType.BYTE], invert=True)
        self._ids = {tokens[id]: id for id in np.flatnonzero(mergeable).tolist()}
        self._ranks = self._read_ranks(file, len(tokens))
        self._bytes = {_byte(file, text): id for text, id in vocabulary.of_type(TokenType.BYTE)}
        unknown = token_id(file, "unknown", len(tokens), default=0)
        self._unknown = [] if unknown is None else [unknown]
        self.space_prefix = " " if file.get_bool(f"{KEY}add_space_prefix", self._begins_with_space) else ""
        self._special, self._user_defined = SpecialTokens(vocabulary.special), SpecialTokens(vocabulary.user_defined)
        self._breaks = self._word_breaks()
        self._word = lru_cache(_WORDS)(self._merged)

    def encode(self, text: str, special: bool, begins: bool = True) -> list[int]:
        """Raises UnicodeEncodeError for lone surrogates. begins: whether the text goes on from no other one."""
        prefix = self.space_prefix if begins else ""
        ids: list[int] = []
        for part in (self._special if special else self._user_defined).split(text):
            if isinstance(part, int):
                ids.append(part)
            else:
                for word in self._breaks.split((prefix + part).replace(" ", _SPACE)):
                    ids += self._word(word)
        return ids

    def may_cut(self, text: str, at: int) -> bool:
        """Whether a text can be encoded in two parts at a border of words: no token may reach across."""
        return text[at] == " " and bool(self._breaks.search(text[at - 1] + _SPACE, 1))

    def token_bytes(self, token: str) -> bytes:
        """The bytes of a token's text."""
        return token.replace(_SPACE, " ").encode()

    def byte_token_bytes(self, token: str) -> bytes:
        """The byte that a byte token stands for."""
        return bytes([int(token[3:5], 16)])

    def _read_ranks(self, file: GGUFFile, count: int) -> Mapping[str, float]:
        """What merges first, lowest first, by the two texts with _joint between them; count: of tokens."""
        scores = _scores(file, count).tolist()
        return {text: -scores[id] for text, id in self._ids.items()}

    def _word_breaks(self) -> re.Pattern[str]:
        """Where no merge can reach across."""
        return re.compile(_space_breaks(self._ids))

    def _merged(self, word: str) -> list[int]:
        """The ids of a text without special tokens, spaces as ▁."""
        count, ranks, joint = len(word), self._ranks, self._joint
        parts, before, after = list(word), list(range(-1, count - 1)), [*range(1, count), -1]
        waiting: list[tuple[float, int, int, int]] = []  # the rank, where, next to what, characters

        def consider(left: int, right: int) -> None:
            if left >= 0 and right >= 0:
                rank = ranks.get(both := parts[left] + joint + parts[right])
                if rank is not None:
                    heappush(waiting, (rank, left, right, len(both) - len(joint)))

        for left in range(count - 1):
            consider(left, left + 1)
        while waiting:
            _, left, right, length = heappop(waiting)
            if not parts[left] or not parts[right] or len(parts[left]) + len(parts[right]) != length:
                continue  # one of the two has merged with another
            parts[left] += parts[right]
            parts[right] = ""
            after[left] = after[right]
            if after[left] >= 0:
                before[after[left]] = left
            consider(before[left], left)
            consider(left, after[left])
        return [id for part in parts if part for id in self._id_of(part)]

    def _id_of(self, part: str) -> list[int]:
        if part in self._ids:
            return [self._ids[part]]
        ids = [self._bytes.get(byte) for byte in part.encode()]
        return self._unknown if None in ids else [id for id in ids if id is not None]


def _space_breaks(ids: Mapping[str, int]) -> str:
    """A pattern for where no merge can reach across: before a space, after a character that no token has in front of one."""
    reach = set(re.findall(rf"(.)(?={_SPACE})", "\n".join(ids), re.DOTALL)) - {"\n"}
    if any(f"\n{_SPACE}" in token for token in ids):
        reach.add("\n")
    return f"(?<=[^{re.escape(''.join(sorted(reach)))}])(?={_SPACE})" if reach else f"(?={_SPACE})"


def _scores(file: GGUFFile, count: int) -> NDArray[np.float64]:
    scores = file.metadata.get(f"{KEY}scores")
    if not isinstance(scores, np.ndarray) or scores.dtype.kind not in "fiu":
        raise broken(file, f"{KEY}scores must be an array of numbers")
    if len(scores) != count:
        raise broken(file, f"{KEY}scores has {len(scores)} entries for {count} tokens")
    if np.isnan(scores).any():
        raise broken(file, f"{KEY}scores holds a NaN")
    return scores.astype(np.float64)


def _byte(file: GGUFFile, token: str) -> int:
    """The byte that <0x0A> stands for."""
    if not re.fullmatch("<0x[0-9A-Fa-f]{2}>", token):
        raise broken(file, f"{KEY}tokens: {token!r} is a byte by its type")
    return int(token[3:5], 16)
