"""What guessing ahead costs, and what it gains.

    python benchmarks/drafts.py steps MODEL [--threads N] [--ram SIZE] [--rounds 15] [--depth 256]
    python benchmarks/drafts.py shape [NAME] [--layers 4] [--quant q4_k_m] [--threads N] [--rounds 15] [--depth 256]
    python benchmarks/drafts.py stories [MODEL] [--threads N] [--rounds 20]
    python benchmarks/drafts.py prose MODEL [--threads N] [--ram SIZE] [--rounds 50]
    python benchmarks/drafts.py copy MODEL [--threads N] [--rounds 5] [--file FILE] [--old NAME] [--new NAME]

steps: the time of a step of several random tokens, as a multiple of a step of one, and what bytes allow: experts that several
tokens are routed to are read once. shape: the same of a known shape with random weights and a block for multi-token
prediction (qwen3-next-80b-a3b), the time of that block's guesses, and what both give for all layers, by how many guesses come
true. stories: the embedded model's, with its own head. prose: stories of any model, where there is little to guess. copy: a
model is asked for a file with a name changed; as small models make mistakes, the answer is begun by the file's first lines.
The last three with drafts and without, in turns: the texts are the same.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from qcli import LLM
from qcli.bench.estimate import whole_seconds
from qcli.bench.random_weights import find_mix, random_file
from qcli.bench.rig import mean_expert_bytes
from qcli.bench.shapes import find_shape
from qcli.gguf.file import GGUFFile
from qcli.runtime.build import STEP_TOKENS
from qcli.runtime.engine import Engine

WIDTHS = [1, 2, 3, 4, 5, STEP_TOKENS]
ACCEPTED = [0.5, 0.7, 0.85]  # of guesses, each after others that came true
WHO = [
    "fox",
    "crow",
    "king",
    "queen",
    "mouse",
    "lion",
    "girl",
    "boy",
    "cat",
    "dog",
    "bear",
    "bird",
    "frog",
    "owl",
    "wolf",
]
WHO += ["hen", "sheep", "farmer", "tailor", "giant"]


def take(engine: Engine, ids: list[int]) -> float:
    """Seconds of a step of these tokens, of which the first stays."""
    began = perf_counter()
    engine.step(ids[0]) if len(ids) == 1 else engine.steps(ids)
    return perf_counter() - began


def steps(engine: Engine, file: GGUFFile, rounds: int, depth: int) -> dict[int, float]:
    """The time of steps of several tokens; by their number, the bytes of experts that they read more than a step of one."""
    chance = np.random.default_rng(1)
    engine.prefill(chance.integers(0, engine.vocab_size, depth).tolist())
    widths = [width for width in WIDTHS if width <= engine.most_tokens]
    times: dict[int, list[float]] = {width: [] for width in widths}
    touched: dict[int, list[int]] = {width: [] for width in widths}
    for _ in range(rounds + 1):
        for width in widths:
            ids = chance.integers(0, engine.vocab_size, width).tolist()
            engine.state.clear_touched()
            times[width].append(take(engine, ids))
            touched[width].append(engine.state.experts_touched())
    one, expert, usual = statistics.median(times[1][1:]), mean_expert_bytes(file), touched[1][0]
    size = engine.weight_bytes_per_step() + engine.state.bytes_per_step(depth)
    print(f"a step of one token: {one * 1e3:.2f} ms, {size / one / 1e9:.1f} GB/s; {engine.threads} threads")
    more = {width: (statistics.mean(touched[width]) - usual) * expert for width in widths}
    for width in widths[1:]:
        cost = sorted(time / one for time in times[width][1:])
        allowed = 1 + more[width] / size
        print(f"  of {width}: {statistics.median(cost):.2f} ({cost[0]:.2f} to {cost[-1]:.2f}), bytes {allowed:.2f}")
    return more


def whole_step(engine: Engine, name: str, layers: int, width: int, rounds: int) -> float:
    """Seconds of a step of so many random tokens of a shape with all its layers: the median."""
    chance, found = np.random.default_rng(width), []
    for _ in range(rounds):
        ids = chance.integers(0, engine.vocab_size, width).tolist()
        with engine.profile() as times:
            seconds = take(engine, ids)
        found.append(whole_seconds(find_shape(name), layers, seconds, times.by_part()))
    return statistics.median(found)


def draft_seconds(engine: Engine, rounds: int) -> tuple[float, float]:
    """Seconds of a guess of the model's own head, after a step of which a guess stays, and of each that follows: medians."""
    chance = np.random.default_rng(2)
    found: dict[int, list[float]] = {1: [], 4: []}
    for _ in range(rounds + 1):
        for count, seconds in found.items():
            ids = chance.integers(0, engine.vocab_size, 3).tolist()
            engine.steps(ids[:2])
            engine.keep()
            began = perf_counter()
            engine.draft(ids[2], count)
            seconds.append(perf_counter() - began)
    first, four = (statistics.median(seconds[1:]) for seconds in found.values())
    return first, (four - first) / 3


