"""qcli show: sums one can check by hand, and files that are odd, hostile, or of no known architecture."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from gguf_maker import BOOL, F32, I32, STRING, U32, File, array, key, small_model, tensor, write

from qcli import cli, models
from qcli.commands.show import show
from qcli.commands.supported import supported
from qcli.errors import ModelFileError, ModelNotFoundError, UnsupportedModelError
from qcli.gguf.file import GGUFFile
from qcli.gguf.summary import Experts, Layers, Summary, is_supported, summarize


def draft_model() -> File:
    """Two layers, one recurrent with 4 experts, one dense; a draft layer; F32 throughout, so 4 bytes each."""
    shapes = {
        "token_embd.weight": (8, 32),
        "output_norm.weight": (32,),
        "output.weight": (8, 32),
        "blk.0.attn_qkv.weight": (2, 32),
        "blk.0.ssm_out.weight": (1, 32),
        "blk.0.ffn_gate_inp.weight": (4, 32),
        "blk.0.ffn_up_exps.weight": (4, 3, 32),
        "blk.0.ffn_up_shexp.weight": (2, 32),
        "blk.1.attn_q.weight": (2, 32),
        "blk.1.ffn_up.weight": (3, 32),
        "blk.2.attn_q.weight": (1, 32),
        "blk.2.ffn_up_exps.weight": (4, 3, 32),
        "blk.2.nextn.eh_proj.weight": (2, 32),
    }
    rows, offset = [], 0
    for name, shape in shapes.items():
        rows.append(tensor(name, shape, offset=offset))
        count = 1
        for n in shape:
            count *= n
        offset += 4 * count
    keys = [
        key("general.architecture", STRING, "drafty"),
        key("drafty.expert_used_count", U32, 1),
        key("drafty.context_length", U32, 4096),
        array("drafty.attention.head_count_kv", I32, [0, 2]),
    ]
    return File(keys, rows, bytes(offset))


def summary_of(path: Path, content: File) -> Summary:
    with GGUFFile.open(write(path / "model.gguf", content)) as file:
        return summarize(file, "model")


def test_scales_beside_weights(tmp_path, type_line):
    """As files of NVFP4 have them; a vector of another length, and a scale of nothing, are none."""
    shapes = {
        "blk.0.attn_q.weight": (2, 32),
        "blk.0.attn_q.scale": (1,),
        "blk.0.attn_q.input_scale": (1,),
        "blk.0.ffn_up_exps.weight": (4, 3, 32),
        "blk.0.ffn_up_exps.scale": (4,),
        "blk.0.ffn_gate_inp.weight": (4, 32),
        "blk.0.ffn_gate_inp.scale": (32,),
        "blk.0.attn_norm.scale": (1,),
    }
    rows = [tensor(name, shape, offset=1536 * i) for i, (name, shape) in enumerate(shapes.items())]
    content = File([key("general.architecture", STRING, "drafty")], rows, bytes(1536 * len(rows)))
    assert summary_of(tmp_path, content).scaled == 2
    _, out, _ = type_line("show", str(tmp_path / "model.gguf"))
    assert "beside 2 tensors of weights: of the tensor, or of each expert" in " ".join(out.split())
    assert summary_of(tmp_path, draft_model()).scaled == 0


def test_sums_by_hand(tmp_path):
    summary = summary_of(tmp_path, draft_model())
    assert summary.layers == Layers(total=2, recurrent=1, attention=1, with_experts=1, dense=1, mtp=1)
    assert summary.experts == Experts(count=4, used=1, shared=1)
    assert {group: total.parameters // 32 for group, total in summary.groups.items()} == {
        "embedding": 8,
        "norms": 1,
        "mixers": 5,
        "routers": 4,
        "routed experts": 12,
        "shared experts": 2,
        "dense FFN": 3,
        "head": 8,
        "MTP": 15,
    }
    assert summary.total.parameters == 58 * 32
    assert summary.per_token.parameters == (1 + 5 + 4 + 12 // 4 + 2 + 3 + 8) * 32
    assert summary.per_token.bytes == 4 * summary.per_token.parameters
    assert summary.types["F32"].bits_per_weight == 32


def test_a_tied_head_reads_the_embedding(tmp_path):
    summary = summary_of(tmp_path, File(tensors=[tensor("token_embd.weight", (2, 32))], data=bytes(256)))
    assert summary.per_token.parameters == 64


def test_types_and_bits(tmp_path):
    types = summary_of(tmp_path, small_model()).types
    assert {name: (total.tensors, total.bytes, total.bits_per_weight) for name, total in types.items()} == {
        "Q4_K": (1, 288, 4.5),
        "Q8_0": (1, 204, 8.5),
        "F32": (1, 128, 32),
    }
    assert list(types) == ["Q4_K", "Q8_0", "F32"]


def test_the_embedded_model(capsys):
    show(None, as_json=True, tensors=False)
    said = json.loads(capsys.readouterr().out)
    assert said["name"] == "storyteller"
    assert said["architecture"] == "qwen3next"
    layers = {"total": 8, "recurrent": 6, "attention": 2, "with_experts": 8, "dense": 0, "mtp": 1}
    assert said["layers"] == layers
    assert said["experts"] == {"count": 16, "used": 4, "shared": 1}
    assert (said["context_length"], said["vocab_size"], said["chat_template"]) == (2048, 8192, True)
    assert said["metadata"]["qwen3next.embedding_length"] == 256
    assert said["metadata"]["tokenizer.ggml.tokens"] == {"length": 8192}
    assert said["types"]["Q4_K"]["bits_per_weight"] == 4.5
    assert sum(group["bytes"] for group in said["groups"].values()) == said["total"]["bytes"]
    assert "tensors" not in said


def test_a_table_for_eighty_columns_without_colour(capsys):
    show(None, as_json=False, tensors=False)
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0] == "storyteller"
    assert "general.name" not in said.out
    # the path is the reader's own
    assert max(len(line) for line in lines if not line.startswith("file")) <= 80
    assert "\x1b" not in said.out
    assert said.err == ""
    assert "16 in a layer; a token uses 4 and 1 shared" in said.out
    assert re.search(r"^routed experts +24 +25\.2 M +15\.2 MB +63\.5%$", said.out, re.MULTILINE)
    assert re.search(r"^Q6_K +16 +8\.29 M +6\.80 MB +28\.3% +6\.56$", said.out, re.MULTILINE)


def test_every_key_and_tensor_on_request(capsys, tmp_path):
    path = write(tmp_path / "model.gguf", small_model())
    show(str(path), as_json=False, tensors=True)
    said = capsys.readouterr().out
    assert re.search(r"^tiny\.i64 +-1,099,511,627,776$", said, re.MULTILINE)
    assert re.search(r"^tiny\.flags +yes no yes$", said, re.MULTILINE)
    assert re.search(r"^blk\.0\.ffn_up_exps\.weight +Q8_0 +2 × 3 × 32 +204 B$", said, re.MULTILINE)
    show(str(path), as_json=True, tensors=True)
    rows = json.loads(capsys.readouterr().out)["tensors"]
    assert [row["shape"] for row in rows] == [[4, 8], [2, 3, 32], [2, 256]]


@pytest.mark.parametrize("as_json", [True, False])
def test_odd_files_are_shown_all_the_same(capsys, tmp_path, as_json):
    keys = [
        key("general.name", STRING, "\x1b[31m[bold]odd[/bold]\n"),
        key("general.architecture", STRING, "../../etc"),
        key("../../etc.context_length", STRING, "many"),
        key("../../etc.expert_used_count", BOOL, True),
        key("../../etc.embedding_length", F32, float("nan")),
        array("../../etc.attention.head_count", I32, []),
        key("tokenizer.ggml.tokens", U32, 7),
    ]
    rows = [tensor("blk.99999999999999999999.attn_q.weight", (4,)), tensor("x_exps.weight", (1,), offset=32)]
    path = write(tmp_path / "model.gguf", File(keys, rows, bytes(64)))
    show(str(path), as_json, tensors=True)
    said = capsys.readouterr().out
    assert "\x1b" not in said
    if as_json:
        assert json.loads(said)["metadata"]["../../etc.embedding_length"] == "nan"
    else:
        assert "[bold]odd[/bold]" in said
        assert "qcli cannot run it" in said


def test_a_name_in_the_file_is_what_it_calls_itself(capsys, tmp_path):
    path = write(tmp_path / "Some-7B-Q4_K_M.gguf", File([key("general.name", STRING, "Hf")], []))
    show(str(path), as_json=False, tensors=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Some-7B-Q4_K_M"
    assert re.search(r"^general\.name +Hf$", "\n".join(lines), re.MULTILINE)


def test_a_vocabulary_alone(capsys, tmp_path):
    path = write(tmp_path / "model.gguf", File([array("tokenizer.ggml.tokens", STRING, ["a", "b"])]))
    show(str(path), as_json=False, tensors=False)
    assert "none: that of its special tokens, or ChatML" in capsys.readouterr().out


def test_architectures_are_found_by_name():
    assert is_supported("qwen3next")
    for name in ("", "qwen9", "../qwen3next", "qwen3next.plan", "os", "__init__", "a b"):
        assert not is_supported(name)


def test_no_such_model(tmp_path):
    with pytest.raises(ModelNotFoundError):
        show(str(tmp_path / "absent.gguf"), as_json=False, tensors=False)
    with pytest.raises(ModelFileError):
        show(str(write(tmp_path / "bad.gguf", b"GGUF")), as_json=False, tensors=False)


def test_summaries_are_json(tmp_path):
    json.dumps(asdict(summary_of(tmp_path, small_model())) | {"path": ""}, allow_nan=False)


def test_what_is_supported(capsys):
    supported(as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [row["architecture"] for row in rows] == list(models.supported())
    assert all(row["about"] and row["verified"] for row in rows)
    supported(as_json=False)
    said = capsys.readouterr().out
    assert re.search(r"^gpt-oss +gpt-oss \(OpenAI", said, re.MULTILINE)
    assert said.count("verified: ") == len(rows)


def test_supported_is_about_no_file(capsys):
    assert cli.invoke(["show", "--supported", "--json"]) == 0
    assert cli.invoke(["show", "--supported", "some.gguf"]) == 2
    assert "--supported is about no file" in capsys.readouterr().err


def test_an_unknown_architecture_is_told_the_closest(tmp_path):
    for name, close in {"qwen3moe2": "qwen3moe", "gpt_oss2": "gpt-oss", "deepseek3": "deepseek2"}.items():
        file = GGUFFile.open(write(tmp_path / "model.gguf", File([key("general.architecture", STRING, name)])))
        with pytest.raises(UnsupportedModelError, match=f'"{name}" is not supported') as caught:
            models.context_length(file)
        assert f"the closest is {close}" in caught.value.hint
        assert "glm4moe, gpt-oss, granitehybrid, granitemoe" in caught.value.hint
