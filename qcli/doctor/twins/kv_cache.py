"""The plain twin of quant.kernels.kv_cache."""

from __future__ import annotations

import numpy as np

from qcli.doctor.twins.activation import quantize
from qcli.doctor.twins.functions import Array


def rows(cache: Array, width: int, first: int = 0) -> Array:
    """What a cache [heads, context, row] holds, float64 [heads, context, width]; first: columns with another scale, of i16."""
    if cache.dtype in (np.float16, np.float32):
        return cache.astype(np.float64)
    if cache.dtype == np.int16:
        scales = np.ascontiguousarray(cache[..., width:]).view(np.float32).astype(np.float64)
        return cache[..., :width] * np.where(np.arange(width) < first, scales[..., -1:], scales[..., :1])
    q = cache[..., :width].view(np.int8).astype(np.float64)
    d = np.ascontiguousarray(cache[..., width:]).view(np.float32)
    return q * np.repeat(d, 32, axis=-1)


def stored(x: Array, quantized: bool) -> Array:
    """What a cache will hold of float32 [..., width]."""
    if not quantized:
        return x.astype(np.float16).astype(np.float64)
    q, d = quantize(x)
    return (q.astype(np.float64) * d).reshape(x.shape)


def stored_whole(x: Array) -> Array:
    """What a cache of the kind i16 will hold of float32 [..., width]."""
    most = np.abs(x).max(axis=-1, keepdims=True)
    inverse = np.divide(np.float32(32767), most, out=np.zeros_like(most), where=most > 0)
    return np.rint(x * inverse).astype(np.float64) * (most / np.float32(32767))


def fill(cache: Array, x: Array, first: int = 0) -> None:
    """Write float32 [heads, context, width] into a cache [heads, context, row]; first: see `rows`."""
    width = x.shape[-1]
    if cache.dtype in (np.float16, np.float32):
        cache[:] = x
    elif cache.dtype == np.int16:
        parts = ([x[..., first:]] if first < width else []) + ([x[..., :first]] if first else [])
        most = np.stack([np.abs(part).max(axis=-1) for part in parts], axis=-1)  # that of the first columns comes last
        d = (most / np.float32(32767)).astype(np.float32)
        columns = np.where(np.arange(width) < first, d[..., -1:], d[..., :1])
        cache[..., :width] = np.rint(x / columns)
        cache[..., width:] = d.view(np.int16)
    else:
        q, d = quantize(x)
        cache[..., :width] = q.astype(np.int8).reshape(x.shape).view(np.uint8)
        cache[..., width:] = np.ascontiguousarray(d[..., 0]).view(np.uint8)
