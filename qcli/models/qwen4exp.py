"""Qwen3.8-Flash-Next (Qwen4-Exp): Qwen3-Next's mixers and experts, with hyper-connections, sparse attention and n-grams.

Instead of norms, hyper-connections mix several residual streams into the input of each sublayer, and add its output to all
of them (see quant.kernels.hyper_connections). Full attention is limited to blocks of positions that an indexer selects
(quant.kernels.indexer, quant.kernels.select_blocks). One layer begins with embeddings of n-grams of tokens
(quant.kernels.ngrams). Outputs of the linear layers are gated by sigmoids, and their value heads are re-ordered as in Qwen3.5.
Text only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Attention, Sublayer, Vector, refuse_unread_tensors
from qcli.layers.feed_forward import FeedForward
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.rotary import read_rope
from qcli.layers.state import State
from qcli.layers.weights import linear, matrix, vector
from qcli.models.qwen3next import LinearAttention, Shape, moe_with_shared_expert, recurrent_layers
from qcli.models.qwen35moe import projections
from quant.kernels.columns import place, quantize
from quant.kernels.embed import embed
from quant.kernels.hyper_connections import add_to_streams, mean_streams, norm_streams, silu_activation
from quant.kernels.indexer import Indexer
from quant.kernels.matmul import matmul
from quant.kernels.ngrams import Hashing, add_ngrams, embed_ngrams
from quant.kernels.rope import Rope
from quant.kernels.select_blocks import select_blocks
from quant.plan import Activation, Plan
from quant.weights import Matrix

VERIFIED: Final = (
    "logits within 1e-3 of a plain float64 model after Transformers 5.23 (tiny random weights), which llama.cpp meets within "
    "3e-4 while the indexer has nothing to choose; later llama.cpp sees up to a block more"
)


@dataclass(frozen=True)
class HyperConnection:
    """Mixes the residual streams into the input of a sublayer; inject: weights of its output, which the last one lacks."""

    norm: Vector  # [streams, n]
    down: Matrix
    up: Matrix
    inject: Matrix | None
    eps: float

    @classmethod
    def read(cls, hparams: Hyperparameters, name: str, *, last: bool = False) -> HyperConnection:
        """The tensors `name`_*; last: that before the head, whose output is added to nothing."""
        file, streams, rank, n = (
            hparams.file,
            _streams(hparams),
            hparams.size("hyper_connection.low_rank"),
            hparams.hidden_size,
        )
        whole = streams * n
        return cls(
            norm=vector(file, f"{name}_norm.weight", whole).reshape(streams, n),
            down=linear(file, f"{name}_down", rank, whole),
            up=linear(file, f"{name}_up", whole, rank),
            inject=None if last else linear(file, f"{name}_inject", streams, whole),
            eps=hparams.rms_norm_eps,
        )

    def trace(self, plan: Plan, x: Activation, h: Activation) -> Activation | None:
        """x [tokens, streams * n] -> h [tokens, n], and inject [tokens, streams], the streams' weights before the sigmoid."""
        plan.part = "streams"
        streams, whole = len(self.norm), x.columns
        normed, gate = plan.activation("streams normed", whole), plan.activation("streams gate", whole)
        low, lower = plan.activation("streams low", self.down.rows), plan.activation("streams silu", self.down.rows)
        inject = plan.activation("inject", streams) if self.inject else None
        norm_streams(plan, x, self.norm, self.eps, normed)
        outputs = [(self.down, low), *([(self.inject, inject)] if self.inject and inject else [])]
        matmul(plan, normed, outputs, 1 / streams)
        silu_activation(plan, low, lower)
        matmul(plan, lower, [(self.up, gate)])
        mean_streams(plan, normed, gate, h)
        return inject


def _streams(hparams: Hyperparameters) -> int:
    """How many residual streams there are."""
    streams = hparams.size("hyper_connection.count")
    return streams if 1 < streams <= 64 else hparams.wrong(f"{streams} residual streams")


