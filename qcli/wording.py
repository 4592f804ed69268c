"""One thing, two things."""

from __future__ import annotations


def counted(n: int, one: str, many: str = "") -> str:
    """1 token, 2,048 tokens; `many` where an s does not make the plural."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
