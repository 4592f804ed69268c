"""What a request asks, whichever protocol it came by; and the answer, put together from its pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from qcli.text.thoughts import Thought
from qcli.tools.call import MalformedCall, ToolCall

if TYPE_CHECKING:
    from qcli.runtime.answer_options import Options
    from qcli.runtime.stats import Stats


@dataclass(frozen=True)
class Question:
    """A text to continue, or messages to answer, and how."""

    prompt: str | list[dict[str, Any]]
    options: Options
    model: str | None = None  # by its name; None: whichever is there
    begun: str = ""  # what the answer begins with; it goes on from there
    wish: bool = False  # whether `think` is a wish, which a model that does not think may leave unheard
    one_call: bool = False  # whether the answer ends with its first tool call

    def again(self, count: int) -> list[Question]:
        """This question and the same again, so many in all, each with the next seed, where there is one."""
        if count == 1:
            return [self]
        seed, each = self.options.get("seed"), []
        for i in range(count):
            options: Options = {**self.options, "again": True}
            if seed is not None:
                options["seed"] = (seed + i) % 2**64
            each.append(replace(self, options=options))
        return each


@dataclass
class Answered:
    """An answer as far as it has come."""

    model: str = ""
    text: str = ""
    thoughts: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str = ""
    stop_string: str | None = None  # the one that ended it
    fits: bool | None = None  # whether it has the form that it should have
    prompt_tokens: int = 0
    cached_tokens: int = 0
    new_tokens: int = 0
    thought_tokens: int = 0

    def add(self, pieces: Sequence[str], logprobs: Sequence[dict[str, Any]] = ()) -> None:
        """Add pieces, and what came of log-probabilities with them."""
        self.logprobs += logprobs
        for piece in pieces:
            if isinstance(piece, ToolCall):
                self.calls.append(piece)
            elif isinstance(piece, Thought):
                self.thoughts += piece
            else:  # of what began as a call and is none, what the model wrote
                self.text += piece

    def end(self, stats: Stats) -> None:
        """Add what the whole answer took."""
        self.finish_reason, self.stop_string, self.fits = stats.finish_reason, stats.stop_string, stats.fits
        self.prompt_tokens, self.cached_tokens = stats.prompt_tokens, stats.cached_tokens
        self.new_tokens, self.thought_tokens = stats.new_tokens, stats.thought_tokens


class OpenThoughts:
    """Thoughts as they stream, without the tags around them and the white space beside these."""

    def __init__(self) -> None:
        self._begun, self._kept = False, ""

    def push(self, thought: str) -> str:
        """What of a piece can be shown now."""
        text = self._kept + thought.removeprefix("<think>").removesuffix("</think>")
        text = text if self._begun else text.lstrip()
        shown = text.rstrip()
        self._kept = text[len(shown) :]
        self._begun = self._begun or bool(shown)
        return shown


def is_text(piece: str) -> bool:
    """Whether a piece is text of the answer: no thought, no call."""
    return not isinstance(piece, Thought | ToolCall) and (bool(piece) or isinstance(piece, MalformedCall))
