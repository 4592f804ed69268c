"""Pre-tokenizers: how text is cut into words before byte-pair merging, by the name in a file's tokenizer.ggml.pre.

Patterns are those published in the model family's tokenizer.json, in the dialect of the tokenizers library.
Text is not normalized first: GGUF carries no normalizer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from qcli.text.pieces import between_lines, between_words


@dataclass(frozen=True)
class PreTokenizer:
    """Patterns that cut text one after the other, each the pieces of the one before; and what else goes with the name."""

    patterns: tuple[str, ...]
    ignore_merges: bool = False  # a word that is a token becomes that token, whatever the merges say
    add_bos: bool = False  # whether a prompt begins with BOS where the file does not say
    joins_words: bool = False  # a word of a pattern may be several with spaces between

    @property
    def borders(self) -> re.Pattern[str]:
        """Where a text can be cut."""
        return between_lines() if self.joins_words else between_words()

    def may_cut(self, text: str, at: int) -> bool:
        """Whether a text can be cut at a border (see `qcli.text.pieces`)."""
        return not self.joins_words or "\n" in text[at - 1 : at + 1]


_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACE = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_HEAD = r"[^\r\n\p{L}\p{N}]?"  # what a word may have in front: a space, a bracket
_WORD = rf"{_HEAD}\p{{L}}+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTION}|{_WORD}|\p{{N}}{{1,3}}|{_SIGNS}|{_SPACE}"
_QWEN2 = rf"{_CONTRACTION}|{_WORD}|\p{{N}}|{_SIGNS}|{_SPACE}"
_QWEN35 = rf"{_CONTRACTION}|{_HEAD}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACE}"


def _cased(upper: str, lower: str, contraction: str) -> str:
    """Words cut where a small letter is followed by a capital one: camelCase in two."""
    return rf"{_HEAD}{upper}*{lower}+{contraction}|{_HEAD}{upper}+{lower}*{contraction}"


_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_PATHS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_O200K = rf"{_cased(_UPPER, _LOWER, _CONTRACTION + '?')}|\p{{N}}{{1,3}}|{_PATHS}|{_SPACE}"
_TEKKEN = rf"{_cased(_UPPER, _LOWER, '')}|\p{{N}}|{_PATHS}|{_SPACE}"
_YOUTU = (
    r"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+",
    rf"{_cased(_UPPER, _LOWER, _CONTRACTION + '?')}|\p{{N}}|{_PATHS}|{_SPACE}",
)
_NOT_HAN = r"&&[^\p{Han}]]"
_KIMI_K2 = (
    r"[\p{Han}]+|"
    + _cased(_UPPER[:-1] + _NOT_HAN, _LOWER[:-1] + _NOT_HAN, _CONTRACTION + "?")
    + rf"|\p{{N}}{{1,3}}|{_SIGNS}|{_SPACE}"
)

_ASCII_SIGNS = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"
_DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    rf"{_ASCII_SIGNS}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACE}",
)
_AFMOE = (
    r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",  # threes from the right
    # Chinese, Japanese, Thai, Lao, Khmer, Burmese and Korean, by their blocks
    "[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e00-\u0e7f\u0e80-\u0eff"
    "\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+",
    _DEEPSEEK_V3[2],
)
_BAILINGMOE2 = rf"'(?i:[sdmt]|ll|ve|re)|{_HEAD}+\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
_EXAONE_MOE = (  # words of several words, too
    rf"{_CONTRACTION}|{_HEAD}(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}")
# Latin, Greek, Cyrillic, Armenian, Georgian and other letters that have a case
_CASED_LETTERS = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-\u03f5Ϸ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛ"
    "ὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼ\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d"
    "\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149ⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ"
    "-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
_DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?[{_CASED_LETTERS}]+",
    r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
    r"\s+$",
    r"[一-龥ࠀ-一가-퟿]+",
    r"\p{N}",
)

_STARCODER = (r"\p{N}", _GPT2)
_DEFAULT = (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")

PRE_TOKENIZERS: Final = {
    **dict.fromkeys(["gpt-2", "olmo", "mpt", "gigachat", "a.x-4.0", "mellum"], PreTokenizer((_GPT2,))),
    **dict.fromkeys(["starcoder", "smollm", "refact", "minerva-7b"], PreTokenizer(_STARCODER)),
    **dict.fromkeys(
        ["llama-bpe", "llama3", "llama-v3", "falcon3", "midm-2.0", "lfm2"],
        PreTokenizer((_LLAMA3,), ignore_merges=True, add_bos=True),
    ),
    **dict.fromkeys(["dbrx", "smaug-bpe", "chatglm-bpe"], PreTokenizer((_LLAMA3,))),
    **dict.fromkeys(["glm4", "glm5"], PreTokenizer((_LLAMA3,), ignore_merges=True)),
    **dict.fromkeys(["qwen2", "deepseek-r1-qwen", "megrez", "kormo", "hunyuan"], PreTokenizer((_QWEN2,))),
    "qwen35": PreTokenizer((_QWEN35,)),
    **dict.fromkeys(["gpt-4o", "llama4", "kanana2"], PreTokenizer((_O200K,), ignore_merges=True)),
    **dict.fromkeys(["tekken", "pixtral"], PreTokenizer((_TEKKEN,), ignore_merges=True, add_bos=True)),
    "deepseek-llm": PreTokenizer(_DEEPSEEK_LLM),
    "deepseek-coder": PreTokenizer(_DEEPSEEK_CODER),
    **dict.fromkeys(["deepseek-v3", "joyai-llm"], PreTokenizer(_DEEPSEEK_V3)),
    "kimi-k2": PreTokenizer((_KIMI_K2,)),
    **dict.fromkeys(["bailingmoe", "bailingmoe2"], PreTokenizer((_BAILINGMOE2,))),
    "minimax-m2": PreTokenizer((_O200K,)),
    "afmoe": PreTokenizer(_AFMOE),
    "exaone-moe": PreTokenizer((_EXAONE_MOE,), joins_words=True),
    "youtu": PreTokenizer(_YOUTU, ignore_merges=True),
    "seed-coder": PreTokenizer(
        (rf"{_CONTRACTION}|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACE}",),
    ),
    "default": PreTokenizer(_DEFAULT),
}
