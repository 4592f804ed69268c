"""qcli models: what it lists, in a terminal of any width, in a pipe and as JSON; names of the user's own."""

from __future__ import annotations

import io
import json
import time

import foreign_models
import gguf_maker
import pytest
from foreign_models import put
from gguf_maker import STRING, U32, File, key
from places import ROOT
from rich.console import Console

from qcli.catalog.entries import load_catalog
from qcli.commands import model_rows, models
from qcli.commands.models import _day, _drawn
from qcli.forecast import glance
from qcli.gguf.file import GGUFFile

TINY = (ROOT / "tests" / "data" / "qwen3next.gguf").read_bytes()
INSTRUCT = "Qwen3-Next-80B-A3B-Instruct"


@pytest.fixture
def listed(type_line):
    """What `qcli models --json` lists, by name."""

    def models() -> dict[str, dict]:
        code, out, err = type_line("models", "--json")
        assert (code, err) == (0, "")
        return {model["name"]: model for model in json.loads(out)}

    return models


@pytest.fixture
def ollama(data_folder):
    return data_folder / "home" / ".ollama" / "models"


def test_what_ships(listed):
    models = listed()
    assert list(models) == list(load_catalog())
    story = models["storyteller"]
    assert (story["where"], story["architecture"], story["quant"]) == ("embedded", "qwen3next", "Q4_K_M")
    assert (story["bytes"], story["fit"], story["sampling"]) == (
        24278080,
        "in memory",
        {"temperature": 0.7, "top_p": 0.9},
    )
    assert (models[INSTRUCT]["path"], models[INSTRUCT]["where"]) == (None, "not downloaded")


def test_what_was_downloaded_is_listed_once(listed, data_folder):
    entry = load_catalog()[INSTRUCT]
    snapshot = foreign_models.hub(data_folder / "hub", entry.repo, "1" * 40, {entry.file: TINY})
    models = listed()
    assert (models[INSTRUCT]["where"], models[INSTRUCT]["path"]) == ("cached", str(snapshot / entry.file))
    assert [name for name, model in models.items() if model["where"] == "cached"] == [INSTRUCT]


def test_what_other_tools_have(type_line, listed, ollama, data_folder):
    foreign_models.ollama(ollama, "library/tale/1b", TINY)
    foreign_models.ollama(ollama, "library/broken/1b", b"GGUF?")
    strange = File([key("general.architecture", STRING, "strange"), key("general.file_type", U32, 7)])
    foreign_models.ollama(ollama, "library/strange/1b", bytes(strange))
    picture = File([key("general.architecture", STRING, "clip")])
    foreign_models.ollama(ollama, "library/picture/1b", bytes(picture))
    put(data_folder / "home" / ".lmstudio" / "models" / "p" / "r-GGUF" / "r-UD-Q4_K_XL.gguf", TINY)
    models = listed()
    assert "picture:1b" not in models  # a projector
    assert (models["tale:1b"]["where"], models["tale:1b"]["architecture"]) == ("Ollama", "qwen3next")
    assert (models["p/r-GGUF"]["where"], models["p/r-GGUF"]["quant"]) == ("LM Studio", "UD-Q4_K_XL")
    assert (models["strange:1b"]["quant"], models["strange:1b"]["fit"]) == ("Q8_0", "cannot run")
    assert models["broken:1b"]["fit"] == "cannot run"
    code, out, err = type_line("models")
    assert (code, err) == (0, "")
    assert next(line for line in out.splitlines() if line.startswith("tale:1b")).split()[-1] == "Ollama"


def test_list_is_the_same(type_line):
    assert type_line("list", "--json") == type_line("models", "--json") == type_line("models", "list", "--json")


def test_when_a_model_was_last_used(type_line, telling, listed):
    assert "last_used" not in listed()["storyteller"]
    type_line("run", "Hi", "--no-save")
    assert "last_used" not in listed()["storyteller"]
    type_line("run", "Hi")
    assert abs(listed()["storyteller"]["last_used"] - time.time()) < 60
    assert "today" in type_line("models")[1]


@pytest.mark.parametrize(
    ("days", "said"), [(0, "today"), (1, "yesterday"), (29, "29 days ago"), (-9, "20"), (90, "20")]
)
def test_days_in_words(days, said):
    assert _day(time.time() - days * 86_400).startswith(said)
    assert _day(None) == ""


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_the_list_fits_a_terminal(columns, ollama):
    foreign_models.ollama(ollama, "library/a-model-with-a-rather-long-name/30b-a3b-instruct", TINY)
    screen = Console(file=io.StringIO(), width=columns)
    screen.print(_drawn(model_rows.all_rows()[0]))
    lines = screen.file.getvalue().splitlines()
    assert ("architecture" in lines[0]) == (columns == 200)
    assert max(map(len, lines)) <= columns
    assert any("a-model-with-a-rat" in line for line in lines)
    assert "80B parameters, 3B active" in " ".join(" ".join(lines).split())


