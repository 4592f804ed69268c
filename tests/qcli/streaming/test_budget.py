"""How memory is shared out: models that fit, and one that cannot."""

from __future__ import annotations

import threading

import pytest
from streamed_engine import MODEL

from qcli.errors import QcliError
from qcli.gguf.file import GGUFFile
from qcli.host import kernels
from qcli.runtime.engine import Engine


def test_a_model_that_fits_stays_mapped_and_one_that_cannot_fit_says_what_it_needs(monkeypatch):
    file = GGUFFile.open(MODEL)
    engine = Engine.load(file, threads=1, ctx=64)
    assert engine.expert_loader is None
    engine.close()
    before = threading.active_count()
    monkeypatch.setattr(kernels, "prepare", lambda *_: pytest.fail("compiled before it was known to be too large"))
    with pytest.raises(QcliError, match="is not enough for this model") as caught:
        Engine.load(file, threads=2, ctx=64, ram=10**7)
    assert "--ram" in caught.value.hint
    assert threading.active_count() == before
