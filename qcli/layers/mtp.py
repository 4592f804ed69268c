"""Multi-token prediction: a head of one more decoder layer, which expects the token after the next one.

It sees pairs, a token's row before the model's head and the id that comes after that token: eh_proj [enorm of the id's
embedding; hnorm of the row], the row after `output_norm`, goes through a layer with keys and values of its own, and its
head gives logits of the token after the id. Its own row after the norm stands for the model's where guesses are chained
(DeepSeek-V3, arXiv 2412.19437). Tensors `blk.{i}.nextn.*` of GGUF, in the block behind the model's layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from qcli.layers.decoder import Decoder, Layer, Norm
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.state import State
from qcli.layers.weights import linear, matrix
from quant.kernels.columns import place, quantize
from quant.kernels.embed import embed
from quant.kernels.matmul import matmul
from quant.plan import Activation, Plan
from quant.weights import Matrix

# Rows of the output matrix that guesses come from: most of what a guess reads. Ids are in the order of merges: of English
# prose, and of this project's source, 94 % of the ids that Qwen's vocabulary of 151,936 gives are among these.
MOST_GUESSED = 32_768


class _WithBlock(Hyperparameters):
    """The hyperparameters of a file whose blocks for multi-token prediction count as layers."""

    @cached_property
    def num_hidden_layers(self) -> int:
        """All blocks."""
        return self.size("block_count")


@dataclass(frozen=True)
class MtpHead:
    """The weights of the head of multi-token prediction."""

    token_embd: Matrix
    embedding_scale: float
    output_norm: Norm  # the model's
    enorm: Norm
    hnorm: Norm
    eh_proj: Matrix
    layer: Layer
    shared_head_norm: Norm
    shared_head: Matrix

    @classmethod
    def read(
        cls, hparams: Hyperparameters, state: State, model: Decoder, layer: Callable[[Hyperparameters, int], Layer]
    ) -> MtpHead | None:
        """The first such head of a file; None if it has none, or the state is not for one.

        layer(hparams, i): block i of the file as a layer with full attention, whose caches are taken from the state.
        """
        file, i, n = hparams.file, hparams.num_hidden_layers, hparams.hidden_size
        nextn = f"blk.{i}.nextn"
        if not state.mtp or f"{nextn}.eh_proj.weight" not in file.tensors:
            return None
        table, output, vocab = model.token_embd, model.output, model.vocab_size
        if f"{nextn}.embed_tokens.weight" in file.tensors:
            table = matrix(file, f"{nextn}.embed_tokens.weight", vocab, n)
        if f"{nextn}.shared_head_head.weight" in file.tensors:
            output = linear(file, f"{nextn}.shared_head_head", vocab, n)
        has_norm = f"{nextn}.shared_head_norm.weight" in file.tensors
        with state.for_guesses():
            block = layer(_WithBlock(file), i)
        return cls(
            token_embd=table,
            embedding_scale=model.embedding_scale,
            output_norm=model.output_norm,
            enorm=Norm.read(hparams, f"{nextn}.enorm"),
            hnorm=Norm.read(hparams, f"{nextn}.hnorm"),
            eh_proj=linear(file, f"{nextn}.eh_proj", n, 2 * n),
            layer=block,
            shared_head_norm=Norm.read(hparams, f"{nextn}.shared_head_norm") if has_norm else model.output_norm,
            shared_head=output,
        )

    @property
    def columns(self) -> int:
        """Columns of the residual stream."""
        return self.hnorm.weight.size

    @property
    def guessed(self) -> Matrix:
        """The rows of the output matrix that guesses come from: all, or the first of a vocabulary twice as large."""
        large = self.shared_head.rows > 2 * MOST_GUESSED
        return self.shared_head.part(0, MOST_GUESSED) if large else self.shared_head

    def normed(self, plan: Plan, x: Activation) -> Activation:
        """The model's rows before its head [tokens, n] -> the same after its last norm."""
        h = plan.activation("after the norm", x.columns)
        self.output_norm.trace(plan, x, h)
        return h

    def trunk(self, plan: Plan, h: Activation, ids: NDArray[np.int64]) -> Activation:
        """Rows h [tokens, n], after a norm, and the ids [tokens] that came after them -> rows before the head [tokens, n]."""
        n = h.columns
        plan.part = "guesses"
        embedded, normed = plan.activation("embedded", n), plan.activation("half of a pair", n)
        pair, x = plan.activation("pair", 2 * n), plan.activation("x", n)
        embed(plan, ids, self.token_embd, embedded, self.embedding_scale)
        for norm, part, at in ((self.enorm, embedded, 0), (self.hnorm, h, n)):
            norm.trace(plan, part, normed)
            place(plan, normed, 1, 0, n, pair, at)
        quantize(plan, pair)
        plan.part = "guesses"
        matmul(plan, pair, [(self.eh_proj, x)])
        self.layer.trace(plan, x)
        return x

    def head(self, plan: Plan, x: Activation, h: Activation, output: Matrix) -> Activation:
        """Rows x [tokens, n] -> h [tokens, n], after the norm, and logits of the rows of `output`.

        The last token's alone where the plan takes one.
        """
        self.shared_head_norm.trace(plan, x, h)
        plan.part = "guesses"
        logits = plan.activation("guesses", output.rows)
        matmul(plan, h, [(output, logits)])
        return logits


@dataclass(frozen=True)
class MtpDecoder(Decoder):
    """A decoder with a head of multi-token prediction."""

    mtp: MtpHead


def with_mtp(
    model: Decoder, hparams: Hyperparameters, state: State, layer: Callable[[Hyperparameters, int], Layer]
) -> Decoder:
    """The model with its head of multi-token prediction, if the file has one and the state is for it (see MtpHead.read)."""
    head = MtpHead.read(hparams, state, model, layer)
    if head is None:
        return model
    return MtpDecoder(**{field.name: getattr(model, field.name) for field in fields(model)}, mtp=head)


def mtp_of(model: object) -> MtpHead | None:
    """The head of multi-token prediction of a model; None if it has none."""
    return model.mtp if isinstance(model, MtpDecoder) else None
