"""What a row of a batch asks, and the result that is written of it: in the shape of OpenAI's batches, or a plain one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from qcli.batch.source import Row
from qcli.errors import QcliError, UsageError
from qcli.protocol.chat_completions import ChatCompletion
from qcli.protocol.errors import RequestError, error_of, openai_error, status_of
from qcli.protocol.exchange import EXCHANGES, Exchange
from qcli.protocol.fields import Fields
from qcli.protocol.openai_options import count_of
from qcli.protocol.question import Question
from qcli.text.thoughts import without_tags
from qcli.tools.call import ToolCall

if TYPE_CHECKING:
    from qcli.runtime.answer_options import Options
    from qcli.runtime.stats import Stats

_CHAT: Final = "/v1/chat/completions"
_TEXT: Final = "/v1/completions"
_ID: Final = 9  # letters of a call's id, as chat templates take it


@dataclass(frozen=True)
class Defaults:
    """What holds for every row that says nothing else."""

    options: Options
    system: str | None = None
    seed: int = 0  # with which, and with its identity, a row's own seed is made


class Asked:
    """A row's questions, most often one: those that its request wants answers to; none where it cannot be meant."""

    def __init__(self, row: Row, defaults: Defaults, created: int) -> None:
        """created: seconds since 1970."""
        self.id = row.id
        self.problem = row.problem
        self.questions: list[Question] = []
        self._left = 0  # of them, that are not answered
        self._plain = "body" not in row.values and not row.values.get("url")
        self._url = _CHAT  # of the protocol
        self._digest = row.digest
        self._exchange: Exchange | None = None
        if self.problem is None:
            try:
                self._exchange = self._read(row.values, created)
                for number, part in enumerate(self._exchange.parts):
                    identity = f"{row.identity} {number}" if number else row.identity
                    self.questions.append(_completed(part.question, defaults, identity))
                self._left = len(self.questions)
            except UsageError as problem:
                self.problem = problem

    def add(self, number: int, piece: str, logprobs: list[dict[str, Any]]) -> None:
        """Add a piece of the answer to a question."""
        assert self._exchange
        part = self._exchange.parts[number]
        if isinstance(piece, ToolCall):  # a name of its own that does not change from run to run
            which = f"{self.id} {len(part.answered.calls)}" + (f" {number}" if number else "")
            piece = ToolCall(piece.name, piece.arguments, hashlib.sha256(which.encode()).hexdigest()[:_ID])
        part.piece(piece, logprobs)

    def end(self, number: int, stats: Stats) -> None:
        """The answer to a question is over."""
        assert self._exchange
        self._exchange.parts[number].answered.end(stats)
        self._left -= 1

    @property
    def is_over(self) -> bool:
        """Whether all of them are answered."""
        return not self._left

    def result(self, model: str) -> dict[str, Any]:
        """The row's result, once all was answered."""
        assert self._exchange
        said = self._exchange.answered
        said.model = model
        if not self._plain:
            return self._openai(200, self._exchange.whole(), None)
        result: dict[str, Any] = {"custom_id": self.id, "text": said.text}
        if "constraint" in self.questions[0].options:
            result |= self._value(said.text, bool(said.fits))
        if said.thoughts:
            result["thoughts"] = without_tags(said.thoughts)
        if said.calls:
            result["tool_calls"] = [call.listed() for call in said.calls]
        if said.logprobs:
            result["logprobs"] = said.logprobs
        counts = {"prompt_tokens": said.prompt_tokens, "new_tokens": said.new_tokens}
        ended = {"finish_reason": said.finish_reason, **counts}
        return {**result, **ended, "request_id": self._request_id, "error": None}

    def error(self, problem: QcliError) -> dict[str, Any]:
        """The row's result, if there is no answer."""
        if self._plain:
            return {"custom_id": self.id, "request_id": self._request_id, "error": str(problem)}
        told = openai_error(problem)["error"]
        error = {"code": told["code"] or told["type"], "message": told["message"]}
        return self._openai(status_of(problem), error_of(self._url, problem), error)

    @property
    def _request_id(self) -> str:
        return f"req_{self._digest}"

    def _openai(self, status: int, body: dict[str, Any], error: dict[str, Any] | None) -> dict[str, Any]:
        response = {"status_code": status, "request_id": self._request_id, "body": body}
        return {"id": f"batch_req_{self._digest}", "custom_id": self.id, "response": response, "error": error}

    def _value(self, text: str, fits: bool) -> dict[str, Any]:
        constraint = self.questions[0].options["constraint"]
        if constraint is None or not constraint.is_json:
            return {"fits": fits}
        return {"value": json.loads(text) if fits else None, "fits": fits}

    def _read(self, values: dict[str, Any], created: int) -> Exchange:
        """The request of a line. Raises UsageError."""
        fields = Fields(values)
        if self._plain:
            if fields.has("prompt") and fields.has("messages"):
                raise RequestError("the line has both prompt and messages", "give one of them")
            if not fields.has("prompt") and not fields.has("messages"):
                raise RequestError("the line has no question", 'give "prompt" or "messages", or OpenAI\'s "body"')
            if fields.has("prompt"):
                values = {**values, "messages": [{"role": "user", "content": fields.text("prompt")}]}
            if count_of(fields) > 1:
                raise RequestError("n cannot be more than 1 here", 'give it in OpenAI\'s "body"', param="n")
            return ChatCompletion(values, self._digest, created)
        if fields.word("method", ("POST",)) is None and "method" in values:
            raise fields.wrong("method", "give POST")
        body = fields.table("body")
        if body is None:
            raise fields.wrong("body", 'give one such as {"messages": […]}')
        self._url = fields.word("url", [*EXCHANGES]) or (_CHAT if body.has("messages") else _TEXT)
        return EXCHANGES[self._url](body.values, self._digest, created, True)


def _completed(question: Question, defaults: Defaults, identity: str) -> Question:
    """A question with what it leaves unsaid; the model is that of the command, whatever a line names."""
    prompt, given = question.prompt, {**defaults.options}
    if isinstance(prompt, str):
        given.pop("think", None)
    elif defaults.system is not None and prompt[0]["role"] not in ("system", "developer"):
        prompt = [{"role": "system", "content": defaults.system}, *prompt]
    if "constraint" in question.options:
        given.pop("constraint", None)
    options: Any = {**given, **question.options}
    if options.get("seed") is None:
        made = hashlib.sha256(f"{defaults.seed} {identity}".encode()).digest()
        options["seed"] = int.from_bytes(made[:8], "little")
    return replace(question, prompt=prompt, options=options, model=None)
