"""qcli quantize: tensors against their quantizers, and files that are whole or not there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import gguf_maker as maker
import numpy as np
import pytest
import reference_models
from named_tensors import named
from places import DATA, ROOT

from qcli.errors import ModelFileError, OutputError, QcliError, UsageError
from qcli.gguf.file import GGUFFile
from qcli.host.atomic_files import AtomicFiles
from qcli.quantize import convert, imatrix_file, job
from qcli.quantize.imatrix_file import Entry, Imatrix
from qcli.quantize.tensor_types import allows_quantization
from qcli.runtime.engine import Engine
from quant import formats, quantizers

TINY = DATA / "qwen3next.gguf"


@pytest.fixture
def tiny():
    with GGUFFile.open(TINY) as file:
        yield file


def quantize(source: GGUFFile, out: Path, mix: str, **options) -> job.Job:
    todo = job.make_job(source, out, mix, **options)
    convert.run(todo, threads=2)
    return todo


@pytest.mark.parametrize("mix", ["Q8_0", "Q4_0", "Q4_K_M", "F16", "F32", "MXFP4_MOE", "IQ4_NL"])
def test_every_tensor_is_what_its_quantizer_makes_of_it(tiny, tmp_path, mix):
    todo = quantize(tiny, tmp_path / "out.gguf", mix)
    assert (tmp_path / "out.gguf").stat().st_size == todo.n_bytes
    with GGUFFile.open(tmp_path / "out.gguf") as made:
        assert list(made.tensors) == list(tiny.tensors)
        for name, tensor in made.tensors.items():
            source = tiny.tensors[name]
            assert tensor.shape == source.shape
            if tensor.type == source.type:
                wanted = source.data
            else:
                values = formats.find(source.type).dequantize(source.data)
                wanted = quantizers.find(tensor.type).quantize(values)
            assert np.array_equal(tensor.data, wanted), name


@pytest.mark.parametrize("name", ["qwen3next-mtp", "qwen35-mtp"])
def test_a_block_for_multi_token_prediction_is_kept_and_guesses(name, tmp_path):
    """Its matrices have the types that a layer's have, and it guesses nearly what it did."""
    found = {}
    with GGUFFile.open(reference_models.read(name).write(tmp_path / "in.gguf")) as source:
        todo = quantize(source, tmp_path / "out.gguf", "Q8_0")
        changed = {change.tensor.name for change in todo.changes}
        assert {"blk.5.nextn.eh_proj.weight", "blk.5.attn_q.weight"} <= changed
        for file in (source, GGUFFile.open(tmp_path / "out.gguf")):
            assert {name for name in source.tensors if name.startswith("blk.5.")} <= file.tensors.keys()
            engine, ids = Engine.load(file, threads=1, ctx=64, mtp=True), np.arange(6, 46).tolist()
            engine.prefill(ids[:8])
            found[file.path.name] = [(engine.draft(id, 1), engine.step(id))[0] for id in ids[8:]]
            engine.close()
    alike = sum(map(list.__eq__, found["in.gguf"], found["out.gguf"]))
    assert alike > len(found["in.gguf"]) / 2  # random weights: by chance one in 512


def test_a_tensor_in_many_slices_is_the_same(tiny, tmp_path, monkeypatch):
    quantize(tiny, tmp_path / "whole.gguf", "Q8_0")
    monkeypatch.setattr(convert, "_SLICE", 1000)
    quantize(tiny, tmp_path / "slices.gguf", "Q8_0")
    assert (tmp_path / "whole.gguf").read_bytes() == (tmp_path / "slices.gguf").read_bytes()


def test_the_same_type_is_a_copy_byte_for_byte(tiny, tmp_path):
    quantize(tiny, tmp_path / "copy.gguf", "BF16")
    with GGUFFile.open(tmp_path / "copy.gguf") as made:
        for name, tensor in made.tensors.items():
            assert np.array_equal(tensor.data, tiny.tensors[name].data)
        assert {k: bytes(v) for k, v in made.entries.items()} == {k: bytes(v) for k, v in tiny.entries.items()}


