"""How evenly threads share the records of a step of several tokens: each share is called by itself, one after the other.

    python benchmarks/shares.py MODEL [--texts 1,8,16] [--drafts 2,4,8] [--size 16] [--depth 128] [--rounds 8]

MODEL: as for benchmarks/sequences.py. Microseconds of all records of a kernel in a part of the model: of all shares together,
of the largest of `size` threads, and of their mean; of each share the least of so many rounds. One thread does it all, so a
machine needs no `size` cores for it; memory is not shared, and what the first share fetches into the cache the others find.
--drafts: also steps of so many tokens of one text.
"""

from __future__ import annotations

import argparse
import ctypes
from collections import defaultdict
from collections.abc import Callable
from time import perf_counter_ns

import numpy as np
from sequences import file_of

from qcli.runtime.engine import Engine
from qcli.runtime.program import Program
from quant.batch import Batch
from quant.jit import kernel
from quant.plan import OPERANDS, aligned

CALL = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * (2 + OPERANDS))


@kernel
def nothing(rank, size, a, b, c, d, e, f, g, h, i, j):
    """What a call from Python costs."""


def took(function: Callable[..., None], *operands: int) -> int:
    """Nanoseconds of a call."""
    began = perf_counter_ns()
    function(*operands)
    return perf_counter_ns() - began


def tell(title: str, program: Program, size: int, rounds: int, prepare: Callable[[], None]) -> None:
    """Tell what each kernel's shares take; prepare: says before each round which tokens the step takes."""
    names = {kernel.address: kernel.name for kernel in program.plan.kernels}
    records = [
        (part, *row.tolist()) for rows, parts, _ in program.stages for part, row in zip(parts, rows, strict=True)
    ]
    empty = CALL(nothing.address)
    call = min(took(empty, *[0] * (2 + OPERANDS)) for _ in range(200))
    least = [np.full(size * shares, np.iinfo(np.int64).max) for _, _, shares, *_ in records]
    for _ in range(rounds):
        prepare()
        for times, (_, address, shares, *operands) in zip(least, records, strict=True):
            function = CALL(address)
            for rank in range(size * shares):
                times[rank] = min(times[rank], took(function, rank, size * shares, *operands))
    sums = defaultdict(lambda: np.zeros(3))
    for times, (part, address, *_) in zip(least, records, strict=True):
        of_threads = np.maximum(times - call, 0).reshape(size, -1).sum(1) / 1e3
        sums[part, names[address].split(".", 2)[2]] += of_threads.sum(), of_threads.max(), of_threads.mean()
    print(f"{title:52}{'all':>12}{'largest':>10}{'mean':>10}")
    for (part, name), row in sorted(sums.items(), key=lambda item: item[1][2] - item[1][1]):
        print(f"{part:18}{name:34}{row[0]:12.1f}{row[1]:10.1f}{row[2]:10.1f}")
    print(f"{'':52}" + "{:12.1f}{:10.1f}{:10.1f}".format(*sum(sums.values())), flush=True)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--texts", default="1,8,16")
    parser.add_argument("--drafts", default="")
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--depth", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=8)
    given = parser.parse_args()
    texts, drafts = ([int(count) for count in counts.split(",") if count] for counts in (given.texts, given.drafts))
    chance = np.random.default_rng(1)
    engine = Engine.load(file_of(given.model), threads=given.size, ctx=given.depth + 16)
    most = max(texts, default=0)
    ids, batch, slots = aligned(most, np.int64), Batch(texts=most), engine.state.slots(most)
    for slot in range(most):
        engine.reset()
        engine.prefill(chance.integers(0, engine.vocab_size, given.depth).tolist())
        engine.state.copy_to(slots, slot, 0)
    step = engine.programs.stepping(ids, most, batch, slots)[0] if texts else None
    for count in texts:

        def prepare_texts(count: int = count) -> None:
            ids[:count] = chance.integers(0, engine.vocab_size, count)
            batch.set_texts(range(count), [given.depth] * count)

        tell(f"{count} texts", step, given.size, given.rounds, prepare_texts)
    for count in drafts:

        def prepare_drafts(count: int = count) -> None:
            engine.programs.ids[:count] = chance.integers(0, engine.vocab_size, count)
            engine.state.batch.set(count, given.depth)

        tell(f"{count} tokens of a text", engine.programs.steps[0], given.size, given.rounds, prepare_drafts)
    engine.close()


if __name__ == "__main__":
    main()
