"""What a model thinks before it answers, told apart from the answer.

Two notations are known: a pair of tags (see qcli.text.think_tags), of which the chat template may write the first, and
the channels of gpt-oss (OpenAI's harmony format):
<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>….
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qcli.text.think_tags import ThinkTags
    from qcli.text.tokenizer import Tokenizer

_OPEN, _CLOSE = "<think>", "</think>"  # how thoughts are marked in what qcli yields, whatever the model writes
_CHANNEL, _MESSAGE, _START, _END = "<|channel|>", "<|message|>", "<|start|>", "<|end|>"


class Thought(str):
    """A piece of text that is no part of the answer; the tags around thoughts are Thoughts, too."""


class AnswerParser:
    """Ids of an answer in, pieces of its text out, thoughts as Thought; this one knows no thoughts."""

    def __init__(self, tokenizer: Tokenizer, thinking: bool = False) -> None:
        """thinking: whether the answer begins within a thought."""
        self._text = tokenizer.stream()
        self._thinking = thinking

    @property
    def thinking(self) -> bool:
        """Whether what comes next belongs to a thought."""
        return self._thinking

    @property
    def answering(self) -> bool:
        """Whether what comes next is text of the answer, unless a thought begins."""
        return not self._thinking

    @property
    def obliged(self) -> int | None:
        """The id that has to come next if the answer is not to come without the form that it should have."""
        return None

    @property
    def is_whole(self) -> bool:
        """Whether no character, and no tag that is spelled with several tokens, is half-written."""
        return self._text.is_whole

    def push(self, id: int) -> Iterator[str]:
        """The text that this id completes."""
        yield self._piece(self._text.push(id))

    def flush(self) -> Iterator[str]:
        """The rest of the text, after the last id: U+FFFD if a character is incomplete."""
        yield self._piece(self._text.flush())

    def leave_thought(self) -> Iterator[str]:
        """End the thought that the answer is in: the tag that closes it; called after flush()."""
        if self._thinking:
            self._thinking = False
            yield Thought(_CLOSE)

    def _piece(self, text: str) -> str:
        return Thought(text) if self._thinking else text


class ThinkTagParser(AnswerParser):
    """Thoughts lie between tokens that open and tokens that close them."""

    def __init__(self, tokenizer: Tokenizer, opens: Mapping[int, str], closes: set[int], thinking: bool) -> None:
        """opens: the tokens that open a thought, and the name that each is followed by, which is not shown."""
        super().__init__(tokenizer, thinking)
        self._opens, self._closes = opens, closes
        self._name = ""  # that comes next, of which `_kept` has come
        self._kept = ""

    @property
    def is_whole(self) -> bool:
        """Whether no character and no name is half-written."""
        return not self._name and super().is_whole

    def push(self, id: int) -> Iterator[str]:
        """The text that this id completes, or the tag that it is."""
        if id in self._opens or id in self._closes:
            yield from self.flush()
            self._thinking = id in self._opens
            self._name = self._opens.get(id, "")
            yield Thought(_OPEN if self._thinking else _CLOSE)
        else:
            yield self._piece(self._unnamed(self._text.push(id)))

    def flush(self) -> Iterator[str]:
        """The rest of the text, after the last id."""
        kept, self._name, self._kept = self._kept, "", ""
        yield self._piece(kept + self._text.flush())

    def _unnamed(self, text: str) -> str:
        """What of a text is not the name that comes next, once that is known."""
        if not self._name:
            return text
        self._kept += text
        if self._name.startswith(self._kept) and self._kept != self._name:
            return ""
        found, self._kept, self._name = self._kept.removeprefix(self._name), "", ""
        return found


class SpelledTagParser(AnswerParser):
    """One thought, at the beginning, between tags that are spelled with ordinary tokens."""

    def __init__(self, tokenizer: Tokenizer, tags: ThinkTags, thinking: bool) -> None:
        super().__init__(tokenizer, thinking)
        self._tags = tags
        self._wanted = tags.close if thinking else tags.open  # the tag that may come next; "" after the thought
        self._kept = ""  # text that may be the beginning of a tag

    @property
    def is_whole(self) -> bool:
        """Whether no character and no tag is half-written."""
        return not self._kept and super().is_whole

    def push(self, id: int) -> Iterator[str]:
        """The text that is known to be the answer or a thought, once this id has come."""
        yield from self._read(self._text.push(id))

    def flush(self) -> Iterator[str]:
        """The rest of the text, after the last id."""
        yield from self._read(self._text.flush())
        kept, self._kept = self._kept, ""
        yield self._piece(kept)

    def leave_thought(self) -> Iterator[str]:
        """End the thought; none comes after it."""
        self._wanted = ""
        yield from super().leave_thought()

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
            self._wanted = self._tags.close if self._thinking else ""
            yield Thought(_OPEN if self._thinking else _CLOSE)
            yield from self._read("")
        elif self._thinking:
            held = next((n for n in range(len(self._wanted) - 1, 0, -1) if self._kept.endswith(self._wanted[:n])), 0)
            sure = len(self._kept) - held
            thought, self._kept = self._kept[:sure], self._kept[sure:]
            yield Thought(thought)
        elif not self._wanted.startswith(self._kept.lstrip()):
            self._wanted = ""  # the answer has begun: no thought comes any more
            yield from self._read("")


class HarmonyParser(AnswerParser):
    """A message's header names its channel: final is the answer, all others are thoughts; headers are not shown."""

    def __init__(self, tokenizer: Tokenizer, prompt: str) -> None:
        """prompt: tells whether the answer begins with a header, as after a chat template, or within one, or goes on with a
        text that the prompt began."""
        super().__init__(tokenizer)
        controls = (_CHANNEL, _MESSAGE, _START, _END)
        self._controls = {tokenizer.special_id(text): text for text in controls}
        self._channel = tokenizer.special_id(_CHANNEL)
        self._header: str | None = None  # as far as it has come; None within the text of a message
        self._unread = ""  # of the header, what the answer has written
        self._read_prompt(prompt[max(prompt.rfind(_START), 0) :])
        self._has_controls = False  # whether the answer has had any of the control tokens

    def _read_prompt(self, message: str) -> None:
        """Go through the last message of a prompt as if the model had written it."""
        for part in re.split(f"({'|'.join(map(re.escape, self._controls.values()))})", message):
            if part in self._controls.values():
                list(self._obey(part))
            elif self._header is not None:
                self._header += part
        if self._header is not None or _CHANNEL not in message:
            self._thinking = False

    @property
    def thinking(self) -> bool:
        """Whether what comes next is the text of a message that is a thought."""
        return self._thinking and self._header is None

    @property
    def answering(self) -> bool:
        """Whether what comes next is the text of the final message."""
        return not self._thinking and self._header is None

    @property
    def obliged(self) -> int | None:
        """At the beginning, what names a channel: text without one is an answer."""
        return None if self._header is None or self._has_controls else self._channel

    def push(self, id: int) -> Iterator[str]:
        """The text that this id completes; nothing within a header; tags where thoughts begin and end."""
        control = self._controls.get(id)
        if control is not None:
            yield from self._obey(control)
        elif self._header is not None:
            text = self._text.push(id)
            self._header += text
            self._unread += text
        else:
            yield from super().push(id)

    def flush(self) -> Iterator[str]:
        """The rest of the text, after the last id, and the tag that ends an open thought."""
        rest = self._text.flush()
        if self._header is None:
            yield self._piece(rest)
        elif not self._has_controls:  # an answer without any channel
            yield self._unread + rest
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


