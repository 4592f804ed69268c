"""A vector type for Numba and thin intrinsics, one operation each, on addresses.

Kernels are written for logical vectors of 16 float32 or 64 int8 lanes; LLVM splits them for narrower units (two
registers on AVX2, four on NEON). Only the int8 dot products differ by CPU: see `quant.int8_dot`.
No operation carries a fast-math flag, so a sum has one order whatever is inlined around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from quant.jit import inline

_SCALARS: dict[str, Any] = {
    "i8": ir.IntType(8), "i16": ir.IntType(16), "i32": ir.IntType(32), "i64": ir.IntType(64),
    "f16": ir.HalfType(), "f32": ir.FloatType(),
}  # fmt: skip
I8, I16, I32, I64, F32 = (_SCALARS[name] for name in ("i8", "i16", "i32", "i64", "f32"))


class Vector(types.Type):
    """The Numba type of `lanes` elements of one scalar kind, held in vector registers."""

    def __init__(self, element: str, lanes: int) -> None:
        self.element, self.lanes = element, lanes
        super().__init__(name=f"{element}x{lanes}")

    @property
    def key(self) -> tuple[str, int]:
        return self.element, self.lanes

    @property
    def llvm(self) -> Any:
        return ir.VectorType(_SCALARS[self.element], self.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.llvm)


i8x16, i8x32, i8x64 = Vector("i8", 16), Vector("i8", 32), Vector("i8", 64)
i32x8, i32x16 = Vector("i32", 8), Vector("i32", 16)
f32x8, f32x16 = Vector("f32", 8), Vector("f32", 16)


def splat_llvm(builder: Any, scalar: Any, lanes: int) -> Any:
    vector = builder.insert_element(ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined), scalar, I32(0))
    return builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def shuffle(builder: Any, a: Any, b: Any, pattern: Sequence[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(pattern)), list(pattern)))


def call_llvm(builder: Any, name: str, result: Any, arguments: Sequence[Any]) -> Any:
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), arguments)


def pointer(builder: Any, address: Any, to: Any) -> Any:
    return builder.inttoptr(address, ir.PointerType(to))


# --- memory -----------------------------------------------------------------------------------------------------


def _loader(result: Any, stored: Any, convert: Callable[[Any, Any], Any] | None = None) -> Any:
    @intrinsic
    def load(_context: Any, address: Any) -> Any:
        def generate(_c: Any, builder: Any, _s: Any, arguments: Any) -> Any:
            value = builder.load(pointer(builder, arguments[0], stored), align=1)
            return convert(builder, value) if convert else value

        return result(types.intp), generate

    return load


def _storer(value: Any, stored: Any, convert: Callable[[Any, Any], Any] | None = None) -> Any:
    @intrinsic
    def store(context: Any, address: Any, given: Any) -> Any:
        def generate(target: Any, builder: Any, _s: Any, arguments: Any) -> Any:
            content = convert(builder, arguments[1]) if convert else arguments[1]
            builder.store(content, pointer(builder, arguments[0], stored), align=1)
            return target.get_dummy_value()

        return types.void(types.intp, value), generate

    return store


def _f32_from(kind: str) -> Callable[[Any, Any], Any]:
    """Convert a vector or scalar of f16, i8 or u8 to float32."""

    def convert(builder: Any, value: Any) -> Any:
        to: Any = ir.VectorType(F32, value.type.count) if isinstance(value.type, ir.VectorType) else F32
        operation = {"f16": builder.fpext, "i8": builder.sitofp, "u8": builder.uitofp}[kind]
        return operation(value, to)

    return convert


def _f32_from_bf16(builder: Any, value: Any) -> Any:
    wide = builder.zext(value, ir.VectorType(I32, value.type.count))
    shifted = builder.shl(wide, ir.Constant(wide.type, [16] * value.type.count))
    return builder.bitcast(shifted, ir.VectorType(F32, value.type.count))


def vector_of(scalar: Any, lanes: int) -> Any:
    return ir.VectorType(scalar, lanes)


load_i64 = _loader(types.int64, I64)
load_i32 = _loader(types.int64, I32, lambda b, v: b.sext(v, I64))
load_u32 = _loader(types.uint32, I32)
load_u8 = _loader(types.int64, I8, lambda b, v: b.zext(v, I64))
load_f32 = _loader(types.float32, F32)
load_f16 = _loader(types.float32, ir.HalfType(), _f32_from("f16"))
store_i64 = _storer(types.int64, I64)
store_i32 = _storer(types.int64, I32, lambda b, v: b.trunc(v, I32))
store_u8 = _storer(types.int64, I8, lambda b, v: b.trunc(v, I8))
store_f32 = _storer(types.float32, F32)

load_i8x16 = _loader(i8x16, i8x16.llvm)
load_i8x32 = _loader(i8x32, i8x32.llvm)
load_i8x64 = _loader(i8x64, i8x64.llvm)
load_i32x16 = _loader(i32x16, i32x16.llvm)
load_f32x8 = _loader(f32x8, f32x8.llvm)
load_f32x16 = _loader(f32x16, f32x16.llvm)
load_f16x16 = _loader(f32x16, vector_of(ir.HalfType(), 16), _f32_from("f16"))
load_bf16x16 = _loader(f32x16, vector_of(I16, 16), _f32_from_bf16)
load_i8x16_as_f32 = _loader(f32x16, vector_of(I8, 16), _f32_from("i8"))
load_u8x16_as_f32 = _loader(f32x16, vector_of(I8, 16), _f32_from("u8"))
store_i8x16 = _storer(i8x16, i8x16.llvm)
store_i8x32 = _storer(i8x32, i8x32.llvm)
store_i8x64 = _storer(i8x64, i8x64.llvm)
store_f32x8 = _storer(f32x8, f32x8.llvm)
store_f32x16 = _storer(f32x16, f32x16.llvm)
store_f32x16_as_f16 = _storer(
    f32x16, vector_of(ir.HalfType(), 16), lambda b, v: b.fptrunc(v, vector_of(ir.HalfType(), 16))
)


def _broadcast_f32(builder: Any, value: Any) -> Any:
    return splat_llvm(builder, value, 16)


def _broadcast_i8x4(builder: Any, value: Any) -> Any:
    return builder.bitcast(splat_llvm(builder, value, 16), i8x64.llvm)


broadcast_f32 = _loader(f32x16, F32, _broadcast_f32)
broadcast_i8x4 = _loader(i8x64, I32, _broadcast_i8x4)


@intrinsic
def prefetch(_context: Any, address: Any) -> Any:
    """Ask for the cache line at an address; never faults."""

    def generate(target: Any, builder: Any, _s: Any, arguments: Any) -> Any:
        line = pointer(builder, arguments[0], I8)
        call_llvm(builder, "llvm.prefetch.p0", ir.VoidType(), [line, I32(0), I32(3), I32(1)])
        return target.get_dummy_value()

    return types.void(types.intp), generate


# --- arithmetic -------------------------------------------------------------------------------------------------


def _binary(integer: str, floating: str) -> Any:
    @intrinsic
    def operation(_context: Any, a: Any, b: Any) -> Any:
        def generate(_c: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, floating if signature.args[0].element == "f32" else integer)(*arguments)

        return a(a, b), generate

    return operation


add, sub, mul = _binary("add", "fadd"), _binary("sub", "fsub"), _binary("mul", "fmul")
divide = _binary("sdiv", "fdiv")
bit_or = _binary("or_", "")


def _llvm_float(name: str, operands: int) -> Any:
    def generate(_c: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return call_llvm(builder, f"{name}.v{signature.args[0].lanes}f32", arguments[0].type, arguments)

    @intrinsic
    def unary(_context: Any, a: Any) -> Any:
        return a(a), generate

    @intrinsic
    def binary(_context: Any, a: Any, b: Any) -> Any:
        return a(a, b), generate

    @intrinsic
    def ternary(_context: Any, a: Any, b: Any, c: Any) -> Any:
        return a(a, b, c), generate

    return (unary, binary, ternary)[operands - 1]


fma = _llvm_float("llvm.fma", 3)
maximum, minimum = _llvm_float("llvm.maxnum", 2), _llvm_float("llvm.minnum", 2)
absolute, round_even = _llvm_float("llvm.fabs", 1), _llvm_float("llvm.rint", 1)


@intrinsic
def splat(_context: Any, scalar: Any) -> Any:
    """float32 -> f32x16, every lane the scalar."""
    return f32x16(types.float32), lambda _c, b, _s, a: splat_llvm(b, a[0], 16)


@intrinsic
def splat8(_context: Any, scalar: Any) -> Any:
    """float32 -> f32x8, every lane the scalar."""
    return f32x8(types.float32), lambda _c, b, _s, a: splat_llvm(b, a[0], 8)


def _zero(vector: Vector) -> Any:
    value = 0.0 if vector.element == "f32" else 0

    @intrinsic
    def zero(_context: Any) -> Any:
        return vector(), lambda _c, _b, _s, _a: ir.Constant(vector.llvm, [value] * vector.lanes)

    return zero


zero_i32x8, zero_i32x16, zero_f32x8, zero_f32x16 = (_zero(v) for v in (i32x8, i32x16, f32x8, f32x16))


def _with_constant(operation: str) -> Any:
    @intrinsic(prefer_literal=True)
    def apply(_context: Any, vector: Any, constant: Any) -> Any:
        value = constant.literal_value

        def generate(_c: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = signature.args[0]
            return getattr(builder, operation)(arguments[0], ir.Constant(kind.llvm, [value] * kind.lanes))

        return vector(vector, constant), generate

    return apply


bit_and, bit_xor, shift_right, shift_left = (_with_constant(name) for name in ("and_", "xor", "lshr", "shl"))
shift_right_signed = _with_constant("ashr")


def permute(pattern: Sequence[int]) -> Any:
    """Declare an intrinsic that picks lanes of one vector by a fixed pattern."""

    @intrinsic
    def pick(_context: Any, vector: Any) -> Any:
        result = Vector(vector.element, len(pattern))
        return result(vector), lambda _c, b, _s, a: shuffle(b, a[0], a[0], pattern)

    return pick


@intrinsic
def concat(_context: Any, low: Any, high: Any) -> Any:
    """Two vectors of one type -> one of twice the lanes."""
    result = Vector(low.element, 2 * low.lanes)
    return result(low, high), lambda _c, b, s, a: shuffle(b, a[0], a[1], range(2 * s.args[0].lanes))


@intrinsic
def to_f32(_context: Any, vector: Any) -> Any:
    """i32 lanes -> float32 lanes."""
    result = Vector("f32", vector.lanes)
    return result(vector), lambda _c, b, s, a: b.sitofp(a[0], Vector("f32", s.args[0].lanes).llvm)


def _half_of_word(first_bit: int) -> Any:
    @intrinsic
    def half(_context: Any, vector: Any) -> Any:
        def generate(_c: Any, builder: Any, _s: Any, arguments: Any) -> Any:
            moved = builder.lshr(arguments[0], ir.Constant(i32x16.llvm, [first_bit] * 16))
            bits = builder.trunc(moved, vector_of(I16, 16))
            return builder.fpext(builder.bitcast(bits, vector_of(ir.HalfType(), 16)), f32x16.llvm)

        return f32x16(i32x16), generate

    return half


low_f16, high_f16 = _half_of_word(0), _half_of_word(16)  # the float16 in each i32 lane -> float32 lanes


@intrinsic
def to_i8(_context: Any, vector: Any) -> Any:
    """float32 lanes holding whole numbers in [-128, 127] -> i8 lanes."""

    def generate(_c: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = signature.args[0].lanes
        return builder.trunc(builder.fptosi(arguments[0], vector_of(I32, lanes)), vector_of(I8, lanes))

    return Vector("i8", vector.lanes)(vector), generate


@intrinsic
def u8_to_f32(_context: Any, vector: Any) -> Any:
    """Unsigned i8 lanes -> float32 lanes."""
    result = Vector("f32", vector.lanes)
    return result(vector), lambda _c, b, s, a: b.uitofp(a[0], Vector("f32", s.args[0].lanes).llvm)


@intrinsic
def u32x2_to_f32x8(_context: Any, low: Any, high: Any) -> Any:
    """Eight bytes in two 32-bit words -> eight unsigned values as float32."""

    def generate(_c: Any, builder: Any, _s: Any, arguments: Any) -> Any:
        words = ir.Constant(vector_of(I32, 2), ir.Undefined)
        for lane, word in enumerate(arguments):
            words = builder.insert_element(words, word, I32(lane))
        return builder.uitofp(builder.bitcast(words, vector_of(I8, 8)), f32x8.llvm)

    return f32x8(types.uint32, types.uint32), generate


def _reduction(combine: Callable[[Any, Any, Any], Any]) -> Any:
    @intrinsic
    def reduce(_context: Any, vector: Any) -> Any:
        def generate(_c: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            value, lanes = arguments[0], signature.args[0].lanes
            while lanes > 1:
                lanes //= 2
                low, high = range(lanes), range(lanes, 2 * lanes)
                value = combine(builder, shuffle(builder, value, value, low), shuffle(builder, value, value, high))
            return builder.extract_element(value, I32(0))

        return types.float32(vector), generate

    return reduce


sum_lanes = _reduction(lambda b, low, high: b.fadd(low, high))
max_lanes = _reduction(lambda b, low, high: call_llvm(b, f"llvm.maxnum.v{low.type.count}f32", low.type, [low, high]))


@intrinsic
def bits_to_f32(_context: Any, bits: Any) -> Any:
    """The low 32 bits of an integer operand, read as float32."""
    return types.float32(types.intp), lambda _c, b, _s, a: b.bitcast(b.trunc(a[0], I32), F32)


@intrinsic
def scale_by_power_of_two(_context: Any, vector: Any, exponent: Any) -> Any:
    """f32x16 * 2**exponent, the exponent given as whole float32 lanes in [-126, 127]."""

    def generate(_c: Any, builder: Any, _s: Any, arguments: Any) -> Any:
        whole = builder.fptosi(arguments[1], i32x16.llvm)
        biased = builder.shl(
            builder.add(whole, ir.Constant(i32x16.llvm, [127] * 16)), ir.Constant(i32x16.llvm, [23] * 16)
        )
        return builder.fmul(arguments[0], builder.bitcast(biased, f32x16.llvm))

    return f32x16(f32x16, f32x16), generate


def _constant(value: float) -> Any:
    @intrinsic
    def constant(_context: Any) -> Any:
        return f32x16(), lambda _c, _b, _s, _a: ir.Constant(f32x16.llvm, [value] * 16)

    return constant


_one, _low, _high = _constant(1.0), _constant(-87.0), _constant(88.0)
_log2e, _ln2_head, _ln2_tail = _constant(1.4426950408889634), _constant(0.693359375), _constant(-2.12194440e-4)
_c2, _c3, _c4, _c5, _c6 = (_constant(1 / n) for n in (2, 6, 24, 120, 720))


@inline
def exp(x):
    """exp of f32x16, within 2 ulp on [-87, 88], saturating outside (Cody and Waite's reduction, Taylor to x^6)."""
    x = minimum(maximum(x, _low()), _high())
    n = round_even(mul(x, _log2e()))
    r = sub(sub(x, mul(n, _ln2_head())), mul(n, _ln2_tail()))
    p = fma(_c6(), r, _c5())
    p = fma(p, r, _c4())
    p = fma(p, r, _c3())
    p = fma(p, r, _c2())
    p = fma(mul(r, r), p, add(r, _one()))
    return scale_by_power_of_two(p, n)


@inline
def sigmoid(x):
    """1 / (1 + exp(-x)) of f32x16."""
    return divide(_one(), add(_one(), exp(sub(zero_f32x16(), x))))


@inline
def silu(x):
    """x * sigmoid(x) of f32x16."""
    return mul(x, sigmoid(x))
