"""Qwen3-Next against its reference, in all the shapes that files of it come in, and in shapes that none may have."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_model import ARCH, DATA, PLAIN, Tiny, f32

from qcli.errors import ContextOverflowError, ModelFileError, QcliError, UnsupportedModelError
from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine

KEY_HEADS, SHARE, KEY, VALUE = 2, 2, 32, 32  # of the tiny model's linear layers
WIDTH = 32  # of its experts


def load(path, **options) -> Engine:
    return Engine.load(GGUFFile.open(path), **{"threads": 1, "ctx": 128, **options})


def logits_of(path, ids):
    engine = load(path)
    try:
        return engine.logits(ids)
    finally:
        engine.close()


@pytest.fixture(scope="module")
def reference():
    with np.load(DATA / "qwen3next.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def plain(reference):
    return logits_of(PLAIN, reference["ids"])


@pytest.fixture
def tiny(tmp_path):
    """The tiny model, to change; call `save` to write it."""
    model = Tiny.read()
    model.save = lambda: model.write(tmp_path / "model.gguf")
    return model


def relative_error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def test_logits_are_those_of_the_reference(plain, reference):
    assert relative_error(plain, reference["logits"]) <= 1e-4  # 1e-3 is promised


def test_greedy_continuation_is_that_of_the_reference(reference):
    expected = reference["greedy"].tolist()
    engine = load(PLAIN, threads=2)
    logits, found = engine.prefill(expected[:32]), expected[:32]
    for _ in expected[32:]:
        found.append(int(logits.argmax()))
        logits = engine.step(found[-1])
    engine.close()
    assert found == expected


def test_rewriting_the_file_changes_nothing(tiny, plain, reference):
    assert np.array_equal(logits_of(tiny.save(), reference["ids"]), plain)


def test_legacy_files_with_everything_of_a_key_head_in_turn(tiny, plain, reference):
    for i in range(3):
        kind, qkv, columns = tiny.take(f"blk.{i}.attn_qkv.weight")
        _, z, _ = tiny.take(f"blk.{i}.attn_gate.weight")
        q, k, v = np.split(qkv, [KEY_HEADS * KEY, 2 * KEY_HEADS * KEY])
        parts = [part.reshape(KEY_HEADS, -1, part.shape[-1]) for part in (q, k, v, z)]
        fused = np.concatenate(parts, axis=1).reshape(-1, qkv.shape[-1])
        tiny.put(f"blk.{i}.ssm_in.weight", kind, fused, columns)
    assert np.array_equal(logits_of(tiny.save(), reference["ids"]), plain)


def test_gate_and_up_of_the_experts_in_one_tensor(tiny, plain, reference):
    for i in range(4):
        kind, gate, columns = tiny.take(f"blk.{i}.ffn_gate_exps.weight")
        _, up, _ = tiny.take(f"blk.{i}.ffn_up_exps.weight")
        tiny.put(f"blk.{i}.ffn_gate_up_exps.weight", kind, np.concatenate([gate, up], axis=1), columns)
    assert np.array_equal(logits_of(tiny.save(), reference["ids"]), plain)


def test_output_tied_to_the_embedding(tiny, reference):
    kind, data, columns = tiny.take("token_embd.weight")
    tiny.put("token_embd.weight", kind, data, columns)
    tiny.put("output.weight", kind, data, columns)
    apart = logits_of(tiny.save(), reference["ids"])
    tiny.take("output.weight")
    assert np.array_equal(logits_of(tiny.save(), reference["ids"]), apart)


def test_recurrent_layers_by_interval(tiny, plain, reference):
    del tiny.keys[f"{ARCH}.attention.recurrent_layers"]
    assert np.array_equal(logits_of(tiny.save(), reference["ids"]), plain)
    del tiny.keys[f"{ARCH}.full_attention_interval"]  # 4 if unsaid
    assert np.array_equal(logits_of(tiny.save(), reference["ids"]), plain)


def test_recurrent_layers_overrule_the_interval(tiny, plain, reference):
    tiny["full_attention_interval"] = 2
    assert np.array_equal(logits_of(tiny.save(), reference["ids"]), plain)


def test_a_width_for_each_layer(tiny, plain, reference):
    tiny["expert_feed_forward_length"] = np.array([WIDTH] * 4)
    assert np.array_equal(logits_of(tiny.save(), reference["ids"]), plain)


def test_layers_of_different_widths(tiny, plain, reference):
    """Experts of layer 1 get 16 rows more, of zeros: they change nothing."""
    tiny["expert_feed_forward_length"] = np.array([WIDTH, WIDTH + 16, WIDTH, WIDTH])
    for part in ("gate", "up"):
        kind, data, columns = tiny.take(f"blk.1.ffn_{part}_exps.weight")
        tiny.put(f"blk.1.ffn_{part}_exps.weight", kind, np.pad(data, [(0, 0), (0, 16), (0, 0)]), columns)
    kind, data, columns = tiny.take("blk.1.ffn_down_exps.weight")
    tiny.put("blk.1.ffn_down_exps.weight", kind, np.pad(data, [(0, 0), (0, 0), (0, 32)]), columns + 16)
    assert relative_error(logits_of(tiny.save(), reference["ids"]), plain) < 1e-6


def test_a_block_that_predicts_further_tokens_is_left_alone(tiny, plain, reference):
    tiny["block_count"], tiny["nextn_predict_layers"] = 5, 1
    tiny["attention.recurrent_layers"] = np.array([True, True, True, False, False])
    for name in [name for name in tiny.tensors if name.startswith("blk.3.")]:
        kind, data = tiny.tensors[name]
        tiny.put(name.replace("blk.3.", "blk.4."), kind, data, tiny.columns[name])
    for name in ("eh_proj", "enorm", "hnorm", "shared_head_norm"):
        tiny.put(f"blk.4.nextn.{name}.weight", "F32", f32(np.full((64, 128), np.nan)), 128)
    assert np.array_equal(logits_of(tiny.save(), reference["ids"]), plain)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_scale_of_nothing_or_one_is_none(tiny, plain, reference, scale):
    tiny["expert_weights_scale"] = scale
    assert np.array_equal(logits_of(tiny.save(), reference["ids"]), plain)


def test_a_scale_counts(tiny, plain, reference):
    tiny["expert_weights_scale"] = 2.0
    assert relative_error(logits_of(tiny.save(), reference["ids"]), plain) > 0.01


@pytest.mark.parametrize("kind", ["F32", "F16"])
def test_other_float_types_hold_the_same_weights(tiny, plain, reference, kind):
    for name, (old, data) in list(tiny.tensors.items()):
        if old == "BF16":
            values = (np.ascontiguousarray(data).view(np.uint16).astype(np.uint32) << 16).view(np.float32)
            packed = values.astype(np.float16).view(np.uint8) if kind == "F16" else f32(values)
            tiny.put(name, kind, packed, tiny.columns[name])
    assert relative_error(logits_of(tiny.save(), reference["ids"]), plain) < 1e-3


def assert_clear(error):
    """One line of what happened, and what to do."""
    assert error.message
    assert "\n" not in error.message
    assert error.hint


def assert_refused(path, *words, kind=ModelFileError):
    with pytest.raises(kind) as caught:
        load(path)
    assert all(word in caught.value.message for word in (str(path), *words))
    assert_clear(caught.value)


NAMES = sorted(Tiny.read().tensors)


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith(("blk.0.", "blk.3.")) or "blk" not in n])
def test_missing_tensors_and_wrong_shapes(tmp_path, name):
    model = Tiny.read()
    kind, data, columns = model.take(name)
    path = tmp_path / "model.gguf"
    if name != "output.weight":
        assert_refused(model.write(path), f'"{name}"', "missing")
    model.put(name, kind, np.concatenate([data, data]), columns if data.ndim > 1 else 2 * columns)
    assert_refused(model.write(path), name if name != "token_embd.weight" else "output.weight")
    model.put(name, kind, data[..., : data.shape[-1] // 2], columns // 2)
    assert_refused(model.write(path), name)


def test_unknown_types_are_named(tiny):
    _, data, _ = tiny.take("blk.0.attn_qkv.weight")
    tiny.put("blk.0.attn_qkv.weight", "F64", np.zeros((len(data), 512), np.uint8), 64)
    assert_refused(tiny.save(), "blk.0.attn_qkv.weight", "F64", kind=UnsupportedModelError)


def test_unknown_architectures_are_named(tiny):
    tiny.keys["general.architecture"] = "gpt7"
    assert_refused(tiny.save(), '"gpt7"', kind=UnsupportedModelError)  # though "gpt7.context_length" is missing, too


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "__init__", "os", "qwen3next.x", "Qwen3Next", "über"])
def test_an_architecture_is_no_path_into_the_program(tiny, name):
    tiny.keys["general.architecture"] = name
    assert_refused(tiny.save(), kind=UnsupportedModelError)


def test_more_experts_used_than_there_are(tiny):
    tiny["expert_used_count"] = 17
    assert_refused(tiny.save(), "17")


def test_a_context_of_nothing(tiny):
    for length in (0, -1):
        tiny["context_length"] = length
        with pytest.raises(ModelFileError, match=f"{length} tokens of context"):
            load(tiny.save(), ctx=None)


def test_a_context_larger_than_any_memory(tiny):
    tiny["context_length"] = 2**62
    path = tiny.save()
    with pytest.raises(ContextOverflowError, match="memory"):
        load(path, ctx=2**50)
    assert load(path, ctx=None).ctx == 32_768


def test_a_rope_stretched_in_a_way_that_nobody_knows_is_refused(tiny):
    tiny["rope.scaling.type"] = "dynamic"
    assert_refused(tiny.save(), "dynamic", kind=UnsupportedModelError)


def test_yarn_counts(tiny, plain, reference):
    tiny["rope.scaling.type"] = "yarn"
    assert np.array_equal(logits_of(tiny.save(), reference["ids"]), plain)  # by a factor of 1
    tiny["rope.scaling.factor"], tiny["rope.scaling.original_context_length"] = 4.0, 32
    assert relative_error(logits_of(tiny.save(), reference["ids"]), plain) > 0.01


NUMBERS = {key.removeprefix(f"{ARCH}."): v for key, v in Tiny.read().keys.items() if type(v) in (int, float)}
NUMBERS = {key: v for key, v in NUMBERS.items() if not key.startswith("general.")}
WHOLE = [key for key, value in NUMBERS.items() if type(value) is int]
OTHERS = ["nextn_predict_layers"]


@pytest.fixture(scope="module")
def try_with(tmp_path_factory):
    """Whether the tiny model with other keys, in a file, loads and takes a few tokens."""
    path, write = tmp_path_factory.mktemp("keys") / "model.gguf", Tiny.read().writer()
    return lambda keys: try_to_run(write(path, keys))


KEYS = Tiny.read().keys


def try_to_run(path):
    """Whether a model that may be refused loads and takes a few tokens."""
    try:
        engine = load(path, ctx=None, chunk=4)
        engine.prefill([1, 2, 3, 4, 5])
        engine.step(6)
        engine.close()
    except QcliError as error:
        assert_clear(error)
        return False
    return True


@pytest.mark.parametrize("key", [*WHOLE, *OTHERS])
def test_every_number_of_the_header_may_be_wrong(try_with, key):
    value: Any = NUMBERS.get(key, 0)
    others = [0, 1, -1, 2, 3, value - 1, value + 1, 2 * value, value // 2, value + 16, 2**31 - 1, 2**31, 2**32, 2**62]
    for other in others:
        try_with(KEYS | {f"{ARCH}.{key}": other})


FRACTIONS = {
    "attention.layer_norm_rms_epsilon": (0.0, 1e-38),
    "expert_weights_scale": (0.0, 1e-38, -1.0),
    "rope.freq_base": (),
}


@pytest.mark.parametrize(("key", "sound"), FRACTIONS.items())
def test_every_fraction_of_the_header_may_be_wrong(try_with, key, sound):
    for other in [0.0, -1.0, 1e-38, 1e38, 1e300, -1e300, float("inf"), float("nan")]:
        assert try_with(KEYS | {f"{ARCH}.{key}": other}) == (other in sound)


def test_every_key_may_be_missing(try_with):
    for missing in KEYS:
        try_with({key: value for key, value in KEYS.items() if key != missing})


@pytest.mark.parametrize("value", ["text", 1.5, True, np.array([1, 2])])
def test_every_key_may_have_another_type(try_with, value):
    for key in [*NUMBERS, *OTHERS, "attention.recurrent_layers", "rope.scaling.type"]:
        try_with(KEYS | {f"{ARCH}.{key}": value})


@settings(max_examples=60, deadline=None)
@given(
    changes=st.dictionaries(
        st.sampled_from([*WHOLE, *OTHERS]),
        st.one_of(st.integers(-1, 130), st.sampled_from([2**31 - 1, 2**31, 2**63 - 1])),
        min_size=1,
        max_size=4,
    )
)
def test_any_numbers_of_the_header_may_be_wrong(try_with, changes):
    try_with(KEYS | {f"{ARCH}.{key}": value for key, value in changes.items()})


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(NAMES),
    shape=st.lists(st.sampled_from([1, 2, 16, 32, 64, 128, 256, 512]), min_size=1, max_size=4),
)
def test_any_tensor_may_have_another_shape(tmp_path, name, shape):
    model = Tiny.read()
    if np.prod(shape) > 1 << 16:
        shape = shape[:2]
    model.put(name, "F32", f32(np.ones(shape)), shape[-1])
    try_to_run(model.write(tmp_path / "model.gguf"))


def test_weights_that_are_no_numbers_do_no_harm(tiny):
    """NaN and infinity flow through the router and the norms without touching memory that is not theirs."""
    for name, (kind, data) in tiny.tensors.items():
        if kind == "BF16":
            words = np.ascontiguousarray(data).view(np.uint16)
            words[..., ::3], words[..., 1::7] = 0x7FC0, 0x7F80
            tiny.put(name, kind, words.view(np.uint8), tiny.columns[name])
    assert try_to_run(tiny.save())


def test_every_combination_of_thread_and_chunk_loads():
    for threads, chunk in itertools.product((1, 2), (1, 2, 3)):
        engine = load(PLAIN, threads=threads, chunk=chunk)
        assert np.isfinite(engine.prefill([5, 6, 7])).all()
        engine.close()
