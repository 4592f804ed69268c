"""Names to files, and sampling to models."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from foreign_models import no_models_of_others

from qcli.catalog.entries import load_catalog
from qcli.catalog.entry import Entry
from qcli.catalog.names import closest, named
from qcli.catalog.recommended_sampling import sampling_defaults
from qcli.catalog.resolve import is_model, name_of, path_of, place_of, resolve
from qcli.errors import ModelNotFoundError, UsageError
from qcli.gguf.file import GGUFFile
from qcli.host import folders
from qcli.hub.address import Address, parse
from qcli.runtime.sampling import Sampling

INSTRUCT = "Qwen3-Next-80B-A3B-Instruct"
CACHED = Path("models--Qwen--Qwen3-Next-80B-A3B-Instruct-GGUF", "snapshots")


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of huggingface.co, and no models of the user's own."""
    monkeypatch.setattr(folders, "config", lambda: tmp_path / "config")
    no_models_of_others(monkeypatch, tmp_path)
    return tmp_path / "hub"


def download(hub: Path, revision: str) -> Path:
    path = hub / CACHED / revision / f"{INSTRUCT}-Q4_K_M.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"GGUF")
    return path


def file_saying(**metadata: Any) -> GGUFFile:
    return SimpleNamespace(metadata=metadata)  # type: ignore[return-value]


def test_nothing_means_the_embedded_model() -> None:
    path, entry = resolve(None)
    assert path.is_file()
    assert entry is not None
    assert (entry.name, place_of(entry), path_of(entry)) == ("storyteller", "embedded", path)
    assert resolve("storyteller") == (path, entry)


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    assert resolve(tmp_path / "missing.gguf") == (tmp_path / "missing.gguf", None)
    assert resolve("some/missing.gguf") == (Path("some/missing.gguf"), None)
    assert resolve(str(tmp_path)) == (tmp_path, None)


def test_a_file_wins_over_a_name_and_a_folder_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "storyteller").mkdir()
    assert resolve("storyteller")[1] is not None
    (tmp_path / "storyteller").rmdir()
    (tmp_path / "storyteller").write_bytes(b"GGUF")
    assert resolve("storyteller") == (Path("storyteller"), None)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("Some-7B-Q4_K_M.gguf", "Some-7B-Q4_K_M"),
        ("Some-7B-Q4_K_M-00001-of-00003.gguf", "Some-7B-Q4_K_M"),
        ("some.7b", "some.7b"),
        (".gguf", ".gguf"),
    ],
)
def test_a_file_is_called_by_its_name(file: str, name: str) -> None:
    assert name_of(Path("Snapshots") / file, None) == name
    assert name_of(Path(file), resolve(None)[1]) == "storyteller"


def test_a_model_to_download_says_how() -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(INSTRUCT.lower())
    assert caught.value.message == f"{INSTRUCT} is not on this machine (48.4 GB)"
    assert f"`qcli pull {INSTRUCT}`" in caught.value.hint


def test_a_downloaded_model_is_found(hub: Path) -> None:
    path = download(hub, "0123abcd")
    assert resolve(INSTRUCT) == (path, load_catalog()[INSTRUCT])
    assert place_of(load_catalog()[INSTRUCT]) == "cached"


def test_the_hub_cache_moves_with_its_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    path = download(tmp_path / "home" / "hub", "1")
    assert resolve(INSTRUCT)[0] == path
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    path = download(tmp_path / "xdg" / "huggingface" / "hub", "1")
    assert resolve(INSTRUCT)[0] == path


@pytest.mark.parametrize(
    ("typed", "hint"),
    [("story-teller", "did you mean storyteller?"), ("qwen3-next-80b", INSTRUCT), ("zzz", "`qcli models`")],
)
def test_a_wrong_name_is_answered_with_the_closest(typed: str, hint: str) -> None:
    with pytest.raises(ModelNotFoundError, match=f"there is no model '{typed}'") as caught:
        resolve(typed)
    assert hint in caught.value.hint


