"""Tables of operands: written by name, read by name in compiled code."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_helpers import new_plan, replay

from quant.jit import inline, kernel
from quant.layout import Layout
from quant.plan import aligned
from quant.simd import load_f32, load_i64, store_f32, store_i64

SUM = Layout("a", "b", "scale", "out")


@inline
def scaled_sum(table):
    return np.float32(load_i64(table + SUM.a) - load_i64(table + SUM.b)) * load_f32(table + SUM.scale)


@kernel
def write_sums(rank, size, table, count):
    """Twice the fields' use: by a helper, and behind one another."""
    if rank == 0:
        for i in range(count):
            one = table + i * SUM.bytes
            store_f32(load_i64(one + SUM.out), scaled_sum(one))
            store_i64(one + SUM.a, 0)


def test_fields_are_found_by_name_in_compiled_code():
    out, plan = aligned(2, np.float32), new_plan(1)
    rows = [{"out": out[i : i + 1], "scale": 0.5, "b": 2, "a": 10 * (i + 1)} for i in range(2)]
    plan.add(write_sums, plan.tables(SUM, rows), 2)
    replay(plan)
    assert out.tolist() == [4.0, 9.0]


def test_an_attribute_is_an_offset_in_bytes():
    assert (SUM.a, SUM.b, SUM.scale, SUM.out, SUM.bytes) == (0, 8, 16, 24, 32)
    with pytest.raises(AttributeError, match="no field is called 'c'"):
        _ = SUM.c


def test_every_field_is_given_once():
    with pytest.raises(TypeError, match="missing or unknown: b, c"):
        SUM.in_order({"a": 1, "c": 2, "scale": 1.0, "out": 0})
    with pytest.raises(ValueError, match="twice"):
        Layout("a", "a")
