"""What a file says of rotary positions: dimensions, base, frequency factors, and how they are stretched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcli.layers.hyperparameters import Hyper
from qcli.layers.weights import vector
from quant.kernels.rope import Rope, frequencies, yarn, yarn_magnitude

_FACTORS = "rope_freqs.weight"


def rotary(
    hyper: Hyper, *, width: int = 0, base: str = "rope.freq_base", interleaved: bool = False, whole: bool = True
) -> Rope:
    """How the heads of a file turn.

    width: of a head, where it is not `attention.key_length`; base: the key that has it; interleaved: lanes turn by
    neighbours; whole: YaRN's borders are rounded to whole pairs. Files for text give every section of M-RoPE the same
    position, which is plain RoPE.
    """
    width = width or hyper.head_dim
    dimensions = hyper.size("rope.dimension_count", width)
    if dimensions > width or dimensions % 2:
        hyper.wrong(f"heads of {width} with {dimensions} turning dimensions")
    theta = hyper.number(base, 1, 1e30, 10_000.0)
    turns = frequencies(dimensions, theta)
    if _FACTORS in hyper.file.tensors:
        turns = (turns / _factors(hyper, len(turns))).astype(np.float32)
    stretch = Stretch.read(hyper)
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
    def read(cls, hyper: Hyper) -> Stretch:
        kind = hyper.text("rope.scaling.type", "linear")
        if kind not in ("none", "linear", "yarn"):
            hyper.unsupported(f'a RoPE stretched by "{kind}" is not supported', "get a file without it")
        old = hyper.number("rope.scale_linear", 0, 1e6, 0.0)
        factor = hyper.number("rope.scaling.factor", 0, 1e6, old) or 1.0
        attention = hyper.number("rope.scaling.attn_factor", 0, 1e6, 1.0)
        original = hyper.count("rope.scaling.original_context_length")
        return cls(
            kind=kind,
            factor=1.0 if kind == "none" else factor,
            original=original or (hyper.size("context_length") if kind == "yarn" else 0),
            fast=hyper.number("rope.scaling.yarn_beta_fast", 1e-3, 1e6, 32.0),
            slow=hyper.number("rope.scaling.yarn_beta_slow", 1e-3, 1e6, 1.0),
            magnitude=attention * (yarn_magnitude(factor) if kind == "yarn" else 1.0),
        )

    def applied(self, turns: NDArray[np.float32], theta: float, whole: bool) -> NDArray[np.float32]:
        """The frequencies, stretched."""
        if self.kind == "yarn" and theta > 1:
            return yarn(turns, theta, self.factor, self.original, self.fast, self.slow, whole)
        return (turns / np.float32(self.factor)).astype(np.float32)


def _factors(hyper: Hyper, pairs: int) -> NDArray[np.float32]:
    factors = vector(hyper.file, _FACTORS, pairs)
    if not (factors > 0).all():
        hyper.wrong(f'the tensor "{_FACTORS}" has factors that are not above 0')
    return factors
