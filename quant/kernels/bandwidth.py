"""Reading memory and nothing else: the bound for how fast the weights of a token can be read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant.jit import kernel
from quant.kernels.partition import start_of
from quant.plan import Plan
from quant.simd import add, load_f32x16, store_f32, sum_lanes, zero_f32x16

STEP = 512  # bytes: eight sums run beside each other, so that no addition waits for the one before


@kernel
def sum_lines(rank, size, source, steps, sums):
    """The sum of float32 [steps, 128]; threads share the steps, and leave their sums 64 bytes apart."""
    first, last = start_of(rank, size, steps), start_of(rank + 1, size, steps)
    a, b, c, d = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
    e, f, g, h = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
    for p in range(source + STEP * first, source + STEP * last, STEP):
        a, b = add(a, load_f32x16(p)), add(b, load_f32x16(p + 64))
        c, d = add(c, load_f32x16(p + 128)), add(d, load_f32x16(p + 192))
        e, f = add(e, load_f32x16(p + 256)), add(f, load_f32x16(p + 320))
        g, h = add(g, load_f32x16(p + 384)), add(h, load_f32x16(p + 448))
    store_f32(sums + 64 * rank, sum_lanes(add(add(add(a, b), add(c, d)), add(add(e, f), add(g, h)))))


def read_all(plan: Plan, source: NDArray[np.float32]) -> NDArray[np.float32]:
    """Read float32 [n], n a multiple of 128; float32 [threads, 16]: the sums are in the first column."""
    steps, rest = divmod(source.nbytes, STEP)
    if rest or not source.flags.c_contiguous:
        raise ValueError(f"{source.nbytes} bytes are not whole steps of {STEP}")
    sums: NDArray[np.float32] = plan.buffer("sums", (plan.threads, 16), np.float32)
    plan.add(sum_lines, source, steps, sums)
    return sums
