"""Numbers in words: counts of things, sizes, quantities; and sizes as people type them."""

from __future__ import annotations

import re

from qcli.errors import UsageError

_TYPED = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_LONG = 60  # characters
_MOST = 1 << 60  # bytes
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def counted(n: int, one: str, many: str = "") -> str:
    """1 token, 2,048 tokens; `many` where an s does not make the plural."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def size(n_bytes: float) -> str:
    """2.1 GB, 24 MB, 340 kB: powers of 1000."""
    if n_bytes >= 1e9:
        return f"{n_bytes / 1e9:.1f} GB"
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:.0f} kB"


def duration(seconds: float) -> str:
    """0.25 s, 4.1 s, 38 s, 2 min 5 s."""
    if seconds < 59.5:
        return f"{seconds:.{0 if seconds >= 9.95 else 1 if seconds >= 0.095 else 2}f} s"
    return f"{round(seconds) // 60} min {round(seconds) % 60} s"


def quantity(n: int, unit: str = "") -> str:
    """Three digits and a power of 1000, for tables: 38.4 M, or 15.2 MB of unit "B"."""
    if n < 1000:
        return f"{n} {unit}"
    n = int(float(f"{n:.3g}"))
    power, digits = divmod(len(str(n)) - 1, 3)
    return f"{n / 1000**power:.{2 - digits}f} {' kMGTPE'[power]}{unit}"


def parse_size(text: str) -> int:
    """Bytes: "24GB" and "24G" are 24 * 10^9, "24GiB" 24 * 2^30. Raises UsageError."""
    found = _TYPED.fullmatch(text.strip()) if len(text) < _LONG else None
    if found:
        number, unit, binary = found.groups()
        n_bytes = int(float(number) * (1024 if binary else 1000) ** _POWERS[unit.lower()])
        if n_bytes <= _MOST:
            return n_bytes
    raise UsageError(f'"{shortened(text)}" is not an amount of memory', "type one such as 24GB or 2.8G")


def shortened(text: str) -> str:
    """At most so many characters of what was typed, as a message has room for."""
    return text if len(text) < _LONG else f"{text[: _LONG // 2]}… ({len(text)} characters)"
