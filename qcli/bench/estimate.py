"""The speed of a whole model, estimated from that of its first layers."""

from __future__ import annotations

from qcli.bench.measure import Result
from qcli.bench.model_shape import ModelShape
from qcli.bench.rig import SAMPLING

_ONCE = {"embedding", "head", SAMPLING}  # parts that take as long whatever the number of layers


def whole_tok_per_s(shape: ModelShape, layers: int, result: Result) -> float | None:
    """Tokens a second with all layers: the times of mixers, experts and the rest of a layer are multiplied, the head's is not.

    layers: how many were measured. None if these lack a kind of mixer that the others have.
    """
    parts = {part: work + wait for part, (work, wait) in result.times().items()}
    seconds = result.median_s - sum(parts.values())  # outside of the model: not multiplied
    for part, measured in parts.items():
        seconds += measured * (1.0 if part in _ONCE else _times(shape, layers, part))
    if not all(shape.count(mixer, layers) for mixer in shape.mixers):
        return None
    return result.case.tokens / seconds


def _times(shape: ModelShape, layers: int, part: str) -> float:
    if part in shape.mixers:
        return shape.count(part, shape.layers) / max(1, shape.count(part, layers))
    return shape.layers / layers
