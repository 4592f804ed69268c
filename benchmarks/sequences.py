"""How many tokens a second several texts get that are decoded together, and what bytes allow; how long they pause.

    python benchmarks/sequences.py MODEL [--texts 1,2,4,8,16] [--threads N] [--depth 128] [--steps 12] [--rounds 3]
                                   [--parts]
    python benchmarks/sequences.py MODEL --gap 1800 [--streams 4] [--max-gap 0.3] [--threads N] [--rounds 3]

MODEL: a file, or a shape and its number of layers, as in qwen3-next-80b-a3b:4, with random weights. Texts of random tokens,
each of another one. Bytes: dense weights are read once for all texts, experts once for those that are routed to them, and the
state of each text by itself. --parts: what each part of the model takes, too, with the clock read around every kernel. --gap:
the longest time between two tokens of some texts while a prompt of so many is read.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from time import perf_counter

import numpy as np

from qcli.bench import subject
from qcli.bench.random_weights import MIXES
from qcli.bench.rig import mean_expert_bytes
from qcli.bench.shapes import SHAPES
from qcli.catalog.resolve import resolve
from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine
from qcli.runtime.prefix_cache import PrefixCache
from qcli.runtime.sequences import Sequences
from qcli.runtime.side_by_side import Gap, SideBySide
from qcli.runtime.together import TextInSlot, Together

STEPS_OF_PARTS = 4


def file_of(model: str) -> GGUFFile:
    """A file by its name or the model's, or random weights of a shape."""
    name, _, layers = model.partition(":")
    if name not in SHAPES:
        return GGUFFile.open(resolve(model)[0])
    return subject.of_shape(SHAPES[name], MIXES["q4_k_m"], int(layers) if layers else None).file


class Times:
    """When the tokens of a text came."""

    wants_more = True

    def __init__(self) -> None:
        self.at: list[float] = []

    def progress(self, stage: str, fraction: float) -> None:
        """Nobody waits for it."""

    def heard(self, answer: object, piece: str) -> None:
        """A token."""
        self.at.append(perf_counter())

    def over(self, answer: object, problem: Exception | None) -> None:
        """Raises what went wrong."""
        if problem:
            raise problem


def text_of(text: TextInSlot, ids: list[int], chance: np.random.Generator, vocab_size: int) -> Iterator[str]:
    """A text of random tokens, as an answer is given in a slot."""
    text.prefill(ids)
    while True:
        yield "."
        text.step(int(chance.integers(vocab_size)))
        while text.logits_of_step() is None:
            yield ""


def measure_gap(
    engine: Engine, tokens: int, streams: int, most: float, rounds: int, chance: np.random.Generator
) -> None:
    """Tell how long streams pause while a prompt is read beside them, and how long that takes."""
    cache = PrefixCache(engine)
    together = Together(cache, streams + 1)
    side = SideBySide(together, Gap(most))

    def begin(length: int) -> Times:
        text, times = together.text(), Times()
        answer = text_of(text, chance.integers(0, engine.vocab_size, length).tolist(), chance, engine.vocab_size)
        together.begin(answer, answer, text)
        side.add(answer, times)
        return times

    began = perf_counter()
    cache.prefill(chance.integers(0, engine.vocab_size, tokens).tolist())
    print(
        f"{engine.threads} threads, {streams} streams, a prompt of {tokens:,} tokens: {perf_counter() - began:.2f} s alone"
    )
    for _ in range(rounds):
        heard = [begin(32) for _ in range(streams)]
        while min(len(times.at) for times in heard) < 10:
            side.go_on()
        began, prompt = perf_counter(), begin(tokens)
        while not prompt.at:
            side.go_on()
        took = perf_counter() - began
        for _ in range(3):
            side.go_on()
        since = [[at for at in times.at if at > began - 1.0] for times in heard]
        gaps = sorted(gap for at in since for gap in np.diff(at))
        steps = sum(at > began for at in heard[0].at)
        print(f"longest pause {gaps[-1]:.3f} s, {took:.2f} s beside them, {steps} tokens of each meanwhile", flush=True)
        side.end()
        together = Together(cache, streams + 1)
        side = SideBySide(together, Gap(most))
    began = perf_counter()
    cache.prefill(chance.integers(0, engine.vocab_size, tokens).tolist())
    print(f"{perf_counter() - began:.2f} s alone")


def tell_parts(engine: Engine, sequences: Sequences, counts: list[int], chance: np.random.Generator) -> None:
    """Tell the milliseconds of a step by part, at work and waiting for other threads, for each number of texts."""
    found: dict[int, dict[str, tuple[float, float]]] = {}
    for count in counts:
        with engine.profile() as times:
            for _ in range(STEPS_OF_PARTS):
                sequences.step(dict(enumerate(chance.integers(0, engine.vocab_size, count).tolist())))
        found[count] = {
            part: (1e3 * work / STEPS_OF_PARTS, 1e3 * wait / STEPS_OF_PARTS)
            for part, (work, wait) in times.by_part().items()
        }
    print("ms of a step" + "".join(f"{count:>16d}" for count in counts))
    for part in found[counts[0]]:
        pairs = (found[count].get(part, (0.0, 0.0)) for count in counts)
        print(f"{part:16}" + "".join(f"{work:8.3f} +{wait:6.3f}" for work, wait in pairs))


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--texts", default="1,2,4,8,16")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--depth", type=int, default=128)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--gap", type=int)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--max-gap", type=float, default=0.3)
    given = parser.parse_args()
    counts = [int(count) for count in given.texts.split(",")]
    file, chance = file_of(given.model), np.random.default_rng(1)
    if given.gap:
        engine = Engine.load(file, threads=given.threads, ctx=given.gap + 200, mtp=True)
        measure_gap(engine, given.gap, given.streams, given.max_gap, given.rounds, chance)
        engine.close()
        return
    engine = Engine.load(
        file,
        threads=given.threads,
        ctx=given.depth + 2 + len(counts) * (given.rounds * (given.steps + 1) + STEPS_OF_PARTS),
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
    if given.parts:
        tell_parts(engine, sequences, counts, chance)
    engine.close()


if __name__ == "__main__":
    main()
