"""ggml's tensor types: how many weights a block has, and how many bytes; all others count on these numbers."""

from __future__ import annotations

from quant.block import Block, declared

# Types that files may hold and qcli does not compute with: enough is known of them to list their tensors.
_WITHOUT_FORMAT = (
    Block("Q8_1", number=9, columns=32, all=40),
    Block("Q8_K", number=15, columns=256, all=292),
    Block("I8", number=24, columns=1, all=1),
    Block("I16", number=25, columns=1, all=2),
    Block("I32", number=26, columns=1, all=4),
    Block("I64", number=27, columns=1, all=8),
    Block("F64", number=28, columns=1, all=8),
    Block("Q1_0", number=41, columns=128, all=18),
)

BLOCKS: dict[str, Block] = {block.name: block for block in _WITHOUT_FORMAT} | declared()
BLOCKS_BY_NUMBER: dict[int, Block] = {block.number: block for block in BLOCKS.values()}  # the numbers that files carry
