"""A block for multi-token prediction in a file of its own: joined where it fits, refused in a line where it does not."""

from __future__ import annotations

import numpy as np
import pytest
import reference_models
from tiny_model import Tiny

from qcli import LLM
from qcli.errors import ModelFileError, ModelNotFoundError, UsageError
from qcli.gguf.draft_block import open_with_draft, with_blocks
from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine
from qcli.streaming import budget

NAMES = ["qwen3next-mtp", "qwen35-mtp"]
OF_ANOTHER = {"general.architecture": "llama", "llama.block_count": 6, "llama.nextn_predict_layers": 1}
IDS = np.random.default_rng(1).integers(6, 60, 30).tolist()


def parts(whole, arch):
    """The same model without its block, and the block with what files of it have besides."""
    model, draft = (Tiny(dict(whole.keys), dict(whole.tensors), dict(whole.columns)) for _ in range(2))
    layers = whole.keys[f"{arch}.block_count"] - 1
    block = f"blk.{layers}."
    for name in whole.tensors:
        if name.startswith(block):
            model.take(name)
        elif name.startswith("blk."):
            draft.take(name)
    model.keys[f"{arch}.block_count"] = layers
    del model.keys[f"{arch}.nextn_predict_layers"]
    for key, value in model.keys.items():
        if key.startswith(arch) and isinstance(value, np.ndarray) and len(value) == layers + 1:
            model.keys[key] = value[:layers]
    return model, draft


@pytest.fixture(params=NAMES)
def made(request, tmp_path):
    """The path of a whole model; that model without its block, and the block."""
    path = reference_models.read(request.param).write(tmp_path / "whole.gguf")
    return path, *parts(Tiny.read(path), request.param.split("-")[0])


def guesses(file):
    engine = Engine.load(file, threads=1, ctx=64, chunk=32, mtp=True)
    found = []
    engine.prefill(IDS[:10])
    for token in IDS[10:]:
        found.append(engine.draft(token, 3))
        engine.step(token)
    engine.close()
    return found


def test_a_file_beside_the_model(made, tmp_path):
    whole, model, draft = made
    (tmp_path / "models").mkdir()
    path = model.write(tmp_path / "models" / "Tiny-Q4_K_M.gguf")
    assert open_with_draft(path).tensors.keys() == GGUFFile.open(path).tensors.keys()
    (tmp_path / "models" / "mtp-broken.gguf").write_bytes(b"GGUF")
    draft.write(tmp_path / "models" / "MTP-Tiny-Q8_0.gguf")
    assert guesses(open_with_draft(path)) == guesses(GGUFFile.open(whole))


def test_a_file_that_is_named_and_matrices_of_its_own(made, tmp_path):
    """Guesses are made with the draft's embedding and output where it has these, and the text by the model's."""
    whole, model, draft = made
    path, plain = model.write(tmp_path / "model.gguf"), guesses(GGUFFile.open(whole))
    assert guesses(open_with_draft(path, draft.write(tmp_path / "draft.gguf"))) == plain
    kind, data = draft.tensors["output.weight"]
    draft.put("output.weight", kind, data[::-1].copy(), draft.columns["output.weight"])
    joined = open_with_draft(path, draft.write(tmp_path / "other.gguf"))
    assert guesses(joined) != plain
    for name in ("token_embd.weight", "output.weight", "output_norm.weight"):
        draft.take(name)
    assert guesses(open_with_draft(path, draft.write(tmp_path / "less.gguf"))) == plain
    with_own = open_with_draft(whole, tmp_path / "other.gguf")  # in place of the model's
    assert guesses(with_own) == guesses(joined)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_block_that_nobody_asks_takes_no_memory(made, monkeypatch, streamed):
    """Neither its weights are counted or read, nor is there a state for it."""
    file, counted = GGUFFile.open(made[0]), []
    layers = file.get_int(f"{file.get_str('general.architecture')}.block_count") - 1

    def fits(file, *_):
        counted.append(set(file.tensors))
        return not streamed

    monkeypatch.setattr(budget, "fits", fits)
    states = []
    for mtp in (False, True):
        engine = Engine.load(file, threads=1, ctx=64, chunk=32, mtp=mtp)
        assert (engine.draft_head is not None) == mtp
        if engine.expert_loader:
            of_block = {name.startswith(f"blk.{layers}.") for name in engine.expert_loader.layers}
            assert of_block == ({False, True} if mtp else {False})
        states.append(engine.state.n_bytes)
        engine.close()
    block = {name for name in file.tensors if name.startswith(f"blk.{layers}.")}
    assert counted == (
        [set(file.tensors) - block, set(file.tensors)] if engine.experts_total else []
    )  # else nobody asks
    assert states[0] < states[1]


