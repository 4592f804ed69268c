"""Shapes of known models: the tensors and keys that their files have. The role of a tensor decides its type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qcli.errors import UsageError

Role = Literal["embedding", "head", "mixer", "experts", "down", "router", "vector", "ones", "decay"]
Row = tuple[str, Role, tuple[int, ...]]  # of the table of tensors: name, role, shape in NumPy order
Keys = dict[str, int | float | NDArray[Any]]  # of a GGUF file, without the architecture in front; an array: by layer


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
    is_tied: bool = False  # whether the head is the embedding
    others: tuple[Row, ...] = ()  # tensors that are of no layer

    def rows(self, layers: int) -> Iterator[Row]:
        """The tensors of the model cut to its first layers."""
        n = int(self.keys["embedding_length"])
        yield "token_embd.weight", "head" if self.is_tied else "embedding", (self.vocab_size, n)
        yield "output_norm.weight", "ones", (n,)
        if not self.is_tied:
            yield "output.weight", "head", (self.vocab_size, n)
        yield from self.others
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


def gemma4_layer(keys: Keys, i: int) -> Iterator[Row]:
    """The tensors of a layer of Gemma 4 with experts; those without a window have no projection of values."""
    c = {key: int(value) for key, value in keys.items() if not isinstance(value, np.ndarray)}
    n, experts, width, dense = (
        c[key] for key in ("embedding_length", "expert_count", "expert_feed_forward_length", "feed_forward_length")
    )
    local = bool(np.asarray(keys["attention.sliding_window_pattern"])[i])
    head = c["attention.key_length_swa" if local else "attention.key_length"]
    queries, kept = c["attention.head_count"] * head, int(np.asarray(keys["attention.head_count_kv"])[i]) * head
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


GEMMA4_26B: Keys = {
    "embedding_length": 2816,
    "feed_forward_length": 2112,
    "attention.head_count": 16,
    "attention.head_count_kv": np.array([8, 8, 8, 8, 8, 2] * 5),
    "attention.key_length": 512,
    "attention.value_length": 512,
    "attention.key_length_swa": 256,
    "attention.value_length_swa": 256,
    "attention.sliding_window": 1024,
    "attention.sliding_window_pattern": np.array([True, True, True, True, True, False] * 5),
    "attention.layer_norm_rms_epsilon": 1e-6,
    "rope.freq_base": 1e6,
    "rope.freq_base_swa": 1e4,
    "expert_count": 128,
    "expert_used_count": 8,
    "expert_feed_forward_length": 704,
    "final_logit_softcapping": 30.0,
}

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
            name="gemma-4-26b-a4b",
            architecture="gemma4",
            layers=30,
            vocab_size=262_144,
            keys=GEMMA4_26B,
            layer=gemma4_layer,
            mixers=("attention",) * 6,  # five within the window, then one that sees all
            context=262_144,
            is_tied=True,
            others=(("rope_freqs.weight", "ones", (256,)),),
        ),
    ]
}


def find_shape(name: str) -> ModelShape:
    """The shape of this name. Raises UsageError, which lists the names."""
    try:
        return SHAPES[name.lower()]
    except KeyError:
        raise UsageError(f"no shape is called {name!r}", f"--shape takes {', '.join(SHAPES)}") from None
