"""Plain decoders of grouped-query attention and routed experts, in float64: what their definitions say, one line each.

Only what caches hold is rounded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcli.doctor.twins.attention import attend, heads
from qcli.doctor.twins.functions import sigmoid, silu
from qcli.doctor.twins.kv_cache import stored_whole
from qcli.doctor.twins.norm import rms_norm
from qcli.doctor.twins.rope import angles
from qcli.doctor.twins.router import choose
from quant.kernels.router import Routing


@dataclass(frozen=True)
class Kind:
    """What tells one family from another."""

    normed_last: bool = False  # queries and keys, after they are rotated
    interleaved: bool = False
    rotated_without_window: bool = True  # whether layers that see all are rotated
    scaled_embedding: bool = False


KINDS = {
    "qwen3vlmoe": Kind(),
    "bailingmoe2": Kind(),
    "ernie4_5-moe": Kind(interleaved=True),
    "hunyuan-moe": Kind(normed_last=True),
    "dots1": Kind(),
    "minimax-m2": Kind(),
    "afmoe": Kind(rotated_without_window=False, scaled_embedding=True),
    "exaone-moe": Kind(rotated_without_window=False),
}


@dataclass(frozen=True)
class Twin:
    """A model by the names of GGUF: float64 tensors, and the keys of its architecture without their prefix."""

    kind: Kind
    tensors: dict
    heads: int
    kv_heads: int
    head_dim: int
    rotary: int
    base: float
    eps: float
    routing: Routing
    windows: tuple  # of each layer; 0: it sees all
    rounded: bool = True  # whether caches are of 16 bits

    def logits(self, ids):
        """int [tokens] -> [tokens, vocab]."""
        t, x = self.tensors, self.tensors["token_embd.weight"][ids]
        x = x * np.sqrt(x.shape[-1]) if self.kind.scaled_embedding else x
        for i, window in enumerate(self.windows):
            w = {name.removeprefix(f"blk.{i}."): v for name, v in t.items() if name.startswith(f"blk.{i}.")}
            x = x + self.after(w, "attention", self.attention(w, self.norm(w, "attn_norm", x), window))
            x = x + self.after(w, "ffw", self.feed_forward(w, self.norm(w, "ffn_norm", x)))
        return self.norm(t, "output_norm", x) @ t.get("output.weight", t["token_embd.weight"]).T

    def norm(self, w, name, x):
        return rms_norm(x, w[f"{name}.weight"], self.eps)

    def after(self, w, part, x):
        """What a sublayer gives, normed where the model has a norm for that."""
        return self.norm(w, f"post_{part}_norm", x) if f"post_{part}_norm.weight" in w else x

    def attention(self, w, h, window):
        q, k, v = self.projections(w, h)
        turned = window or self.kind.rotated_without_window
        q, k = (self.prepared(x, w.get(f"attn_{part}_norm.weight"), turned) for part, x in (("q", q), ("k", k)))
        k, v = (self.kept(x).swapaxes(0, 1) for x in (k, v))
        out = attend(q, k, v, None, 0, window=window or None)
        if "attn_gate.weight" in w:
            out = out * sigmoid(h @ w["attn_gate.weight"].T)
        return out @ w["attn_output.weight"].T

    def kept(self, x):
        """As a cache holds it."""
        if not self.rounded:
            return x
        return stored_whole(x.astype(np.float32))

    def projections(self, w, h):
        """q, k, v [tokens, heads, head_dim]."""
        widths = [self.heads * self.head_dim, self.kv_heads * self.head_dim]
        whole = (
            w["attn_qkv.weight"] if "attn_qkv.weight" in w else np.concatenate([w[f"attn_{c}.weight"] for c in "qkv"])
        )
        return [
            x.reshape(len(h), -1, self.head_dim)
            for x in np.split(h @ whole.T, np.cumsum([widths[0], widths[1]]), axis=1)
        ]

    def prepared(self, x, norm, turned):
        """Queries or keys, normed and rotated."""
        at = angles(range(len(x)), self.rotary, self.base) if turned else None
        return heads(x, norm, self.eps, at, self.kind.interleaved, self.kind.normed_last)

    def feed_forward(self, w, h):
        if "ffn_gate_inp.weight" not in w:
            return gated(w, "ffn_{}.weight", h)
        total = gated(w, "ffn_{}_shexp.weight", h) if "ffn_gate_shexp.weight" in w else np.zeros_like(h)
        bias = w.get("exp_probs_b.bias")
        routing = Routing(**vars(self.routing) | {"bias": None if bias is None else bias.reshape(-1)})
        for row, x, logits in zip(total, h, h @ w["ffn_gate_inp.weight"].T, strict=True):
            for expert, weight in zip(*choose(logits, routing), strict=True):
                row += weight * gated(w, "ffn_{}_exps.weight", x, expert)
        return total


def gated(w, name, h, expert=...):
    gate, up, down = (w[name.format(part)][expert] for part in ("gate", "up", "down"))
    return (silu(h @ gate.T) * (h @ up.T)) @ down.T


def twin_of(tensors, keys, **options):
    """The twin of float64 tensors and of a file's keys."""
    arch = keys["general.architecture"]
    k = {key.removeprefix(f"{arch}."): value for key, value in keys.items()}
    layers, window = k["block_count"] - k.get("nextn_predict_layers", 0), k.get("attention.sliding_window", 0)
    pattern = k.get("attention.sliding_window_pattern", [(i + 1) % 4 for i in range(layers)])
    head_dim = k.get("attention.key_length", k["embedding_length"] // k["attention.head_count"])
    by_sigmoid = k.get("expert_gating_func", 1) == 2
    groups = k.get("expert_group_count", 1)
    return Twin(
        KINDS[arch],
        tensors,
        heads=k["attention.head_count"],
        kv_heads=k["attention.head_count_kv"],
        head_dim=head_dim,
        rotary=k.get("rope.dimension_count", head_dim),
        base=k["rope.freq_base"],
        eps=k["attention.layer_norm_rms_epsilon"],
        routing=Routing(
            experts_per_token=k["expert_used_count"],
            scores="sigmoid" if by_sigmoid else "softmax",
            scale=k.get("expert_weights_scale", 1.0),
            groups=groups,
            groups_used=k.get("expert_group_used_count", 1),
            group_best=2 if groups > 1 else 1,
        ),
        windows=tuple(window if local else 0 for local in pattern),
        **options,
    )
