"""A checkpoint: what brings a model's state back to a position, given the rows of its caches below it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A state after some ids; rows below its position stay in the caches."""

    ids: tuple[int, ...]
    recurrent: tuple[NDArray[np.float32], ...]
    logits: NDArray[np.float32] | None  # float32 [vocab] of the last id
