"""What a team of threads needs of the machine: atomic words, a pause, a clock, and a call through an address."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from quant import cpu
from quant.jit import intrinsic
from quant.simd import I8, I32, I64, call_llvm, local_word, pointer


@intrinsic
def atomic_add(address: Any, value: Any) -> Any:
    """Add to an int64 in memory, acquire and release; gives the value before."""
    return "i64", lambda builder, at, x: builder.atomic_rmw("add", pointer(builder, at, I64), x, "acq_rel")


@intrinsic
def atomic_load(address: Any) -> Any:
    """Read an int64 with acquire order."""
    return "i64", lambda builder, at: builder.load_atomic(pointer(builder, at, I64), "acquire", 8)


@intrinsic
def compare_exchange(address: Any, expected: Any, new: Any) -> Any:
    """Replace an int64 in memory if it is as expected, acquire and release; gives 1 if it was, else 0."""

    def generate(builder: Any, at: Any, expected: Any, new: Any) -> Any:
        pair = builder.cmpxchg(pointer(builder, at, I64), expected, new, "acq_rel", "acquire")
        return builder.zext(builder.extract_value(pair, 1), I64)

    return "i64", generate


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


def _x86_mode(builder: Any, change: Any) -> Any:
    """Read this thread's MXCSR, load what `change` makes of it, and give what was there."""
    word = local_word(builder)
    raw = builder.bitcast(word, ir.PointerType(I8))
    call_llvm(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), [raw])
    before = builder.load(word)
    builder.store(change(before), word)
    call_llvm(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), [raw])
    return builder.zext(before, I64)


@intrinsic
def flush_denormals() -> Any:
    """Have this thread take float32 below 1e-38 for zero: it is, and Intel's cores need 150 cycles for each; gives the mode.

    A decayed state or a weight of a far position is such a number, and so is what stands in unused lanes.
    """

    def generate(builder: Any) -> Any:
        if cpu.is_x86():
            return _x86_mode(builder, lambda mode: builder.or_(mode, I32(0x8040)))  # flush to zero, denormals are zero
        mode = call_llvm(builder, "llvm.aarch64.get.fpcr", I64, [])
        call_llvm(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), [builder.or_(mode, I64(1 << 24))])
        return mode

    return "i64", generate


@intrinsic
def restore_mode(mode: Any) -> Any:
    """Give this thread its mode of floating point back."""

    def generate(builder: Any, mode: Any) -> None:
        if cpu.is_x86():
            _x86_mode(builder, lambda _: builder.trunc(mode, I32))
        else:
            call_llvm(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), [mode])

    return None, generate


@intrinsic
def call(address: Any, operands: Any) -> Any:
    """Call the function at an address with a tuple of operands, each an int64 or a float32."""

    def generate(builder: Any, at: Any, values: list[Any]) -> None:
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        builder.call(pointer(builder, at, kind), values)

    return None, generate
