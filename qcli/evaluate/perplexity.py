"""How well a model predicts a text, and how far its predictions are from another's.

Perplexity is exp of the mean of -log p over the scored tokens; the Kullback-Leibler divergence of one prediction is the
sum of p_reference (log p_reference - log p). Errors are of the mean, tokens taken as independent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcli.errors import ModelFileError
from qcli.evaluate.log_probs_file import LogProbs, LogProbsWriter
from qcli.evaluate.scored_text import scored_from
from qcli.runtime.engine import Engine

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value and the standard error of it."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.4f} ± {self.error:.4f}"


def mean(numbers: Numbers) -> Estimate:
    """float64 [n]."""
    error = float(numbers.std(ddof=1)) / math.sqrt(len(numbers)) if len(numbers) > 1 else 0.0
    return Estimate(float(numbers.mean()), error)


def exp_mean(numbers: Numbers) -> Estimate:
    """exp of the mean."""
    inner = mean(numbers)
    value = math.exp(min(inner.value, 700))
    return Estimate(value, value * inner.error)


@dataclass(frozen=True, eq=False)
class Divergence:
    """From a reference, a number for each scored token: its own -log p, KL, and whether the likeliest token is the same."""

    reference_losses: Numbers
    kl: Numbers
    same_top: Numbers

    @property
    def reference(self) -> Estimate:
        """The reference's perplexity."""
        return exp_mean(self.reference_losses)

    @property
    def mean_kl(self) -> Estimate:
        return mean(self.kl)

    @property
    def kl_99(self) -> float:
        return float(np.percentile(self.kl, 99))

    @property
    def max_kl(self) -> float:
        return float(self.kl.max())

    @property
    def same(self) -> Estimate:
        """The share of tokens, 0 to 1, whose likeliest successor is the same."""
        return mean(self.same_top)


@dataclass(frozen=True, eq=False)
class Scores:
    """What is known after some chunks; losses: -log p of each scored token."""

    chunks: int
    losses: Numbers
    divergence: Divergence | None

    @property
    def perplexity(self) -> Estimate:
        return exp_mean(self.losses)

    @property
    def ratio(self) -> Estimate:
        """Of the perplexity to the reference's; its error is small, for both have the same hard tokens."""
        assert self.divergence
        return exp_mean(self.losses - self.divergence.reference_losses)


def score(
    engine: Engine,
    chunks: Sequence[Sequence[int]],
    reference: LogProbs | None = None,
    save: LogProbsWriter | None = None,
) -> Iterator[Scores]:
    """Yields the scores of the chunks so far, after each. Raises ModelFileError for a model that makes no numbers."""
    losses: list[Numbers] = []
    divergences: list[tuple[Numbers, Numbers, Numbers]] = []
    for i, ids in enumerate(chunks):
        first = scored_from(len(ids))
        own = log_softmax(engine.logits(ids[:-1], first))
        next_ids = np.asarray(ids[first + 1 :])
        losses.append(_losses(own, next_ids))
        if not np.isfinite(losses[-1]).all():
            raise ModelFileError("the model's predictions are not finite numbers", "download the model again")
        if save:
            save.add(own)
        if reference:
            divergences.append(compare(reference.chunk(i), own, next_ids))
        parts = [np.concatenate(column) for column in zip(*divergences, strict=True)]
        yield Scores(i + 1, np.concatenate(losses), Divergence(*parts) if parts else None)


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 [tokens, vocab] -> the same, in place: log-probabilities."""
    logits -= logits.max(1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(1, keepdims=True, dtype=np.float64)).astype(np.float32)
    return logits


def compare(
    reference: NDArray[np.float32], own: NDArray[np.float32], next_ids: NDArray[np.int64]
) -> tuple[Numbers, Numbers, Numbers]:
    """Log-probabilities float32 [tokens, vocab] of both: the reference's losses, KL and sameness of each token [tokens]."""
    same = (reference.argmax(1) == own.argmax(1)).astype(np.float64)
    kl = (np.exp(reference) * (reference - own)).sum(1, dtype=np.float64)
    return _losses(reference, next_ids), np.maximum(kl, 0), same


def _losses(log_probs: NDArray[np.float32], next_ids: NDArray[np.int64]) -> Numbers:
    return -log_probs[np.arange(len(next_ids)), next_ids].astype(np.float64)
