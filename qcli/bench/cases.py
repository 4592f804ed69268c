"""What to measure: every combination of sizes, depths, threads and batch sizes, named as llama-bench names its tests."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np

from qcli.errors import UsageError
from qcli.wording import shortened


@dataclass(frozen=True)
class Case:
    """One test of llama-bench: prefill of a prompt ("pp") or decoding token by token ("tg"), after `depth` tokens."""

    kind: Literal["pp", "tg"]
    tokens: int
    depth: int
    threads: int
    batch: int  # tokens of a prompt that go through the layers together; 0: as many as the engine chooses

    @property
    def name(self) -> str:
        """pp512, tg64, tg64 @ d4096."""
        return f"{self.kind}{self.tokens}" + (f" @ d{self.depth}" if self.depth else "")


def numbers(option: str, text: str, least: int, most: int = 1 << 20) -> list[int]:
    """The whole numbers of a comma-separated list, without repetitions. Raises UsageError, which names the option."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(least <= number <= most for number in found):
        hint = f"give whole numbers from {least} to {most}, with commas between them"
        raise UsageError(f"{option} cannot be {shortened(text)!r}", hint)
    return list(dict.fromkeys(found))


def combinations(
    prompts: list[int], answers: list[int], depths: list[int], threads: list[int], batches: list[int]
) -> list[Case]:
    """A case for every combination, prefill before decoding; a prompt or an answer of 0 tokens makes none.

    Raises UsageError if there is no case at all.
    """
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
    """Tokens of context that are enough for every case."""
    return max(case.depth + case.tokens for case in cases)


def random_ids(vocab_size: int, count: int, seed: int) -> list[int]:
    """Random token ids; a router spreads them over more experts than the tokens of a text."""
    ids: list[int] = np.random.default_rng(seed).integers(0, vocab_size, count).tolist()
    return ids
