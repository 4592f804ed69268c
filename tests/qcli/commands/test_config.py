"""`qcli config`, and what settings do to commands."""

from __future__ import annotations

import json

import pytest

from qcli.llm import LLM


@pytest.fixture
def file(data_folder):
    """config.toml, whose folder is there."""
    (data_folder / "config").mkdir()
    return data_folder / "config" / "config.toml"


@pytest.fixture
def asked(monkeypatch, telling):
    """What models are asked for: their arguments, and the options of the answer."""
    told: dict[str, object] = {}
    begin, generate = LLM.__init__, LLM.generate

    def load(llm, model=None, threads=None, ctx=None, **more):
        told.update(more, model=model, threads=threads, ctx=ctx)
        begin(llm, model, threads, ctx, **more)

    def answer(llm, prompt, **options):
        told.update(options)
        return generate(llm, prompt, **options)

    monkeypatch.setattr(LLM, "__init__", load)
    monkeypatch.setattr(LLM, "generate", answer)
    return told


@pytest.mark.parametrize(
    ("typed", "environment", "in_file", "heard"),
    [
        ("", {}, "", {"threads": None, "temperature": None, "model": None}),
        ("", {}, "threads = 3\ntemperature = 0.3", {"threads": 3, "temperature": 0.3}),
        ("", {"QCLI_THREADS": "2"}, "threads = 3\ntemperature = 0.3", {"threads": 2, "temperature": 0.3}),
        ("-t 1", {"QCLI_THREADS": "2"}, "threads = 3", {"threads": 1}),
        ("-t 1 --temp 0.1", {"QCLI_TEMPERATURE": "0.2"}, "temperature = 0.3", {"threads": 1, "temperature": 0.1}),
        ("", {"QCLI_RAM": "1GB"}, "ram = '2GB'", {"ram": "1GB"}),
        ("--ram 3GB", {"QCLI_RAM": "1GB"}, "", {"ram": "3GB"}),
        ("", {}, "model = 'storyteller'", {"model": "storyteller"}),
        ("", {"QCLI_MODEL": "Storyteller"}, "model = 'other'", {"model": "Storyteller"}),
        ("-m storyteller", {"QCLI_MODEL": "other"}, "model = 'another'", {"model": "storyteller"}),
        ("storyteller", {"QCLI_MODEL": "other"}, "model = 'another'", {"model": "storyteller"}),
        ("-t 1", {"QCLI_THREADS": "wrong"}, "", {"threads": 1}),
        ("--ctx 64", {}, "ctx = 128\nkv_type = 'q8_0'", {"ctx": 64, "kv_type": "q8_0"}),
    ],
)
def test_command_line_over_environment_over_file(
    type_line, asked, file, monkeypatch, typed, environment, in_file, heard
):
    file.write_text(in_file, "utf-8")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, out, _ = type_line("run", *typed.split(), "Hi", "--raw", "-q")
    assert (code, out) == (0, "A cat sat.\n")
    assert {name: asked[name] for name in heard} == heard


def test_a_conversation_goes_on_with_its_own_model(type_line, asked, monkeypatch):
    assert type_line("run", "Hi", "--save", "-q")[0] == 0
    monkeypatch.setenv("QCLI_MODEL", "another")
    assert type_line("run", "And?", "-c", "-q")[0] == 0
    assert asked["model"] == "storyteller"


@pytest.mark.parametrize(("typed", "kept"), [("", 1), ("--save", 1), ("--name mine", 1), ("--no-save", 0)])
@pytest.mark.parametrize("saves", [True, False])
def test_chats_are_not_recorded_where_save_is_false(
    type_line, asked, file, data_folder, monkeypatch, typed, kept, saves
):
    file.write_text(f"save = {str(saves).lower()}\n", "utf-8")
    monkeypatch.setattr("qcli.commands.chat.is_interactive", lambda: True)
    assert type_line("chat", *typed.split(), "-q", piped="Hi\n")[0] == 0
    wanted = kept if saves or typed else 0
    assert len(list(data_folder.glob("sessions/*.jsonl"))) == wanted


def test_all_settings_with_where_they_come_from(type_line, file, monkeypatch):
    file.write_text("\ntemperature = 0.5\nthread = 2\ntop-k = 2\n", "utf-8")
    monkeypatch.setenv("QCLI_RAM", "2GB")
    code, out, err = type_line("config")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line and not line.startswith(" ")}
    assert code == 0
    assert rows["temperature"] == ["0.5", "config.toml,", "line", "2"]
    assert rows["ram"] == ["2GB", "QCLI_RAM"]
    assert rows["threads"][-1] == "default"
    assert str(file) in out
    assert "line 3: there is no setting thread; did you mean threads?" in err
    assert "line 4: top-k is written top_k" in err


def test_as_json(type_line, file):
    file.write_text("top_k = 5\nmore = 1\n", "utf-8")
    told = json.loads(type_line("config", "--json")[1])
    found = {setting["key"]: setting for setting in told["settings"]}
    assert (told["file"], told["unknown"]) == (str(file), ["more"])
    assert (found["top_k"]["value"], found["top_k"]["source"]) == (5, "file")
    assert (found["threads"]["value"], found["threads"]["variable"]) == (None, "QCLI_THREADS")
    assert json.loads(type_line("config", "show", "top-k", "--json")[1]) == found["top_k"]


