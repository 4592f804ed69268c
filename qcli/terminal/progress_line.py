"""How far work is, in one line: `reading 979 tokens ━━━╸── 45 % · 3 s left`."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from time import monotonic

_CELLS = 24  # of the bar, where there is room
_FEWEST = 4  # cells that are still a bar
_SURE = 1.0  # seconds after which the time left is told
_SPINNER, _FULL, _HALF, _EMPTY = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "━", "╸", "─"
_ASCII = {**dict.fromkeys(_SPINNER, "-"), _FULL: "=", _HALF: "-", _EMPTY: ".", "·": "|"}  # for encodings without these


class ProgressLine:
    """A stage of some work, and how far it is: as it was told, and at the same speed since, up to one more such step."""

    def __init__(self, stage: str, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self.begin(stage)

    def begin(self, stage: str) -> None:
        """A stage of which nobody knows yet how long it takes."""
        self.stage, self._detail = stage, ""
        self._told: float | None = None  # fraction
        self._first, self._step, self._shown = 0.0, 0.0, 0.0
        self._began = self._first_at = self._told_at = self._clock()
        self._drawn = 0

    def tell(self, stage: str, fraction: float, detail: str = "") -> None:
        """How far a stage is, 0 to 1; another stage than before begins now."""
        if stage != self.stage:
            self.begin(stage)
        self._detail = detail
        if self._told is None:
            self._first, self._first_at = fraction, self._clock()
        if fraction != self._told:
            self._step = max(0.0, fraction - (fraction if self._told is None else self._told))
            self._told, self._told_at = fraction, self._clock()

    def text(self, columns: int, dim: Callable[[str], str] = str, encoding: str = "utf-8") -> str:
        """The line, in fewer than so many columns; dim: what marks text as dim, in columns that it takes none of."""
        self._drawn += 1
        label = f"{self.stage} {self._detail}".rstrip()
        if self._told is None:
            return _encodable(f"{_SPINNER[self._drawn % len(_SPINNER)]} {label}"[: columns - 1], encoding)
        fraction = self._fraction()
        percent, left = f" {int(100 * fraction):>2} %", self._left(fraction)
        room = columns - 1 - len(label) - len(percent)
        if len(left) > room:
            left = ""
        cells = min(_CELLS, room - len(left) - 1)
        full, empty = _bar(fraction, cells) if cells >= _FEWEST else ("", "")
        before = f"{label} {full}" if full or empty else label[: columns - 1 - len(percent)]
        return _encodable(before, encoding) + dim(_encodable(empty, encoding)) + _encodable(percent + left, encoding)

    def _fraction(self) -> float:
        """How far it is likely to be by now, never less than before, and whole only when it was told so."""
        told, since = self._told or 0.0, self._clock() - self._told_at
        if told >= 1:
            return 1.0
        likely = min(told + min(self._speed() * since, self._step), 0.99)
        self._shown = max(likely, told, self._shown)
        return self._shown

    def _speed(self) -> float:
        """Of the fraction, in 1 / s, since the first word; 0.0 if there was no other."""
        elapsed, told = self._told_at - self._first_at, self._told or 0.0
        return max(0.0, told - self._first) / elapsed if elapsed > 0 else 0.0

    def _left(self, fraction: float) -> str:
        speed = self._speed()
        if not speed or fraction >= 1 or self._clock() - self._began < _SURE:
            return ""
        return f" · {time_left((1 - fraction) / speed)}"


def time_left(seconds: float) -> str:
    """3 s left, 1 min 20 s left, 2 h 5 min left: rounded up."""
    whole = max(1, ceil(seconds))
    if whole < 60:
        return f"{whole} s left"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s left"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min left"


def _bar(fraction: float, cells: int) -> tuple[str, str]:
    """What of so many cells is full, and the rest."""
    halves = int(fraction * cells * 2)
    full = _FULL * (halves // 2) + _HALF * (halves % 2)
    return full, _EMPTY * (cells - len(full))


def _encodable(text: str, encoding: str) -> str:
    try:
        text.encode(encoding)
    except (LookupError, UnicodeEncodeError):
        return "".join(_ASCII.get(c, c) for c in text)
    return text
