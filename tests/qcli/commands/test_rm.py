"""qcli rm: what it deletes of the hub's cache, what it forgets, and what it leaves alone."""

from __future__ import annotations

import foreign_models
import pytest
from foreign_models import put, tree
from huggingface_hub import scan_cache_dir

from qcli import line_input
from qcli.catalog.entries import load_catalog
from qcli.hub.places import locked
from qcli.hub.transfer_part import Part
from qcli.local_models import last_used

OLD, NEW = 40 * "1", 40 * "2"
SMALL, LARGE = b"GGUF" + bytes(60), b"GGUF" + bytes(4996)


@pytest.fixture
def cache(data_folder):
    """The hub's cache with two revisions of a repository, of which only one file has changed, and another repository."""
    folder = data_folder / "hub"
    foreign_models.hub(folder, "own/Mo", OLD, {"Mo-Q4_0.gguf": b"GGUF old", "Mo-Q8_0.gguf": LARGE})
    foreign_models.hub(folder, "own/Mo", NEW, {"Mo-Q4_0.gguf": SMALL, "Mo-Q8_0.gguf": LARGE, "same.bin": SMALL})
    foreign_models.hub(folder, "own/Other", NEW, {"Other.gguf": LARGE})
    return folder


@pytest.fixture
def asked(monkeypatch):
    """A person at the terminal, who answers as `say` was last called; the questions are returned."""
    questions: list[str] = []

    def say(yes: bool) -> list[str]:
        monkeypatch.setattr(line_input, "is_interactive", lambda: True)
        monkeypatch.setattr(line_input, "agreed", lambda question: questions.append(question) or yes)
        return questions

    return say


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def test_a_model_goes_from_all_revisions_with_its_blob(type_line, cache):
    blobs = len(list((cache / "models--own--Mo" / "blobs").iterdir()))
    code, out, err = type_line("rm", "own/Mo:Q8_0", "--yes")
    assert (code, out, err) == (0, "", "own/Mo:Q8_0 is deleted: 5 kB freed\n")
    left = files(cache / "models--own--Mo")
    assert not any("Q8_0" in name for name in left)
    assert len([name for name in left if name.startswith("blobs/")]) == blobs - 1
    assert "refs/main" in left


def test_a_blob_that_another_file_refers_to_stays(type_line, cache):
    assert type_line("rm", "own/Mo:Q4_0", "-y")[2] == "own/Mo:Q4_0 is deleted: 0 kB freed\n"
    assert (cache / "models--own--Mo" / "snapshots" / NEW / "same.bin").read_bytes() == SMALL
    assert not (cache / "models--own--Mo" / "snapshots" / OLD / "Mo-Q4_0.gguf").is_symlink()


def test_of_a_repository_of_which_nothing_is_left_nothing_stays(type_line, cache):
    put(cache / "models--own--Other" / ".no_exist" / NEW / "config.json", b"")
    before = tree(cache / "models--own--Mo")
    assert type_line("rm", "own/other", "-y")[0] == 0
    assert [path.name for path in cache.iterdir()] == ["models--own--Mo"]
    assert tree(cache / "models--own--Mo") == before


@pytest.fixture
def broken(cache):
    """Downloads that were broken off: of a split model, whose first file has come whole, and of another file."""
    blobs, etags = cache / "models--own--Split" / "blobs", [n * 64 for n in "abc"]
    put(blobs / etags[0], LARGE)
    for etag, name in zip(etags[1:], ("S-Q8_0-00002-of-00002.gguf", "S-Q4_0.gguf"), strict=True):
        part = Part(blobs / etag, 4 << 20, etag, name)
        part.begin()
        with open(part.path, "r+b") as file:
            file.write(bytes(1 << 20))
        part.there[0] = 1
        part.save()
    return blobs


def test_what_a_broken_download_left_is_deleted(type_line, broken):
    code, _, err = type_line("rm", "own/split:q4_0", "-y")
    assert (code, err) == (0, "what had arrived of own/split:q4_0 is deleted: 1 MB freed\n")
    assert [path.name[0] for path in sorted(broken.iterdir())] == ["a", "b", "b", "b"]
    assert type_line("rm", "own/Split:Q8_0", "-y")[0] == 0
    assert not broken.parent.exists()
    assert "is not on this machine" in type_line("rm", "own/Split:Q8_0", "-y")[2]


