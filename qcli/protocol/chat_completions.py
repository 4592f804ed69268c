"""OpenAI's chat completions: POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from itertools import count
from typing import Any, Final

from qcli.errors import QcliError
from qcli.protocol.errors import RequestError, openai_error
from qcli.protocol.events import Event
from qcli.protocol.fields import Fields
from qcli.protocol.openai_messages import read_messages
from qcli.protocol.openai_options import (
    MOST_TOKENS,
    common_options,
    count_of,
    form_options,
    think_options,
    tool_options,
)
from qcli.protocol.question import Answered, OpenThoughts, Question, is_text
from qcli.text.thoughts import Thought, without_tags
from qcli.tools.call import ToolCall

FINISH: Final = {"stop": "stop", "tool_calls": "tool_calls"}  # all else is "length": the answer is not whole


class ChatCompletion:
    """A request, and its answer as it comes."""

    ends_with_done = True

    def __init__(self, body: dict[str, Any], id: str, created: int, reasoning: bool = True) -> None:
        """id, created (seconds since 1970): of the answer; reasoning: whether it tells thoughts, unless the body says so.

        Raises RequestError.
        """
        fields = Fields(body)
        self.stream = fields.flag("stream")
        self.reasoning = fields.flag("include_reasoning", reasoning)
        extra = fields.table("stream_options")
        self._usage = extra.flag("include_usage") if extra else False
        self._wants_logprobs = fields.flag("logprobs")
        self._id, self._created, self._index = f"chatcmpl-{id}", created, 0
        first, *others = _question(fields, self._wants_logprobs).again(count_of(fields))
        self._begin(first)
        self._others: list[ChatCompletion] = []
        self._others = [*map(self._beside, others, count(1))]

    @property
    def parts(self) -> list[ChatCompletion]:
        """The answers that it wants."""
        return [self, *self._others]

    def _begin(self, question: Question) -> None:
        self.question, self.answered, self._open = question, Answered(), OpenThoughts()

    def _beside(self, question: Question, index: int) -> ChatCompletion:
        """Another answer to the request."""
        other = copy(self)
        other._begin(question)
        other._index = index
        return other

    def begin(self) -> list[Event]:
        """The events before the first piece."""
        return [self._chunk({"role": "assistant", "content": ""})]

    def piece(self, piece: str, logprobs: list[dict[str, Any]]) -> list[Event]:
        """The events of a piece."""
        calls = len(self.answered.calls)
        self.answered.add([piece], logprobs)
        if isinstance(piece, ToolCall):
            return [self._chunk({"tool_calls": [{"index": calls, **piece.listed()}]}, logprobs)]
        if isinstance(piece, Thought):
            shown = self._open.push(piece) if self.reasoning else ""
            return [self._chunk({"reasoning_content": shown}, logprobs)] if shown else []
        return [self._chunk({"content": piece}, logprobs)] if is_text(piece) or logprobs else []

    def end(self) -> list[Event]:
        """The events after the last piece, once the answer has ended."""
        return [self._chunk({}, finish=FINISH.get(self.answered.finish_reason, "length"))]

    def closing(self) -> list[Event]:
        """The events after the end of all parts."""
        usage = usage_of([part.answered for part in self.parts])
        return [Event({**self._chunk({}).data, "choices": [], "usage": usage})] if self._usage else []

    def whole(self) -> dict[str, Any]:
        """The body of all of it."""
        usage = usage_of([part.answered for part in self.parts])
        return {**self._head("chat.completion"), "choices": [part._choice() for part in self.parts], "usage": usage}

    def _choice(self) -> dict[str, Any]:
        said = self.answered
        message: dict[str, Any] = {"role": "assistant", "content": said.text or (None if said.calls else "")}
        if self.reasoning and (thoughts := without_tags(said.thoughts)):
            message["reasoning_content"] = thoughts
        if said.calls:
            message["tool_calls"] = [call.listed() for call in said.calls]
        choice = {"index": self._index, "message": message, "finish_reason": FINISH.get(said.finish_reason, "length")}
        choice["logprobs"] = {"content": said.logprobs, "refusal": None} if self._wants_logprobs else None
        return choice

    def failed(self, problem: QcliError) -> Event:
        """The event that ends a stream in its midst."""
        return Event(openai_error(problem))

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self.answered.model}

    def _chunk(
        self, delta: dict[str, Any], logprobs: list[dict[str, Any]] | None = None, finish: str | None = None
    ) -> Event:
        choice: dict[str, Any] = {"index": self._index, "delta": delta, "finish_reason": finish, "logprobs": None}
        if self._wants_logprobs and logprobs:
            choice["logprobs"] = {"content": logprobs, "refusal": None}
        usage = {"usage": None} if self._usage else {}
        return Event({**self._head("chat.completion.chunk"), "choices": [choice], **usage})


def usage_of(answers: Sequence[Answered]) -> dict[str, Any]:
    """The tokens that the answers to one prompt took."""
    first, new = answers[0], sum(said.new_tokens for said in answers)
    return {
        "prompt_tokens": first.prompt_tokens,
        "completion_tokens": new,
        "total_tokens": first.prompt_tokens + new,
        "prompt_tokens_details": {"cached_tokens": first.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": sum(said.thought_tokens for said in answers)},
    }


def _question(fields: Fields, wants_logprobs: bool) -> Question:
    messages = read_messages(fields)
    options = common_options(fields)
    if (most := fields.whole("max_completion_tokens", 1, MOST_TOKENS)) is not None:
        options["max_tokens"] = most
    top = fields.whole("top_logprobs", 0, 20)
    if top and not wants_logprobs:
        raise RequestError("top_logprobs needs logprobs", "give logprobs: true as well", param="top_logprobs")
    if wants_logprobs:
        options["logprobs"] = top or 0
    think, wish = think_options(fields, fields.values.get("reasoning_effort"))
    options |= think
    options |= form_options(fields, "response_format")
    options |= tool_options(fields, fields.values.get("tools"), fields.values.get("tool_choice"))
    options["stop_loops"] = fields.flag("stop_loops", True)
    model = fields.text("model") if fields.has("model") else None
    return Question(messages, options, model, wish=wish, one_call=not fields.flag("parallel_tool_calls", True))
