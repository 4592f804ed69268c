"""Models in the folders of other tools: found, called as their tools call them, run, and never written to."""

from __future__ import annotations

import json

import foreign_models
import pytest
from foreign_models import put
from places import ROOT

from qcli.catalog.resolve import place_of, resolve
from qcli.errors import ModelNotFoundError, UsageError
from qcli.local_models import walk
from qcli.local_models.search import find, search

GGUF = b"GGUF" + bytes(60)
FOUND = ("tale:1b", "pub/tales", "x_y_z", "own/Tale-GGUF:Q4_K_M")


def names() -> list[tuple[str, str]]:
    return [(found.tool, found.name) for found in search().models]


@pytest.fixture
def ollama(data_folder):
    return data_folder / "home" / ".ollama" / "models"


@pytest.fixture
def lm_studio(data_folder):
    return data_folder / "home" / ".lmstudio" / "models"


@pytest.fixture
def hub(data_folder):
    return data_folder / "hub"


def test_nothing_is_found_where_nothing_is(data_folder):
    assert (search().models, search().remarks) == ([], [])
    assert find("qwen3:30b") is None


@pytest.mark.parametrize(
    ("place", "listed", "typed"),
    [
        ("library/qwen3/30b", "qwen3:30b", ["qwen3:30b", "QWEN3:30B", "library/qwen3:30b"]),
        ("library/qwen3/latest", "qwen3:latest", ["qwen3:latest", "qwen3", "registry.ollama.ai/library/qwen3:latest"]),
        ("some/model/7b", "some/model:7b", ["some/model:7b"]),
        ("hf.co/own/Mo-GGUF/Q4_K_M", "hf.co/own/Mo-GGUF:Q4_K_M", ["hf.co/own/Mo-GGUF:Q4_K_M", "own/mo-gguf:q4_k_m"]),
    ],
)
def test_ollamas_models_are_called_as_it_calls_them(ollama, place, listed, typed):
    blob = foreign_models.ollama(ollama, place, GGUF)
    assert names() == [("Ollama", listed)]
    assert {find(name).path for name in typed} == {blob}
    assert find("other") is None


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"[]",
        b'{"layers": 1}',
        b'{"layers": [1, {"mediaType": []}]}',
        b'{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../secret"}]}',
        b'{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": {"a": 1}}]}',
        b" " * (1 << 21),
    ],
)
def test_a_manifest_that_is_wrong_is_passed_over(ollama, manifest):
    put(ollama.parent / "secret", GGUF)
    put(ollama / "manifests" / "registry.ollama.ai" / "library" / "bad" / "1b", manifest)
    foreign_models.ollama(ollama, "library/good/1b", GGUF)
    assert names() == [("Ollama", "good:1b")]


def test_what_is_not_whole_or_not_alone_is_left_out(ollama):
    foreign_models.ollama(ollama, "library/half/1b", GGUF, size=1000)
    foreign_models.ollama(ollama, "library/tuned/1b", GGUF, mediaType="application/vnd.ollama.image.adapter")
    foreign_models.ollama(ollama, "library/gone/1b", b"GGUF gone").unlink()
    assert names() == []


def test_ollamas_folder_is_where_its_variable_says(ollama, data_folder, monkeypatch):
    monkeypatch.setenv("OLLAMA_MODELS", str(data_folder / "elsewhere"))
    foreign_models.ollama(data_folder / "elsewhere", "library/a/1b", GGUF)
    foreign_models.ollama(ollama, "library/b/1b", GGUF)
    assert names() == [("Ollama", "a:1b")]


def test_lm_studios_models_are_called_by_publisher_and_repository(lm_studio):
    one = put(lm_studio / "pub" / "One-GGUF" / "One-Q4_K_M.gguf", GGUF)
    for file in ("Two-Q4_K_M.gguf", "Two-Q8_0.gguf", "mmproj-Two-F16.gguf", "notes.txt"):
        put(lm_studio / "pub" / "Two-GGUF" / file, GGUF)
    put(lm_studio / "loose.gguf", GGUF)
    listed = ["pub/One-GGUF", "pub/Two-GGUF:Q4_K_M", "pub/Two-GGUF:Q8_0"]
    assert names() == [("LM Studio", name) for name in listed]
    for name in ("pub/One-GGUF", "Pub/one-gguf:q4_k_m", "pub/One-GGUF/One-Q4_K_M.gguf", "one-q4_k_m"):
        assert find(name).path == one
    assert find("pub/Two-GGUF").name == "pub/Two-GGUF:Q4_K_M"  # as a download would choose
    assert find("pub/Two-GGUF:Q6_K") is None