@dataclass(frozen=True)
class IndexedAttention:
    """Gated attention to the blocks of positions that an indexer selects."""

    q_proj: Matrix
    k_proj: Matrix
    indexer: Indexer
    rope: Rope
    attention: Attention

    @classmethod
    def read(cls, hparams: Hyperparameters, i: int, state: State, rope: Rope, block_size: int) -> IndexedAttention:
        """Layer i of a file; block_size: positions of a block."""
        file, name, n = hparams.file, f"blk.{i}.indexer", hparams.hidden_size
        heads, width = hparams.size("attention.indexer.head_count"), hparams.size("attention.indexer.key_length")
        norms = vector(file, f"{name}.q_norm.weight", width), vector(file, f"{name}.k_norm.weight", width)
        if block_size > state.longest:
            hparams.wrong(f"blocks of {block_size} positions")
        indexer = Indexer(
            heads=heads,
            head_dim=width,
            block_size=block_size,
            top_k=hparams.size("attention.indexer.top_k") // block_size,
            norms=norms,
            eps=hparams.rms_norm_eps,
            k_cache=state.cache(1, width, tokens_per_row=block_size),
            last_keys=state.ring(block_size, width),
        )
        return cls(
            q_proj=linear(file, f"{name}.q_proj", heads * width, n),
            k_proj=linear(file, f"{name}.k_proj", width, n),
            indexer=indexer,
            rope=rope,
            attention=Attention.read(hparams, i, state, rope, norms="head", gated=True),
        )

    def trace(self, plan: Plan, h: Activation, x: Activation) -> None:
        """x += attention of h, both [tokens, n]."""
        plan.part = "indexer"
        q, k = plan.activation("index queries", self.q_proj.rows), plan.activation("index keys", self.k_proj.rows)
        matmul(plan, h, [(self.q_proj, q), (self.k_proj, k)])
        self.attention.trace(plan, h, x, select_blocks(plan, q, k, self.rope, self.indexer))


@dataclass(frozen=True)
class NGrams:
    """What a layer begins with: embeddings of n-grams of tokens, gated and added to the residual streams."""

    table: Matrix
    key: Matrix
    value: Matrix
    norms: tuple[Vector, Vector, Vector]  # of key, query and convolution, [streams, n]
    conv: Vector  # [taps, streams * n]
    dilation: int  # of its taps, in tokens
    hashing: Hashing
    conv_state: Vector
    eps: float

    @classmethod
    def read(cls, hparams: Hyperparameters, i: int, state: State) -> NGrams:
        """Layer i of a file."""
        file, block, n, streams = hparams.file, f"blk.{i}", hparams.hidden_size, _streams(hparams)
        longest, taps = hparams.size("ple.ngram_size"), hparams.size("ple.conv_kernel")
        heads, width = (
            hparams.size("ple.heads_per_ngram") * (longest - 1),
            hparams.size("embedding_length_per_layer_input"),
        )
        if longest > 16 or heads < 1:
            hparams.wrong(f"{heads} heads for n-grams of up to {longest} tokens")
        keys = "layer_multipliers", "head_vocab_sizes", "head_offsets"
        lists = [file.get_ints(f"{hparams.arch}.ple.{key}") for key in keys]
        if any(abs(value) >= 1 << 63 for values in lists for value in values):
            hparams.wrong("a number of its n-gram keys is too large")
        multipliers, sizes, offsets = (np.array(values, np.int64) for values in lists)
        if len(multipliers) < longest or min(len(sizes), len(offsets)) < heads:
            hparams.wrong("its n-gram keys are too short")
        end, last = hparams.count("ple.eos_token_id"), state.ring(longest - 1, 1)
        hashing = Hashing(end, multipliers[:longest], sizes[:heads], offsets[:heads], last)
        name = "per_layer_token_embd.weight"
        table = matrix(file, name, file.tensor(name).shape[0], width)
        hashing.check(table.rows)
        norms = (vector(file, f"{block}.ple_norm_{part}.weight", streams * n) for part in ("key", "query", "conv"))
        key_norm, query_norm, conv_norm = (weight.reshape(streams, n) for weight in norms)
        conv = vector(file, f"{block}.ple_conv1d.weight", streams * n, taps)
        return cls(
            table=table,
            key=linear(file, f"{block}.ple_key", streams * n, heads * width),
            value=linear(file, f"{block}.ple_value", n, heads * width),
            norms=(key_norm, query_norm, conv_norm),
            conv=np.ascontiguousarray(conv.T),
            hashing=hashing,
            dilation=longest,
            conv_state=state.ring((taps - 1) * longest, streams * n),
            eps=hparams.rms_norm_eps,
        )

    def trace(self, plan: Plan, ids: NDArray[np.int64], x: Activation) -> None:
        """Add to x [tokens, streams * n] what the n-grams that end at each of ids [tokens] give."""
        plan.part = "n-grams"
        found = plan.activation("n-gram embeddings", self.key.columns)
        key, value = plan.activation("n-gram key", self.key.rows), plan.activation("n-gram value", self.value.rows)
        embed_ngrams(plan, ids, self.hashing, self.table, found)
        quantize(plan, found)
        matmul(plan, found, [(self.key, key), (self.value, value)])
        add_ngrams(plan, key, value, self.norms, self.eps, self.conv, self.dilation, self.conv_state, x)


