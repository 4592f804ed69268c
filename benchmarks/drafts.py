"""What guessing ahead costs, and what it gains.

    python benchmarks/drafts.py steps MODEL [--threads N] [--rounds 15] [--depth 256]
    python benchmarks/drafts.py copy MODEL [--threads N] [--rounds 5] [--file FILE] [--old NAME] [--new NAME]
    python benchmarks/drafts.py prose MODEL [--threads N] [--rounds 50]

steps: the time of a step of several random tokens, as a multiple of a step of one, and what bytes allow: experts that several
tokens are routed to are read once. copy: a model is asked for a file with a name changed; as small models make mistakes, the
answer is begun by the file's first lines. prose: short stories. Both with drafts and without, in turns: the texts are the same.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from qcli import LLM
from qcli.bench.rig import mean_expert_bytes
from qcli.runtime.build import STEP_TOKENS

WIDTHS = [1, 2, 3, 4, STEP_TOKENS]


def steps(llm: LLM, rounds: int, depth: int) -> None:
    """The time of steps of several tokens."""
    engine, chance = llm.engine, np.random.default_rng(1)
    engine.prefill(chance.integers(0, engine.vocab_size, depth).tolist())
    times: dict[int, list[float]] = {width: [] for width in WIDTHS}
    touched: dict[int, list[int]] = {width: [] for width in WIDTHS}
    for _ in range(rounds + 1):
        for width in WIDTHS:
            ids = chance.integers(0, engine.vocab_size, width).tolist()
            engine.state.clear_touched()
            began = perf_counter()
            engine.step(ids[0]) if width == 1 else engine.steps(ids)
            times[width].append(perf_counter() - began)
            touched[width].append(engine.state.experts_touched())
    one, expert, usual = statistics.median(times[1][1:]), mean_expert_bytes(llm.file), touched[1][0]
    size = engine.weight_bytes_per_step() + engine.state.bytes_per_step(depth)
    print(f"a step of one token: {one * 1e3:.2f} ms, {size / one / 1e9:.1f} GB/s; {engine.threads} threads")
    for width in WIDTHS[1:]:
        cost = sorted(time / one for time in times[width][1:])
        allowed = 1 + (statistics.mean(touched[width]) - usual) * expert / size
        print(f"  of {width}: {statistics.median(cost):.2f} ({cost[0]:.2f} to {cost[-1]:.2f}), bytes {allowed:.2f}")


def answers(llms: dict[str, LLM], ask: str, begun: str, rounds: int, max_tokens: int, temperature: float) -> None:
    """The same answers with drafts and without, in turns."""
    speeds: dict[str, list[float]] = {name: [] for name in llms}
    used: dict[str, list[float]] = {name: [] for name in llms}
    for i in range(rounds):
        texts = set()
        for name, llm in llms.items():
            prompt = llm.render([{"role": "user", "content": ask}]) + begun
            began = process_time()
            texts.add(
                "".join(llm.generate(prompt, max_tokens=max_tokens, seed=i, temperature=temperature, stop_loops=False))
            )
            used[name].append((process_time() - began) / max(1, llm.stats.new_tokens))
            speeds[name].append(llm.stats.decode_tok_per_s)
        assert len(texts) == 1, "drafts have changed a text"
    for name, llm in llms.items():
        ratios = sorted(speed / other for speed, other in zip(speeds[name], speeds["off"], strict=True))
        time = statistics.median(a / b for a, b in zip(used[name], used["off"], strict=True))
        print(
            f"  {name:>4}: {statistics.median(speeds[name]):7.1f} tok/s, {statistics.median(ratios):.2f} of off"
            f" ({ratios[0]:.2f} to {ratios[-1]:.2f}); processor time a token {time:.2f};"
            f" last: {llm.stats.guessed} guessed, {llm.stats.guessed_right} right,"
            f" {llm.stats.tokens_per_step:.1f} tokens a step"
        )


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["steps", "copy", "prose"])
    parser.add_argument("model")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--depth", type=int, default=256)
    parser.add_argument(
        "--file", type=Path, default=Path(__file__).parent.parent / "qcli" / "runtime" / "prefix_cache.py"
    )
    parser.add_argument("--old", default="PrefixCache")
    parser.add_argument("--new", default="TextCache")
    given = parser.parse_args()
    if given.what == "steps":
        with LLM(given.model, given.threads, ctx=4096, progress=False) as llm:
            steps(llm, given.rounds or 15, given.depth)
        return
    llms = {draft: LLM(given.model, given.threads, draft=draft, progress=False) for draft in ("off", "auto", "3", "7")}
    if given.what == "copy":
        text = given.file.read_text("utf-8")
        begun = text[: len(text) // 10].replace(given.old, given.new)
        ask = f"Write this file again, with {given.old} renamed to {given.new}, and nothing else:\n\n{text}"
        answers(llms, ask, begun, given.rounds or 5, 400, 0.0)
    else:
        answers(llms, "Tell me a short story about a fox.", "", given.rounds or 50, 120, 0.7)
    for llm in llms.values():
        llm.close()


if __name__ == "__main__":
    main()