def speaks_harmony(tokenizer: Tokenizer) -> bool:
    """Whether a vocabulary has the control tokens of harmony."""
    return None not in map(tokenizer.special_id, (_CHANNEL, _MESSAGE, _START, _END))


def answer_parser(tokenizer: Tokenizer, tags: Sequence[ThinkTags], prompt: str) -> AnswerParser:
    """The parser for the answer to a prompt, as the prompt's text, in which only the template wrote tags, leaves it."""
    if speaks_harmony(tokenizer):
        return HarmonyParser(tokenizer, prompt)
    if not tags:
        return AnswerParser(tokenizer)
    thinking = _is_open(tokenizer, tags, prompt)
    tokens = [pair for pair in tags if pair.open_id is not None and pair.close_id is not None]
    if tokens:
        opens = {pair.open_id: pair.name for pair in tokens if pair.open_id is not None}
        return ThinkTagParser(
            tokenizer, opens, {pair.close_id for pair in tokens if pair.close_id is not None}, thinking
        )
    return SpelledTagParser(tokenizer, tags[0], thinking)


def _is_open(tokenizer: Tokenizer, tags: Sequence[ThinkTags], prompt: str) -> bool:
    """Whether the prompt has opened a thought for the answer: the last tag opens one, and no message ends after it.

    One that stands within a raw text, and no message begins before it, is a word like others: "What does <think> mean?"
    """
    names = {text for pair in tags for text in (pair.open, pair.close)}
    last, length, opens = max(
        (prompt.rfind(text), len(text), text == pair.open) for pair in tags for text in (pair.open, pair.close)
    )
    if last < 0 or not opens:
        return False
    controls = [text for text in tokenizer.control_texts if text not in names]
    rest = prompt[last + length :]
    return not rest.strip() or (
        not any(text in rest for text in controls) and any(text in prompt[:last] for text in controls)
    )


def without_tags(thoughts: str) -> str:
    """Thoughts without the tags around them."""
    return thoughts.replace(_OPEN, "").replace(_CLOSE, "").strip()


def without_thoughts(message: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a message without the thought that its content begins with: harmony's history leaves thoughts out."""
    content = message.get("content")
    if message.get("role") != "assistant" or not isinstance(content, str):
        return dict(message)
    return {**message, "content": re.sub(rf"^{_OPEN}.*?{_CLOSE}\s*", "", content, count=1, flags=re.DOTALL)}
