"""What one answer took."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from qcli.streaming.cache import Traffic


@dataclass(frozen=True)
class DiskReads:
    """What decode steps read from the file of a streamed model, each on average."""

    hit_rate: float  # of the experts that the steps were routed to, the share that was in memory
    bytes_per_step: float
    wait_s_per_step: float

    @classmethod
    def of(cls, traffic: Traffic | None, steps: int) -> DiskReads | None:
        """None if the model is not streamed, or nothing was decoded."""
        if traffic is None or not steps:
            return None
        return cls(traffic.hit_rate, traffic.bytes_read / steps, traffic.wait_s / steps)


@dataclass(repr=False)
class Stats:
    """Counts and times of one answer; speeds count the engine's time alone, not that of whoever takes the text."""

    prompt_tokens: int = 0
    new_tokens: int = 0
    thought_tokens: int = 0  # of the new ones
    finish_reason: Literal["stop", "tool_calls", "length", "loop", "cancelled"] = "cancelled"  # until something ends it
    stop_string: str | None = None  # the one that ended it
    fits: bool | None = None  # whether the answer is whole and what its constraint asks for; None without one
    logprobs: list[dict[str, Any]] = field(default_factory=list)  # of its tokens, if they were wanted
    load_s: float = 0.0
    ttft_s: float = 0.0  # time to first token, from the request on
    prefilled_tokens: int = 0  # of the prompt's; the others were in the prefix cache
    prefill_s: float = 0.0
    decode_steps: int = 0  # tokens that were decoded; of those that were guessed right several took one step
    decode_s: float = 0.0
    guessed: int = 0  # tokens that were computed before it was known that they come
    guessed_right: int = 0  # of these, those that came
    weight_bytes_per_step: float = 0.0
    experts_touched: int = 0  # that prompt and answer were routed to, of all layers
    experts_total: int = 0
    disk_reads: DiskReads | None = None

    def __repr__(self) -> str:
        if not self.prompt_tokens:
            return "<Stats: no answer yet>"
        prompt = f"{self.prompt_tokens} prompt tokens, {self.cached_tokens} of them cached"
        speeds = f"{self.prefill_tok_per_s:.1f} and {self.decode_tok_per_s:.1f} tok/s"
        return f"<Stats: {prompt}; {self.new_tokens} new; {speeds}; TTFT {self.ttft_s:.3f} s; {self.finish_reason}>"

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that were in the prefix cache."""
        return self.prompt_tokens - self.prefilled_tokens

    @property
    def prefill_tok_per_s(self) -> float:
        """Tokens a second."""
        return self.prefilled_tokens / self.prefill_s if self.prefill_s else 0.0

    @property
    def decode_tok_per_s(self) -> float:
        """Tokens a second."""
        return self.decode_steps / self.decode_s if self.decode_s else 0.0

    @property
    def gb_per_s(self) -> float:
        """Weights read while decoding, in 10^9 bytes a second."""
        steps = self.decode_steps - self.guessed_right
        return steps * self.weight_bytes_per_step / self.decode_s / 1e9 if self.decode_s else 0.0

    @property
    def tokens_per_step(self) -> float:
        """Decoded tokens a step of the model."""
        return self.decode_steps / (self.decode_steps - self.guessed_right) if self.decode_steps else 0.0
