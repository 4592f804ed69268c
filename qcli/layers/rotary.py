"""What a file says of rotary position embedding: dimensions, base, frequency factors, and how a context was extended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.weights import vector
from quant.kernels.rope import Rope, frequencies, yarn, yarn_attention_factor

FACTORS = "rope_freqs.weight"
_LONG, _SHORT = "rope_factors_long.weight", "rope_factors_short.weight"  # LongRoPE, arXiv 2402.13753


def read_rope(
    hparams: Hyperparameters,
    *,
    head_dim: int = 0,
    base: str = "rope.freq_base",
    interleaved: bool = False,
    truncate: bool = True,
    ctx: int = 0,
) -> Rope:
    """How the heads of a file are rotated.

    head_dim: where it is not `attention.key_length`; base: the key that has it; interleaved: pairs are values 2i and
    2i + 1; truncate: YaRN's borders are rounded to whole pairs; ctx: most tokens of a text, if not as many as the model was
    made for: LongRoPE has factors for a long context and for a short one. Text gives every section of M-RoPE the same
    position, which is plain RoPE.
    """
    head_dim = head_dim or hparams.head_dim
    dimensions = hparams.size("rope.dimension_count", head_dim)
    if dimensions > head_dim or dimensions % 2:
        hparams.wrong(f"heads of {head_dim} with {dimensions} rotary dimensions")
    theta = hparams.number(base, 1, 1e30, 10_000.0)
    unscaled = frequencies(dimensions, theta)
    scaling = RopeScaling.read(hparams)
    for name in _factors_of(hparams, scaling, ctx):
        unscaled = (unscaled / _frequency_factors(hparams, name, len(unscaled))).astype(np.float32)
    return Rope(scaling.applied(unscaled, theta, truncate), scaling.attention_factor, interleaved)


@dataclass(frozen=True)
class RopeScaling:
    """How frequencies for the context of pretraining are changed for a longer one."""

    kind: str  # "none", "linear", "yarn" or "longrope"
    factor: float
    original_context: int
    beta_fast: float
    beta_slow: float
    attention_factor: float

    @classmethod
    def read(cls, hparams: Hyperparameters) -> RopeScaling:
        """The keys `rope.scaling.*`, and `rope.scale_linear` of older files."""
        kind = hparams.text("rope.scaling.type", "linear")
        if kind not in ("none", "linear", "yarn", "longrope"):
            hparams.unsupported(f'RoPE scaling of the type "{kind}" is not supported')
        old = hparams.number("rope.scale_linear", 0, 1e6, 0.0)
        factor = hparams.number("rope.scaling.factor", 0, 1e6, old) or 1.0
        attention = hparams.number("rope.scaling.attn_factor", 0, 1e6, 1.0)
        original = hparams.count("rope.scaling.original_context_length")
        return cls(
            kind=kind,
            factor=1.0 if kind in ("none", "longrope") else factor,
            original_context=original or (hparams.size("context_length") if kind == "yarn" else 0),
            beta_fast=hparams.number("rope.scaling.yarn_beta_fast", 1e-3, 1e6, 32.0),
            beta_slow=hparams.number("rope.scaling.yarn_beta_slow", 1e-3, 1e6, 1.0),
            attention_factor=attention * (yarn_attention_factor(factor) if kind == "yarn" else 1.0),
        )

    def applied(self, unscaled: NDArray[np.float32], theta: float, truncate: bool) -> NDArray[np.float32]:
        """The frequencies [pairs] for the longer context."""
        if self.kind == "yarn" and theta > 1:
            betas = self.beta_fast, self.beta_slow
            return yarn(unscaled, theta, self.factor, self.original_context, *betas, truncate)
        return (unscaled / np.float32(self.factor)).astype(np.float32)


def _factors_of(hparams: Hyperparameters, scaling: RopeScaling, ctx: int) -> list[str]:
    """The tensors of frequency factors that count for this context."""
    found = [FACTORS] if FACTORS in hparams.file.tensors else []
    if scaling.kind == "longrope" or _LONG in hparams.file.tensors:
        most = hparams.size("context_length")
        found.append(_LONG if (ctx or most) > (scaling.original_context or most) else _SHORT)
    return found


def _frequency_factors(hparams: Hyperparameters, name: str, pairs: int) -> NDArray[np.float32]:
    """float32 [pairs], by which frequencies are divided (Llama 3.1, LongRoPE)."""
    factors = vector(hparams.file, name, pairs)
    if not (factors > 0).all():
        hparams.wrong(f'the tensor "{name}" has factors that are not above 0')
    return factors
