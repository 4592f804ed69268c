"""A plain Qwen4-Exp, token by token where that is simplest, in float64; read from Transformers 5.23's description of it.

Only what caches hold is rounded to float16.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcli.doctor.twins import ngrams
from qcli.doctor.twins.functions import sigmoid, silu, softmax, softplus
from qcli.doctor.twins.hyper_connections import add_to_streams, mean_streams
from qcli.doctor.twins.kv_cache import stored
from qcli.doctor.twins.norm import rms_norm
from qcli.doctor.twins.rope import rotate
from qcli.doctor.twins.router import choose


def kept(x):
    """As a cache of float16 holds it."""
    return stored(np.asarray(x, np.float32), False)


@dataclass
class Twin:
    """A model by the names of GGUF; `tensors` float64, without ".weight"; `c`: its numbers."""

    tensors: dict
    c: object
    routing: object

    def logits(self, ids):
        """int [tokens] -> [tokens, vocab]."""
        t, c = self.tensors, self.c
        x = np.repeat(t["token_embd"][ids][:, None], c.streams, axis=1)
        for i in range(c.layers):
            w = {name.removeprefix(f"blk.{i}."): v for name, v in t.items() if name.startswith(f"blk.{i}.")}
            if i == c.ngram_layer:
                x = x + self.ngrams(w, np.asarray(ids), x)
            mixer = self.attention if (i + 1) % c.interval == 0 else self.linear_attention
            x = self.part(w, "hc_attn", x, mixer)
            x = self.part(w, "hc_ffn", x, self.experts)
        mixed, _ = self.mix(t, "output_hc", x)
        return mixed @ t["output"].T

    def part(self, w, name, x, layer):
        mixed, normed = self.mix(w, name, x)
        return add_to_streams(x, layer(w, mixed), normed @ w[f"{name}_inject"].T / self.c.streams)

    def mix(self, w, name, x):
        """The mean over gated streams [tokens, n], and the normed streams [tokens, streams * n]."""
        normed = rms_norm(x, w[f"{name}_norm"].reshape(x.shape[1:]), self.c.eps)
        flat = normed.reshape(len(x), -1)
        gate = silu(flat @ w[f"{name}_down"].T / self.c.streams) @ w[f"{name}_up"].T
        return mean_streams(normed, gate.reshape(x.shape)), flat

    def ngrams(self, w, ids, x):
        """What n-grams add to the streams."""
        c = self.c
        how = c.multipliers, c.sizes, c.offsets, c.end
        rows = np.array([ngrams.rows_of(ids, t, *how) for t in range(len(ids))])
        found = self.tensors["per_layer_token_embd"][rows].reshape(len(ids), -1)
        norms = [w[f"ple_norm_{part}"].reshape(c.streams, -1) for part in ("key", "query", "conv")]
        given = ngrams.gated(x, (found @ w["ple_key"].T).reshape(x.shape), found @ w["ple_value"].T, norms, c.eps)
        return ngrams.convolved(given, norms[2], c.eps, w["ple_conv1d"].T, len(c.multipliers))

    def linear_attention(self, w, h):
        """Gated DeltaNet whose output gate is a sigmoid; value head j goes with key head j % key heads."""
        c, count = self.c, len(h)
        mixed = h @ w["attn_qkv"].T
        taps = w["ssm_conv1d"].shape[1]
        padded = np.vstack([np.zeros((taps - 1, mixed.shape[1])), mixed])
        mixed = silu(sum(w["ssm_conv1d"][:, k] * padded[k : k + count] for k in range(taps)))
        q, k, v = np.split(mixed, [c.key_heads * c.width, 2 * c.key_heads * c.width], axis=1)
        q, k, v = (part.reshape(count, -1, c.width) for part in (q, k, v))
        q, k = (part / np.sqrt((part * part).sum(-1, keepdims=True) + 1e-6) for part in (q, k))
        beta, alpha = sigmoid(h @ w["ssm_beta"].T), h @ w["ssm_alpha"].T
        decay = np.exp(w["ssm_a"] * softplus(alpha + w["ssm_dt.bias"]))
        out = np.empty_like(v)
        for j in range(v.shape[1]):
            state, key = np.zeros((c.width, c.width)), j % c.key_heads
            for t in range(count):
                state = decay[t, j] * state
                state = state + np.outer(k[t, key], beta[t, j] * (v[t, j] - state.T @ k[t, key]))
                out[t, j] = state.T @ q[t, key] / np.sqrt(c.width)
        z = (h @ w["attn_gate"].T).reshape(v.shape)
        return (rms_norm(out, w["ssm_norm"], c.eps) * sigmoid(z)).reshape(count, -1) @ w["ssm_out"].T

    def attention(self, w, h):
        """GatedExperts, to what the indexer lets each token see."""
        c, count = self.c, len(h)
        angles = np.outer(np.arange(count), c.frequencies)
        q, gate = np.split((h @ w["attn_q"].T).reshape(count, c.heads, -1), 2, axis=-1)
        k, v = ((h @ w[f"attn_{part}"].T).reshape(count, c.keys, -1) for part in "kv")
        q = rotate(rms_norm(q, w["attn_q_norm"], c.eps), angles)
        k, v = kept(rotate(rms_norm(k, w["attn_k_norm"], c.eps), angles)), kept(v)
        k, v = (np.repeat(part, c.heads // c.keys, axis=1) for part in (k, v))
        scores = np.einsum("thw,phw->htp", q, k) / np.sqrt(q.shape[-1])
        scores[:, ~self.block_mask(w, h, angles)] = -np.inf
        out = np.einsum("htp,phw->thw", softmax(scores), v) * sigmoid(gate)
        return out.reshape(count, -1) @ w["attn_output"].T

    def block_mask(self, w, h, angles):
        """bool [tokens, positions]."""
        c, count = self.c, len(h)
        q = (h @ w["indexer.q_proj"].T).reshape(count, -1, c.index_width)
        q = rotate(rms_norm(q, w["indexer.q_norm"], c.eps), angles)
        raw = h @ w["indexer.k_proj"].T
        blocks = raw[: count // c.block * c.block].reshape(-1, c.block, c.index_width).mean(axis=1)
        keys = rotate(rms_norm(blocks, w["indexer.k_norm"], c.eps)[:, None], angles[:: c.block][: len(blocks)])[:, 0]
        scores = np.maximum(q @ kept(keys).T, 0).sum(axis=1)
        seen = np.zeros((count, count), bool)
        for t in range(count):
            whole = (t + 1) // c.block
            for b in np.argsort(-scores[t, :whole], kind="stable")[: c.budget]:
                seen[t, b * c.block : (b + 1) * c.block] = True
            seen[t, whole * c.block : t + 1] = True
        return seen

    def experts(self, w, h):
        shared = self.gated(w, "ffn_{}_shexp", h) * sigmoid(h @ w["ffn_gate_inp_shexp"])[:, None]
        for row, x, logits in zip(shared, h, h @ w["ffn_gate_inp"].T, strict=True):
            for expert, weight in zip(*choose(logits, self.routing), strict=True):
                row += weight * self.gated(w, "ffn_{}_exps", x, expert)
        return shared

    def gated(self, w, name, h, expert=...):
        gate, up, down = (w[name.format(part)][expert] for part in ("gate", "up", "down"))
        return (silu(h @ gate.T) * (h @ up.T)) @ down.T
