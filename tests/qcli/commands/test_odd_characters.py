"""Names, titles and metadata that would turn a terminal's lines around, or hide a part of them, in what commands print."""

from __future__ import annotations

import json

import pytest
from foreign_models import put
from gguf_maker import STRING, File, key, small_model, write

from qcli.sessions.library import Library
from qcli.sessions.log import Message

ODD = "safe\u202egnp\u2066.\u200bx\u00ad"  # which looks like safe.xpng
SHOWN = "safe\ufffdgnp\ufffd.\ufffdx\ufffd"


@pytest.fixture
def odd_file(tmp_path):
    """A file without tensors that is called, and says, what nobody should be shown."""
    keys = [
        key("general.architecture", STRING, f"odd{ODD}"),
        key("general.name", STRING, ODD),
        key("tokenizer.ggml.model", STRING, f"tok{ODD}"),
        key("tokenizer.ggml.pre", STRING, f"pre{ODD}"),
    ]
    return write(tmp_path / f"{ODD}.gguf", File(keys))


@pytest.mark.parametrize("options", [(), ("--tensors",)])
def test_what_a_file_says_of_itself(type_line, odd_file, options):
    code, out, err = type_line("show", str(odd_file), *options)
    assert (code, err) == (0, "")
    assert f"{SHOWN}.gguf" in "".join(out.split())
    assert f"tok{SHOWN}" in out
    assert f"odd{SHOWN}" in out
    assert not set(ODD) & set(out) & {"\u202e", "\u2066", "\u200b", "\u00ad"}


def test_programs_get_the_same_value_in_escapes(type_line, odd_file):
    _, out, _ = type_line("show", str(odd_file), "--json")
    assert "\u202e" not in out
    assert json.loads(out)["general_name"] == ODD


def test_a_model_that_is_called_so_is_in_no_list(type_line, data_folder):
    put(data_folder / "home" / ".lmstudio" / "models" / ODD / "r-GGUF" / "r-Q4_K_M.gguf", bytes(small_model()))
    code, out, err = type_line("models")
    assert (code, err) == (0, "")
    assert "r-GGUF" not in out


def test_a_conversation(type_line, data_folder):
    with Library().create({"model": ODD}) as log:
        log.append(Message(1, None, "user", ODD), Message(2, 1, "assistant", "Yes."))
    assert SHOWN[:12] in type_line("sessions")[1]
    out = type_line("sessions", "show")[1]
    assert out.splitlines()[0] == SHOWN
    assert next(line for line in out.splitlines() if line.startswith("model")).split() == ["model", SHOWN]
    assert type_line("sessions", "rename", "1", "other")[2] == f"{SHOWN} is now called other\n"


def test_errors_and_their_hints(type_line, tmp_path):
    code, _, err = type_line("show", str(tmp_path / f"{ODD}.gguf"))
    assert code == 1
    assert SHOWN in err
    assert "\u202e" not in err
