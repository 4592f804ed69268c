"""Shapes of known models: the tensors and keys that their files have. The role of a tensor decides its type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from qcli.errors import UsageError

Role = Literal["embedding", "head", "mixer", "experts", "down", "router", "vector", "ones", "decay"]
Row = tuple[str, Role, tuple[int, ...]]  # of the table of tensors: name, role, shape in NumPy order
Keys = dict[str, int | float]  # of a GGUF file, without the architecture in front


@dataclass(frozen=True)
class ModelShape:
    """A model without its weights; `keys` lack the number of layers."""

    name: str
    architecture: str
    layers: int
    vocab_size: int
    keys: Keys
    layer: Callable[[Keys, int], Iterator[Row]]  # the tensors of one layer, named without "blk.N."
    mixers: tuple[
        str, ...
    ]  # kinds of the layers, as profiles name them: layer 0 has the first, …, then again the first
    context: int  # tokens

    def rows(self, layers: int) -> Iterator[Row]:
        """The tensors of the model cut to its first layers."""
        n = int(self.keys["embedding_length"])
        yield "token_embd.weight", "embedding", (self.vocab_size, n)
        yield "output_norm.weight", "ones", (n,)
        yield "output.weight", "head", (self.vocab_size, n)
        for i in range(layers):
            for name, role, shape in self.layer(self.keys, i):
                yield f"blk.{i}.{name}", role, shape

    def count(self, mixer: str, layers: int) -> int:
        """How many of the first layers have this kind of mixer."""
        return sum(self.mixers[i % len(self.mixers)] == mixer for i in range(layers))


def qwen3next_layer(keys: Keys, i: int) -> Iterator[Row]:
    """The tensors of a layer of Qwen3-Next; every `full_attention_interval`th has attention."""
    c = {key: int(value) for key, value in keys.items()}
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
    c = {key: int(value) for key, value in keys.items()}
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


def bailingmoe2_layer(keys: Keys, i: int) -> Iterator[Row]:
    """The tensors of a layer of Ling 2.0: the first `leading_dense_block_count` are dense."""
    c = {key: int(value) for key, value in keys.items()}
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

LING_MINI: Keys = {
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
        ModelShape(
            name="ling-mini-2",
            architecture="bailingmoe2",
            layers=20,
            vocab_size=157_184,
            keys=LING_MINI,
            layer=bailingmoe2_layer,
            mixers=("attention",),
            context=32_768,
        ),
    ]
}


def find_shape(name: str) -> ModelShape:
    """The shape of this name. Raises UsageError, which lists the names."""
    try:
        return SHAPES[name.lower()]
    except KeyError:
        raise UsageError(f"no shape is called {name!r}", f"--shape takes {', '.join(SHAPES)}") from None
