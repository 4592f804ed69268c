"""What operands of records and tables become, and that a plan is gone when nobody holds it."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from quant.batch import Batch
from quant.jit import kernel
from quant.layout import Layout
from quant.operands import Operands
from quant.plan import Plan, aligned
from quant.simd import load_i64, store_i64

PAIR = Layout("first", "second")


@kernel
def copy_pair(rank, size, table, out, scratch, stride):
    """The two fields of a table."""
    store_i64(out, load_i64(table + PAIR.first))
    store_i64(out + 8, load_i64(table + PAIR.second))


def traced():
    """A plan with a table, an activation and scratch memory; and where its record writes."""
    plan, out = Plan(2, 1, Batch()), aligned(2, np.int64)
    x = plan.activation("x", 32)
    x.read("f32")
    plan.add(copy_pair, plan.table(PAIR, first=lambda: 7, second=plan.output(x)), out, *plan.scratch(100))
    return plan, out


def test_numbers_are_noted_and_the_rest_is_asked_for_at_last():
    operands, array, batch = Operands(), np.arange(3), Batch()
    given = [5, True, np.int64(-2), 1.5, array, batch]
    numbers = [5, 1, -2, 0x3FC00000, array.ctypes.data, batch.table.ctypes.data]
    assert operands.noted(given) == numbers
    assert operands.resolved(operands.noted(given)) == numbers
    late = operands.noted([lambda: array, lambda: lambda: 2.0, copy_pair])
    assert not any(isinstance(operand, int) for operand in late)
    assert operands.resolved(late) == [array.ctypes.data, 0x40000000, copy_pair.address]
    assert list(operands.kernels) == [copy_pair]


def test_an_array_is_kept_as_long_as_its_address_is_known():
    operands, array = Operands(), np.arange(3)
    kept = weakref.ref(array)
    operands.noted([array])
    del array
    assert kept() is not None
    del operands
    assert kept() is None


def test_what_a_record_reads_of_its_table():
    plan, out = traced()
    kernel_address, shares, table, written, scratch, stride = plan.compile()[0].tolist()[:6]
    assert (kernel_address, shares, written, stride) == (copy_pair.address, 1, out.ctypes.data, 128)
    assert scratch % 64 == 0
    copy_pair(0, 1, table, written, scratch, stride)
    assert out.tolist() == [7, plan.output(plan.activation("x", 32))]


@pytest.mark.parametrize("compiled", [False, True])
def test_a_plan_that_is_dropped_is_freed_without_the_collector(compiled):
    gc.disable()
    try:
        plan, _ = traced()
        if compiled:
            plan.compile()
        gone = weakref.ref(plan), weakref.ref(plan.activation("x", 32))
        del plan
        assert [ref() for ref in gone] == [None, None]
    finally:
        gc.enable()
