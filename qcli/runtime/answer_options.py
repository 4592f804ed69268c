"""What can be said of an answer: how it is drawn, where it ends, and how the model thinks before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from qcli.errors import UsageError
from qcli.runtime.sampling import SamplingOptions
from qcli.text.loops import LoopDetector
from qcli.text.stop_strings import StopStrings
from qcli.text.think_setting import WITH_TEMPLATE, Think, think_setting
from qcli.tools.choice import checked_choice
from qcli.tools.tool import Tools, checked_tools
from qcli.wording import shortened

if TYPE_CHECKING:
    from qcli.constraints.constraint import Constraint

_FORMS: Final = ("schema", "regex", "choices", "grammar")
_MOST_LIKELY: Final = 20  # tokens a place


class Options(SamplingOptions, total=False):
    """How to answer; what is left out, or None, is the model's own default."""

    max_tokens: int | None  # None: until the model ends or the context is full
    stop: str | Sequence[str] | None  # the text ends before the first of these
    stop_loops: bool | None  # True: an answer that goes round in circles ends, with finish_reason "loop"
    think: Think  # "on", "off", "low", "medium", "high", or most tokens of a thought; "hide" is "on" to who shows it
    schema: Any  # of JSON: see qcli.constraints.constraint for it and the three that follow, of which one may be given
    regex: str | None
    choices: Sequence[str] | None
    grammar: str | Path | None
    constraint: Constraint | None  # in place of these four: what was made of one of them
    again: bool | None  # True: the same is about to be asked once more, so the prompt is kept as it was read
    logprobs: int | None  # of each token of the answer, and of so many of the likeliest in its place

    tools: Tools | Sequence[Any] | None  # that the model may call: OpenAI's list; calls come as ToolCall
    tool_choice: str | Mapping[str, Any] | None  # "auto", "none", "required", or the name of one: see qcli.tools.choice


class Checked(NamedTuple):
    """The same, each checked but for the sampling options."""

    sampling: dict[str, Any]
    max_tokens: int | None
    stop: StopStrings
    think: str | int  # as think_setting has it
    loops: LoopDetector | None  # ends an answer that has become one
    constraint: Constraint | None = None
    logprobs: int | None = None
    tools: Tools | None = None  # none either where none may be called
    tool_choice: str = "auto"
    again: bool = False

    @property
    def is_held(self) -> bool:
        """Whether anything has a form to keep to: the answer, or the calls in it."""
        return self.constraint is not None or self.tools is not None

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
    others = "max_tokens", "stop", "think", "stop_loops", "logprobs", "tools", "tool_choice", "again"
    max_tokens, stop, think, stop_loops, logprobs, listed, choice, again = (sampling.pop(name, None) for name in others)
    held = _held_to(sampling.pop("constraint", None), {name: sampling.pop(name, None) for name in _FORMS})
    tools = None if listed is None else checked_tools(listed)
    choice = checked_choice(choice, tools)
    if held and tools and choice != "none":
        raise UsageError("tools and a form of the answer cannot be used together", "give one of them")
    check_positive("max_tokens", max_tokens)
    if logprobs is not None and not (type(logprobs) is int and 0 <= logprobs <= _MOST_LIKELY):
        raise UsageError(f"logprobs cannot be {shortened(str(logprobs))}", f"give a number from 0 to {_MOST_LIKELY}")
    stop_strings = StopStrings((stop,) if isinstance(stop, str) else stop or ())
    setting = "default" if think is None else think_setting("think", think)
    loops, may_call = LoopDetector() if stop_loops else None, None if choice == "none" else tools
    return Checked(
        sampling, max_tokens, stop_strings, setting, loops, held, logprobs, may_call, choice, bool(again)
    )  # fmt: skip


def _held_to(constraint: Constraint | None, forms: dict[str, Any]) -> Constraint | None:
    if all(value is None for value in forms.values()):
        return constraint
    if constraint is not None:
        raise UsageError("constraint and another form cannot be used together", "give one of them")
    from qcli.constraints import constraint as given

    return given.constraint(**forms)


def check_positive(name: str, value: int | None) -> None:
    """Raise UsageError for a number below 1."""
    if value is not None and value < 1:
        raise UsageError(f"{name} cannot be {value}", "give 1 or more, or leave it out")
