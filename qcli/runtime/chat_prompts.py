"""From a conversation to the ids of its prompt, and the places where prompts that may come later part from it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from qcli.errors import PromptError, QcliError, UsageError
from qcli.runtime.checkpoint import Keep, Marks
from qcli.runtime.history import common_length
from qcli.text.call_messages import calls_as_text
from qcli.text.content import checked
from qcli.text.think_tags import ThinkTags
from qcli.text.tokenizer import Tokenizer
from qcli.text.user_text import ControlTexts

if TYPE_CHECKING:
    from qcli.text.chat_template import ChatTemplate, Manner, Prompt
    from qcli.tools.notation import Notation
    from qcli.tools.tool import Tools

Message = Mapping[str, Any]  # {"role": "user" | "assistant" | "system" | "tool", "content": str}, and "tool_calls"

_WORTH_A_MARK = 32  # tokens of a system message; fewer are sooner read again than a prompt is cut once more
_KNOWN = 16  # answers of which the texts and ids before them are remembered
_ANOTHER = {"role": "user", "content": "."}


def checked_messages(messages: Sequence[Message]) -> Sequence[Message]:
    """Messages of a conversation whose last is to be answered. Raises UsageError, PromptError if that says nothing."""
    if isinstance(messages, str | bytes | Mapping):
        raise UsageError(f"{messages!r:.60} is no list of messages", 'give [{"role": "user", "content": "…"}]')
    messages = [*messages]
    if not messages or not (_may_be_empty(messages[-1]) or checked(messages[-1])["content"].strip()):
        raise PromptError("there is nothing to answer", "end the conversation with a message from the user")
    return messages


def as_messages(asked: str | Sequence[Message]) -> Sequence[Message]:
    """A conversation as it is; a question as one."""
    return [{"role": "user", "content": asked}] if isinstance(asked, str) else asked


def _may_be_empty(message: Any) -> bool:
    """Whether a message is what a tool gave back, which may be nothing."""
    return isinstance(message, Mapping) and message.get("role") == "tool"


class ChatPrompts:
    """The prompts of a model's conversations, all written in one manner, with the same tools."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        think_tags: Sequence[ThinkTags],
        manner: Manner,
        tools: Tools | None = None,
        notation: Notation | None = None,
    ) -> None:
        """notation: how the model writes calls. Raises UsageError for tools where nothing is known of that, or no place."""
        if tools and not (notation and template.takes_tools):
            hint = "have another model answer: one whose card speaks of tools, or of calling functions"
            why = "qcli does not know how this model calls tools"
            why = why if template.takes_tools else "the model's chat template has no place for tools"
            raise UsageError(why, hint)
        self._tokenizer, self._template, self._manner = tokenizer, template, manner
        self._tools, self.notation = tools.listed if tools else [], notation
        self._tags = frozenset(text for pair in think_tags for text in (pair.open, pair.close))
        self._control = ControlTexts([*tokenizer.control_texts, *self._tags])  # what no message may spell
        written = tokenizer.first_special(template.after_answer())
        tags = {id for pair in think_tags for id in (pair.open_id, pair.close_id)}
        ends = frozenset() if written is None or written in tags else {written}
        self._known: OrderedDict[int, tuple[str, list[int]]] = OrderedDict()  # conversations up to an answer's end
        self.end_ids = tokenizer.end_ids | ends  # that end an answer, one of them what the template writes there

    def of(self, messages: Sequence[Message]) -> tuple[Prompt, list[int]]:
        """The prompt of a conversation, whose messages spell no control token and no tag of a thought, and its ids.

        An answer among them may say by which ids it was generated ("ids"). Those are its ids here, too, as another encoding
        of the same text would not be what the state has.
        """
        prompt = self._rendered(messages)
        spoken = self._spoken(messages, prompt.mark)
        text, ids = next((known for known in spoken if prompt.text.startswith(known[0])), ("", []))
        return prompt, ids + self._tokenizer.prompt(prompt.text[len(text) :], prompt.mark, first=not text)

    def _rendered(self, messages: Sequence[Message]) -> Prompt:
        plain = [{key: value for key, value in message.items() if key != "ids"} for message in messages]
        kept = self._tags
        if self.notation and any(message.get("tool_calls") for message in plain) and not self._template.shows_calls:
            plain = [calls_as_text(message, self.notation) for message in plain]
            kept = kept | {self.notation.begin, self.notation.end}
        return self._template.prompt(plain, self._control, kept, self._manner, self._tools)

    def _spoken(self, messages: Sequence[Message], mark: str) -> list[tuple[str, list[int]]]:
        """The conversation up to the end of each answer that has ids: text and ids, the longest first.

        As they were when the answer was generated: the prompt for it, and what the model said.
        """
        ends = self._ends_of_answers(messages, mark)
        first = next((i for i in range(len(ends) - 1, -1, -1) if ends[i][1] in self._known), 0)
        found, text, ids = [], "", list[int]()
        for end, key in ends[first:]:
            if key not in self._known:
                try:
                    before = self._rendered(messages[: end - 1])
                except QcliError:  # a template may refuse a conversation that is taken up in its midst
                    break
                if before.mark != mark or not before.text.startswith(text):
                    break
                said = messages[end - 1]
                ids = [*ids, *self._tokenizer.prompt(before.text[len(text) :], mark, first=not text), *said["ids"]]
                self._known[key] = before.text + self._as_said(said, mark), ids
            text, ids = self._known[key]
            self._known.move_to_end(key)
            found.append((text, ids))
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        return found[::-1]

    def _as_said(self, said: Message, mark: str) -> str:
        """An answer's text as it stands in a prompt; with calls, as the model wrote it: only what it spelled is sealed."""
        control = self._control.without(self._tags)
        if not said.get("tool_calls"):
            return control.sealed(said["content"], mark)
        parts: list[str] = []
        for special, ids in groupby(said["ids"], self._tokenizer.is_special):
            text = self._tokenizer.decode(ids, special=True)
            parts.append(text if special else control.sealed(text, mark))
        return "".join(parts)

    def _ends_of_answers(self, messages: Sequence[Message], mark: str) -> list[tuple[int, int]]:
        """After how many messages there is an answer with its own ids, and a hash of the conversation up to there."""
        found, key = [], 0
        for i, message in enumerate(messages):
            ids = message.get("ids") or ()
            calls = str(message.get("tool_calls") or "")
            key = hash((key, mark, message["role"], str(message.get("content")), calls, tuple(ids)))
            if message["role"] != "assistant" or not ids:
                continue
            if key in self._known or calls or self._tokenizer.decode(ids) == message["content"]:
                found.append((i + 1, key))
        return found

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
        if keep in ("beginnings", "shared"):
            kept = frozenset(beginnings - {0})
            return Marks(kept, kept) if keep == "beginnings" else Marks(kept, alone=True)
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
