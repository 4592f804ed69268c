"""From logits to a token: penalties, top-k, top-p, min-p, temperature, one draw, in llama.cpp's order."""

from __future__ import annotations

import math
import secrets
from collections import Counter, deque
from dataclasses import dataclass

import numpy as np

from qcli.errors import QcliError, UsageError
from quant.kernels.sample import BLOCK, draw_token, highest

_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Sampling:
    """How to draw a token; UsageError when a value cannot be meant.

    1. Penalties, over the last `penalty_last_n` tokens, prompt included (0: none, -1: all of them): a logit
       above 0 is divided by `repeat_penalty`, another multiplied by it; then `frequency_penalty` times the
       token's count and `presence_penalty` are subtracted.
    2. `top_k` keeps the k highest (0: all; of equal logits the lowest id).
    3. `top_p` keeps the shortest prefix of the rest, most probable first, that holds at least this share.
    4. `min_p` keeps those at least this fraction as probable as the best.
    5. `temperature` divides the logits that are left; 0 takes the highest (of equal ones the lowest id).
    6. One draw from their softmax; the same `seed` gives the same numbers everywhere (None: new ones).
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_last_n: int = 64
    seed: int | None = None

    def __post_init__(self) -> None:
        inf = math.inf
        _require("temperature", self.temperature, 0 <= self.temperature < inf, "0 (greedy) or more, as 0.7")
        _require("top-k", self.top_k, self.top_k >= 0, "from 0 (no limit) up")
        _require("top-p", self.top_p, 0 <= self.top_p <= 1, "between 0 and 1")
        _require("min-p", self.min_p, 0 <= self.min_p <= 1, "between 0 and 1")
        _require("repeat penalty", self.repeat_penalty, 0 < self.repeat_penalty < inf, "above 0, as 1.1")
        _require("frequency penalty", self.frequency_penalty, math.isfinite(self.frequency_penalty), "as 0.5")
        _require("presence penalty", self.presence_penalty, math.isfinite(self.presence_penalty), "as 0.5")
        _require("penalty range", self.penalty_last_n, self.penalty_last_n >= -1, "tokens, -1 for all")
        _require("seed", self.seed, self.seed is None or 0 <= self.seed <= _MASK, "0 to 2^64 - 1")

    @property
    def penalises(self) -> bool:
        """Whether any penalty changes a logit."""
        neutral = self.repeat_penalty == 1 and self.frequency_penalty == 0 and self.presence_penalty == 0
        return self.penalty_last_n != 0 and not neutral


def _require(name: str, value: object, holds: bool, meant: str) -> None:
    if not holds:
        raise UsageError(f"{name} cannot be {value}", f"give a number {meant}")


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


KERNELS = (highest, draw_token)  # what a sampler compiles when it first draws


class Sampler:
    """Draws the tokens of one text: it remembers the tokens accepted and where its random numbers are."""

    def __init__(self, sampling: Sampling, vocab_size: int) -> None:
        self.sampling = sampling
        self._vocab_size = vocab_size
        self._uniform = Uniform(secrets.randbits(64) if sampling.seed is None else sampling.seed)
        self._counts: Counter[int] = Counter()
        self._last: deque[int] = deque()
        blocks = -(-vocab_size // BLOCK)
        self._work = np.full((blocks, BLOCK), -np.inf, np.float32)
        self._logits = self._work.reshape(-1)[:vocab_size]
        self._heap = np.empty(blocks * BLOCK, np.int64)

    def accept(self, token: int) -> None:
        """Count a token of the text, prompt or answer, for the penalties."""
        if not self.sampling.penalises:
            return
        self._counts[token] += 1
        self._last.append(token)
        if len(self._last) > self.sampling.penalty_last_n >= 0:
            oldest = self._last.popleft()
            self._counts[oldest] -= 1
            if not self._counts[oldest]:
                del self._counts[oldest]

    def sample(self, logits: np.ndarray) -> int:
        """Draw the next token from logits, float32 [vocab or more], which stay as they are."""
        self._logits[:] = logits[: self._vocab_size]  # some files pad the head; no text has those ids
        if self._counts:
            self._penalise()
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
            how.top_k, how.top_p, how.min_p, how.temperature, self._uniform(),
        )  # fmt: skip

    def _penalise(self) -> None:
        how = self.sampling
        ids = np.fromiter(self._counts.keys(), np.intp, len(self._counts))
        counts = np.fromiter(self._counts.values(), np.float32, len(self._counts))
        repeat, frequency, presence = np.array(
            [how.repeat_penalty, how.frequency_penalty, how.presence_penalty], np.float32
        )
        seen = self._logits[ids]
        self._logits[ids] = np.where(seen > 0, seen / repeat, seen * repeat) - counts * frequency - presence


_NOT_FINITE = {"nan": "NaN instead of logits", "inf": "an infinite logit", "-inf": "no possible token"}
