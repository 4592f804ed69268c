"""Gemma 4 (Google DeepMind): layers within a window and without, experts beside a dense network, per-layer embeddings.

Layers without a window have heads of their own size and count, whose values are the keys as they are projected, and rotate
but the first of their pairs. Late layers may attend to the keys and values of an earlier one. Where there are experts, the
router has a norm of its own, and both networks are normed before they are added. The small models (E2B, E4B) add to each
layer an embedding of the token that is the layer's own. Each layer multiplies the whole residual stream in the end. Text
only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Attention, Decoder, Norm, add_sublayer
from qcli.layers.feed_forward import MLP, MoE, read_routing
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.rotary import FACTORS, read_rope
from qcli.layers.state import State
from qcli.layers.weights import linear, matrix, vector
from quant.kernels.attention import Heads
from quant.kernels.columns import quantize
from quant.kernels.embed import embed
from quant.kernels.gate_columns import gate_columns
from quant.kernels.matmul import add_matmul, matmul
from quant.kernels.norm import add_rms_norm
from quant.kernels.rope import Rope, frequencies
from quant.plan import Activation, Plan
from quant.weights import Matrix

VERIFIED: Final = (
    "logits within 1.3e-4 (26B-A4B's shape), 1.8e-4 (dense) and 4e-4 (E) of float32 Transformers (tiny random weights), "
    "greedy text exact"
)
_SCALE = "layer_output_scale.weight"
_PER_LAYER = "per-layer inputs"  # float32 [tokens, layers * width], for the layers of a replay


@dataclass(frozen=True)
class AttentionKind:
    """What layers within the window have in common, or those without; projects_values: or values are keys as projected."""

    head_dim: int
    rope: Rope
    window: int
    projects_values: bool

    @classmethod
    def read(cls, hparams: Hyperparameters, layers: list[int], *, local: bool) -> AttentionKind:
        """Of these layers, within the window (local), whose keys end in _swa, or not."""
        end, tensors = "_swa" if local else "", hparams.file.tensors
        width, values = (hparams.size(f"attention.{part}_length{end}") for part in ("key", "value"))
        if width != values:
            hparams.wrong(f"keys of {width} and values of {values}")
        if not local:
            hparams.file.tensor(FACTORS)  # without it all pairs would turn
            return cls(width, read_rope(hparams), 0, any(f"blk.{i}.attn_v.weight" in tensors for i in layers))
        dimensions = hparams.size("rope.dimension_count_swa", width)
        if dimensions > width or dimensions % 2:
            hparams.wrong(f"heads of {width} with {dimensions} rotary dimensions")
        base = hparams.number("rope.freq_base_swa", 1, 1e30, 10_000.0)
        return cls(width, Rope(frequencies(dimensions, base)), hparams.size("attention.sliding_window"), True)


def read_attention(
    hparams: Hyperparameters, i: int, state: State, kind: AttentionKind, owner: Attention | None
) -> Attention:
    """Layer i of a file; owner: the layer whose keys and values it attends to, if they are not its own."""
    file, block, n, width = hparams.file, f"blk.{i}", hparams.hidden_size, kind.head_dim
    queries, keys = hparams.num_attention_heads[i], hparams.num_key_value_heads[i]
    if not queries or not keys:
        hparams.wrong(f"layer {i} has {queries} query and {keys} key-value heads")
    q_norm = vector(file, f"{block}.attn_q_norm.weight", width)
    attn_q = linear(file, f"{block}.attn_q", queries * width, n)
    attn_output = linear(file, f"{block}.attn_output", n, queries * width)
    if owner:
        for name in {f"{block}.attn_{part}.weight" for part in ("k", "k_norm", "v")} & file.tensors.keys():
            file.tensor(name)  # some files keep them, and nobody reads them
        shared = owner.heads
        if (shared.query_heads, shared.key_value_heads) != (queries, keys) or not shared.norms:
            hparams.wrong(f"layer {i} has other heads than the layer whose keys it shares")
        return Attention(
            attn_q, None, None, attn_output, replace(shared, norms=(q_norm, shared.norms[1])), kind.rope, 1.0
        )
    heads = Heads(
        query_heads=queries,
        key_value_heads=keys,
        head_dim=width,
        value_dim=width,
        k_cache=state.cache(keys, width, kind.window, fine=True),
        v_cache=state.cache(keys, width, kind.window, fine=True),
        norms=(q_norm, vector(file, f"{block}.attn_k_norm.weight", width)),
        v_norm=np.ones(width, np.float32),
        eps=hparams.rms_norm_eps,
        window=kind.window,
        scale=1.0,
    )
    attn_k = linear(file, f"{block}.attn_k", keys * width, n)
    attn_v = linear(file, f"{block}.attn_v", keys * width, n) if kind.projects_values else None
    return Attention(attn_q, attn_k, attn_v, attn_output, heads, kind.rope, 1.0)


@dataclass(frozen=True)
class Experts:
    """The routed experts of a layer with their norms, and that of the dense network's result beside them."""

    norm: Norm
    router_norm: Norm
    moe: MoE
    post_norm: Norm
    post_dense_norm: Norm

    @classmethod
    def read(cls, hparams: Hyperparameters, i: int, state: State) -> Experts:
        """Layer i of a file."""
        block, n = f"blk.{i}", hparams.hidden_size
        scale = vector(hparams.file, f"{block}.ffn_gate_inp.scale", n) * np.float32(n**-0.5)
        hparams.file.tensor(f"{block}.ffn_down_exps.scale")  # which other architectures may lack
        return cls(
            norm=Norm.read(hparams, f"{block}.pre_ffw_norm_2"),
            router_norm=Norm(scale, hparams.rms_norm_eps),
            moe=MoE.read(hparams, i, state, read_routing(hparams, normalised=True), activation="gelu"),
            post_norm=Norm.read(hparams, f"{block}.post_ffw_norm_2"),
            post_dense_norm=Norm.read(hparams, f"{block}.post_ffw_norm_1"),
        )

    def trace(self, plan: Plan, x: Activation, both: Activation) -> None:
        """both += norm of what the experts make of x, the residual stream, both [tokens, n]."""
        h, routed_by = plan.activation("h", x.columns), plan.activation("router input", x.columns)
        self.norm.trace(plan, x, h)
        self.router_norm.trace(plan, x, routed_by)
        added = plan.activation("added", x.columns)  # zero before and after
        self.moe.trace(plan, h, added, routed_by)
        self.post_norm.add(plan, added, both)


