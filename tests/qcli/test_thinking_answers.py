"""Answers of models that are told to think, not to, or not for long: the embedded model, with a template that has it think."""

from __future__ import annotations

import threading

import pytest
from fake_engine import FakeEngine

from qcli import LLM
from qcli.errors import UsageError
from qcli.runtime.engine import Engine
from qcli.sessions.conversation import Conversation
from qcli.text.chat_template import ChatTemplate
from qcli.text.think_tags import find_think_tags
from qcli.text.thoughts import Thought

USER = {"role": "user", "content": "Tell me a story."}
TEMPLATE = """\
{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}
{%- if enable_thinking is defined and not enable_thinking %}{{ '\\n</think>\\n\\n' }}{% endif %}{% endif %}
"""
SENTENCE = "Considering the limited time by the user"
BUDGET = 12
GREEDY = {"temperature": 0, "max_tokens": 80}


def thinking(llm: LLM) -> LLM:
    """The model as one that thinks, between tags that are spelled with ordinary tokens."""
    llm.template = ChatTemplate(TEMPLATE)
    llm.think_tags = find_think_tags(llm.tokenizer, TEMPLATE)
    return llm


@pytest.fixture(scope="module")
def thinker():
    with LLM(threads=1) as llm:
        yield thinking(llm)


@pytest.fixture(scope="module")
def whole(thinker) -> list[int]:
    """The ids of an answer with a budget."""
    answer = thinker.chat([USER], think=BUDGET, **GREEDY)
    list(answer)
    return answer.ids


def parted(pieces) -> tuple[str, str]:
    """Thoughts and answer."""
    found = [*pieces]
    thoughts = "".join(piece for piece in found if isinstance(piece, Thought))
    return thoughts, "".join(piece for piece in found if not isinstance(piece, Thought))


def test_a_budget_closes_the_thought_and_the_answer_follows(thinker, whole):
    thoughts, answer = parted(thinker.chat([USER], think=BUDGET, **GREEDY))
    assert thoughts.rstrip().endswith("directly now.\n</think>")
    assert answer.strip()
    words = thinker.tokenizer.encode(thinker.thinking.closing_words)
    assert whole[BUDGET : BUDGET + len(words)] == words
    assert thinker.stats.thought_tokens >= BUDGET
    assert thinker.stats.new_tokens == len(whole)
    free = thinker.chat([USER], think="on", **GREEDY)
    list(free)
    assert free.ids[:BUDGET] == whole[:BUDGET]
    assert SENTENCE not in thinker.detokenize(free.ids)


def test_the_number_of_threads_does_not_matter(whole):
    with LLM(threads=2) as llm:
        answer = thinking(llm).chat([USER], think=BUDGET, **GREEDY)
        assert "".join(answer)
        assert answer.ids == whole


@pytest.mark.parametrize("at", [1, BUDGET - 1, BUDGET, BUDGET + 9, BUDGET + 40])
def test_an_answer_that_was_interrupted_goes_on_to_the_same_ids(thinker, whole, at):
    talk = Conversation(thinker, think=BUDGET, **GREEDY)
    list(talk.ask(USER["content"], max_tokens=at))
    talk.options["think"] = "off"  # whatever is wanted of others
    list(talk.resume_answer(max_tokens=GREEDY["max_tokens"] - at))
    last = talk.log.branch()[-1]
    assert list(last.ids) == whole
    assert last.sampling["think"] == BUDGET


@pytest.mark.parametrize("elsewhere", [False, True])
def test_enough_thinking(thinker, elsewhere):
    answer = thinker.chat([USER], **GREEDY)
    pieces = [next(answer) for _ in range(5)]
    said = len(answer.ids)
    if elsewhere:
        thread = threading.Thread(target=thinker.end_thought)
        thread.start()
        thread.join()
    else:
        thinker.end_thought()
    thoughts, text = parted([*pieces, *answer])
    assert SENTENCE in thoughts
    assert text.strip()
    words = thinker.tokenizer.encode(thinker.thinking.closing_words)
    assert answer.ids[said : said + len(words)] == words


def test_nothing_outside_of_a_thought_is_ended(thinker):
    thinker.end_thought()  # no answer
    plain = thinker.chat([USER], think="off", **GREEDY)
    first = next(plain)
    thinker.end_thought()
    thoughts, text = parted([first, *plain])
    assert (thoughts.strip(), SENTENCE in text) == ("", False)


def test_a_text_that_no_template_writes_can_be_given_a_budget_alone(thinker):
    thoughts, text = parted(thinker.generate("<think>\n", think=3, **GREEDY))
    assert SENTENCE in thoughts
    assert text
    for think in ("on", "off", "low"):
        with pytest.raises(UsageError, match=f"think cannot be {think} for a text"):
            thinker.generate("Once", think=think)


@pytest.mark.parametrize("think", ["low", "maybe", -1])
def test_what_the_model_cannot_be_told_is_refused(thinker, think):
    for use in (lambda: thinker.chat([USER], think=think), lambda: thinker.render([USER], think=think)):
        with pytest.raises(UsageError, match="think cannot be"):
            use()


@pytest.fixture
def fake(monkeypatch):
    """Makes models of engines of a few lines, which look at what is in their state."""
    monkeypatch.setattr(Engine, "load", lambda *_, **__: FakeEngine(8192, 1024))
    return lambda: thinking(LLM())


def test_how_to_think_may_change_from_turn_to_turn(fake):
    with fake() as llm:
        talk = Conversation(llm, temperature=0, max_tokens=9)
        for think in ("off", None, 3, "off", "hide", "on", "off"):
            talk.options["think"] = think
            list(talk.ask("And then?"))
            prompt = llm.render(talk.messages[:-1], think=think)
            assert prompt.endswith("</think>\n\n" if think == "off" else "<think>\n")
            assert llm.detokenize(llm.engine.ids[: llm.stats.prompt_tokens]) == llm.detokenize(llm.tokenize(prompt))


def test_a_conversation_is_brought_back_as_its_next_answer_is_thought_about(fake):
    with fake() as llm:
        talk = Conversation(llm, temperature=0, max_tokens=9, think="off")
        list(talk.ask("And then?"))
    with fake() as llm:
        llm.template = ChatTemplate("{% if enable_thinking is defined %}Think!{% endif %}" + TEMPLATE)
        again = Conversation(llm, temperature=0, max_tokens=9, think="off")
        again.log = talk.log
        came = again.bring_back()
        list(again.ask("And then?"))
        assert llm.stats.cached_tokens == came.tokens > 16
