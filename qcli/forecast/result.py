"""What `forecast` returns, and `qcli plan --json` prints with these names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["resident", "streamed", "too large"]


@dataclass(frozen=True)
class Weights:
    """Bytes of tensors."""

    dense: int  # all but the routed experts
    experts: int  # all routed experts
    per_token: int  # of both, read for a decoded token


@dataclass(frozen=True)
class Memory:
    """Bytes."""

    ram: int  # that the process may use
    state: int  # of a full context
    kv_cache: int  # the part of it that is keys and values
    buffers: int  # between records of the plans
    program: int  # the interpreter and its libraries, kernels, and a reserve
    needed: int  # to be resident; if too large, the least with which the model runs at all


@dataclass(frozen=True)
class Beside:
    """Answers that are given at the same time."""

    bytes_each: int  # of a text as long as the context
    texts: int  # that there is memory for


@dataclass(frozen=True)
class Streaming:
    """How a streamed model finds its experts."""

    slots: int  # of the cache, in each layer
    experts_per_layer: int
    hit_rate: float  # experts found in the cache among those that a token chooses, 0 to 1
    usage_known: bool  # whether the rate is that of earlier runs; else every expert is taken to be as likely
    bytes_per_token: float  # read from the disk
    disk_bytes_per_s: float


@dataclass(frozen=True)
class Speed:
    """At the beginning of a text; a streamed model's prompt is its first, for which it reads every expert."""

    prompt_tokens: int
    prefill_tok_per_s: float
    decode_tok_per_s: float


@dataclass(frozen=True)
class Forecast:
    """How a model would run on this machine."""

    mode: Mode
    threads: int
    ctx: int  # tokens
    kv_type: str
    weights: Weights
    memory: Memory
    streaming: Streaming | None  # of a streamed model
    speed: Speed | None  # None if it is too large
    beside: Beside | None  # None if it gives one answer at a time
