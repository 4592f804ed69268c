"""Print the unit, and for a triple the assembly of each operation behind a line "=operation".

The processor is that of NUMBA_CPU_NAME.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from quant.blocks.fields import is_set
from quant.blocks.grids import grid
from quant.blocks.lookup import lookup_llvm
from quant.int8_dot import UNIT, dot_wide_llvm
from quant.simd import I8, I32, I64, i8x64
from quant.tile import MANY, dot_columns, many_sums
from quant.tile_products import sum_by_matrices

SUMS, BYTES = ir.VectorType(I32, 16), ir.VectorType(I8, 64)
FIND, VALUES = grid("IQ2_XXS", 256, 8, (8, 25, 43))


def signed_points(builder, low, signs):
    """Points of 8 of 64 indices; negative where a bit is set."""
    codes = FIND.rule(i8x64, i8x64)[1](builder, low, ir.Constant(BYTES, None))
    part = VALUES.rule(None)[1](builder, codes)[0]
    return builder.select(is_set(builder, signs), builder.neg(part), part)


def columns_by_dots(builder, tile, panel):
    """16 columns of a tile by a panel of MANY tokens; what they give, added up."""
    sums = many_sums.rule()[1](builder)
    return added(builder, dot_columns.rule(None, None, None)[1](builder, sums, tile, panel))


def columns_by_matrices(builder, tile, panel):
    """The same, two tokens at a time."""
    return added(builder, sum_by_matrices(builder, tile, panel, 16, MANY))


def added(builder, sums):
    return functools.reduce(builder.add, sums)


# Result, arguments and code of each operation.
OPERATIONS: dict[str, tuple[Any, list[Any], Callable[..., Any]]] = {
    "dot": (SUMS, [SUMS, BYTES, BYTES], dot_wide_llvm),
    "lookup": (BYTES, [BYTES], lambda builder, index: lookup_llvm(builder, range(16), index)),
    "points": (BYTES, [BYTES, I64], signed_points),
    "dot columns": (SUMS, [I64, I64], columns_by_dots),
    "matrices": (SUMS, [I64, I64], columns_by_matrices),
}


def module(operation: str) -> ir.Module:
    """A function of the operation alone."""
    result, arguments, generate = OPERATIONS[operation]
    code = ir.Module()
    function = ir.Function(code, ir.FunctionType(result, arguments), operation)
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(generate(builder, *function.args))
    return code


def assembly(triple: str, processor: str, operation: str) -> str:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=processor, opt=3)
    code = module(operation)
    code.triple = triple
    parsed = llvm.parse_assembly(str(code))
    parsed.verify()
    return str(machine.emit_assembly(parsed))


if __name__ == "__main__":
    print(UNIT)
    for operation in sys.argv[2:]:
        print(f"={operation}\n{assembly(sys.argv[1], os.environ['NUMBA_CPU_NAME'], operation)}")
