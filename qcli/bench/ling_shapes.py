"""Shapes of models of Ant Group's Ling family, as their publishers' config.json files have them."""

from __future__ import annotations

from collections.abc import Iterator

from qcli.bench.model_shape import Keys, ModelShape, Row, whole


def bailingmoe2_layer(keys: Keys, i: int) -> Iterator[Row]:
    """The tensors of a layer of Ling 2.0: the first `leading_dense_block_count` are dense."""
    c = whole(keys)
    n, experts, head = c["embedding_length"], c["expert_count"], c["attention.key_length"]
    queries, kept = c["attention.head_count"] * head, c["attention.head_count_kv"] * head
    yield "attn_norm.weight", "ones", (n,)
    yield "attn_qkv.weight", "mixer", (queries + 2 * kept, n)
    yield "attn_q_norm.weight", "ones", (head,)
    yield "attn_k_norm.weight", "ones", (head,)
    yield "attn_output.weight", "mixer", (n, queries)
    yield "ffn_norm.weight", "ones", (n,)
    if i < c["leading_dense_block_count"]:
        yield from _network("", c["feed_forward_length"], n)
        return
    yield "ffn_gate_inp.weight", "router", (experts, n)
    yield "exp_probs_b.bias", "vector", (experts,)
    yield from _network("_exps", c["expert_feed_forward_length"], n, experts)
    yield from _network("_shexp", c["expert_shared_feed_forward_length"], n)


def _network(suffix: str, width: int, n: int, *count: int) -> Iterator[Row]:
    yield f"ffn_gate{suffix}.weight", "experts", (*count, width, n)
    yield f"ffn_up{suffix}.weight", "experts", (*count, width, n)
    yield f"ffn_down{suffix}.weight", "down", (*count, n, width)


# config.json of inclusionAI/Ling-mini-2.0
LING_MINI_2 = ModelShape(
    name="ling-mini-2",
    architecture="bailingmoe2",
    layers=20,
    vocab_size=157_184,
    keys={
        "embedding_length": 2048,
        "feed_forward_length": 5120,
        "attention.head_count": 16,
        "attention.head_count_kv": 4,
        "attention.key_length": 128,
        "attention.value_length": 128,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 6e5,
        "rope.dimension_count": 64,
        "leading_dense_block_count": 1,
        "expert_count": 256,
        "expert_used_count": 8,
        "expert_group_count": 8,
        "expert_group_used_count": 4,
        "expert_gating_func": 2,
        "expert_weights_scale": 2.5,
        "expert_shared_count": 1,
        "expert_feed_forward_length": 512,
        "expert_shared_feed_forward_length": 512,
    },
    layer=bailingmoe2_layer,
    mixers=("attention",),
    context=32_768,
)
