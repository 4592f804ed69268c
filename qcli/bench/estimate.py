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
    if not all(shape.count(mixer, layers) for mixer in shape.mixers):
        return None
    return result.case.tokens / whole_seconds(shape, layers, result.median_s, result.times())


def whole_seconds(shape: ModelShape, layers: int, seconds: float, parts: dict[str, tuple[float, float]]) -> float:
    """What takes so many seconds with the first layers, with all of them; parts: seconds at work and waiting, by part."""
    took = {part: work + wait for part, (work, wait) in parts.items()}
    outside = seconds - sum(took.values())  # of the model: not multiplied
    return outside + sum(s * (1.0 if part in _ONCE else _times(shape, layers, part)) for part, s in took.items())


def _times(shape: ModelShape, layers: int, part: str) -> float:
    if part in shape.mixers:
        return shape.count(part, shape.layers) / max(1, shape.count(part, layers))
    return shape.layers / layers
