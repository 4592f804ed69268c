"""How many tokens a second several texts get that are decoded together, and what bytes allow.

    python benchmarks/sequences.py MODEL [--texts 1,2,4,8,16] [--threads N] [--depth 128] [--steps 12] [--rounds 3]

Texts of random tokens, each of another one. Bytes: dense weights are read once for all texts, experts once for those that are
routed to them, and the state of each text by itself.
"""

from __future__ import annotations

import argparse
import statistics
from time import perf_counter

import numpy as np

from qcli.bench.rig import mean_expert_bytes
from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine
from qcli.runtime.sequences import Sequences


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--texts", default="1,2,4,8,16")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--depth", type=int, default=128)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    counts = [int(count) for count in given.texts.split(",")]
    file, chance = GGUFFile.open(given.model), np.random.default_rng(1)
    engine = Engine.load(
        file, threads=given.threads, ctx=given.depth + 2 + given.rounds * len(counts) * (given.steps + 1)
    )
    sequences = Sequences(engine, max(counts))
    for _ in range(max(counts)):
        engine.reset()
        engine.prefill(chance.integers(0, engine.vocab_size, given.depth).tolist())
        sequences.join()
    speeds: dict[int, list[float]] = {count: [] for count in counts}
    touched: dict[int, list[int]] = {count: [] for count in [1, *counts]}
    for _ in range(given.rounds):
        for count in counts:
            began = perf_counter()
            for step in range(given.steps + 1):
                tokens = dict(enumerate(chance.integers(0, engine.vocab_size, count).tolist()))
                engine.state.clear_touched()
                began = perf_counter() if step == 1 else began  # the first warms up
                sequences.step(tokens)
                touched[count].append(engine.state.experts_touched())
            speeds[count].append(count * given.steps / (perf_counter() - began))
    expert, state = mean_expert_bytes(file), engine.state.bytes_per_step(given.depth)
    dense = engine.weight_bytes_per_step() - touched[1][0] * expert if touched[1] else 0.0
    print(f"{file.path.name}: {engine.threads} threads, texts of {given.depth} tokens")
    print("texts  tokens/s  (least to most)  times one  bytes allow")
    for count in counts:
        found, alone = sorted(speeds[count]), statistics.median(speeds[counts[0]]) / counts[0]
        size = dense + statistics.mean(touched[count]) * expert + count * state
        allowed = count * (dense + touched[1][0] * expert + state) / size if touched[1] else float("nan")
        median = statistics.median(found)
        print(f"{count:5d}  {median:8.1f}  ({found[0]:.1f} to {found[-1]:.1f})  {median / alone:9.2f}  {allowed:11.2f}")
    engine.close()


if __name__ == "__main__":
    main()
