"""Models in the cache of downloads, in any revision, by every name that means them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qcli.errors import UsageError
from qcli.hub.address import Address
from qcli.local_models.hub import cached_model

OLD, NEW = 40 * "a", 40 * "b"
PARTS = ["Q8_0/m-Q8_0-00001-of-00002.gguf", "Q8_0/m-Q8_0-00002-of-00002.gguf"]


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    return tmp_path / "models--Owner--Name-GGUF"


def downloaded(hub: Path, commit: str, *names: str, age: float = 0.0) -> Path:
    snapshot = hub / "snapshots" / commit
    for name in names:
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_bytes(b"GGUF")
    os.utime(snapshot, (1e9 - age, 1e9 - age))
    return snapshot


def found(
    quant: str | None = None, file: str | None = None, revision: str | None = None, repo: str = "Owner/Name-GGUF"
):
    return cached_model(Address(repo, quant, file, revision))


def test_nothing_was_downloaded(hub, monkeypatch):
    assert found() is None
    hub.mkdir()
    assert found() is None
    monkeypatch.setattr("qcli.local_models.hub.hub_cache", lambda: None)
    assert found() is None


def test_a_file_by_all_its_names(hub):
    path = downloaded(hub, OLD, "sub/m-Q4_K_M.gguf", "mmproj-F16.gguf", "README.md") / "sub/m-Q4_K_M.gguf"
    assert {found(), found("q4-k-m"), found(file="sub/m-Q4_K_M.gguf"), found(file="M-q4_k_m.gguf")} == {path}
    assert found(repo="owner/name-gguf") == path
    assert found("Q8_0") is None
    assert found(file="mmproj-F16.gguf") is None


def test_of_several_the_usual_one_or_none(hub):
    snapshot = downloaded(hub, OLD, "m-Q4_K_M.gguf", "m-Q8_0.gguf", "other-1.gguf", "other-2.gguf")
    assert found() == snapshot / "m-Q4_K_M.gguf"
    with pytest.raises(UsageError, match=r"could be other-1\.gguf, other-2\.gguf"):
        found("other")


def test_the_newest_revision_that_has_all_of_it(hub):
    old = downloaded(hub, OLD, *PARTS, age=100)
    new = downloaded(hub, NEW, PARTS[0], "m-Q4_0.gguf")
    assert found("Q8_0") == old / PARTS[0]
    assert found() == new / "m-Q4_0.gguf"
    downloaded(hub, NEW, *PARTS)
    assert found("Q8_0") == new / PARTS[0]


def test_a_revision_by_its_names(hub):
    old, new = downloaded(hub, OLD, "m.gguf", age=100), downloaded(hub, NEW, "m.gguf")
    (hub / "refs" / "pr").mkdir(parents=True)
    (hub / "refs" / "pr" / "3").write_text(f"{OLD}\n")
    (hub / "refs" / "broken").write_bytes(b"\xff")
    assert found(revision="pr/3") == found(revision=OLD[:7]) == old / "m.gguf"
    assert found() == found(revision=NEW) == new / "m.gguf"
    assert found(revision="aaa") is found(revision="main") is found(revision="broken") is None


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_a_link_whose_file_is_gone_is_no_file(hub):
    snapshot = downloaded(hub, OLD, "m-Q8_0.gguf")
    (hub / "blob").write_bytes(b"GGUF")
    (snapshot / "m-Q4_K_M.gguf").symlink_to(hub / "blob")
    assert found() == snapshot / "m-Q4_K_M.gguf"
    (hub / "blob").unlink()
    assert found() == snapshot / "m-Q8_0.gguf"