def test_set_and_unset(type_line, file, monkeypatch):
    file.parent.rmdir()  # made when it is needed
    assert type_line("config", "set", "threads", "2")[0] == 0
    assert file.read_text("utf-8") == "threads = 2\n"
    monkeypatch.setenv("QCLI_THREADS", "1")
    assert "QCLI_THREADS is set in the environment, and wins: 1" in type_line("config", "set", "threads", "3")[2]
    assert "removed" in type_line("config", "unset", "threads")[2]
    assert file.read_text("utf-8") == ""
    assert "is not in" in type_line("config", "unset", "threads")[2]


def test_a_negative_number(type_line, file):
    assert type_line("config", "set", "presence_penalty", "-1")[0] == 0
    assert file.read_text("utf-8") == "presence_penalty = -1\n"


def test_a_models_path_is_kept_in_full(type_line, file, tmp_path, monkeypatch):
    (tmp_path / "mine.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    assert type_line("config", "set", "model", "mine.gguf")[0] == 0
    assert json.loads(type_line("config", "show", "model", "--json")[1])["value"] == str(tmp_path / "mine.gguf")


def test_an_address_is_kept_as_it_was_typed(type_line, tmp_path, monkeypatch):
    path = tmp_path / "models--Owner--Name" / "snapshots" / "1" / "m-Q8_0.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"GGUF")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert type_line("config", "set", "model", "owner/name:q8_0")[0] == 0
    assert json.loads(type_line("config", "show", "model", "--json")[1])["value"] == "owner/name:q8_0"


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("config sett", 2, 'there is no "qcli config sett"'),
        ("config set threads", 2, "too few words"),
        ("config set threads many", 2, "threads cannot be many"),
        ("config set thread 1", 2, "there is no setting thread"),
        ("config unset thread", 2, "there is no setting thread"),
        ("config set model storyteler", 1, "there is no model"),
        ("config set model nowhere.gguf", 2, "no such file"),
    ],
)
def test_what_cannot_be_set(refused, line, code, said):
    refused(line.split(), code, said)


@pytest.mark.parametrize("text", ["threads = 0", "threads 1"])
@pytest.mark.parametrize("line", [["config"], ["run", "Hi"], ["chat"]])
def test_a_wrong_file_is_one_line_of_text(refused, file, text, line):
    file.write_text(text, "utf-8")
    refused(line, 2, f"{file}, line 1: ")


def test_a_model_that_is_not_there_any_more_is_told_with_its_line(refused, file):
    file.write_text("model = 'gone.gguf'", "utf-8")
    refused(["run", "Hi"], 1, f"{file}, line 1: model: gone.gguf")


def test_another_file_that_is_not_there_is_no_concern_of_the_settings(type_line, file):
    file.write_text("model = 'storyteller'", "utf-8")
    assert "model" not in type_line("run", "Hi", "-f", "gone.txt")[2].splitlines()[0]


@pytest.mark.parametrize(
    ("line", "meant"), [("show", True), ("show --supported", False), ("bench --shape none", False)]
)
def test_the_model_of_the_settings_where_one_is_meant(type_line, file, line, meant):
    file.write_text("model = 'gone'\nthreads = 2\nram = '1GB'\nctx = 64", "utf-8")
    err = type_line(*line.split())[2]
    assert (f"{file}, line 1: model: there is no model 'gone'" in err) == ("gone" in err) == meant


def test_help_reads_no_file(type_line, file):
    file.write_text("wrong", "utf-8")
    assert type_line("run", "--help")[0] == 0
    assert type_line("--help")[0] == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["run", "m.gguf"], "m.gguf is a model, and there is no question"),
        (["run", "m.gguf", "-m", "storyteller"], "m.gguf is a model, and there is no question"),
        (["run", "Once", "upon"], "one word too many: upon"),
        (["run", "llama3", "Why is it so?"], "no model is called 'llama3'"),
        (["run", "storyteller", "Hi", "-m", "storyteller"], "one word too many: Hi"),
        (["chat", "storyteller", "-m", "m.gguf"], "two models are named"),
    ],
)
def test_models_without_m_that_cannot_be_meant(type_line, tmp_path, monkeypatch, line, said):
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    code, out, err = type_line(*line)
    assert (code, out) == (2, "")
    assert said in err
    assert "hint: " in err


def test_models_without_m(type_line, asked, storyteller, tmp_path, monkeypatch):
    (tmp_path / "mine.GGUF").symlink_to(storyteller)
    monkeypatch.chdir(tmp_path)
    assert type_line("run", "mine.GGUF", "Hi", "-q")[:2] == (0, "A cat sat.\n")
    assert asked["model"] == "mine.GGUF"
    assert type_line("chat", "Storyteller", "-q", piped="Hi\n")[:2] == (0, "A cat sat.\n")
    assert asked["model"] == "Storyteller"
    assert type_line("run", "storyteller", "-q")[:2] == (0, "A cat sat.\n")  # one word is a prompt
    assert asked["model"] is None