def test_of_very_many_files_the_first_are_read(type_line, ollama, monkeypatch):
    monkeypatch.setattr(model_rows, "MOST_READ", 2)
    for i in range(3):
        foreign_models.ollama(ollama, f"library/m{i}/1b", TINY)
    code, out, err = type_line("models")
    assert (code, err) == (0, "2 more files were not read; `qcli show NAME` reads one\n")
    assert "m2:1b" in out
    monkeypatch.setattr(models, "_MOST_LISTED", 3)
    assert type_line("models")[2].endswith(" more are listed by --json\n")


def test_what_a_file_says_is_shown_without_control_codes(type_line, ollama):
    evil = File([key("general.architecture", STRING, "\x1b[31m[red]")])
    foreign_models.ollama(ollama, "library/evil/1b", bytes(evil))
    code, out, _ = type_line("models")
    assert (code, "\x1b" in out) == (0, False)


def test_whether_a_model_fits(tmp_path):
    path = gguf_maker.write(tmp_path / "m.gguf", gguf_maker.small_model())
    with GGUFFile.open(path) as file:
        experts, whole = 192 * 34 // 32, sum(tensor.n_bytes for tensor in file.tensors.values())
        assert [glance.fit(file, whole), glance.fit(file, whole - 1)] == ["in memory", "too large"]
        assert experts == sum(t.n_bytes for t in file.tensors.values() if "exps" in t.name)
    with GGUFFile.open(ROOT / "tests" / "data" / "qwen3next.gguf") as file:
        assert glance.fit(file, 1 << 30) == "in memory"
        whole = sum(tensor.n_bytes for tensor in file.tensors.values())
        sizes = [free for free in range(0, 1 << 25, 1 << 13) if glance.fit(file, free) == "streamed"]
        assert 0 < sizes[-1] - sizes[0] < whole
        assert glance.fit(file, 0) == "too large"


def test_a_file_gets_a_name(type_line, telling, data_folder, storyteller, tmp_path, monkeypatch):
    own = put(data_folder / "config" / "models.toml", b'# mine\n[other]\npath = "o.gguf"  # kept\n')
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tale.gguf").symlink_to(storyteller)
    code, out, err = type_line("models", "add", "tale.gguf", "--name", "my:tale")
    assert (code, out) == (0, "")
    assert "`qcli run -m my:tale` runs it" in err
    added = f'\n["my:tale"]\npath = {json.dumps(str(tmp_path / "tale.gguf"))}\n'
    assert own.read_text() == '# mine\n[other]\npath = "o.gguf"  # kept\n' + added
    assert type_line("run", "-m", "MY:tale", "Hi", "-q") == (0, "A cat sat.\n", "")
    assert type_line("models", "add", "tale.gguf")[0] == 0
    assert type_line("run", "-m", "tale", "Hi", "-q") == (0, "A cat sat.\n", "")


def test_a_model_gets_another_name_that_follows_it(type_line, listed, ollama, data_folder):
    old = foreign_models.ollama(ollama, "library/tale/1b", TINY)
    assert type_line("models", "alias", "Tale:1b", "t") == (0, "", "t now means tale:1b\n")
    assert listed()["t"]["path"] == str(old)
    new = foreign_models.ollama(ollama, "library/tale/1b", TINY + b"\0")
    assert listed()["t"]["path"] == str(new)
    assert type_line("models", "alias", "t", "u")[0] == 0
    assert listed()["u"]["path"] == str(new)
    assert type_line("models", "alias", "STORYTELLER", "s")[0] == 0
    assert listed()["s"]["quant"] == "Q4_K_M"
    assert type_line("models", "alias", f"{INSTRUCT}:Q8_0", "big") == (0, "", f"big now means {INSTRUCT}:Q8_0\n")
    assert f"{INSTRUCT}:Q8_0 is not on this machine" in type_line("run", "-m", "big", "Hi")[2]
    assert (data_folder / "config" / "models.toml").read_text().count("alias_of = ") == 4


def test_an_alias_that_leads_nowhere_or_back(type_line, data_folder):
    put(data_folder / "config" / "models.toml", b'[a]\nalias_of = "b"\n[b]\nalias_of = "A"\n[c]\nalias_of = "gone"\n')
    for name in ("a", "c"):
        code, out, err = type_line("run", "-m", name, "Hi")
        assert (code, out) == (1, "")
        assert "is not a model on this machine" in err
    assert type_line("models")[0] == 0


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("models cook", 2, 'there is no "qcli models cook"'),
        ("models rm x", 2, "`qcli rm NAME`"),
        ("models list x", 2, "models list cannot have 1 word"),
        ("models add", 2, "`qcli models add FILE [--name NAME]`"),
        ("models alias storyteller", 2, "models alias cannot have 1 word"),
        ("models alias storyteller s --name n", 2, "--name is not for alias"),
        ("models add x.gguf --json", 2, "--json is not for add"),
        ("models add nowhere.gguf", 1, "no such file"),
        ("models alias nowhere n", 2, "there is no model nowhere"),
        ("models alias storyteller Storyteller", 2, "a model is called Storyteller already"),
        ("models alias storyteller a/b", 2, "cannot be the name of a model"),
        ("models alias storyteller -- -x", 2, "cannot be the name of a model"),
        ("models alias storyteller x.gguf", 2, "cannot be the name of a model"),
    ],
)
def test_what_cannot_be_meant(refused, line, code, said):
    refused(line.split(), code, said)
