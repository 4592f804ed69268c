"""Reading memory: every byte once, whatever the threads."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_helpers import new_plan, replay

from qcli.bench import bandwidth
from quant.kernels.bandwidth import STEP, read_all
from quant.plan import aligned


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("steps", [1, 2, 7, 64])
def test_every_float_is_met_once(threads, steps):
    source = aligned(steps * STEP // 4, np.float32)
    source[:] = np.arange(len(source)) % 97
    plan = new_plan(1, threads)
    sums = read_all(plan, source)
    replay(plan)
    assert sums.shape == (threads, 16)
    assert sums[:, 0].sum() == source.sum(dtype=np.float64)
    assert not sums[:, 1:].any()


def test_only_whole_steps_are_read():
    with pytest.raises(ValueError, match="whole steps"):
        read_all(new_plan(1), aligned(STEP // 4 + 1, np.float32))


def test_samples_with_each_number_of_threads(monkeypatch):
    monkeypatch.setattr(bandwidth, "MOST", 1 << 22)
    measured = bandwidth.Bandwidth([1, 2])
    assert measured.sample(1) > 0
    assert measured.sample(2) > 0
    measured.close()
