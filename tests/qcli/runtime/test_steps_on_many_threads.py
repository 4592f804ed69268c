"""Steps of several tokens with more threads than there are rows to share, in memory and streamed: the bits of one thread's."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from streamed_engine import IDS, MODEL, streamed

from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine

PROMPT, TOGETHER = 20, (2, 3, 5, 8)


def by_steps(engine, widths):
    """Logits after each token behind a prompt, by steps of so many tokens in turn, all of which stay."""
    found, at = [engine.prefill(IDS[:PROMPT]).copy()], PROMPT
    for width in widths:
        ids = IDS[at : at + width]
        found += [engine.step(ids[0]).copy()] if width == 1 else [row.copy() for row in engine.steps(ids)]
        for _ in ids[1:]:
            engine.keep()
        at += width
    return np.array(found)


def resident(threads):
    return closing(Engine.load(GGUFFile.open(MODEL), threads=threads, ctx=256, chunk=64))


@pytest.mark.parametrize("threads", [1, 2, 16])
def test_the_bits_of_steps_of_one_token(threads, monkeypatch):
    with resident(1) as engine:
        expected = by_steps(engine, [1] * sum(TOGETHER))
    with resident(threads) as engine:
        assert np.array_equal(by_steps(engine, TOGETHER), expected)
    with closing(streamed(monkeypatch, 8, threads=threads)) as engine:
        widths = [min(width, engine.most_tokens) for width in TOGETHER]
        assert max(widths) > 1
        assert np.array_equal(by_steps(engine, widths), expected[: 1 + sum(widths)])
