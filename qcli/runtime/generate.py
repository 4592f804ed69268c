"""The two nested generators of an answer: ids inside, text outside."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Literal

from qcli.errors import ContextOverflowError, UsageError
from qcli.progress import Progress
from qcli.text.thoughts import Plain, Thought

if TYPE_CHECKING:
    from qcli.runtime.prefix_cache import Held
    from qcli.runtime.sampler import Sampler
    from qcli.streaming.cache import Traffic
    from qcli.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Streamed:
    """What a decode step took from the disk, on average."""

    hit_rate: float  # of the experts that were asked for, those in memory
    bytes_per_step: float
    wait_s_per_step: float


@dataclass
class Stats:
    """What one answer took; speeds count the engine's time, not the reader's."""

    prompt_tokens: int = 0
    new_tokens: int = 0
    finish_reason: Literal["stop", "length", "cancelled"] = "cancelled"  # until something else ends it
    load_s: float = 0.0
    ttft_s: float = 0.0  # from the request on
    prefilled_tokens: int = 0  # of the prompt's; the state held the others
    prefill_s: float = 0.0
    decode_steps: int = 0
    decode_s: float = 0.0
    weight_bytes_per_step: float = 0.0
    experts_touched: int = 0
    experts_held: int = 0
    streamed: Streamed | None = None  # of the decode steps, where experts are read from the file

    @property
    def prefill_tok_per_s(self) -> float:
        return self.prefilled_tokens / self.prefill_s if self.prefill_s else 0.0

    @property
    def decode_tok_per_s(self) -> float:
        return self.decode_steps / self.decode_s if self.decode_s else 0.0

    @property
    def gb_per_s(self) -> float:
        """Weights read while decoding, in 10^9 bytes a second."""
        return self.decode_tok_per_s * self.weight_bytes_per_step / 1e9


def generate_ids(
    held: Held,
    ids: Sequence[int],
    sampler: Sampler,
    max_tokens: int | None = None,
    end_ids: frozenset[int] = frozenset(),
    stats: Stats | None = None,
    progress: Progress | None = None,
) -> Generator[int, None, None]:
    """Bring the state to hold ids; then yield tokens until an end id, max_tokens or a full context.

    The end id is not yielded; the last token yielded may not be in the state yet.
    Raises ContextOverflowError when the prompt does not fit.
    """
    engine, stats = held.engine, stats or Stats()
    _check_room(len(ids), engine.ctx, engine.longest)
    stats.prompt_tokens, stats.experts_held = len(ids), engine.experts_held
    engine.reset_counters()
    for id in ids:
        sampler.accept(id)
    try:
        began = perf_counter()
        logits = held.prefill(ids, progress)
        stats.prefilled_tokens, stats.prefill_s = held.prefilled, perf_counter() - began
        token = sampler.sample(logits)
        stats.ttft_s = perf_counter() - began
        engine.reset_traffic()
        while token not in end_ids:
            sampler.accept(token)
            stats.new_tokens += 1
            yield token
            if stats.new_tokens == max_tokens or engine.position == engine.ctx:
                stats.finish_reason = "length"
                return
            began = perf_counter()
            token = sampler.sample(held.step(token))
            stats.decode_s += perf_counter() - began
            stats.decode_steps += 1
        stats.finish_reason = "stop"
    finally:
        stats.experts_touched = engine.experts_touched()
        stats.weight_bytes_per_step = engine.weight_bytes_per_step()
        stats.streamed = _streamed(engine.traffic, stats.decode_steps)


def _streamed(traffic: Traffic | None, steps: int) -> Streamed | None:
    if traffic is None or not steps:
        return None
    return Streamed(traffic.hit_rate, traffic.bytes_read / steps, traffic.wait_s / steps)


def _check_room(tokens: int, ctx: int, longest: int) -> None:
    if tokens <= ctx:
        return
    message = f"the prompt has {tokens} tokens, and the context holds {ctx}"
    if tokens > longest:
        raise ContextOverflowError(message, f"give a shorter prompt: the model was made for {longest} tokens")
    wanted = min(tokens + 512, longest)
    hint = f"give --ctx {wanted} or more (ctx= in Python) if memory allows, or a shorter prompt"
    raise ContextOverflowError(message, hint)


def generate_text(
    held: Held,
    tokenizer: Tokenizer,
    ids: Sequence[int],
    sampler: Sampler,
    max_tokens: int | None = None,
    stop: Sequence[str] = (),
    stats: Stats | None = None,
    progress: Progress | None = None,
    reader: Plain | None = None,
) -> Generator[str, None, None]:
    """The text of generate_ids in pieces, whole characters only, up to the first stop string of the answer.

    reader: what tells thoughts from the answer, if anything does.
    """
    stats = stats or Stats()
    reader, gate = reader or Plain(tokenizer), StopGate(stop)
    with closing(generate_ids(held, ids, sampler, max_tokens, tokenizer.end_ids, stats, progress)) as tokens:
        for token in tokens:
            yield from _let_through(gate, reader.push(token))
            if gate.closed:
                break
    yield from _let_through(gate, reader.flush())
    if text := gate.flush():
        yield text
    if gate.closed:
        stats.finish_reason = "stop"


def _let_through(gate: StopGate, pieces: Iterable[str]) -> Iterator[str]:
    for piece in pieces:
        if text := piece if isinstance(piece, Thought) else gate.push(piece):
            yield text


class StopGate:
    """Lets text pass up to the first stop string; holds back an end that may be the start of one."""

    def __init__(self, stop: Sequence[str]) -> None:
        if not all(stop):
            raise UsageError("a stop string cannot be empty", "leave out --stop, or give it a text")
        self._stop = tuple(stop)
        self._held = ""
        self.closed = False

    def push(self, text: str) -> str:
        """The text that may be shown now."""
        if self.closed:
            return ""
        self._held += text
        # the string complete first, of several the longest: so it does not matter how the text is cut
        found = [(at + len(stop), at) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        self.closed = bool(found)
        show = min(found)[1] if found else len(self._held) - self._undecided()
        shown, self._held = self._held[:show], "" if found else self._held[show:]
        return shown

    def flush(self) -> str:
        """What was held back, now that no more text comes."""
        shown, self._held = self._held, ""
        return shown

    def _undecided(self) -> int:
        longest = max(map(len, self._stop), default=1) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-size:]) for stop in self._stop):
                return size
        return 0
