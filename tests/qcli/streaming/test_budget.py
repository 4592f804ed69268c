"""How memory is shared out: amounts as people write them, models that fit, and one that cannot."""

from __future__ import annotations

import threading

import pytest
from streamed_engine import MODEL

from qcli.errors import QcliError, UsageError
from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine
from qcli.streaming import budget


def test_amounts_of_memory_are_read_as_people_write_them():
    written = {"24GB": 24 * 10**9, "2.8g": 2.8e9, "1 GiB": 1 << 30, "512m": 512e6, "1000": 1000, "3kib": 3072}
    assert {text: budget.parse_size(text) for text in written} == written
    for text in ("", "lots", "-1G", "1.2.3G", "5 apples", "1e9"):
        with pytest.raises(UsageError, match="not an amount"):
            budget.parse_size(text)


def test_a_model_that_fits_stays_mapped_and_one_that_cannot_fit_says_what_it_needs():
    file = GGUFFile.open(MODEL)
    engine = Engine.load(file, threads=1, ctx=64)
    assert engine.expert_loader is None
    engine.close()
    before = threading.active_count()
    with pytest.raises(QcliError, match="are not enough for this model") as caught:
        Engine.load(file, threads=2, ctx=64, ram=10**7)
    assert "--ram" in caught.value.hint
    assert threading.active_count() == before