def test_sampling_from_the_catalog() -> None:
    entry = load_catalog()[INSTRUCT]
    expected = {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.0}
    assert sampling_defaults(entry, file_saying()) == expected


@pytest.mark.parametrize(
    ("name", "temperature"),
    [
        ("Qwen3 Next 80B A3B Instruct", 0.7),
        ("Qwen3-Next-80B-A3B-Thinking", 0.6),
        ("qwen3_next 40b thinking", 0.6),
    ],
)
def test_sampling_by_the_name_in_the_file(name: str, temperature: float) -> None:
    defaults = sampling_defaults(None, file_saying(**{"general.name": name, "general.sampling.temp": 2.0}))
    assert (defaults["temperature"], defaults["top_k"]) == (temperature, 20)


def test_sampling_as_the_file_says() -> None:
    path, entry = resolve(None)
    with GGUFFile.open(path) as file:
        assert sampling_defaults(None, file) == sampling_defaults(entry, file)


def test_nonsense_in_the_file_is_passed_over() -> None:
    said = {"temp": float("nan"), "top_k": -5, "top_p": "x", "min_p": 7.0, "penalty_repeat": float("inf")}
    file = file_saying(**{f"general.sampling.{key}": value for key, value in said.items()})
    assert sampling_defaults(None, file) == sampling_defaults(None, file_saying())


def test_what_the_file_says_is_taken_whole() -> None:
    said = {"temp": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.1, "penalty_repeat": 1.1}
    found = sampling_defaults(None, file_saying(**{f"general.sampling.{key}": value for key, value in said.items()}))
    assert found == {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.1, "repeat_penalty": 1.1}


def test_a_recommendation_that_rounds_to_nothing_is_passed_over() -> None:
    assert sampling_defaults(None, file_saying(**{"general.sampling.penalty_repeat": 1e-9})) == {}


def test_moderate_sampling_where_nobody_says_anything() -> None:
    chosen = Sampling(**sampling_defaults(None, file_saying()))
    assert (chosen.temperature, chosen.top_k, chosen.top_p, chosen.min_p) == (0.7, 40, 0.95, 0.05)


@pytest.mark.parametrize("entry", load_catalog().values(), ids=lambda entry: entry.name)
def test_the_catalog_recommends_what_can_be_meant(entry: Entry) -> None:
    assert vars(Sampling(**entry.sampling)).items() >= entry.sampling.items()


def test_top_k_is_a_whole_number() -> None:
    top_k = sampling_defaults(None, file_saying(**{"general.sampling.top_k": 20.0}))["top_k"]
    assert isinstance(top_k, int)


@pytest.mark.parametrize(
    ("address", "pulled"),
    [
        ("https://huggingface.co/owner/name/resolve/main/a/b.gguf?download=true", "owner/name:a/b.gguf"),
        ("huggingface.co/owner/name/blob/main/b.gguf", "huggingface.co/owner/name/blob/main/b.gguf"),
        ("hf://owner/name/b.gguf", "hf://owner/name/b.gguf"),
        ("owner/name:b c.gguf", "'owner/name:b c.gguf'"),
        ("owner/name/sub/b.gguf", "owner/name/sub/b.gguf"),
        ("owner/name:Q4_K_M", "owner/name:Q4_K_M"),
        ("owner/name", "owner/name"),
    ],
)
def test_a_model_of_the_hub_that_is_not_here_can_be_pulled_by_the_same_words(address: str, pulled: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(address)
    assert caught.value.message.endswith("is not on this machine")
    assert f"`qcli pull {pulled}` downloads it" in caught.value.hint


@pytest.mark.parametrize("address", ["https://example.org/b.gguf", "ftp://example.org/b.gguf"])
def test_an_address_of_another_site_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match=r"is not an address on huggingface\.co \(download it"):
        resolve(address)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("qwen3-30b-a3b", "Qwen3-30B-A3B-Instruct-2507"),
        ("QWEN3-30B-A3B-T", "Qwen3-30B-A3B-Thinking-2507"),
        ("qwen3.6", "Qwen3.6-35B-A3B"),
        ("gpt-oss-120b", "gpt-oss-120b"),
        ("qwen3.6:latest", "Qwen3.6-35B-A3B"),
        ("qwen3.6:q4_k_m", "Qwen3.6-35B-A3B"),
        ("qwen3.6:UD-Q5_K_XL", "Qwen3.6-35B-A3B:UD-Q5_K_XL"),
        ("qwen3-next-80b-a3b-instruct:Q8_0", f"{INSTRUCT}:Q8_0"),
        ("story:Q4_K_M", "storyteller"),
    ],
)
def test_a_name_its_alias_and_how_it_alone_begins(typed: str, name: str) -> None:
    entry = named(typed)
    assert entry is not None
    assert entry.name == name
    again = named(entry.name)
    assert again is not None
    assert again.address == entry.address


