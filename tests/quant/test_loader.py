"""Machine code is loaded by one thread at a time, once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from quant import loader
from quant.jit import function


def test_threads_that_ask_together_load_a_function_once(monkeypatch):
    """As the helpers of a team do when they begin; Python's own cached properties do not wait for each other."""
    functions = [function("p")(lambda x: x) for _ in range(4)]
    began, loading, most = [], [], []

    def load(asked):
        began.append(asked)
        loading.append(asked)
        most.append(len(loading))
        time.sleep(0.001)
        loading.remove(asked)
        return 100 + functions.index(asked)

    monkeypatch.setattr(loader, "_load", load)
    with ThreadPoolExecutor(16) as pool:
        addresses = list(pool.map(loader.address, functions * 16))
    assert addresses == [100, 101, 102, 103] * 16
    assert len(began) == 4
    assert max(most) == 1
