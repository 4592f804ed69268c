"""From logits to a token: penalties, a mask, top-k, top-p, min-p, temperature, one draw, in llama.cpp's order."""

from __future__ import annotations

import math
import secrets
from collections import Counter, deque

import numpy as np

from qcli.errors import QcliError
from qcli.runtime.sampling import Sampling
from quant.kernels.sample import BLOCK, draw_token, forbid, highest

_MASK = (1 << 64) - 1


class Uniform:
    """SplitMix64 (Steele, Lea, Flood 2014): from a seed, the same numbers in [0, 1) on every platform."""

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def bits(self) -> int:
        """The next 64 random bits."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return mixed ^ (mixed >> 31)

    def __call__(self) -> float:
        return (self.bits() >> 11) * 2.0**-53


def mask_words(vocab_size: int) -> int:
    """Words of 64 bits in a mask of so many tokens."""
    return -(-vocab_size // BLOCK)


KERNELS = (highest, draw_token, forbid)  # what a sampler compiles when it first draws


class Sampler:
    """Draws the tokens of one text; it counts the tokens of the text so far and has random numbers of its own."""

    def __init__(self, sampling: Sampling, vocab_size: int) -> None:
        self.sampling = sampling
        self._vocab_size = vocab_size
        self._uniform = Uniform(secrets.randbits(64) if sampling.seed is None else sampling.seed)
        self._counts: Counter[int] = Counter()
        self._last: deque[int] = deque()
        blocks = mask_words(vocab_size)
        self._work = np.full((blocks, BLOCK), -np.inf, np.float32)
        self._logits = self._work.reshape(-1)[:vocab_size]
        self._heap = np.empty(blocks * BLOCK, np.int64)

    def accept(self, token: int) -> None:
        """Count a token of the prompt or of the answer, for the penalties."""
        if not self.sampling.penalizes:
            return
        self._counts[token] += 1
        self._last.append(token)
        if len(self._last) > self.sampling.penalty_last_n >= 0:
            oldest = self._last.popleft()
            self._counts[oldest] -= 1
            if not self._counts[oldest]:
                del self._counts[oldest]

    def sample(self, logits: np.ndarray, mask: np.ndarray | None = None) -> int:
        """Draw the next token from logits, float32 [vocab or more], which stay as they are.

        mask: the tokens that may be drawn, a bit each, the lowest bit first: 64 * mask_words(vocab) bits or more, contiguous.
        """
        self._logits[:] = logits[: self._vocab_size]  # some files pad the head; no text has those ids
        if self._counts:
            self._penalize()
        if mask is not None:
            forbid(self._work.ctypes.data, len(self._work), mask.ctypes.data)
        top = int(self._logits.argmax())  # of NaN and numbers, argmax finds the NaN
        peak = float(self._logits[top])
        if not math.isfinite(peak):
            raise QcliError(
                f"the model produced {_NOT_FINITE.get(str(peak), peak)}",
                "the file may be damaged: compare its checksum, or try another quantization",
            )
        how = self.sampling
        if how.temperature == 0:
            return top
        return draw_token(
            highest.address, self._work.ctypes.data, len(self._work), self._heap.ctypes.data, peak,
            min(how.top_k, self._work.size), how.top_p, how.min_p, how.temperature, self._uniform(),
        )  # fmt: skip

    def _penalize(self) -> None:
        how = self.sampling
        ids = np.fromiter(self._counts.keys(), np.intp, len(self._counts))
        counts = np.fromiter(self._counts.values(), np.float64, len(self._counts))
        seen = self._logits[ids].astype(np.float64)
        with np.errstate(invalid="ignore"):  # a logit of -inf or NaN stays one
            scaled = np.where(seen > 0, seen / how.repeat_penalty, seen * how.repeat_penalty)
            left = scaled - counts * how.frequency_penalty - how.presence_penalty
        finite = np.isfinite(seen)
        left[finite] = np.clip(left[finite], -_LARGEST, _LARGEST)
        self._logits[ids] = left


_LARGEST = 1e38  # a logit that penalties make: finite as float32, and as the difference of two
_NOT_FINITE = {"nan": "NaN instead of logits", "inf": "an infinite logit", "-inf": "no possible token"}