@pytest.mark.parametrize("typed", ["", "st", "tory", "q:Q4_K_M", "owner/qwen3.6", ":Q8_0"])
def test_what_names_nothing(typed: str) -> None:
    assert named(typed) is None


def test_names_as_ollama_divides_them() -> None:
    assert named("gpt-oss:20b") == load_catalog()["gpt-oss-20b"]
    assert named("Qwen3:30B") == load_catalog()["Qwen3-30B-A3B-Instruct-2507"]


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("qwne3-30b-a3b", "did you mean Qwen3-30B-A3B-Instruct-2507 or "),  # an alias
        ("ollama run hf.co/a/b-GGUF:Q8_0", "type the name alone: hf.co/a/b-GGUF:Q8_0"),
        ("ollama run gpt-oss:20b", "type the name alone: gpt-oss:20b"),
    ],
)
def test_what_is_nearest(typed: str, hint: str) -> None:
    assert closest(typed).startswith(hint)


def test_the_beginning_of_several_names_lists_them() -> None:
    with pytest.raises(ModelNotFoundError, match=r"did you mean gpt-oss-20b or gpt-oss-120b\?"):
        resolve("gpt-oss")
    with pytest.raises(UsageError, match=r"storyteller has only one version: there is no Q8_0 of it"):
        resolve("storyteller:Q8_0")


def test_another_quantization_keeps_the_sampling_and_nothing_of_the_file(hub: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=rf"`qcli pull {INSTRUCT}:Q8_0` downloads it"):
        resolve(f"{INSTRUCT}:Q8_0")
    path = download(hub, "1").with_name(f"{INSTRUCT}-Q8_0.gguf")
    path.write_bytes(b"GGUF")
    found, entry = resolve(f"{INSTRUCT.lower()}:q8_0")
    assert entry is not None
    assert (found, entry.sha256, entry.bytes) == (path, "", 0)
    assert entry.sampling == load_catalog()[INSTRUCT].sampling


def test_an_address_of_what_was_downloaded(hub: Path) -> None:
    path = download(hub, "1")
    for typed in (f"Qwen/{INSTRUCT}-GGUF", f"hf.co/qwen/{INSTRUCT}-GGUF:Q4_K_M", f"Qwen/{INSTRUCT}-GGUF/{path.name}"):
        assert resolve(typed) == (path, None)
    with pytest.raises(ModelNotFoundError, match=r"GGUF:Q8_0` downloads it; this machine has its Q4_K_M\)"):
        resolve(f"Qwen/{INSTRUCT}-GGUF:Q8_0")


def test_a_path_that_is_there_wins_over_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "name").write_bytes(b"GGUF")
    assert resolve("owner/name") == (Path("owner/name"), None)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        *(("storyteller", True), ("gpt-oss", True), ("owner/name:Q8_0", True), ("hf.co/owner/name", True)),
        *(("and/or", False), ("https://example.org/x", False), ("Why", False), ("storyteller:Q8_0", False)),
    ],
)
def test_a_word_that_means_a_model(word: str, meant: bool) -> None:
    assert is_model(word) is meant


