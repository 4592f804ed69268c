"""Files that are no language model are called what they are, by every command that needs one."""

from __future__ import annotations

from pathlib import Path

import pytest
from gguf_maker import STRING, File, array, key, tensor, write
from places import DATA

from qcli.errors import ModelFileError, ModelNotFoundError, UnsupportedModelError
from qcli.gguf.file import GGUFFile
from qcli.gguf.kinds import other_kind, require_model
from qcli.quantize import convert, job

TINY = DATA / "qwen3next.gguf"


def made(path: Path, type_: str = "", architecture: str = "llama", tensors: tuple[str, ...] = ("x",)) -> Path:
    keys = [key("general.architecture", STRING, architecture)]
    keys += [key("general.type", STRING, type_)] if type_ else []
    keys += [] if tensors else [array("tokenizer.ggml.tokens", STRING, ["a"])]
    rows = [tensor(name, (8,), offset=32 * i) for i, name in enumerate(tensors)]
    return write(path, File(keys, rows, bytes(32 * len(tensors))))


KINDS = [
    ({"type_": "adapter"}, "LoRA"),
    ({"tensors": ("blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b")}, "LoRA"),
    ({"type_": "mmproj", "architecture": "clip"}, "mmproj"),
    ({"architecture": "clip"}, "mmproj"),
    ({"type_": "imatrix"}, "imatrix"),
    ({"tensors": ("blk.0.attn_q.weight.in_sum2", "blk.0.attn_q.weight.counts")}, "imatrix"),
    ({"type_": "log_probs"}, "log_probs"),
    ({"architecture": "controlvector", "tensors": ("direction.1",)}, "control vector"),
    ({"architecture": "eagle3"}, "draft"),
    ({"architecture": "nomic-bert"}, "embeddings"),
    ({"tensors": ()}, "vocabulary"),
    ({"type_": "vocab"}, "vocabulary"),
]


@pytest.mark.parametrize(("how", "said"), KINDS)
def test_a_file_is_called_what_it_is(tmp_path, how, said):
    path = made(tmp_path / "m.gguf", **how)
    with GGUFFile.open(path) as file, pytest.raises(UnsupportedModelError, match=said) as caught:
        require_model(file)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_model_is_none_of_these(storyteller):
    for path in (storyteller, TINY):
        with GGUFFile.open(path) as file:
            assert other_kind(file) is None


@pytest.mark.parametrize(
    "line",
    [
        ["run", "hi", "-m", "M"],
        ["bench", "-m", "M"],
        ["plan", "M"],
        ["experts", "M", "--prompt", "hi"],
        ["perplexity", "M", "T"],
        ["imatrix", "M", "T", "-o", "O"],
    ],
)
def test_every_command_says_so(type_line, tmp_path, line):
    model = made(tmp_path / "m.gguf", "adapter")
    (text := tmp_path / "t.txt").write_text("hello " * 1000)
    places = {"M": str(model), "T": str(text), "O": str(tmp_path / "out.gguf")}
    code, out, err = type_line(*(places.get(word, word) for word in line))
    assert (code, out) == (1, "")
    assert "an adapter (LoRA)" in err


@pytest.fixture
def parts(tmp_path) -> list[Path]:
    with GGUFFile.open(TINY) as file:
        todo = job.make_job(file, tmp_path / "m.gguf", "BF16", split_bytes=50_000)
        convert.run(todo, threads=1)
    return todo.paths


@pytest.mark.parametrize("name", ["joined.gguf", "m-00001-of-{:05d}.gguf"])
def test_parts_that_were_joined_by_bytes(parts, tmp_path, name):
    whole = b"".join(part.read_bytes() for part in parts)
    for part in parts:
        part.unlink()
    path = write(tmp_path / name.format(len(parts)), whole)
    with pytest.raises(ModelFileError, match="joined into one file") as caught:
        GGUFFile.open(path)
    assert "--merge" in caught.value.hint


def test_a_first_part_that_was_renamed_is_to_be_named_as_before(parts):
    renamed = parts[0].rename(parts[0].with_name("other.gguf"))
    with pytest.raises(ModelFileError, match="not named so"):
        GGUFFile.open(renamed)


def test_parts_in_capitals_are_found(parts):
    capitals = [part.rename(part.with_name(part.name.upper())) for part in parts]
    with GGUFFile.open(capitals[0]) as file:
        assert file.paths == capitals
    capitals[-1].unlink()
    with pytest.raises(ModelNotFoundError, match=capitals[-1].name):
        GGUFFile.open(capitals[0])


def test_a_name_in_capitals_is_a_path(type_line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no such file" in type_line("show", "NONE.GGUF")[2]
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "M.GGUF", TINY.read_bytes())
    assert "type folder/M.GGUF" in type_line("show", "folder")[2]
    assert type_line("show", "folder/M.GGUF")[0] == 0


@pytest.mark.parametrize("ending", ["-split-a", ".part1of2", ".part1", ".001"])
def test_a_piece_that_was_cut_by_bytes_is_to_be_joined(tmp_path, ending):
    content = TINY.read_bytes()
    half = len(content) // 2
    for piece in (content[:half], content[half:]):
        path = write(tmp_path / f"m.gguf{ending}", piece)
        with pytest.raises(ModelFileError) as caught:
            GGUFFile.open(path)
        assert "`cat` all pieces" in caught.value.hint
        assert "into m.gguf" in caught.value.hint
