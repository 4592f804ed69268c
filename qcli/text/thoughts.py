"""What a model thinks before it answers, told apart from the answer.

Two notations are known: a pair of marks (see qcli.text.thought_marks), of which the chat template may write the first,
and the channels of gpt-oss (OpenAI's harmony format):
<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>….
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qcli.text.thought_marks import ThoughtMarks
    from qcli.text.tokenizer import Tokenizer

OPEN, CLOSE = "<think>", "</think>"  # as thoughts are marked in what qcli yields, whatever the model's own marks
_CHANNEL, _MESSAGE, _START, _END = "<|channel|>", "<|message|>", "<|start|>", "<|end|>"


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
    """Thoughts lie between tokens that open and tokens that close them."""

    def __init__(self, tokenizer: Tokenizer, opens: set[int], closes: set[int], thinking: bool) -> None:
        super().__init__(tokenizer)
        self._opens, self._closes, self._thinking = opens, closes, thinking

    def push(self, id: int) -> Iterator[str]:
        """The text that this id completes, or the mark that it is."""
        if id in self._opens or id in self._closes:
            yield from self.flush()
            self._thinking = id in self._opens
            yield Thought(OPEN if self._thinking else CLOSE)
        else:
            yield self._kind(self._text.push(id))

    def flush(self) -> Iterator[str]:
        """What a broken end leaves."""
        yield self._kind(self._text.flush())

    def _kind(self, text: str) -> str:
        return Thought(text) if self._thinking else text


class Spelled(Plain):
    """One thought, at the beginning, between marks that are spelled with ordinary tokens."""

    def __init__(self, tokenizer: Tokenizer, marks: ThoughtMarks, thinking: bool) -> None:
        super().__init__(tokenizer)
        self._marks = marks
        self._wanted = marks.close if thinking else marks.open  # the mark that may come next; "" after the thought
        self._thinking = thinking
        self._kept = ""  # that may be the beginning of a mark

    def push(self, id: int) -> Iterator[str]:
        """The text that is known to be the answer or a thought, once this id has come."""
        yield from self._read(self._text.push(id))

    def flush(self) -> Iterator[str]:
        """What a broken end leaves."""
        yield from self._read(self._text.flush())
        kept, self._kept = self._kept, ""
        yield self._kind(kept)

    def _read(self, text: str) -> Iterator[str]:
        self._kept += text
        if not self._wanted:
            text, self._kept = self._kept, ""
            yield text
            return
        at = self._kept.find(self._wanted)
        if at >= 0 and (self._thinking or not self._kept[:at].strip()):
            before, self._kept = self._kept[:at], self._kept[at + len(self._wanted) :]
            if self._thinking:
                yield Thought(before)
            self._thinking = not self._thinking
            self._wanted = self._marks.close if self._thinking else ""
            yield Thought(OPEN if self._thinking else CLOSE)
            yield from self._read("")
        elif not self._thinking and not self._wanted.startswith(self._kept.lstrip()):
            self._wanted = ""  # the answer has begun: no thought comes any more
            yield from self._read("")
        elif self._thinking:
            held = next((n for n in range(len(self._wanted) - 1, 0, -1) if self._kept.endswith(self._wanted[:n])), 0)
            sure = len(self._kept) - held
            thought, self._kept = self._kept[:sure], self._kept[sure:]
            yield Thought(thought)

    def _kind(self, text: str) -> str:
        return Thought(text) if self._thinking else text


class Channels(Plain):
    """A message's header names its channel: final is the answer, all others are thoughts; headers are not shown."""

    def __init__(self, tokenizer: Tokenizer, begins: bool = True) -> None:
        """begins: with a header; else within a text that no header stands before."""
        super().__init__(tokenizer)
        self._marks = {tokenizer.special_id(mark): mark for mark in (_CHANNEL, _MESSAGE, _START, _END)}
        self._header: str | None = "" if begins else None  # what of it is read; None within a message
        self._begun = self._thinking = False

    def push(self, id: int) -> Iterator[str]:
        """The text that this id completes, if a message holds it."""
        mark = self._marks.get(id)
        if mark is not None:
            yield from self._take(mark)
        elif self._header is not None:
            self._header += self._text.push(id)
        else:
            yield self._kind(self._text.push(id))

    def flush(self) -> Iterator[str]:
        """What a broken end leaves, and an answer without any channel."""
        rest = self._text.flush()
        if self._header is None:
            yield self._kind(rest)
        elif not self._begun:
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
            yield Thought(OPEN if thinking else CLOSE)

    def _kind(self, text: str) -> str:
        return Thought(text) if self._thinking else text


def reader(tokenizer: Tokenizer, marks: Sequence[ThoughtMarks], prompt: str) -> Plain:
    """What reads the answer to a prompt: ids come in, text goes out, thoughts as Thought.

    prompt: the rendered text, in which nobody but the template can have written a mark.
    """
    if speaks_harmony(tokenizer):
        return Channels(tokenizer, begins=_START in prompt)
    if not marks:
        return Plain(tokenizer)
    thinking = _is_open(tokenizer, marks, prompt)
    tokens = [pair for pair in marks if pair.open_id is not None and pair.close_id is not None]
    if tokens:
        opens, closes = ({getattr(pair, side) for pair in tokens} for side in ("open_id", "close_id"))
        return Marked(tokenizer, opens, closes, thinking)
    return Spelled(tokenizer, marks[0], thinking)


def _is_open(tokenizer: Tokenizer, marks: Sequence[ThoughtMarks], prompt: str) -> bool:
    """Whether the template has opened a thought for the answer: the last mark opens one, and no message ends after it."""
    last, open = max((prompt.rfind(text), text == pair.open) for pair in marks for text in (pair.open, pair.close))
    if last < 0 or not open:
        return False
    names = {text for pair in marks for text in (pair.open, pair.close)}
    rest = prompt[last + 1 :]
    return not any(text in rest for text in tokenizer.control_texts if text not in names)


def speaks_harmony(tokenizer: Tokenizer) -> bool:
    """Whether the vocabulary has gpt-oss's channels."""
    return None not in map(tokenizer.special_id, (_CHANNEL, _MESSAGE, _START, _END))


def inside(text: str) -> str:
    """Thoughts without the marks around them."""
    return text.replace(OPEN, "").replace(CLOSE, "").strip()


def without_thoughts(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message of a conversation without the thoughts in its content: harmony's history leaves them out."""
    content = message.get("content")
    if message.get("role") != "assistant" or not isinstance(content, str):
        return dict(message)
    return {**message, "content": re.sub(rf"^{OPEN}.*?{CLOSE}\s*", "", content, count=1, flags=re.DOTALL)}