@pytest.mark.parametrize("entry", load_catalog().values(), ids=lambda entry: entry.name)
def test_an_entry_can_be_asked_for(entry: Entry) -> None:
    for name in (entry.name, *entry.aliases):
        assert named(name) == entry
    if entry.repo:
        assert parse(str(entry.address)) == entry.address
        assert entry.file or entry.quant
        assert bool(entry.sha256) == bool(entry.bytes) == bool(entry.file)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's models.toml, which is not there yet."""
    monkeypatch.setattr(folders, "config", lambda: tmp_path)
    return tmp_path / "models.toml"


def test_models_of_the_users_own(own: Path) -> None:
    own.write_text(
        '[mine]\npath = "m.gguf"\nsampling = { temperature = 0.1 }\n[theirs]\nrepo = "a/b"\nfile = "c.gguf"\n'
    )
    with pytest.raises(ModelNotFoundError, match=r"no such file; mine stands for it.*models\.toml"):
        resolve("Mine")
    (own.parent / "m.gguf").write_bytes(b"GGUF")
    path, entry = resolve("Mine")
    assert path == own.parent / "m.gguf"
    assert entry is not None
    assert (entry.name, place_of(entry)) == ("mine", "on disk")
    assert sampling_defaults(entry, file_saying())["temperature"] == 0.1
    with pytest.raises(ModelNotFoundError, match=r"`qcli pull theirs` downloads it"):
        resolve("theirs")


def test_our_models_as_the_user_would_have_them(own: Path) -> None:
    own.write_text("[StoryTeller]\nsampling = { temperature = 0.2 }\n")
    path, entry = resolve("storyteller")
    assert entry is not None
    assert (path.is_file(), place_of(entry), dict(entry.sampling)) == (True, "embedded", {"temperature": 0.2})
    own.unlink()


def test_another_file_of_a_model_we_know(own: Path) -> None:
    own.write_text(f'[{INSTRUCT}]\nquant = "Q8_0"\naliases = ["next"]\n[mine]\nrepo = "a/b"\n')
    entry = named("Next")
    assert entry is not None
    assert (entry.address, entry.bytes, entry.sha256) == (Address(f"Qwen/{INSTRUCT}-GGUF", "Q8_0"), 0, "")
    assert entry.sampling["top_k"] == 20
    assert load_catalog()["mine"].address == Address("a/b")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mine = 1", "line 1: mine is no table"),
        ("[mine]\npath = 1", "line 2: path cannot be 1"),
        ("[mine]\n\nfle = 'x'", "line 3: fle says nothing of mine"),
        ("[mine]\ndescription = 'x'", "line 1: mine has no file"),
        ("[mine]\nrepo = 'a/b:Q8_0'", "line 2: repo cannot be a/b:Q8_0"),
        ("[mine]\nrepo = 'a/b'\nfile = '../c.gguf'", "line 3: file cannot be ../c.gguf"),
        ("[mine]\naliases = 'x'", "line 2: aliases cannot be x"),
        ("[mine]\npath = 'x'\nsampling = { temperature = -1 }", "line 3: sampling is wrong: temperature cannot be -1"),
        ("[mine]\npath = 'x'\nsampling = { warmth = 1 }", "line 3: sampling has no option warmth"),
        ("[mine", "line 1: cannot be read"),
    ],
)
def test_a_wrong_models_toml_is_told_with_its_line(own: Path, text: str, said: str) -> None:
    own.write_text(text)
    with pytest.raises(UsageError) as refused:
        load_catalog()
    assert f"{own}, {said}" in refused.value.message


def test_a_name_with_a_dot_needs_quotes(own: Path) -> None:
    own.write_text("[mine.1]\npath = 'x'")
    with pytest.raises(
        UsageError, match=r'1 says nothing of mine \(a name with a dot in it needs quotes, as in \["mine.1"\]'
    ):
        load_catalog()
    own.write_text("['mine.1']\npath = 'x'")
    assert "mine.1" in load_catalog()


def test_a_name_that_is_empty_is_not_the_folder_one_is_in():
    with pytest.raises(UsageError, match="the name of the model is empty"):
        resolve("")
