"""Experts of tokens, asked for by compiled code: the choice of slots is the twin's, and the bytes are the file's."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from scripted_reads import answer

from qcli.doctor.twins import slots as twin
from qcli.streaming.cached_layer import CachedLayer
from qcli.streaming.reader import Reader
from qcli.streaming.slots import growth
from quant import formats
from quant.batch import Batch
from quant.kernels.expert_loads import ARRIVALS, TOKEN
from quant.kernels.expert_requests import request_experts
from quant.kernels.experts import GatedExperts
from quant.kernels.router import Routing
from quant.plan import Plan, aligned
from quant.read_queue import PAGE
from quant.weights import ExpertMatrices

EXPERTS, K, SIDE = 12, 3, 32
SIZE = 4 * SIDE * SIDE


class Token:
    """A layer of experts in a file, and one token after the other that chooses some."""

    def __init__(self, path, slots: int) -> None:
        self.data = np.random.default_rng(1).integers(0, 256, 3 * EXPERTS * SIZE + 100, np.uint8)
        path.write_bytes(self.data.tobytes())
        self.offsets = [100 + part * EXPERTS * SIZE + SIZE * np.arange(EXPERTS) for part in range(3)]
        parts = [
            ExpertMatrices(np.zeros(EXPERTS, np.int64), formats.find("F32"), SIDE, SIDE, None, name) for name in "abc"
        ]
        source = SimpleNamespace(paths=[path], locate=lambda experts: (path, self.offsets["abc".index(experts.name)]))
        self.reader, self.counts = Reader([path], threads=3), np.zeros(len(TOKEN.names), np.int64)
        self.layer = CachedLayer(source, GatedExperts(*parts), self.reader, self.counts, K)
        self.layer.allocate(slots)
        self.arrivals = aligned(ARRIVALS.bytes // 8 + K, np.int64)
        self.touched, self.scratch = np.zeros(EXPERTS, np.uint8), np.zeros(1024, np.uint8)
        self.plan = Plan(1, 1, Batch())
        self.routing = Routing(K).table(self.plan, EXPERTS)
        self.plan.compile()

    def choose(self, experts) -> list[int]:
        """Have experts [K] asked for, and wait; gives their places in order of arrival."""
        logits, chosen, weights = np.zeros(16, np.float32), np.zeros(K, np.int64), np.zeros(K, np.float32)
        logits[experts] = range(K, 0, -1)
        words = (self.layer.table, logits, self.routing, chosen, weights, self.arrivals, self.touched, self.scratch, 0)
        request_experts(0, 1, *[word if isinstance(word, int) else word.ctypes.data for word in words])
        assert chosen.tolist() == list(experts)
        while self.arrivals[ARRIVALS.ready // 8] < K:
            pass
        return self.arrivals[ARRIVALS.places // 8 :][:K].tolist()

    def bytes_of(self, part: int, expert: int) -> bytes:
        """Where kernels find a matrix of an expert."""
        first = self.layer.matrices[part].experts.addresses[expert] - self.layer._memory.ctypes.data
        return self.layer._memory[first : first + SIZE].tobytes()


@pytest.mark.parametrize("slots", [K, 5, EXPERTS])
def test_tokens_find_their_experts_in_the_slots_of_the_twin(tmp_path, slots):
    rng, token = np.random.default_rng(slots), Token(tmp_path / "experts", slots)
    usage, weight, expert_in, hits = np.zeros(EXPERTS, np.float32), np.float32(1), slots * [twin.FREE], 0
    likely = np.arange(1, EXPERTS + 1) / sum(range(1, EXPERTS + 1))
    for _ in range(60):
        chosen = rng.choice(EXPERTS, K, replace=False, p=likely)
        usage, weight = twin.count_usage(usage, weight, chosen, K * [1], growth(K))
        there = [i for i, expert in enumerate(chosen) if expert in expert_in]
        for expert in chosen:
            if expert not in expert_in:
                expert_in[twin.find_slot(expert_in, usage, chosen)] = expert
        places = token.choose(chosen)
        assert places[: len(there)] == there
        assert sorted(places) == list(range(K))
        assert token.layer.slots.expert_in.tolist() == expert_in
        for expert in range(EXPERTS):
            assert token.layer.is_loaded(expert) == (expert in expert_in)
        for part in range(3):
            for expert in chosen:
                begin = token.offsets[part][expert]
                assert token.bytes_of(part, expert) == token.data[begin : begin + SIZE].tobytes()
        hits += len(there)
    token.reader.close()
    assert token.counts[TOKEN.hits // 8] == hits
    assert token.counts[TOKEN.misses // 8] == 60 * K - hits
    assert token.counts[TOKEN.bytes_read // 8] == (60 * K - hits) * 3 * SIZE
    assert token.layer.slot_bytes == 6 * PAGE
    assert not token.layer.slots.loading.any()


def test_a_token_waits_for_slots_that_others_are_read_into(tmp_path):
    token, gate = Token(tmp_path / "experts", K), threading.Event()

    def read(_descriptor, _address, size, _offset):
        gate.wait(10)
        return size

    answer(token.reader, read)
    for expert in (0, 1, 2):
        token.layer.begin_load(expert, (), urgent=False)
    with pytest.raises(LookupError):
        token.layer.begin_load(3, ())
    threading.Timer(0.05, gate.set).start()
    assert sorted(token.choose(np.array([3, 1, 4]))) == [0, 1, 2]
    assert {1, 3, 4} == set(token.layer.slots.expert_in.tolist())
    token.reader.close()
