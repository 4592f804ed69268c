"""From a conversation to the ids of its prompt, and the places where prompts that may come later part from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qcli.errors import PromptError, QcliError, UsageError
from qcli.runtime.checkpoint import Keep, Marks
from qcli.runtime.history import common_length
from qcli.text.content import checked
from qcli.text.think_tags import ThinkTags
from qcli.text.tokenizer import Tokenizer
from qcli.text.user_text import ControlTexts

if TYPE_CHECKING:
    from qcli.text.chat_template import ChatTemplate, Prompt

Message = Mapping[str, Any]  # {"role": "user" | "assistant" | "system", "content": str}

_WORTH_A_MARK = 32  # tokens of a system message; fewer are sooner read again than a prompt is cut once more
_ANOTHER = {"role": "user", "content": "."}


def checked_messages(messages: Sequence[Message]) -> Sequence[Message]:
    """Messages of a conversation whose last is to be answered. Raises UsageError, PromptError if that says nothing."""
    if isinstance(messages, str | bytes | Mapping):
        raise UsageError(f"{messages!r:.60} is no list of messages", 'give [{"role": "user", "content": "…"}]')
    messages = [*messages]
    if not messages or not checked(messages[-1])["content"].strip():
        raise PromptError("there is nothing to answer", "end the conversation with a text to answer")
    return messages


class ChatPrompts:
    """The prompts of a model's conversations."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate, think_tags: Sequence[ThinkTags]) -> None:
        self._tokenizer, self._template = tokenizer, template
        self._tags = frozenset(text for pair in think_tags for text in (pair.open, pair.close))
        self._control = ControlTexts([*tokenizer.control_texts, *self._tags])  # what no message may spell
        written = tokenizer.first_special(template.after_answer())
        tags = {id for pair in think_tags for id in (pair.open_id, pair.close_id)}
        ends = frozenset() if written is None or written in tags else {written}
        self.end_ids = (
            tokenizer.end_ids | ends
        )  # that end an answer: the vocabulary's, and what the template writes there

    def of(self, messages: Sequence[Message]) -> tuple[Prompt, list[int]]:
        """The prompt of a conversation, whose messages spell no control token and no tag of a thought, and its ids.

        An answer among them may say by which ids it was generated ("ids").
        """
        said = {m["content"]: m["ids"] for m in messages if m["role"] == "assistant" and m.get("ids") and m["content"]}
        known = {text: ids for text, ids in said.items() if self._tokenizer.decode(ids) == text}
        plain = [{key: value for key, value in message.items() if key != "ids"} for message in messages]
        prompt = self._template.prompt(plain, self._control, self._tags)
        return prompt, self._tokenizer.prompt(prompt.text, prompt.mark, known)

    def marks(
        self, messages: Sequence[Message], ids: list[int], like: Iterable[Sequence[Message]], keep: Keep
    ) -> Marks:
        """Where to keep checkpoints of a prompt, and which of them on disk: where it and others that may come part.

        Others are that of the next turn, those of chats with the same system message, and `like` ones. The next turn's does
        not begin with all of the ids with templates that open a thought for the answer and leave thoughts out of the history.
        """
        beginnings = {self._shared(other, ids) for other in like}
        if messages[0]["role"] in ("system", "developer"):
            system = self._shared([messages[0], _ANOTHER], ids)
            beginnings |= {system} if system >= _WORTH_A_MARK else set()
        if keep == "beginnings":
            return Marks(frozenset(beginnings - {0}), frozenset(beginnings - {0}))
        next_turn = self._shared([*messages, {"role": "assistant", "content": "."}, _ANOTHER], ids)
        positions = frozenset((beginnings | {next_turn}) - {0})
        if keep == "turns":
            return Marks(positions, positions - {len(ids)}, after_answer=True, answer_on_disk=True)
        return Marks(positions, after_answer=True)

    def settled(self, messages: Sequence[Message]) -> list[int]:
        """The ids that the prompt of whatever is asked next begins with."""
        ids = self.of([*messages, _ANOTHER])[1]
        return ids[: self._shared([*messages, {"role": "user", "content": "Zq?"}], ids)]

    def _shared(self, messages: Sequence[Message], ids: list[int]) -> int:
        """How many of the ids the prompt of another conversation begins with."""
        try:
            return common_length(ids, self.of(messages)[1])
        except QcliError:  # a template may refuse such a conversation
            return 0
