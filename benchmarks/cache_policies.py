"""How often experts would be found in memory, by the rule that says which of them leaves it.

    python benchmarks/cache_policies.py MODEL TEXT_FILE [tokens]

Records which experts each token of a text is routed to, and replays the record against caches of several sizes: LRU (the one
unused for longest leaves), qcli's own (the least used, with usage that halves every 2560 choices), counts that never fade, and
Belady's, which knows the future: the one asked for again last, or never.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np

from qcli import LLM
from qcli.streaming.slots import HALF_LIFE

Trace = list[list[int]]  # the experts of each token, in one layer


def record(model: str, text: str, tokens: int) -> list[Trace]:
    """Of each layer, decoding token by token."""
    with LLM(model) as llm:
        engine = llm.engine
        traces: list[Trace] = [[] for _ in engine.state._touched]
        for id_ in llm.tokenize(text)[:tokens]:
            engine.state.clear_touched()
            engine.step(id_)
            for trace, marks in zip(traces, engine.state._touched, strict=True):
                trace.append(np.flatnonzero(marks).tolist())
    return traces


def lru(trace: Trace, slots: int) -> int:
    cached: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for experts in trace:
        hits += sum(expert in cached for expert in experts)
        for expert in experts:
            cached[expert] = None
            cached.move_to_end(expert)
        while len(cached) > slots:
            cached.popitem(last=False)
    return hits


def least_used(trace: Trace, slots: int, half_life: float = HALF_LIFE) -> int:
    cached, usage, weight, hits = set(), {}, 1.0, 0
    for experts in trace:
        for expert in experts:
            usage[expert] = usage.get(expert, 0.0) + weight
        weight *= 2.0 ** (len(experts) / half_life)
        hits += sum(expert in cached for expert in experts)
        cached |= set(experts)
        for expert in sorted(cached - set(experts), key=usage.__getitem__)[: max(0, len(cached) - slots)]:
            cached.remove(expert)
    return hits


def belady(trace: Trace, slots: int) -> int:
    following: dict[int, list[int]] = {}
    for t in range(len(trace) - 1, -1, -1):
        for expert in trace[t]:
            following.setdefault(expert, []).append(t)
    cached, hits = set(), 0
    for experts in trace:
        for expert in experts:
            following[expert].pop()
        hits += sum(expert in cached for expert in experts)
        cached |= set(experts)
        later = sorted(cached, key=lambda e: following[e][-1] if following[e] else len(trace))
        cached = set(later[:slots])
    return hits


RULES = {
    "LRU": lru,
    "qcli": least_used,
    "half-life 400": lambda trace, slots: least_used(trace, slots, 400),
    "half-life 16000": lambda trace, slots: least_used(trace, slots, 16_000),
    "never fades": lambda trace, slots: least_used(trace, slots, 1e9),
    "Belady": belady,
}


def main(model: str, text_file: str, tokens: str = "2000") -> None:
    traces = record(model, Path(text_file).read_text(encoding="utf-8"), int(tokens))
    count = 1 + max(expert for trace in traces for experts in trace for expert in experts)
    asked = sum(len(experts) for trace in traces for experts in trace)
    print(f"{len(traces)} layers, {len(traces[0])} tokens, {asked} experts asked for")
    print(f"{'slots of ' + str(count):>14}" + "".join(f"{name:>17}" for name in RULES))
    for share in (0.2, 0.3, 0.4, 0.5, 0.6, 0.8):
        slots = max(len(traces[0][0]), round(share * count))
        rates = [sum(rule(trace, slots) for trace in traces) / asked for rule in RULES.values()]
        print(f"{slots:>14}" + "".join(f"{rate:>17.1%}" for rate in rates))


if __name__ == "__main__":
    main(*sys.argv[1:])
