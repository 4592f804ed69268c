"""What a model has said of an answer so far, and the message that becomes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import time
from typing import Any

from qcli.runtime.sampling import OPTIONS
from qcli.sessions.calls import kept
from qcli.sessions.model import Model
from qcli.sessions.session import COMPLETE, Message
from qcli.text.thoughts import Thought, without_tags
from qcli.tools.call import MalformedCall, ToolCall

_NO_SAMPLING = ("max_tokens", "stop", "stop_loops", "think")


@dataclass
class Said:
    """An answer as it comes, on top of one that was begun."""

    ids: list[int] = field(default_factory=list)
    finish_reason: str = "interrupted"  # until something else ends it
    left_out: int = 0  # messages that its prompt is without
    calls: list[Mapping[str, str]] = field(default_factory=list)  # of tools, as messages keep them
    malformed: list[str] = field(default_factory=list)  # what began as a call and is none
    _text: list[str] = field(default_factory=list)
    _thoughts: list[str] = field(default_factory=list)
    _begun: Message | None = None

    @classmethod
    def after(cls, begun: Message | None) -> Said:
        """What follows an answer that was cut; a character that was cut with it is said again."""
        if begun is None:
            return cls()
        text = begun.text.rstrip("\ufffd") if begun.finish_reason in ("length", "loop") else begun.text
        calls = [*begun.calls]
        return cls(list(begun.ids), calls=calls, _text=[text], _thoughts=[begun.thoughts], _begun=begun)

    def add(self, piece: str) -> None:
        """Add a piece of the answer."""
        if isinstance(piece, ToolCall):
            self.calls.append(kept(piece))
        elif isinstance(piece, MalformedCall):
            self.malformed.append(piece)
        else:
            (self._thoughts if isinstance(piece, Thought) else self._text).append(piece)

    @property
    def new(self) -> int:
        """How many ids have come."""
        return len(self.ids) - (len(self._begun.ids) if self._begun else 0)

    @property
    def text(self) -> str:
        """The answer, without thoughts."""
        return "".join(self._text)

    def counts(self) -> bool:
        """Whether there is anything to keep: something was said, or what was begun has turned out to be complete."""
        if self._begun:
            return self.new > 0 or self.finish_reason in COMPLETE
        return bool(self.text or "".join(self._thoughts) or self.calls or self.malformed)

    def message(self, options: Mapping[str, Any], llm: Model) -> Message:
        """The message, without a place in a conversation yet; options: of the answer; llm: the model that has just said it."""
        stats = llm.stats
        speeds = ("ttft_s", "prefill_tok_per_s", "decode_tok_per_s")
        figures = {
            "prompt_tokens": stats.prompt_tokens,
            "cached_tokens": stats.cached_tokens,
            "new_tokens": self.new,
            "model": llm.name,
            "ctx": llm.engine.ctx,
            "left_out": self.left_out,
            **{name: round(getattr(stats, name), 4) for name in speeds},
        }
        return Message(
            0,
            None,
            "assistant",
            self.text,
            without_tags("".join(self._thoughts)),
            tuple(self.ids),
            self.finish_reason,
            _recorded(options, llm),
            figures,
            time(),
            tuple(self.calls),
        )


def _recorded(options: Mapping[str, Any], llm: Model) -> dict[str, Any]:
    """The options of an answer, those that were not given too."""
    others = {name: options[name] for name in _NO_SAMPLING if options.get(name)}
    sampling = {name: value for name, value in options.items() if name in OPTIONS}
    return {**vars(llm.sampling(**sampling)), **others}
