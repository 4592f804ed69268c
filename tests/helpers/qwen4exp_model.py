"""A tiny random model of Qwen4-Exp: its file, and what the plain twin makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from reference.qwen4exp import Twin
from tiny_model import Tiny, f32

from quant.kernels.router import Routing

ARCH = "qwen4exp"
VOCAB, N, RANK, EXPERTS, WIDTH, SHARED = 96, 64, 32, 8, 32, 64
TURNING = 16


@dataclass
class Shape:
    """The numbers of a model."""

    layers: int = 4
    interval: int = 4
    streams: int = 3
    heads: int = 4
    keys: int = 2
    head_width: int = 32
    key_heads: int = 2
    value_heads: int = 4
    width: int = 32
    ngram_layer: int = 1
    ngram_width: int = 16
    multipliers: tuple = (31_415_926_535, 27_182_818_285, 16_180_339_887)
    sizes: tuple = (61, 67, 71, 73)
    offsets: tuple = (0, 61, 128, 199)
    end: int = 5
    index_heads: int = 4
    index_width: int = 32
    block: int = 4
    budget: int = 5
    eps: float = 1e-6
    frequencies: np.ndarray = field(default_factory=lambda: 10_000.0 ** (-np.arange(0, TURNING, 2) / TURNING))


def tensors(c):
    """By the names of GGUF, without ".weight"."""
    rng = np.random.default_rng(11)

    def rows(*shape):
        return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    def near_one(*shape):
        return (1 + 0.2 * rng.standard_normal(shape)).astype(np.float32)

    def mix(name):
        whole = c.streams * N
        return {f"{name}_norm": near_one(whole), f"{name}_down": 4 * rows(RANK, whole), f"{name}_up": rows(whole, RANK)}

    made = {"token_embd": 8 * rows(VOCAB, N), "output": 8 * rows(VOCAB, N)} | mix("output_hc")
    made["per_layer_token_embd"] = 4 * rows(sum(c.sizes) + 4, c.ngram_width)
    for i in range(c.layers):
        block = mix("hc_attn") | mix("hc_ffn")
        block |= {f"hc_{part}_inject": 4 * rows(c.streams, c.streams * N) for part in ("attn", "ffn")}
        if (i + 1) % c.interval:
            channels = (2 * c.key_heads + c.value_heads) * c.width
            block |= {"attn_qkv": rows(channels, N), "attn_gate": rows(c.value_heads * c.width, N)}
            block |= {"ssm_beta": rows(c.value_heads, N), "ssm_alpha": rows(c.value_heads, N)}
            block |= {
                "ssm_conv1d": rows(channels, 4),
                "ssm_dt.bias": near_one(c.value_heads),
                "ssm_norm": near_one(c.width),
            }
            block |= {"ssm_a": -near_one(c.value_heads), "ssm_out": rows(N, c.value_heads * c.width)}
        else:
            block |= {"attn_q": rows(2 * c.heads * c.head_width, N), "attn_output": rows(N, c.heads * c.head_width)}
            block |= {f"attn_{part}": rows(c.keys * c.head_width, N) for part in "kv"}
            block |= {f"attn_{part}_norm": near_one(c.head_width) for part in "qk"}
            block |= {
                "indexer.q_proj": rows(c.index_heads * c.index_width, N),
                "indexer.k_proj": rows(c.index_width, N),
            }
            block |= {f"indexer.{part}_norm": near_one(c.index_width) for part in "qk"}
        if i == c.ngram_layer:
            found = len(c.sizes) * c.ngram_width
            block |= {
                "ple_key": rows(c.streams * N, found),
                "ple_value": rows(N, found),
                "ple_conv1d": rows(c.streams * N, 4),
            }
            block |= {f"ple_norm_{part}": near_one(c.streams * N) for part in ("key", "query", "conv")}
        block |= {"ffn_gate_inp": 2 * rows(EXPERTS, N), "ffn_gate_inp_shexp": rows(N)}
        block |= {"ffn_gate_exps": rows(EXPERTS, WIDTH, N), "ffn_up_exps": rows(EXPERTS, WIDTH, N)}
        block |= {"ffn_down_exps": rows(EXPERTS, N, WIDTH), "ffn_down_shexp": rows(N, SHARED)}
        block |= {"ffn_gate_shexp": rows(SHARED, N), "ffn_up_shexp": rows(SHARED, N)}
        made |= {f"blk.{i}.{name}": value for name, value in block.items()}
    return made


def write(c, path, **changes):
    """As a GGUF file of float32."""
    keys = {
        "block_count": c.layers, "context_length": 256, "embedding_length": N, "attention.head_count": c.heads,
        "attention.head_count_kv": c.keys, "attention.key_length": c.head_width, "attention.value_length": c.head_width,
        "attention.layer_norm_rms_epsilon": c.eps, "rope.freq_base": 10_000.0, "rope.dimension_count": TURNING,
        "rope.dimension_sections": np.array([4, 2, 2, 0]), "full_attention_interval": c.interval,
        "ssm.conv_kernel": 4, "ssm.inner_size": c.value_heads * c.width, "ssm.state_size": c.width,
        "ssm.time_step_rank": c.value_heads, "ssm.group_count": c.key_heads, "expert_count": EXPERTS,
        "expert_used_count": 2, "expert_feed_forward_length": WIDTH, "expert_shared_feed_forward_length": SHARED,
        "hyper_connection.count": c.streams, "hyper_connection.low_rank": RANK, "ple.layers": np.array([c.ngram_layer]),
        "attention.indexer.head_count": c.index_heads, "attention.indexer.key_length": c.index_width,
        "attention.indexer.top_k": c.budget * c.block, "ple.ngram_size": len(c.multipliers), "ple.eos_token_id": c.end,
        "ple.heads_per_ngram": len(c.sizes) // (len(c.multipliers) - 1), "ple.conv_kernel": 4,
        "attention.compress_ratios": np.array([0 if (i + 1) % c.interval else c.block for i in range(c.layers)]),
        "embedding_length_per_layer_input": c.ngram_width, "ple.layer_multipliers": np.array(c.multipliers),
        "ple.head_vocab_sizes": np.array(c.sizes), "ple.head_offsets": np.array(c.offsets),
    }  # fmt: skip
    tiny = Tiny({"general.architecture": ARCH} | {f"{ARCH}.{key}": v for key, v in (keys | changes).items()}, {}, {})
    for name, value in tensors(c).items():
        tiny.put(name if name.endswith((".bias", "ssm_a")) else f"{name}.weight", "F32", f32(value), value.shape[-1])
    return tiny.write(path)


def expected(c, ids):
    """Logits by the twin, [tokens, vocab]."""
    values = {name: value.astype(np.float64) for name, value in tensors(c).items()}
    return Twin(values, c, Routing(2)).logits(ids)
