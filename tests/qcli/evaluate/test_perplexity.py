"""Perplexity and KL divergence: on paper, against NumPy in float64, and from the command line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import gguf_maker as maker
import numpy as np
import pytest
from places import DATA

from qcli.errors import ModelFileError, PromptError, UsageError
from qcli.evaluate.log_probs_file import LogProbs, LogProbsWriter
from qcli.evaluate.perplexity import compare, exp_mean, log_softmax, mean, score
from qcli.evaluate.scored_text import chunks, scored_from
from qcli.gguf.file import GGUFFile
from qcli.host.atomic_files import AtomicFiles
from qcli.runtime.engine import Engine

TINY = DATA / "qwen3next.gguf"
FABLES = DATA / "fables.txt"
CHUNKS = [list(range(1, 33)), list(range(60, 92))]


class Certain:
    """An engine that knows the next token's probability: `p` for the id after the last one, the rest evenly."""

    vocab_size = 8

    def __init__(self, p: float) -> None:
        self._p = p

    def logits(self, ids, first):
        rest = (1 - self._p) / (self.vocab_size - 1)
        rows = np.full((len(ids) - first, self.vocab_size), rest)
        rows[np.arange(len(rows)), (np.array(ids[first:]) + 1) % self.vocab_size] = self._p
        return np.log(rows).astype(np.float32) + 3  # logits are good up to a constant


def counted(size: int, start: int = 0) -> list[int]:
    return [(start + i) % 8 for i in range(size)]


def last(scores):
    return list(scores)[-1]


@pytest.mark.parametrize("p", [0.5, 0.25, 0.125])
def test_a_model_that_is_right_so_often_has_the_inverse_as_perplexity(p):
    found = last(score(Certain(p), [counted(16), counted(16, 3)]))
    assert found.perplexity.value == pytest.approx(1 / p, rel=1e-5)
    assert found.perplexity.error == pytest.approx(0, abs=1e-5)
    assert (found.chunks, len(found.losses)) == (2, 2 * 7)


def test_kl_of_two_that_one_can_compute(tmp_path):
    saved = tmp_path / "half.gguf"
    ids = [counted(16)]
    with AtomicFiles([saved], reads=()) as output:
        writer = LogProbsWriter(output, "half", ids, 8)
        list(score(Certain(0.5), ids, save=writer))
        writer.finish()
    with LogProbs(saved) as reference:
        reference.check(ids, 8)
        found = last(score(Certain(0.25), ids, reference))
    wanted = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log((0.5 / 7) / (0.75 / 7))
    assert found.divergence.mean_kl.value == pytest.approx(wanted, abs=2e-4)
    assert found.divergence.max_kl == pytest.approx(wanted, abs=2e-4)
    assert found.divergence.reference.value == pytest.approx(2, rel=5e-4)
    assert found.ratio.value == pytest.approx(2, rel=5e-4)
    assert found.divergence.same_top_share.value == 1


def test_means_and_their_errors():
    assert mean(np.array([1.0, 3.0])) == mean(np.array([3.0, 1.0]))
    assert (mean(np.array([1.0, 3.0])).value, mean(np.array([1.0, 3.0])).error) == (2, 1)
    assert mean(np.array([5.0])).error == 0
    assert exp_mean(np.array([0.0, 2.0])).value == pytest.approx(math.e)
    assert exp_mean(np.array([0.0, 2.0])).error == pytest.approx(math.e)
    assert math.isfinite(exp_mean(np.array([5000.0])).value)


def test_log_softmax_and_kl_against_float64():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 4, (2, 5, 300))
    own, reference = (log_softmax(x.astype(np.float32).copy()) for x in (first, second))
    exact = [x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (first, second)]
    np.testing.assert_allclose(own, exact[0], atol=1e-5)
    targets = np.array([1, 2, 3, 4, 299])
    losses, kl, same = compare(reference, own, targets)
    np.testing.assert_allclose(kl, (np.exp(exact[1]) * (exact[1] - exact[0])).sum(1), atol=1e-4)
    np.testing.assert_allclose(losses, -exact[1][np.arange(5), targets], atol=1e-5)
    assert same.tolist() == (first.argmax(1) == second.argmax(1)).tolist()


