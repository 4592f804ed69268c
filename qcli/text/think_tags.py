"""The tags between which a model thinks, learned from its vocabulary and its chat template.

Families write them differently: <think>…</think>, [THINK]…[/THINK], <|START_THINKING|>…<|END_THINKING|>,
<seed:think>…</seed:think>, ◁think▷…◁/think▷. What they share: a word for thinking, and an end spelled like the beginning.
Gemma 4 has a channel for thoughts, whose name follows the token that opens it: <|channel>thought…<channel|>.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from qcli.text.tokenizer import Tokenizer

_TAG: Final = re.compile(r"[<\[◁][|｜]?/?[\w:|｜▁ ]*(?:think|thought|reason)[\w:|｜▁]*[|｜]?[>\]▷]", re.IGNORECASE)
_CHANNEL: Final = ("<|channel>", "thought", "<channel|>")
_ENDS: Final = (  # how an opening tag is turned into its closing one
    (r"^([<\[◁][|｜]?)", r"\1/"),
    (r"(?i)start", "END"),
    (r"start", "end"),
    (r"(?i)begin", "END"),
    (r"begin", "end"),
)


@dataclass(frozen=True)
class ThinkTags:
    """A pair of tags: their texts, and the ids of the tokens that spell each, where one does.

    name: what of the opening one ordinary tokens spell, after its token.
    """

    open: str
    close: str
    open_id: int | None
    close_id: int | None
    name: str = ""


def find_think_tags(tokenizer: Tokenizer, template: str) -> list[ThinkTags]:
    """The pairs that a vocabulary has among its special tokens, or that a chat template names; most often one or none."""
    texts = {*_TAG.findall(template), *(text for text in tokenizer.special_texts if _TAG.fullmatch(text))}
    found = []
    for text in sorted(texts):
        close = next((end for end in _closing(text) if end != text and end in texts), None)
        if close and "/" not in text:
            found.append(ThinkTags(text, close, tokenizer.find(text), tokenizer.find(close)))
    begin, name, end = _CHANNEL
    if tokenizer.special_id(begin) is not None and tokenizer.special_id(end) is not None:
        found.append(ThinkTags(begin + name, end, tokenizer.find(begin), tokenizer.find(end), name))
    return found


def _closing(text: str) -> list[str]:
    return [re.sub(pattern, end, text, count=1) for pattern, end in _ENDS]