def test_lm_studios_folder_is_where_its_settings_say(lm_studio, data_folder):
    moved = data_folder / "big disk"
    put(moved / "p" / "r" / "m.gguf", GGUF)
    put(lm_studio.parent / "settings.json", json.dumps({"downloadsFolder": str(moved)}).encode())
    assert names() == [("LM Studio", "p/r")]
    put(lm_studio.parent / "settings.json", b'{"downloadsFolder": 7}')
    assert names() == []


def test_lm_studios_folder_is_where_its_pointer_says(data_folder):
    moved = data_folder / "moved"
    put(data_folder / "home" / ".lmstudio-home-pointer", f"{moved}\n".encode())
    put(moved / "models" / "p" / "r" / "m.gguf", GGUF)
    assert names() == [("LM Studio", "p/r")]


def test_a_folder_of_lm_studio_that_leads_back_to_itself_is_told_of(data_folder, type_line):
    loop = data_folder / "home" / ".lmstudio"
    loop.parent.mkdir(exist_ok=True)
    loop.symlink_to(loop)
    assert names() == []
    code, _, err = type_line("models")
    assert (code, err.count("\n")) == (0, 1)
    assert f"{loop / 'models'}: cannot be looked through" in err


def test_llama_cpps_downloads(data_folder):
    folder = data_folder / "llama.cpp"
    file = put(folder / "own_Mo-GGUF_Mo-Q8_0.gguf", GGUF)
    assert names() == [("llama.cpp", "own_Mo-GGUF_Mo-Q8_0")]
    said = {"url": "https://huggingface.co/own/Mo-GGUF/resolve/main/Mo-Q8_0.gguf"}
    put(folder / f"{file.name}.json", json.dumps(said).encode())
    assert names() == [("llama.cpp", "own/Mo-GGUF")]
    assert find("own/Mo-GGUF:Q8_0").path == file
    foreign_models.hub(folder, "own/New-GGUF", "1" * 40, {"New-Q4_0.gguf": GGUF})
    assert names() == [("llama.cpp", "own/Mo-GGUF"), ("llama.cpp", "own/New-GGUF")]


def test_the_hubs_cache(hub):
    foreign_models.hub(hub, "own/Mo-GGUF", "1" * 40, {"Mo-Q8_0.gguf": GGUF})
    parts = [f"Q4_0/Mo-Q4_0-0000{i}-of-00002.gguf" for i in (1, 2)]
    new = foreign_models.hub(hub, "own/Mo-GGUF", "2" * 40, {parts[0]: b"GGUF1", parts[1]: b"GGUF2"})
    assert names() == [("hub cache", "own/Mo-GGUF:Q4_0"), ("hub cache", "own/Mo-GGUF:Q8_0")]
    assert find("own/mo-gguf:q4_0").parts == (new / parts[0], new / parts[1])
    (new / parts[1]).unlink()  # a part is missing
    assert names() == [("hub cache", "own/Mo-GGUF")]
    for blob in (hub / "models--own--Mo-GGUF" / "blobs").iterdir():
        blob.unlink()  # links that lead nowhere
    assert names() == []


def test_the_first_tool_is_meant_where_two_have_a_model_of_one_name(hub, lm_studio):
    snapshot = foreign_models.hub(hub, "p/r", "1" * 40, {"m-Q8_0.gguf": GGUF})
    put(lm_studio / "p" / "r" / "m-Q8_0.gguf", GGUF)
    assert len(names()) == 2
    assert find("p/r").path == snapshot / "m-Q8_0.gguf"


