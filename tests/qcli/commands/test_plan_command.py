"""qcli plan: its table, its JSON, and what it refuses."""

from __future__ import annotations

import json
import re

import pytest
from brief_forecast import be_brief
from places import DATA

from qcli.streaming import budget

MODEL = DATA / "qwen3next.gguf"


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """Measure for a moment only."""
    be_brief(monkeypatch)


def test_the_command_s_table_and_json(type_line, monkeypatch):
    code, out, _ = type_line("plan", str(MODEL), "--ctx", "64", "-t", "1")
    assert code == 0
    assert "resident: it needs" in out
    assert re.search(r"given at the same time \(--parallel\) takes up to \d+ kB; there is room for 64\n", out)
    assert "\x1b" not in out
    assert all(len(line) <= 110 for line in out.splitlines())
    code, out, _ = type_line("plan", str(MODEL), "--ctx", "64", "-t", "1", "--ram", "10MB", "--json")
    found = json.loads(out)
    assert found["beside"] is None
    assert (code, found["mode"], found["speed"], found["memory"]["ram"]) == (0, "too large", None, 10**7)
    monkeypatch.setattr(budget, "fits", lambda *_: False)
    code, out, _ = type_line("plan", str(MODEL), "--ctx", "64", "-t", "1", "--ram", "9GB")
    assert "experts in each layer" in out
    assert re.search(r"\(--parallel\) takes up to \d+ kB; there is room for 64\n", out)


def test_without_drafts_their_head_is_not_counted(type_line):
    """The embedded model has one."""
    found = [
        json.loads(type_line("plan", "--ctx", "64", "-t", "1", "--json", *draft)[1])
        for draft in ([], ["--draft", "off"])
    ]
    assert found[0]["weights"]["dense"] > found[1]["weights"]["dense"]
    assert found[0]["memory"]["kv_cache"] > found[1]["memory"]["kv_cache"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none"], "there is no model"),
        (["none.gguf"], "no such file"),
        ([str(MODEL), "--ram", "lots"], "not an amount"),
        ([str(MODEL), "--ctx", "99999999"], "was made for"),
        ([str(MODEL), "--kv-type", "f64"], "kv-type"),
        ([str(DATA / "README.md")], "not a GGUF model file"),
    ],
)
def test_what_cannot_be_planned(type_line, arguments, said):
    code, out, err = type_line("plan", *arguments)
    assert code in (1, 2)
    assert out == ""
    assert said in err
    assert "hint:" in err
