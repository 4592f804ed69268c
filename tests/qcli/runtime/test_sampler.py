"""The sampler: cases to solve on paper, the compiled draw against its twin, published random numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcli.doctor.twins import sample as twin
from qcli.errors import QcliError
from qcli.runtime.sampler import Sampler, Uniform, mask_words
from qcli.runtime.sampling import Sampling
from quant.kernels.sample import BLOCK, draw_token, forbid, highest

GREEDY = Sampling(temperature=0)
NEUTRAL = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def padded(logits):
    blocks = np.full((-(-len(logits) // BLOCK), BLOCK), -np.inf, np.float32)
    blocks.reshape(-1)[: len(logits)] = logits
    return blocks


def draw(logits, top_k, top_p, min_p, temperature, uniform):
    blocks = padded(logits)
    heap, peak = np.empty(blocks.size, np.int64), float(np.max(logits))
    filters = top_k, top_p, min_p, temperature, uniform
    return draw_token(highest.address, blocks.ctypes.data, len(blocks), heap.ctypes.data, peak, *filters)


def logits_of(*probabilities):
    return np.log(np.array(probabilities, np.float32))


def shares(sampling, logits, draws=4000):
    sampler = Sampler(sampling, len(logits))
    return np.bincount([sampler.sample(logits) for _ in range(draws)], minlength=len(logits)) / draws


def test_greedy_takes_the_highest_and_the_lowest_id_of_equals():
    assert Sampler(GREEDY, 4).sample(np.array([1, 3, 3, 2], np.float32)) == 1


def test_top_k_of_one_is_greedy_at_any_temperature():
    sampler = Sampler(Sampling(temperature=5, top_k=1, top_p=1), 4)
    assert {sampler.sample(np.array([1, 3, 3, 2], np.float32)) for _ in range(50)} == {1}


def test_a_top_k_beyond_every_integer_of_a_kernel_is_all():
    logits = np.random.default_rng(2).standard_normal(100).astype(np.float32)
    one, other = (Sampler(Sampling(top_k=k, top_p=1, min_p=0, seed=4), 100) for k in (0, 2**70))
    assert [one.sample(logits) for _ in range(50)] == [other.sample(logits) for _ in range(50)]


def test_draws_follow_the_probabilities():
    sampling = Sampling(**NEUTRAL, seed=1)
    assert shares(sampling, logits_of(0.5, 0.3, 0.2)) == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


def test_temperature_sharpens_after_the_filters():
    # top-p 0.75 of (0.6, 0.2, 0.2) keeps two; at temperature 0.5 their odds are 9 : 1
    sampling = Sampling(temperature=0.5, top_k=0, top_p=0.75, min_p=0, seed=2)
    assert shares(sampling, logits_of(0.6, 0.2, 0.2)) == pytest.approx([0.9, 0.1, 0.0], abs=0.02)


def test_min_p_is_relative_to_the_best():
    # 0.04 / 0.5 is below a tenth, 0.06 / 0.5 is not
    sampling = Sampling(temperature=1, top_k=0, top_p=1, min_p=0.1, seed=3)
    seen = shares(sampling, logits_of(0.5, 0.4, 0.06, 0.04))
    assert seen[2] > 0
    assert seen[3] == 0


def test_penalties_on_paper():
    sampling = Sampling(temperature=0, repeat_penalty=2, frequency_penalty=0.5, presence_penalty=0.25)
    sampler = Sampler(sampling, 4)
    for token in (0, 0, 1):
        sampler.accept(token)
    # 4 -> 4/2 - 2*0.5 - 0.25 = 0.75;  -1 -> -1*2 - 0.5 - 0.25 = -2.75
    assert sampler.sample(np.array([4, -1, 0.7, 0], np.float32)) == 0
    assert sampler.sample(np.array([4, -1, 0.8, 0], np.float32)) == 2
    assert sampler.sample(np.array([-9, -1, -2.7, -9], np.float32)) == 2
    assert sampler.sample(np.array([-9, -1, -2.8, -9], np.float32)) == 1


def test_penalties_forget_what_is_far_back():
    sampler = Sampler(Sampling(temperature=0, presence_penalty=9, penalty_last_n=2), 3)
    logits = np.array([3, 2, 1], np.float32)
    seen = []
    for _ in range(4):
        seen.append(sampler.sample(logits))
        sampler.accept(seen[-1])
    assert seen == [0, 1, 2, 0]


def test_logits_stay_as_they_are():
    logits = np.array([1, 2, 3], np.float32)
    logits.flags.writeable = False
    sampler = Sampler(Sampling(repeat_penalty=1.5, seed=0), 3)
    sampler.accept(2)
    sampler.sample(logits)
    assert logits.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("value", "said"), [(math.nan, "NaN"), (math.inf, "infinite"), (-math.inf, "no possible token")]
)
@pytest.mark.parametrize("sampling", [GREEDY, Sampling()])
def test_logits_without_a_best_are_refused(value, said, sampling):
    logits = np.full(100, -np.inf, np.float32)
    logits[70] = value
    with pytest.raises(QcliError, match=said):
        Sampler(sampling, 100).sample(logits)


def test_splitmix64_gives_its_published_numbers():
    numbers = Uniform(1234567)
    assert [numbers.bits() for _ in range(5)] == [
        6457827717110365317, 3203168211198807973, 9817491932198370423,
        4593380528125082431, 16408922859458223821,
    ]  # fmt: skip


def test_same_seed_same_tokens():
    logits = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    a, b = (Sampler(Sampling(seed=7), 1000) for _ in range(2))
    first = [a.sample(logits) for _ in range(30)]
    assert first == [b.sample(logits) for _ in range(30)]
    assert first != [Sampler(Sampling(seed=8), 1000).sample(logits) for _ in range(30)]


def test_without_a_seed_every_text_differs():
    logits = np.zeros(1000, np.float32)
    samplers = [Sampler(Sampling(), 1000) for _ in range(3)]
    assert len({tuple(sampler.sample(logits) for _ in range(8)) for sampler in samplers}) == 3


coarse = st.one_of(st.integers(-80, 40).map(lambda eighths: eighths / 8), st.just(-math.inf))


@st.composite
def cases(draw):
    size = draw(st.sampled_from([1, 2, 5, 63, 64, 65, 129, 700]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    logits = (rng.integers(-80, 40, size) / 8).astype(np.float32)  # eighths: many ties
    few = draw(st.lists(coarse, min_size=1, max_size=min(size, 8)))
    logits[rng.permutation(size)[: len(few)]] = few
    if not np.isfinite(logits.max()):
        logits[0] = 0
    return logits


@given(cases(), st.integers(1, 800))
@settings(deadline=None)
def test_the_best_come_in_order(logits, size):
    blocks = padded(logits)
    size = min(size, len(logits))
    heap = np.empty(blocks.size, np.int64)
    highest(blocks.ctypes.data, len(blocks), heap.ctypes.data, size)
    assert heap[:size].tolist() == np.lexsort((np.arange(len(logits)), -logits))[:size].tolist()


@given(
    cases(),
    st.sampled_from([0, 1, 2, 20, 64, 500]),
    st.sampled_from([0.0, 0.3, 0.8, 0.95, 0.999999, 1.0]),
    st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    st.sampled_from([1e-6, 0.2, 0.7, 1.0, 3.0, 100.0]),
    st.floats(0, 1, exclude_max=True),
)
@settings(deadline=None, max_examples=300)
def test_a_draw_is_the_twins(logits, top_k, top_p, min_p, temperature, uniform):
    drawn = draw(logits, top_k, top_p, min_p, temperature, uniform)
    assert drawn in neighbours(logits, top_k, top_p, min_p, temperature, uniform)


def neighbours(logits, top_k, top_p, min_p, temperature, uniform):
    """What the twin draws at, beside and between the borders: the kernel's sum over all is good to 1e-5."""
    near = (1 - 2e-5, 1.0, 1 + 2e-5)
    shares = [1.0]
    if top_p < 1:
        _, values = twin.kept(logits, top_k, 1.0, 0.0)
        mass = np.cumsum(np.exp(values - values[0]))
        between = [share for share in mass / mass[-1] if near[0] * top_p < share < near[2] * top_p]
        shares = [top_p * p for p in near] + between
    return {
        twin.draw_token(logits, top_k, p, min_p, temperature, uniform * u) for p, u in itertools.product(shares, near)
    }


