"""The plain twin of qcli.layers.mtp, whose layer has gated attention and a dense feed-forward network, in float64."""

from __future__ import annotations

import numpy as np

from qcli.doctor.twins.attention import attend, heads
from qcli.doctor.twins.functions import silu
from qcli.doctor.twins.norm import rms_norm
from qcli.doctor.twins.rope import angles


class Head:
    """Weights and numbers of a model in memory (Tiny), BF16 and F32; the block behind the layers."""

    def __init__(self, model, arch):
        self.model, self.arch = model, arch
        self.block = f"blk.{model.keys[f'{arch}.block_count'] - 1}"
        self.eps = model.keys[f"{arch}.attention.layer_norm_rms_epsilon"]

    def weight(self, name):
        kind, data = self.model.tensors[f"{name}.weight"]
        if kind == "F32":
            return np.ascontiguousarray(data).view(np.float32).astype(np.float64)
        return (np.ascontiguousarray(data).view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)

    def norm(self, x, name):
        return rms_norm(x, self.weight(name), self.eps)

    def own(self, h, ids, keys, values):
        """Rows h [tokens, n] after a norm, with the ids after them -> the head's rows after its norm; keys, values grow."""
        block, number = self.block, lambda key: self.model.keys[f"{self.arch}.{key}"]
        embedded = self.weight("token_embd")[ids]
        pair = np.hstack([self.norm(embedded, f"{block}.nextn.enorm"), self.norm(h, f"{block}.nextn.hnorm")])
        x = pair @ self.weight(f"{block}.nextn.eh_proj").T
        h = self.norm(x, f"{block}.attn_norm")
        first, count, width = len(keys), len(ids), number("attention.key_length")
        turned = angles(np.arange(first, first + count), number("rope.dimension_count"), number("rope.freq_base"))
        q, k, v = ((h @ self.weight(f"{block}.attn_{part}").T).reshape(count, -1, width) for part in "qkv")
        q, gates = q[:, ::2], q[:, 1::2]  # each head: a query, then its gate
        keys += [*heads(k, self.weight(f"{block}.attn_k_norm"), self.eps, turned)]
        values += [*v]
        queries = heads(q, self.weight(f"{block}.attn_q_norm"), self.eps, turned)
        caches = (np.array(rows).swapaxes(0, 1) for rows in (keys, values))
        x = x + attend(queries, *caches, gates, first) @ self.weight(f"{block}.attn_output").T
        h = self.norm(x, f"{block}.post_attention_norm")
        gate, up, down = (self.weight(f"{block}.ffn_{part}") for part in ("gate", "up", "down"))
        x = x + (silu(h @ gate.T) * (h @ up.T)) @ down.T
        return self.norm(x, f"{block}.nextn.shared_head_norm")

    def guesses(self, rows, ids, count):
        """The `count` ids that are expected after the last of ids [tokens], each the best after those before it.

        rows [tokens, n]: of the tokens before these, before the model's head.
        """
        keys: list[np.ndarray] = []
        values: list[np.ndarray] = []
        found: list[int] = []
        own = self.own(self.norm(rows, "output_norm"), ids, keys, values)[-1:]
        while True:
            found.append(int((own @ self.weight("output").T).argmax()))
            if len(found) == count:
                return found
            own = self.own(own, found[-1:], keys, values)
