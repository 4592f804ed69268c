"""Nemotron-H with experts (NVIDIA Nemotron 3): ReLU^2 experts chosen by sigmoid scores, perhaps in a narrower latent space."""

from __future__ import annotations

from typing import Final

from qcli.gguf.file import GGUFFile
from qcli.layers.decoder import Decoder
from qcli.layers.feed_forward import MLP, FeedForward, MoE, read_routing
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.state import State
from qcli.models.nemotron_h import one_sublayer_each

VERIFIED: Final = (
    "logits within 7.8e-5 of float32 Transformers (tiny random weights), 5.2e-6 with latent experts; greedy text exact"
)


def load(file: GGUFFile, state: State) -> Decoder:
    """The model of a file, its caches and recurrent states taken from `state`."""
    return one_sublayer_each(file, state, _feed_forward)


def _feed_forward(hparams: Hyperparameters, i: int, state: State) -> FeedForward:
    """The experts of layer i, or a dense network, of which there may be some."""
    if f"blk.{i}.ffn_gate_inp.weight" not in hparams.file.tensors:
        return MLP.read(hparams, i, activation="relu2")
    routing = read_routing(hparams, scores="sigmoid", normalised=True)
    return MoE.read(
        hparams,
        i,
        state,
        routing,
        shared=hparams.count("expert_shared_feed_forward_length"),
        activation="relu2",
        latent=hparams.count("moe_latent_size"),
    )
