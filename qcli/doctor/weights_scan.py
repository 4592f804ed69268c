"""Every block of a model's weights looked at: for scales that are no numbers, or of a size that no training gives.

Of quantized types only the scales can be wrong in that way; any bits of the others are weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcli.gguf.file import Tensor
from quant.block import Block, Scale, Weight, declared, halves
from quant.formats import bf16, iq1_m, mxfp4, nvfp4

Blocks = NDArray[np.uint8]  # [n, bytes]

_ABSURD: Final = 100.0  # spread of a block's weights, if it is also so many times that of others of its tensor:
_TIMES: Final = 1000.0
_LARGEST: Final = 1e6  # a float that is a weight
_E8M0_NAN, _UE4M3_NAN = 255, 127


@dataclass
class Damage:
    """What is wrong with a tensor."""

    tensor: Tensor
    not_numbers: int = 0  # blocks with a scale or weight that is NaN or infinite
    absurd: int = 0  # blocks that are far too large
    first: int = -1  # block that something is wrong with

    @property
    def where(self) -> str:
        """Of the first: the row, and the expert."""
        per_row = max(1, self.tensor.data.shape[1] // declared()[self.tensor.type].bytes)
        row = self.first // per_row
        if len(self.tensor.shape) < 3:
            return f"row {row}"
        return f"expert {row // self.tensor.shape[1]}, row {row % self.tensor.shape[1]}"


@dataclass
class Scan:
    """All pieces of all tensors that were looked at."""

    blocks: int = 0
    tensors: int = 0
    damages: dict[str, Damage] = field(default_factory=dict)
    filled: set[str] = field(default_factory=set)  # tensors in which anything is not 0

    def look(self, tensor: Tensor, first: int, data: NDArray[np.uint8]) -> None:
        """Look at some bytes of a tensor, whole blocks, from the block `first` on."""
        block = declared()[tensor.type]
        blocks = data.reshape(-1, block.bytes)
        self.blocks += len(blocks)
        self.tensors += first == 0
        if tensor.name not in self.filled and blocks.any():
            self.filled.add(tensor.name)
        for field_, holds in block.fields.items():
            if isinstance(holds, Scale | Weight):
                self._judge(tensor, first, *_values(block, field_, holds, blocks))

    def _judge(self, tensor: Tensor, first: int, values: NDArray[np.float32], largest: float) -> None:
        """values: [blocks, count]; above `largest` they are absurd."""
        finite = np.isfinite(values).all(axis=1)
        with np.errstate(invalid="ignore"):
            absurd = (np.abs(values) > largest).any(axis=1) & finite
        wrong = ~finite | absurd
        if not wrong.any():
            return
        damage = self.damages.setdefault(tensor.name, Damage(tensor))
        damage.not_numbers += int((~finite).sum())
        damage.absurd += int(absurd.sum())
        damage.first = damage.first if damage.first >= 0 else first + int(wrong.argmax())


def _values(block: Block, name: str, holds: Scale | Weight, blocks: Blocks) -> tuple[NDArray[np.float32], float]:
    """What a field of all blocks holds, float32 [n, count], and above which size it is absurd."""
    part = blocks[:, block.offsets[name] : block.offsets[name] + holds.bytes]
    values = _READ[holds.encoding](part)
    if isinstance(holds, Weight):
        return values, _LARGEST
    sizes = np.abs(values[:: max(1, len(values) // 4096)])
    usual = sizes[np.isfinite(sizes) & (sizes > 0)]
    return values, max(_ABSURD * holds.unit, _TIMES * float(np.median(usual)) if len(usual) else 0.0)


def _or_nan(decoded: NDArray[np.float32], is_none: NDArray[np.bool_]) -> NDArray[np.float32]:
    """What codes of scales stand for, NaN for those that the format has for no number, and that kernels take for one."""
    values: NDArray[np.float32] = np.where(is_none, np.float32("nan"), decoded)
    return values


_READ: Final[dict[str, Callable[[Blocks], NDArray[Any]]]] = {
    "f32": lambda part: np.ascontiguousarray(part).view("<f4"),
    "f16": halves,
    "bf16": bf16.dequantize,
    "f16 in nibbles": iq1_m.decoded,
    "e8m0": lambda part: _or_nan(mxfp4.decoded(part), part == _E8M0_NAN),
    "ue4m3": lambda part: _or_nan(nvfp4.decoded(part), part & 127 == _UE4M3_NAN),
}