@dataclass(frozen=True)
class LayerEmbedding:
    """What a token's embedding for this layer, the columns from `first` on of those of all layers, adds to the stream."""

    inp_gate: Matrix
    proj: Matrix
    post_norm: Norm
    first: int

    @classmethod
    def read(cls, hparams: Hyperparameters, i: int, width: int) -> LayerEmbedding:
        """Layer i of a file, its embeddings `width` wide."""
        file, block, n = hparams.file, f"blk.{i}", hparams.hidden_size
        gate, proj = linear(file, f"{block}.inp_gate", width, n), linear(file, f"{block}.proj", n, width)
        return cls(gate, proj, Norm.read(hparams, f"{block}.post_norm"), i * width)

    def trace(self, plan: Plan, x: Activation, inputs: Activation, scale: float) -> None:
        """x = scale * (x + norm(proj(gelu(gate x) * inputs))), x [tokens, n], inputs [tokens, layers * width]."""
        plan.part = "per-layer embeddings"
        gate, gated = (plan.activation(f"per-layer {name}", self.inp_gate.rows) for name in ("gate", "gated"))
        added = plan.activation("added", x.columns)  # zero before and after
        quantize(plan, x)
        matmul(plan, x, [(self.inp_gate, gate)])
        gate_columns(plan, gate, inputs, self.first, gated, "gelu")
        add_matmul(plan, gated, self.proj, added)
        self.post_norm.add(plan, added, x, scale)


@dataclass(frozen=True)
class Gemma4Layer:
    """Attention, a feed-forward network with experts beside it or without, a per-layer embedding if the model has them."""

    attn_norm: Norm
    mixer: Attention
    post_attention_norm: Norm
    ffn_norm: Norm
    ffn: MLP
    experts: Experts | None
    post_ffw_norm: Norm
    embedding: LayerEmbedding | None
    scale: float
    inputs: int  # columns of the embeddings of all layers

    def trace(self, plan: Plan, x: Activation) -> None:
        """Change x [tokens, n], the residual stream."""
        add_sublayer(plan, x, self.attn_norm, self.mixer, self.post_attention_norm)
        h = plan.activation("h", x.columns)
        added = plan.activation("added", x.columns)  # zero before and after
        self.ffn_norm.trace(plan, x, h)
        self.ffn.trace(plan, h, added)
        if self.experts:
            both = plan.activation("both", x.columns)  # likewise
            self.experts.post_dense_norm.add(plan, added, both)
            self.experts.trace(plan, x, both)
            added = both
        self.post_ffw_norm.add(plan, added, x, 1.0 if self.embedding else self.scale)
        if self.embedding:
            self.embedding.trace(plan, x, plan.activation(_PER_LAYER, self.inputs), self.scale)


