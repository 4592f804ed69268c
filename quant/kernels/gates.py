"""The activation functions between an expert's matrices, f(gate) * up or f(up), and the biases that may be added to both.

'silu'    silu(gate) * up (Shazeer, arXiv 2002.05202)
'gelu'    gelu(gate) * up, with tanh (Hendrycks and Gimpel, arXiv 1606.08415)
'clamped' gate' * sigmoid(1.702 gate') * (up' + 1), gate' = min(gate, 7) and up' = up in [-7, 7] (gpt-oss)
'relu2'   max(up, 0)^2, without a gate (So et al., arXiv 2109.08668)
"""

from __future__ import annotations

import numpy as np

from quant.jit import inline
from quant.simd import add, fma, load_f32, load_f32x16, maximum, minimum, mul, splat, store_f32, store_f32x16
from quant.vector_math import sigmoid, silu

GATES = {"silu": 0, "gelu": 1, "clamped": 2, "relu2": 3}
UNGATED = frozenset({"relu2"})


@inline
def _gelu(x):
    """x/2 * (1 + tanh(u)) = x * sigmoid(2 u), u = sqrt(2 / pi) * (x + 0.044715 x^3), of f32x16."""
    cube = mul(mul(x, x), x)
    u = fma(splat(np.float32(0.044715)), cube, x)
    return mul(x, sigmoid(mul(splat(np.float32(1.5957691216057308)), u)))


@inline
def _clamped(gate, up):
    limit, least = splat(np.float32(7)), splat(np.float32(-7))
    gate, up = minimum(gate, limit), maximum(minimum(up, limit), least)
    return mul(mul(gate, sigmoid(mul(splat(np.float32(1.702)), gate))), add(up, splat(np.float32(1))))


@inline
def gated(gate, up, kind):
    """f(gate) * up, or f(up), of f32x16; kind: a number of GATES."""
    if kind == 1:
        return mul(_gelu(gate), up)
    if kind == 2:
        return _clamped(gate, up)
    if kind == 3:
        positive = maximum(up, splat(np.float32(0)))
        return mul(positive, positive)
    return mul(silu(gate), up)


@inline
def scale_whole(y, factor, count):
    """y *= factor, float32 [count], a multiple of 16."""
    for c in range(0, 4 * count, 64):
        store_f32x16(y + c, mul(load_f32x16(y + c), splat(factor)))


@inline
def add_whole(y, bias, count):
    """y += bias, float32 [count], a multiple of 16."""
    for c in range(0, 4 * count, 64):
        store_f32x16(y + c, add(load_f32x16(y + c), load_f32x16(bias + c)))


@inline
def add_scaled(y, bias, factor, count):
    """y += factor * bias, float32 [count]; rounded twice, as single numbers at the end of a share are."""
    whole = count // 16 * 16
    for c in range(0, 4 * whole, 64):
        store_f32x16(y + c, add(load_f32x16(y + c), mul(splat(factor), load_f32x16(bias + c))))
    for i in range(whole, count):
        store_f32(y + 4 * i, load_f32(y + 4 * i) + factor * load_f32(bias + 4 * i))
