"""Vocabularies for constraints: of every kind of tokenizer, what is text, and what is none."""

from __future__ import annotations

import json

import numpy as np
import pytest
import vocabularies

from qcli.constraints.constraint import constraint
from qcli.constraints.matcher import Matcher
from qcli.constraints.vocabulary import Preparation, Vocabulary
from qcli.errors import ModelFileError
from qcli.text.tokenizer import Tokenizer

ANYTHING = constraint(regex="(?s:.*)")


def of(tokenizer):
    return Vocabulary(tokenizer.text_bytes(), tokenizer.encode_after)


def allowed(vocabulary, mask):
    return [id for id in range(vocabulary.end) if vocabulary.has(mask, id)]


@pytest.fixture(scope="module", params=vocabularies.NAMES)
def tokenizer(request, tmp_path_factory) -> Tokenizer:
    known = vocabularies.real(request.param)
    keys = {name: value for name, value in known.items() if name != "cases"}
    return Tokenizer.from_gguf(vocabularies.write(tmp_path_factory.mktemp("vocabulary") / "v.gguf", keys))


def test_control_tokens_and_markers_are_never_text(tmp_path):
    special = {"<|im_end|>": 3, "<tool_call>": 4, "[PAD1]": 5, "  ": 4, "<unk>": 2}
    tokenizer = Tokenizer.from_gguf(vocabularies.of_bytes(tmp_path / "v.gguf", special, eos="<|im_end|>"))
    vocabulary = of(tokenizer)
    mask, may_end = Matcher(vocabulary, ANYTHING.grammar).mask()
    assert may_end
    names = {tokenizer.token(id) for id in allowed(vocabulary, mask)}
    assert {"qz", "  ", "a"} <= names
    assert names.isdisjoint(set(special) - {"  "})
    assert tokenizer.decode(vocabulary.encode("<tool_call>  <|im_end|>"), special=True) == "<tool_call>  <|im_end|>"
    assert all(vocabulary.has(vocabulary.text_ids, id) for id in vocabulary.encode("<tool_call>  <|im_end|>"))


def test_a_marker_in_a_forced_text_is_spelled(tmp_path):
    path = vocabularies.of_bytes(tmp_path / "v.gguf", {"<tool_call>": 4, "<|end|>": 3})
    tokenizer = Tokenizer.from_gguf(path)
    matcher = Matcher(of(tokenizer), constraint(schema={"const": "<tool_call>"}).grammar)
    ids = []
    while not matcher.is_over:
        ids.append(matcher.forced()[0])
        assert matcher.accept(ids[-1])
    assert bytes(tokenizer.text_bytes()[id][0] for id in ids) == b'"<tool_call>"'


def test_every_texts_tokens_are_allowed_one_by_one(tokenizer):
    vocabulary = of(tokenizer)
    for text in ('{"name":"Tim","größe":[1,2.5,null]}', " leading", "a\n\n b\t", "日本"):
        matcher = Matcher(vocabulary, constraint(choices=[text]).grammar)
        ids = vocabulary.encode(text)
        assert b"".join(vocabulary.pieces[id] for id in ids) == text.encode()
        for id in ids:
            assert id in allowed(vocabulary, matcher.mask()[0])
            assert matcher.accept(id)
        assert matcher.is_whole


def test_the_space_before_a_sentencepiece_text_is_not_added(tmp_path):
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "▁a", "{", "▁{"]
    types = [2, 3, 3, *[6] * 256, *[1] * 5]
    keys = {"model": "llama", "tokens": tokens, "token_type": types, "scores": [-float(i) for i in range(len(tokens))]}
    tokenizer = Tokenizer.from_gguf(vocabularies.write(tmp_path / "v.gguf", keys))
    assert [tokenizer.token(id) for id in tokenizer.encode("a")] == ["▁a"]
    vocabulary = of(tokenizer)
    assert [tokenizer.token(id) for id in vocabulary.encode("a a")] == ["a", "▁a"]
    matcher = Matcher(vocabulary, constraint(choices=["{\n"]).grammar)
    assert {tokenizer.token(id) for id in allowed(vocabulary, matcher.mask()[0])} == {"{"}  # of two spellings one
    assert matcher.accept_all(vocabulary.encode("{\n"))
    assert matcher.is_whole


def test_a_thread_makes_it_once_for_all_who_use_it(storyteller):
    first = Preparation(storyteller)
    again = Preparation(storyteller)
    assert first.vocabulary() is again.vocabulary()
    assert first.tokenizer().vocab_size == first.vocabulary().end
    assert first.vocabulary().text_ids.dtype == np.int64


def test_what_is_wrong_with_a_file_is_told_where_it_is_asked_for(tmp_path):
    path = vocabularies.write(tmp_path / "v.gguf", {"model": "gpt2", "tokens": ["a"], "token_type": [9]})
    with pytest.raises(ModelFileError):
        Preparation(path).vocabulary()


def test_json_is_encoded_as_a_tokenizer_would(storyteller):
    vocabulary = Preparation(storyteller).vocabulary()
    schema = {"type": "object", "properties": {"colour": {"enum": ["red"]}}, "required": ["colour"]}
    matcher = Matcher(vocabulary, constraint(schema=schema | {"additionalProperties": False}).grammar)
    text = json.dumps({"colour": "red"}, separators=(",", ":"))
    assert matcher.forced() == vocabulary.encode(text)[: len(matcher.forced())]
    assert len(matcher.forced()) > 3
