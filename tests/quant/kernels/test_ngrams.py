"""Embeddings of n-grams and their dilated convolution, of a text in pieces, in steps with wrong guesses, and of several texts."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_helpers import new_plan, replay, replay_texts, source, texts_plan

from qcli.doctor.twins import ngrams as twin
from quant.formats import find
from quant.kernels.ngrams import Hashing, add_ngrams, embed_ngrams
from quant.plan import Activation, Plan, aligned
from quant.weights import Matrix

LENGTH, STREAMS, N, EPS, END = 60, 2, 32, 1e-6, 3
SIZES, OFFSETS = np.array([7, 11, 13, 9]), np.array([0, 7, 18, 31])
MULTIPLIERS = {3: np.array([3, 1000003, 77]), 5: np.array([3, 1000003, 77, 2**40 + 1, 5])}
SHAPES = [(3, 4), (5, 2), (3, 3)]  # tokens of the longest n-gram, taps of the convolution


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


NORMS = tuple(normal(1 + i, STREAMS, N) for i in range(3))
TABLE = Matrix(normal(4, 40, 16).view(np.uint8), find("F32"), 16)


class Text:
    """Ids, some of them ends, and rows of the streams, of keys and of values for each of them."""

    def __init__(self, seed):
        self.ids = np.random.default_rng(seed).integers(0, 12, LENGTH)
        columns = STREAMS * N, STREAMS * N, N
        self.rows = [normal(seed + i, LENGTH, width) for i, width in enumerate(columns)]


class Layer:
    """What is kept of a text, and a plan that takes tokens: what they give is `embedded` and `x`."""

    def __init__(self, longest, taps, most_tokens=1):
        self.taps, self.dilation = normal(8, taps, STREAMS * N), longest
        last = aligned((longest - 1 + most_tokens - 1, 1), np.float32)
        self.hashing = Hashing(END, MULTIPLIERS[longest], SIZES, OFFSETS, last)
        kept = (taps - 1) * longest + most_tokens - 1
        self.conv_state = aligned((kept, STREAMS * N), np.float32)

    def trace(self, plan: Plan):
        tokens = plan.tokens
        self.ids, self.embedded = aligned(tokens, np.int64), Activation(tokens, 64)
        self.given = [source(plan, np.zeros((tokens, n), np.float32)) for n in (STREAMS * N, STREAMS * N, N)]
        embed_ngrams(plan, self.ids, self.hashing, TABLE, self.embedded)
        x, key, value = self.given
        add_ngrams(plan, key, value, NORMS, EPS, self.taps, self.dilation, self.conv_state, x)
        return plan

    def fill(self, text, t, at):
        """Token `at` of a text is token t of the plan."""
        self.ids[t] = text.ids[at]
        for activation, rows in zip(self.given, text.rows, strict=True):
            activation.values[t] = rows[at]

    def found(self, t):
        return np.concatenate([self.embedded.values[t], self.given[0].values[t]])


def in_pieces(layer, text, sizes, threads=1):
    found, first = [], 0
    for size in sizes:
        plan = layer.trace(new_plan(size, threads))
        for t in range(size):
            layer.fill(text, t, first + t)
        replay(plan, size, first)
        found += [layer.found(t) for t in range(size)]
        first += size
    return np.array(found)


@pytest.mark.parametrize("sizes", [[60], [1] * 60, [7] * 8 + [4], [2, 1, 40, 1, 16]])
@pytest.mark.parametrize("shape", SHAPES)
def test_against_the_twin(shape, sizes):
    text, layer = Text(10), Layer(*shape)
    how = MULTIPLIERS[shape[0]], SIZES, OFFSETS, END
    rows = np.array([twin.rows_of(text.ids, t, *how) for t in range(LENGTH)])
    x, key = (part.astype(np.float64).reshape(LENGTH, STREAMS, N) for part in text.rows[:2])
    added = twin.convolved(twin.gated(x, key, text.rows[2], NORMS, EPS), NORMS[2], EPS, layer.taps, shape[0])
    expected = np.hstack([TABLE.data.view(np.float32)[rows].reshape(LENGTH, -1), (x + added).reshape(LENGTH, -1)])
    for threads in (1, 3):
        found = in_pieces(Layer(*shape), text, sizes, threads)
        assert np.array_equal(found[:, :64], expected[:, :64])
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("shape", SHAPES)
def test_wrong_guesses_at_every_position_leave_no_trace(shape):
    """Steps of several tokens, of which one, two, … stay."""
    text, other = Text(10), Text(20)
    expected = in_pieces(Layer(*shape), text, [1] * LENGTH)
    for threads, width, stay in ((1, 16, 1), (2, 8, 3), (3, 5, 1), (1, 6, 5)):
        layer, first = Layer(*shape, width), 0
        plan = layer.trace(new_plan(width, threads, stepwise=True))
        while first + width <= LENGTH:
            for t in range(width):
                layer.fill(text if t < stay else other, t, first + t)
            replay(plan, width, first)
            for t in range(stay):
                assert np.array_equal(layer.found(t), expected[first + t])
            first += stay


@pytest.mark.parametrize("shape", SHAPES)
def test_several_texts_each_behind_its_own_tokens(shape):
    texts, rng = [Text(30), Text(40), Text(50)], np.random.default_rng(60)
    expected = [in_pieces(Layer(*shape), text, [1] * LENGTH) for text in texts]
    layer, at = Layer(*shape), [0, 0, 0]
    plan = layer.trace(texts_plan(3, 2, layer.hashing.previous_tokens, layer.conv_state)[0])
    while min(at) < LENGTH:
        taken = rng.permutation([i for i in range(3) if at[i] < LENGTH])[: rng.integers(1, 4)].tolist()
        for t, i in enumerate(taken):
            layer.fill(texts[i], t, at[i])
        replay_texts(plan, taken, [at[i] for i in taken])
        for t, i in enumerate(taken):
            assert np.array_equal(layer.found(t), expected[i][at[i]])
            at[i] += 1


def test_what_is_kept_is_checked():
    layer = Layer(3, 4)
    x = Activation(2, STREAMS * N)
    with pytest.raises(ValueError, match="2 previous tokens are kept, 2 tokens a step"):
        embed_ngrams(new_plan(2, stepwise=True), np.zeros(2, np.int64), layer.hashing, TABLE, Activation(2, 64))
    with pytest.raises(ValueError, match="4 taps, 3 tokens apart, 9 rows, 2 tokens a step"):
        add_ngrams(new_plan(2, stepwise=True), x, Activation(2, N), NORMS, EPS, layer.taps, 3, layer.conv_state, x)
