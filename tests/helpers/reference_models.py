"""Tiny models of random weights, each kept as what it was drawn from, with what Transformers makes of it in float32.

Their matrices are normal numbers from one stream of PyTorch's generator (seed 1), rounded to BF16. A file of
tests/data/arch holds the model with those bytes zeroed (`gguf`), and for each matrix, and each 16 columns of a row, where
in the stream they begin (`drawn`, `starts`); rounding differs in a few places (`fix`). Models whose stream is not known
are there as they are, all even bytes before all odd ones (`planes`). The checksum tells that the model is whole.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from places import DATA

FOLDER = DATA / "arch"
NAMES = sorted(path.stem for path in FOLDER.glob("*.npz"))
_STREAM = 4_000_000  # numbers; longer than any model


@dataclass(frozen=True)
class Reference:
    """A model's bytes, ids int64 [96], float32 logits of some positions of them, and a greedy text: 32 ids, then 24 more.

    Of a head of multi-token prediction, where there is one: its logits of those positions but the last of the text, given
    the model's rows and the ids that come next, and its first choice at each of the 95 positions.
    """

    gguf: bytes
    ids: list[int]
    positions: np.ndarray
    logits: np.ndarray
    greedy: list[int]
    mtp_logits: np.ndarray | None
    mtp_greedy: list[int]

    def write(self, path: Path) -> Path:
        path.write_bytes(self.gguf)
        return path


@cache
def read(name: str) -> Reference:
    """The model of this name."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        gguf = arrays["planes"].T.reshape(-1) if "planes" in arrays else _drawn(arrays)
        assert hashlib.sha256(gguf).digest() == arrays["sha256"].tobytes()
        ids, greedy = arrays["ids"].tolist(), arrays["greedy"].tolist()
        mtp = (arrays["mtp_logits"], arrays["mtp_greedy"].tolist()) if "mtp_logits" in arrays else (None, [])
        return Reference(gguf.tobytes(), ids, arrays["positions"].astype(int), arrays["logits"], greedy, *mtp)


def _drawn(arrays) -> np.ndarray:
    """A model's bytes, uint8, from the stream."""
    gguf, starts, done = arrays["gguf"].copy(), np.cumsum(arrays["starts"], dtype=np.int64), 0
    for offset, rows, columns, step, phase, deviation in arrays["drawn"].tolist():
        groups = rows * columns // 16
        at = starts[done : done + groups, None] - phase + step * np.arange(16)
        weights = _normal(at, phase) * np.int64(deviation).view(np.float64)
        gguf[offset : offset + 2 * weights.size] = _bf16(weights).reshape(-1).view(np.uint8)
        done += groups
    for at, value in zip(arrays["fix_at"].tolist(), arrays["fix"], strict=True):
        gguf[at : at + 2] = value.reshape(1).view(np.uint8)
    return gguf


@cache
def _uniform() -> np.ndarray:
    generator = np.random.MT19937()
    generator._legacy_seeding(1)
    return (generator.random_raw(_STREAM) & 0xFFFFFF) / 2**24


def _normal(at: np.ndarray, phase: int) -> np.ndarray:
    """The normal numbers at these places of the stream from `phase` on: of each 16 uniform numbers, 8 pairs give a radius
    and an angle (Box and Muller), and those 8 cosines, then 8 sines.
    """
    group, lane = at // 16 * 16 + phase, at % 16
    radius = np.sqrt(-2 * np.log(1 - _uniform()[group + lane % 8]))
    angle = 2 * np.pi * _uniform()[group + lane % 8 + 8]
    return radius * np.where(lane < 8, np.cos(angle), np.sin(angle))


def _bf16(values: np.ndarray) -> np.ndarray:
    """The upper halves of float32, rounded to even."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
