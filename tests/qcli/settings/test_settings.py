"""Settings: what is accepted, and who is heard."""

from __future__ import annotations

import pytest

from qcli.errors import UsageError
from qcli.runtime.sampling import OPTIONS
from qcli.sessions.context import CTX_FULL
from qcli.settings.declared import SETTINGS
from qcli.settings.values import Settings, known
from quant.kernels.kv_cache import TYPES as KV_TYPES


def settings(tmp_path, text="", **environment):
    path = tmp_path / "config.toml"
    path.write_text(text, "utf-8")
    return Settings(path, environment)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("model", "storyteller", "storyteller"),
        ("threads", "4", 4),
        ("ram", "24GB", "24GB"),
        ("ctx", "4096", 4096),
        ("save", "off", False),
        ("save", "True", True),
        ("temperature", "0.5", 0.5),
        ("top_k", "0", 0),
        ("seed", str(2**64 - 1), 2**64 - 1),
        ("frequency_penalty", "-0.5", -0.5),
    ],
)
def test_what_is_typed_is_read(key, text, value):
    assert SETTINGS[key].parse(key, text) == value


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("model", ""),
        ("model", "a\x1b[31m"),
        ("threads", "0"),
        ("threads", "1025"),
        ("threads", "four"),
        ("threads", "9" * 5000),
        ("ram", "much"),
        ("ctx", "1.5"),
        ("ctx_full", "start"),
        ("kv_type", "q4_0"),
        ("save", "perhaps"),
        ("temperature", "nan"),
        ("temperature", "-1"),
        ("top_p", "1.1"),
    ],
)
def test_what_cannot_be_meant_is_refused(key, text):
    with pytest.raises(UsageError) as refused:
        SETTINGS[key].parse("HERE", text)
    assert refused.value.message.startswith("HERE cannot be")
    assert refused.value.hint


@pytest.mark.parametrize("known", CTX_FULL)
def test_ways_to_go_on_are_those_of_conversations(known):
    assert SETTINGS["ctx_full"].parse("x", known) == known


@pytest.mark.parametrize("known", KV_TYPES)
def test_types_of_keys_and_values_are_those_of_the_kernels(known):
    assert SETTINGS["kv_type"].parse("x", known) == known


def test_every_sampling_option_that_can_be_typed_is_a_setting():
    assert {name for name, option in OPTIONS.items() if option.flags} <= SETTINGS.keys()


@pytest.mark.parametrize(
    ("text", "environment", "value", "source", "where"),
    [
        ("", {}, None, "default", ""),
        ("threads = 3", {}, 3, "file", "config.toml, line 1"),
        ("# mine\n\nthreads = 3", {}, 3, "file", "config.toml, line 3"),
        ("threads = 3", {"QCLI_THREADS": "2"}, 2, "environment", "QCLI_THREADS"),
        ("threads = 3", {"QCLI_THREADS": " "}, 3, "file", "config.toml, line 1"),
        ("threads = 'many'", {"QCLI_THREADS": "2"}, 2, "environment", "QCLI_THREADS"),
    ],
)
def test_who_is_heard(tmp_path, text, environment, value, source, where):
    found = settings(tmp_path, text, **environment).value("threads")
    assert (found.value, found.source) == (value, source)
    assert found.where.endswith(where)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("threads = 0", "line 1: threads cannot be 0"),
        ("\nthreads = true", "line 2: threads cannot be true"),
        ("threads = '4'", "line 1: threads cannot be 4"),
        ("threads = [1]", "line 1: threads cannot be [1]"),
        ("threads = 2026-11-28", "threads cannot be 2026-11-28"),
    ],
)
def test_a_wrong_value_is_told_with_its_line(tmp_path, text, said):
    with pytest.raises(UsageError) as refused:
        settings(tmp_path, text).value("threads")
    assert said in refused.value.message


def test_set_and_unset_keep_what_else_is_there(tmp_path):
    mine = settings(tmp_path, "# mine\nunheard = 1\n\n[theme]\na = 2\n")
    mine.set("top-k", "20")
    mine.set("model", 'a "b"')
    assert (mine.value("top_k").value, mine.value("model").value) == (20, 'a "b"')
    assert mine.unknown() == ["unheard", "theme"]
    assert mine.unset("model")
    assert not mine.unset("model")
    assert mine.path.read_text("utf-8") == "# mine\nunheard = 1\n\ntop_k = 20\n[theme]\na = 2\n"


def test_a_wrong_value_leaves_the_file_as_it_was(tmp_path):
    mine = settings(tmp_path, "threads = 3\n")
    with pytest.raises(UsageError):
        mine.set("threads", "0")
    assert mine.path.read_text("utf-8") == "threads = 3\n"


def test_a_key_that_is_mistyped():
    with pytest.raises(UsageError) as refused:
        known("thread")
    assert "did you mean threads" in refused.value.hint


@pytest.mark.parametrize(("key", "said"), [("", "is empty"), ("é", "not every client"), ("a b", "not every"), (7, "7")])
def test_a_key_is_one_that_clients_can_send_and_nobody_has_by_sending_none(key, said):
    with pytest.raises(UsageError, match=said):
        SETTINGS["api_key"].accepted("--api-key", key)
    assert SETTINGS["api_key"].accepted("--api-key", "sk-1/2+3=") == "sk-1/2+3="
