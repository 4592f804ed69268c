"""A chat at a keyboard: what is typed while it answers, Ctrl-C, and the key that ends a thought."""

from __future__ import annotations

import os
import select
import signal
import sys

import pytest
from places import ROOT

from qcli import line_input
from qcli.text.thoughts import Thought

# A model that says "A cat sat." and goes on with full stops, a hundred a second.
ENDLESS = f"""
import sys, time
sys.path.insert(0, {str(ROOT / "tests" / "helpers")!r})
from fake_engine import TellingEngine
from qcli.catalog.resolve import resolve
from qcli.cli import main
from qcli.runtime.engine import Engine
from qcli.text.tokenizer import Tokenizer

class Endless(TellingEngine):
    def step(self, token):
        time.sleep(0.01)
        return super().step(token)

tokenizer = Tokenizer.from_gguf(resolve(None)[0])
engine = Endless(tokenizer.vocab_size, 4096, tokenizer.encode("A cat sat. ."))
Engine.load = lambda *_, **__: engine
sys.argv = ["qcli", "chat", "--no-save"]
main()
"""


@pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")
def test_what_is_typed_into_an_answer_begins_the_next_turn(data_folder):
    import pty

    chat, terminal = pty.fork()
    if not chat:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        private = {f"XDG_{kind}_HOME": str(data_folder) for kind in ("DATA", "STATE", "CONFIG")}
        os.environ |= {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "NO_COLOR": "1", **private}
        os.execv(sys.executable, [sys.executable, "-c", ENDLESS])

    def until(*words: bytes) -> bytes:
        """What comes until these words were there, one after the other."""
        seen, at = b"", 0
        for word in words:
            while word not in seen[at:]:
                assert select.select([terminal], [], [], 20)[0], seen
                seen += os.read(terminal, 4096)
            at = seen.index(word, at) + len(word)
        return seen

    until(b">")
    os.write(terminal, b"Hi\r")
    until(b"cat sat.")
    os.write(terminal, b"and then\r")
    os.write(terminal, b"\x03")
    answer, _, prompt = until(b"/continue goes on", b">", b"and then").partition(b">")
    assert b"and then" not in answer
    assert b"^C" not in answer + prompt
    os.write(terminal, b"\x15\x04")
    while True:
        try:
            if not os.read(terminal, 4096):
                break
        except OSError:  # how Linux says that the other end is closed
            break
    assert os.waitstatus_to_exitcode(os.waitpid(chat, 0)[1]) == 0
    os.close(terminal)


@pytest.mark.parametrize("quiet", [False, True])
def test_of_the_key_that_ends_a_thought_a_person_is_told_once(telling, type_line, monkeypatch, quiet):
    def thinking(self, text, about=""):
        yield from (Thought("hm"), Thought("hm"), "A cat.")

    monkeypatch.setattr("qcli.commands.chat.is_interactive", lambda: True)
    monkeypatch.setattr(line_input, "is_interactive", lambda: False)
    monkeypatch.setattr("qcli.sessions.conversation.Conversation.ask", thinking)
    _, out, err = type_line("chat", *(["-q"] if quiet else []), piped="Hi\nHo\n")
    assert out == "A cat.\nA cat.\n"
    assert err.count("Ctrl-T") == (0 if quiet else 1)
    assert quiet or err.index("Ctrl-T") < err.index("hm")


def test_in_a_pipe_nobody_is_told_of_keys(telling, type_line, monkeypatch):
    def thinking(self, text, about=""):
        yield from (Thought("hm"), "A cat.")

    monkeypatch.setattr("qcli.sessions.conversation.Conversation.ask", thinking)
    assert "Ctrl-T" not in type_line("chat", piped="Hi\n")[2]
