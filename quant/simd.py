"""Vectors: thin intrinsics, one operation each, on addresses.

Kernels are written for logical vectors of 16 float32 or 64 int8 lanes; LLVM splits them for narrower units (two
registers on AVX2, four on NEON). Only the int8 dot products differ by CPU: see `quant.int8_dot`.
No operation carries a fast-math flag, so a sum has one order whatever is merged around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from quant.declarations import Vector, vector_llvm
from quant.jit import intrinsic

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F16, F32 = ir.HalfType(), ir.FloatType()

i8x16, i8x32, i8x64 = Vector("i8", 16), Vector("i8", 32), Vector("i8", 64)
i32x8, i32x16 = Vector("i32", 8), Vector("i32", 16)
f32x8, f32x16 = Vector("f32", 8), Vector("f32", 16)


# --- building LLVM code: builder first, then values ---------------------------------------------------------------


def vector_of(scalar: Any, lanes: int) -> Any:
    """The LLVM type of `lanes` scalars."""
    return ir.VectorType(scalar, lanes)


def constant_of(vector: Any, value: float) -> Any:
    """Every lane of an LLVM vector type the value."""
    return ir.Constant(vector, [value] * vector.count)


def shuffle(builder: Any, a: Any, b: Any, pattern: Sequence[int]) -> Any:
    """Lanes of a, then of b, picked by number."""
    return builder.shuffle_vector(a, b, ir.Constant(vector_of(I32, len(pattern)), list(pattern)))


def splat_llvm(builder: Any, scalar: Any, lanes: int) -> Any:
    """A scalar in every lane."""
    vector = builder.insert_element(ir.Constant(vector_of(scalar.type, lanes), ir.Undefined), scalar, I32(0))
    return shuffle(builder, vector, vector, [0] * lanes)


def call_llvm(builder: Any, name: str, result: Any, arguments: Sequence[Any]) -> Any:
    """Call one of LLVM's own functions."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    known = builder.module.globals.get(name)
    return builder.call(known or ir.Function(builder.module, kind, name), arguments)


def local_word(builder: Any) -> Any:
    """A 32-bit word on the stack, taken where the function begins."""
    with builder.goto_entry_block():
        return builder.alloca(I32)


def pointer(builder: Any, address: Any, to: Any) -> Any:
    """An integer address as a pointer."""
    return builder.inttoptr(address, ir.PointerType(to))


# --- memory -------------------------------------------------------------------------------------------------------


def _loader(result: Any, stored: Any, convert: Callable[[Any, Any], Any] | None = None) -> Any:
    @intrinsic
    def load(address: Any) -> Any:
        def generate(builder: Any, address: Any) -> Any:
            value = builder.load(pointer(builder, address, stored), align=1)
            return convert(builder, value) if convert else value

        return result, generate

    return load


def _storer(stored: Any, convert: Callable[[Any, Any], Any] | None = None) -> Any:
    @intrinsic
    def store(address: Any, value: Any) -> Any:
        def generate(builder: Any, address: Any, value: Any) -> None:
            builder.store(convert(builder, value) if convert else value, pointer(builder, address, stored), align=1)

        return None, generate

    return store


def _f32_from(operation: str) -> Callable[[Any, Any], Any]:
    def convert(builder: Any, value: Any) -> Any:
        to: Any = vector_of(F32, value.type.count) if isinstance(value.type, ir.VectorType) else F32
        return getattr(builder, operation)(value, to)

    return convert


def _f32_from_bf16(builder: Any, value: Any) -> Any:
    wide = builder.zext(value, vector_of(I32, value.type.count))
    shifted = builder.shl(wide, constant_of(wide.type, 16))
    return builder.bitcast(shifted, vector_of(F32, value.type.count))


load_i64 = _loader("i64", I64)
load_u32 = _loader("i64", I32, lambda b, v: b.zext(v, I64))
load_u8 = _loader("i64", I8, lambda b, v: b.zext(v, I64))
load_f32 = _loader("f32", F32)
load_f16 = _loader("f32", F16, _f32_from("fpext"))
store_i64 = _storer(I64)
store_u32 = _storer(I32, lambda b, v: b.trunc(v, I32))
store_u8 = _storer(I8, lambda b, v: b.trunc(v, I8))
store_f32 = _storer(F32)

