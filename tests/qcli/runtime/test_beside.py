"""Kernels that are compiled beside: what waits for them, and what does without."""

from __future__ import annotations

from contextlib import closing

from fake_engine import FakeEngine

from qcli.gguf.file import GGUFFile
from qcli.runtime import programs
from qcli.runtime.engine import Engine
from qcli.runtime.prefix_cache import PrefixCache
from quant.kernels.attend_tiles import attend_tiles_rows
from quant.kernels.attend_token import attend_blocks
from quant.kernels.matmul import matmul_few


def test_a_prompt_needs_none_of_a_step(monkeypatch, storyteller):
    asked, prepare = [], programs.kernels.prepare

    def note(needed, progress, later=()):
        asked.append((needed, later))
        prepare(needed, progress, later)

    monkeypatch.setattr(programs.kernels, "prepare", note)
    with GGUFFile.open(storyteller) as file, closing(Engine.load(file, threads=1, ctx=64, beside=True)) as engine:
        ((needed, (of_step, of_several)),) = asked
        assert attend_tiles_rows in needed
        assert attend_blocks not in needed
        assert attend_blocks in of_step
        assert matmul_few in of_several
        beside = engine.prefill([5, 6, 7]).copy(), engine.step(8).copy()
        assert len(asked) == 2
        assert engine.ready_to_step() is engine.programs.step
        assert len(asked) == 2
    with GGUFFile.open(storyteller) as file, closing(Engine.load(file, threads=1, ctx=64)) as engine:
        assert len(asked) == 4
        assert (engine.prefill([5, 6, 7]) == beside[0]).all()
        assert (engine.step(8) == beside[1]).all()


def test_nothing_is_guessed_while_kernels_for_that_are_coming():
    class Programs:
        several_are_coming = True

    engine = FakeEngine()
    engine.most_tokens, engine.programs = 8, Programs()
    cache = PrefixCache(engine)
    assert cache.room == 1
    Programs.several_are_coming = False
    assert cache.room == 8
