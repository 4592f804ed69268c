"""Print the unit and the assembly of `dot_wide` for a triple; the processor is that of NUMBA_CPU_NAME."""

from __future__ import annotations

import os
import sys

import llvmlite.binding as llvm
from llvmlite import ir

from quant.int8_dot import UNIT, dot_wide_llvm
from quant.simd import I8, I32


def module() -> ir.Module:
    """f(acc i32x16, w i8x64, x i8x64) -> i32x16."""
    sums, weights = ir.VectorType(I32, 16), ir.VectorType(I8, 64)
    code = ir.Module()
    function = ir.Function(code, ir.FunctionType(sums, [sums, weights, weights]), "dot")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(dot_wide_llvm(builder, *function.args))
    return code


def assembly(triple: str, processor: str) -> str:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=processor, opt=3)
    code = module()
    code.triple = triple
    parsed = llvm.parse_assembly(str(code))
    parsed.verify()
    return str(machine.emit_assembly(parsed))


if __name__ == "__main__":
    print(UNIT)
    print(assembly(sys.argv[1], os.environ["NUMBA_CPU_NAME"]))