@dataclass(frozen=True)
class PerLayerEmbeddings:
    """An embedding of each token for each layer, with a projection of the token's own added; norm: float32 [width]."""

    token_embd: Matrix
    model_proj: Matrix
    proj_norm: NDArray[np.float32]
    eps: float

    @classmethod
    def read(cls, hparams: Hyperparameters, width: int) -> PerLayerEmbeddings:
        """The tensors per_layer_* of a file, `width` columns a layer."""
        file, n, columns = hparams.file, hparams.hidden_size, hparams.num_hidden_layers * width
        vocab = file.tensor("token_embd.weight").shape[0]
        return cls(
            token_embd=matrix(file, "per_layer_token_embd.weight", vocab, columns),
            model_proj=linear(file, "per_layer_model_proj", columns, n),
            proj_norm=vector(file, "per_layer_proj_norm.weight", width),
            eps=hparams.rms_norm_eps,
        )

    def trace(self, plan: Plan, ids: NDArray[np.int64], x: Activation) -> None:
        """ids [tokens], and their embeddings x [tokens, n] -> inputs [tokens, layers * width], for all layers."""
        plan.part = "embedding"
        columns, width = self.token_embd.columns, len(self.proj_norm)
        inputs, projected = plan.activation(_PER_LAYER, columns), plan.activation("per-layer projected", columns)
        embed(plan, ids, self.token_embd, inputs, width**0.5)
        quantize(plan, x)
        matmul(plan, x, [(self.model_proj, projected)], x.columns**-0.5)
        add_rms_norm(plan, projected, self.proj_norm, self.eps, inputs, 2**-0.5)


@dataclass(frozen=True)
class Gemma4:
    """A whole model: a decoder, and per-layer embeddings if it has them."""

    decoder: Decoder
    per_layer: PerLayerEmbeddings | None

    @property
    def vocab_size(self) -> int:
        """Tokens of the vocabulary."""
        return self.decoder.vocab_size

    def trunk(self, plan: Plan, ids: NDArray[np.int64]) -> Activation:
        """ids [tokens] -> the residual stream after the last layer, [tokens, n]."""
        x = self.decoder.embed(plan, ids)
        if self.per_layer:
            self.per_layer.trace(plan, ids, x)
        self.decoder.through_layers(plan, x)
        return x

    def head(self, plan: Plan, x: Activation) -> Activation:
        """x [tokens, n] -> logits [tokens, vocab]; the last token's alone where the plan takes one."""
        return self.decoder.head(plan, x)


def load(file: GGUFFile, state: State) -> Gemma4:
    """The model of a file, its caches taken from `state`."""
    hparams = Hyperparameters(file)
    layers, width = hparams.num_hidden_layers, hparams.count("embedding_length_per_layer_input")
    local = list(map(bool, hparams.sizes("attention.sliding_window_pattern", least=0)))
    own = layers - hparams.count("attention.shared_kv_layers")
    kinds = {
        near: AttentionKind.read(hparams, [i for i in range(own) if local[i] == near], local=near)
        for near in set(local)
    }
    scaled = any(f"blk.{i}.{_SCALE}" in file.tensors for i in range(layers))
    owners: dict[bool, Attention] = {}  # the last layer of each kind that has keys of its own

    def attention(i: int) -> Attention:
        near = local[i]
        if i < own:
            owners[near] = read_attention(hparams, i, state, kinds[near], None)
            return owners[near]
        if near not in owners:
            hparams.wrong(f"layer {i} shares the keys of a layer that is not there")
        return read_attention(hparams, i, state, kinds[near], owners[near])

    def layer(i: int) -> Gemma4Layer:
        block = f"blk.{i}"
        return Gemma4Layer(
            attn_norm=Norm.read(hparams, f"{block}.attn_norm"),
            mixer=attention(i),
            post_attention_norm=Norm.read(hparams, f"{block}.post_attention_norm"),
            ffn_norm=Norm.read(hparams, f"{block}.ffn_norm"),
            ffn=MLP.read(hparams, i, activation="gelu"),
            experts=Experts.read(hparams, i, state) if f"{block}.ffn_gate_inp.weight" in file.tensors else None,
            post_ffw_norm=Norm.read(hparams, f"{block}.post_ffw_norm"),
            embedding=LayerEmbedding.read(hparams, i, width) if width else None,
            scale=float(vector(file, f"{block}.{_SCALE}", 1)[0]) if scaled else 1.0,
            inputs=layers * width,
        )

    return Gemma4(
        Decoder.read(hparams, map(layer, range(layers)), embedding_scale=hparams.hidden_size**0.5),
        PerLayerEmbeddings.read(hparams, width) if width else None,
    )
