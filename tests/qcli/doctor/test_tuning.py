"""qcli tune: what is tried, which choice counts as the best, and what is kept."""

from __future__ import annotations

import json

import pytest
from places import DATA

from qcli.bench.subject import of_file
from qcli.commands import tune
from qcli.doctor import disk, tuning
from qcli.doctor.tuning import Tried, best
from qcli.gguf.file import GGUFFile
from qcli.streaming import budget, usage_file

MODEL = DATA / "qwen3next.gguf"


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    for name, value in {"PROMPT": 24, "ANSWER": 3, "CHUNKS": (8, 16, 32), "_ROUNDS": 1}.items():
        monkeypatch.setattr(tuning, name, value)
    for name, value in {"_FILE": 1 << 20, "_WRITTEN": 1 << 18, "_SECONDS": 0.01}.items():
        monkeypatch.setattr(disk, name, value)
    monkeypatch.setattr(tuning, "thread_counts", lambda: [1, 2])
    monkeypatch.setattr(tuning, "default_threads", lambda: 2)
    monkeypatch.setattr("qcli.host.threads.default_threads", lambda: 2)


def test_the_usual_choice_stays_where_hardly_any_is_faster():
    one, two, four = Tried(1, 0, 50, 10), Tried(2, 0, 99, 20), Tried(4, 0, 100, 20.2)
    assert best([one, two, four], four) == four
    assert best([one, two, four], two) == two
    assert best([one, two, four], one) == two
    assert best([one, two, four], None) == two


def test_prompts_and_answers_count_alike():
    assert Tried(1, 0, 100, 4).score == Tried(2, 0, 25, 16).score == 20
    assert Tried(1, 0, 100).score == 100


@pytest.mark.parametrize("streamed", [False, True])
def test_every_number_of_threads_is_tried(monkeypatch, streamed):
    if streamed:
        monkeypatch.setattr(budget, "fits", lambda *_: False)
        monkeypatch.setattr(budget, "allocate_slots", lambda loader, *_: loader.allocate(loader.max_slots))
        monkeypatch.setattr(usage_file, "path_for", lambda _: None)
    told = []
    with GGUFFile.open(MODEL) as file:
        tried = tuning.try_threads(file, None, lambda *how: told.append(how))
    assert [one.threads for one in tried] == [1, 2]
    assert all(one.answer_tok_per_s and one.score > 0 for one in tried)
    assert told


def test_chunks_are_tried_as_far_as_there_is_time():
    with GGUFFile.open(MODEL) as file:
        tried = tuning.try_chunks(file, 1, 1e6, None, lambda *_: None)
        assert [(one.chunk, one.answer_tok_per_s) for one in tried] == [(8, None), (16, None), (32, None)]
        assert tuning.try_chunks(file, 1, 0.5, None, lambda *_: None) == []


def test_the_table_and_the_json(type_line):
    code, out, err = type_line("tune", str(MODEL))
    assert code == 0
    assert out.startswith("qwen3next\n\nthreads  prompts tok/s  answers tok/s\n      1 ")
    assert "tokens of a prompt at a time" in out
    assert "reads of the disk at a time" in out
    assert ("nothing to set" in out) == ("--save" not in err)
    found = json.loads(type_line("tune", str(MODEL), "--json")[1])
    assert [one["threads"] for one in found["threads"]] == [1, 2]
    assert [one["lanes"] for one in found["lanes"]] == [1, 4, 8]
    assert found["best_threads"] in (1, 2)


def test_the_best_is_kept(type_line, data_folder, monkeypatch):
    monkeypatch.setattr(tuning, "best", lambda tried, _: tried[0])
    code, out, err = type_line("tune", str(MODEL), "--save")
    assert code == 0
    assert "best: 1 thread" in out
    assert "threads is 1, in" in err
    assert (data_folder / "config" / "config.toml").read_text() == "threads = 1\n"


def test_what_cannot_be_tuned(refused):
    refused(["tune", "nowhere.gguf"], 1, "no such file")
    refused(["tune", str(DATA / "README.md")], 1, "is not a GGUF model file")
    refused(["tune", "--ram", "lots"], 2, "not an amount")


def test_random_weights_are_not_held_to_ram(type_line, monkeypatch):
    monkeypatch.setattr(tune, "_subject", lambda *_: of_file(str(MODEL)))
    code, out, err = type_line("tune", "--ram", "1kB")
    assert (code, "answers tok/s" in out) == (0, True)
    assert "random weights stay in memory" in err
    assert "is not enough" in type_line("tune", str(MODEL), "--ram", "1kB")[2]
