"""From some layers of a model to all of them."""

from __future__ import annotations

from qcli.bench.measure import Result
from qcli.bench.rig import SAMPLING
from qcli.bench.shapes import Shape

_ONCE = {"embedding", "head", SAMPLING}  # parts that the number of layers does not change


def whole_tok_per_s(shape: Shape, layers: int, result: Result) -> float | None:
    """An estimate: mixers, experts and the rest of a layer as often as all layers have them, the head once.

    None where a kind of mixer was not among the layers measured.
    """
    parts = {part: work + wait for part, (work, wait) in result.times().items()}
    seconds = result.median_s - sum(parts.values())  # outside of the model: the same for all
    for part, measured in parts.items():
        seconds += measured * (1.0 if part in _ONCE else _times(shape, layers, part))
    if not all(shape.count(mixer, layers) for mixer in shape.mixers):
        return None
    return result.case.tokens / seconds


def _times(shape: Shape, layers: int, part: str) -> float:
    if part in shape.mixers:
        return shape.count(part, shape.layers) / max(1, shape.count(part, layers))
    return shape.layers / layers
