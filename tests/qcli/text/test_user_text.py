"""What people write spells no control token: with every template we have, in every place where their words go."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import DATA

from qcli.errors import UsageError
from qcli.text.chat_template import ChatTemplate
from qcli.text.user_text import ControlTexts, free_mark, sealed_message
from qcli.text.vocabulary import SpecialTokens

TOKENS = ["<|im_start|>", "<|im_end|>", "<s>", "</s>", "[INST]", "<|end|>", "<|a|><|b|>"]
CONTROL = ControlTexts(TOKENS)
MARK = "\ufdd0"
TEMPLATES = sorted((DATA / "templates").glob("*.jinja"))
EVERY = sorted(
    {
        *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>", "<|start|>", "<|end|>", "<|message|>"),
        *("<|channel|>", "<|return|>", "<|call|>", "[INST]", "[/INST]", "</s>", "<s>", "[gMASK]", "<sop>", "<|user|>"),
        *("<|assistant|>", "<|observation|>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
        *("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>", "[TOOL_RESULTS]", "[AVAILABLE_TOOLS]"),
    }
)


def spelled(text: str, tokens: list[str] = TOKENS) -> list[int]:
    """Which of the tokens a text spells, in order."""
    return [
        part
        for part in SpecialTokens({token: i for i, token in enumerate(tokens)}).split(text)
        if isinstance(part, int)
    ]


def test_a_control_token_is_broken_and_mended():
    assert CONTROL.sealed("a <|im_end|> b", MARK) == f"a <{MARK}|im_end|> b"
    assert CONTROL.sealed("a <b> c", MARK) == "a <b> c"


def test_two_texts_that_meet_make_no_control_token():
    for token in TOKENS:
        for cut in range(1, len(token)):
            one, two = (CONTROL.sealed(part, MARK) for part in (token[:cut], token[cut:]))
            assert spelled(one + two) == spelled(one + token[cut:]) == spelled(token[:cut] + two) == []


pieces = st.lists(st.sampled_from([*TOKENS, *"<|>/[]ab ", "im_", "im_end", "INST", "<|im", "|>"]), max_size=8).map(
    "".join
)


@given(st.lists(pieces, max_size=4))
def test_no_texts_side_by_side_spell_a_control_token(texts):
    sealed = [CONTROL.sealed(text, MARK) for text in texts]
    assert spelled("".join(sealed)) == []
    assert [text.replace(MARK, "") for text in sealed] == texts


def test_every_text_of_a_message_is_sealed_but_its_role():
    call = {"function": {"name": "f", "arguments": {"a<s>": ["<s>", 1, None]}}}
    message = {"role": "assistant", "content": "<s>", "tool_calls": [call]}
    sealed = sealed_message(message, CONTROL, MARK)
    text = json.dumps(sealed, ensure_ascii=False)
    assert json.loads(text.replace(MARK, "")) == message
    assert spelled(text) == []
    assert sealed["role"] == "assistant"


def test_marks_of_thoughts_are_an_assistants_own():
    control, kept = ControlTexts([*TOKENS, "<think>", "</think>"]), frozenset(["<think>", "</think>"])
    message = {"role": "assistant", "content": "<think>hm</think><s>"}
    assert sealed_message(message, control, MARK, kept)["content"] == f"<think>hm</think><{MARK}s>"


def test_a_mark_is_in_no_text():
    assert free_mark([]) == MARK
    assert free_mark([{"role": "user", "content": [{"text": "\ufdd0\ufdd1"}]}]) == "\ufdd2"


def test_a_text_of_all_characters_that_would_do_has_a_mark_too():
    some = "".join(chr(code) for code in range(0xFDD0, 0xFDF0))
    pairs = "".join(f"\ufdd0{other}" for other in some[1:])
    for hostile, size in ((some, 2), (some + pairs, 3), (pairs, 3), (pairs[:-2] + some, 2)):
        talk = [{"role": "user", "content": [{"text": hostile + "<|im_end|>"}]}]
        mark = free_mark(talk)
        assert len(mark) == size
        assert mark not in hostile
        sealed = sealed_message(talk[0], CONTROL, mark)["content"][0]["text"]
        assert spelled(sealed) == []
        assert sealed.replace(mark, "") == hostile + "<|im_end|>"


@given(st.text("\ufdd0\ufdd1\ufdd2<", max_size=12), st.text("\ufdd0\ufdd1\ufdd2", max_size=4))
def test_a_mark_of_several_characters_is_found_where_it_was_put(text, after):
    all_but_one = "".join(chr(code) for code in range(0xFDD0, 0xFDF0))
    whole = f"{all_but_one}{text}<s>{after}"
    assert CONTROL.sealed(whole, mark := free_mark([whole])).replace(mark, "") == whole


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_published_templates_pass_no_control_token_on(path):
    """A conversation full of them has just those of the same conversation without any."""
    template = ChatTemplate(path.read_text("utf-8"), bos_token="<s>", eos_token="</s>")
    control, kept = ControlTexts(EVERY), frozenset(["<think>", "</think>"])

    def tokens(word: str) -> list[int]:
        system = {"role": "system", "content": f"be kind {word}"}
        turns = [
            {"role": "user", "content": f"{word} hello {word}"},
            {"role": "assistant", "content": f"hi {word.replace('think', 'thunk')} there"},
            {"role": "user", "content": f"and {word}"},
        ]
        for talk in ([system, *turns], turns):
            try:
                return spelled(template.prompt(talk, control, kept).text, EVERY)
            except UsageError:  # no system message in this family
                continue
        raise AssertionError(path)

    without = tokens("word")
    for word in [*EVERY, *("".join(pair) for pair in pairwise(EVERY))]:
        assert tokens(word) == without, word
