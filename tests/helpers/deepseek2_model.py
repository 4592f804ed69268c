"""Tiny random models of DeepSeek-V2 and V3, and GLM-4.7-Flash by their name: files, and what the plain twin makes of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from reference.deepseek2 import Twin
from tiny_model import Tiny, f32

from quant.kernels.router import Routing

VOCAB, N, WIDTH, DENSE_WIDTH, LAYERS = 96, 64, 32, 96, 3
HEADS, PLAIN, TURNING, VALUE, LATENT, RANK = 4, 64, 32, 96, 128, 48
ARCH = "deepseek2"


@dataclass
class Model:
    """One shape of file: `absorbed` has `attn_k_b` and `attn_v_b`, `short` a short row for queries."""

    absorbed: bool = True
    short: bool = True
    experts: int = 8
    dense: int = 1
    routing: Routing = field(default_factory=lambda: Routing(2))
    keys: dict = field(default_factory=dict)
    twin: dict = field(default_factory=dict)
    mtp: bool = False  # whether there is a head of multi-token prediction

    @property
    def blocks(self):
        """Layers, and the block of that head."""
        return LAYERS + self.mtp

    def tensors(self):
        """By the names of GGUF, without ".weight"."""
        rng = np.random.default_rng(7)

        def rows(*shape):
            return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

        def near_one(n):
            return (1 + 0.2 * rng.standard_normal(n)).astype(np.float32)

        made = {"token_embd": 8 * rows(VOCAB, N), "output_norm": near_one(N), "output": 8 * rows(VOCAB, N)}
        for i in range(self.blocks):
            block = {"attn_norm": near_one(N), "ffn_norm": near_one(N), "attn_kv_a_norm": near_one(LATENT)}
            block |= {"attn_kv_a_mqa": rows(LATENT + TURNING, N), "attn_output": rows(N, HEADS * VALUE)}
            if self.short:
                block |= {"attn_q_a": rows(RANK, N), "attn_q_a_norm": near_one(RANK)}
            block["attn_q_b" if self.short else "attn_q"] = 4 * rows(
                HEADS * (PLAIN + TURNING), RANK if self.short else N
            )
            block["attn_kv_b"] = rows(HEADS * (PLAIN + VALUE), LATENT)
            if i < self.dense:
                block |= {
                    "ffn_gate": rows(DENSE_WIDTH, N),
                    "ffn_up": rows(DENSE_WIDTH, N),
                    "ffn_down": rows(N, DENSE_WIDTH),
                }
            else:
                e = self.experts
                block |= {
                    "ffn_gate_inp": 2 * rows(e, N),
                    "ffn_gate_exps": rows(e, WIDTH, N),
                    "ffn_up_exps": rows(e, WIDTH, N),
                }
                block |= {"ffn_down_exps": rows(e, N, WIDTH), "ffn_gate_shexp": rows(2 * WIDTH, N)}
                block |= {"ffn_up_shexp": rows(2 * WIDTH, N), "ffn_down_shexp": rows(N, 2 * WIDTH)}
            if i == LAYERS:
                block |= {f"nextn.{name}": near_one(N) for name in ("enorm", "hnorm", "shared_head_norm")}
                block["nextn.eh_proj"] = rows(N, 2 * N)
            made |= {f"blk.{i}.{name}": value for name, value in block.items()}
        return made

    def expected(self, ids, rounded=True):
        """Logits by the twin, [tokens, vocab]; rounded: with caches of 16 bits."""
        return self.plain(rounded).logits(ids)

    def plain(self, rounded=True):
        """The twin."""
        frequencies = 10_000.0 ** (-np.arange(0, TURNING, 2) / TURNING)
        tensors = {name: value.astype(np.float64) for name, value in self.tensors().items()}
        options = {"frequencies": frequencies, "rounded": rounded} | self.twin
        return Twin(tensors, self.absorbed, HEADS, PLAIN, TURNING, VALUE, LATENT, self.dense, self.routing, **options)

    def write(self, path):
        """As a GGUF file of float32."""
        keys: dict[str, object] = {
            "block_count": self.blocks, "nextn_predict_layers": int(self.mtp),
            "context_length": 256, "embedding_length": N, "feed_forward_length": DENSE_WIDTH,
            "attention.head_count": HEADS, "attention.head_count_kv": 1 if self.absorbed else HEADS,
            "attention.layer_norm_rms_epsilon": self.twin.get("eps", 1e-6), "attention.kv_lora_rank": LATENT,
            "rope.freq_base": 10_000.0,
            "rope.dimension_count": TURNING, "expert_feed_forward_length": WIDTH, "expert_count": self.experts,
            "expert_used_count": self.routing.experts_per_token, "expert_shared_count": 2,
            "leading_dense_block_count": self.dense,
            "expert_weights_scale": self.routing.scale, "expert_weights_norm": self.routing.normalised,
            "expert_gating_func": 2 if self.routing.scores == "sigmoid" else 1,
        }  # fmt: skip
        widths: dict[str, object] = {"attention.key_length": PLAIN + TURNING, "attention.value_length": VALUE}
        if self.absorbed:
            widths = {f"{key}_mla": width for key, width in widths.items()}
            widths |= {"attention.key_length": LATENT + TURNING, "attention.value_length": LATENT}
        if self.short:
            keys["attention.q_lora_rank"] = RANK
        if self.routing.groups > 1:
            keys |= {"expert_group_count": self.routing.groups, "expert_group_used_count": self.routing.groups_used}
        keys = {f"{ARCH}.{key}": value for key, value in (keys | widths | self.keys).items()}
        tiny = Tiny({"general.architecture": ARCH} | keys, {}, {})
        for name, value in self.stored().items():
            tiny.put(name, "F32", f32(value), value.shape[-1])
        return tiny.write(path)

    def stored(self):
        """The tensors of the file."""
        tensors = {f"{name}.weight": value for name, value in self.tensors().items()}
        if self.routing.bias is not None:
            tensors |= {f"blk.{i}.exp_probs_b.bias": self.routing.bias for i in range(self.dense, self.blocks)}
        for i in range(self.blocks if self.absorbed else 0):
            both = tensors.pop(f"blk.{i}.attn_kv_b.weight").reshape(HEADS, PLAIN + VALUE, LATENT)
            tensors[f"blk.{i}.attn_k_b.weight"] = both[:, :PLAIN].swapaxes(1, 2)
            tensors[f"blk.{i}.attn_v_b.weight"] = both[:, PLAIN:]
        return tensors


def biases(count):
    return (np.random.default_rng(8).standard_normal(count) / 4).astype(np.float32)


YARN = {
    "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64,
    "rope.scaling.yarn_beta_fast": 32.0, "rope.scaling.yarn_beta_slow": 1.0,
}  # fmt: skip


def yarn_frequencies():
    """YaRN's frequencies by the paper (arXiv 2309.00071)."""
    frequencies = 10_000.0 ** (-np.arange(0, TURNING, 2) / TURNING)
    low, high = (TURNING * np.log(64 / (r * 2 * np.pi)) / (2 * np.log(10_000)) for r in (32, 1))
    low, high = max(np.floor(low), 0), min(np.ceil(high), TURNING - 1)
    ramp = np.clip((np.arange(TURNING // 2) - low) / (high - low), 0, 1)
    return frequencies / 4 * ramp + frequencies * (1 - ramp)


V3 = Routing(3, "sigmoid", True, 2.5, biases(16), groups=4, groups_used=2, group_best=2)
MODELS = {
    "V2-Lite": Model(short=False, routing=Routing(2, normalised=False)),
    "V2": Model(experts=16, routing=Routing(3, normalised=False, scale=16.0, groups=4, groups_used=2)),
    "V3": Model(experts=16, routing=V3),
    "GLM-4.7-Flash": Model(routing=Routing(2, "sigmoid", True, 1.8, biases(8)), twin={"eps": 1e-5}),
    "no dense layer": Model(dense=0),
    "YaRN on scores": Model(
        keys=YARN | {"rope.scaling.yarn_log_multiplier": 0.0707},
        twin={"frequencies": yarn_frequencies(), "scale": (1 + 0.0707 * np.log(4)) ** 2},
    ),
    "YaRN on queries and keys": Model(
        keys=YARN, twin={"frequencies": yarn_frequencies(), "attention_factor": 1 + 0.1 * np.log(4)}
    ),
}
