"""The rows before the head of a text's last tokens, as far as a head of multi-token prediction has not seen them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quant.plan import Activation, aligned


class HiddenRows:
    """The rows, float32 [most, columns], of the last `count` tokens of a text, and the ids that came after them.

    The head sees each row with the id after it (see `qcli.layers.mtp`), several of them in one pass, when a guess is asked
    for or the state is copied: so all of a text but its last row has been seen then, which is all that a copy holds.
    """

    def __init__(self, most: int, columns: int) -> None:
        self.most = most  # rows that there is room for
        self.activation = Activation(most, columns)
        self.array: NDArray[np.float32] = self.activation.values
        self.ids: NDArray[np.int64] = aligned(most, np.int64)  # ids[i] came after row i; that of the last is not known
        self.position = self.count = 0  # of the first row; rows
        self.seen_with: int | None = None  # the id that the head has seen the last row with

    @property
    def n_bytes(self) -> int:
        """Of a copy."""
        return int(self.array[0].nbytes)

    def append(self, ids: Sequence[int] | NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        """Tokens were appended to the text; their rows [tokens, columns]."""
        if len(ids) == 0:
            return
        self._follow(int(ids[0]))
        end = self.count + len(ids)
        self.array[self.count : end], self.ids[self.count : end - 1] = rows, ids[1:]
        self.count, self.seen_with = end, None

    def append_one(self, id: int, row: NDArray[np.float32]) -> None:
        """One token was appended, as most are: its row [columns]. A fraction of the time of `append`."""
        self._follow(id)
        self.array[self.count] = row
        self.count, self.seen_with = self.count + 1, None

    def _follow(self, id: int) -> None:
        """This id came after the last row: the head has seen the row with it, or will."""
        if self.count and self.seen_with == id:
            self.position, self.count = self.position + self.count, 0
        elif self.count:
            self.ids[self.count - 1] = id

    def keep_last(self) -> None:
        """The head has seen all rows with the ids after them; the last one waits for its id."""
        last = max(0, self.count - 1)
        self.array[: self.count - last] = self.array[last : self.count]
        self.position, self.count = self.position + last, self.count - last

    def reset(self) -> None:
        """Begin an empty text."""
        self.position, self.count, self.seen_with = 0, 0, None

    def blank(self) -> NDArray[np.float32]:
        """Memory for a copy."""
        return np.empty_like(self.array[0])

    def copy(self, position: int) -> NDArray[np.float32]:
        """The last row of a text of so many tokens; zeros of an empty one."""
        return self.array[self.count - 1].copy() if self.count else np.zeros_like(self.array[0])

    def put_back(self, copy: NDArray[np.float32], position: int) -> None:
        """Go back to a text of so many tokens whose last row was copied."""
        self.reset()
        if position:
            self.array[0], self.position, self.count = copy, position - 1, 1
