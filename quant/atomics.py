"""What a team of threads needs of the machine: atomic words, a pause, a clock, and a call through an address."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from quant import cpu
from quant.simd import I32, I64, call_llvm, pointer


@intrinsic
def atomic_add(_context: Any, address: Any, value: Any) -> Any:
    """Add to an int64 in memory, acquire and release; gives the value before."""

    def generate(_c: Any, builder: Any, _s: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("add", pointer(builder, arguments[0], I64), arguments[1], "acq_rel")

    return types.int64(types.intp, types.int64), generate


@intrinsic
def atomic_load(_context: Any, address: Any) -> Any:
    """Read an int64 with acquire order."""
    return types.int64(types.intp), lambda _c, b, _s, a: b.load_atomic(pointer(b, a[0], I64), "acquire", 8)


@intrinsic
def pause(_context: Any) -> Any:
    """Tell the core that this is a waiting loop."""
    name = "llvm.x86.sse2.pause" if cpu.is_x86() else "llvm.aarch64.hint"

    def generate(target: Any, builder: Any, _s: Any, _a: Any) -> Any:
        call_llvm(builder, name, ir.VoidType(), [] if cpu.is_x86() else [I32(1)])
        return target.get_dummy_value()

    return types.void(), generate


@intrinsic
def ticks(_context: Any) -> Any:
    """A counter that runs at a constant rate, the same for all cores."""
    name = "llvm.readcyclecounter" if cpu.is_x86() else "llvm.readsteadycounter"
    return types.int64(), lambda _c, b, _s, _a: call_llvm(b, name, I64, [])


@intrinsic
def call(_context: Any, address: Any, operands: Any) -> Any:
    """Call the function at an address with a tuple of operands: integers go as int64, floats as float32."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = []
        for value, given in zip(cgutils.unpack_tuple(builder, arguments[1]), signature.args[1].types, strict=True):
            passed = types.float32 if isinstance(given, types.Float) else types.intp
            values.append(target.cast(builder, value, given, passed))
        function = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        builder.call(pointer(builder, arguments[0], function), values)
        return target.get_dummy_value()

    return types.void(types.intp, operands), generate