def test_but_not_while_it_is_under_way(type_line, broken):
    before = tree(broken)
    with locked(broken.parents[1] / ".locks" / "models--own--Split" / f"{64 * 'c'}.lock", lambda: None):
        code, _, err = type_line("rm", "own/Split:Q4_0", "-y")
    assert (code, "S-Q4_0.gguf: a download of it is under way" in err) == (2, True)
    assert tree(broken) == before


def test_what_is_still_downloaded_stays(type_line, cache):
    unfinished = put(cache / "models--own--Other" / "blobs" / "abc.incomplete", b"half")
    assert type_line("rm", "own/Other", "-y")[0] == 0
    assert unfinished.exists()


def test_all_parts_of_a_split_model(type_line, cache):
    parts = {f"S-0000{i}-of-00002.gguf": b"GGUF" + bytes(1000 * i) for i in (1, 2)}
    foreign_models.hub(cache, "own/Split", NEW, parts)
    assert type_line("rm", "own/Split", "-y")[2] == "own/Split is deleted: 3 kB freed\n"
    assert not (cache / "models--own--Split").exists()


def test_a_model_of_our_list(type_line, cache):
    entry = next(entry for entry in load_catalog().values() if entry.repo)
    snapshot = foreign_models.hub(cache, entry.repo, NEW, {entry.file: SMALL})
    last_used.note(snapshot / entry.file)
    assert type_line("rm", entry.name.lower(), "-y")[2] == f"{entry.name} is deleted: 0 kB freed\n"
    assert last_used.when(snapshot / entry.file) is None
    assert type_line("rm", entry.name, "-y")[0] == 1  # it is not there any more


def test_where_links_are_copies(type_line, data_folder):
    path = put(data_folder / "hub" / "models--a--b" / "snapshots" / NEW / "m.gguf", LARGE)
    assert type_line("rm", "a/b", "-y")[2] == "a/b is deleted: 5 kB freed\n"
    assert not path.exists()


def test_a_link_out_of_the_cache_goes_and_what_it_leads_to_stays(type_line, data_folder, tmp_path):
    mine = put(tmp_path / "mine.gguf", LARGE)
    link = data_folder / "hub" / "models--a--b" / "snapshots" / NEW / "m.gguf"
    link.parent.mkdir(parents=True)
    link.symlink_to(mine)
    assert type_line("rm", "a/b", "-y")[2] == "a/b is deleted: 0 kB freed\n"
    assert mine.exists()


def test_a_person_is_asked(type_line, cache, asked):
    before = tree(cache)
    assert asked(False) == []
    assert type_line("rm", "own/Other") == (0, "", "")
    assert tree(cache) == before
    assert asked(True) == ["delete own/Other (Other.gguf)? it frees 5 kB"]
    assert type_line("rm", "own/Other", "own/Mo:Q8_0")[0] == 0
    assert not any("Other" in name or "Q8_0" in name for name in files(cache))


def test_of_several_quantizations_one_has_to_be_named(type_line, cache):
    before = tree(cache)
    code, _, err = type_line("rm", "Own/mo", "--yes")
    assert code == 2
    assert "type one of: own/Mo:Q4_0, own/Mo:Q8_0" in err
    assert tree(cache) == before


def test_nobody_can_be_asked(type_line, cache):
    before = tree(cache)
    code, out, err = type_line("rm", "own/Other")
    assert (code, out) == (1, "")
    assert "`qcli rm own/Other --yes` deletes without asking" in err
    assert tree(cache) == before


