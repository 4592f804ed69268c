"""Perplexity of a model on a text, and Kullback-Leibler divergence of its predictions from a reference model's.

Perplexity is exp of the mean of -log p over the scored tokens; the divergence of one prediction is the sum over the
vocabulary of p_reference (log p_reference - log p). Errors are standard errors of the mean, as if tokens were independent.
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
    """A value and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.4f} ± {self.error:.4f}"


def mean(numbers: Numbers) -> Estimate:
    """The mean of float64 [n]."""
    error = float(numbers.std(ddof=1)) / math.sqrt(len(numbers)) if len(numbers) > 1 else 0.0
    return Estimate(float(numbers.mean()), error)


def exp_mean(numbers: Numbers) -> Estimate:
    """exp of the mean of float64 [n]; the error is that of the mean, to first order."""
    inner = mean(numbers)
    value = math.exp(min(inner.value, 700))
    return Estimate(value, value * inner.error)


@dataclass(frozen=True, eq=False)
class Divergence:
    """A comparison with a reference model; every array float64 [scored tokens]."""

    reference_losses: Numbers  # -log p by the reference
    kl: Numbers
    same_top: Numbers  # 1 where both models find the same token most probable, else 0

    @property
    def reference(self) -> Estimate:
        """The reference's perplexity."""
        return exp_mean(self.reference_losses)

    @property
    def mean_kl(self) -> Estimate:
        """The mean KL divergence, in nats."""
        return mean(self.kl)

    @property
    def kl_99(self) -> float:
        """The 99th percentile of the KL divergence."""
        return float(np.percentile(self.kl, 99))

    @property
    def max_kl(self) -> float:
        """The largest KL divergence of a token."""
        return float(self.kl.max())

    @property
    def same_top_share(self) -> Estimate:
        """The share of tokens, 0 to 1, for which both models find the same next token most probable."""
        return mean(self.same_top)


@dataclass(frozen=True, eq=False)
class Scores:
    """The result after some chunks."""

    chunks: int
    losses: Numbers  # -log p of each scored token, [scored tokens]
    divergence: Divergence | None  # if there is a reference

    @property
    def perplexity(self) -> Estimate:
        """That of the model."""
        return exp_mean(self.losses)

    @property
    def ratio(self) -> Estimate:
        """Perplexity by that of the reference; its error is small, as the same tokens are hard for both."""
        assert self.divergence
        return exp_mean(self.losses - self.divergence.reference_losses)


def score(
    engine: Engine,
    chunks: Sequence[Sequence[int]],
    reference: LogProbs | None = None,
    save: LogProbsWriter | None = None,
) -> Iterator[Scores]:
    """Yield, after each chunk, the scores of all chunks so far.

    chunks: token ids; save: gets the log-probabilities. Raises ModelFileError for a model whose logits are not finite.
    """
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
    """Turn logits, float32 [tokens, vocab], into log-probabilities, in place."""
    logits -= logits.max(1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(1, keepdims=True, dtype=np.float64)).astype(np.float32)
    return logits


def compare(
    reference: NDArray[np.float32], own: NDArray[np.float32], next_ids: NDArray[np.int64]
) -> tuple[Numbers, Numbers, Numbers]:
    """The arrays of a Divergence, [tokens] each, from log-probabilities float32 [tokens, vocab] of both models."""
    same = (reference.argmax(1) == own.argmax(1)).astype(np.float64)
    kl = (np.exp(reference) * (reference - own)).sum(1, dtype=np.float64)
    return _losses(reference, next_ids), np.maximum(kl, 0), same


def _losses(log_probs: NDArray[np.float32], next_ids: NDArray[np.int64]) -> Numbers:
    return -log_probs[np.arange(len(next_ids)), next_ids].astype(np.float64)
