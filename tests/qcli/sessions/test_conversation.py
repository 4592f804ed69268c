"""A conversation over an engine of a few lines: what is said, taken back, said otherwise, cut, and gone on with later."""

from __future__ import annotations

import signal
from dataclasses import replace
from pkgutil import resolve_name

import pytest
from fake_engine import FakeEngine, hashed

from qcli import LLM
from qcli.errors import OutputError, UsageError
from qcli.runtime.engine import Engine
from qcli.sessions.conversation import Conversation
from qcli.sessions.library import Library
from qcli.sessions.log import SessionLog

GREEDY = {"temperature": 0, "max_tokens": 12}


@pytest.fixture
def llm(monkeypatch):
    engine = FakeEngine(8192, 2048, hashed(8192))
    monkeypatch.setattr(Engine, "load", lambda *_, **__: engine)
    with LLM() as llm:
        yield llm


@pytest.fixture
def library(tmp_path):
    return Library(tmp_path)


@pytest.fixture
def talk(llm, library):
    return Conversation(llm, library.create({"model": "m"}), library=library, **GREEDY)


def said(pieces):
    return "".join(pieces)


def stopped_after(pieces, count):
    """What is read of an answer that is closed after so many pieces."""
    text = "".join(next(pieces) for _ in range(count))
    pieces.close()
    return text


