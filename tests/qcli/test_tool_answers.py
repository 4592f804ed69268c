"""Answers that call tools: the embedded model, with a template that tells it of tools, and with ids that are remembered."""

from __future__ import annotations

import pytest
from calling_engine import TEMPLATE

from qcli import LLM
from qcli.errors import UsageError
from qcli.sessions.library import Library
from qcli.sessions.markdown import markdown
from qcli.text.chat_template import ChatTemplate
from qcli.tools.arguments import problem_with
from qcli.tools.call import ToolCall
from qcli.tools.tool import checked_tools

USER = {"role": "user", "content": "Tell me a story."}
CITY = {"properties": {"city": {"enum": ["Rome", "Oslo"]}, "days": {"type": "integer"}}, "required": ["city"]}
TOOLS = checked_tools([{"name": "weather", "parameters": CITY}, {"name": "now"}])


@pytest.fixture(scope="module")
def llm():
    with LLM(threads=2) as llm:
        llm.template = ChatTemplate(TEMPLATE)
        yield llm


def calls(pieces) -> list[ToolCall]:
    return [piece for piece in pieces if isinstance(piece, ToolCall)]


def test_a_model_that_knows_no_tools_calls_them_as_they_are(llm):
    answer = llm.chat([USER], tools=TOOLS, tool_choice="weather", temperature=2.0, seed=5, max_tokens=80)
    (call, *_) = calls(answer)
    tool = TOOLS.get(call.name)
    assert call.name == "weather"
    assert problem_with(tool, call.arguments) == ""


def test_a_call_that_was_cut_goes_on(llm):
    how = {"tools": TOOLS, "tool_choice": "required", "temperature": 0, "max_tokens": 90}
    whole = llm.chat([USER], **how)
    (call, *_) = calls(whole)
    assert calls(llm.chat([USER], begun=whole.ids[:9], **how))[0] == call


def test_a_list_of_tools_is_taken_wherever_tools_are(llm):
    listed = TOOLS.listed
    assert llm.render([USER], tools=listed) == llm.render([USER], tools=TOOLS)
    list(llm.chat([USER], tools=listed, temperature=0, max_tokens=2))
    said = [USER, {"role": "assistant", "content": "Yes."}]
    assert llm.resume(said, tools=listed) is not None
    assert llm.resume(said, tools=TOOLS).missing == 0
    with llm.conversation(tools=listed, max_tokens=2, temperature=0) as talk:
        list(talk.ask("Hi"))
        assert talk.bring_back() is not None


def test_nobody_is_made_to_call(llm):
    for choice in ("auto", "none"):
        assert not calls(llm.chat([USER], tools=TOOLS, tool_choice=choice, temperature=0, max_tokens=8))
    assert llm.stats.finish_reason == "length"


def test_what_cannot_be_meant(llm):
    for options, said in [
        ({"tools": 3}, "no list of tools"),
        ({"tools": TOOLS, "tool_choice": "rm"}, "tool_choice cannot be rm"),
        ({"tool_choice": "auto"}, "there are none"),
        ({"tools": TOOLS, "regex": "a"}, "tools and a form of the answer cannot be used together"),
    ]:
        with pytest.raises(UsageError, match=said):
            llm.chat([USER], **options)
    with pytest.raises(UsageError, match="tools need a chat template"):
        llm.generate("a", tools=TOOLS)


def test_a_conversation_records_calls_and_results_and_goes_on(llm, tmp_path):
    library = Library(tmp_path)
    how = {"tools": TOOLS, "max_tokens": 60, "temperature": 0}
    with llm.conversation(log=library.create({}), library=library, **how) as talk:
        list(talk.ask("When?", tool_choice="now"))
        (call,) = talk.open_calls()
        with pytest.raises(UsageError, match="a call to be answered first"):
            talk.go_on()
        talk.add_results((call, "noon"))
        list(talk.go_on(max_tokens=4))
        said = talk.log.branch()
        talk.undo()
        assert talk.log.branch() == []
        talk.redo()
        assert talk.log.branch() == said
    with llm.conversation(log=library.open(library.last()), **how) as talk:
        assert talk.log.branch() == said
        again = talk.messages
        assert [message["role"] for message in again] == ["user", "assistant", "tool", "assistant"]
        assert again[1]["tool_calls"][0]["function"] == {"name": "now", "arguments": "{}"}
        assert again[2]["tool_call_id"] == again[1]["tool_calls"][0]["id"] == call.id
        assert "Call of `now`:" in markdown(talk.log)
        talk.undo()
        list(talk.ask("When?", tool_choice="now"))
        list(talk.ask("Never mind.", max_tokens=3))  # the call has no result
        assert [message.text for message in talk.log.branch() if message.role == "tool"] == ["This call was not run."]
