"""Random damage: only a QcliError may come out, in bounded time and memory; string arrays against a twin."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from gguf_maker import small_model, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcli.errors import QcliError
from qcli.gguf.file import GGUFFile
from qcli.gguf.strings import StringArray, find_strings
from qcli.gguf.summary import summarize

VALID = bytes(small_model())
HEADER = VALID.index(b"blk.0.attn_q.weight") + 60
MEMORY = 4 << 20  # bytes for a file of 5 kB
SECONDS = 2.0

places = st.integers(0, HEADER)
numbers = st.sampled_from([0, 1, 2, 3, 31, 255, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 63, (1 << 64) - 1])
edits = st.one_of(
    st.tuples(st.just("set"), places, st.integers(0, 255)),
    st.tuples(st.just("u32"), places, numbers),
    st.tuples(st.just("u64"), places, numbers),
    st.tuples(st.just("cut"), places, st.integers(1, 40)),
    st.tuples(st.just("insert"), places, st.binary(min_size=1, max_size=40)),
    st.tuples(st.just("truncate"), st.integers(0, len(VALID)), st.none()),
)


def damaged(content: bytes, edit: tuple[str, int, object]) -> bytes:
    kind, at, value = edit
    match kind, value:
        case "set", int():
            return content[:at] + bytes([value]) + content[at + 1 :]
        case "u32", int():
            return content[:at] + struct.pack("<I", value & 0xFFFFFFFF) + content[at + 4 :]
        case "u64", int():
            return content[:at] + struct.pack("<Q", value) + content[at + 8 :]
        case "cut", int():
            return content[:at] + content[at + value :]
        case "insert", bytes():
            return content[:at] + value + content[at:]
    return content[:at]


def read_all(path: Path) -> None:
    """Everything a later part of the program might touch."""
    with GGUFFile.open(path) as file:
        for value in file.metadata.values():
            if isinstance(value, StringArray):
                assert value.tolist() == [value[i] for i in range(len(value))]
        for tensor in file.tensors.values():
            assert tensor.data.nbytes == tensor.n_bytes
            int(tensor.data.sum())
        summarize(file, "model")


def attempt(path: Path) -> QcliError | None:
    try:
        read_all(path)
    except QcliError as error:
        return error
    return None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "model.gguf"


@contextmanager
def traced() -> Iterator[None]:
    """Allocations within are counted; what makes the examples is slow where they are."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


@settings(max_examples=400, deadline=None)
@given(st.lists(edits, min_size=1, max_size=4))
def test_damage_is_an_error_or_harmless(place: Path, changes: list[tuple[str, int, object]]):
    content = VALID
    for change in changes:
        content = damaged(content, change)
    write(place, content)
    start = time.perf_counter()
    with traced():
        refused = attempt(place)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    assert refused is None or (refused.message.isprintable() and refused.hint)
    assert time.perf_counter() - start < SECONDS


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_noise_after_the_magic(place: Path, noise: bytes):
    refused = attempt(write(place, b"GGUF\x03\0\0\0" + noise))
    assert refused or noise.startswith(bytes(16))  # no tensors, no keys


def test_the_undamaged_file_reads(place: Path):
    read_all(write(place, VALID))


def plain_walk(data: bytes, count: int) -> list[int] | None:
    """The twin of find_strings: one string after another; None if one leaves the data."""
    bounds = [0]
    for _ in range(count):
        at = bounds[-1]
        length = int.from_bytes(data[at : at + 8], "little")
        if at + 8 + length > len(data):
            return None
        bounds.append(at + 8 + length)
    return bounds


def walk(data: bytes, count: int) -> list[int] | None:
    array = np.frombuffer(data, np.uint8)
    try:
        return find_strings(array, 0, count, len(data), lambda index, length: QcliError("left")).tolist()
    except QcliError:
        return None


texts = st.one_of(st.binary(max_size=12), st.sampled_from([b"", b"\0" * 9, b"\1" + b"\0" * 7, b"x" * 300, b"a"]))


@settings(max_examples=300, deadline=None)
@given(st.lists(texts, max_size=12), st.integers(1, 30), st.integers(-5, 5), st.binary(max_size=20))
def test_strings_are_where_the_twin_finds_them(few: list[bytes], times: int, more: int, after: bytes):
    every = few * times
    data = b"".join(struct.pack("<Q", len(text)) + text for text in every) + after
    count = max(len(every) + more, 0)
    assert walk(data, count) == plain_walk(data, count)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6), st.integers(0, 250))
def test_damaged_lengths_are_read_as_the_twin_reads_them(changes: list[tuple[int, int]], count: int):
    data = bytearray(b"".join(struct.pack("<Q", len(t)) + t for t in (b"ab", b"c", b"defgh") * 70))
    for at, byte in changes:
        data[at % len(data)] = byte
    assert walk(bytes(data), count) == plain_walk(bytes(data), count)


def test_a_large_vocabulary_in_little_time():
    one = b"".join(struct.pack("<Q", len(text)) + text for text in (b"ab", b"cde", b"f" * 200))
    data = one * 50_000
    start = time.perf_counter()
    bounds = walk(data, 150_000)
    assert time.perf_counter() - start < 0.5
    assert bounds is not None
    assert bounds[:4] == [0, 10, 21, 229]
    assert bounds[-1] == len(data)
