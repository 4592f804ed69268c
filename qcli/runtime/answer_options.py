"""What can be said of an answer: how it is drawn, where it ends, and how the model thinks before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from qcli.errors import UsageError
from qcli.runtime.sampling import SamplingOptions
from qcli.text.stop_strings import StopStrings
from qcli.text.think_setting import WITH_TEMPLATE, Think, think_setting
from qcli.tools.choice import checked_choice
from qcli.tools.tool import Tools, checked_tools


class Options(SamplingOptions, total=False):
    """How to answer; what is left out, or None, is the model's own default."""

    max_tokens: int | None  # None: until the model ends or the context is full
    stop: str | Sequence[str] | None  # the text ends before the first of these
    think: (
        Think  # "on", "off", "low", "medium", "high", or most tokens of a thought; "hide" is "on" to whoever shows it
    )

    tools: Tools | Sequence[Any] | None  # that the model may call: OpenAI's list; calls come as ToolCall
    tool_choice: str | Mapping[str, Any] | None  # "auto", "none", "required", or the name of one: see qcli.tools.choice


class Checked(NamedTuple):
    """The same, each checked but for the sampling options."""

    sampling: dict[str, Any]
    max_tokens: int | None
    stop: StopStrings
    think: str | int  # as think_setting has it
    tools: Tools | None = None  # none either where none may be called
    tool_choice: str = "auto"

    @property
    def budget(self) -> int | None:
        """Tokens after which a thought is closed."""
        return self.think if isinstance(self.think, int) else None

    def without_template(self) -> Checked:
        """These, for a text that no template writes. Raises UsageError for what a template alone can tell a model."""
        if self.tools:
            raise UsageError("tools need a chat template to tell of them", "have the model answer a conversation")
        if self.think in WITH_TEMPLATE:
            hint = "write it into the prompt as the model wants it, or have it answer a conversation"
            raise UsageError(f"think cannot be {self.think} for a text that is continued as it stands", hint)
        return self


def checked(options: Options) -> Checked:
    """Options of an answer. Raises UsageError."""
    sampling: dict[str, Any] = {**options}
    max_tokens, stop, think = (sampling.pop(name, None) for name in ("max_tokens", "stop", "think"))
    listed, choice = sampling.pop("tools", None), sampling.pop("tool_choice", None)
    tools = None if listed is None else checked_tools(listed)
    choice = checked_choice(choice, tools)
    check_positive("max_tokens", max_tokens)
    stop_strings = StopStrings((stop,) if isinstance(stop, str) else stop or ())
    setting = "default" if think is None else think_setting("think", think)
    return Checked(sampling, max_tokens, stop_strings, setting, None if choice == "none" else tools, choice)


def check_positive(name: str, value: int | None) -> None:
    """Raise UsageError for a number below 1."""
    if value is not None and value < 1:
        raise UsageError(f"{name} cannot be {value}", "give 1 or more, or leave it out")
