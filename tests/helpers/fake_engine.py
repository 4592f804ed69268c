"""An engine of a few lines: the next token is a function of all ids so far, so a wrong state shows."""

from __future__ import annotations

import zlib

import numpy as np

from qcli.errors import ContextOverflowError
from qcli.layers.state import State


def hashed(vocab_size):
    """A next-token function that no two states are likely to share."""
    return lambda ids: zlib.crc32(np.array(ids, np.int64).tobytes()) % vocab_size


def _checksum(ids, before=(0.0, 0.0)):
    """Of int64 ids in their order, and what was before, as the halves of an integer, which float32 can hold; zero of none."""
    whole = zlib.crc32(ids.tobytes(), int(before[0]) | int(before[1]) << 16)
    return [float(whole & 0xFFFF), float(whole >> 16)]


def scripted(prompt_size, answer):
    """A next-token function: the answer's ids, one by one, after a prompt of a known size."""
    return lambda ids: answer[min(max(len(ids) - prompt_size, 0), len(answer) - 1)]


class FakeEngine:
    """Its recurrent state is a checksum of all ids, its keys are the ids themselves: it looks at both."""

    experts_total = 32
    threads = 1
    chunk = 8
    expert_loader = draft_head = None
    most_tokens = 1

    def __init__(self, vocab_size=16, ctx=64, following=None, recurrent=True):
        self.vocab_size, self.ctx, self.longest = vocab_size, ctx, 4 * ctx
        self.following = following or hashed(vocab_size)
        self.state = State(ctx)
        self._keys = self.state.cache(1, 16)
        self._checksum = self.state.recurrent(2) if recurrent else np.zeros(2, np.float32)
        self._looks = recurrent
        self._touched = self.state.touched(self.experts_total)
        self.fed: list[int] = []  # how many ids each prefill got
        self.fail_next: BaseException | None = None
        self.closed = False
        self.last_logits = None
        self._row = np.zeros(vocab_size, np.float32)

    @property
    def position(self):
        return self.state.position

    @property
    def ids(self):
        """Those in the state; whether the recurrent state is that of them is checked."""
        low, high = self._keys[0, : self.position, :2].T.astype(np.int64)
        ids = low + 1024 * high
        if self._looks:
            assert self._checksum.tolist() == _checksum(ids)
        return tuple(ids.tolist())

    def ready_to_step(self, progress):
        """It always is."""

    def prefill(self, ids, progress=None):
        assert len(ids)
        self.fed.append(len(ids))
        if self.fail_next:
            ids = ids[:1]
        return self.append(ids)

    def step(self, token):
        return self.append([token])

    def append(self, tokens):
        """Whether they come together or one by one."""
        before, self.last_logits = self.ids, None
        fit = np.array(tokens[: self.ctx - self.position], np.int64)
        first, last = self.position, self.position + len(fit)
        self._keys[0, first:last, 0], self._keys[0, first:last, 1] = fit % 1024, fit // 1024
        self._checksum[:], self._touched[:5] = _checksum(fit, self._checksum.tolist()), 1
        if self.fail_next:  # the id is in the state, in part or whole
            problem, self.fail_next = self.fail_next, None
            self.state.position += isinstance(problem, KeyboardInterrupt)
            raise problem
        self.state.position = last
        if len(fit) < len(tokens):
            raise ContextOverflowError("full")
        self._row[:] = 0
        self._row[self.following((*before, *fit.tolist()))] = 99
        self.last_logits = self._row
        return self._row

    def logits(self, ids):
        self.reset()
        return np.array([self.step(id) for id in ids])

    def reset(self):
        self.state.reset()
        self.last_logits = None

    traffic = None  # nothing is streamed

    def reset_traffic(self):
        pass

    def weight_bytes_per_step(self):
        return 2e9

    def open(self):
        """As good as new, for another run."""
        self.closed = False
        self.reset()
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
        self._prompt_size = self.position + len(ids)
        return super().prefill(ids, progress)

    def _next(self, ids):
        return self._answer[min(max(len(ids) - self._prompt_size, 0), len(self._answer) - 1)]
