"""The prompts of all conversations with a model: each manner of thinking, and each list of tools, has its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from qcli.runtime.answer_options import Checked
from qcli.runtime.chat_prompts import ChatPrompts, Message
from qcli.runtime.checkpoint import Keep
from qcli.runtime.generation import Prompt
from qcli.text.think_tags import ThinkTags
from qcli.text.tokenizer import Tokenizer
from qcli.tools.notation import Notation, find_notation
from qcli.tools.tool import Tools, checked_tools

if TYPE_CHECKING:
    from qcli.text.chat_template import ChatTemplate, Manner
    from qcli.text.think_setting import Think
    from qcli.text.thinking import Thinking

_KEPT = 8  # ways to write prompts, of which what was written is remembered


class Chats:
    """What a model's template and vocabulary say of conversations with it."""

    def __init__(
        self, tokenizer: Tokenizer, template: ChatTemplate, think_tags: Sequence[ThinkTags], thinking: Thinking
    ) -> None:
        self._tokenizer, self._template, self._tags, self._thinking = tokenizer, template, think_tags, thinking
        self._written: dict[tuple[Manner, Tools | None], ChatPrompts] = {}

    @cached_property
    def notation(self) -> Notation | None:
        """How the model writes tool calls."""
        return find_notation(self._tokenizer.special_texts, self._template.source)

    def prompts(self, think: Think, tools: Tools | Sequence[Any] | None) -> ChatPrompts:
        """The prompts of conversations whose next answer is thought about so, and may call these. Raises UsageError."""
        key = self._thinking.manner(think), None if tools is None else checked_tools(tools)
        if key not in self._written:
            if len(self._written) >= _KEPT:
                del self._written[next(iter(self._written))]
            self._written[key] = ChatPrompts(self._tokenizer, self._template, self._tags, *key, self.notation)
        return self._written[key]

    def asked(
        self,
        messages: Sequence[Message],
        wanted: Checked,
        begun: list[int],
        like: Iterable[Sequence[Message]],
        keep: Keep,
    ) -> Prompt:
        """The prompt of a conversation whose answer has begun with these ids; like, keep: as LLM.chat and LLM have them."""
        prompts = self.prompts(wanted.think, wanted.tools)
        prompt, ids = prompts.of(messages)
        marks = prompts.marks(messages, ids, like, keep)
        marks = marks.with_one_at(len(ids + begun)) if wanted.again else marks
        may_think = wanted.think != "off"
        return Prompt(ids + begun, prompt.text, prompts.end_ids, marks, begun, may_think, self.notation)

    def rendered(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool,
        think: Think,
        tools: Tools | Sequence[Any] | None,
    ) -> str:
        """The prompt of a conversation as plain text. Raises UsageError."""
        manner = self._thinking.manner(think)
        variables = dict(manner.variables) | ({"tools": checked_tools(tools).listed} if tools else {})
        text = self._template.render(messages, add_generation_prompt=add_generation_prompt, **variables)
        return text + manner.ending if add_generation_prompt else text
