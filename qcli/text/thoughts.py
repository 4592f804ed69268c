"""What a model thinks before it answers, told apart from the answer.

Two notations are known: <think>…</think>, which may be opened by the chat template, and the channels of gpt-oss
(OpenAI's harmony format): <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>….
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from qcli.text.tokenizer import Tokenizer

_OPEN, _CLOSE = "<think>", "</think>"
_CHANNEL, _MESSAGE, _START, _END = "<|channel|>", "<|message|>", "<|start|>", "<|end|>"
_NEAR: Final = 4  # ids at the end of a prompt, where a template may open a thought for the answer


class Thought(str):
    """A piece of text that is no part of the answer; the tags around thoughts are Thoughts, too."""


class AnswerParser:
    """Ids of an answer in, pieces of its text out, thoughts as Thought; this one knows no thoughts."""

    def __init__(self, tokenizer: Tokenizer, thinking: bool = False) -> None:
        """thinking: whether the answer begins within a thought."""
        self._text = tokenizer.stream()
        self._thinking = thinking

    def push(self, id: int) -> Iterator[str]:
        """The text that this id completes."""
        yield self._piece(self._text.push(id))

    def flush(self) -> Iterator[str]:
        """The rest of the text, after the last id: U+FFFD if a character is incomplete."""
        yield self._piece(self._text.flush())

    def _piece(self, text: str) -> str:
        return Thought(text) if self._thinking else text


class ThinkTagParser(AnswerParser):
    """Thoughts lie between the tokens <think> and </think>."""

    def __init__(self, tokenizer: Tokenizer, open: int, close: int, thinking: bool) -> None:
        super().__init__(tokenizer, thinking)
        self._open, self._close = open, close

    def push(self, id: int) -> Iterator[str]:
        """The text that this id completes, or the tag that it is."""
        if id in (self._open, self._close):
            yield from self.flush()
            self._thinking = id == self._open
            yield Thought(_OPEN if self._thinking else _CLOSE)
        else:
            yield from super().push(id)


class HarmonyParser(AnswerParser):
    """A message's header names its channel: final is the answer, all others are thoughts; headers are not shown."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self._controls = {tokenizer.special_id(text): text for text in (_CHANNEL, _MESSAGE, _START, _END)}
        self._header: str | None = ""  # as far as it has come; None within the text of a message
        self._has_controls = False  # whether the answer has had any of the control tokens

    def push(self, id: int) -> Iterator[str]:
        """The text that this id completes; nothing within a header; tags where thoughts begin and end."""
        control = self._controls.get(id)
        if control is not None:
            yield from self._obey(control)
        elif self._header is not None:
            self._header += self._text.push(id)
        else:
            yield from super().push(id)

    def flush(self) -> Iterator[str]:
        """The rest of the text, after the last id, and the tag that ends an open thought."""
        rest = self._text.flush()
        if self._header is None:
            yield self._piece(rest)
        elif not self._has_controls:  # an answer without any channel
            yield self._header + rest
        yield from self._switch(thinking=False)

    def _obey(self, control: str) -> Iterator[str]:
        """Begin a header, or the text of a message after it."""
        self._has_controls = True
        if self._header is None:
            yield self._piece(self._text.flush())
        if control == _MESSAGE:
            yield from self._switch(thinking=self._header is not None and self._header.split()[:1] != ["final"])
            self._header = None
        else:
            self._header = ""  # what stood before <|channel|> is the author: assistant

    def _switch(self, thinking: bool) -> Iterator[str]:
        """From answer to thought or back, with the tag between them."""
        if thinking != self._thinking:
            self._thinking = thinking
            yield Thought(_OPEN if thinking else _CLOSE)


def answer_parser(tokenizer: Tokenizer, prompt: Sequence[int]) -> AnswerParser:
    """The parser for the answer to a chat's prompt, by the special tokens of the vocabulary."""
    if None not in map(tokenizer.special_id, (_CHANNEL, _MESSAGE, _START, _END)):
        return HarmonyParser(tokenizer)
    open, close = tokenizer.special_id(_OPEN), tokenizer.special_id(_CLOSE)
    if open is None or close is None:
        return AnswerParser(tokenizer)
    last = [id for id in prompt[-_NEAR:] if id in (open, close)]
    return ThinkTagParser(tokenizer, open, close, thinking=last[-1:] == [open])


def without_tags(thoughts: str) -> str:
    """Thoughts without the tags around them."""
    return thoughts.replace(_OPEN, "").replace(_CLOSE, "").strip()


def without_thoughts(message: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a message without the thought that its content begins with: harmony's history leaves thoughts out."""
    content = message.get("content")
    if message.get("role") != "assistant" or not isinstance(content, str):
        return dict(message)
    return {**message, "content": re.sub(rf"^{_OPEN}.*?{_CLOSE}\s*", "", content, count=1, flags=re.DOTALL)}