def shape(name: str, quant: str, layers: int, threads: int | None, rounds: int, depth: int) -> None:
    """Steps and guesses of a known shape, and what they give for all its layers."""
    known = find_shape(name)
    file = random_file(known, find_mix(quant), layers, mtp=True)
    engine = Engine.load(file, threads=threads, ctx=depth + 1024, mtp=True)
    more, times = steps(engine, file, rounds, depth), known.layers / layers
    size = times * (engine.weight_bytes_per_step() - engine.programs.head_bytes) + engine.programs.head_bytes
    size += times * engine.state.bytes_per_step(depth)
    first, next_one = draft_seconds(engine, rounds)
    costs = {width: whole_step(engine, name, layers, width, rounds) for width in range(1, 6)}
    engine.close()
    print(f"a guess of the head: {first * 1e3:.2f} ms, each that follows {next_one * 1e3:.2f} ms")
    print(f"all {known.layers} layers: a step of one token {costs[1] * 1e3:.1f} ms")
    for width in range(2, len(costs) + 1):
        print(f"  of {width}: {costs[width] / costs[1]:.2f}, bytes {1 + times * more[width] / size:.2f}")
    for accepted in ACCEPTED:
        gains = []
        for count in range(1, len(costs)):
            tokens = sum(accepted**i for i in range(count + 1))
            gains.append(tokens * costs[1] / (costs[1 + count] + first + (count - 1) * next_one))
        told = ", ".join(f"{count} at a time {gain:.2f}" for count, gain in enumerate(gains, 1))
        print(f"  {accepted:.0%} of guesses accepted: {told} times as fast")


@dataclass
class Measured:
    """Answers of one LLM: tokens a second, processor time a token, and guesses."""

    speeds: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)
    guessed: int = 0
    right: int = 0
    tokens: int = 0

    def add(self, llm: LLM, seconds: float) -> None:
        """The last answer; seconds: of processors."""
        stats = llm.stats
        self.speeds.append(stats.decode_tok_per_s)
        self.used.append(seconds / max(1, stats.new_tokens))
        self.guessed, self.right = self.guessed + stats.guessed, self.right + stats.guessed_right
        self.tokens += stats.decode_steps


def answers(llms: dict[str, LLM], asked: list[str], begun: str, max_tokens: int, temperature: float) -> None:
    """The same answers with drafts and without, in turns, which begin anew each time with another."""
    measured, names = {name: Measured() for name in llms}, list(llms)
    for i, ask in enumerate([asked[0], *asked]):  # the first one makes all ready, and does not count
        texts = set()
        for name in names[i % len(names) :] + names[: i % len(names)]:
            llm = llms[name]
            prompt, began = llm.render([{"role": "user", "content": ask}]) + begun, process_time()
            answer = llm.generate(prompt, max_tokens=max_tokens, seed=i, temperature=temperature, stop_loops=False)
            texts.add("".join(answer))
            if i:
                measured[name].add(llm, process_time() - began)
        assert len(texts) == 1, "drafts have changed a text"
    off = measured["off"]
    for name, one in measured.items():
        ratios = sorted(speed / other for speed, other in zip(one.speeds, off.speeds, strict=True))
        used = statistics.median(a / b for a, b in zip(one.used, off.used, strict=True))
        print(
            f"  {name:>6}: {statistics.median(one.speeds):7.1f} tok/s, {statistics.median(ratios):.3f} of off"
            f" ({ratios[0]:.2f} to {ratios[-1]:.2f}); processor time a token {used:.3f};"
            f" accepted {one.right / max(1, one.guessed):.0%} of {one.guessed} guesses,"
            f" {one.tokens / max(1, one.tokens - one.right):.2f} tokens a step"
        )


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["steps", "shape", "stories", "prose", "copy"])
    parser.add_argument("model", nargs="?")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--ram")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--depth", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--quant", default="q4_k_m")
    parser.add_argument(
        "--file", type=Path, default=Path(__file__).parent.parent / "qcli" / "runtime" / "prefix_cache.py"
    )
    parser.add_argument("--old", default="PrefixCache")
    parser.add_argument("--new", default="TextCache")
    given = parser.parse_args()
    if given.what == "shape":
        name = given.model or "qwen3-next-80b-a3b"
        shape(name, given.quant, given.layers, given.threads, given.rounds or 15, given.depth)
        return
    if given.what == "steps":
        with LLM(given.model, given.threads, ctx=given.depth + 1024, ram=given.ram, progress=False) as llm:
            steps(llm.engine, llm.file, given.rounds or 15, given.depth)
        return
    drafts = {"copy": ("off", "auto", "3", "7"), "stories": ("off", "auto", "mtp", "1", "2"), "prose": ("off", "auto")}
    llms = {
        draft: LLM(given.model, given.threads, ram=given.ram, draft=draft, progress=False)
        for draft in drafts[given.what]
    }
    if given.what == "copy":
        text = given.file.read_text("utf-8")
        begun = text[: len(text) // 10].replace(given.old, given.new)
        ask = f"Write this file again, with {given.old} renamed to {given.new}, and nothing else:\n\n{text}"
        answers(llms, [ask] * (given.rounds or 5), begun, 400, 0.0)
    else:
        rounds = given.rounds or {"stories": 20, "prose": 50}[given.what]
        answers(llms, [f"Tell me a short story about a {WHO[i % len(WHO)]}." for i in range(rounds)], "", 120, 0.7)
    for llm in llms.values():
        llm.close()


if __name__ == "__main__":
    main()