def test_keys_pass_through_and_the_file_type_changes(tiny, tmp_path):
    quantize(tiny, tmp_path / "out.gguf", "Q8_0")
    with GGUFFile.open(tmp_path / "out.gguf") as made:
        assert list(made.entries) == list(tiny.entries)
        changed = [k for k in made.entries if bytes(made.entries[k]) != bytes(tiny.entries[k])]
        assert changed == ["general.file_type"]
        assert made.metadata["general.file_type"] == 7


def test_parts_hold_what_one_file_holds(tiny, tmp_path):
    todo = quantize(tiny, tmp_path / "out.gguf", "Q8_0", split_bytes=50_000)
    assert len(todo.paths) > 2
    assert sorted(tmp_path.iterdir()) == todo.paths
    quantize(tiny, tmp_path / "one.gguf", "Q8_0")
    with GGUFFile.open(todo.paths[0]) as parts, GGUFFile.open(tmp_path / "one.gguf") as one:
        assert parts.metadata["split.count"] == len(todo.paths)
        for name, tensor in one.tensors.items():
            assert np.array_equal(parts.tensors[name].data, tensor.data)
        quantize(parts, tmp_path / "again.gguf", "Q8_0")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "one.gguf").read_bytes()


def guide(tiny: GGUFFile, rng) -> Imatrix:
    """Random importance for every matrix, the experts' each by itself."""
    entries = {}
    for name, tensor in tiny.tensors.items():
        if allows_quantization(tensor) and name.startswith("blk."):
            experts = tensor.shape[0] if len(tensor.shape) > 2 else 1
            sums = rng.uniform(0.01, 10, (experts, tensor.shape[-1])).astype(np.float32)
            entries[name] = Entry(sums, np.arange(1, experts + 1))
    return Imatrix(entries, ["words.txt"], 3, 512)


def test_each_expert_is_quantized_by_its_own_importance(tiny, tmp_path):
    about = guide(tiny, np.random.default_rng(0))
    name = "blk.1.ffn_gate_exps.weight"
    quantize(tiny, tmp_path / "out.gguf", "Q4_0", imatrix=(Path("im.gguf"), about))
    with GGUFFile.open(tmp_path / "out.gguf") as made:
        tensor, source = made.tensors[name], tiny.tensors[name]
        values = formats.find(source.type).dequantize(source.data).reshape(source.shape)
        means = about.entries[name].means()
        wanted = [quantizers.find("Q4_0").quantize(v, means[e]) for e, v in enumerate(values)]
        assert np.array_equal(tensor.data, np.concatenate(wanted))
        assert not np.array_equal(tensor.data, quantizers.find("Q4_0").quantize(values.reshape(-1, source.shape[-1])))
        assert made.metadata["quantize.imatrix.file"] == "im.gguf"
        assert made.metadata["quantize.imatrix.dataset"] == "words.txt"
        assert made.metadata["quantize.imatrix.entries_count"] == len(about.entries)
        assert made.metadata["quantize.imatrix.chunks_count"] == 3


def test_importance_of_another_model_is_refused(tiny):
    about = guide(tiny, np.random.default_rng(0))
    wrong = Imatrix({"blk.0.attn_qkv.weight": Entry(np.ones((1, 7), np.float32), np.array([1]))}, [], 0, 0)
    with pytest.raises(ModelFileError, match=r"attn_qkv.*7 columns"):
        job.make_job(tiny, Path("x"), "Q4_0", imatrix=(Path("i"), wrong))
    del about.entries["blk.2.ssm_out.weight"]
    lacking = job.make_job(tiny, Path("x"), "Q4_0", imatrix=(Path("i"), about)).without_importance
    assert lacking == ["blk.2.ssm_out.weight"]


