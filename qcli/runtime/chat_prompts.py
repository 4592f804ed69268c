"""From a conversation to the ids of its prompt, and the places where prompts that may come later part from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qcli.errors import QcliError
from qcli.runtime.kept_states import common_length
from qcli.text.think_tags import ThinkTags
from qcli.text.tokenizer import Tokenizer
from qcli.text.user_text import ControlTexts

if TYPE_CHECKING:
    from qcli.text.chat_template import ChatTemplate, Prompt

Message = Mapping[str, Any]  # {"role": "user" | "assistant" | "system", "content": str}

_WORTH_A_MARK = 32  # tokens of a system message; fewer are sooner read again than a prompt is cut once more
_ANOTHER = {"role": "user", "content": "."}


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

    def marks(self, messages: Sequence[Message], ids: list[int], like: Iterable[Sequence[Message]] = ()) -> set[int]:
        """After how many of the prompt's ids others part from it: the next turn's, that of another chat, and `like` ones.

        The next turn's does not begin with all of the ids with templates that open a thought for the answer and leave
        thoughts out of the history.
        """
        others = [[*messages, {"role": "assistant", "content": "."}, _ANOTHER], *like]
        marks = {self._shared(other, ids) for other in others}
        if messages[0]["role"] in ("system", "developer"):
            system = self._shared([messages[0], _ANOTHER], ids)
            marks |= {system} if system >= _WORTH_A_MARK else set()
        return marks - {0}

    def _shared(self, messages: Sequence[Message], ids: list[int]) -> int:
        """How many of the ids the prompt of another conversation begins with."""
        try:
            return common_length(ids, self.of(messages)[1])
        except QcliError:  # a template may refuse such a conversation
            return 0
