"""OpenAI's responses, as far as a server can answer them that keeps none: POST /v1/responses."""

from __future__ import annotations

import json
from typing import Any

from qcli.errors import QcliError
from qcli.protocol.errors import openai_error
from qcli.protocol.events import Event
from qcli.protocol.fields import Fields
from qcli.protocol.one_answer import OneAnswer
from qcli.protocol.question import Answered, OpenThoughts
from qcli.protocol.responses_input import read_question
from qcli.text.thoughts import Thought
from qcli.tools.call import ToolCall


class Response(OneAnswer):
    """A request, and its answer as it comes."""

    ends_with_done = False

    def __init__(self, body: dict[str, Any], id: str, created: int, reasoning: bool = True) -> None:
        """id, created (seconds since 1970): of the answer; reasoning: whether it tells thoughts. Raises RequestError."""
        fields = Fields(body)
        self.stream, self.reasoning = fields.flag("stream"), reasoning
        self.question = read_question(fields)
        self.answered = Answered()
        self._id, self._created = id, created
        self._told = {name: body.get(name) for name in ("instructions", "max_output_tokens", "temperature", "top_p")}
        self._tools = {"tools": body.get("tools") or [], "tool_choice": body.get("tool_choice") or "auto"}
        self._tools["parallel_tool_calls"] = fields.flag("parallel_tool_calls", True)
        self._text = body.get("text") or {"format": {"type": "text"}}
        self._open = OpenThoughts()
        self._items: list[dict[str, Any]] = []  # all of them; the last one may be open
        self._is_open = False
        self._number = -1  # of the last event

    def begin(self) -> list[Event]:
        """The events before the first piece."""
        started = self._body("in_progress")
        return [self._event(f"response.{what}", response=started) for what in ("created", "in_progress")]

    def piece(self, piece: str, logprobs: list[dict[str, Any]]) -> list[Event]:
        """The events of a piece."""
        self.answered.add([piece])
        if isinstance(piece, ToolCall):
            return self._call(piece)
        if isinstance(piece, Thought):
            shown = self._open.push(piece) if self.reasoning else ""
            return self._delta("reasoning", shown) if shown else []
        return self._delta("message", piece) if piece else []

    def end(self) -> list[Event]:
        """The events after the last piece, once the answer has ended."""
        closed = self._closed(self._status())
        whole = self._body(self._status())
        return [*closed, self._event(f"response.{whole['status']}", response=whole)]

    def whole(self) -> dict[str, Any]:
        """The body of the whole answer."""
        self._closed(self._status())
        return self._body(self._status())

    def failed(self, problem: QcliError) -> Event:
        """The event that ends a stream in its midst."""
        told = openai_error(problem)["error"]
        error = {"code": told["code"] or told["type"], "message": told["message"]}
        return self._event("response.failed", response={**self._body("failed"), "error": error})

    def _status(self) -> str:
        return "completed" if self.answered.finish_reason in ("stop", "tool_calls") else "incomplete"

    def _body(self, status: str) -> dict[str, Any]:
        said = self.answered
        why = {"reason": "max_output_tokens"} if status == "incomplete" else None
        usage = {
            "input_tokens": said.prompt_tokens,
            "input_tokens_details": {"cached_tokens": said.cached_tokens},
            "output_tokens": said.new_tokens,
            "output_tokens_details": {"reasoning_tokens": said.thought_tokens},
            "total_tokens": said.prompt_tokens + said.new_tokens,
        }
        return {
            "id": f"resp_{self._id}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": why,
            "model": said.model,
            "output": [] if status == "in_progress" else [*self._items],
            **self._told,
            **self._tools,
            "text": self._text,
            "previous_response_id": None,
            "store": False,
            "truncation": "disabled",
            "metadata": {},
            "usage": None if status == "in_progress" else usage,
        }

    def _event(self, kind: str, **data: Any) -> Event:
        self._number += 1
        return Event({"type": kind, "sequence_number": self._number, **data}, kind)

    def _place(self) -> dict[str, Any]:
        """Which item an event is about."""
        return {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1}

    def _begun(self, item: dict[str, Any]) -> list[Event]:
        before = self._closed()
        self._items.append(item)
        self._is_open = True
        return [*before, self._event("response.output_item.added", output_index=len(self._items) - 1, item={**item})]

    def _delta(self, kind: str, text: str) -> list[Event]:
        """The events of a piece of text, or of a thought; the item that it belongs to is begun if it has to be."""
        events: list[Event] = []
        reasoning = kind == "reasoning"
        if not self._is_open or self._items[-1]["type"] != kind:
            id = f"{'rs' if reasoning else 'msg'}_{self._id}_{len(self._items)}"
            more: dict[str, Any] = {"summary": []} if reasoning else {"role": "assistant"}
            events = self._begun({"id": id, "type": kind, "status": "in_progress", "content": [], **more})
            part: dict[str, Any] = (
                {"type": "reasoning_text"} if reasoning else {"type": "output_text", "annotations": []}
            )
            empty = {**part, "text": ""}
            events.append(self._event("response.content_part.added", **self._place(), content_index=0, part=empty))
            self._items[-1]["content"] = [empty]
        content = self._items[-1]["content"][0]
        self._items[-1]["content"] = [{**content, "text": content["text"] + text}]
        name = f"response.{content['type']}.delta"
        listed: dict[str, Any] = {} if reasoning else {"logprobs": []}
        return [*events, self._event(name, **self._place(), content_index=0, delta=text, **listed)]

    def _call(self, call: ToolCall) -> list[Event]:
        written = json.dumps(call.arguments, ensure_ascii=False)
        item = {"id": f"fc_{self._id}_{len(self._items)}", "type": "function_call", "status": "in_progress"}
        begun = self._begun({**item, "call_id": call.id, "name": call.name, "arguments": ""})
        kind = "response.function_call_arguments"
        self._items[-1]["arguments"] = written
        return [
            *begun,
            self._event(f"{kind}.delta", **self._place(), delta=written),
            self._event(f"{kind}.done", **self._place(), name=call.name, arguments=written),
            *self._closed(),
        ]

    def _closed(self, status: str = "completed") -> list[Event]:
        """The events that end the open item; of an answer that was cut, the last one is incomplete, too."""
        if not self._is_open:
            return []
        self._is_open = False
        item = self._items[-1] = {**self._items[-1], "status": status}
        events = []
        if item["type"] != "function_call":
            part, place = item["content"][0], {**self._place(), "content_index": 0}
            more: dict[str, Any] = {} if item["type"] == "reasoning" else {"logprobs": []}
            events = [
                self._event(f"response.{part['type']}.done", **place, text=part["text"], **more),
                self._event("response.content_part.done", **place, part=part),
            ]
        return [*events, self._event("response.output_item.done", output_index=len(self._items) - 1, item=item)]
