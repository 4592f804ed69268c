"""Memory in whole pages, returned to the system."""

from __future__ import annotations

from pathlib import Path

import pytest

from qcli.host.memory import process_memory
from qcli.host.pages import allocate_pages, release_pages
from quant.read_queue import PAGE


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="what is resident now, Linux tells")
def test_pages_that_are_given_back_are_no_longer_resident():
    memory = allocate_pages(64 << 20)
    memory[:] = 1
    before = process_memory()
    release_pages(memory, PAGE + 1, 48 << 20)
    assert before - process_memory() > 40 << 20
    assert memory[: 2 * PAGE].all()
    assert not memory[2 * PAGE : 48 << 20].any()
    assert memory[PAGE + (48 << 20) :].all()
