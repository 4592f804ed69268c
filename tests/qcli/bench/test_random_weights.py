"""Models of a known shape without a file: valid blocks, true shapes, and memory asked before it is taken."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from qcli.bench import bandwidth, random_weights
from qcli.bench.cases import random_ids
from qcli.bench.model_shape import whole as whole_keys
from qcli.bench.random_blocks import random_blocks
from qcli.bench.random_weights import find_mix, layers_that_fit, quants, random_file, size_of
from qcli.bench.shapes import QWEN3_NEXT, SHAPES, find_shape
from qcli.errors import QcliError
from qcli.runtime.engine import Engine
from qcli.streaming import budget
from quant import formats

TRUE = SHAPES["qwen3-next-80b-a3b"]
SMALL = {
    "embedding_length": 256,
    "attention.head_count": 2,
    "attention.head_count_kv": 1,
    "attention.key_length": 128,
    "attention.value_length": 128,
    "rope.dimension_count": 32,
    "ssm.state_size": 32,
    "ssm.group_count": 2,
    "ssm.time_step_rank": 4,
    "ssm.inner_size": 256,
    "expert_count": 32,
    "expert_used_count": 3,
    "expert_feed_forward_length": 256,
    "expert_shared_feed_forward_length": 256,
}
TINY = replace(TRUE, name="tiny", layers=8, vocab_size=320, keys=QWEN3_NEXT | SMALL)


@pytest.mark.parametrize("kind", formats.names())
def test_blocks_are_valid_weights(kind):
    found = formats.find(kind)
    data = random_blocks(np.random.default_rng(0), kind, 64 * 256 // found.block.columns, spread=0.02)
    weights = found.dequantize(data.reshape(64, -1))
    assert np.isfinite(weights).all()
    assert 0.008 < weights.std() < 0.04
    assert abs(weights.mean()) < 0.2 * weights.std()


@pytest.mark.parametrize("quant", quants())
def test_every_quantization_runs_and_meets_many_experts(quant):
    file = random_file(TINY, find_mix(quant), 4)
    assert sum(tensor.n_bytes for tensor in file.tensors.values()) <= size_of(TINY, find_mix(quant), 4)
    engine = Engine.load(file, threads=1, ctx=64, chunk=32)
    logits = engine.prefill(random_ids(engine.vocab_size, 32, 0))
    assert np.isfinite(logits).all()
    assert logits.std() > 0
    assert engine.experts_total == 4 * 32
    assert engine.state.experts_touched() > 0.6 * engine.experts_total
    engine.close()


def test_a_block_for_multi_token_prediction():
    """Of the true shape's tensors, and one that guesses."""
    file = random_file(TINY, find_mix("q4_k_m"), 4, mtp=True)
    assert {name for name in file.tensors if ".nextn." in name and name.startswith("blk.4.")}
    with_block = Engine.load(file, threads=1, ctx=64, chunk=32, mtp=True)
    plain = Engine.load(random_file(TINY, find_mix("q4_k_m"), 4), threads=1, ctx=64, chunk=32)
    ids = random_ids(plain.vocab_size, 20, 0)
    assert np.array_equal(with_block.prefill(ids), plain.prefill(ids))
    assert len(with_block.draft(ids[0], 3)) == 3
    assert plain.draft(ids[0], 3) == []
    with_block.close(), plain.close()
    rows = {name: shape for name, _, shape in TRUE.rows(1, mtp=True) if name.startswith("blk.1.")}
    assert rows["blk.1.nextn.eh_proj.weight"] == (2048, 4096)
    assert rows["blk.1.attn_q.weight"] == (8192, 2048)


def test_the_same_weights_every_time():
    one, two = (random_file(TINY, find_mix("q4_k_m"), 1) for _ in range(2))
    assert all((one.tensors[name].data == two.tensors[name].data).all() for name in one.tensors)


