"""An answer, token by token: one generator yields ids, the other, around it, their text."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from time import perf_counter
from typing import TYPE_CHECKING, Final

from qcli.progress import Progress
from qcli.runtime.checkpoint import NO_MARKS, Marks
from qcli.runtime.prompt_size import check_tokens
from qcli.runtime.stats import DiskReads, Stats
from qcli.text.answer_start import AnswerStart
from qcli.text.loops import LoopDetector
from qcli.text.stop_strings import StopStrings
from qcli.text.thoughts import Thought
from qcli.tools.call import MalformedCall, ToolCall

if TYPE_CHECKING:
    from qcli.runtime.chooser import Chooser
    from qcli.runtime.prefix_cache import PrefixCache
    from qcli.runtime.reader import Reader
    from qcli.runtime.sampler import Sampler
    from qcli.runtime.together import TextInSlot

WAIT: Final = -1  # in place of an id: the next one is not known before others have come as far


def generate_ids(
    cache: PrefixCache | TextInSlot,
    ids: Sequence[int],
    sampler: Sampler | Chooser,
    max_tokens: int | None = None,
    end_ids: frozenset[int] = frozenset(),
    stats: Stats | None = None,
    progress: Progress | None = None,
    marks: Marks = NO_MARKS,
    is_over: Callable[[], bool] = lambda: False,
) -> Generator[int, None, None]:
    """Prefill the ids of a prompt, then yield those of its answer until an end id, max_tokens or a full context.

    In a slot, WAIT is yielded until all others have come as far (see `qcli.runtime.together`).
    The end id is not yielded; the last token yielded may not be in the state yet.
    is_over: whether nothing can follow; asked once the id before has been read.
    Raises ContextOverflowError when the prompt does not fit.
    """
    engine, stats, drafted = cache.engine, stats or Stats(), cache.drafted(ids)
    check_tokens(len(ids), engine.ctx, engine.longest)
    stats.prompt_tokens = len(ids)
    stats.experts_total = engine.experts_total
    engine.state.clear_touched()
    for id in ids:
        sampler.accept(id)
    try:
        began = perf_counter()
        logits = cache.prefill(ids, progress, marks)
        stats.prefilled_tokens, stats.prefill_s = cache.prefilled, perf_counter() - began
        token = sampler.sample(logits)
        stats.ttft_s = perf_counter() - began
        if cache.alone:
            engine.reset_traffic()
        while token not in end_ids:
            sampler.accept(token)
            stats.new_tokens += 1
            yield token
            if is_over():
                break
            if stats.new_tokens == max_tokens or cache.position == engine.ctx:
                stats.finish_reason = "length"
                return
            if stats.new_tokens == 1:
                engine.ready_to_step(progress)  # where kernels are compiled for the first time
            began = perf_counter()
            after = drafted.step(token)
            while after is None:
                yield WAIT
                after = cache.logits_of_step()
            token = sampler.sample(after)
            stats.decode_s += perf_counter() - began
            stats.decode_steps += 1
        stats.finish_reason = "stop"
    finally:
        if marks.after_answer and stats.new_tokens:
            cache.keep_answer(marks.answer_on_disk)
        stats.guessed, stats.guessed_right = drafted.guessed, drafted.right
        stats.experts_touched = engine.state.experts_touched()
        stats.weight_bytes_per_step = engine.weight_bytes_per_step()
        stats.disk_reads = DiskReads.of(engine.traffic, stats.decode_steps) if cache.alone else None


def generate_text(
    tokens: Generator[int, None, None],
    parser: Reader,
    stop_strings: StopStrings,
    stats: Stats,
    ids: list[int],
    loops: LoopDetector | None = None,
) -> Generator[str, None, None]:
    """The text of what generate_ids yields, in pieces, whole characters only, up to the first stop string of the answer.

    A piece without text stands for WAIT.

    parser: makes text of ids; stats: those of generate_ids;
    ids: of the answer so far, whose text has been there before; those that come are appended;
    loops: what tells that the answer has become a loop, and ends it.
    """
    answer, calls = AnswerStart(), 0
    for token in ids:
        before = [*answer.push(parser.push(token))]
        for _ in _shown(stop_strings, before):
            pass
        if loops:
            loops.skip("".join(before))
    with closing(tokens):
        for token in tokens:
            if token == WAIT:
                yield ""
                continue
            ids.append(token)
            stats.thought_tokens += parser.thinking
            pieces = [*answer.push(parser.push(token))]
            for piece in _shown(stop_strings, pieces):
                calls += isinstance(piece, ToolCall)
                yield piece
            if stop_strings.found or (loops and loops.push(token, "".join(pieces))):
                break
    for piece in _shown(stop_strings, answer.push(parser.flush())):
        calls += isinstance(piece, ToolCall)
        yield piece
    yield from _shown(stop_strings, answer.flush())
    if text := stop_strings.flush():
        yield text
    if stop_strings.found:
        stats.finish_reason, stats.stop_string = "stop", stop_strings.which
        stats.fits = None if stats.fits is None else False  # its end was cut off
    elif loops and loops.found:
        stats.finish_reason = "loop"
    if calls and stats.finish_reason == "stop":
        stats.finish_reason = "tool_calls"


def _shown(stop_strings: StopStrings, pieces: Iterable[str]) -> Iterator[str]:
    """The pieces without what stop strings keep back; in thoughts and calls none are looked for."""
    for piece in pieces:
        if isinstance(piece, ToolCall | MalformedCall):
            yield from () if stop_strings.found else filter(None, (stop_strings.flush(), piece))
        elif text := piece if isinstance(piece, Thought) else stop_strings.push(piece):
            yield text
