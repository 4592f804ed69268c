"""Gemma 4's BPE: merges one can follow on paper, the tokenizers library as a twin, damaged keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tokenizers
import vocabularies
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers

from qcli.errors import ModelFileError
from qcli.text.tokenizer import Tokenizer

SPECIAL = {"<eos>": 3, "<bos>": 3, "<|turn>": 3, "<turn|>": 3, "<|tool_response>": 4, "<|channel>": 4}
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
WORDS = ["▁", "a", "b", "c", "\n", "ab", "bc", "abc", "▁a", "▁▁", "aa", "\n\n", "\n\n\n", "<", "b▁"]
TOKENS = [*SPECIAL, *BYTES, *WORDS]
TYPES = [*SPECIAL.values(), *[6] * 256, *[1] * len(WORDS)]
MERGES = ["▁ ▁", "a b", "b c", "ab c", "▁ a", "a a", "b ▁"]


def write(path: Path, **changes: Any) -> Path:
    keys = {"model": "gemma4", "tokens": TOKENS, "token_type": TYPES, "merges": MERGES, "eos_token_id": 0}
    return vocabularies.write(path / "vocab.gguf", keys | {"bos_token_id": 1} | changes, "gemma4")


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_gguf(write(tmp_path_factory.mktemp("gemma")))


def spell(tokenizer: Tokenizer, text: str, special: bool = True) -> list[str]:
    return [tokenizer.token(id) for id in tokenizer.encode(text, special)]


def test_the_first_of_the_list_merges_first(gemma: Tokenizer) -> None:
    assert spell(gemma, "abc") == ["abc"]
    assert spell(gemma, "cbc ab") == ["c", "bc", "▁", "ab"]
    assert spell(gemma, "aab") == ["a", "ab"]
    assert spell(gemma, "ac") == ["a", "c"]
    assert spell(gemma, "  a") == ["▁▁", "a"]
    assert spell(gemma, "aéa") == ["a", "<0xC3>", "<0xA9>", "a"]


def test_line_feeds_that_are_a_token_become_it(gemma: Tokenizer) -> None:
    assert spell(gemma, "a\n\n\na\n\nb\nc") == ["a", "\n\n\n", "a", "\n\n", "b", "\n", "c"]
    assert spell(gemma, "\n\n\n\n") == ["\n"] * 4


def test_what_a_text_spells_is_a_control_token_on_request_alone(gemma: Tokenizer) -> None:
    assert spell(gemma, "<|turn>a<turn|>") == ["<|turn>", "a", "<turn|>"]
    assert "<bos>" not in spell(gemma, "<bos>", special=False)
    assert "<0x0A>" not in spell(gemma, "<0x0A>")
    assert gemma.prompt("a") == [1, TOKENS.index("a")]
    assert gemma.end_ids == {TOKENS.index(text) for text in ("<eos>", "<turn|>", "<|tool_response>")}


def published(special: bool) -> tokenizers.Tokenizer:
    """As tokenizer.json says it, with line feeds apart."""
    bpe = models.BPE(
        {text: id for id, text in enumerate(TOKENS)},
        [(a, b) for a, _, b in (m.partition(" ") for m in MERGES)],
        byte_fallback=True,
    )
    pipeline = tokenizers.Tokenizer(bpe)
    pipeline.normalizer = normalizers.Replace(" ", "▁")
    pipeline.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n+"), "isolated")
    found = [text for text, kind in SPECIAL.items() if special or kind == 4]
    pipeline.add_special_tokens([AddedToken(text, normalized=False) for text in found])
    return pipeline


@settings(deadline=None)
@given(st.text("abc é<|turn>", max_size=60) | st.lists(st.sampled_from([*SPECIAL, " ", "ab", "b "])).map("".join))
def test_against_the_tokenizers_library(gemma: Tokenizer, text: str) -> None:
    for special in (False, True):
        assert gemma.encode(text, special) == published(special).encode(text, add_special_tokens=False).ids
    assert gemma.decode(gemma.encode(text), special=True) == text


def test_merges_that_are_none(tmp_path: Path) -> None:
    for merges in (["ab"], None):
        with pytest.raises(ModelFileError, match="merges"):
            Tokenizer.from_gguf(write(tmp_path, merges=merges))
