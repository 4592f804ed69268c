"""Conversations with guesses that are wrong at every token: undone, edited, forked, left, come back to, as without guesses."""

from __future__ import annotations

from wrong_guesses import Liar

from qcli import LLM
from qcli.drafts import drafted_steps
from qcli.sessions.conversation import Conversation
from qcli.sessions.library import Library

OPTIONS = {"max_tokens": 12, "temperature": 0.8, "seed": 4, "stop_loops": False}


def conversations(draft, folder, monkeypatch):
    """All that is said, ids too, in two visits, of which the second one finds the states of the first on the disk."""
    monkeypatch.setattr("qcli.host.folders.some_cache", lambda: folder)
    library, said = Library(folder), []

    def ask(pieces, talk):
        said.append(("".join(pieces), tuple(talk.log.branch()[-1].ids or ())))

    with LLM(draft=draft, threads=1, ctx=512, keep="turns") as llm:
        talk = Conversation(llm, library.create({}, "kept"), library=library, **OPTIONS)
        ask(talk.ask("Tell me of a fox."), talk)
        ask(talk.ask("And of a crow."), talk)
        before = llm.checkpoint()
        side = talk.fork("side")
        talk.undo()
        ask(talk.ask("Who was it?"), talk)
        ask(talk.edit("Where was it?"), talk)
        ask(side.ask("And then?"), side)
        llm.restore(before)
        said.append(("".join(llm.chat(side.messages, **OPTIONS)), ()))
        talk.undo()
        talk.redo()
        ask(talk.regenerate(seed=5), talk)
        talk.close()
        side.close()
        guessed = llm.stats.guessed
    with LLM(draft=draft, threads=1, ctx=512, keep="turns") as llm:
        for name in ("side", "kept"):
            with Conversation(llm, library.open(library.find(name)), library=library, **OPTIONS) as talk:
                back = talk.bring_back()
                assert back
                assert back.missing == 0
                talk.undo()
                ask(talk.ask("Again."), talk)
    return said, guessed


def test_as_without_guesses(tmp_path, monkeypatch):
    expected, none = conversations("off", tmp_path / "off", monkeypatch)
    monkeypatch.setattr(drafted_steps, "PromptLookup", Liar)
    found, guessed = conversations(7, tmp_path / "wrong", monkeypatch)
    assert found == expected
    assert (none, guessed > 30) == (0, True)
    assert len({text for text, _ in found}) > 6
