"""Seconds of a prompt, of which a part was measured."""

from __future__ import annotations

import numpy as np

from qcli.forecast.timing import _extrapolated


def test_records_that_were_not_replayed_take_what_others_took():
    records = np.zeros((6, 26), np.int64)
    records[:, 0] = [1, 2, 1, 2, 1, 3]
    parts = ["a", "a", "a", "a", "b", "a"]
    took = np.array([1.0, 5.0, 3.0])
    assert _extrapolated(records, parts, took) == 9 + 5  # the last two are like none
