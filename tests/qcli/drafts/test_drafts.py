"""Texts with drafts are those without, to the bit, whatever is guessed."""

from __future__ import annotations

import pytest
from wrong_guesses import Liar

from qcli import LLM
from qcli.drafts import drafted_steps
from qcli.drafts.setting import Draft, draft_setting
from qcli.errors import UsageError

PROMPTS = (
    "Once upon a time there was a dog. Once upon a time there was a cat. Once upon a time",
    "The king said: come here. The queen said: come here. The",
    "One day a fox and a crow",
)
SAMPLINGS = (
    {"temperature": 0},
    {"temperature": 0.8, "seed": 5},
    {"temperature": 1.0, "seed": 6, "repeat_penalty": 1.2, "presence_penalty": 0.3, "top_k": 20},
)


@pytest.fixture(scope="module")
def plain():
    with LLM(draft="off", threads=1, ctx=512) as llm:
        yield llm


@pytest.fixture(scope="module", params=["auto", "mtp", "lookup", 1, 3, 7])
def drafting(request):
    with LLM(draft=request.param, threads=2, ctx=512) as llm:
        yield llm


def texts(llm):
    """Each text, and of how many tokens it is."""
    for prompt in PROMPTS:
        for sampling in SAMPLINGS:
            text = "".join(llm.generate(prompt, max_tokens=60, stop_loops=False, **sampling))
            yield text, llm.stats.new_tokens


@pytest.fixture(scope="module")
def expected(plain):
    return list(texts(plain))


def test_the_same_texts(expected, drafting):
    assert list(texts(drafting)) == expected


def test_the_same_log_probabilities(plain, drafting):
    found = []
    for llm in (plain, drafting):
        "".join(llm.generate(PROMPTS[0], max_tokens=40, temperature=0, logprobs=3))
        found.append(llm.stats.logprobs)
    assert found[0] == found[1]


def test_wrong_guesses_at_every_token_leave_text_and_state_right(plain, expected, monkeypatch):
    monkeypatch.setattr(drafted_steps, "PromptLookup", Liar)
    with LLM(draft=7, threads=2, ctx=512) as llm:
        assert list(texts(llm)) == expected
        assert llm.stats.decode_steps > 20
        assert llm.stats.guessed > 5 * llm.stats.decode_steps
        chats = []
        for model in (plain, llm):
            said = [{"role": "user", "content": "Tell me of a fox."}]
            for question in ("And then?", "Who was it?"):
                said.append({"role": "assistant", "content": "".join(model.chat(said, max_tokens=30, temperature=0))})
                said.append({"role": "user", "content": question})
            before = model.checkpoint()
            said.append({"role": "assistant", "content": "".join(model.chat(said, max_tokens=30, temperature=0))})
            model.restore(before)
            chats.append([*said, "".join(model.chat(said[:3], max_tokens=30, temperature=0))])
        assert chats[0] == chats[1]


def test_by_the_models_own_head(plain):
    """The embedded model has one; nothing is found in the text itself."""
    for draft in (2, 4):
        with LLM(draft=draft, threads=2, ctx=512) as llm:
            assert llm.engine.draft_head
            sampling = {"temperature": 0.8, "seed": 2, "max_tokens": 80}
            prompt = "One day a fox and a crow"
            assert "".join(llm.generate(prompt, **sampling)) == "".join(plain.generate(prompt, **sampling))
            assert llm.stats.guessed_right > 20


@pytest.mark.parametrize("draft", ["off", "lookup"])
def test_a_head_that_nobody_asks_is_not_loaded(draft):
    with LLM(draft=draft, threads=1, ctx=64) as llm:
        assert llm.engine.draft_head is None
        assert llm.engine.state.kept_as == "f16"


def test_an_answer_that_is_left_in_the_midst_of_guesses(plain):
    with LLM(draft=7, threads=1, ctx=512) as llm:
        for pieces in range(1, 12, 3):
            ends = []
            for model in (plain, llm):
                answer = model.generate(PROMPTS[0], max_tokens=60, temperature=0)
                begun = [next(answer) for _ in range(pieces)]
                answer.close()
                ends.append((begun, "".join(model.generate(PROMPTS[0] + " there", max_tokens=20, temperature=0))))
            assert ends[0] == ends[1]


def test_figures_say_what_was_guessed():
    with LLM(draft=3, threads=1, ctx=512) as llm:
        "".join(llm.generate("one two three four one two three four one two three", max_tokens=40, temperature=0))
        stats = llm.stats
    assert 0 <= stats.guessed_right <= stats.guessed <= 3 * stats.decode_steps
    assert stats.tokens_per_step == stats.decode_steps / (stats.decode_steps - stats.guessed_right)


def test_until_the_context_is_full():
    ends = []
    for draft in ("off", 7):
        with LLM(draft=draft, threads=1, ctx=40) as llm:
            text = "".join(llm.generate("a b c a b c a b c a b c a b", temperature=0, stop_loops=False))
            ends.append((text, llm.stats.finish_reason, llm.engine.position))
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("auto", Draft()),
        ("off", Draft(on=False)),
        ("3", Draft(at_a_time=3)),
        (7, Draft(at_a_time=7)),
        ("mtp", Draft(by="mtp")),
        ("lookup", Draft(by="lookup")),
    ],
)
def test_settings(given, meant):
    assert Draft.of(draft_setting("draft", given)) == meant


@pytest.mark.parametrize("given", ["", "on", "0", "8", "-1", "1.5", "x" * 200, "\x1b[2J", "٣", 0])
def test_wrong_settings(given):
    with pytest.raises(UsageError, match=r"^--draft cannot be ") as caught:
        draft_setting("--draft", given)
    assert caught.value.hint == "give auto, off, mtp, lookup, or a number from 1 to 7"
    assert "\x1b" not in caught.value.message
