"""Shapes of models of Gemma's family, as their publishers' config.json files have them."""

from __future__ import annotations

from collections.abc import Iterator

from qcli.bench.model_shape import Keys, ModelShape, Row, whole

_LAYERS = 30
_LOCAL = (True, True, True, True, True, False) * 5  # layers that see a window; the others see all
_KEPT_HEADS = (8, 8, 8, 8, 8, 2) * 5


def gemma4_layer(keys: Keys, i: int) -> Iterator[Row]:
    """The tensors of a layer of Gemma 4 with experts; those without a window have no projection of values."""
    c, local, heads = whole(keys), _LOCAL[i], _KEPT_HEADS[i]
    n, experts, width, dense = (
        c[key] for key in ("embedding_length", "expert_count", "expert_feed_forward_length", "feed_forward_length")
    )
    head = c["attention.key_length_swa" if local else "attention.key_length"]
    queries, kept = c["attention.head_count"] * head, heads * head
    for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
        yield f"{name}.weight", "ones", (n,)
    for name in ("pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"):
        yield f"{name}.weight", "ones", (n,)
    yield "layer_output_scale.weight", "ones", (1,)
    yield "attn_q.weight", "mixer", (queries, n)
    yield "attn_k.weight", "mixer", (kept, n)
    if local:
        yield "attn_v.weight", "mixer", (kept, n)
    yield "attn_q_norm.weight", "ones", (head,)
    yield "attn_k_norm.weight", "ones", (head,)
    yield "attn_output.weight", "mixer", (n, queries)
    yield "ffn_gate.weight", "experts", (dense, n)
    yield "ffn_up.weight", "experts", (dense, n)
    yield "ffn_down.weight", "down", (n, dense)
    yield "ffn_gate_inp.weight", "router", (experts, n)
    yield "ffn_gate_inp.scale", "ones", (n,)
    yield "ffn_gate_up_exps.weight", "experts", (experts, 2 * width, n)
    yield "ffn_down_exps.weight", "down", (experts, n, width)
    yield "ffn_down_exps.scale", "ones", (experts,)


_KEYS: Keys = {
    "embedding_length": 2816,
    "feed_forward_length": 2112,
    "attention.head_count": 16,
    "attention.head_count_kv": _KEPT_HEADS,
    "attention.key_length": 512,
    "attention.value_length": 512,
    "attention.key_length_swa": 256,
    "attention.value_length_swa": 256,
    "attention.sliding_window": 1024,
    "attention.sliding_window_pattern": _LOCAL,
    "attention.layer_norm_rms_epsilon": 1e-6,
    "rope.freq_base": 1e6,
    "rope.freq_base_swa": 1e4,
    "expert_count": 128,
    "expert_used_count": 8,
    "expert_feed_forward_length": 704,
    "final_logit_softcapping": 30.0,
}

GEMMA4_26B = ModelShape(
    name="gemma-4-26b-a4b",
    architecture="gemma4",
    layers=_LAYERS,
    vocab_size=262_144,
    keys=_KEYS,
    layer=gemma4_layer,
    mixers=("attention",) * 6,  # five within the window, then one that sees all
    context=262_144,
    tied=True,
    others=(("rope_freqs.weight", "ones", (256,)),),
)
