"""qcli pull: what is typed, what is told, what is printed."""

from __future__ import annotations

import threading

import pytest
from foreign_models import ollama
from stand_in_hub import Fault

from qcli.hub.transfer import Transfer

REPO, NAME = "some/Model-GGUF", "Model-Q4_K_M.gguf"


def test_a_model_is_fetched_and_what_to_type_is_told(hub, type_line):
    code, out, err = type_line("pull", REPO)
    assert code == 0
    assert out.endswith(f"/{NAME}\n")
    assert err == f"1 MB fetched, checked by SHA-256\n`qcli chat -m {REPO}:Q4_K_M` talks to it\n"
    code, again, err = type_line("pull", f"https://huggingface.co/{REPO}/blob/main/{NAME}")
    assert (code, again) == (0, out)
    assert err.startswith("already here: 1 MB\n")


def test_quiet_tells_the_path_alone(hub, type_line):
    code, out, err = type_line("pull", f"{REPO}:Q4_K_M", "-q")
    assert (code, out.count("\n"), err) == (0, 1, "")


def test_what_came_whole_and_cannot_run_is_told(hub, type_line):
    hub.repos["some/Other-GGUF"] = {"Other-Q8_0.gguf": b"GGUF" + bytes(5000)}
    code, out, err = type_line("pull", "some/Other-GGUF")
    assert (code, out.endswith("/Other-Q8_0.gguf\n")) == (0, True)
    assert "qcli cannot run it: is of GGUF version 0" in err
    assert "chat -m" not in err


def test_into_a_folder(hub, type_line, tmp_path):
    code, out, err = type_line("pull", REPO, "--to", str(tmp_path))
    assert (code, out) == (0, f"{tmp_path / NAME}\n")
    assert f"`qcli chat -m {tmp_path / NAME}`" in err


def test_a_name_of_the_list(hub, type_line):
    file = "Qwen3-Next-80B-A3B-Instruct-Q4_K_M.gguf"
    hub.repos["Qwen/Qwen3-Next-80B-A3B-Instruct-GGUF"] = {file: hub.repos[REPO][NAME]}
    code, out, err = type_line("pull", "qwen3-next-80b-a3b-instruct")
    assert code == 0
    assert out.endswith(f"/{file}\n")
    assert "was published anew" in err
    assert "`qcli chat -m qwen3-next-80b-a3b-instruct`" in err


def test_what_is_on_this_machine_already(hub, type_line, storyteller):
    for model in ("storyteller", str(storyteller)):
        code, out, err = type_line("pull", model)
        assert (code, out) == (0, f"{storyteller}\n")
        assert err.startswith("already here")
    assert hub.asked == []


def test_what_another_tool_has_is_here(hub, type_line, data_folder, storyteller):
    blob = ollama(data_folder / "home" / ".ollama" / "models", "library/gemma3/4b", storyteller.read_bytes())
    code, out, err = type_line("pull", "gemma3:4b")
    assert (code, out) == (0, f"{blob}\n")
    assert "`qcli chat -m gemma3:4b`" in err


def test_without_a_network_what_was_fetched_is_there(hub, type_line, monkeypatch):
    there = type_line("pull", REPO)[1]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, err = type_line("pull", REPO)
    assert (code, out) == (0, there)
    assert "the source was not asked" in err


def test_without_a_network_nothing_comes(hub, refused, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused(["pull", "another/Model-GGUF:Q8_0"], 1, "HF_HUB_OFFLINE is set")


@pytest.mark.parametrize(
    ("model", "code", "said"),
    [
        ("nonsuch", 1, "there is no model"),
        ("a" * 5000, 1, "(5000 characters)"),
        ("no/such", 1, "there is no such repository"),
        (f"{REPO}:Q9", 1, "has no Q9"),
        (f"{REPO}:other.gguf", 1, "has no file other.gguf"),
        ("https://example.com/a.gguf", 2, "is not an address on huggingface.co"),
    ],
)
def test_what_cannot_be_fetched(hub, refused, model, code, said):
    refused(["pull", model], code, said)


def test_ctrl_c_keeps_what_came(hub, type_line, monkeypatch):
    tell = Transfer._tell

    def interrupted(self):
        tell(self)
        if self._part.bytes_there:
            raise KeyboardInterrupt

    monkeypatch.setattr(Transfer, "_tell", interrupted)
    never = threading.Event()
    hub.fault = lambda asked: Fault(until=never) if len(hub.requests("store")) > 1 else None
    code, out, err = type_line("pull", REPO)
    never.set()
    assert (code, out) == (130, "")
    assert "type the same command again" in err


def test_a_wrong_file_is_no_model(hub, type_line):
    hub.fault = lambda asked: Fault(wrong=True) if asked.site == "store" else None
    code, out, err = type_line("pull", REPO)
    assert (code, out) == (1, "")
    assert "what came is not the file that it should be" in err
    assert type_line("show", f"{REPO}:Q4_K_M")[0] == 1
