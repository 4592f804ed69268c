"""What states on disk cost a turn: bytes written, and how fast they are written and read.

    python benchmarks/state_store.py [layers [tokens [turns]]]

Random numbers in the shapes of Qwen3-Next 80B-A3B, of which every fourth layer has keys and values and the others a recurrent
state. A conversation of so many tokens, in so many turns, is written and read in a temporary folder below QCLI_CACHE_DIR or
the usual one; what is read comes from the memory of the system, not from the disk.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from time import perf_counter, thread_time

import numpy as np

from qcli.host import folders
from qcli.runtime.checkpoint import Checkpoint
from qcli.runtime.state_store import StateStore

HEADS, HEAD = 2, 256  # of keys and values, float16
STATE, CONVOLUTION = (32, 128, 128), (3, 8192)  # float32
VOCAB = 151_936


def main(layers: int = 48, tokens: int = 4096, turns: int = 8) -> None:
    caches = [np.zeros((HEADS, tokens, HEAD), np.float16) for _ in range(layers // 4 * 2)]
    generator = np.random.default_rng(0)
    for cache in caches:
        cache.view(np.uint16)[:] = generator.integers(0, 1 << 16, cache.shape, np.uint16)
    shapes = [shape for _ in range(layers - layers // 4) for shape in (STATE, CONVOLUTION)]
    recurrent = tuple(generator.random(shape, np.float32) for shape in shapes)
    ids, logits = tuple(generator.integers(0, VOCAB, tokens).tolist()), generator.random(VOCAB, np.float32)

    def rows(a: int, b: int) -> list[np.ndarray]:
        return [cache[:, a:b] for cache in caches]

    folders.some_cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folders.some_cache()) as place:
        folder = Path(place) / "states" / "bench"
        store = StateStore(folder, 1 << 60, Checkpoint(ids, recurrent, logits))
        before = 0
        for turn in range(1, turns + 1):
            end = tokens * turn // turns
            began, busy = perf_counter(), thread_time()
            store.save(Checkpoint(ids[:end], recurrent, logits), rows)
            busy = thread_time() - busy
            store.wait()
            took, total = perf_counter() - began, sum(path.stat().st_size for path in folder.iterdir())
            written, before = total - before, total
            told = f"{written / 1e6:.1f} MB at {written / took / 1e6:,.0f} MB/s; the caller took {busy * 1e3:.2f} ms"
            print(f"turn {turn}, {end} tokens: {told}")
        store.close()
        began = perf_counter()
        assert store.read(ids, rows, ())
        took = perf_counter() - began
        n_bytes = sum(array.nbytes for array in (*caches, *recurrent, logits))
        print(f"on disk: {total / 1e6:.1f} MB; read back: {n_bytes / 1e6:.1f} MB in {took:.3f} s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