def test_names_that_mean_several_are_refused_with_a_list(lm_studio):
    put(lm_studio / "a" / "r" / "m-Q8_0.gguf", GGUF)
    put(lm_studio / "b" / "r" / "m-Q8_0.gguf", GGUF)
    with pytest.raises(ModelNotFoundError) as caught:
        resolve("m-q8_0")
    assert "2 models on this machine are called so" in caught.value.message
    assert caught.value.hint == "type one of: a/r, b/r"
    put(lm_studio / "c" / "r" / "x.gguf", GGUF)
    put(lm_studio / "c" / "r" / "y.gguf", GGUF)
    with pytest.raises(UsageError, match=r"could be x\.gguf, y\.gguf"):
        resolve("c/r")


@pytest.mark.parametrize("typed", ["qwen3", "qwen3:31b", "qwen3-n"])
def test_a_name_that_is_wrong_is_answered_with_close_ones_that_are_here(ollama, typed):
    foreign_models.ollama(ollama, "library/qwen3/30b", GGUF)
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(typed)
    assert ("did you mean qwen3:30b" in caught.value.hint) == (typed != "qwen3-n")


def test_links_that_lead_back_and_doors_that_are_locked(lm_studio):
    put(lm_studio / "p" / "r" / "m.gguf", GGUF)
    (lm_studio / "p" / "r" / "again").symlink_to(lm_studio, target_is_directory=True)
    (lm_studio / "p" / "gone").symlink_to(lm_studio / "nowhere")
    (lm_studio / "p" / "r" / "dir.gguf").mkdir()
    put(lm_studio / "p" / "r" / "ev\x1b[31mil.gguf", GGUF)
    assert names() == [("LM Studio", "p/r")]


def test_a_folder_that_cannot_be_read_is_told_of_once(lm_studio, monkeypatch):
    put(lm_studio / "p" / "r" / "m.gguf", GGUF)

    def locked(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(walk.os, "scandir", locked)
    assert search().remarks == [f"{lm_studio}: cannot be looked through: Permission denied"]


def test_of_a_huge_folder_so_much_is_looked_at(lm_studio, monkeypatch):
    for i in range(30):
        put(lm_studio / "p" / f"r{i}" / "m.gguf", GGUF)
    monkeypatch.setattr(walk, "MOST", 20)
    found = search()
    assert len(found.models) < 30
    assert len(found.remarks) == 1
    assert str(lm_studio) in found.remarks[0]


def test_what_exists_goes_before_what_is_known_and_that_before_what_is_found(ollama, data_folder, monkeypatch):
    blob = foreign_models.ollama(ollama, "library/storyteller/latest", GGUF)
    foreign_models.ollama(ollama, "library/other/latest", GGUF)
    assert resolve("storyteller:latest")[0] == blob
    assert place_of(resolve("storyteller")[1]) == "embedded"
    assert resolve("other")[0] == blob
    put(data_folder / "config" / "models.toml", b'[other]\npath = "mine.gguf"\n')
    mine = put(data_folder / "config" / "mine.gguf", GGUF)
    assert resolve("other")[0] == mine
    monkeypatch.chdir(data_folder)
    put(data_folder / "other", GGUF)
    assert str(resolve("other")[0]) == "other"


def test_each_is_run_by_its_name_and_nothing_is_written_to(type_line, ollama, lm_studio, hub, data_folder):
    data = (ROOT / "tests" / "data" / "qwen3next.gguf").read_bytes()
    foreign_models.ollama(ollama, "library/tale/1b", data)
    foreign_models.hub(hub, "own/Tale-GGUF", "1" * 40, {"Tale-Q4_K_M.gguf": data})
    put(lm_studio / "pub" / "tales" / "t.gguf", data)
    put(data_folder / "llama.cpp" / "x_y_z.gguf", data)
    folders = [data_folder / "home", hub, data_folder / "llama.cpp"]
    before = [foreign_models.tree(folder) for folder in folders]
    answers = {type_line("run", name, "Hi", "-q", "-n", "2", "--seed", "1", "--ctx", "64") for name in FOUND}
    assert len(answers) == 1
    code, out, err = answers.pop()
    assert (code, bool(out), err) == (0, True, "")
    assert type_line("models")[0] == 0
    assert [foreign_models.tree(folder) for folder in folders] == before
