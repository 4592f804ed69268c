"""Shapes of models with Kimi Delta Attention, as their publishers' config.json files have them."""

from __future__ import annotations

from collections.abc import Iterator

from qcli.bench.model_shape import Keys, ModelShape, Row, whole

_LATENT = (3, 7, 11, 15, 19, 23, 26)  # layers with latent attention
_LAYERS = 27
_MIXERS = tuple("attention" if i in _LATENT else "linear attention" for i in range(_LAYERS))


def kimi_layer(keys: Keys, i: int) -> Iterator[Row]:
    """The tensors of a layer of Kimi Linear: Kimi Delta Attention or latent attention; dense, or experts."""
    c = whole(keys)
    n = c["embedding_length"]
    yield "attn_norm.weight", "ones", (n,)
    yield from (_latent if i in _LATENT else _delta)(c, n)
    yield "ffn_norm.weight", "ones", (n,)
    yield from (_dense if i < c["leading_dense_block_count"] else _experts)(c, n)


def _delta(c: dict[str, int], n: int) -> Iterator[Row]:
    heads, width = c["attention.head_count"], c["kda.head_dim"]
    columns = heads * width
    for part in "qkv":
        yield f"attn_{part}.weight", "mixer", (columns, n)
        yield f"ssm_conv1d_{part}.weight", "vector", (1, columns, 1, c["ssm.conv_kernel"])
    for part in "fg":  # by way of a narrow row
        yield f"ssm_{part}_a.weight", "mixer", (width, n)
        yield f"ssm_{part}_b.weight", "mixer", (columns, width)
    yield "ssm_beta.weight", "mixer", (heads, n)
    yield "ssm_a", "decay", (1, 1, heads, 1)
    yield "ssm_dt.bias", "vector", (columns,)
    yield "ssm_norm.weight", "ones", (width,)
    yield "attn_output.weight", "mixer", (n, columns)


def _latent(c: dict[str, int], n: int) -> Iterator[Row]:
    heads, rank, rotary = c["attention.head_count"], c["attention.kv_lora_rank"], c["rope.dimension_count"]
    key, value = c["attention.key_length_mla"], c["attention.value_length_mla"]
    yield "attn_q.weight", "mixer", (heads * key, n)
    yield "attn_kv_a_mqa.weight", "mixer", (rank + rotary, n)
    yield "attn_kv_a_norm.weight", "ones", (rank,)
    yield "attn_k_b.weight", "mixer", (heads, rank, key - rotary)
    yield "attn_v_b.weight", "mixer", (heads, value, rank)
    yield "attn_output.weight", "mixer", (n, heads * value)


def _dense(c: dict[str, int], n: int) -> Iterator[Row]:
    width = c["feed_forward_length"]
    yield "ffn_gate.weight", "mixer", (width, n)
    yield "ffn_up.weight", "mixer", (width, n)
    yield "ffn_down.weight", "down", (n, width)


def _experts(c: dict[str, int], n: int) -> Iterator[Row]:
    count, width = c["expert_count"], c["expert_feed_forward_length"]
    yield "ffn_gate_inp.weight", "router", (count, n)
    yield "exp_probs_b.bias", "vector", (count,)
    for part in ("gate", "up"):
        yield f"ffn_{part}_exps.weight", "experts", (count, width, n)
        yield f"ffn_{part}_shexp.weight", "experts", (width, n)
    yield "ffn_down_exps.weight", "down", (count, n, width)
    yield "ffn_down_shexp.weight", "down", (n, width)


# config.json of moonshotai/Kimi-Linear-48B-A3B-Instruct
KIMI_LINEAR_48B = ModelShape(
    name="kimi-linear-48b-a3b",
    architecture="kimi-linear",
    layers=_LAYERS,
    vocab_size=163_840,
    keys={
        "embedding_length": 2304,
        "feed_forward_length": 9216,
        "attention.head_count": 32,
        "attention.head_count_kv": tuple(int(i in _LATENT) for i in range(_LAYERS)),
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.kv_lora_rank": 512,
        "attention.key_length": 576,
        "attention.value_length": 512,
        "attention.key_length_mla": 192,
        "attention.value_length_mla": 128,
        "rope.dimension_count": 64,
        "ssm.conv_kernel": 4,
        "kda.head_dim": 128,
        "leading_dense_block_count": 1,
        "expert_count": 256,
        "expert_used_count": 8,
        "expert_shared_count": 1,
        "expert_feed_forward_length": 1024,
        "expert_gating_func": 2,
        "expert_weights_scale": 2.446,
    },
    layer=kimi_layer,
    mixers=_MIXERS,
    context=1_048_576,
)
