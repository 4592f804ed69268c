"""The steps of Numba's compiler that are left out make no difference to the code, and what kernels must not do is refused."""

from __future__ import annotations

import llvmlite.binding as llvm
import pytest
from numba.core.compiler import Compiler
from numba.core.errors import NumbaError

from quant import compiler
from quant.jit import function, inline
from quant.kernels.embed import embed_rows
from quant.kernels.norm import rms_norm_rows
from quant.kernels.sample import draw_token
from quant.layout import Layout
from quant.numba_pipeline import Pipeline
from quant.simd import load_f32, load_i32x16, load_i64, store_f32, store_i64

_TABLE = Layout("first", "second")
_WIDE = False


@inline
def _sum_and_difference(a, b):
    return a + b, a - b


@inline
def _at(table, index):
    if index == 0:
        return load_i64(table + _TABLE.first)
    return load_i64(table + _TABLE.second)


@function("pppf")
def of_everything(out, table, n, factor):
    """Loops, a helper's tuple, a branch that a constant decides, integers that become floats, min, and a continue."""
    total = 0
    for i in range(n):
        if i % 3 == 1:
            continue
        larger, smaller = _sum_and_difference(_at(table, i), i)
        total += larger * min(smaller, 7) // 2
    step = 64 if _WIDE else 32
    while total > step:
        total -= step
    pair = (total, n)
    store_i64(out, pair[0] ^ (pair[1] << 3))
    store_f32(out + 8, load_f32(out + 8) * factor + total / 3)


@function("pp", returns=True)
def a_result(a, b):
    """The larger, or -1 if they are the same."""
    if a == b:
        return -1
    return a if a > b else b


@function("ppp")
def any_step(out, n, step):
    """Numba's range raises an exception where the step is zero."""
    for i in range(0, n, step):
        store_i64(out + 8 * i, i)


@function("pp")
def a_closure(out, n):
    """A function within a function."""

    def twice(x):
        return 2 * x

    store_i64(out, twice(n))


@function("pp")
def wrong_operands(out, n):
    """Vectors are added by functions."""
    store_i64(out, load_i32x16(out) + n)


def _sections(kernel, pipeline, monkeypatch):
    """Code and constants, by section; symbols have numbers in their names."""
    monkeypatch.setitem(compiler._OPTIONS, "pipeline_class", pipeline)
    monkeypatch.setitem(compiler._HELPER_OPTIONS, "pipeline_class", pipeline)
    compiler._helper.cache_clear()
    _, object_file = compiler.machine_code(kernel)
    compiler._helper.cache_clear()
    sections = llvm.ObjectFileRef.from_data(object_file).sections()
    return [(section.name(), section.data()) for section in sections if section.name() not in (b".strtab", b".symtab")]


@pytest.mark.parametrize(
    "kernel", [of_everything, a_result, rms_norm_rows, embed_rows, draw_token], ids=lambda k: k.name
)
def test_the_code_is_that_of_numbas_own_pipeline(kernel, monkeypatch):
    ours, theirs = (_sections(kernel, pipeline, monkeypatch) for pipeline in (Pipeline, Compiler))
    assert ours == theirs
    assert sum(len(data) for _, data in ours) > 30


def test_a_function_that_may_raise_is_refused():
    with pytest.raises(TypeError, match="any_step may raise an exception"):
        compiler.machine_code(any_step)


@pytest.mark.parametrize("kernel", [a_closure, wrong_operands], ids=lambda k: k.name)
def test_what_cannot_be_compiled_is_refused_with_its_line(kernel):
    with pytest.raises(NumbaError, match=r"test_numba_pipeline.py"):
        compiler.machine_code(kernel)
