"""Where things lie: the checkout, its tests, their data."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
HELPERS = TESTS / "helpers"
DATA = TESTS / "data"