load_i8x16 = _loader(i8x16, vector_of(I8, 16))
load_i8x32 = _loader(i8x32, vector_of(I8, 32))
load_i8x64 = _loader(i8x64, vector_of(I8, 64))
load_i32x16 = _loader(i32x16, vector_of(I32, 16))
load_f32x8 = _loader(f32x8, vector_of(F32, 8))
load_f32x16 = _loader(f32x16, vector_of(F32, 16))
load_f16x16 = _loader(f32x16, vector_of(F16, 16), _f32_from("fpext"))
load_bf16x16 = _loader(f32x16, vector_of(I16, 16), _f32_from_bf16)
load_i8x16_as_f32 = _loader(f32x16, vector_of(I8, 16), _f32_from("sitofp"))
load_i16x16_as_f32 = _loader(f32x16, vector_of(I16, 16), _f32_from("sitofp"))
load_u8x16_as_f32 = _loader(f32x16, vector_of(I8, 16), _f32_from("uitofp"))
store_i8x32 = _storer(vector_of(I8, 32))
store_i8x64 = _storer(vector_of(I8, 64))
store_f32x8 = _storer(vector_of(F32, 8))
store_f32x16 = _storer(vector_of(F32, 16))
store_f32x16_as_f16 = _storer(vector_of(F16, 16), lambda b, v: b.fptrunc(v, vector_of(F16, 16)))

store_f32x16_as_i16 = _storer(  # whole numbers in [-32768, 32767]
    vector_of(I16, 16), lambda b, v: b.trunc(b.fptosi(v, vector_of(I32, 16)), vector_of(I16, 16))
)

broadcast_f32 = _loader(f32x16, F32, lambda b, v: splat_llvm(b, v, 16))


def _prefetch(locality: int) -> Any:
    def generate(builder: Any, address: Any) -> None:
        line = pointer(builder, address, I8)
        call_llvm(builder, "llvm.prefetch.p0", ir.VoidType(), [line, I32(0), I32(locality), I32(1)])

    return intrinsic(lambda address: (None, generate))


# Ask for the cache line at an address, for the first-level cache or the second; never faults.
prefetch, prefetch_l2 = _prefetch(3), _prefetch(2)


# --- arithmetic ---------------------------------------------------------------------------------------------------


def _lanewise(integer: str, floating: str) -> Any:
    @intrinsic
    def operation(a: Any, b: Any) -> Any:
        return a, lambda builder, x, y: getattr(builder, floating if a.element == "f32" else integer)(x, y)

    return operation


add, sub, mul = _lanewise("add", "fadd"), _lanewise("sub", "fsub"), _lanewise("mul", "fmul")
divide, bit_or = _lanewise("sdiv", "fdiv"), _lanewise("or_", "")


def _float_function(name: str, operands: int) -> Any:
    def generate(builder: Any, *values: Any) -> Any:
        return call_llvm(builder, f"{name}.v{values[0].type.count}f32", values[0].type, values)

    if operands == 1:
        return intrinsic(lambda a: (a, generate))
    return intrinsic(lambda a, b: (a, generate)) if operands == 2 else intrinsic(lambda a, b, c: (a, generate))


fma = _float_function("llvm.fma", 3)
maximum, minimum = _float_function("llvm.maxnum", 2), _float_function("llvm.minnum", 2)
absolute, round_even = _float_function("llvm.fabs", 1), _float_function("llvm.rint", 1)


@intrinsic
def splat(scalar: Any) -> Any:
    """float32 -> f32x16, every lane the scalar."""
    return f32x16, lambda builder, x: splat_llvm(builder, x, 16)


@intrinsic
def splat8(scalar: Any) -> Any:
    """float32 -> f32x8, every lane the scalar."""
    return f32x8, lambda builder, x: splat_llvm(builder, x, 8)


