"""A model's tokens as llguidance knows them: the bytes of text that each stands for, and which stand for none.

Control tokens, markers such as <tool_call> and paddings are never a part of what a constraint allows. Neither is the end of
an answer: where a constraint allows an end, the mask has the bit of a token of its own, behind all others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from qcli.host.named_files import resolved
from qcli.text.tokenizer import Tokenizer

Mask = NDArray[np.int64]  # a bit for each token, the lowest first

_WORD: Final = 64  # bits
_END: Final = b"\xff<end>"  # a special token, as llguidance has them begin


class Vocabulary:
    """The tokens of a tokenizer, ready for constraints: 0.4 s for 151,936 of them, during which other threads run."""

    def __init__(self, pieces: list[bytes], encode: Callable[[str], list[int]]) -> None:
        """pieces: the text of each token, b"" for those that have none; encode: a text that goes on, to ids."""
        from llguidance import (
            LLTokenizer,
            TokenizerWrapper,
        )  # 0.03 s that answers without a constraint need not wait for

        self.end = len(pieces)  # the id of the end of an answer
        self.pieces, self._encode = pieces, encode
        self.text_ids = self.mask_of([id for id, piece in enumerate(pieces) if piece])
        self.line_ends = self.mask_of([id for id, piece in enumerate(pieces) if piece and not piece.strip(b"\n")])
        self.digits = self.mask_of([id for id, piece in enumerate(pieces) if piece[:1].isdigit()])
        given = _Given([piece or b"\xff<none>" for piece in pieces] + [_END], self.encode)
        self.tokenizer = LLTokenizer(TokenizerWrapper(given), n_vocab=self.end + 1, eos_token=self.end)

    def mask_of(self, ids: list[int]) -> Mask:
        """A mask that has the bits of some ids."""
        bits = np.zeros(-(-(self.end + 1) // _WORD) * _WORD, np.uint8)
        bits[ids] = 1
        return np.packbits(bits, bitorder="little").view(np.int64)

    def mask_of_ends(self, end_ids: frozenset[int]) -> Mask:
        """A mask of the ids that end an answer, but for those behind the vocabulary."""
        return self.mask_of(sorted(id for id in end_ids if 0 <= id < self.end))

    def has(self, mask: Mask, id: int) -> bool:
        """Whether a mask has the bit of an id."""
        return bool(int(mask[id // _WORD]) >> id % _WORD & 1)

    def encode(self, text: str) -> list[int]:
        """Ids of a text that goes on, none of them a marker's: what a text spells like one is cut into pieces."""
        ids: list[int] = []
        for id in self._encode(text):
            if not self.has(self.text_ids, id):
                return self._encode_cut(text)
            ids.append(id)
        return ids

    def _encode_cut(self, text: str) -> list[int]:
        middle = len(text) // 2
        return self.encode(text[:middle]) + self.encode(text[middle:]) if middle else []


class _Given:
    """What TokenizerWrapper asks of a tokenizer."""

    bos_token_id = None

    def __init__(self, tokens: list[bytes], encode: Callable[[str], list[int]]) -> None:
        self.tokens = tokens
        self.eos_token_id = len(tokens) - 1
        self.special_token_ids = [id for id, token in enumerate(tokens) if token[:1] == b"\xff" and len(token) > 1]
        self._encode = encode

    def __call__(self, text: str) -> list[int]:
        return self._encode(text)


_made: WeakValueDictionary[tuple[Path, int, int], Vocabulary] = WeakValueDictionary()  # of files, while they are used
_making = threading.Lock()


def _identity(path: Path) -> tuple[Path, int, int]:
    """What tells a file from others, and from what may come in its place."""
    stat = path.stat()
    return resolved(path), stat.st_mtime_ns, stat.st_size


class Preparation:
    """A thread that reads a file's tokenizer and makes its vocabulary, beside the loading of the weights.

    Of a file that a vocabulary is in use of already, it takes that.
    """

    def __init__(self, path: Path, tokenizer: Tokenizer | None = None) -> None:
        """tokenizer: the file's, if it was read already."""
        self._path, self._tokenizer = path, tokenizer
        self._made: tuple[Tokenizer, Vocabulary] | None = None
        self._problem: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="vocabulary", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            tokenizer = self._tokenizer or Tokenizer.from_gguf(self._path)
            key = _identity(self._path)
            with _making:
                vocabulary = _made.get(key) or Vocabulary(tokenizer.text_bytes(), tokenizer.encode_after)
                _made[key] = vocabulary
            self._made = tokenizer, vocabulary
        except Exception as problem:  # raised where the result is asked for
            self._problem = problem

    def tokenizer(self) -> Tokenizer:
        """The file's tokenizer. Raises ModelFileError."""
        return self._result()[0]

    def vocabulary(self) -> Vocabulary:
        """The file's vocabulary. Raises ModelFileError."""
        return self._result()[1]

    def _result(self) -> tuple[Tokenizer, Vocabulary]:
        self._thread.join()
        if self._made is None:
            raise self._problem or AssertionError
        return self._made