def test_a_turn_is_recorded_with_all_that_it_takes_to_get_it_again(llm, talk):
    text = said(talk.ask("Hi"))
    asked, answer = talk.log.branch()
    assert talk.messages == [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": text}]
    assert (asked.role, asked.parent, answer.parent) == ("user", None, asked.id)
    assert (answer.text, answer.finish_reason, len(answer.ids)) == (text, "length", 12)
    assert llm.detokenize(answer.ids) == text
    assert answer.sampling["temperature"] == 0
    assert answer.sampling["max_tokens"] == 12
    assert answer.figures["prompt_tokens"] == llm.stats.prompt_tokens
    assert answer.figures["new_tokens"] == 12


def test_undo_and_redo_move_along_the_branch_and_erase_nothing(talk):
    for text in ("one", "two", "three"):
        said(talk.ask(text))
    whole = talk.messages
    talk.undo(2)
    assert talk.messages == whole[:2]
    talk.redo()
    assert talk.messages == whole[:4]
    talk.redo()
    assert talk.messages == whole
    talk.undo(3)
    assert talk.messages == []
    talk.redo(3)
    assert talk.messages == whole
    assert len(talk.log.messages) == 6


@pytest.mark.parametrize("n", [0, -1, 3])
def test_turns_that_are_not_there_are_neither_taken_nor_brought_back(talk, n):
    said(talk.ask("one"))
    said(talk.ask("two"))
    with pytest.raises(UsageError, match="only 2 turns to take back"):
        talk.undo(n)
    with pytest.raises(UsageError, match="no turn to bring back"):
        talk.redo(n)
    assert talk.turns == 2


def test_an_edited_message_stands_beside_the_first(talk):
    said(talk.ask("one"))
    said(talk.ask("two"))
    before = talk.messages
    text = said(talk.edit("deux"))
    assert talk.messages == [*before[:2], {"role": "user", "content": "deux"}, {"role": "assistant", "content": text}]
    assert len(talk.log.messages) == 6
    talk.undo()
    talk.redo()
    assert talk.messages[2]["content"] == "deux"  # the one that was written last


def test_another_answer_to_the_same_message(llm, talk):
    said(talk.ask("one"))
    first = talk.log.branch()
    said(talk.regenerate(seed=9, temperature=50, top_k=0, top_p=1, min_p=0))
    second = talk.log.branch()
    assert first[0] == second[0]
    assert first[1].text != second[1].text
    assert second[1].sampling["seed"] == 9


@pytest.mark.parametrize("begin", ["regenerate", "resume_answer", "last_question"])
def test_what_needs_an_answer_says_so(talk, begin):
    with pytest.raises(UsageError, match="no answer yet"):
        getattr(talk, begin)()


def test_a_stopped_answer_is_kept_and_gone_on_with_as_if_nothing_had_happened(llm, talk):
    said(talk.ask("one"))
    whole = talk.log.branch()[-1]
    talk.undo()
    begun = stopped_after(talk.ask("one"), 5)
    cut = talk.log.branch()[-1]
    assert (cut.text, cut.finish_reason, cut.ids) == (begun, "interrupted", whole.ids[: len(cut.ids)])
    rest = said(talk.resume_answer(max_tokens=12 - len(cut.ids)))
    again = talk.log.branch()[-1]
    assert begun + rest == again.text == whole.text
    assert again.ids == whole.ids
    assert again.parent == cut.parent
    assert again.figures["new_tokens"] == 12 - len(cut.ids)


@pytest.mark.parametrize("place", ["qcli.runtime.generate.StopStrings.push", "qcli.runtime.sampler.Sampler.sample"])
def test_wherever_ctrl_c_comes_ids_and_text_and_what_was_shown_are_the_same(llm, talk, monkeypatch, place):
    room, name = place.rsplit(".", 1)
    owner = resolve_name(room)
    whole, calls, shown = getattr(owner, name), [], []

    def interrupted(*given):
        calls.append(given)
        if len(calls) == 5:
            signal.raise_signal(signal.SIGINT)
        return whole(*given)

    monkeypatch.setattr(owner, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        shown.extend(talk.ask("Hi"))
    talk.close()
    answer = talk.log.branch()[-1]
    assert answer.finish_reason == "interrupted"
    assert answer.text == llm.detokenize(answer.ids) == "".join(shown) != ""


def test_an_answer_that_was_cut_at_its_end_of_tokens_goes_on(talk):
    said(talk.ask("one", max_tokens=20))
    whole = talk.log.branch()[-1]
    said(talk.edit("one", max_tokens=9))
    said(talk.resume_answer(max_tokens=11))
    assert talk.log.branch()[-1].ids == whole.ids


def test_a_complete_answer_does_not_go_on(telling, library):
    with LLM() as llm:
        talk = Conversation(llm, library=library)
        assert said(talk.ask("Hi")) == "A cat sat."
        with pytest.raises(UsageError, match="complete"):
            talk.resume_answer()


def test_a_question_without_a_word_of_answer_is_not_kept(llm, talk):
    said(talk.ask("one"))
    before = talk.messages
    llm.engine.fail_next = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        said(talk.ask("two"))
    unread = talk.ask("three")
    unread.close()
    assert talk.messages == before


def test_what_is_done_meanwhile_ends_an_answer_that_is_being_read(talk):
    pieces = talk.ask("one")
    begun = next(pieces)
    text = said(talk.ask("two"))
    assert [message["content"] for message in talk.messages] == ["one", begun, "two", text]
    assert list(pieces) == []


def test_a_system_message_holds_from_where_it_was_set(llm, talk):
    said(talk.ask("one"))
    talk.system = "Rhyme."
    said(talk.ask("two"))
    assert [message["role"] for message in talk.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert [message.role for message in talk.log.branch()] == ["user", "assistant", "system", "user", "assistant"]
    talk.undo(2)
    assert talk.system == ""
    talk.redo(2)
    assert talk.system == "Rhyme."
    talk.system = ""
    said(talk.regenerate())
    assert talk.messages[0]["role"] == "user"
    assert talk.turns == 2


def test_a_fork_leaves_the_other_as_it_is(talk, library):
    said(talk.ask("one"))
    before = talk.messages
    fork = talk.fork("side")
    said(fork.ask("two"))
    assert talk.messages == before == fork.messages[:2]
    fork.close()
    talk.close()
    assert {summary.name: summary.messages for summary in library.list()} == {"": 2, "side": 4}


def test_a_fork_in_memory_is_in_memory(llm, library):
    talk = Conversation(llm, library=library, **GREEDY)
    said(talk.ask("one"))
    said(talk.fork().ask("two"))
    assert (talk.turns, library.list()) == (1, [])


def test_one_in_memory_is_recorded_once_it_is_saved(llm, library):
    talk = Conversation(llm, library=library, **GREEDY)
    for text in ("one", "two"):
        said(talk.ask(text))
    talk.undo()
    talk.save("kept")
    said(talk.ask("three"))
    talk.save("renamed")
    talk.save()
    talk.close()
    (summary,) = library.list()
    log = library.open(summary)
    assert (log.name, log.messages) == ("renamed", talk.log.messages)
    assert [message.text for message in log.branch()][::2] == ["one", "three"]
    with pytest.raises(UsageError, match="is called 'renamed' already"):
        Conversation(llm, library=library).save("renamed")


DARING = {"temperature": 50, "top_k": 0, "top_p": 1, "min_p": 0, "max_tokens": 12}


def test_after_a_pause_it_goes_on_as_if_there_had_been_none(llm, library):
    without = Conversation(llm, seed=3, **DARING)
    for text in ("one", "two", "three"):
        said(without.ask(text))
    talk = Conversation(llm, library.create({}), seed=3, **DARING)
    for text in ("one", "two"):
        said(talk.ask(text))
    talk.close()
    later = Conversation(llm, library.open(library.last()), seed=3, **DARING)
    said(later.ask("three"))
    assert [message.ids for message in later.log.branch()] == [message.ids for message in without.log.branch()]


def test_each_answer_has_a_seed_of_its_own_which_is_known_afterwards(llm):
    talk = Conversation(llm, **DARING)
    said(talk.ask("one"))
    first = talk.log.branch()[-1]
    said(talk.regenerate())
    second = talk.log.branch()[-1]
    assert first.sampling["seed"] != second.sampling["seed"]
    said(talk.regenerate(seed=first.sampling["seed"]))
    assert talk.log.branch()[-1].ids == first.ids
    given = Conversation(llm, seed=2**64 - 1, **DARING)
    said(given.ask("one"))
    said(given.regenerate())
    assert [m.sampling["seed"] for m in given.log.messages.values() if m.role == "assistant"] == [2**64 - 1, 0]


def test_a_disk_that_is_full_costs_no_word(llm, talk, library, monkeypatch):
    told: list[str] = []
    said(talk.ask("one"))
    talk._tell = told.append

    def full(*_, **__):
        raise OutputError("disk: full")

    with monkeypatch.context() as patch:
        patch.setattr(SessionLog, "_change", full)
        said(talk.ask("two"))
    said(talk.ask("three"))
    assert told == ["disk: full: from now on, the conversation is not saved"]
    assert talk.problem
    assert talk.turns == 3
    talk.save("again")
    talk.close()
    assert talk.problem is None
    assert {summary.name: summary.messages for summary in library.list()} == {"": 2, "again": 6}


def test_another_model_that_goes_on_with_it_is_noted(llm, library, talk):
    said(talk.ask("one"))
    talk.close()
    assert library.read(library.last()).header["model"] == llm.name


def test_thoughts_are_kept_apart_and_not_told_to_the_model(llm, talk):
    said(talk.ask("one"))
    last = talk.log.branch()[-1]
    talk.log.append(replace(last, id=talk.log.next_id(), thoughts="no word of it"))
    assert "no word of it" not in str(talk.messages)
