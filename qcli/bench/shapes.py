"""Shapes of known models: the tensors and keys that their files have. The role of a tensor decides its type."""

from __future__ import annotations

from collections.abc import Iterator

from qcli.bench.gemma_shapes import GEMMA4_26B
from qcli.bench.kimi_shapes import KIMI_LINEAR_48B
from qcli.bench.ling_shapes import LING_MINI_2
from qcli.bench.mamba_shapes import GRANITE_4_H_SMALL, NEMOTRON_3_NANO
from qcli.bench.model_shape import Keys, ModelShape, Row, whole
from qcli.errors import UsageError


def qwen3next_layer(keys: Keys, i: int) -> Iterator[Row]:
    """The tensors of a layer of Qwen3-Next; every `full_attention_interval`th has attention."""
    c = whole(keys)
    n, experts = c["embedding_length"], c["expert_count"]
    width, shared = c["expert_feed_forward_length"], c["expert_shared_feed_forward_length"]
    yield "attn_norm.weight", "ones", (n,)
    attention = (i + 1) % c["full_attention_interval"] == 0
    yield from (_attention if attention else _linear_attention)(c, n)
    yield "post_attention_norm.weight", "ones", (n,)
    yield "ffn_gate_inp.weight", "router", (experts, n)
    yield "ffn_gate_inp_shexp.weight", "vector", (n,)
    yield "ffn_gate_exps.weight", "experts", (experts, width, n)
    yield "ffn_up_exps.weight", "experts", (experts, width, n)
    yield "ffn_down_exps.weight", "down", (experts, n, width)
    yield "ffn_gate_shexp.weight", "experts", (shared, n)
    yield "ffn_up_shexp.weight", "experts", (shared, n)
    yield "ffn_down_shexp.weight", "down", (n, shared)


def qwen3next_mtp(keys: Keys) -> Iterator[Row]:
    """The tensors of Qwen3-Next's block for multi-token prediction: a layer with attention, and what leads into it."""
    n = whole(keys)["embedding_length"]
    yield from qwen3next_layer(keys, whole(keys)["full_attention_interval"] - 1)
    yield "nextn.eh_proj.weight", "mixer", (n, 2 * n)
    for norm in ("enorm", "hnorm", "shared_head_norm"):
        yield f"nextn.{norm}.weight", "ones", (n,)


def _attention(c: dict[str, int], n: int) -> Iterator[Row]:
    width = c["attention.key_length"]
    queries, keys = c["attention.head_count"] * width, c["attention.head_count_kv"] * width
    yield "attn_q.weight", "mixer", (2 * queries, n)
    yield "attn_k.weight", "mixer", (keys, n)
    yield "attn_v.weight", "mixer", (keys, n)
    yield "attn_q_norm.weight", "ones", (width,)
    yield "attn_k_norm.weight", "ones", (width,)
    yield "attn_output.weight", "mixer", (n, queries)


def _linear_attention(c: dict[str, int], n: int) -> Iterator[Row]:
    values, heads = c["ssm.inner_size"], c["ssm.time_step_rank"]
    channels = values + 2 * c["ssm.group_count"] * c["ssm.state_size"]
    yield "attn_qkv.weight", "mixer", (channels, n)
    yield "attn_gate.weight", "mixer", (values, n)
    yield "ssm_ba.weight", "mixer", (2 * heads, n)
    yield "ssm_conv1d.weight", "vector", (channels, c["ssm.conv_kernel"])
    yield "ssm_a", "decay", (heads,)
    yield "ssm_dt.bias", "vector", (heads,)
    yield "ssm_norm.weight", "ones", (values // heads,)
    yield "ssm_out.weight", "mixer", (n, values)


def qwen3moe_layer(keys: Keys, i: int) -> Iterator[Row]:
    """The tensors of a layer of Qwen3-MoE, all of which are alike."""
    c = whole(keys)
    n, experts, width = c["embedding_length"], c["expert_count"], c["expert_feed_forward_length"]
    head = c["attention.key_length"]
    queries, kept = c["attention.head_count"] * head, c["attention.head_count_kv"] * head
    yield "attn_norm.weight", "ones", (n,)
    yield "attn_q.weight", "mixer", (queries, n)
    yield "attn_k.weight", "mixer", (kept, n)
    yield "attn_v.weight", "mixer", (kept, n)
    yield "attn_q_norm.weight", "ones", (head,)
    yield "attn_k_norm.weight", "ones", (head,)
    yield "attn_output.weight", "mixer", (n, queries)
    yield "ffn_norm.weight", "ones", (n,)
    yield "ffn_gate_inp.weight", "router", (experts, n)
    yield "ffn_gate_exps.weight", "experts", (experts, width, n)
    yield "ffn_up_exps.weight", "experts", (experts, width, n)
    yield "ffn_down_exps.weight", "down", (experts, n, width)


QWEN3_30B: Keys = {
    "embedding_length": 2048,
    "attention.head_count": 32,
    "attention.head_count_kv": 4,
    "attention.key_length": 128,
    "attention.value_length": 128,
    "attention.layer_norm_rms_epsilon": 1e-6,
    "rope.freq_base": 1e7,
    "expert_count": 128,
    "expert_used_count": 8,
    "expert_feed_forward_length": 768,
}

QWEN3_NEXT: Keys = {
    "embedding_length": 2048,
    "attention.head_count": 16,
    "attention.head_count_kv": 2,
    "attention.key_length": 256,
    "attention.value_length": 256,
    "attention.layer_norm_rms_epsilon": 1e-6,
    "rope.freq_base": 1e7,
    "rope.dimension_count": 64,
    "full_attention_interval": 4,
    "ssm.conv_kernel": 4,
    "ssm.state_size": 128,
    "ssm.group_count": 16,
    "ssm.time_step_rank": 32,
    "ssm.inner_size": 4096,
    "expert_count": 512,
    "expert_used_count": 10,
    "expert_feed_forward_length": 512,
    "expert_shared_feed_forward_length": 512,
}

SHAPES = {
    shape.name: shape
    for shape in [
        ModelShape(
            name="qwen3-next-80b-a3b",
            architecture="qwen3next",
            layers=48,
            vocab_size=151_936,
            keys=QWEN3_NEXT,
            layer=qwen3next_layer,
            mtp=qwen3next_mtp,
            mixers=("linear attention",) * 3 + ("attention",),
            context=262_144,
        ),
        ModelShape(
            name="qwen3-30b-a3b",
            architecture="qwen3moe",
            layers=48,
            vocab_size=151_936,
            keys=QWEN3_30B,
            layer=qwen3moe_layer,
            mixers=("attention",),
            context=262_144,
        ),
        GEMMA4_26B,
        KIMI_LINEAR_48B,
        LING_MINI_2,
        NEMOTRON_3_NANO,
        GRANITE_4_H_SMALL,
    ]
}


def find_shape(name: str) -> ModelShape:
    """The shape of this name. Raises UsageError, which lists the names."""
    try:
        return SHAPES[name.lower()]
    except KeyError:
        raise UsageError(f"no shape is called {name!r}", f"give one of: {', '.join(SHAPES)}") from None