def constant(vector: Vector, value: float) -> Any:
    """An intrinsic without operands: a vector with this value in every lane."""
    return intrinsic(lambda: (vector, lambda _builder: constant_of(vector_llvm(vector), value)))


zero_i32x8, zero_i32x16 = constant(i32x8, 0), constant(i32x16, 0)
zero_f32x8, zero_f32x16 = constant(f32x8, 0.0), constant(f32x16, 0.0)


def _with_constant(operation: str) -> Any:
    @intrinsic
    def apply(vector: Any, constant: Any) -> Any:
        value = constant.literal_value
        return vector, lambda builder, x, _: getattr(builder, operation)(x, constant_of(x.type, value))

    return apply


bit_and, bit_xor, shift_right, shift_left = (_with_constant(name) for name in ("and_", "xor", "lshr", "shl"))
shift_right_signed = _with_constant("ashr")


def permute(pattern: Sequence[int]) -> Any:
    """Declare an intrinsic that picks lanes of one vector by a fixed pattern."""
    picked = list(pattern)
    return intrinsic(lambda v: (Vector(v.element, len(picked)), lambda builder, x: shuffle(builder, x, x, picked)))


@intrinsic
def concat(low: Any, high: Any) -> Any:
    """Two vectors of one type -> one of twice the lanes."""
    lanes = range(2 * low.lanes)
    return Vector(low.element, 2 * low.lanes), lambda builder, x, y: shuffle(builder, x, y, lanes)


@intrinsic
def to_f32(vector: Any) -> Any:
    """i32 lanes -> float32 lanes."""
    return Vector("f32", vector.lanes), lambda builder, x: builder.sitofp(x, vector_of(F32, vector.lanes))


@intrinsic
def to_i8(vector: Any) -> Any:
    """float32 lanes holding whole numbers in [-128, 127] -> i8 lanes."""

    def generate(builder: Any, x: Any) -> Any:
        return builder.trunc(builder.fptosi(x, vector_of(I32, vector.lanes)), vector_of(I8, vector.lanes))

    return Vector("i8", vector.lanes), generate


def _half_of_word(first_bit: int) -> Any:
    def generate(builder: Any, x: Any) -> Any:
        bits = builder.trunc(builder.lshr(x, constant_of(x.type, first_bit)), vector_of(I16, 16))
        return builder.fpext(builder.bitcast(bits, vector_of(F16, 16)), vector_of(F32, 16))

    return intrinsic(lambda words: (f32x16, generate))


low_f16, high_f16 = _half_of_word(0), _half_of_word(16)  # the float16 in each i32 lane -> float32 lanes


@intrinsic
def u32x2_to_f32x8(low: Any, high: Any) -> Any:
    """The low four bytes of two integers -> eight unsigned values as float32."""

    def generate(builder: Any, *words: Any) -> Any:
        pair = ir.Constant(vector_of(I32, 2), ir.Undefined)
        for lane, word in enumerate(words):
            pair = builder.insert_element(pair, builder.trunc(word, I32), I32(lane))
        return builder.uitofp(builder.bitcast(pair, vector_of(I8, 8)), vector_of(F32, 8))

    return f32x8, generate


def _reduction(combine: Callable[[Any, Any, Any], Any]) -> Any:
    """Halves are combined until one lane is left."""

    def generate(builder: Any, value: Any) -> Any:
        lanes = value.type.count
        while lanes > 1:
            lanes //= 2
            low, high = range(lanes), range(lanes, 2 * lanes)
            value = combine(builder, shuffle(builder, value, value, low), shuffle(builder, value, value, high))
        return builder.extract_element(value, I32(0))

    return intrinsic(lambda vector: ("f32", generate))


sum_lanes = _reduction(lambda b, low, high: b.fadd(low, high))
max_lanes = _reduction(lambda b, low, high: call_llvm(b, f"llvm.maxnum.v{low.type.count}f32", low.type, [low, high]))


@intrinsic
def bits_to_f32(bits: Any) -> Any:
    """The low 32 bits of an integer operand, read as float32."""
    return "f32", lambda builder, x: builder.bitcast(builder.trunc(x, I32), F32)
