"""What a file says of rotary positions: dimensions, base, frequency factors, and how they are stretched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.weights import vector
from quant.kernels.rope import Rope, frequencies, yarn, yarn_magnitude

_FACTORS = "rope_freqs.weight"


def rotary(
    hparams: Hyperparameters,
    *,
    width: int = 0,
    base: str = "rope.freq_base",
    interleaved: bool = False,
    whole: bool = True,
) -> Rope:
    """How the heads of a file turn.

    width: of a head, where it is not `attention.key_length`; base: the key that has it; interleaved: lanes turn by
    neighbours; whole: YaRN's borders are rounded to whole pairs. Files for text give every section of M-RoPE the same
    position, which is plain RoPE.
    """
    width = width or hparams.head_dim
    dimensions = hparams.size("rope.dimension_count", width)
    if dimensions > width or dimensions % 2:
        hparams.wrong(f"heads of {width} with {dimensions} turning dimensions")
    theta = hparams.number(base, 1, 1e30, 10_000.0)
    turns = frequencies(dimensions, theta)
    if _FACTORS in hparams.file.tensors:
        turns = (turns / _factors(hparams, len(turns))).astype(np.float32)
    stretch = Stretch.read(hparams)
    return Rope(stretch.applied(turns, theta, whole), stretch.magnitude, interleaved)


@dataclass(frozen=True)
class Stretch:
    """How positions of a short context are stretched over a longer one."""

    kind: str
    factor: float
    original: int
    fast: float
    slow: float
    magnitude: float

    @classmethod
    def read(cls, hparams: Hyperparameters) -> Stretch:
        kind = hparams.text("rope.scaling.type", "linear")
        if kind not in ("none", "linear", "yarn"):
            hparams.unsupported(f'a RoPE stretched by "{kind}" is not supported', "get a file without it")
        old = hparams.number("rope.scale_linear", 0, 1e6, 0.0)
        factor = hparams.number("rope.scaling.factor", 0, 1e6, old) or 1.0
        attention = hparams.number("rope.scaling.attn_factor", 0, 1e6, 1.0)
        original = hparams.count("rope.scaling.original_context_length")
        return cls(
            kind=kind,
            factor=1.0 if kind == "none" else factor,
            original=original or (hparams.size("context_length") if kind == "yarn" else 0),
            fast=hparams.number("rope.scaling.yarn_beta_fast", 1e-3, 1e6, 32.0),
            slow=hparams.number("rope.scaling.yarn_beta_slow", 1e-3, 1e6, 1.0),
            magnitude=attention * (yarn_magnitude(factor) if kind == "yarn" else 1.0),
        )

    def applied(self, turns: NDArray[np.float32], theta: float, whole: bool) -> NDArray[np.float32]:
        """The frequencies, stretched."""
        if self.kind == "yarn" and theta > 1:
            return yarn(turns, theta, self.factor, self.original, self.fast, self.slow, whole)
        return (turns / np.float32(self.factor)).astype(np.float32)


def _factors(hparams: Hyperparameters, pairs: int) -> NDArray[np.float32]:
    factors = vector(hparams.file, _FACTORS, pairs)
    if not (factors > 0).all():
        hparams.wrong(f'the tensor "{_FACTORS}" has factors that are not above 0')
    return factors
