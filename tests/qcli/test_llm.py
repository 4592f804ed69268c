"""LLM over an engine of a few lines and the embedded model's real tokenizer, template and defaults."""

from __future__ import annotations

import pytest
from fake_engine import FakeEngine, hashed

from qcli import LLM
from qcli.errors import ContextOverflowError, ModelFileError, PromptError, QcliError, UsageError
from qcli.runtime.engine import Engine
from qcli.text.chat_template import Prompt

USER = {"role": "user", "content": "Tell me a story."}
GREEDY = {"temperature": 0, "max_tokens": 12}


@pytest.fixture
def engine(monkeypatch):
    engine = FakeEngine(8192, 512)
    monkeypatch.setattr(Engine, "load", lambda *_, **options: engine)
    return engine


@pytest.fixture
def llm(engine):
    with LLM() as llm:
        yield llm


def answering(engine, llm, prompt, answer):
    """Let the engine answer a prompt with a text and the end of the turn, whatever the state before."""
    start = len(llm.tokenize(prompt))
    script = [*llm.tokenize(answer), min(llm.tokenizer.end_ids)]
    engine.following = lambda ids: script[min(max(len(ids) - start, 0), len(script) - 1)]


def test_text_and_ids(llm):
    ids = llm.tokenize("<|im_start|>user")
    assert llm.detokenize(ids) == "user"
    assert len(llm.tokenize("<|im_start|>user", special=False)) > len(ids)


def test_generate_continues_the_prompt_as_it_stands(engine, llm):
    answering(engine, llm, "Once upon", " a time")
    assert "".join(llm.generate("Once upon", temperature=0)) == " a time"
    assert engine.ids[: engine.fed[0]] == tuple(llm.tokenize("Once upon"))
    assert llm.stats.finish_reason == "stop"


def test_a_stop_string_may_be_given_alone(engine, llm):
    answering(engine, llm, "Once upon", " a time")
    assert "".join(llm.generate("Once upon", temperature=0, stop=" time")) == " a"


def test_chat_reads_only_what_is_new(engine, llm):
    first = llm.render([USER])
    answering(engine, llm, first, "There was a cat.")
    said = "".join(llm.chat([USER], temperature=0))
    assert said == "There was a cat."
    talk = [USER, {"role": "assistant", "content": said}, {"role": "user", "content": "And then?"}]
    list(llm.chat(talk, **GREEDY))
    assert engine.ids[: len(llm.tokenize(llm.render(talk)))] == tuple(llm.tokenize(llm.render(talk)))
    assert sum(engine.fed) < len(llm.tokenize(llm.render(talk))) + 2
    assert llm.stats.prefilled_tokens < llm.stats.prompt_tokens


class ThoughtfulTemplate:
    """Opens a thought for the answer, and leaves thoughts out of the history."""

    source = ""

    def render(self, messages, *, add_generation_prompt=True):
        turns = [f"<|im_start|>{m['role']}\n{m['content'].split('</think>')[-1]}<|im_end|>\n" for m in messages]
        return "".join(turns) + "<|im_start|>assistant\n<think>\n" * add_generation_prompt

    def prompt(self, messages, control, kept, manner, tools):
        return Prompt(self.render(messages), "\ufdd0")

    def after_answer(self):
        return "<|im_end|>\n"


def test_chat_reads_only_what_is_new_when_thoughts_are_left_out(engine, llm):
    llm.template = ThoughtfulTemplate()
    answering(engine, llm, llm.render([USER]), "hm</think>A cat sat.")
    said = "".join(llm.chat([USER], temperature=0))
    talk = [USER, {"role": "assistant", "content": said}, {"role": "user", "content": "And then?"}]
    list(llm.chat(talk, **GREEDY))
    whole, opening = (len(llm.tokenize(llm.render(m, False))) for m in (talk, [USER]))
    assert llm.stats.prefilled_tokens <= whole - opening + 6  # 6: the opened thought


def test_the_same_turn_again_is_not_read_again(engine, llm):
    first = list(llm.chat([USER], **GREEDY))
    assert list(llm.chat([USER], **GREEDY)) == first
    assert llm.stats.prefilled_tokens == 0


def test_an_answer_left_unread_does_not_spoil_the_next(llm):
    whole = "".join(llm.chat([USER], **GREEDY))
    unread = llm.chat([USER], **GREEDY)
    next(unread)
    assert "".join(llm.chat([USER], **GREEDY)) == whole
    with pytest.raises(QcliError, match="ended early: another one has begun"):
        next(unread)


