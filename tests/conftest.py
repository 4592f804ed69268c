"""Fixtures for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from qcli.catalog import resolve


@pytest.fixture(scope="session")
def storyteller() -> Path:
    """The embedded model's file."""
    return resolve(None)[0]
