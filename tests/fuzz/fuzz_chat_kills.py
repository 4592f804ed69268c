"""A chat with the embedded model is killed at random moments, a thousand times over: while it loads, reads, answers, writes.

No conversation becomes unreadable, no answer that was shown whole is lost, and what is brought back from the disk is what
its text says. Not part of the suite, as it takes ten minutes: python -m pytest tests/fuzz/fuzz_chat_kills.py
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from qcli import LLM
from qcli.sessions import reader
from qcli.sessions.conversation import Conversation
from qcli.sessions.header import header_of
from qcli.sessions.library import Library

KILLS = int(os.environ.get("QCLI_FUZZ_KILLS", "1000"))
MANY = 16  # turns, after which a new conversation begins
CHECKED = 25  # kills, after which states are compared with a text that is read anew
QUESTIONS = (
    "Tell me about a cat.",
    "And then?",
    "Who was there?",
    "Why?",
    "What did the dog say to the bird in the tree?",
)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


def child(work: Callable[[], object]) -> int:
    """Run something in a process of its own, which ends with 0 if it did."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def talk(library: Library, told: int) -> None:
    """Go on with the last conversation, and tell of each turn that was answered and recorded."""
    listed = library.list()
    with LLM(threads=1, ctx=2048, keep="turns") as llm:
        new = not listed or listed[0].messages >= 2 * MANY
        log = library.create(header_of(llm)) if new else library.open(listed[0])
        conversation = Conversation(llm, log, library=library, temperature=0.7, max_tokens=24)
        conversation.bring_back()
        while conversation.turns < MANY:
            number = conversation.turns
            for _ in conversation.ask(QUESTIONS[number % len(QUESTIONS)]):
                pass
            os.write(told, f"{log.path} {number + 1}\n".encode())
            if number % 5 == 4:
                conversation.undo()
                list(conversation.ask("Say it otherwise."))


def check(library: Library) -> None:
    """What is brought back of the last conversation is what the same ids are when they are read anew."""
    with LLM(threads=1, ctx=2048, keep="turns") as kept, LLM(threads=1, ctx=2048) as anew:
        conversation = Conversation(kept, library.open(library.list()[0]), library=library)
        conversation.bring_back()
        ids = [*kept.checkpoint().ids]
        found, expected = kept._cache.prefill([*ids, 5]), anew._cache.prefill([*ids, 5])
        assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_nothing_is_lost_but_the_turn_under_way(tmp_path, monkeypatch):
    monkeypatch.setattr("qcli.host.folders.some_cache", lambda: tmp_path / "cache")
    library, chance = Library(tmp_path / "sessions"), random.Random(1)
    turns = compared = 0
    for kill in range(1, KILLS + 1):
        read, write = os.pipe()
        pid = child(partial(talk, library, write))
        os.close(write)
        time.sleep(chance.uniform(0.05, 0.6))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with open(read, "rb") as pipe:
            lines = pipe.read().decode().splitlines()
        turns += len(lines)
        for path, number in (line.rsplit(" ", 1) for line in lines[-1:]):
            with open(path, "rb") as file:
                found = reader.read(file)
            assert found.damaged == 0
            asked = [message for message in found.session.branch() if message.role == "user"]
            assert len(asked) >= int(number) - 1, (kill, number)  # one may have been taken back
        if kill % CHECKED == 0 and library.list():
            _, status = os.waitpid(child(lambda: check(library)), 0)
            assert status == 0, kill
            compared += 1
    print(f"{KILLS} kills, {turns} turns, {len(library.list())} conversations, {compared} states compared")
    assert turns > KILLS / 4