def test_what_other_tools_have_is_left_alone_unless_that_is_said(type_line, data_folder):
    home = data_folder / "home"
    foreign_models.ollama(home / ".ollama" / "models", "library/tale/1b", SMALL)
    put(home / ".lmstudio" / "models" / "p" / "r" / "m.gguf", SMALL)
    put(home / ".lmstudio" / "models" / "p" / "other" / "m.gguf", SMALL)
    put(data_folder / "llama.cpp" / "x_y_z.gguf", SMALL)
    before = tree(data_folder)
    for name, hint in (("tale:1b", "`ollama rm tale:1b`"), ("p/r", "--other-tools"), ("x_y_z", "--other-tools")):
        code, _, err = type_line("rm", name, "--yes")
        assert code == 2
        assert hint in err
    assert "ollama rm" in type_line("rm", "tale:1b", "--yes", "--other-tools")[2]
    assert type_line("rm", "p/r", "--other-tools")[0] == 1  # there is nobody to ask
    assert tree(data_folder) == before
    assert type_line("rm", "p/r", "x_y_z", "--other-tools", "--yes")[0] == 0
    assert not (home / ".lmstudio" / "models" / "p" / "r").exists()
    assert files(data_folder / "llama.cpp") == []
    assert files(home / ".lmstudio") == ["models/p/other/m.gguf"]


def test_a_download_of_llama_cpp_in_the_hubs_layout(type_line, data_folder):
    foreign_models.hub(data_folder / "llama.cpp", "own/New", NEW, {"New-Q4_0.gguf": LARGE})
    assert type_line("rm", "own/New", "--other-tools", "-y")[2] == "own/New is deleted: 5 kB freed\n"
    assert list((data_folder / "llama.cpp").iterdir()) == []


def test_a_name_of_the_users_own_is_forgotten_and_the_file_stays(type_line, data_folder, asked):
    mine = put(data_folder / "config" / "m.gguf", SMALL)
    text = '# first\n[mine]\npath = "m.gguf"\n# of it\n\n# of the next\n["x:y"]\nalias_of = "mine"\n'
    own = put(data_folder / "config" / "models.toml", text.encode())
    questions = asked(True)
    assert type_line("rm", "MINE") == (0, "", "the name mine is deleted; m.gguf stays\n")
    assert questions == ["forget the name mine? m.gguf stays"]
    assert own.read_text() == '# first\n# of the next\n["x:y"]\nalias_of = "mine"\n'
    assert mine.exists()
    assert type_line("rm", "x:Y", "-y")[0] == 0
    assert own.read_text() == "# first\n# of the next\n"


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("storyteller", 2, "storyteller comes with qcli"),
        ("nowhere", 1, "there is no model 'nowhere'"),
        ("Qwen3-Next-80B-A3B-Instruct", 1, "is not on this machine"),
    ],
)
def test_what_cannot_be_deleted(refused, name, code, said):
    refused(["rm", name, "--yes"], code, said)


def test_a_file_of_ones_own_is_no_models_name(type_line, tmp_path):
    mine = put(tmp_path / "mine.gguf", SMALL)
    code, _, err = type_line("rm", str(mine), "--yes")
    assert code == 2
    assert "is your own file, not a download" in err
    assert "nowhere.gguf: no such file" in type_line("rm", "nowhere.gguf", "--yes")[2]
    assert mine.exists()


def test_the_way_of_a_model_from_pull_to_rm(type_line, hub, tmp_path):
    """Pulled from a server in place of huggingface.co, listed, run, asked about, deleted."""
    assert type_line("pull", "some/Model-GGUF:Q4_K_M", "-q")[0] == 0
    assert type_line("run", "-m", "some/model-gguf", "Hi", "-n", "1", "--ctx", "64", "-q")[0] == 0
    row = next(line for line in type_line("models")[1].splitlines() if line.startswith("some/Model-GGUF")).split()
    assert (row[1:5], row[-3:]) == (["1", "MB", "qwen3next", "Q4_K_M"], ["today", "hub", "cache"])
    assert type_line("models", "--updates")[1].split() == ["some/Model-GGUF", "up", "to", "date"]
    hub.repos["some/Model-GGUF"]["Model-Q4_K_M.gguf"] = LARGE
    assert "changed: `qcli pull some/Model-GGUF:Q4_K_M` gets 5 kB" in type_line("models", "--updates")[1]
    assert type_line("rm", "some/Model-GGUF", "-y")[2] == "some/Model-GGUF is deleted: 1 MB freed\n"
    assert [path for path in files(tmp_path / "cache") if not path.endswith(".lock")] == []
    assert scan_cache_dir(tmp_path / "cache").warnings == []