def test_a_block_that_was_not_measured_needs_another_type(tiny):
    """As the MTP block of a model, which is no part of its forward pass."""
    about = guide(tiny, np.random.default_rng(0))
    wide = named(dict(tiny.metadata), {name: (*t.shape[:-1], 256) for name, t in tiny.tensors.items()})
    kept = {name: entry for name, entry in about.entries.items() if not name.startswith("blk.3.")}
    guided = {n: Entry(np.ones((len(e.counts), 256), np.float32), e.counts) for n, e in kept.items()}
    given = (Path("i"), Imatrix(guided, [], 0, 0))
    with pytest.raises(UsageError, match=r"blk\.3\..*Q2_K needs") as raised:
        job.make_job(wide, Path("x"), "Q2_K_S", imatrix=given)
    pattern = raised.value.hint.split("'")[1]
    assert pattern == r"^blk\.3\.=Q4_K"
    todo = job.make_job(wide, Path("x"), "Q2_K_S", imatrix=given, overrides=[job.override(pattern)])
    assert {c.type for c in todo.changes if c.converts and "blk.3." in c.tensor.name} == {"Q4_K"}


@pytest.mark.parametrize(
    ("mix", "said"),
    [("Q2_K_S", "importance matrix"), ("Q9", "no type 'Q9'"), ("", "no type ''"), ("q8", "no type 'q8'")],
)
def test_what_cannot_be_made(storyteller, mix, said):
    with GGUFFile.open(storyteller) as file, pytest.raises(UsageError, match=said):
        job.make_job(file, Path("x"), mix, allow_requantize=True)


def test_quantized_weights_are_taken_only_when_allowed(storyteller, tmp_path):
    with GGUFFile.open(storyteller) as file:
        with pytest.raises(UsageError, match="already"):
            job.make_job(file, tmp_path / "x", "Q4_0")
        assert len(job.make_job(file, tmp_path / "x", "Q4_0", allow_requantize=True).changes) == 163
        same = job.make_job(file, tmp_path / "x", "Q4_K_M")
        assert not any(change.converts for change in same.changes)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_numbers_that_are_not_finite_are_refused(tmp_path, value):
    numbers = np.zeros((4, 32), np.float32)
    numbers[3, 31] = value
    keys = [maker.key("general.architecture", maker.STRING, "tiny")]
    model = maker.File(keys, [maker.tensor("a.weight", (4, 32))], numbers.tobytes())
    source = maker.write(tmp_path / "in.gguf", model)
    with GGUFFile.open(source) as file, pytest.raises(ModelFileError, match=r"a\.weight.*not finite"):
        quantize(file, tmp_path / "out.gguf", "Q8_0")
    assert [path.name for path in tmp_path.iterdir()] == ["in.gguf"]