def test_down_alternates_as_in_files_of_that_name():
    file = random_file(TINY, find_mix("Q4_K_M"), 4)
    assert [file.tensors[f"blk.{i}.ffn_down_exps.weight"].type for i in range(4)] == ["Q6_K", "Q4_K"] * 2
    assert file.tensors["output.weight"].type == "Q6_K"
    assert file.tensors["blk.0.ffn_gate_inp.weight"].type == "F32"


def test_the_true_shape_has_80_billion_weights_of_which_3_work():
    rows = list(TRUE.rows(TRUE.layers))
    sizes = {name: int(np.prod(shape)) for name, _, shape in rows}
    routed = sum(size for name, size in sizes.items() if "_exps." in name)
    whole = sum(sizes.values())
    assert whole == pytest.approx(80e9, rel=0.01)
    assert whole - routed * (512 - 10) / 512 - sizes["token_embd.weight"] == pytest.approx(3.3e9, rel=0.1)
    assert [TRUE.count(part, 48) for part in ("linear attention", "attention")] == [36, 12]
    assert TRUE.count("attention", 3) == 0
    assert find_shape("Qwen3-Next-80B-A3B") is TRUE


def test_kimi_linear_has_48_billion_weights_of_which_3_work():
    shape = SHAPES["kimi-linear-48b-a3b"]
    sizes = {name: int(np.prod(size)) for name, _, size in shape.rows(shape.layers)}
    routed = sum(size for name, size in sizes.items() if "_exps." in name)
    assert sum(sizes.values()) == pytest.approx(49e9, rel=0.01)
    assert sum(sizes.values()) - routed * (256 - 8) / 256 - sizes["token_embd.weight"] == pytest.approx(3e9, rel=0.1)
    assert [shape.count(part, 27) for part in ("linear attention", "attention")] == [20, 7]


def test_a_small_kimi_linear_runs():
    small = {
        "embedding_length": 288,  # no multiple of 256: other types
        "feed_forward_length": 320,
        "attention.head_count": 4,
        "kda.head_dim": 32,
        "expert_count": 16,
        "expert_feed_forward_length": 64,
    }
    true = SHAPES["kimi-linear-48b-a3b"]
    shape = replace(true, vocab_size=320, keys=true.keys | small)
    engine = Engine.load(random_file(shape, find_mix("q4_k_m"), 4), threads=1, ctx=64, chunk=16)
    assert np.isfinite(engine.prefill(random_ids(engine.vocab_size, 40, 0))).all()
    assert np.isfinite(engine.step(1)).all()
    engine.close()


@pytest.mark.parametrize(
    ("name", "whole", "active", "kinds"),
    [
        ("nemotron-3-nano-30b-a3b", 31.6e9, 3.2e9, {"state space": 23, "experts": 23, "attention": 6}),
        ("granite-4-h-small", 32.2e9, 8.8e9, {"state space": 36, "attention": 4}),
    ],
)
def test_shapes_with_mamba_layers(name, whole, active, kinds):
    shape = SHAPES[name]
    sizes = {name: int(np.prod(size)) for name, _, size in shape.rows(shape.layers)}
    routed = sum(size for name, size in sizes.items() if "_exps." in name)
    share = whole_keys(shape.keys)["expert_used_count"] / whole_keys(shape.keys)["expert_count"]
    embedding = 0 if shape.tied else sizes["token_embd.weight"]
    assert sum(sizes.values()) == pytest.approx(whole, rel=0.01)
    assert sum(sizes.values()) - routed * (1 - share) - embedding == pytest.approx(active, rel=0.03)
    assert {kind: shape.count(kind, shape.layers) for kind in kinds} == kinds