@dataclass(frozen=True)
class DecoderLayer:
    """n-grams if it has them, then the mixer and the feed-forward network, each with a hyper-connection."""

    ngrams: NGrams | None
    hc_attn: HyperConnection
    mixer: Sublayer
    hc_ffn: HyperConnection
    ffn: FeedForward

    def trace(self, plan: Plan, ids: NDArray[np.int64], x: Activation, n: int) -> None:
        """Change x [tokens, streams * n], the residual streams."""
        h, added = plan.activation("h", n), plan.activation("added", n)  # zero before and after
        if self.ngrams:
            self.ngrams.trace(plan, ids, x)
        for connection, sublayer in ((self.hc_attn, self.mixer), (self.hc_ffn, self.ffn)):
            inject = connection.trace(plan, x, h)
            sublayer.trace(plan, h, added)
            plan.part = "streams"
            if inject:
                add_to_streams(plan, x, added, inject)


@dataclass(frozen=True)
class Qwen4Exp:
    """The whole model: token_embd, copied to every stream -> layers -> output_hc -> output."""

    token_embd: Matrix
    layers: tuple[DecoderLayer, ...]
    output_hc: HyperConnection
    output: Matrix

    @property
    def vocab_size(self) -> int:
        """Tokens of the vocabulary."""
        return self.token_embd.rows

    def trunk(self, plan: Plan, ids: NDArray[np.int64]) -> Activation:
        """ids [tokens] -> the residual streams after the last layer, [tokens, streams * n]."""
        n, streams = self.token_embd.columns, len(self.output_hc.norm)
        plan.part = "embedding"
        one, x = plan.activation("embedding", n), plan.activation("x", streams * n)
        embed(plan, ids, self.token_embd, one)
        place(plan, one, streams, 0, n, x, 0, shared=True)
        for layer in self.layers:
            layer.trace(plan, ids, x, n)
        return x

    def head(self, plan: Plan, x: Activation) -> Activation:
        """x [tokens, streams * n] -> logits [tokens, vocab]; the last token's alone where the plan takes one."""
        h, logits = plan.activation("head", self.output.columns), plan.activation("logits", self.output.rows)
        self.output_hc.trace(plan, x, h)
        plan.part = "head"
        matmul(plan, h, [(self.output, logits)])
        return logits


def load(file: GGUFFile, state: State) -> Qwen4Exp:
    """The model of a file, its caches and recurrent states taken from `state`."""
    hparams = Hyperparameters(file)
    rope, shape, recurrent = read_rope(hparams), Shape.read(hparams), recurrent_layers(hparams)
    blocks = hparams.sizes("attention.compress_ratios", [0], least=0)
    begin = file.get_ints(f"{hparams.arch}.ple.layers", [])

    def mixer(i: int) -> Sublayer:
        if recurrent[i]:
            linear_attention = LinearAttention.read(hparams, i, state, shape, *projections(hparams, i, shape))
            return replace(linear_attention, net=replace(linear_attention.net, sigmoid_gate=True))
        if blocks[i]:
            return IndexedAttention.read(hparams, i, state, rope, blocks[i])
        return Attention.read(hparams, i, state, rope, norms="head", gated=True)

    def layer(i: int) -> DecoderLayer:
        return DecoderLayer(
            ngrams=NGrams.read(hparams, i, state) if i in begin else None,
            hc_attn=HyperConnection.read(hparams, f"blk.{i}.hc_attn"),
            mixer=mixer(i),
            hc_ffn=HyperConnection.read(hparams, f"blk.{i}.hc_ffn"),
            ffn=moe_with_shared_expert(hparams, i, state),
        )

    vocab, n = file.tensor("token_embd.weight").shape[0], hparams.hidden_size
    table = matrix(file, "token_embd.weight", vocab, n)
    layers = tuple(map(layer, range(hparams.num_hidden_layers)))
    output = linear(file, "output", vocab, n) if "output.weight" in file.tensors else table
    refuse_unread_tensors(hparams)
    return Qwen4Exp(
        token_embd=table,
        layers=layers,
        output_hc=HyperConnection.read(hparams, "output_hc", last=True),
        output=output,
    )
