"""What is read is never written over: one rule for all commands that write, whatever name or link leads there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from places import DATA

from qcli.errors import OutputError
from qcli.gguf.file import GGUFFile
from qcli.host.atomic_files import AtomicFiles
from qcli.quantize import convert, job

TINY = DATA / "qwen3next.gguf"


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "source"
    path.write_text("kept")
    return path


def symbolic(source: Path) -> Path:
    (link := source.with_name("link")).symlink_to(source.name)
    return link


def hard(source: Path) -> Path:
    os.link(source, link := source.with_name("second"))
    return link


def through_a_folder(source: Path) -> Path:
    (folder := source.with_name("folder")).symlink_to(".")
    return folder / source.name


def roundabout(source: Path) -> Path:
    (inner := source.with_name("inner")).mkdir()
    return inner / ".." / source.name


def relative(source: Path) -> Path:
    return Path(os.path.relpath(source))


@pytest.mark.parametrize("other", [Path, symbolic, hard, through_a_folder, roundabout, relative])
def test_no_name_and_no_link_of_what_is_read_is_written(source, other):
    name = other(source)
    for read, written in ((source, name), (name, source)):
        with pytest.raises(OutputError, match="is read by this command"):
            AtomicFiles([written], overwrite=True, reads=[read])
    assert source.read_text() == "kept"


def test_neither_is_an_open_file_of_the_process(source):
    with open(source) as file:
        path = Path(f"/proc/self/fd/{file.fileno()}")
        if not path.exists():
            pytest.skip("no /proc here")
        with pytest.raises(OutputError, match="is read by this command"):
            AtomicFiles([path], overwrite=True, reads=[source])
        with pytest.raises(OutputError, match="is read by this command"):
            AtomicFiles([source], overwrite=True, reads=[path])


def test_a_link_that_is_made_meanwhile_is_seen_at_the_end(source, tmp_path):
    target = tmp_path / "out"

    def write_late() -> None:
        with AtomicFiles([target], overwrite=True, reads=[source]) as output:
            output.open(target).write(b"new")
            target.symlink_to(source)

    with pytest.raises(OutputError, match="is read by this command"):
        write_late()
    assert source.read_text() == "kept"


def test_a_copy_of_what_is_read_may_be_replaced(source, tmp_path):
    copy = tmp_path / "copy"
    copy.write_text("kept")
    with AtomicFiles([copy], overwrite=True, reads=[source, tmp_path / "nowhere"]) as output:
        output.open(copy).write(b"new")
    assert copy.read_text() == "new"


def test_no_part_of_a_split_model_is_written_over(tmp_path):
    with GGUFFile.open(TINY) as file:
        todo = job.make_job(file, tmp_path / "m.gguf", "Q8_0", split_bytes=50_000)
        convert.run(todo, threads=1)
    with GGUFFile.open(todo.paths[0]) as file:
        assert file.paths == todo.paths
        for out, size in ((todo.paths[-1], None), (tmp_path / "m.gguf", 50_000)):
            with pytest.raises(OutputError, match="is read by this command"):
                convert.check_output(job.make_job(file, out, "Q8_0", split_bytes=size), overwrite=True)


def given(tmp_path: Path) -> dict[str, str]:
    """A model, a text, an importance matrix and predictions, each a file of its own."""
    paths = {name: tmp_path / name for name in ("model.gguf", "text.txt", "importance.gguf", "predictions.gguf")}
    paths["model.gguf"].write_bytes(TINY.read_bytes())
    paths["text.txt"].write_text("once upon a time " * 40)
    return {path.stem: str(path) for path in paths.values()}


def test_no_command_writes_over_what_it_reads(type_line, tmp_path):
    files = given(tmp_path)
    model, text, importance, predictions = files.values()
    size = ["--ctx", "16", "--chunks", "1"]
    assert type_line("imatrix", model, text, "-o", importance, *size)[0] == 0
    assert type_line("perplexity", model, text, "--save-logits", predictions, *size)[0] == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for line in (
        *(["imatrix", model, text, "-o", out, *size] for out in (model, text)),
        *(["perplexity", model, text, "--save-logits", out, *size] for out in (model, text)),
        *(["perplexity", model, "--against", predictions, "--save-logits", out] for out in (model, predictions)),
        ["quantize", model, model, "Q8_0"],
        ["quantize", model, importance, "Q8_0", "--imatrix", importance],
    ):
        code, out, err = type_line(*line, "--force")
        assert (code, out) == (1, ""), line
        assert "is read by this command" in err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
