"""A summary in place of old turns: in what the model sees alone, and whatever is done with the conversation later."""

from __future__ import annotations

import io
import json

import pytest

from qcli import LLM
from qcli.errors import QcliError, UsageError
from qcli.sessions import context, reader
from qcli.sessions.conversation import Conversation
from qcli.sessions.export import whole
from qcli.sessions.library import Library
from qcli.sessions.markdown import markdown
from qcli.sessions.records import message_line
from qcli.sessions.session import Message

SAT = "A cat sat."
LAST = ["Three", SAT, "Four", SAT]


@pytest.fixture
def llm(telling):
    with LLM() as llm:
        yield llm


@pytest.fixture
def library(tmp_path):
    return Library(tmp_path)


@pytest.fixture
def talk(llm, library):
    """Four turns, the first two of which are summed up by one."""
    talk = Conversation(llm, library.create({"model": "m"}), library=library, temperature=0)
    for question in ("One", "Two", "Three", "Four"):
        said(talk.ask(question))
    return talk


def said(pieces):
    return "".join(pieces)


def seen(talk):
    return [message["content"] for message in talk.messages]


def asked(llm, telling):
    """The last prompt."""
    return llm.tokenizer.decode(telling.ids, special=True)


def test_the_model_sees_the_summary_and_the_last_two_turns(talk, llm, telling):
    assert said(talk.compact()) == SAT
    assert seen(talk) == [context.SO_FAR, SAT, *LAST]
    said(talk.ask("Five"))
    prompt = asked(llm, telling)
    assert "One" not in prompt
    assert prompt.count("<|im_start|>user") == 4
    figures = talk.log.messages[9].figures
    assert (figures["turns"], figures["replaced_tokens"], figures["new_tokens"]) == (2, 10, 4)
    assert talk.turns == 5


def test_it_is_asked_for_after_the_old_turns_alone(talk, llm, telling):
    said(talk.compact())
    prompt = asked(llm, telling)
    assert "Two" in prompt
    assert "Three" not in prompt
    assert "Sum up our conversation" in prompt.rpartition("<|im_start|>user")[2]


def test_undo_and_redo(talk):
    said(talk.compact())
    talk.undo()
    assert seen(talk)[:2] == ["One", SAT]
    talk.redo()
    assert seen(talk) == [context.SO_FAR, SAT, *LAST]
    said(talk.ask("Five"))
    talk.undo()
    assert seen(talk) == [context.SO_FAR, SAT, *LAST]
    talk.undo(2)
    assert seen(talk) == ["One", SAT, "Two", SAT, "Three", SAT]
    talk.redo(3)
    assert seen(talk) == [context.SO_FAR, SAT, *LAST, "Five", SAT]


def test_the_last_message_said_otherwise_or_answered_again(talk):
    said(talk.compact())
    said(talk.regenerate())
    assert seen(talk) == [context.SO_FAR, SAT, *LAST]
    said(talk.edit("Vier"))
    assert seen(talk) == [context.SO_FAR, SAT, "Three", SAT, "Vier", SAT]
    said(talk.regenerate())
    talk.undo()
    assert seen(talk) == [context.SO_FAR, SAT, "Three", SAT]


def test_an_answer_that_was_cut_goes_on_after_a_summary(talk):
    said(talk.ask("Five", max_tokens=2))
    said(talk.compact())
    assert said(talk.resume_answer()) != ""
    assert seen(talk)[:2] == [context.SO_FAR, SAT]
    with pytest.raises(UsageError, match="complete"):
        talk.resume_answer()


def test_it_comes_back_another_day_and_goes_with_a_copy(talk, llm, library):
    said(talk.compact())
    copy = talk.fork("copy")
    assert seen(copy) == [context.SO_FAR, SAT, *LAST]
    copy.close()
    talk.close()
    log = library.open(library.find("copy"))
    assert log.damaged == 0
    again = Conversation(llm, log, library=library)
    assert seen(again) == [context.SO_FAR, SAT, *LAST]
    again.undo()
    assert len(again.messages) == 8
    again.close()


