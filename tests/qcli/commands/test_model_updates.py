"""qcli models --updates: what has changed at the hub, which is asked about each repository once."""

from __future__ import annotations

import hashlib
import json

import foreign_models
import pytest

from qcli.errors import ModelNotFoundError
from qcli.hub import api
from qcli.hub.repo_files import RepoFile

OLD, NEW = 40 * "1", 40 * "2"


def listed(name: str, data: bytes) -> RepoFile:
    return RepoFile(name, len(data), hashlib.sha256(data).hexdigest())


@pytest.fixture
def asked(monkeypatch, data_folder):
    """The repositories that the hub was asked about; it has one with a changed file and knows nothing of any other."""
    foreign_models.hub(
        data_folder / "hub", "own/Mo", OLD, {"Mo-Q2_K.gguf": b"2", "Mo-Q4_0.gguf": b"4", "Q8_0/Mo-Q8_0.gguf": b"8"}
    )
    foreign_models.hub(data_folder / "hub", "own/Secret", OLD, {"Secret.gguf": b"s"})
    repos: list[str] = []

    def list_files(repo, revision=None):
        repos.append(repo)
        if repo != "own/Mo":
            raise ModelNotFoundError(f"{repo}: there is no such repository", "look again")
        files = (listed("Mo-Q2_K.gguf", b"2"), listed("Q8_0/Mo-Q8_0.gguf", bytes(8000)))
        return api.Listing(repo, NEW, files)

    monkeypatch.setattr(api, "list_files", list_files)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return repos


def test_what_changed_at_the_hub(type_line, asked):
    code, out, err = type_line("models", "--updates")
    assert (code, err) == (0, "")
    assert [" ".join(line.split()) for line in out.splitlines()] == [
        "own/Mo:Q2_K up to date",
        "own/Mo:Q4_0 is not published there any more",
        "own/Mo:Q8_0 changed: `qcli pull own/Mo:Q8_0` gets 8 kB",
        "own/Secret there is no such repository",
    ]
    assert asked == ["own/Mo", "own/Secret"]


def test_as_json(type_line, asked):
    told = json.loads(type_line("models", "--updates", "--json")[1])
    assert {one["name"]: one["state"] for one in told} == {
        "own/Mo:Q2_K": "same",
        "own/Mo:Q4_0": "gone",
        "own/Mo:Q8_0": "changed",
        "own/Secret": "not asked",
    }
    assert (told[2]["revision"], told[2]["newest"], told[2]["bytes"]) == (OLD, NEW, 8000)


def test_nobody_is_asked_where_that_is_forbidden(type_line, asked, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, err = type_line("models", "--updates")
    assert (code, out) == (1, "")
    assert "HF_HUB_OFFLINE is set" in err
    assert asked == []


def test_nothing_was_downloaded(type_line):
    assert type_line("models", "--updates") == (0, "", "no model was downloaded from huggingface.co\n")
    assert type_line("models", "alias", "a", "b", "--updates")[0] == 2
