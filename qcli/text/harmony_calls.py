"""Tool calls of gpt-oss: messages to a function, in OpenAI's harmony format (see qcli.text.thoughts)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from qcli.text.thoughts import HarmonyParser
from qcli.text.tokenizer import Tokenizer
from qcli.tools.arguments import parsed_json, settled
from qcli.tools.call import MalformedCall, ToolCall
from qcli.tools.notation import HARMONY_CALL
from qcli.tools.tool import Tools

_RECIPIENT = re.compile(r"to=functions\.([\w.-]*)")


class HarmonyCallParser(HarmonyParser):
    """Calls are messages to functions.NAME, whatever their channel; <|call|>, which ends the answer, ends them."""

    def __init__(self, tokenizer: Tokenizer, prompt: str, tools: Tools) -> None:
        self._tools = tools
        self._to = ""  # the tool that the message is for, as its header says
        self._arguments: str | None = None  # of the call as far as they have come; None outside of calls
        self._last = ""  # control token
        self.calls = 0
        super().__init__(tokenizer, prompt)  # reads the prompt as if the model had written it

    @property
    def call_begun(self) -> str | None:
        """What has come of a call behind "to=functions." in its header; None outside of calls."""
        if self._arguments is not None:
            return self._arguments
        begun = _RECIPIENT.search(self._header or "")
        return self._to or (begun[1] if begun else None)

    @property
    def before_channel(self) -> bool:
        """Whether the header names the recipient before its channel."""
        return self._last != "<|channel|>"

    @property
    def opening(self) -> str:
        """The text that begins a call here: within a header, or after a message that has ended."""
        within = self._header is not None and self._last != "<|end|>"
        return HARMONY_CALL if within else f"<|start|>assistant{HARMONY_CALL}"

    @property
    def is_whole(self) -> bool:
        """Whether no character and no call is half-written."""
        return self._arguments is None and super().is_whole

    def push(self, id: int) -> Iterator[str]:
        """The pieces that this id completes."""
        if self._arguments is None or id in self._controls:
            yield from super().push(id)
        else:
            self._arguments += self._text.push(id)

    def flush(self) -> Iterator[str]:
        """The rest, after the last id: a call that is cut comes as MalformedCall."""
        if self._arguments is not None:
            self._arguments += self._text.flush()
            yield from self._whole_call()
        yield from super().flush()

    def _obey(self, control: str) -> Iterator[str]:
        if self._arguments is not None:
            self._arguments += self._text.flush()
            yield from self._whole_call()
        self._last = control
        if self._header is not None and (found := _RECIPIENT.search(self._header)):
            self._to = found[1]
        if control == "<|message|>" and self._to and self._header is not None:
            self._has_controls, self._header, self._arguments = True, None, ""
            yield from self._switch(thinking=False)
        else:
            self._to = "" if control in ("<|message|>", "<|start|>", "<|end|>") else self._to
            yield from super()._obey(control)

    def _whole_call(self) -> Iterator[str]:
        text, name = self._arguments or "", self._to
        self._arguments, self._to, self._header = None, "", ""
        try:
            arguments = parsed_json(text)
        except ValueError:
            arguments = None
        if not isinstance(arguments, dict):
            yield MalformedCall(f"to={name} {text}")
            return
        tool = self._tools.get(name)
        self.calls += 1
        yield ToolCall(name, settled(tool, arguments) if tool else arguments)
