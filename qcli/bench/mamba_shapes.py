"""Shapes of models with Mamba 2 layers, as their publishers' config.json files have them."""

from __future__ import annotations

from collections.abc import Iterator

from qcli.bench.model_shape import Keys, ModelShape, Row, whole

# A letter for each layer: Mamba 2, experts, or attention.
_NEMOTRON = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"
_GRANITE = "MMMMM*MMMM" * 4
_KINDS = {"M": "state space", "E": "experts", "*": "attention"}


def state_space(c: dict[str, int]) -> Iterator[Row]:
    """The tensors of a Mamba 2 mixer."""
    n, columns, heads, groups = (
        c["embedding_length"],
        c["ssm.inner_size"],
        c["ssm.time_step_rank"],
        c["ssm.group_count"],
    )
    channels = columns + 2 * groups * c["ssm.state_size"]
    yield "ssm_in.weight", "mixer", (columns + channels + heads, n)
    yield "ssm_conv1d.weight", "vector", (channels, c["ssm.conv_kernel"])
    yield "ssm_conv1d.bias", "vector", (channels,)
    yield "ssm_dt.bias", "vector", (heads,)
    yield "ssm_a", "decay", (heads, 1)
    yield "ssm_d", "ones", (heads, 1)
    yield "ssm_norm.weight", "ones", (groups, columns // groups)
    yield "ssm_out.weight", "mixer", (n, columns)


def attention(c: dict[str, int], kept: int) -> Iterator[Row]:
    """The tensors of attention with so many key-value heads."""
    n, width = c["embedding_length"], c["attention.key_length"]
    yield "attn_q.weight", "mixer", (c["attention.head_count"] * width, n)
    yield "attn_k.weight", "mixer", (kept * width, n)
    yield "attn_v.weight", "mixer", (kept * width, n)
    yield "attn_output.weight", "mixer", (n, c["attention.head_count"] * width)


def experts(c: dict[str, int], gated: bool) -> Iterator[Row]:
    """The tensors of a layer of experts with a shared one."""
    n, count, shared = c["embedding_length"], c["expert_count"], c["expert_shared_feed_forward_length"]
    width = c["expert_feed_forward_length"]
    yield "ffn_gate_inp.weight", "router", (count, n)
    for part in ("gate", "up") if gated else ("up",):
        yield f"ffn_{part}_exps.weight", "experts", (count, width, n)
        yield f"ffn_{part}_shexp.weight", "experts", (shared, n)
    yield "ffn_down_exps.weight", "down", (count, n, width)
    yield "ffn_down_shexp.weight", "down", (n, shared)


def nemotron_layer(keys: Keys, i: int) -> Iterator[Row]:
    """The tensors of a layer of Nemotron 3: one of the three."""
    c, kind = whole(keys), _NEMOTRON[i]
    yield "attn_norm.weight", "ones", (c["embedding_length"],)
    if kind == "E":
        yield from experts(c, gated=False)
        yield "exp_probs_b.bias", "vector", (c["expert_count"],)
    else:
        yield from state_space(c) if kind == "M" else attention(c, _NEMOTRON_KEPT)


def granite_layer(keys: Keys, i: int) -> Iterator[Row]:
    """The tensors of a layer of Granite 4: Mamba 2 or attention, and experts."""
    c = whole(keys)
    yield "attn_norm.weight", "ones", (c["embedding_length"],)
    yield from state_space(c) if _GRANITE[i] == "M" else attention(c, _GRANITE_KEPT)
    yield "ffn_norm.weight", "ones", (c["embedding_length"],)
    yield from experts(c, gated=True)


def _per_layer(pattern: str, kind: str, value: int) -> tuple[int, ...]:
    """The value for layers of this kind, 0 for others."""
    return tuple(value if letter == kind else 0 for letter in pattern)


def _mixers(pattern: str) -> tuple[str, ...]:
    return tuple(_KINDS[letter] for letter in pattern)


_NEMOTRON_KEPT, _GRANITE_KEPT = 2, 8  # key-value heads
_STATE_SPACE: Keys = {"ssm.conv_kernel": 4, "ssm.state_size": 128}

# config.json of nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16
NEMOTRON_3_NANO = ModelShape(
    name="nemotron-3-nano-30b-a3b",
    architecture="nemotron_h_moe",
    layers=len(_NEMOTRON),
    vocab_size=131_072,
    keys=_STATE_SPACE
    | {
        "embedding_length": 2688,
        "feed_forward_length": _per_layer(_NEMOTRON, "E", 1856),
        "attention.head_count": 32,
        "attention.head_count_kv": _per_layer(_NEMOTRON, "*", _NEMOTRON_KEPT),
        "attention.key_length": 128,
        "attention.value_length": 128,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "ssm.group_count": 8,
        "ssm.time_step_rank": 64,
        "ssm.inner_size": 4096,
        "expert_count": 128,
        "expert_used_count": 6,
        "expert_feed_forward_length": 1856,
        "expert_shared_feed_forward_length": 3712,
        "expert_weights_norm": True,
        "expert_weights_scale": 2.5,
        "expert_gating_func": 2,
    },
    layer=nemotron_layer,
    mixers=_mixers(_NEMOTRON),
    context=262_144,
)

# config.json of ibm-granite/granite-4.0-h-small
GRANITE_4_H_SMALL = ModelShape(
    name="granite-4-h-small",
    architecture="granitehybrid",
    layers=len(_GRANITE),
    vocab_size=100_352,
    keys=_STATE_SPACE
    | {
        "embedding_length": 4096,
        "feed_forward_length": 768,
        "attention.head_count": 32,
        "attention.head_count_kv": _per_layer(_GRANITE, "*", _GRANITE_KEPT),
        "attention.key_length": 128,
        "attention.value_length": 128,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.scale": 1 / 128,
        "rope.scaling.finetuned": False,
        "ssm.group_count": 1,
        "ssm.time_step_rank": 128,
        "ssm.inner_size": 8192,
        "expert_count": 72,
        "expert_used_count": 10,
        "expert_feed_forward_length": 768,
        "expert_shared_feed_forward_length": 1536,
        "embedding_scale": 12.0,
        "residual_scale": 0.22,
        "logit_scale": 16.0,
    },
    layer=granite_layer,
    mixers=_mixers(_GRANITE[:10]),
    context=131_072,
    tied=True,
)