def mask_of(allowed, size):
    bits = np.zeros(64 * mask_words(size), np.uint8)
    bits[allowed] = 1
    return np.packbits(bits, bitorder="little").view(np.int64)


def test_only_what_a_mask_allows_is_drawn():
    logits = np.arange(130, dtype=np.float32)
    few = mask_of([3, 64, 127], 130)
    assert Sampler(GREEDY, 130).sample(logits, few) == 127
    hot = Sampler(Sampling(temperature=1000.0, top_k=0, top_p=1.0, min_p=0.0, seed=5), 130)
    assert {hot.sample(logits, few) for _ in range(60)} == {3, 64, 127}
    assert {hot.sample(logits, mask_of([5], 130)) for _ in range(9)} == {5}


def test_a_mask_that_allows_all_draws_what_is_drawn_without():
    logits = np.random.default_rng(3).standard_normal(1000).astype(np.float32)
    plain, masked = (Sampler(Sampling(seed=7), 1000) for _ in range(2))
    everything = mask_of(np.arange(1000), 1000)
    assert [plain.sample(logits) for _ in range(40)] == [masked.sample(logits, everything) for _ in range(40)]


@given(cases(), st.integers(0, 2**32), st.sampled_from([0.0, 0.02, 0.5, 1.0]))
@settings(deadline=None)
def test_a_mask_is_the_twins(logits, seed, share):
    mask = mask_of(np.flatnonzero(np.random.default_rng(seed).random(len(logits)) < share), len(logits))
    blocks = padded(logits)
    forbid(blocks.ctypes.data, len(blocks), mask.ctypes.data)
    assert blocks.reshape(-1)[: len(logits)].tolist() == twin.forbidden(logits, mask).tolist()


def test_a_border_with_many_ids_beside_it():
    """Of ids that make up 1e-5 of all together, any number may be kept: each of these draws is right."""
    logits = np.concatenate([np.zeros(4), np.linspace(-12.0, -18.0, 60)]).astype(np.float32)
    drawn = {draw(logits, 0, 0.999999, 0.0, 100.0, uniform) for uniform in (0.1, 0.5, 0.9)}
    allowed = [neighbours(logits, 0, 0.999999, 0.0, 100.0, uniform) for uniform in (0.1, 0.5, 0.9)]
    assert drawn <= set.union(*allowed)
    assert len(allowed[1]) > 3


def test_a_whole_real_vocabulary():
    logits = (np.random.default_rng(5).standard_normal(151_936) * 3).astype(np.float32)
    for filters in ((20, 0.8, 0.0, 0.7), (0, 0.9, 0.0, 0.7), (0, 1.0, 0.05, 1.0), (0, 1.0, 0.0, 1.0)):
        for uniform in (0.0, 0.37, 0.83):
            drawn = twin.draw_token(logits, *filters, uniform)
            assert draw(logits, *filters, uniform) == drawn
