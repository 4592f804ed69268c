"""Numbers in words: counts of things, sizes, quantities."""

from __future__ import annotations


def counted(n: int, one: str, many: str = "") -> str:
    """1 token, 2,048 tokens; `many` where an s does not make the plural."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def size(n_bytes: float) -> str:
    """2.1 GB, 24 MB, 340 kB: powers of 1000."""
    if n_bytes >= 1e9:
        return f"{n_bytes / 1e9:.1f} GB"
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:.0f} kB"


def quantity(n: int, unit: str = "") -> str:
    """Three digits and a power of 1000, for tables: 38.4 M, or 15.2 MB of unit "B"."""
    if n < 1000:
        return f"{n} {unit}"
    n = int(float(f"{n:.3g}"))
    power, digits = divmod(len(str(n)) - 1, 3)
    return f"{n / 1000**power:.{2 - digits}f} {' kMGTPE'[power]}{unit}"
