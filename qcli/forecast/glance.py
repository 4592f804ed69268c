"""Whether a model would fit, told from its header in a millisecond; `forecast` builds it, and knows to the byte."""

from __future__ import annotations

from typing import Literal

from qcli.gguf.file import GGUFFile
from qcli.gguf.names import split_layer
from qcli.host.memory import process_memory
from qcli.runtime.build import DEFAULT_CTX
from qcli.streaming import budget
from qcli.streaming.dense import is_expert
from quant.kernels.experts_grouped import MICRO_BATCH

Fit = Literal["in memory", "streamed", "too large"]

_CACHED = (
    "attn_k.weight",
    "attn_v.weight",
    "attn_kv_a_mqa.weight",
)  # a row of these for each key or value that is kept
_BUFFERS = 128  # bytes for each column of the residual stream and each token of a chunk, about


def room() -> int:
    """Bytes for weights, keys and values, and buffers of a model that is loaded now."""
    return budget.limit(None) - process_memory() - budget.RESERVE


def fit(file: GGUFFile, free: int) -> Fit:
    """How the model of a file would run with its usual context; free: bytes, as `room` tells."""
    experts = sum(tensor.n_bytes for tensor in file.tensors.values() if is_expert(tensor))
    dense = sum(tensor.n_bytes for tensor in file.tensors.values()) - experts
    beside = _state_bytes(file) + _BUFFERS * MICRO_BATCH * _number(file, "embedding_length")
    if dense + experts + beside <= free:
        return "in memory"
    used = _number(file, "expert_used_count") / max(1, _number(file, "expert_count"))
    return "streamed" if experts and dense + beside + min(1.0, used) * experts <= free else "too large"


def fits(n_bytes: int, free: int) -> bool:
    """Whether weights of so many bytes stay in memory, as far as their number tells."""
    return n_bytes + n_bytes // 10 + (1 << 30) <= free


def _state_bytes(file: GGUFFile) -> int:
    """Keys and values of a context of the usual length, as f16."""
    width = sum(t.shape[0] for t in file.tensors.values() if t.shape and split_layer(t.name)[1] in _CACHED)
    return 2 * width * min(_number(file, "context_length") or DEFAULT_CTX, DEFAULT_CTX)


def _number(file: GGUFFile, key: str) -> int:
    """A whole number that the architecture gives; 0 where it gives none."""
    value = file.metadata.get(f"{file.metadata.get('general.architecture')}.{key}")
    return value if type(value) is int and 0 < value < 1 << 31 else 0
