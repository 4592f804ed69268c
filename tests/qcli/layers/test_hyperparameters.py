"""Hyperparameters: numbers for all layers or for each, and what is said of those that cannot be."""

from __future__ import annotations

import gguf_maker as maker
import numpy as np
import pytest

from qcli.errors import ModelFileError
from qcli.gguf.file import GGUFFile
from qcli.layers.hyperparameters import Hyperparameters


@pytest.fixture
def hparams(tmp_path):
    """Of a file with these keys of the architecture "toy", and 3 layers unless it says otherwise."""

    def make(**values):
        keys = [maker.key("general.architecture", maker.STRING, "toy")]
        for name, value in {"block_count": 3, **values}.items():
            if isinstance(value, list):
                keys.append(maker.array(f"toy.{name}", maker.I32, value))
            else:
                keys.append(maker.key(f"toy.{name}", maker.F64 if isinstance(value, float) else maker.I64, value))
        return Hyperparameters(GGUFFile.open(maker.write(tmp_path / "toy.gguf", maker.File(keys))))

    return make


def test_one_number_counts_for_every_layer(hparams):
    assert hparams(width=7).sizes("width") == (7, 7, 7)
    assert hparams(width=[7, 8, 9]).sizes("width") == (7, 8, 9)
    assert hparams().sizes("width", [5]) == (5, 5, 5)


def test_layers_that_predict_further_tokens_do_not_count(hparams):
    read = hparams(nextn_predict_layers=1, width=[7, 8, 9])
    assert (read.num_hidden_layers, read.sizes("width")) == (2, (7, 8))


@pytest.mark.parametrize("width", [[], [1, 2], [1, 2, 0], [1, 2, -1], 0, 2**31])
def test_widths_that_cannot_be(hparams, width):
    with pytest.raises(ModelFileError, match=r"toy\.width"):
        hparams(width=width).sizes("width")


@pytest.mark.parametrize("value", [0, -1, 2**31])
def test_sizes_that_cannot_be(hparams, value):
    with pytest.raises(ModelFileError, match=rf"toy\.n. is {value}"):
        hparams(n=value).size("n")


def test_what_a_file_does_not_say(hparams):
    read = hparams()
    assert (read.size("n", 4), read.count("n"), read.count("n", 2)) == (4, 0, 2)
    assert (read.number("n", 0, 1, 0.5), read.text("n", "none"), read.has("n")) == (0.5, "none", False)
    for ask in (lambda: read.size("n"), lambda: read.number("n", 0, 1), lambda: read.sizes("n")):
        with pytest.raises(ModelFileError, match=r"toy\.n"):
            ask()


@pytest.mark.parametrize("value", [-0.1, 1.1, float("inf"), float("nan")])
def test_numbers_out_of_range(hparams, value):
    with pytest.raises(ModelFileError, match=r"toy\.n"):
        hparams(n=value).number("n", 0, 1)


def heads(**values):
    return {f"attention.{key}": value for key, value in values.items()}


def test_heads(hparams):
    read = hparams(embedding_length=96, **heads(head_count=6))
    assert (read.num_attention_heads, read.num_key_value_heads, read.head_dim, read.v_head_dim) == (
        (6,) * 3,
        (6,) * 3,
        16,
        16,
    )
    read = hparams(embedding_length=96, **heads(head_count=6, head_count_kv=[0, 2, 3], key_length=32, value_length=48))
    assert (read.num_key_value_heads, read.head_dim, read.v_head_dim) == ((0, 2, 3), 32, 48)


@pytest.mark.parametrize("keys", [4, 12, -1, [1, 2]])
def test_heads_that_do_not_divide(hparams, keys):
    with pytest.raises(ModelFileError, match="head"):
        _ = hparams(**heads(head_count=6, head_count_kv=keys)).num_key_value_heads


@pytest.mark.parametrize("layers", [0, 1, 1026, 2**40])
def test_layers_that_cannot_be(hparams, layers):
    with pytest.raises(ModelFileError, match=r"layers|block_count"):
        _ = hparams(block_count=layers, nextn_predict_layers=1).num_hidden_layers


def test_a_scale_of_nothing_is_none(hparams):
    assert hparams(expert_weights_scale=0.0).routed_scaling_factor == 1
    assert hparams(expert_weights_scale=2.5).routed_scaling_factor == np.float32(2.5)
