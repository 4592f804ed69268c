"""What to measure: every combination of sizes, depths, threads and chunks, named as llama-bench names them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np

from qcli.errors import UsageError


@dataclass(frozen=True)
class Case:
    """Prefill of a prompt ("pp") or decoding token by token ("tg"), after `depth` tokens."""

    kind: Literal["pp", "tg"]
    tokens: int
    depth: int
    threads: int
    batch: int  # tokens of a prompt taken together; 0: as many as the engine chooses

    @property
    def name(self) -> str:
        """pp512, tg64, tg64 @ d4096."""
        return f"{self.kind}{self.tokens}" + (f" @ d{self.depth}" if self.depth else "")


def numbers(option: str, text: str, least: int, most: int = 1 << 20) -> list[int]:
    """A comma-separated list of whole numbers, each once; UsageError names the option."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(least <= number <= most for number in found):
        hint = f"give whole numbers from {least} to {most}, with commas between them"
        raise UsageError(f"{option} cannot be {text!r}", hint)
    return list(dict.fromkeys(found))


def combinations(
    prompts: list[int], answers: list[int], depths: list[int], threads: list[int], batches: list[int]
) -> list[Case]:
    """All cases, prefill before decoding; a size of 0 leaves its cases out."""
    kinds: list[tuple[Literal["pp", "tg"], list[int]]] = [("pp", prompts), ("tg", answers)]
    cases = [
        Case(kind, size, depth, count, batch)
        for count, batch, depth in product(threads, batches, depths)
        for kind, sizes in kinds
        for size in sizes
        if size
    ]
    if not cases:
        raise UsageError("there is nothing to measure", "give -p or -n a size above 0, as in -p 512 -n 64")
    return cases


def context_of(cases: list[Case]) -> int:
    """The context that all cases need, in tokens."""
    return max(case.depth + case.tokens for case in cases)


def random_ids(vocabulary: int, count: int, seed: int) -> list[int]:
    """Token ids that follow no text: they are routed to more experts than a text's."""
    ids: list[int] = np.random.default_rng(seed).integers(0, vocabulary, count).tolist()
    return ids
