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
_NEAR: Final = 4  # ids at the end of a prompt among which a template opens a thought


class Thought(str):
    """Text that is no part of the answer; the marks around it are, so that all pieces joined say which is which."""


class Plain:
    """Everything is the answer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._text = tokenizer.stream()

    def push(self, id: int) -> Iterator[str]:
        """The text that this id completes."""
        yield self._text.push(id)

    def flush(self) -> Iterator[str]:
        """What a broken end leaves."""
        yield self._text.flush()


class Marked(Plain):
    """Thoughts lie between the tokens <think> and </think>."""

    def __init__(self, tokenizer: Tokenizer, open: int, close: int, thinking: bool) -> None:
        super().__init__(tokenizer)
        self._open, self._close, self._thinking = open, close, thinking

    def push(self, id: int) -> Iterator[str]:
        if id in (self._open, self._close):
            yield from self.flush()
            self._thinking = id == self._open
            yield Thought(_OPEN if self._thinking else _CLOSE)
        else:
            yield self._kind(self._text.push(id))

    def flush(self) -> Iterator[str]:
        yield self._kind(self._text.flush())

    def _kind(self, text: str) -> str:
        return Thought(text) if self._thinking else text


class Channels(Plain):
    """A message's header names its channel: final is the answer, all others are thoughts; headers are not shown."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self._marks = {tokenizer.special_id(mark): mark for mark in (_CHANNEL, _MESSAGE, _START, _END)}
        self._header: str | None = ""  # what of it is read; None within a message
        self._begun = self._thinking = False

    def push(self, id: int) -> Iterator[str]:
        mark = self._marks.get(id)
        if mark is not None:
            yield from self._take(mark)
        elif self._header is not None:
            self._header += self._text.push(id)
        else:
            yield self._kind(self._text.push(id))

    def flush(self) -> Iterator[str]:
        rest = self._text.flush()
        if self._header is None:
            yield self._kind(rest)
        elif not self._begun:  # an answer without any channel
            yield self._header + rest
        yield from self._turn(thinking=False)

    def _take(self, mark: str) -> Iterator[str]:
        self._begun = True
        if self._header is None:
            yield self._kind(self._text.flush())
        if mark == _MESSAGE:
            yield from self._turn(thinking=self._header is not None and self._header.split()[:1] != ["final"])
            self._header = None
        else:
            self._header = ""  # what stood before <|channel|> is the author: assistant

    def _turn(self, thinking: bool) -> Iterator[str]:
        if thinking != self._thinking:
            self._thinking = thinking
            yield Thought(_OPEN if thinking else _CLOSE)

    def _kind(self, text: str) -> str:
        return Thought(text) if self._thinking else text


def reader(tokenizer: Tokenizer, prompt: Sequence[int]) -> Plain:
    """What reads the answer to a chat's prompt: its ids come in, its text goes out, thoughts as Thought."""
    if speaks_harmony(tokenizer):
        return Channels(tokenizer)
    open, close = tokenizer.special_id(_OPEN), tokenizer.special_id(_CLOSE)
    if open is None or close is None:
        return Plain(tokenizer)
    last = [id for id in prompt[-_NEAR:] if id in (open, close)]
    return Marked(tokenizer, open, close, thinking=last[-1:] == [open])


def speaks_harmony(tokenizer: Tokenizer) -> bool:
    """Whether the vocabulary has gpt-oss's channels."""
    return None not in map(tokenizer.special_id, (_CHANNEL, _MESSAGE, _START, _END))


def inside(text: str) -> str:
    """Thoughts without the marks around them."""
    return text.replace(_OPEN, "").replace(_CLOSE, "").strip()


def without_thoughts(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message of a conversation without the thoughts in its content: harmony's history leaves them out."""
    content = message.get("content")
    if message.get("role") != "assistant" or not isinstance(content, str):
        return dict(message)
    return {**message, "content": re.sub(rf"^{_OPEN}.*?{_CLOSE}\s*", "", content, count=1, flags=re.DOTALL)}
