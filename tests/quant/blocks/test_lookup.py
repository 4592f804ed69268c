"""Tables looked up by nibbles, against NumPy's own indexing."""

from __future__ import annotations

import numpy as np
from kernel_helpers import new_plan, replay

from quant.blocks.lookup import high_nibbles, low_nibbles
from quant.jit import kernel
from quant.simd import concat, load_i8x16, load_i8x32, load_i8x64, store_i8x32, store_i8x64

TABLE = (-128, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 127)
_low, _high = low_nibbles(TABLE), high_nibbles(TABLE)


@kernel
def every_width(rank, size, packed, count, y):
    """packed uint8 [count] -> y int8 [6, count]: low and high nibbles looked up by 64, by 32 and by 16."""
    for c in range(0, count, 64):
        wide, out = load_i8x64(packed + c), y + c
        store_i8x64(out, _low(wide))
        store_i8x64(out + count, _high(wide))
        for half in range(0, 64, 32):
            middle, at = load_i8x32(packed + c + half), out + half
            a, b = load_i8x16(packed + c + half), load_i8x16(packed + c + half + 16)
            store_i8x32(at + 2 * count, _low(middle))
            store_i8x32(at + 3 * count, _high(middle))
            store_i8x32(at + 4 * count, concat(_low(a), _low(b)))
            store_i8x32(at + 5 * count, concat(_high(a), _high(b)))


def test_every_byte_names_two_values():
    packed = np.random.default_rng(0).permuted(np.arange(256).astype(np.uint8))
    found = np.zeros((6, 256), np.int8)
    plan = new_plan(1)
    plan.add(every_width, packed, 256, found)
    replay(plan)
    table = np.array(TABLE, np.int8)
    expected = [table[packed & 15], table[packed >> 4]]
    np.testing.assert_array_equal(found, np.array(expected * 3))
