"""Pre-tokenizers: each on a text that shows what is its own, and on parts of published vocabularies."""

from __future__ import annotations

from pathlib import Path

import pytest
import vocabularies
from tokenizers import Regex, pre_tokenizers

from qcli.text.pre_tokenizers import PRE_TOKENIZERS
from qcli.text.tokenizer import Tokenizer


def pieces(name: str, text: str) -> list[str]:
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PRE_TOKENIZERS[name].patterns]
    return [piece for piece, _ in pre_tokenizers.Sequence(splits).pre_tokenize_str(text)]


SHOWN = [
    # contractions: only as written, or in any case
    ("gpt-2", "I'll we'LL", ["I", "'ll", " we", "'", "LL"]),
    ("llama-bpe", "I'll we'LL", ["I", "'ll", " we", "'LL"]),
    # digits: together, in threes, one by one
    ("gpt-2", "x 12345", ["x", " 12345"]),
    ("llama-bpe", "x 12345", ["x", " ", "123", "45"]),
    ("gpt-4o", "x 12345", ["x", " ", "123", "45"]),
    ("deepseek-v3", "x 12345", ["x", " ", "123", "45"]),
    ("qwen2", "x 123", ["x", " ", "1", "2", "3"]),
    ("tekken", "x 123", ["x", " ", "1", "2", "3"]),
    ("smollm", "x 123", ["x", " ", "1", "2", "3"]),
    ("deepseek-llm", "x 123", ["x", " ", "1", "2", "3"]),
    ("deepseek-coder", "x 123", ["x", " ", "1", "2", "3"]),
    ("default", "x 12345", ["x", " ", "123", "45"]),
    ("hunyuan", "x 123", ["x", " ", "1", "2", "3"]),
    ("bailingmoe2", "x 123", ["x", " ", "1", "2", "3"]),
    ("minimax-m2", "x 12345", ["x", " ", "123", "45"]),
    (
        "afmoe",
        "1234567 12345 123 12 123456",
        ["1", "234", "567", " ", "12", "345", " ", "123", " ", "12", " ", "123", "456"],
    ),
    # what may stand in front of a word
    ("gpt-2", "(word", ["(", "word"]),
    ("llama-bpe", "(word", ["(word"]),
    ("deepseek-v3", "(word«wort", ["(word", "«", "wort"]),
    ("deepseek-coder", "(word", ["(", "word"]),
    # words of two cases
    ("gpt-4o", "camelCase HTTPServer's", ["camel", "Case", " HTTPServer's"]),
    ("tekken", "camelCase's", ["camel", "Case", "'s"]),
    ("qwen2", "camelCase", ["camelCase"]),
    ("minimax-m2", "camelCase HTTPServer's", ["camel", "Case", " HTTPServer's"]),
    # words of several words
    ("exaone-moe", "of the world's 12", ["of the world", "'s", " ", "1", "2"]),
    # paths and ends of lines
    ("bailingmoe2", "a:\n\n\nb I'LL", ["a", ":\n\n\n", "b", " I", "'LL"]),
    ("bailingmoe2", "a\n \nb", ["a", "\n \n", "b"]),
    ("exaone-moe", "a:/\nb", ["a", ":/\n", "b"]),
    ("gpt-4o", "a://\nb", ["a", "://\n", "b"]),
    ("qwen2", "a://\nb", ["a", "://\n", "b"]),
    ("gpt-4o", "a:\n/b", ["a", ":\n/", "b"]),
    ("llama-bpe", "a:\n/b", ["a", ":\n", "/b"]),
    ("seed-coder", "a:\nb", ["a", ":", "\n", "b"]),
    ("deepseek-coder", "a\n\nb", ["a", "\n", "\n", "b"]),
    # marks that follow a letter
    ("qwen2", "ก็", ["ก", "็"]),
    ("qwen35", "ก็", ["ก็"]),
    ("gpt-4o", "ก็", ["ก็"]),
    # Chinese and its neighbours
    ("deepseek-v3", "abc千里xyz", ["abc", "千里", "xyz"]),
    ("deepseek-llm", "abc千里xyz", ["abc", "千里", "xyz"]),
    ("kimi-k2", "abc千里xyz's", ["abc", "千里", "xyz's"]),
    ("youtu", "abc千里，한글", ["abc", "千里", "，", "한글"]),
    ("afmoe", "abc千里ไทยxyz", ["abc", "千里ไทย", "xyz"]),
    ("llama-bpe", "abc千里xyz", ["abc千里xyz"]),
    # spaces before a word
    ("llama-bpe", "a   b  ", ["a", "  ", " b", "  "]),
    ("gpt-2", "a   b  ", ["a", "  ", " b", "  "]),
    ("deepseek-llm", "a   b  ", ["a", "  ", " b", "  "]),
    # signs apart from what is around them
    ("default", "a+b $c", ["a", "+", "b", " ", "$", "c"]),
]


@pytest.mark.parametrize(("name", "text", "expected"), SHOWN, ids=[f"{n}: {t!r}" for n, t, _ in SHOWN])
def test_what_each_rule_cuts(name: str, text: str, expected: list[str]) -> None:
    assert pieces(name, text) == expected


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_no_rule_loses_text(name: str) -> None:
    text = "Hello, wörld! 12345\r\n\n  「千里」 it's ก็ 🚀 a_b\t//x  "
    assert "".join(pieces(name, text)) == text


@pytest.mark.parametrize("name", vocabularies.NAMES)
def test_ids_are_those_of_the_published_tokenizer(tmp_path: Path, name: str) -> None:
    keys = vocabularies.real(name)
    cases = keys.pop("cases")
    tokenizer = Tokenizer.from_gguf(vocabularies.write(tmp_path / "vocab.gguf", keys))
    for case in cases:
        assert tokenizer.encode(case["text"], special=False) == case["ids"], case["text"]
        if "▁" not in case["text"] or keys["model"] == "gpt2":  # SentencePiece takes it for a space
            assert tokenizer.decode(case["ids"], special=True) == case["text"]