@pytest.mark.parametrize("name", ["nemotron-3-nano-30b-a3b", "granite-4-h-small"])
def test_small_models_of_their_kind_run(name):
    """Rows of 288 columns get the types that take the place of Q4_K and Q6_K."""
    small = {
        "embedding_length": 288,
        "attention.head_count": 8,
        "attention.key_length": 32,
        "attention.value_length": 32,
        "ssm.state_size": 32,
        "ssm.time_step_rank": 8,
        "ssm.inner_size": 256,
        "expert_count": 16,
        "expert_feed_forward_length": 64,
        "expert_shared_feed_forward_length": 96,
    }
    shape = replace(SHAPES[name], vocab_size=320, keys=SHAPES[name].keys | small)
    file = random_file(shape, find_mix("q4_k_m"), 6)
    assert file.tensors["blk.0.ssm_in.weight"].type == "Q5_0"
    assert ("output.weight" in file.tensors) != shape.tied
    engine = Engine.load(file, threads=1, ctx=64, chunk=16)
    assert np.isfinite(engine.prefill(random_ids(engine.vocab_size, 40, 0))).all()
    assert np.isfinite(engine.step(1)).all()
    engine.close()


def gigabytes_free(monkeypatch, count):
    monkeypatch.setattr(random_weights, "available_memory", lambda: int(count * 1e9))


def test_as_many_layers_as_fit_whole_cycles_of_them(monkeypatch):
    mix = find_mix("q4_k_m")
    for free, layers in ((24, 20), (8, 4), (1000, 48)):
        gigabytes_free(monkeypatch, free)
        assert layers_that_fit(TRUE, mix, None) == layers
        assert size_of(TRUE, mix, layers) < free * 1e9 - (2 << 30)
    gigabytes_free(monkeypatch, 5)
    assert layers_that_fit(TRUE, mix, None) == 2  # not even one cycle
    assert layers_that_fit(TRUE, mix, 1) == 1


def test_random_weights_that_fill_the_memory_stay_there(monkeypatch, type_line):
    monkeypatch.setitem(SHAPES, "tiny", TINY)
    monkeypatch.setattr(bandwidth, "MOST", 1 << 22)
    monkeypatch.setattr(budget, "available_memory", lambda: 0)
    code, out, err = type_line(*"bench --shape tiny --layers 4 -p 0 -n 2 -t 1 -r 1 --json".split())
    assert (code, err) == (0, "")
    assert "streaming" not in json.loads(out)[0]


def test_what_does_not_fit_is_refused_before_it_is_made(monkeypatch, type_line):
    gigabytes_free(monkeypatch, 24)
    code, out, err = type_line("bench", "--shape", TRUE.name, "--layers", "40")
    assert (code, out) == (1, "")
    assert "40 layers of qwen3-next-80b-a3b would take 40.4 GB, and 24.0 GB of memory are free" in err
    assert "hint: give --layers 21 or less" in err
    gigabytes_free(monkeypatch, 2)
    with pytest.raises(QcliError, match="smaller --quant"):
        layers_that_fit(TRUE, find_mix("q8_0"), None)


def test_bench_of_a_shape_estimates_the_whole_model(monkeypatch, type_line):
    monkeypatch.setitem(SHAPES, "tiny", TINY)
    monkeypatch.setattr(bandwidth, "MOST", 1 << 22)
    arguments = "bench --shape tiny --layers 4 -p 16 -n 2 -t 1 -r 1".split()
    for one in json.loads(type_line(*arguments, "--json")[1]):
        assert (one["model"], one["layers"], one["architecture"]) == ("tiny", 4, "qwen3next")
        assert one["estimate"]["layers"] == 8
        assert one["estimate"]["tok_per_s"] < one["tok_per_s"] < 2.2 * one["estimate"]["tok_per_s"]
        assert one["estimate"]["size_bytes"] > one["size_bytes"]
    out = type_line(*arguments)[1]
    assert "4 layers of 8, random weights" in out
    assert "≈: an estimate for all 8 layers" in out
    without_attention = type_line(*(" ".join(arguments).replace("--layers 4", "--layers 3")).split())[1]
    assert "?: no estimate for all 8 layers" in without_attention
