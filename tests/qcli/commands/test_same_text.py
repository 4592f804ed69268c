"""An answer is the same text wherever it goes: into a pipe, a file, the log, the clipboard, an export."""

from __future__ import annotations

import base64
import json

import pytest
from fake_engine import TellingEngine

from qcli import line_input
from qcli.runtime.engine import Engine
from qcli.sessions.library import Library
from qcli.terminal import clipboard

TEXT = (
    "# 猫 and 🐟\n\n| a | b |\n|--:|:-:|\n|  1 | *x*  |\n\n"
    "```sh\nprintf '\\033[31m'  # \x1b[31m\t\ttabs\n```\r\n- one\n  - é e\u0301 \u202e  \n\n\ntrailing spaces  \nend\x07"
)


@pytest.fixture
def tricky(monkeypatch, storyteller_tokenizer, data_folder):
    """A model that answers with TEXT."""
    ids = [*storyteller_tokenizer.encode(TEXT, special=False), min(storyteller_tokenizer.end_ids)]
    engine = TellingEngine(storyteller_tokenizer.vocab_size, 1024, ids)
    monkeypatch.setattr(Engine, "load", lambda *_, **__: engine.open())


def test_in_pipe_file_log_clipboard_and_export(tricky, type_line, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, piped, _ = type_line("run", "Hi", "--quiet")
    assert (code, piped) == (0, TEXT + "\n")
    assert type_line("run", "Hi", "--quiet", "-o", "answer.md")[0] == 0
    assert (tmp_path / "answer.md").read_bytes() == (TEXT + "\n").encode()
    assert json.loads(type_line("run", "Hi", "--json")[1])["text"] == TEXT

    sent = []
    monkeypatch.setattr("qcli.commands.chat.is_interactive", lambda: True)
    monkeypatch.setattr(line_input, "is_interactive", lambda: False)
    monkeypatch.setattr(clipboard, "copy", lambda text: sent.append(clipboard.sequence(text)) or True)
    assert type_line("chat", piped="Hi\n/copy\n/export talk.json\n")[1] == TEXT + "\n"
    assert base64.b64decode(sent[0].partition(";c;")[2].rstrip("\x07\x1b\\")).decode() == TEXT
    library = Library()
    assert library.read(library.last()).branch()[-1].text == TEXT
    assert TEXT in [message["text"] for message in json.loads((tmp_path / "talk.json").read_text("utf-8"))["messages"]]
