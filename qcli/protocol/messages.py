"""Anthropic's messages: POST /v1/messages."""

from __future__ import annotations

import json
from typing import Any, Final

from qcli.errors import QcliError
from qcli.protocol.anthropic_messages import read_conversation, read_tools
from qcli.protocol.errors import RequestError, anthropic_error
from qcli.protocol.events import Event
from qcli.protocol.fields import Fields
from qcli.protocol.one_answer import OneAnswer
from qcli.protocol.openai_options import MOST_TOKENS, held_to, sampling_options, stop_strings
from qcli.protocol.question import Answered, OpenThoughts, Question
from qcli.text.thoughts import Thought, without_tags
from qcli.tools.call import ToolCall

_SAMPLING: Final = {name: name for name in ("temperature", "top_p", "top_k")}
_EFFORTS: Final = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}


class Message(OneAnswer):
    """A request, and its answer as it comes."""

    ends_with_done = False

    def __init__(self, body: dict[str, Any], id: str, created: int, reasoning: bool = True) -> None:
        """id: of the answer; reasoning: whether it tells thoughts that are asked for. Raises RequestError."""
        fields = Fields(body)
        self.stream = fields.flag("stream")
        self.question, told = _question(fields)
        self.reasoning = told and reasoning
        self.answered = Answered()
        self._id = f"msg_{id}"
        self._open = OpenThoughts()
        self._blocks = 0  # that are closed
        self._kind = ""  # of the block that is open

    def begin(self) -> list[Event]:
        """The events before the first piece."""
        return [_event("message_start", message={**self._head(), "content": [], "usage": self._usage(0)})]

    def piece(self, piece: str, logprobs: list[dict[str, Any]]) -> list[Event]:
        """The events of a piece."""
        self.answered.add([piece])
        if isinstance(piece, ToolCall):
            used = {"type": "tool_use", "id": piece.id, "name": piece.name, "input": {}}
            written = json.dumps(piece.arguments, ensure_ascii=False)
            return [
                *self._opened("tool_use", used),
                self._delta({"type": "input_json_delta", "partial_json": written}),
                *self._closed(),
            ]
        if isinstance(piece, Thought):
            shown = self._open.push(piece) if self.reasoning else ""
            if not shown:
                return []
            opened = self._opened("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            return [*opened, self._delta({"type": "thinking_delta", "thinking": shown})]
        if not piece:
            return []
        return [*self._opened("text", {"type": "text", "text": ""}), self._delta({"type": "text_delta", "text": piece})]

    def end(self) -> list[Event]:
        """The events after the last piece, once the answer has ended."""
        why = {"stop_reason": self._reason(), "stop_sequence": self.answered.stop_string}
        usage = self._usage(self.answered.new_tokens)
        return [*self._closed(), _event("message_delta", delta=why, usage=usage), _event("message_stop")]

    def whole(self) -> dict[str, Any]:
        """The body of the whole answer."""
        said = self.answered
        content: list[dict[str, Any]] = []
        if self.reasoning and (thoughts := without_tags(said.thoughts)):
            content.append({"type": "thinking", "thinking": thoughts, "signature": ""})
        if said.text:
            content.append({"type": "text", "text": said.text})
        content += [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments} for call in said.calls
        ]
        why = {"stop_reason": self._reason(), "stop_sequence": said.stop_string}
        return {**self._head(), **why, "content": content, "usage": self._usage(said.new_tokens)}

    def failed(self, problem: QcliError) -> Event:
        """The event that ends a stream in its midst."""
        return Event(anthropic_error(problem), "error")

    def _reason(self) -> str:
        if self.answered.stop_string is not None:
            return "stop_sequence"
        most = self.question.options["max_tokens"]
        if self.answered.finish_reason == "length" and most and self.answered.new_tokens < most:
            return "model_context_window_exceeded"
        return {"stop": "end_turn", "tool_calls": "tool_use"}.get(self.answered.finish_reason, "max_tokens")

    def _head(self) -> dict[str, Any]:
        head = {"id": self._id, "type": "message", "role": "assistant", "model": self.answered.model}
        return {**head, "stop_reason": None, "stop_sequence": None}

    def _usage(self, written: int) -> dict[str, Any]:
        said = self.answered
        return {
            "input_tokens": said.prompt_tokens - said.cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": said.cached_tokens,
            "output_tokens": written,
        }

    def _opened(self, kind: str, block: dict[str, Any]) -> list[Event]:
        """The events that open a block of a kind, unless one is open."""
        if kind == self._kind:
            return []
        before = self._closed()
        self._kind = kind
        return [*before, _event("content_block_start", index=self._blocks, content_block=block)]

    def _delta(self, delta: dict[str, Any]) -> Event:
        return _event("content_block_delta", index=self._blocks, delta=delta)

    def _closed(self) -> list[Event]:
        """The events that close the open block."""
        if not self._kind:
            return []
        signed = [self._delta({"type": "signature_delta", "signature": ""})] if self._kind == "thinking" else []
        ended = _event("content_block_stop", index=self._blocks)
        self._kind = ""
        self._blocks += 1
        return [*signed, ended]