@pytest.fixture(scope="module")
def engine():
    with GGUFFile.open(TINY) as file:
        engine = Engine.load(file, threads=1, ctx=64, chunk=8)
        yield engine
        engine.close()


@pytest.mark.parametrize("first", [0, 1, 7, 8, 9, 15, 16, 30])
def test_logits_from_a_position_on_are_those_of_all(engine, first):
    ids = CHUNKS[0]
    assert np.array_equal(engine.logits(ids, first), engine.logits(ids)[first:])


def test_the_second_half_is_scored_by_the_tokens_before(engine):
    found = last(score(engine, CHUNKS))
    losses = []
    for ids in CHUNKS:
        rows = log_softmax(engine.logits(ids))
        losses += [-rows[i, ids[i + 1]] for i in range(16, 31)]
    np.testing.assert_allclose(found.losses, losses, rtol=1e-6)


def test_a_model_is_no_further_from_itself_than_float16(engine, tmp_path):
    path = tmp_path / "own.gguf"
    with AtomicFiles([path], reads=()) as output:
        writer = LogProbsWriter(output, "tiny", CHUNKS, engine.vocab_size)
        list(score(engine, CHUNKS, save=writer))
        writer.finish()
    with LogProbs(path) as reference:
        assert reference.chunks == CHUNKS
        assert np.exp(reference.chunk(0)).sum(1) == pytest.approx(1, abs=1e-5)
        found = last(score(engine, CHUNKS, reference))
    assert found.divergence.max_kl < 1e-5
    assert found.divergence.same_top_share.value > 0.9
    assert found.ratio.value == pytest.approx(1, abs=1e-3)


def test_predictions_that_are_no_numbers_are_told():
    class Broken(Certain):
        def logits(self, ids, first):
            return np.full((len(ids) - first, 8), np.nan, np.float32)

    with pytest.raises(ModelFileError, match="not finite"):
        list(score(Broken(0.5), [counted(8)]))


class Words:
    """A tokenizer whose tokens are words; it wants a BOS, 99, or not."""

    bos_id = 99

    def __init__(self, add_bos: bool) -> None:
        self.add_bos = add_bos

    def encode_in_pieces(self, text, special=True):
        assert not special
        for begin in range(0, len(words := text.split()), 3):
            yield list(range(begin, min(begin + 3, len(words))))


def test_a_text_is_cut_into_whole_chunks():
    assert chunks(Words(False), "w " * 11, 4) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert chunks(Words(False), "w " * 11, 4, most=1) == [[0, 1, 2, 3]]
    assert chunks(Words(True), "w " * 11, 4) == [[99, 0, 1, 2], [99, 4, 5, 6], [99, 8, 9, 10]]
    with pytest.raises(PromptError, match="3 tokens"):
        chunks(Words(False), "w " * 3, 4)
    with pytest.raises(UsageError, match="nothing to score"):
        chunks(Words(False), "w " * 30, 3)
    assert [scored_from(n) for n in (4, 5, 512)] == [2, 2, 256]


def saved(path: Path, *, shape=(1, 3, 4), tokens=(1, 8), kind=("I32", "F16"), value=-1.4, about="log_probs") -> Path:
    """A file of log-probabilities by hand."""
    codes = {"I32": 26, "F16": 1, "F32": 0}
    keys = [maker.key("general.type", maker.STRING, about)]
    ids = np.zeros(tokens, "<i4").tobytes().ljust(64, b"\0")
    rows = [maker.tensor("tokens", tokens, codes[kind[0]]), maker.tensor("log_probs", shape, codes[kind[1]], 64)]
    values = np.full(shape, value, "<f2" if kind[1] == "F16" else "<f4").tobytes()
    return maker.write(path, maker.File(keys, rows, ids + values))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"about": "model"}, "none of log-probabilities"),
        ({"kind": ("I32", "F32")}, "do not belong"),
        ({"kind": ("F32", "F16")}, "do not belong"),
        ({"shape": (2, 3, 4)}, "do not belong"),
        ({"shape": (1, 4, 4)}, "do not belong"),
        ({"shape": (3, 4)}, "do not belong"),
        ({"tokens": (8,)}, "do not belong"),
        ({"value": np.nan}, "no log-probabilities"),
        ({"value": 0.5}, "no log-probabilities"),
    ],
)
def test_kept_predictions_that_lie(tmp_path, wrong, said):
    with pytest.raises(ModelFileError, match=said), LogProbs(saved(tmp_path / "x.gguf", **wrong)) as reference:
        reference.chunk(0)


