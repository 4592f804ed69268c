"""What a model has read and said is gone back to, gone on with, saved and loaded: nothing of it is prefilled twice."""

from __future__ import annotations

import json
import os
from contextlib import suppress

import pytest

from qcli import LLM
from qcli.errors import OutputError, QcliError, UsageError
from qcli.text.chat_template import ChatTemplate

HOW = {"temperature": 0.8, "seed": 3}
USER = {"role": "user", "content": "Tell me a story about a cat."}
NEXT = {"role": "user", "content": "And then?"}


@pytest.fixture(scope="module")
def llm():
    with LLM(threads=1, ctx=512) as llm:
        yield llm


@pytest.fixture(autouse=True)
def caches(monkeypatch, tmp_path):
    """States of their own for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME", ""))
    monkeypatch.setattr("qcli.host.folders.some_cache", lambda: tmp_path / "cache")


def answer(llm, messages, **options):
    """The message that answers, with its ids."""
    said = llm.chat(messages, **HOW | options)
    return {"role": "assistant", "content": "".join(said), "ids": said.ids}


def test_an_answer_is_gone_on_with_where_it_stopped(llm):
    whole = answer(llm, [USER], max_tokens=40, temperature=0)
    first = answer(llm, [USER], max_tokens=25, temperature=0)
    assert llm.stats.prefilled_tokens == 0
    rest = answer(llm, [USER], max_tokens=15, temperature=0, begun=first["ids"])
    assert llm.stats.prefilled_tokens <= 1
    assert first["content"] + rest["content"] == whole["content"]
    assert rest["ids"] == whole["ids"]


def test_the_ids_of_an_answer_are_those_of_the_next_prompt(llm):
    said = answer(llm, [USER], max_tokens=30)
    ids = said["ids"]
    middle = next(i for i, id in enumerate(ids) if len(llm.detokenize([id])) > 2)
    spelled = llm.tokenize(llm.detokenize(ids[middle : middle + 1])[:1], special=False)
    spelled += llm.tokenize(llm.detokenize(ids[middle : middle + 1])[1:], special=False)
    odd = {**said, "ids": [*ids[:middle], *spelled, *ids[middle + 1 :]]}  # another way to spell the same text
    assert odd["ids"] != ids
    with suppress(StopIteration):
        next(llm.chat([USER, odd, NEXT], **HOW))
    prompt = llm.stats.prompt_tokens
    with suppress(StopIteration):
        next(llm.chat([USER, said, NEXT], **HOW))
    assert prompt == llm.stats.prompt_tokens + len(spelled) - 1
    with suppress(StopIteration):
        next(llm.chat([USER, {**said, "ids": [5, 6, 7]}, NEXT], **HOW))  # of another text: they are not believed
    assert llm.stats.prompt_tokens <= prompt


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: ",
        "{% for m in messages %}{{ '[Q] ' ~ m.content ~ ' [/Q]' if m.role == 'user' else m.content ~ '</s>' }}{% endfor %}",
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n",
    ],
)
def test_each_turn_reads_only_what_is_new_however_the_answer_was_spelled(llm, monkeypatch, template):
    """Of a long chat, with templates that write control tokens around messages, or none."""
    monkeypatch.setattr(llm, "template", ChatTemplate(template))
    vars(llm).pop("_chats", None)  # made of the template before
    talk: list[dict] = []
    for turn in range(20):
        talk += [NEXT, answer(llm, [*talk, NEXT], max_tokens=6, seed=turn, temperature=3)]
        assert llm.stats.prefilled_tokens < 24
    vars(llm).pop("_chats", None)  # made of the template before
    answer(llm, [*talk, NEXT], max_tokens=6)  # nothing is remembered but the messages
    assert llm.stats.prefilled_tokens < 24
    vars(llm).pop("_chats", None)  # made of the template before


def test_a_checkpoint_is_gone_back_to(llm):
    said = answer(llm, [USER], max_tokens=20)
    before = llm.checkpoint()
    once = answer(llm, [USER, said, NEXT], max_tokens=10)
    answer(llm, [NEXT], max_tokens=10)
    llm.restore(before)
    assert llm.engine.position == before.position
    assert answer(llm, [USER, said, NEXT], max_tokens=10) == once
    assert llm.stats.prefilled_tokens < 20


def test_a_file_is_gone_on_from(llm, tmp_path):
    said = answer(llm, [USER], max_tokens=20)
    llm.save(path := tmp_path / "cat.state")
    once = answer(llm, [USER, said, NEXT], max_tokens=10)
    with LLM(threads=1, ctx=512) as other:
        other.load(path)
        assert answer(other, [USER, said, NEXT], max_tokens=10) == once
        assert other.stats.prefilled_tokens < 20
    with pytest.raises(OutputError, match="already exists"):
        llm.save(path)
    llm.save(path, overwrite=True)
    with pytest.raises(OutputError):
        llm.save(llm.file.path, overwrite=True)


def test_a_file_that_is_not_this_models_is_refused(llm, tmp_path):
    said = answer(llm, [USER], max_tokens=5)
    llm.save(path := tmp_path / "cat.state")
    good = path.read_bytes()
    first, _, rest = good.partition(b"\n")
    told = json.loads(first)
    bad = [b"", b"GGUF", good[:-1], good[:100], good[:5000] + b"x" + good[5001:], b"[" * 60_000]
    bad += [json.dumps(told | {"ids": n}).encode() + b"\n" + rest for n in (0, -4, 4, 1 << 40, "4", None, [4], 2.5)]
    bad += [json.dumps(told | {"node": "0" * 32}).encode() + b"\n" + rest, first + b"\n" + b"\xff" * len(rest)]
    for content in bad:
        path.write_bytes(content)
        with pytest.raises(QcliError) as caught:
            llm.load(path)
        assert "\n" not in caught.value.message
        assert caught.value.hint
    with pytest.raises(QcliError, match="No such file"):
        llm.load(tmp_path / "nothing")
    assert answer(llm, [USER], max_tokens=5) == said  # what was in the state is not believed any more
    with LLM(threads=1, ctx=512) as other, pytest.raises(UsageError, match="nothing to save"):
        other.save(path)


def test_a_conversation_of_another_process_has_nothing_to_compute():
    talk = [USER]
    with LLM(threads=1, ctx=512, keep="turns") as first:
        for _ in range(2):
            talk += [answer(first, talk, max_tokens=30), NEXT]
        expected = answer(first, talk, max_tokens=10)
    with LLM(threads=1, ctx=512, keep="turns") as second:
        came = second.resume(talk[:-1])
        assert (came.tokens > 70, came.missing) == (True, 0)
        assert answer(second, talk, max_tokens=10) == expected
        assert second.stats.prefilled_tokens < 20
        came = second.resume([USER, {"role": "assistant", "content": "Something else, and rather long. " * 5}])
        assert came.missing > 30
        second.resume(talk[:2])
        assert answer(second, talk[:3], max_tokens=30)["content"] == talk[3]["content"]


def test_beginnings_that_prompts_have_in_common_are_kept():
    system = {"role": "system", "content": "You are a storyteller who always speaks of animals. " * 6}
    long = "The cat sat on the mat, and the dog came by. " * 12
    asked, other = ({"role": "user", "content": f"{long}\n\n{text}"} for text in ("Who sat?", "Who came by?"))
    for messages, like in ([system, USER], []), ([system, NEXT], []), ([asked], [[other]]), ([other], [[asked]]):
        with LLM(threads=1, ctx=512, keep="beginnings") as llm:
            list(llm.chat(messages, like=like, max_tokens=2, **HOW))
            prefilled, prompt = llm.stats.prefilled_tokens, llm.stats.prompt_tokens
        if messages in ([system, USER], [asked]):
            assert prefilled == prompt
        else:
            assert prefilled < 25 < prompt
