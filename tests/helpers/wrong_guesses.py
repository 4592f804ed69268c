"""A source of guesses that are wrong, for tests of what becomes of them."""

from __future__ import annotations

from qcli.drafts.lookup import Guess


class Liar:
    """Guesses what never comes, and now and then what does: ids `step` apart, from `first` steps behind the last on."""

    first, step = 1, 1

    def __init__(self):
        self._ids = []

    def extend(self, ids):
        self._ids += ids

    def guess(self, count):
        behind = range(self.first, self.first + count)
        return Guess([(self._ids[-1] + self.step * i) % 300 for i in behind], 9) if count > 0 else None
