"""A kernel that tests compile in processes of their own: in a module that imports nothing else, as they begin often."""

from __future__ import annotations

import numpy as np

import qcli.host.kernels  # noqa: F401  (compiled kernels are kept)
from quant.jit import function


@function("ppf", returns=True)
def add_up(a, b, c):
    """Two integers and a float, from Python."""
    return a + b + np.int64(c)
