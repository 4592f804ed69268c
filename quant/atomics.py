"""What a team of threads needs of the machine: atomic words, a pause, a clock, and a call through an address."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from quant import cpu
from quant.jit import intrinsic
from quant.simd import I32, I64, call_llvm, pointer


@intrinsic
def atomic_add(address: Any, value: Any) -> Any:
    """Add to an int64 in memory, acquire and release; gives the value before."""
    return "i64", lambda builder, at, x: builder.atomic_rmw("add", pointer(builder, at, I64), x, "acq_rel")


@intrinsic
def atomic_load(address: Any) -> Any:
    """Read an int64 with acquire order."""
    return "i64", lambda builder, at: builder.load_atomic(pointer(builder, at, I64), "acquire", 8)


@intrinsic
def pause() -> Any:
    """Tell the core that this is a waiting loop."""
    name = "llvm.x86.sse2.pause" if cpu.is_x86() else "llvm.aarch64.hint"

    def generate(builder: Any) -> None:
        call_llvm(builder, name, ir.VoidType(), [] if cpu.is_x86() else [I32(1)])

    return None, generate


@intrinsic
def ticks() -> Any:
    """A counter that runs at a constant rate, the same for all cores."""
    name = "llvm.readcyclecounter" if cpu.is_x86() else "llvm.readsteadycounter"
    return "i64", lambda builder: call_llvm(builder, name, I64, [])


@intrinsic
def call(address: Any, operands: Any) -> Any:
    """Call the function at an address with a tuple of operands, each an int64 or a float32."""

    def generate(builder: Any, at: Any, values: list[Any]) -> None:
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        builder.call(pointer(builder, at, kind), values)

    return None, generate