def test_a_second_one_sums_up_the_first(talk, llm, telling):
    said(talk.compact())
    for question in ("Five", "Six"):
        said(talk.ask(question))
    said(talk.compact())
    assert context.SO_FAR in asked(llm, telling)
    assert seen(talk) == [context.SO_FAR, SAT, "Five", SAT, "Six", SAT]
    talk.undo()
    assert seen(talk) == [context.SO_FAR, SAT, *LAST, "Five", SAT, "Six", SAT]


def test_exports_have_the_whole_text(talk):
    said(talk.compact())
    assert [message["text"] for message in whole(talk.log)["messages"]][:3] == ["One", SAT, "Two"]
    assert json.dumps(whole(talk.log))
    text = markdown(talk.log)
    assert text.index("One") < text.index("Four") < text.index("## Summary")


def test_nothing_changes_before_it_is_whole(talk):
    before = talk.log.head
    pieces = talk.compact()
    next(pieces)
    pieces.close()
    next(talk.compact())
    said(talk.ask("Five"))  # ends it
    talk.undo()
    assert talk.log.head == before
    assert all(message.role != "summary" for message in talk.log.messages.values())


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("", "is empty"),
        ("word " * 100, "did not come to an end"),
        ("A cat sat on the mat and so on and so on", "the turns have 10"),
    ],
)
def test_what_is_no_summary_changes_nothing(talk, telling, llm, answer, told):
    telling._answer = [*llm.tokenize(answer), min(llm.tokenizer.end_ids)]
    before = seen(talk)
    with pytest.raises(QcliError, match=told) as caught:
        said(talk.compact())
    assert "nothing was changed" in caught.value.message
    assert seen(talk) == before


def test_a_context_without_room_for_it(talk, telling, monkeypatch):
    telling.ctx = 60
    with pytest.raises(QcliError, match="no room to sum it up: nothing was changed"):
        said(talk.compact())


def test_one_turn_stays_of_two_and_one_is_not_summed_up(llm):
    talk = Conversation(llm)
    with pytest.raises(UsageError, match="nothing to sum up"):
        talk.compact()
    said(talk.ask("One, and some words more"))
    with pytest.raises(UsageError, match="nothing to sum up"):
        talk.compact()
    said(talk.ask("Two"))
    said(talk.compact())
    assert seen(talk) == [context.SO_FAR, SAT, "Two", SAT]
    with pytest.raises(UsageError, match="nothing to sum up"):
        talk.compact()


def test_the_oldest_turns_are_left_out_after_the_summary(llm):
    branch = [Message(i, i - 1 or None, "user" if i % 2 else "assistant", f"{i}") for i in range(1, 9)]
    branch.append(Message(9, 8, "summary", "s", figures={"up_to": 4}))
    assert context.cuts(branch) == [4, 6]
    assert context.left_out_before(branch, 9) == 4
    assert [m["content"] for m in context.prompt(branch, 6)] == [context.SO_FAR, "s", "7", "8"]


@pytest.mark.parametrize(("up_to", "covered"), [(4, 4), (5, 4), (3, 2), (99, 6), (0, 0), (-1, 0), (None, 0), ("4", 0)])
def test_a_summary_never_stands_for_the_last_turn_whatever_a_file_says(up_to, covered):
    """A message that is damaged is not there: a summary stands for those up to an id, however many there are."""
    lines = [message_line(Message(i, i - 1 or None, "user" if i % 2 else "assistant", f"{i}")) for i in range(1, 9)]
    lines.append(message_line(Message(9, 8, "summary", "s", figures={"up_to": up_to})))
    lines.insert(0, b'{"version": 1}\n')
    lines.append(b'{"head": 9, "changed": 1}\n')
    branch = reader.read(io.BytesIO(b"".join(lines))).session.branch()
    assert len(branch) == 9
    assert context.summed_up(branch) == covered
