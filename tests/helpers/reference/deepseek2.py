"""A plain DeepSeek-V2/V3 (arXiv 2405.04434, 2412.19437): every head with keys and values of its own, in float64.

What caches of 16 bits hold is rounded: keys and values, or, for files whose heads share them, the compressed rows. The
rotary part of a key is rounded by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcli.doctor.twins.functions import silu, softmax
from qcli.doctor.twins.kv_cache import stored_whole
from qcli.doctor.twins.norm import rms_norm
from qcli.doctor.twins.router import choose


@dataclass
class Twin:
    """A model by the names of GGUF; `tensors` float64, without ".weight"; absorbed: heads share keys and values."""

    tensors: dict
    absorbed: bool
    heads: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    kv_lora_rank: int
    dense: int
    routing: object
    frequencies: np.ndarray
    attention_factor: float = 1.0
    scale: float = 1.0
    eps: float = 1e-6
    rounded: bool = True  # whether caches are of 16 bits

    def kept(self, x):
        """As a cache holds it."""
        return stored_whole(x.astype(np.float32)) if self.rounded else x

    @property
    def layers(self):
        """How many there are, without the block of multi-token prediction."""
        blocks = {int(name.split(".")[1]) for name in self.tensors if name.startswith("blk.")}
        return len(blocks) - any(".nextn." in name for name in self.tensors)

    def logits(self, ids):
        """int [tokens] -> [tokens, vocab]."""
        return self.normed_rows(ids) @ self.tensors["output"].T

    def normed_rows(self, ids):
        """int [tokens] -> what the head is multiplied with, [tokens, n]."""
        x = self.tensors["token_embd"][ids]
        for i in range(self.layers):
            x = self.layer(i, x)
        return rms_norm(x, self.tensors["output_norm"], self.eps)

    def mtp_logits(self, ids):
        """int [tokens] -> logits of the token after the next, given the next one, [tokens - 1, vocab]."""
        t, i = self.tensors, self.layers
        enorm, hnorm, last = (t[f"blk.{i}.nextn.{name}"] for name in ("enorm", "hnorm", "shared_head_norm"))
        embedded, h = t["token_embd"][ids[1:]], self.normed_rows(ids)[:-1]
        pair = np.hstack([rms_norm(embedded, enorm, self.eps), rms_norm(h, hnorm, self.eps)])
        x = self.layer(i, pair @ t[f"blk.{i}.nextn.eh_proj"].T)
        return rms_norm(x, last, self.eps) @ t["output"].T

    def layer(self, i, x):
        w = {name.removeprefix(f"blk.{i}."): v for name, v in self.tensors.items() if name.startswith(f"blk.{i}.")}
        x = x + self.attention(w, rms_norm(x, w["attn_norm"], self.eps))
        h = rms_norm(x, w["ffn_norm"], self.eps)
        return x + (self.gated(w, "ffn_{}", h) if i < self.dense else self.experts(w, h))

    def attention(self, w, h):
        """Each token attends to itself and all before it."""
        count = len(h)
        short = rms_norm(h @ w["attn_q_a"].T, w["attn_q_a_norm"], 1e-6) if "attn_q_a" in w else h
        q = (short @ w["attn_q_b" if "attn_q_a" in w else "attn_q"].T).reshape(count, self.heads, -1)
        both = h @ w["attn_kv_a_mqa"].T
        latent = rms_norm(both[:, : self.kv_lora_rank], w["attn_kv_a_norm"], 1e-6)
        latent = self.kept(latent) if self.absorbed else latent
        made = (latent @ w["attn_kv_b"].T).reshape(count, self.heads, self.qk_nope_head_dim + self.v_head_dim)
        rotated = np.repeat(self.kept(self.rotate(both[:, None, self.kv_lora_rank :])), self.heads, axis=1)
        made_keys, values = made[..., : self.qk_nope_head_dim], made[..., self.qk_nope_head_dim :]
        if not self.absorbed:
            made_keys, values = self.kept(made_keys), self.kept(values)
        keys = np.concatenate([made_keys, rotated], axis=-1)
        queries = np.concatenate(
            [q[..., : self.qk_nope_head_dim], self.rotate(q[..., self.qk_nope_head_dim :])], axis=-1
        )
        scores = (
            np.einsum("thw,phw->htp", queries, keys)
            * self.scale
            / np.sqrt(self.qk_nope_head_dim + self.qk_rope_head_dim)
        )
        scores[:, np.triu(np.ones((count, count), bool), 1)] = -np.inf
        out = np.einsum("htp,phv->thv", softmax(scores), values)
        return out.reshape(count, -1) @ w["attn_output"].T

    def rotate(self, x):
        """Interleaved pairs: values 2i and 2i + 1."""
        angles = np.outer(np.arange(len(x)), self.frequencies)[:, None]
        rotated = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles) * self.attention_factor
        return np.stack([rotated.real, rotated.imag], axis=-1).reshape(x.shape)

    def gated(self, w, name, h, expert=...):
        gate, up, down = (w[name.format(part)][expert] for part in ("gate", "up", "down"))
        return (silu(h @ gate.T) * (h @ up.T)) @ down.T

    def experts(self, w, h):
        total = self.gated(w, "ffn_{}_shexp", h)
        for row, x, logits in zip(total, h, h @ w["ffn_gate_inp"].T, strict=True):
            for expert, weight in zip(*choose(logits, self.routing), strict=True):
                row += weight * self.gated(w, "ffn_{}_exps", x, expert)
        return total
