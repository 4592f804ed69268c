"""What long work tells of itself: progress(stage, fraction from 0 to 1)."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float], None]
