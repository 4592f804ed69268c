"""Long texts in pieces: the same words and the same tokens as of the whole, whatever the pre-tokenizer."""

from __future__ import annotations

from functools import cache

import pytest
import vocabularies
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from qcli.text.byte_level import ByteLevel
from qcli.text.pieces import PIECE, Cutter
from qcli.text.pre_tokenizers import PRE_TOKENIZERS
from qcli.text.tokenizer import Tokenizer

SIGNS = [
    *" \n\r\t'.,_-=!/#3a9ZéßЯж日本の한글。！٣あ",
    "  ",
    "\n\n",
    "\u00a0",
    "\u3000",
    "\u0301",
    "🦊",
    "'s",
    "'LL",
    " 's",
]
WORDS = ["the", "fox", "said", "camelCase", "12345", "<tool>", "<tool one>", " of", "x = [1, 2]"]
texts = st.lists(st.sampled_from([*SIGNS, *WORDS * 4]), max_size=30).map("".join)  # as many signs as words
spaced = st.lists(st.sampled_from([*WORDS, *SIGNS]), max_size=30).map(" ".join)
EVERY = [pytest.param(pre, id=name) for name, pre in {p.patterns: (n, p) for n, p in PRE_TOKENIZERS.items()}.values()]


def cutter(size, special=(), may_cut=lambda text, at: True):
    return Cutter(special, may_cut, size)


@cache
def splitter(pre):
    """What cuts a text into words."""
    splits = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in pre.patterns]
    return pre_tokenizers.Sequence(splits).pre_tokenize_str


@pytest.mark.parametrize("pre", EVERY)
@settings(max_examples=150, deadline=None)
@given(text=st.one_of(texts, spaced), size=st.integers(1, 6))
def test_no_word_is_cut_in_two(pre, text, size):
    split = splitter(pre)
    pieces = list(cutter(size, may_cut=pre.may_cut).pieces(text))
    assert "".join(pieces) == text
    words = [word for word, _ in split(text)]
    assert [word for piece in pieces for word, _ in split(piece)] == words
    assert [word for piece in pre.borders.split(text) for word, _ in split(piece)] == words


def test_words_of_several_words_are_cut_between_lines():
    pieces = cutter(4, may_cut=PRE_TOKENIZERS["exaone-moe"].may_cut).pieces("of the world\nand all that\nis")
    assert list(pieces) == ["of the world", "\nand all that", "\nis"]


def test_texts_without_spaces_are_cut_between_lines():
    assert list(cutter(4).pieces("日本の話。\n昔々のこと。\n\nむかし")) == ["日本の話。\n", "昔々のこと。\n\nむかし"]


def test_pieces_are_about_as_long_as_wanted():
    text = "The fox said to the crow that it sang well. " * 100
    pieces = list(cutter(200).pieces(text))
    assert "".join(pieces) == text
    assert all(200 <= len(piece) < 220 for piece in pieces[:-1])


def test_a_text_without_borders_stays_whole():
    assert list(cutter(4).pieces("x" * 50)) == ["x" * 50]
    assert list(
        cutter(4).pieces(
            "a b c d",
        )
    ) == ["a b c d"[:5], " d"]
    assert list(cutter(4, may_cut=lambda text, at: False).pieces("a b c d")) == ["a b c d"]
    assert list(cutter(4).pieces("")) == [""]


def test_a_special_token_is_not_cut():
    assert list(cutter(2, ["one two"]).pieces("xx one two yy zz and")) == ["xx one two yy", " zz", " and"]


@pytest.fixture(scope="module", params=vocabularies.NAMES)
def published(request, tmp_path_factory):
    """Tokenizers of published vocabularies: one for the whole text, one for pieces of a few characters."""
    keys = vocabularies.real(request.param)
    keys.pop("cases")
    path = vocabularies.write(tmp_path_factory.mktemp("vocabulary") / "v.gguf", keys)
    whole, cut = Tokenizer.from_gguf(path), Tokenizer.from_gguf(path)
    cut.__dict__["_cutter"] = Cutter(cut.special_texts, cut._method.may_cut, size=5)
    return whole, cut


@settings(max_examples=100, deadline=None)
@given(text=st.one_of(texts, spaced), special=st.booleans())
def test_the_tokens_are_those_of_the_whole(published, text, special):
    whole, cut = published
    assert cut.encode(text, special) == whole.encode(text, special)


@settings(max_examples=100, deadline=None)
@given(text=st.one_of(texts, spaced), special=st.booleans())
def test_words_that_were_there_before_have_the_ids_of_the_library(published, text, special):
    method = published[0]._method
    if isinstance(method, ByteLevel):
        pipeline = (method._special if special else method._plain)._pipeline
        assert method.encode(text, special) == pipeline.encode(text, add_special_tokens=False).ids


SCORES = {"▁": -90, "a": -91, "b": -92, "c": -93, "ab": -1, "bc": -2, "▁a": -4, "▁▁": -5, "aa": -6, "c▁": -3, "b▁a": -7}


@pytest.fixture(scope="module")
def scored(request, tmp_path_factory):
    """Tokenizers of SCORES and of texts that a user has defined, with a space before a text or none; see `published`."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *SCORES, "<tool>", "  ", "a b"]
    types = [2, 3, 3, *[6] * 256, *[1] * len(SCORES), 4, 4, 4]
    keys = {"model": "llama", "tokens": tokens, "token_type": types, "add_space_prefix": request.param}
    keys["scores"] = [0.0] * 259 + [float(score) for score in SCORES.values()] + [-1000.0] * 3
    path = vocabularies.write(tmp_path_factory.mktemp("sp") / "v.gguf", keys, "llama")
    whole, cut = (Tokenizer.from_gguf(path) for _ in "12")
    cut.__dict__["_cutter"] = Cutter(cut.special_texts, cut._method.may_cut, size=3)
    return whole, cut


@pytest.mark.parametrize("scored", [True, False], indirect=True)
@settings(max_examples=100, deadline=None)
@given(
    text=st.lists(st.sampled_from(["a", "b", "c", "ab", " ", "  ", "\n", "<tool>", "a b"]), max_size=30).map("".join)
)
def test_user_defined_tokens_and_scores_see_no_border(scored, text):
    whole, cut = scored
    assert cut.encode(text) == whole.encode(text)


def test_ids_come_as_they_are_needed(storyteller_tokenizer):
    text = "A cat sat on a mat. " * (2 * PIECE // 20)
    first, *rest = storyteller_tokenizer.encode_in_pieces(text)
    assert rest
    assert len(first) < len(text) / 2
    assert [*first, *(id for ids in rest for id in ids)] == storyteller_tokenizer._encode_piece(text, True)
