"""Several answers of one LLM at a time: in lists, in coroutines, in threads."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import aclosing, suppress

import pytest
from calling_engine import TEMPLATE

from qcli import LLM
from qcli.errors import ContextOverflowError, QcliError, UsageError
from qcli.runtime.together import Together
from qcli.streaming import budget, usage_file
from qcli.text.chat_template import ChatTemplate
from qcli.tools.call import ToolCall

QUESTIONS = ["Tell me a story about a fox.", "Hi", "Who is the king?", "A dog?", "And a cat?"]
HOW = {"max_tokens": 14, "temperature": 0.8, "seed": 5}
LONG = {"temperature": 2.0, "seed": 1, "stop_loops": False}


@pytest.fixture(scope="module")
def llm():
    with LLM(threads=2, ctx=256) as llm:
        yield llm


@pytest.fixture(scope="module")
def alone(llm):
    return ["".join(llm.chat([{"role": "user", "content": question}], **HOW)) for question in QUESTIONS]


@pytest.fixture
def streamed(monkeypatch, tmp_path):
    """A model that has room for the experts of one token."""

    def allocate(loader, *_):
        loader.allocate(loader.experts_per_token)
        return 0

    monkeypatch.setattr(budget, "fits", lambda *_: False)
    monkeypatch.setattr(budget, "allocate_slots", allocate)
    monkeypatch.setattr(usage_file, "path_for", lambda _: tmp_path / "usage")
    with LLM(threads=2, ctx=256) as llm:
        yield llm


def threads_of_answers():
    return [thread for thread in threading.enumerate() if thread.name == "answers"]


def quiet():
    """Waits until no thread serves coroutines any more."""
    until = time.monotonic() + 20
    while threads_of_answers():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.parametrize("parallel", [1, 2, 8])
def test_a_list_is_answered_in_its_order(llm, alone, parallel):
    results = llm.batch(QUESTIONS, parallel=parallel, **HOW)
    assert [result.text for result in results] == alone
    assert [result.problem for result in results] == [None] * 5
    assert [llm.detokenize(result.ids).strip() for result in results] == [text.strip() for text in alone]
    assert all(result.stats.new_tokens for result in results)
    assert "".join(llm.chat([{"role": "user", "content": QUESTIONS[0]}], **HOW)) == alone[0]  # as before, after it


def test_what_goes_wrong_with_one_is_its_own(llm, alone):
    asked = [QUESTIONS[0], "word " * 400, [{"role": "user", "content": QUESTIONS[1]}], " ", QUESTIONS[2]]
    results = llm.batch(asked, **HOW)
    assert [results[i].text for i in (0, 2, 4)] == alone[:3]
    assert isinstance(results[1].problem, ContextOverflowError)
    assert isinstance(results[3].problem, QcliError)
    assert llm.batch([]) == []


def test_a_step_that_fails_ends_those_that_took_part(llm, alone, monkeypatch):
    right, calls = Together.step, []

    def failing(self):
        calls.append(1)
        if len(calls) == 3:
            raise MemoryError("no memory")
        right(self)

    monkeypatch.setattr(Together, "step", failing)
    results = llm.batch(QUESTIONS, parallel=2, **HOW)
    failed = [isinstance(result.problem, MemoryError) for result in results]
    assert 1 <= sum(failed) <= 2
    assert all(result.text == text for result, text, wrong in zip(results, alone, failed, strict=True) if not wrong)


def test_options_of_each_and_texts_as_they_stand(llm):
    results = llm.batch(["Once", "Once"], raw=True, each=[{"max_tokens": 3}, {"max_tokens": 5}], temperature=0)
    whole = "".join(llm.generate("Once", max_tokens=5, temperature=0))
    assert [result.stats.new_tokens for result in results] == [3, 5]
    assert results[1].text == whole
    with pytest.raises(UsageError, match="options for 1 questions of 2"):
        llm.batch(["a", "b"], each=[{}])
    with pytest.raises(UsageError, match="parallel cannot be 0"):
        llm.batch(["a"], parallel=0)


def test_calls_and_forms():
    listed = [{"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}]
    each = [{"choices": ["red", "blue"]}, {"tools": listed, "tool_choice": "required", "max_tokens": 60}]
    with LLM(threads=2, ctx=512) as llm:
        llm.template = ChatTemplate(TEMPLATE)
        form, call = llm.batch(["A colour?", "The time?"], each=each, temperature=0)
    assert form.text in ("red", "blue")
    assert all(isinstance(one, ToolCall) and one.name == "now" for one in call.calls)
    assert call.calls


def test_one_text_at_a_time(streamed):
    assert streamed.engine.most_tokens == 1
    expected = ["".join(streamed.chat([{"role": "user", "content": one}], **HOW)) for one in QUESTIONS[:2]]
    found = streamed.batch([QUESTIONS[0], " ", QUESTIONS[1]], **HOW)
    assert [found[0].text, found[2].text] == expected
    assert isinstance(found[1].problem, QcliError)

    async def both():
        async def one(question):
            return "".join([piece async for piece in streamed.astream(question, **HOW)])

        return await asyncio.gather(*map(one, QUESTIONS[:2]))

    assert asyncio.run(both()) == expected


def test_coroutines_are_answered_together(llm, alone, monkeypatch):
    most, right = [0], Together.step

    def counting(self):
        most[0] = max(most[0], len(self._texts))
        right(self)

    monkeypatch.setattr(Together, "step", counting)

    async def one(question):
        answer = llm.astream(question, **HOW)
        assert (answer.ids, answer.stats.new_tokens) == ([], 0)
        text = "".join([piece async for piece in answer])
        assert len(answer.ids) == answer.stats.new_tokens > 0
        assert [piece async for piece in answer] == []
        return text

    async def several():
        return await asyncio.gather(*map(one, QUESTIONS))

    assert asyncio.run(several()) == alone
    assert most[0] > 1
    quiet()


def test_what_is_wrong_is_raised_where_it_is_awaited(llm, alone):
    async def several():
        async def one(question):
            return "".join([piece async for piece in llm.astream(question, **HOW)])

        return await asyncio.gather(one("word " * 400), one(QUESTIONS[1]), return_exceptions=True)

    failed, text = asyncio.run(several())
    assert isinstance(failed, ContextOverflowError)
    assert text == alone[1]


@pytest.mark.parametrize("way", ["dropped", "closed", "cancelled"])
def test_one_that_nobody_reads_on_ends(llm, way):
    async def leave():
        answer = llm.astream("Hi", **LONG)
        await anext(answer)
        if way == "closed":
            async with aclosing(answer):
                pass
            assert [piece async for piece in answer] == []
        elif way == "cancelled":

            async def read():
                return [piece async for piece in answer]

            reader = asyncio.create_task(read())
            await asyncio.sleep(0.01)
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader

    asyncio.run(leave())
    quiet()
    assert llm.batch(["Hi"], **HOW)[0].stats.new_tokens


def test_a_prompt_that_nobody_waits_for_is_left(llm, alone):
    async def leave():
        reader = asyncio.create_task(anext(llm.astream("a dog " * 110, **LONG)))
        await asyncio.sleep(0.001)
        reader.cancel()

    asyncio.run(leave())
    quiet()
    assert llm.batch(QUESTIONS[:1], **HOW)[0].text == alone[0]


def test_threads_lists_and_coroutines_share_a_model(llm, alone):
    found: dict[str, object] = {}

    def conversation():
        with llm.conversation() as talk:
            first = "".join(talk.ask(QUESTIONS[0], **HOW))
            found["talk"] = first, bool("".join(talk.ask("And then?", **HOW)))

    async def coroutine():
        found["async"] = "".join([piece async for piece in llm.astream(QUESTIONS[1], **HOW)])

    def batch():
        found["batch"] = [result.text for result in llm.batch(QUESTIONS, **HOW)]

    threads = [threading.Thread(target=work) for work in (conversation, lambda: asyncio.run(coroutine()), batch)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {"talk": (alone[0], True), "async": alone[1], "batch": alone}
    quiet()


def test_closing_tells_coroutines_and_ends_the_thread():
    async def read(llm):
        answer = llm.astream("Hi", **LONG)
        await anext(answer)
        await asyncio.to_thread(llm.close)
        with pytest.raises(QcliError, match="closed"):
            [piece async for piece in answer]
        with pytest.raises(QcliError, match="closed"):
            await anext(llm.astream("Hi"))

    asyncio.run(read(LLM(threads=2)))
    quiet()
