"""Blocks: declared once, read by name in NumPy and in compiled code."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from kernel_helpers import new_plan, replay

from quant import formats
from quant.block import Block, Scale, Ternary, declared
from quant.jit import inline, kernel
from quant.plan import aligned
from quant.simd import load_u8, store_i64

PAIR = Block("PAIR", number=99, columns=4, d=Scale("f16", 1 / 2), m=Scale("ue4m3", 1, count=2), qs=Ternary(1), sum=3)


@inline
def first_code(w, block):
    return load_u8(w + block.qs)


@kernel
def read_codes(rank, size, w, out):
    """The codes of two blocks, and where the second begins."""
    if rank == 0:
        store_i64(out, first_code(w, PAIR))
        store_i64(out + 8, first_code(w + PAIR.bytes, PAIR))
        store_i64(out + 16, PAIR.columns)


def test_a_field_is_an_offset_in_bytes():
    assert (PAIR.columns, PAIR.bytes, PAIR.d, PAIR.m, PAIR.qs, PAIR.sum) == (4, 8, 0, 2, 4, 5)
    assert PAIR.row_bytes(12) == 24
    with pytest.raises(AttributeError, match="no field is called 'scales'"):
        _ = PAIR.scales


def test_rows_are_split_into_the_fields_of_their_blocks():
    block = np.float16(0.5).tobytes() + bytes([1, 2, 3, 4, 5, 6])
    data = np.frombuffer(block * 6, np.uint8).reshape(3, 16)
    d, m, qs, total = PAIR.split(data)
    assert (d.shape, m.shape, qs.shape, total.shape) == ((3, 2, 1), (3, 2, 2), (3, 2, 1), (3, 2, 3))
    assert d.dtype == np.float32
    assert (d[0, 0, 0], *m[1, 1], *qs[2, 0], *total[0, 1]) == (0.5, 1, 2, 3, 4, 5, 6)


def test_compiled_code_reads_fields_by_name():
    plan, out = new_plan(1), aligned(3, np.int64)
    data = aligned(2 * PAIR.bytes, np.uint8)
    data[[PAIR.qs, PAIR.bytes + PAIR.qs]] = 7, 9
    plan.add(read_codes, data, out)
    replay(plan)
    assert out.tolist() == [7, 9, 4]


@pytest.mark.parametrize("name", formats.names())
def test_a_declaration_read_alone_is_the_one_beside_the_kernels(name):
    block = declared()[name]
    assert vars(block) == vars(formats.find(name).block)
    assert block.name == name


@pytest.mark.parametrize("name", [name for name, block in declared().items() if block.columns > 1])
def test_a_drawing_says_what_is_declared(name):
    block, drawing = declared()[name], importlib.import_module(f"quant.formats.{name.lower()}").__doc__
    assert drawing.startswith(f"{name}: {block.columns} columns in {block.bytes} bytes")
