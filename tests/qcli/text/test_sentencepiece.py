"""SentencePiece's BPE: scores one can follow on paper, a twin that looks for the best pair each time, damaged keys."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import vocabularies
from hypothesis import given, settings
from hypothesis import strategies as st

from qcli.errors import ModelFileError
from qcli.text.sentencepiece import SpecialTokens
from qcli.text.tokenizer import Tokenizer

# ids: 0-2 special, 3-258 bytes, then letters and words; the score is how soon a word is made
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
WORDS = {"▁": -90, "a": -91, "b": -92, "c": -93, "ab": -1, "bc": -2, "abc": -3, "▁a": -4, "▁▁": -5, "aa": -6, "aaa": -7}
SPECIAL = {"[INST]": 3, "<tool>": 4, "  ": 4, "unused": 5}
TOKENS = ["<unk>", "<s>", "</s>", *BYTES, *WORDS, *SPECIAL]
TYPES = [2, 3, 3, *[6] * 256, *[1] * len(WORDS), *SPECIAL.values()]
SCORES = [0.0] * 259 + [float(score) for score in WORDS.values()] + [-1000.0] * len(SPECIAL)
ID = {token: id for id, token in enumerate(TOKENS)}


def write(path: Path, **changes: Any) -> Path:
    keys = {"model": "llama", "tokens": TOKENS, "token_type": TYPES, "scores": SCORES}
    return vocabularies.write(path / "vocab.gguf", keys | changes, "llama")


@pytest.fixture(scope="module")
def spaced(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_gguf(write(tmp_path_factory.mktemp("spaced")))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_gguf(write(tmp_path_factory.mktemp("plain"), add_space_prefix=False))


def spell(tokenizer: Tokenizer, text: str, special: bool = True) -> list[str]:
    return [tokenizer.token(id) for id in tokenizer.encode(text, special)]


def test_the_best_score_merges_first(plain: Tokenizer) -> None:
    assert spell(plain, "abc") == ["abc"]
    assert spell(plain, "bcab") == ["bc", "ab"]
    assert spell(plain, "cabc") == ["c", "abc"]
    assert spell(plain, " ab") == ["▁", "ab"]  # ab is better than ▁a
    assert spell(plain, " ac") == ["▁a", "c"]
    assert spell(plain, "") == []


def test_of_equals_the_leftmost(plain: Tokenizer) -> None:
    assert spell(plain, "aaaaa") == ["aa", "aaa"]
    assert spell(plain, "aaa") == ["aaa"]


def test_a_space_in_front_of_each_text(spaced: Tokenizer, plain: Tokenizer) -> None:
    assert spell(spaced, "c") == ["▁", "c"]
    assert spell(spaced, " c") == ["▁▁", "c"]
    assert spell(spaced, "c[INST]c") == ["▁", "c", "[INST]", "▁", "c"]
    assert spell(plain, "c[INST]c") == ["c", "[INST]", "c"]


def test_bytes_where_there_is_no_token(plain: Tokenizer) -> None:
    assert spell(plain, "aéb") == ["a", "<0xC3>", "<0xA9>", "b"]
    assert spell(plain, "\n") == ["<0x0A>"]
    assert plain.decode(plain.encode("aéb\n")) == "aéb\n"


def test_control_tokens_only_on_request(plain: Tokenizer) -> None:
    assert spell(plain, "<s>a") == ["<s>", "a"]
    assert "<s>" not in spell(plain, "<s>", special=False)
    assert spell(plain, "a<tool>a", special=False) == ["a", "<tool>", "a"]
    assert spell(plain, "a   a") == ["a", "  ", "▁a"]  # user-defined spaces go before all merges
    assert "<0x0A>" not in spell(plain, "<0x0A>")  # a byte token has no text of its own


def test_decoding_is_the_way_back(spaced: Tokenizer, plain: Tokenizer) -> None:
    for tokenizer in (spaced, plain):
        for text in ["a b", " a", "a[INST]b", "[INST] b", "a<tool> c", "  ", ""]:
            assert tokenizer.decode(tokenizer.encode(text), special=True) == text
    assert spaced.decode([ID["<s>"], ID["▁a"], ID["unused"]]) == "a"


def test_a_stream_goes_on_after_a_prompt(spaced: Tokenizer) -> None:
    stream = spaced.stream()
    assert [stream.push(ID[token]) for token in ["▁a", "b", "<0xC3>", "<0xA9>"]] == [" a", "b", "", "é"]


def test_what_the_file_leaves_unsaid(spaced: Tokenizer) -> None:
    assert (spaced.bos_id, spaced.eos_id, spaced.end_ids) == (1, 2, frozenset({2}))
    assert spaced.prompt("a") == [1, ID["▁a"]]
    assert spaced.prompt("<s>a") == [1, ID["▁a"]]


def test_without_byte_tokens_an_unknown_character_is_unknown(tmp_path: Path) -> None:
    keys = {"tokens": ["a", "<unk>", "b"], "token_type": [1, 2, 1], "scores": [0.0, 0.0, 0.0], "unknown_token_id": 1}
    tokenizer = Tokenizer.from_gguf(write(tmp_path, **keys, add_space_prefix=False))
    assert tokenizer.encode("aéb") == [0, 1, 2]


def test_undecodable_input_becomes_a_replacement_character(plain: Tokenizer) -> None:
    assert plain.encode("a\udc80b") == plain.encode("a\ufffdb")


def slow(word: str) -> list[str]:
    """The twin: look through all pairs for the best, until none is left."""
    scores, parts = dict(zip(TOKENS, SCORES, strict=True)), list(word)
    while pairs := [(scores[a + b], -i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in WORDS]:
        at = -max(pairs)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


@settings(deadline=None)
@given(st.text("abc ", max_size=40).filter(lambda text: "  " not in text))
def test_merging_by_heap_is_merging_by_search(plain: Tokenizer, text: str) -> None:
    assert spell(plain, text) == slow(text.replace(" ", "▁"))


@given(st.text())
def test_any_text_comes_back(spaced: Tokenizer, text: str) -> None:
    if "▁" not in text:
        assert spaced.decode(spaced.encode(text, special=False), special=False) == text


def test_marks_take_the_longest() -> None:
    special = SpecialTokens({"<a>": 1, "<a>b": 2, "\n": 3, "\n\n": 4})
    assert list(special.split("x<a><a>b\n\n\ny<a")) == ["x", 1, 2, 4, 3, "y<a"]
    assert list(special.split("")) == []
    assert list(SpecialTokens({}).split("abc")) == ["abc"]


DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "no scores": ({"scores": None}, "scores must be an array of numbers"),
    "scores are text": ({"scores": ["a"] * len(TOKENS)}, "scores must be an array of numbers"),
    "too few scores": ({"scores": [0.5]}, f"1 entries for {len(TOKENS)} tokens"),
    "a score that is none": ({"scores": [float("nan"), *SCORES[1:]]}, "holds a NaN"),
    "a byte that is none": ({"token_type": [6, *TYPES[1:]]}, "'<unk>' is a byte by its type"),
}


@pytest.mark.parametrize(("changes", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_keys(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        Tokenizer.from_gguf(write(tmp_path, **changes))


def test_a_vocabulary_too_small_for_its_defaults(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_gguf(write(tmp_path, tokens=["a"], token_type=[1], scores=[0.0]))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.end_ids) == (None, None, frozenset())
    assert tokenizer.prompt("aé") == [0, 0, 0]
