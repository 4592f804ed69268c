"""An engine of a few lines: the next token is a function of all ids so far, so a wrong state shows."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from qcli.errors import ContextOverflowError


def hashed(vocab_size):
    """A next-token function that no two states are likely to share."""
    return lambda ids: zlib.crc32(np.array(ids, np.int64).tobytes()) % vocab_size


def scripted(prompt_size, answer):
    """A next-token function: the answer's ids, one by one, after a prompt of a known size."""
    return lambda ids: answer[min(max(len(ids) - prompt_size, 0), len(answer) - 1)]


@dataclass(frozen=True)
class FakeSnapshot:
    ids: tuple[int, ...]

    @property
    def position(self):
        return len(self.ids)


class FakeEngine:
    experts_total = 32
    threads = 1

    def __init__(self, vocab_size=16, ctx=64, following=None):
        self.vocab_size, self.ctx, self.longest = vocab_size, ctx, 4 * ctx
        self.following = following or hashed(vocab_size)
        self.ids: tuple[int, ...] = ()
        self.fed: list[int] = []  # how many ids each prefill got
        self.fail_next: BaseException | None = None
        self.closed = False
        self._row = np.zeros(vocab_size, np.float32)

    @property
    def position(self):
        return len(self.ids)

    def prefill(self, ids, progress=None):
        assert len(ids)
        self.fed.append(len(ids))
        for id in ids:
            logits = self.step(id)
        return logits

    def step(self, token):
        if len(self.ids) == self.ctx:
            raise ContextOverflowError("full")
        self.ids += (token,)
        if self.fail_next:  # the id is in the state, and nobody was told
            problem, self.fail_next = self.fail_next, None
            raise problem
        self._row[:] = 0
        self._row[self.following(self.ids)] = 99
        return self._row

    def logits(self, ids):
        self.reset()
        return np.array([self.step(id) for id in ids])

    def reset(self):
        self.ids = ()

    def snapshot(self):
        return FakeSnapshot(self.ids)

    def restore(self, snapshot):
        self.ids = snapshot.ids

    def experts_touched(self):
        assert not self.closed
        return 5

    traffic = None  # nothing is streamed

    def reset_traffic(self):
        pass

    def weight_bytes_per_step(self):
        return 2e9

    def reset_counters(self):
        pass

    def open(self):
        """As good as new, for another run."""
        self.closed, self.ids = False, ()
        self.fed.clear()
        return self

    def close(self):
        self.closed = True


class TellingEngine(FakeEngine):
    """Answers every prompt with the same ids."""

    def __init__(self, vocab_size, ctx, answer):
        super().__init__(vocab_size, ctx, self._next)
        self._answer, self._prompt_size = answer, 0

    def prefill(self, ids, progress=None):
        self._prompt_size = len(self.ids) + len(ids)
        return super().prefill(ids, progress)

    def _next(self, ids):
        return self._answer[min(max(len(ids) - self._prompt_size, 0), len(self._answer) - 1)]
