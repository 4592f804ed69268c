"""Which experts are asked for: counts by hand, the same from memory and from a file, a map that fits the terminal."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
import reference_models
from places import DATA

from qcli.commands import experts as command
from qcli.commands.experts import experts_per_column, shades
from qcli.errors import PromptError, QcliError
from qcli.evaluate import expert_counts
from qcli.evaluate.expert_counts import LayerCounts
from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine
from qcli.streaming import budget, usage_file

MODEL = DATA / "qwen3next.gguf"
IDS = [int(id) for id in np.random.default_rng(3).integers(0, 200, 90)]


@pytest.fixture(autouse=True)
def kept(monkeypatch, tmp_path):
    """Usage is saved in a folder of this test's own."""
    monkeypatch.setattr(usage_file, "path_for", lambda _file: tmp_path / "usage.npz")
    return tmp_path / "usage.npz"


@pytest.fixture(scope="module")
def chosen():
    """Experts that a layer gives a token, and the layers."""
    file = GGUFFile.open(MODEL)
    layers = {name.split(".")[1] for name in file.tensors if "_exps." in name}
    return file.get_int("qwen3next.expert_used_count"), len(layers)


def test_every_choice_of_a_text_is_counted(chosen):
    used, count = chosen
    layers = expert_counts.by_text(GGUFFile.open(MODEL), IDS, threads=2)
    assert [layer.number for layer in layers] == list(range(count))
    assert [layer.counts.sum() for layer in layers] == count * [len(IDS) * used]


def test_counts_are_those_of_token_by_token():
    engine = Engine.load(GGUFFile.open(MODEL), threads=1, ctx=256)
    marks = [np.zeros(len(touched)) for touched in engine.state._touched]
    for id in IDS:
        engine.state.clear_touched()
        engine.step(id)
        for mark, touched in zip(marks, engine.state._touched, strict=True):
            mark += touched
    engine.close()
    layers = expert_counts.by_text(GGUFFile.open(MODEL), IDS, threads=2)
    for layer, mark in zip(layers, marks, strict=True):
        assert np.abs(layer.counts - mark).sum() <= 4  # sums of a chunk are rounded otherwise


def test_models_read_from_the_file_count_alike_and_remember(monkeypatch, kept):
    resident = expert_counts.by_text(GGUFFile.open(MODEL), IDS, threads=2)
    assert not kept.exists()
    monkeypatch.setattr(budget, "fits", lambda *_: False)
    streamed = expert_counts.by_text(GGUFFile.open(MODEL), IDS, threads=2, ram=2 * 10**9)
    assert all(np.array_equal(a.counts, b.counts) for a, b in zip(streamed, resident, strict=True))
    remembered = expert_counts.by_usage(GGUFFile.open(MODEL))
    for layer, counts in zip(remembered, resident, strict=True):
        assert np.argmax(layer.counts) in np.flatnonzero(counts.counts >= counts.counts.max() - 1)
        assert 0 < layer.counts.sum() <= counts.counts.sum()


def test_a_text_longer_than_the_context_is_read_in_pieces(monkeypatch, chosen):
    load = Engine.load
    monkeypatch.setattr(Engine, "load", lambda file, **given: load(file, ctx=16, **given))
    layers = expert_counts.by_text(GGUFFile.open(MODEL), IDS[:65], threads=2)
    assert layers[0].counts.sum() == 65 * chosen[0]


def test_what_cannot_be_counted(tmp_path):
    with pytest.raises(PromptError, match="too short"):
        expert_counts.by_text(GGUFFile.open(MODEL), [1])
    dense = GGUFFile.open(reference_models.read("llama").write(tmp_path / "dense.gguf"))
    for ask in (expert_counts.by_usage, lambda file: expert_counts.by_text(file, [1, 2, 3])):
        with pytest.raises(QcliError, match="no routed experts"):
            ask(dense)
    with pytest.raises(QcliError, match="no earlier run") as caught:
        expert_counts.by_usage(GGUFFile.open(MODEL))
    assert "--prompt" in caught.value.hint


def test_sums_by_hand():
    layer = LayerCounts(3, np.array([0.0, 1, 2, 3, 14, 0, 0, 0]))
    assert layer.used == 4
    assert layer.share_of_top(0.25) == pytest.approx(17 / 20)
    assert layer.share_of_top(0.01) == pytest.approx(14 / 20)
    assert shades(layer, 1) == [0, 1, 2, 3, 5, 0, 0, 0]  # the average is 2.5
    assert shades(layer, 2) == [1, 3, 4, 0]
    assert shades(LayerCounts(0, np.zeros(4)), 1) == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("experts", "room", "each"), [(8, 48, 1), (512, 1000, 4), (512, 64, 8), (500, 60, 16), (129, 200, 2)]
)
def test_columns(experts, room, each):
    assert experts_per_column(experts, room) == each


@pytest.fixture
def small(monkeypatch):
    """In place of a text that is read, three layers of 200 experts."""
    layers = [LayerCounts(i, np.random.default_rng(i).poisson(i, 200).astype(float)) for i in range(3)]
    monkeypatch.setattr(command, "_counted", lambda *_: ("a test", layers))
    return layers


def test_the_map_into_a_pipe(type_line, small):
    code, out, _ = type_line("experts")
    lines = out.splitlines()
    assert code == 0
    assert "\x1b" not in out
    assert lines[0] == "how often experts were chosen: a test"
    assert len([line for line in lines if line[:7].strip().isdigit()]) == 3
    assert "0%" in lines[3]
    assert "a column is the mean of 2 experts" in lines[-1]
    assert len({line.index("%") for line in lines[4:6]}) == 1


def test_json_and_csv(type_line, small):
    code, out, _ = type_line("experts", "--json")
    value = json.loads(out)
    assert (code, value["source"]) == (0, "a test")
    assert value["layers"][2]["counts"] == small[2].counts.tolist()
    code, out, _ = type_line("experts", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 600
    assert rows[-1] == {"layer": "2", "expert": "199", "count": f"{small[2].counts[-1]:.6g}"}


def test_a_prompt_on_the_command_line(type_line, tmp_path):
    code, out, err = type_line("experts", "--prompt", "Once upon a time there was a cat.", "--quiet", "--json")
    assert (code, err) == (0, "")
    whole = json.loads(out)
    (tmp_path / "text").write_text("Once upon a time there was a cat.")
    code, out, _ = type_line("experts", "storyteller", "--file", str(tmp_path / "text"), "--json")
    assert json.loads(out) == whole
    tokens = int(whole["source"].split()[0])
    assert {sum(layer["counts"]) % tokens for layer in whole["layers"]} == {0}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prompt", "a", "--file", "b"], "cannot be used together"),
        (["--json", "--csv"], "cannot be used together"),
        (["none"], "there is no model"),
        (["none.gguf"], "no such file"),
        (["--file", "/no/such/text"], "no such file"),
        (["--prompt", "a b", "--ram", "lots"], "not an amount"),
        ([], "no earlier run"),
    ],
)
def test_what_cannot_be_meant(type_line, arguments, said):
    code, out, err = type_line("experts", *arguments)
    assert code in (1, 2)
    assert out == ""
    assert said in err
    assert "hint:" in err