def _event(kind: str, **data: Any) -> Event:
    return Event({"type": kind, **data}, kind)


def _question(fields: Fields) -> tuple[Question, bool]:
    """What is asked, and whether thoughts are told."""
    messages, begun = read_conversation(fields)
    most = fields.whole("max_tokens", 1, MOST_TOKENS)
    if most is None:
        raise fields.wrong("max_tokens", "give the most tokens of the answer")
    options = sampling_options(fields, _SAMPLING)
    options["max_tokens"], options["stop_loops"] = most, True
    if stops := stop_strings(fields, "stop_sequences"):
        options["stop"] = stops
    tools, choice = read_tools(fields), fields.table("tool_choice")
    if tools:
        options["tools"] = tools
        options["tool_choice"] = _choice(choice, tools.names) if choice else "auto"
    elif choice and choice.values.get("type") not in ("auto", "none"):
        raise RequestError("tool_choice says how tools are called, and there are none", "give tools as well")
    config = fields.table("output_config")
    form = config.table("format") if config else None
    if form:
        form.word("type", ("json_schema",))
        schema = form.table("schema")
        if schema is None:
            raise form.wrong("schema", "give a JSON Schema")
        options |= held_to(schema.values, form.path("schema"))
    think, told = _thinking(fields, config)
    options["think"] = think
    one = choice.flag("disable_parallel_tool_use") if choice else False
    model = fields.text("model") if fields.has("model") else None
    return Question(messages, options, model, begun, wish=True, one_call=one), told


def _thinking(fields: Fields, config: Fields | None) -> tuple[str | int, bool]:
    """How the model is to think, which it does only when told to; and whether its thoughts are told."""
    thinking, effort = fields.table("thinking"), config.word("effort", [*_EFFORTS]) if config else None
    if thinking is None:
        return "off", False
    told = thinking.word("display", ("summarized", "omitted")) != "omitted"
    match thinking.word("type", ("enabled", "disabled", "adaptive", "between_tools")):
        case "disabled":
            return "off", False
        case "enabled":
            return thinking.whole("budget_tokens", 1, 999_999_999) or "on", told
        case None:
            raise thinking.wrong("type", "give enabled, disabled or adaptive")
    return _EFFORTS[effort] if effort else "on", told


def _choice(choice: Fields, names: list[str]) -> str:
    kind = choice.word("type", (*_CHOICES, "tool"))
    if kind == "tool":
        name = choice.word("name", names)
        if name is None:
            raise choice.wrong("name", f"give {', '.join(names[:8])}")
        return name
    if kind is None:
        raise choice.wrong("type", f"give {', '.join((*_CHOICES, 'tool'))}")
    return _CHOICES[kind]
