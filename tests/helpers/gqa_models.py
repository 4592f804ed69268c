"""Tiny random models of grouped-query attention and experts, one a family, with its oddities: files, and what the twin says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from reference.gqa_moe import twin_of
from tiny_model import Tiny, f32

VOCAB, N, WIDTH, DENSE_WIDTH = 96, 64, 32, 96
KEYS = {
    "context_length": 256, "embedding_length": N, "feed_forward_length": DENSE_WIDTH, "attention.head_count": 4,
    "attention.head_count_kv": 2, "attention.key_length": 32, "attention.value_length": 32, "rope.freq_base": 10_000.0,
    "attention.layer_norm_rms_epsilon": 1e-6, "expert_count": 8, "expert_used_count": 3, "expert_feed_forward_length": WIDTH,
}  # fmt: skip
SIGMOID = {"expert_gating_func": 2, "expert_weights_norm": True}
DEEPSEEK = SIGMOID | {"expert_weights_scale": 2.5, "leading_dense_block_count": 1, "expert_shared_count": 2}


@dataclass(frozen=True)
class Model:
    """A family's tiny model: its keys beside KEYS, and which tensors its layers have."""

    arch: str
    keys: dict
    layers: int = 3
    norms: str = "head"  # "row" or ""
    shared: int = 0  # width of the shared expert
    bias: bool = True  # of the router's scores
    fused: bool = False  # queries, keys and values in one tensor
    tied: bool = False
    post_norms: bool = False
    gate: bool = False

    def is_dense(self, i):
        step = self.keys.get("interleave_moe_layer_step", 1)
        return i < self.keys.get("leading_dense_block_count", 0) or (i + 1) % step > 0

    def all_keys(self):
        """As in a file."""
        mine = KEYS | {"block_count": self.layers} | self.keys
        return {"general.architecture": self.arch} | {f"{self.arch}.{key}": value for key, value in mine.items()}

    def tensors(self):
        """float32, by the names of GGUF."""
        rng = np.random.default_rng(7)

        def rows(*shape):
            return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

        def near_one(n):
            return (1 + 0.2 * rng.standard_normal(n)).astype(np.float32)

        made = {"token_embd.weight": (1 if self.tied else 8) * rows(VOCAB, N), "output_norm.weight": near_one(N)}
        if not self.tied:
            made["output.weight"] = 8 * rows(VOCAB, N)
        for i in range(self.layers):
            block = self._attention(rows, near_one) | self._feed_forward(i, rows, rng)
            block |= {"attn_norm.weight": near_one(N), "ffn_norm.weight": near_one(N)}
            if self.post_norms:
                block |= {"post_attention_norm.weight": near_one(N), "post_ffw_norm.weight": near_one(N)}
            made |= {f"blk.{i}.{name}": value for name, value in block.items()}
        return made

    def _attention(self, rows, near_one):
        head = (KEYS | self.keys)["attention.key_length"]
        queries, keys = (head * (KEYS | self.keys)[f"attention.head_count{kind}"] for kind in ("", "_kv"))
        loud = 2 if self.norms else 1
        q, k, v = loud * rows(queries, N), loud * rows(keys, N), rows(keys, N)
        made = {"attn_q.weight": q, "attn_k.weight": k, "attn_v.weight": v, "attn_output.weight": rows(N, queries)}
        if self.fused:
            parts = (made.pop(f"attn_{part}.weight") for part in "qkv")
            made["attn_qkv.weight"] = np.concatenate([*parts])
        if self.norms:
            spans = (queries, keys) if self.norms == "row" else (head, head)
            made |= {f"attn_{part}_norm.weight": near_one(n) for part, n in zip("qk", spans, strict=True)}
        return made | ({"attn_gate.weight": rows(queries, N)} if self.gate else {})

    def _feed_forward(self, i, rows, rng):
        if self.is_dense(i):
            return _network(rows, "", DENSE_WIDTH)
        count = (KEYS | self.keys)["expert_count"]
        made = {"ffn_gate_inp.weight": 2 * rows(count, N)} | _network(rows, "_exps", WIDTH, count)
        made |= _network(rows, "_shexp", self.shared) if self.shared else {}
        if self.bias:
            made["exp_probs_b.bias"] = (rng.standard_normal(count) / 8).astype(np.float32)
        return made

    def expected(self, ids, rounded):
        """Logits by the twin, [tokens, vocab]; rounded: with caches of 16 bits."""
        tensors = {name: value.astype(np.float64) for name, value in self.tensors().items()}
        return twin_of(tensors, self.all_keys(), rounded=rounded).logits(ids)

    def write(self, path):
        """As a GGUF file of float32."""
        keys = {key: np.array(v) if isinstance(v, list) else v for key, v in self.all_keys().items()}
        tiny = Tiny(keys, {}, {})
        for name, value in self.tensors().items():
            tiny.put(name, "F32", f32(value), value.shape[-1])
        return tiny.write(path)


def _network(rows, suffix, width, *count):
    shapes = {"gate": (width, N), "up": (width, N), "down": (N, width)}
    return {f"ffn_{part}{suffix}.weight": rows(*count, *shape) for part, shape in shapes.items()}


def _every():
    groups = {"expert_count": 16, "expert_group_count": 4, "expert_group_used_count": 2}
    ernie = {
        "leading_dense_block_count": 1,
        "interleave_moe_layer_step": 2,
        "expert_shared_feed_forward_length": 2 * WIDTH,
    }
    trinity = SIGMOID | {"expert_weights_scale": 2.826, "leading_dense_block_count": 1, "expert_shared_count": 1}
    exaone = DEEPSEEK | {"attention.sliding_window": 16, "attention.sliding_window_pattern": [True, False, True]}
    yield Model("qwen3vlmoe", {"rope.dimension_sections": [6, 5, 5, 0], "n_deepstack_layers": 1}, bias=False)
    yield Model("bailingmoe2", DEEPSEEK | groups | {"rope.dimension_count": 16}, shared=2 * WIDTH, fused=True)
    yield Model("ernie4_5-moe", ernie, layers=4, norms="", shared=2 * WIDTH, tied=True)
    yield Model("hunyuan-moe", {"expert_shared_feed_forward_length": WIDTH}, shared=WIDTH, bias=False, tied=True)
    yield Model("dots1", DEEPSEEK | {"attention.head_count_kv": 4}, shared=2 * WIDTH)
    yield Model("minimax-m2", SIGMOID | {"rope.dimension_count": 16}, norms="row")
    yield Model("afmoe", trinity | {"attention.sliding_window": 16}, layers=5, shared=WIDTH, post_norms=True, gate=True)
    yield Model("exaone-moe", exaone | {"expert_shared_feed_forward_length": WIDTH}, shared=WIDTH)


MODELS = {model.arch: model for model in _every()}