def test_a_source_that_shrinks_is_told_so(tmp_path, tiny):
    path = tmp_path / "in.gguf"
    path.write_bytes(TINY.read_bytes())
    with GGUFFile.open(path) as file:
        todo = job.make_job(file, tmp_path / "out.gguf", "Q8_0")
        os.truncate(path, path.stat().st_size - 4096)
        with pytest.raises(ModelFileError, match="shorter"):
            convert.run(todo, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["in.gguf"]


def test_the_source_is_never_written_over(tiny, tmp_path):
    (tmp_path / "link").symlink_to(TINY)
    for out in (TINY, tmp_path / "link"):
        with pytest.raises(OutputError, match="is read by this command"):
            convert.check_output(job.make_job(tiny, out, "Q8_0"), overwrite=True)


@pytest.mark.parametrize("moment", [0.0, 0.3, 0.99, 1.0])
def test_ctrl_c_at_any_moment_leaves_what_was_there(tiny, tmp_path, moment):
    out = tmp_path / "out.gguf"
    out.write_text("before")

    def press(stage: str, fraction: float) -> None:
        if stage == "quantizing" and fraction >= moment:
            raise KeyboardInterrupt

    todo = job.make_job(tiny, out, "Q8_0", split_bytes=None)
    with pytest.raises(KeyboardInterrupt):
        convert.run(todo, 2, overwrite=True, progress=press)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.gguf", "before")]


def test_an_order_to_end_leaves_nothing(tmp_path):
    script = (
        "import sys, time\n"
        "from qcli.cli import invoke\n"
        "from qcli.quantize import convert\n"
        "made = convert._convert\n"
        "def slow(*given):\n"
        "    print('begun', flush=True)\n"
        "    time.sleep(0.05)\n"
        "    return made(*given)\n"
        "convert._convert = slow\n"
        "sys.exit(invoke(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", script, "quantize", str(TINY), str(tmp_path / "out.gguf"), "Q8_0", "-t", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 130
    process.stdout.close()
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_tells_sizes_and_writes_nothing(type_line, tmp_path):
    code, out, err = type_line("quantize", str(TINY), "Q8_0", "--dry-run")
    assert (code, err) == (0, "")
    assert "blk.*.ffn_gate_exps.weight" in out
    assert "bits a weight" in out
    code, out, _ = type_line("quantize", str(TINY), str(tmp_path / "x.gguf"), "Q8_0", "--dry-run", "--json")
    told = json.loads(out)
    assert (told["type"], told["files"], len(told["tensors"])) == ("Q8_0", [], 73)
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_writes(type_line, tmp_path):
    target = str(tmp_path / "x.gguf")
    code, out, err = type_line("quantize", str(TINY), target, "q8_0", "-t", "1")
    assert (code, out) == (0, "")
    assert target in err
    assert type_line("quantize", str(TINY), target, "q8_0")[0] == 1
    assert type_line("quantize", str(TINY), target, "q8_0", "--force", "--quiet") == (0, "", "")
    code, out, _ = type_line("quantize", str(TINY), target, "q8_0", "--force", "--json")
    told = json.loads(out)
    assert (code, told["files"], told["bytes"]) == (0, [target], (tmp_path / "x.gguf").stat().st_size)


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (["quantize"], 2, "IN, OUT and TYPE"),
        (["quantize", str(TINY), "x.gguf"], 2, "IN, OUT and TYPE"),
        (["quantize", "no-such-file.gguf", "x.gguf", "Q8_0"], 1, "no such file"),
        (["quantize", str(TINY), "no/such/x.gguf", "Q8_0"], 1, "no folder"),
        (["quantize", str(TINY), "/dev/full", "Q8_0", "-f"], 1, "not an ordinary file"),
        (["quantize", str(TINY), "x.gguf", "Q8_0", "--imatrix", "no-such.gguf"], 1, "no such file"),
        (["quantize", str(TINY), "x.gguf", "Q8_0", "--imatrix", str(TINY)], 1, "no importance matrix"),
        (
            ["quantize", str(TINY), "x.gguf", "Q8_0", "--imatrix", str(DATA / "fables.txt")],
            1,
            "not an importance matrix",
        ),
        (["quantize", str(TINY), "x.gguf", "Q8_0", "--split-size", "4X"], 2, "not the size"),
        (["quantize", str(TINY), "x.gguf", "Q8_0", "--split-size", "1K"], 2, "not the size"),
        (["quantize", str(TINY), "x.gguf", "Q8_0", "--tensor", "a"], 2, "PATTERN=TYPE"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_a_hint(refused, line, code, said):
    refused(line, code, said)


def test_every_mix_that_is_offered_can_be_planned(tiny):
    for name in job.offered():
        try:
            assert job.make_job(tiny, Path("x"), name).n_bytes
        except QcliError as problem:
            assert "importance matrix" in problem.message  # noqa: PT017


def test_memory_stays_small(tiny, tmp_path):
    """At most some slices of a thread are in memory, however large the tensor."""
    todo = job.make_job(tiny, tmp_path / "x", "Q8_0")
    for change in todo.changes:
        pieces = list(convert.slices(change))
        assert sum(piece.rows for piece in pieces) == change.tensor.data.shape[0]
        assert max(piece.rows * change.tensor.shape[-1] for piece in pieces) <= max(
            convert._SLICE, change.tensor.shape[-1]
        )


def test_the_imatrix_of_a_file_is_read_for_the_line(type_line, tiny, tmp_path):
    path = tmp_path / "im.gguf"
    imatrix_file.write(AtomicFiles([path], reads=()), guide(tiny, np.random.default_rng(1)))
    code, _, err = type_line("quantize", str(TINY), str(tmp_path / "x.gguf"), "Q4_0", "--imatrix", str(path))
    assert code == 0, err