def test_of_several_blocks_the_first_is_kept(made):
    whole = Tiny.read(made[0])
    arch = whole.keys["general.architecture"]
    blocks, name = GGUFFile.open(made[0]).get_int(f"{arch}.block_count"), "blk.{}.nextn.enorm.weight"
    whole.keys |= {f"{arch}.block_count": blocks + 1, f"{arch}.nextn_predict_layers": 2}
    before = name.format(blocks - 1)
    whole.put(name.format(blocks), *whole.tensors[before], whole.columns[before])
    for key, value in whole.keys.items():
        if key.startswith(arch) and isinstance(value, np.ndarray) and len(value) == blocks:
            whole.keys[key] = np.append(value, value[-1:])
    file = GGUFFile.open(whole.write(made[0].with_name("two.gguf")))
    first, second = name.format(blocks - 1), name.format(blocks)
    assert [n in with_blocks(file, 1).tensors for n in (first, second)] == [True, False]
    assert [n in with_blocks(file, 0).tensors for n in (first, second)] == [False, False]
    assert with_blocks(file, 2) is file
    assert guesses(file) == guesses(GGUFFile.open(made[0]))


def test_numbers_for_each_layer(made, tmp_path):
    """A model's list of them goes on with those of the draft, or with its last."""
    whole, model, draft = made
    arch = GGUFFile.open(whole).metadata["general.architecture"]
    key, layers = f"{arch}.attention.head_count_kv", model.keys[f"{arch}.block_count"]
    one = int(np.max(draft.keys[key]))
    model.keys[key] = np.full(layers, one, np.int32)
    for own in (np.full(layers + 1, one, np.int32), one):
        draft.keys[key] = own
        file = open_with_draft(model.write(tmp_path / "model.gguf"), draft.write(tmp_path / "draft.gguf"))
        assert file.metadata[key].tolist() == [one] * (layers + 1)
        assert guesses(file) == guesses(GGUFFile.open(whole))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda draft, arch: draft.keys.update(
                {"general.architecture": "llama", "llama.block_count": 6, "llama.nextn_predict_layers": 1}
            ),
            "architecture",
        ),
        (lambda draft, arch: draft.keys.update({f"{arch}.block_count": 9}), "number of layers is 8, not 5"),
        (lambda draft, arch: draft.keys.update({f"{arch}.embedding_length": 128}), "width is 128, not 64"),
        (
            lambda draft, arch: draft.put("token_embd.weight", "F32", np.zeros((99, 256), np.uint8), 64),
            "vocabulary is 99",
        ),
        (lambda draft, arch: [draft.take(name) for name in [*draft.tensors] if "nextn" in name], "has no block"),
        (lambda draft, arch: draft.keys.pop("general.architecture"), "has no block"),
        (lambda draft, arch: draft.keys.update({f"{arch}.nextn_predict_layers": 1 << 30}), "has no block"),
        (lambda draft, arch: draft.keys.update({f"{arch}.nextn_predict_layers": -1}), "has no block"),
    ],
)
def test_files_that_do_not_fit(change, said, tmp_path):
    whole = reference_models.read("qwen3next-mtp").write(tmp_path / "whole.gguf")
    model, draft = parts(Tiny.read(whole), "qwen3next")
    change(draft, "qwen3next")
    path, other = model.write(tmp_path / "model.gguf"), draft.write(tmp_path / "mtp-other.gguf")
    with pytest.raises(ModelFileError, match=said) as caught:
        open_with_draft(path, other)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert (
        open_with_draft(path).tensors.keys() == GGUFFile.open(path).tensors.keys()
    )  # left alone where nobody named it
    with pytest.raises(ModelNotFoundError):
        open_with_draft(path, tmp_path / "nowhere.gguf")


def test_guesses_by_a_head_that_is_not_there(tmp_path):
    path = reference_models.read("llama").write(tmp_path / "model.gguf")
    with pytest.raises(UsageError, match="no block for multi-token prediction"):
        LLM(path, draft="mtp", threads=1)
    with pytest.raises(ModelFileError, match="belongs to another model"):
        LLM(draft_model=reference_models.read("qwen3next-mtp").write(tmp_path / "other.gguf"), threads=1)


def test_lines_that_name_one(refused, tmp_path, tmp_path_factory):
    other = reference_models.read("qwen3next-mtp").write(tmp_path_factory.mktemp("other") / "other.gguf")
    refused(["run", "Hi", "--draft-model", str(other)], 1, "belongs to another model: its number of layers is 5, not 8")
    refused(["run", "Hi", "--draft-model", str(tmp_path / "no.gguf")], 1, "no such file")
    refused(["run", "Hi", "--draft", "both"], 2, "give auto, off, mtp, lookup, or a number from 1 to 7")
