"""Whether a model would fit, told from its header in a millisecond; `forecast` builds it, and knows to the byte."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from qcli.errors import QcliError
from qcli.gguf.file import GGUFFile
from qcli.gguf.names import split_layer
from qcli.host.memory import process_memory
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.state_parts import ring_rows
from qcli.layers.windows import read_windows
from qcli.runtime.build import DEFAULT_CTX
from qcli.streaming import budget
from qcli.streaming.dense import weight_bytes
from qcli.streaming.prefill_loads import STAGING_BYTES
from quant.kernels.experts_grouped import MICRO_BATCH

Fit = Literal["in memory", "streamed", "too large"]

# A row of these for each key or value that is kept.
_CACHED = ("attn_k.weight", "attn_v.weight", "attn_kv_a_mqa.weight")
_BUFFERS = 128  # bytes for each column of the residual stream and each token of a chunk, about


def room(ram: int | None = None) -> int:
    """Bytes for weights, keys and values, and buffers of a model that is loaded now; ram: for the whole process."""
    return budget.limit(ram) - process_memory() - budget.RESERVE


@dataclass(frozen=True)
class Amounts:
    """Bytes of a model, by what has to stay in memory."""

    dense: int  # all but the routed experts
    experts: int  # all routed experts
    beside: int  # keys and values of a full context, and buffers
    used: float  # the share of the experts that a token uses

    @property
    def needed(self) -> int:
        """To have all of it in memory."""
        return self.dense + self.experts + self.beside

    @property
    def per_token(self) -> float:
        """Of weights that are read for a token."""
        return self.dense + self.used * self.experts

    def fit(self, free: int) -> Fit:
        """How the model would run; free: bytes, as `room` tells."""
        if self.needed <= free:
            return "in memory"
        least = self.dense + self.beside + self.used * self.experts
        return "streamed" if self.experts and least <= free else "too large"

    def in_memory(self, free: int) -> float:
        """The share of a streamed model's experts that stays in memory, 0 to 1."""
        left = free - self.dense - self.beside - STAGING_BYTES
        return max(0.0, min(1.0, left / self.experts)) if self.experts else 1.0

    def scaled(self, dense: int, experts: int, to: int) -> Amounts:
        """The same model with other weights, which together take `to` bytes."""
        factor = to / max(1, dense + experts)
        return replace(self, dense=round(dense * factor), experts=round(experts * factor))


def amounts(file: GGUFFile, ctx: int | None = None, kv_type: str = "f16") -> Amounts:
    """What a file's model takes with a context of so many tokens, or the usual one."""
    dense, experts = weight_bytes(file, experts=False), weight_bytes(file, experts=True)
    beside = _state_bytes(file, ctx, kv_type) + _BUFFERS * MICRO_BATCH * _number(file, "embedding_length")
    used = _number(file, "expert_used_count") / max(1, _number(file, "expert_count"))
    return Amounts(dense, experts, beside, min(1.0, used))


def fit(file: GGUFFile, free: int) -> Fit:
    """How the model of a file would run with its usual context; free: bytes, as `room` tells."""
    return amounts(file).fit(free)


def fits(n_bytes: int, free: int) -> bool:
    """Whether weights of so many bytes stay in memory, as far as their number tells."""
    return n_bytes + n_bytes // 10 + (1 << 30) <= free


def _state_bytes(file: GGUFFile, ctx: int | None, kv_type: str) -> int:
    """Keys and values of a context, of which layers with a window keep a part."""
    tokens = ctx or min(_number(file, "context_length") or DEFAULT_CTX, DEFAULT_CTX)
    kept = [min(tokens, ring_rows(window, MICRO_BATCH)) if window else tokens for window in _windows(file)]
    values = 0
    for tensor in file.tensors.values():
        layer, part = split_layer(tensor.name)
        rows = _kept_rows(file, layer, part, tensor.shape[0]) if tensor.shape else 0
        values += rows * (kept[layer] if 0 <= layer < len(kept) else tokens)
    return values * {"q8_0": 34, "f32": 128}.get(kv_type, 64) // 32


def _windows(file: GGUFFile) -> tuple[int, ...]:
    """The window of each layer, 0 for none; nothing where the file does not tell."""
    try:
        return read_windows(Hyperparameters(file))
    except QcliError:
        return ()


def _kept_rows(file: GGUFFile, layer: int, part: str, rows: int) -> int:
    """How many of a tensor's rows make keys or values that are kept; where queries come with them, all but as many as those."""
    if part != "attn_qkv.weight":
        return rows if part in _CACHED else 0
    output = file.tensors.get(f"blk.{layer}.attn_output.weight")
    return max(0, rows - output.shape[-1]) if output else 0


def _number(file: GGUFFile, key: str) -> int:
    """A whole number that the architecture gives; 0 where it gives none."""
    value = file.metadata.get(f"{file.metadata.get('general.architecture')}.{key}")
    return value if type(value) is int and 0 < value < 1 << 31 else 0
