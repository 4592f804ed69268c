"""OpenAI's older completions, which continue a text: POST /v1/completions."""

from __future__ import annotations

from copy import copy
from itertools import count
from typing import Any

from qcli.errors import QcliError
from qcli.protocol.chat_completions import FINISH, usage_of
from qcli.protocol.errors import RequestError, openai_error
from qcli.protocol.events import Event
from qcli.protocol.fields import Fields
from qcli.protocol.openai_options import common_options, count_of, form_options
from qcli.protocol.question import Answered, Question
from qcli.text.thoughts import Thought
from qcli.tools.call import ToolCall


class Completion:
    """A request, and its answer as it comes; what the model thinks is text like any other."""

    ends_with_done = True

    def __init__(self, body: dict[str, Any], id: str, created: int, reasoning: bool = True) -> None:
        """id, created (seconds since 1970): of the answer; reasoning: whether thoughts are told. Raises RequestError."""
        fields = Fields(body)
        self.stream, self._reasoning = fields.flag("stream"), reasoning
        extra = fields.table("stream_options")
        self._usage = extra.flag("include_usage") if extra else False
        self._logprobs = fields.whole("logprobs", 0, 20)
        self.answered = Answered()
        self._id, self._created, self._index = f"cmpl-{id}", created, 0
        self.question, *others = self._question(fields).again(count_of(fields))
        self._others: list[Completion] = []
        self._others = [*map(self._beside, others, count(1))]

    @property
    def parts(self) -> list[Completion]:
        """The answers that it wants."""
        return [self, *self._others]

    def _beside(self, question: Question, index: int) -> Completion:
        """Another answer to the request."""
        other = copy(self)
        other.question, other.answered, other._index = question, Answered(), index
        return other

    def begin(self) -> list[Event]:
        """The events before the first piece: none."""
        return []

    def piece(self, piece: str, logprobs: list[dict[str, Any]]) -> list[Event]:
        """The events of a piece."""
        if isinstance(piece, Thought) and not self._reasoning:
            return []
        offset = len(self.answered.text)
        if not isinstance(piece, ToolCall):
            piece = str(piece)
        self.answered.add([piece], logprobs)
        return [self._chunk(piece, logprobs, offset=offset)] if piece or logprobs else []

    def end(self) -> list[Event]:
        """The events after the last piece, once the answer has ended."""
        return [self._chunk("", finish=FINISH.get(self.answered.finish_reason, "length"))]

    def closing(self) -> list[Event]:
        """The events after the end of all parts."""
        usage = usage_of([part.answered for part in self.parts])
        return [Event({**self._chunk("").data, "choices": [], "usage": usage})] if self._usage else []

    def whole(self) -> dict[str, Any]:
        """The body of all of it."""
        usage = usage_of([part.answered for part in self.parts])
        return {**self._head(), "choices": [part._choice() for part in self.parts], "usage": usage}

    def _choice(self) -> dict[str, Any]:
        said, finish = self.answered, FINISH.get(self.answered.finish_reason, "length")
        listed = self._listed(said.logprobs, 0)
        return {"index": self._index, "text": said.text, "logprobs": listed, "finish_reason": finish}

    def failed(self, problem: QcliError) -> Event:
        """The event that ends a stream in its midst."""
        return Event(openai_error(problem))

    def _question(self, fields: Fields) -> Question:
        prompt = fields.values.get("prompt")
        if isinstance(prompt, list) and len(prompt) == 1:
            prompt = prompt[0]
        if not isinstance(prompt, str):
            raise fields.wrong("prompt", "give one text; send a request for each of several")
        if not prompt:
            raise RequestError("prompt is empty", "give a text to continue", param="prompt")
        options = common_options(fields)
        if self._logprobs is not None:
            options["logprobs"] = self._logprobs
        options |= form_options(fields, "response_format")
        return Question(prompt, options, fields.text("model") if fields.has("model") else None)

    def _head(self) -> dict[str, Any]:
        head = {"id": self._id, "object": "text_completion", "created": self._created}
        return {**head, "model": self.answered.model}

    def _chunk(
        self, text: str, logprobs: list[dict[str, Any]] | None = None, finish: str | None = None, offset: int = 0
    ) -> Event:
        listed = self._listed(logprobs, offset) if logprobs else None
        choice = {"index": self._index, "text": text, "logprobs": listed, "finish_reason": finish}
        usage = {"usage": None} if self._usage else {}
        return Event({**self._head(), "choices": [choice], **usage})

    def _listed(self, logprobs: list[dict[str, Any]], offset: int) -> dict[str, Any] | None:
        """Log-probabilities as these completions have them: lists beside each other."""
        if self._logprobs is None:
            return None
        offsets = []
        for entry in logprobs:
            offsets.append(offset)
            offset += len(entry["token"])
        return {
            "tokens": [entry["token"] for entry in logprobs],
            "token_logprobs": [entry["logprob"] for entry in logprobs],
            "top_logprobs": [{top["token"]: top["logprob"] for top in entry["top_logprobs"]} for entry in logprobs],
            "text_offset": offsets,
        }
