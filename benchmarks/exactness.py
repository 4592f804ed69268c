"""How near is every architecture to float32? A table of all reference models in a folder.

    python benchmarks/exactness.py FOLDER [NAME ...] [--kv-type f16] [--threads N] > table.md

FOLDER has pairs of NAME.gguf and NAME.npz: `ids` int [T], `logits` float32 after each of them (or after those at
`positions`), and `greedy`, whose first `greedy_prompt_len` ids (32 if it is not there) are a prompt. Errors are those of a
token, the largest difference over the largest logit: of the worst token, and the median. A text is read as a whole, in chunks
of 32; by steps of one token; in pieces of 3 and 8. The rest must be equal to the bit: steps of several tokens to steps of one;
experts that are streamed, with one slot more than a token needs, to experts in memory; and steps from a checkpoint at every
position, gone back to in any order with another text between, to those of a text that never left. Where it is not, or an error
is above 1e-3 (median 5e-4), or the greedy text is another one, the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcli.gguf.file import GGUFFile
from qcli.runtime.build import streamed_model_of
from qcli.runtime.engine import Engine
from qcli.runtime.prefix_cache import PrefixCache

WORST, MEDIAN, CHUNK, CTX = 1e-3, 5e-4, 32, 128
HEADER = (
    "| model | whole: worst | median | steps: worst | median | pieces of 3 | of 8 | greedy text | several a step | streamed "
    "| checkpoints |\n"
)
RULE = "|---|--:|--:|--:|--:|--:|--:|---|---|---|---|\n"


class Reference:
    """Ids, what is to come after them, and a greedy text."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as arrays:
            self.ids: list[int] = arrays["ids"].tolist()
            self.logits = arrays["logits"]
            self.positions = arrays["positions"] if "positions" in arrays else np.arange(len(self.ids))
            self.greedy: list[int] = arrays["greedy"].tolist()
            self.prompt = int(arrays["greedy_prompt_len"]) if "greedy_prompt_len" in arrays else 32

    def errors(self, found: NDArray[np.float32], size: int = 1) -> NDArray[np.float64]:
        """Of each token, given the logits after every `size` ids."""
        at = np.arange(len(self.ids))[size - 1 :: size][: len(found)]
        _, here, there = np.intersect1d(at, self.positions, return_indices=True)
        expected = self.logits[there].astype(np.float64)
        return np.abs(found[here] - expected).max(axis=1) / np.abs(expected).max(axis=1)


def pieces(engine: Engine, ids: list[int], size: int) -> NDArray[np.float32]:
    """The logits after every `size` ids, which are taken together."""
    engine.reset()
    return np.stack([engine.prefill(ids[i : i + size]).copy() for i in range(0, len(ids) // size * size, size)])


def greedy(engine: Engine, reference: Reference) -> bool:
    """Whether the likeliest tokens are those of the reference."""
    engine.reset()
    found = reference.greedy[: reference.prompt]
    logits = engine.prefill(found)
    for _ in reference.greedy[reference.prompt :]:
        found.append(int(logits.argmax()))
        logits = engine.step(found[-1])
    return found == reference.greedy


def several(engine: Engine, ids: list[int], alone: NDArray[np.float32]) -> bool:
    """Whether steps of several tokens, of which one, two, ... stay, give what steps of one do."""
    engine.reset()
    done, stay = 0, 1
    while done + engine.most_tokens <= len(ids):
        found = engine.steps(ids[done : done + engine.most_tokens])
        if not np.array_equal(found, alone[done : done + engine.most_tokens]):
            return False
        for _ in range(stay - 1):
            engine.keep()
        done, stay = done + stay, stay % engine.most_tokens + 1
    return True


def checkpoints(engine: Engine, ids: list[int], alone: NDArray[np.float32]) -> bool:
    """Whether a step from a checkpoint at any position gives what it gives in a text that never left."""
    engine.reset()
    cache, other = PrefixCache(engine), ids[::-1]
    kept = []
    for i, token in enumerate(ids):
        if not np.array_equal(cache.step(token), alone[i]):
            return False
        kept.append(cache.checkpoint())
    order = np.random.default_rng(0).permutation(len(ids) - 1).tolist()
    for count, at in enumerate(order):
        if count % 8 == 0:
            cache.prefill(other[: 1 + count])
        cache.restore(kept[at])
        if not np.array_equal(cache.step(ids[at + 1]), alone[at + 1]):
            return False
    return True


def streamed(file: GGUFFile, resident: Engine, reference: Reference, kv_type: str) -> bool | None:
    """Whether a model whose experts are read when they are needed gives the same; None if it has none."""
    if not resident.experts_total:
        return None
    model, state, loader = streamed_model_of(file, CTX, kv_type, None)
    engine = Engine(model, state, resident.threads, CHUNK, expert_loader=loader)
    loader.allocate(min(loader.experts_per_token + 1, loader.max_slots))
    same = np.array_equal(engine.logits(reference.ids), resident.logits(reference.ids))
    for piece in (1, 8):
        same = same and np.array_equal(pieces(engine, reference.ids, piece), pieces(resident, reference.ids, piece))
    engine.close()
    return same


def row(name: str, path: Path, reference: Reference, kv_type: str, threads: int | None) -> tuple[str, bool]:
    """A row of the table, and whether all is as it should be."""
    file = GGUFFile.open(path)
    engine = Engine.load(file, threads=threads, ctx=CTX, chunk=CHUNK, kv_type=kv_type)
    alone = pieces(engine, reference.ids, 1)
    whole, steps = reference.errors(engine.logits(reference.ids)), reference.errors(alone)
    by = [reference.errors(pieces(engine, reference.ids, size), size).max() for size in (3, 8)]
    told = [greedy(engine, reference), several(engine, reference.ids, alone)]
    told += [streamed(file, engine, reference, kv_type), checkpoints(engine, reference.ids, alone)]
    engine.close()
    figures = [whole.max(), np.median(whole), steps.max(), np.median(steps), *by]
    good = max(whole.max(), steps.max(), *by) <= WORST and max(figures[1], figures[3]) <= MEDIAN
    words = (("-" if fact is None else "equal" if fact else "**another**") for fact in told)
    return f"| {name} | {' | '.join(f'{x:.1e}' for x in figures)} | {' | '.join(words)} |\n", good and False not in told


def rows(folder: Path, names: list[str], kv_type: str, threads: int | None) -> Iterator[tuple[str, bool]]:
    """A row for each model, or each of these names."""
    for path in sorted(folder.glob("*.npz")):
        if path.with_suffix(".gguf").exists() and (not names or path.stem in names):
            yield row(path.stem, path.with_suffix(".gguf"), Reference(path), kv_type, threads)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--kv-type", default="f16")
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    print(HEADER + RULE, end="", flush=True)
    good = True
    for line, as_it_should in rows(given.folder, given.names, given.kv_type, given.threads):
        print(line, end="", flush=True)
        good = good and as_it_should
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
