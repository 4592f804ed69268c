"""Block masks of attention: which blocks of positions a token attends to (block-sparse attention)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.jit import inline
from quant.kernels.softmax import LOWEST
from quant.layout import Layout
from quant.plan import Operand, Plan
from quant.simd import load_u8, store_f32


@dataclass(frozen=True)
class BlockMask:
    """Of the tokens of one replay: uint8 [tokens, blocks], 1 for a block of `block_size` positions that a token attends to."""

    blocks: NDArray[np.uint8]
    block_size: int


# The array, or 0 where tokens attend to all positions up to theirs; bytes from one token's row to the next.
BLOCK_MASK = Layout("blocks", "stride", "block_size")


def mask_table(plan: Plan, mask: BlockMask | None) -> Operand:
    """The BLOCK_MASK table of a mask; None: nothing is masked."""
    if mask is None:
        return plan.table(BLOCK_MASK, blocks=0, stride=0, block_size=1)
    return plan.table(BLOCK_MASK, blocks=mask.blocks, stride=mask.blocks.shape[1], block_size=mask.block_size)


@inline
def mask_scores(scores, last, blocks, block_size, position):
    """The first `last` scores, those of `position` and what follows <- LOWEST where a token's row `blocks` has a 0."""
    for p in range(last):
        if load_u8(blocks + (position + p) // block_size) == 0:
            store_f32(scores + 4 * p, LOWEST)
