"""Hit rates from usage: cases to solve on paper."""

from __future__ import annotations

import numpy as np
import pytest

from qcli.forecast.hit_rate import hit_rate
from qcli.streaming.slots import HALF_LIFE


def test_hit_rates():
    assert hit_rate(None, 8, 8) == 1
    assert hit_rate(None, 8, 4) == 0.5
    assert hit_rate(np.zeros(8, np.float32), 8, 4) == hit_rate(None, 8, 4)
    assert hit_rate(np.ones(7, np.float32), 8, 4) == hit_rate(None, 8, 4)  # another model's
    dice = np.random.default_rng(0).poisson(3, 512).astype(np.float32)
    assert hit_rate(dice, 512, 256) == pytest.approx(hit_rate(None, 512, 256), abs=0.05)
    few = np.zeros(512, np.float32)
    few[:100] = HALF_LIFE / 100
    assert hit_rate(few, 512, 100) > 0.95
    assert hit_rate(few, 512, 50) == pytest.approx(0.5, abs=0.03)
