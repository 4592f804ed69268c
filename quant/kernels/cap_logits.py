"""Logits held within a limit: softcap * tanh(logit / softcap) (Gemma 2, arXiv 2408.00118, section 2)."""

from __future__ import annotations

from quant.jit import kernel
from quant.kernels.partition import start_of
from quant.kernels.softmax import cap
from quant.plan import Activation, Plan
from quant.simd import bits_to_f32, load_f32x16, store_f32x16


@kernel
def cap_rows(rank, size, x, tokens, stride, softcap):
    """Every token's row, padded to 16 columns, in place; threads share all columns."""
    limit, groups = bits_to_f32(softcap), tokens * stride // 64
    for group in range(start_of(rank, size, groups), start_of(rank + 1, size, groups)):
        store_f32x16(x + 64 * group, cap(load_f32x16(x + 64 * group), limit))


def cap_logits(plan: Plan, logits: Activation, softcap: float) -> None:
    """softcap * tanh(x / softcap) of logits float32 [tokens, n], in place."""
    if not softcap > 0:
        raise ValueError(f"logits within {softcap}")
    plan.add(cap_rows, logits.read("f32"), logits.tokens, logits.stride("f32"), float(softcap))