def test_only_what_belongs_together_is_compared(tmp_path):
    with LogProbs(saved(tmp_path / "x.gguf")) as reference:
        reference.check([[0] * 8], 4)
        with pytest.raises(UsageError, match="vocabulary"):
            reference.check([[0] * 8], 5)
        with pytest.raises(UsageError, match="other tokens"):
            reference.check([[0] * 7 + [1]], 4)


def test_a_line(type_line, tmp_path):
    kept = str(tmp_path / "kept.gguf")
    few = ["--ctx", "64", "--chunks", "2", "-t", "1"]
    code, out, err = type_line("perplexity", "storyteller", str(FABLES), *few, "--save-logits", kept)
    assert (code, err) == (0, "")
    assert out.startswith("perplexity  ")
    assert "62 tokens of 2 chunks of 64" in out
    assert [path.name for path in tmp_path.iterdir()] == ["kept.gguf"]
    for text in ([], [str(FABLES), "--chunks", "2"]):
        code, out, err = type_line("perplexity", "storyteller", *text, "--against", kept, "--json")
        told = json.loads(out)
        assert (code, err, told["chunks"], told["scored_tokens"]) == (0, "", 2, 62)
        assert told["mean_kl"] < 1e-4
        assert told["ratio"] == pytest.approx(1, abs=1e-3)
    code, out, _ = type_line("perplexity", "storyteller", "--against", kept, "--chunks", "1")
    assert "same top token" in out
    assert "31 tokens of 1 chunk of 64" in out
    code, _, err = type_line("perplexity", str(TINY), "--against", kept)
    assert (code, "8,192 tokens in the vocabulary" in err) == (2, True)


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (["perplexity"], 2, "are needed"),
        (["perplexity", "storyteller"], 2, "are needed"),
        (["perplexity", "no-such-model", str(FABLES)], 1, "no-such-model"),
        (["perplexity", "storyteller", "no-such.txt"], 1, "no such file"),
        (["perplexity", "storyteller", str(FABLES), "--against", "no-such"], 1, "no such file"),
        (["perplexity", "storyteller", str(FABLES), "--against", "no-such"], 1, "--save-logits FILE` makes one"),
        (["perplexity", "storyteller", str(FABLES), "--against", str(FABLES)], 1, "--save-logits FILE` makes one"),
        (["perplexity", "storyteller", str(FABLES), "--against", str(TINY)], 1, "none of log-probabilities"),
        (["perplexity", "storyteller", str(FABLES), "--save-logits", "no/x"], 1, "no folder"),
        (["perplexity", "storyteller", str(FABLES), "--save-logits", "/dev/full", "-f"], 1, "not an ordinary file"),
        (["perplexity", "storyteller", str(FABLES), "--ctx", "2"], 2, "--ctx"),
        (["perplexity", "storyteller", str(FABLES), "--ctx", "4096"], 1, "2048"),
    ],
)
def test_what_cannot_be_done(refused, line, code, said):
    refused(line, code, said)


def test_ctrl_c_tells_what_is_known_and_leaves_nothing(type_line, tmp_path, monkeypatch):
    logits, calls = Engine.logits, []

    def third_time(self, ids, first=0):
        calls.append(first)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return logits(self, ids, first)

    monkeypatch.setattr(Engine, "logits", third_time)
    kept = str(tmp_path / "kept.gguf")
    code, out, err = type_line("perplexity", "storyteller", str(FABLES), "--ctx", "64", "--save-logits", kept)
    assert (code, out) == (130, "")
    assert "after 2 of" in err
    assert list(tmp_path.iterdir()) == []