def test_logits_between_two_turns_do_not_spoil_the_second(engine, llm):
    whole = "".join(llm.chat([USER], **GREEDY))
    assert llm.logits([5, 6, 7]).shape == (3, 8192)
    assert "".join(llm.chat([USER], **GREEDY)) == whole


def test_the_models_own_sampling_unless_something_else_is_given(llm):
    assert (llm.sampling().temperature, llm.sampling().top_p) == (0.7, 0.9)
    assert llm.sampling(temperature=0.1, top_p=None).temperature == 0.1
    assert llm.sampling(temperature=0.1, top_p=None).top_p == 0.9


def test_same_seed_same_text(engine, llm):
    engine.following = hashed(8192)
    drawn = ["".join(llm.generate("Once", seed=seed, temperature=90, top_p=1, max_tokens=9)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_progress_hears_of_loading_and_prefilling(monkeypatch):
    heard = []
    monkeypatch.setattr(FakeEngine, "prefill", lambda self, ids, progress: progress("reading", 1.0) or self.step(1))
    monkeypatch.setattr(Engine, "load", lambda *_, progress, **__: progress("loading weights", 0.5) or FakeEngine(8192))
    with LLM(progress=lambda stage, fraction: heard.append((stage, fraction))) as llm:
        list(llm.generate("Once", **GREEDY))
    assert heard == [("loading weights", 0.5), ("reading 1 token", 1.0)]


@pytest.mark.parametrize("prompt", ["", [], [{"role": "user", "content": " \n"}], [{"role": "user"}]])
def test_an_empty_prompt_is_refused_at_once(llm, prompt):
    with pytest.raises(PromptError):
        llm.generate(prompt) if isinstance(prompt, str) else llm.chat(prompt)


@pytest.mark.parametrize("wrong", [{"max_tokens": 0}, {"top_p": 3}, {"temperature": -1}, {"temprature": 1}])
def test_options_that_cannot_be_meant_are_refused_at_once(llm, wrong):
    with pytest.raises(UsageError):
        llm.generate("Once", **wrong)


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"ctx": 0}])
def test_sizes_that_cannot_be_meant(wrong):
    with pytest.raises(UsageError):
        LLM(**wrong)


@pytest.mark.parametrize("ids", [[8192], [3, -1]])
def test_ids_outside_the_vocabulary_never_reach_the_engine(llm, ids):
    with pytest.raises(UsageError, match="no token has the id"):
        llm.logits(ids)


@pytest.mark.parametrize(
    "wrong", [{"temprature": None}, {"max_token": 5}, {"stop": 5}, {"stop": ["a", 5]}, {"stop": [""]}]
)
def test_options_that_nobody_knows_are_refused_at_once(llm, wrong):
    for ask in (lambda: llm.generate("Once", **wrong), lambda: llm.chat([USER], **wrong)):
        with pytest.raises(UsageError):
            ask()


@pytest.mark.parametrize(
    "wrong", ["Hello", USER, [{"role": "usr", "content": "a"}], [{"content": "a"}], ["Hello"], [None]]
)
def test_what_is_no_conversation_is_refused_at_once(llm, wrong):
    with pytest.raises(UsageError):
        llm.chat(wrong)


@pytest.mark.parametrize("wrong", [None, 5, b"Once", ["Once"]])
def test_what_is_no_text_is_refused_at_once(llm, wrong):
    for ask in (llm.generate, llm.tokenize):
        with pytest.raises(UsageError, match="is no text"):
            ask(wrong)


def test_messages_may_come_from_an_iterator(llm):
    assert list(llm.chat(iter([USER]), **GREEDY)) == list(llm.chat((USER,), **GREEDY))


def test_a_prompt_that_does_not_fit(engine, llm):
    engine.ctx = 4
    with pytest.raises(ContextOverflowError):
        next(llm.chat([USER]))


def test_more_tokens_than_embeddings(engine, llm):
    engine.vocab_size = 8000
    with pytest.raises(ModelFileError, match="8192 tokens, 8000 embeddings"):
        llm.tokenize("x")


def test_a_failed_load_leaves_no_file_open(monkeypatch, storyteller, tmp_path):
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(storyteller.read_bytes())

    def fail(*_, **__):
        raise ModelFileError("no")

    monkeypatch.setattr(Engine, "load", fail)
    with pytest.raises(ModelFileError):
        LLM(copy)
    copy.unlink()  # Windows would refuse


def test_closing_twice_does_no_harm(engine):
    llm = LLM()
    answer = llm.generate("Once", **GREEDY)
    next(answer)
    llm.close()
    llm.close()
    assert engine.closed
    with pytest.raises(QcliError, match="ended early: the model was closed"):
        next(answer)
