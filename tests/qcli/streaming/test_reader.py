"""Reads of parts of files: to the last byte, on several threads, urgent ones first."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from scripted_reads import answer, answer_as_windows

from qcli.errors import ModelFileError
from qcli.host.pages import allocate_pages
from qcli.streaming.reader import Reader, Span, buffer_bytes
from quant import read_queue
from quant.read_queue import PAGE


@pytest.fixture
def bytes_file(tmp_path):
    path = tmp_path / "bytes"
    path.write_bytes(np.random.default_rng(0).integers(0, 256, 3 * PAGE + 77, np.uint8).tobytes())
    return path


def read_of(path, offset, size):
    return Span(path, offset, size, allocate_pages(buffer_bytes(size)))


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (1, PAGE), (PAGE - 1, 2), (5000, 7365), (3 * PAGE, 77)])
def test_any_part_of_a_file_is_read_to_its_last_byte(bytes_file, offset, size):
    span = read_of(bytes_file, offset, size)
    with Reader([bytes_file], threads=2) as reader:
        request = reader.read([span])
        request.wait()
    assert span.memory[span.start :][:size].tobytes() == bytes_file.read_bytes()[offset : offset + size]


@pytest.mark.parametrize("install", [answer, answer_as_windows])
def test_threads_read_beside_each_other_and_short_reads_go_on(bytes_file, install):
    data, together = bytes_file.read_bytes(), threading.Barrier(4)

    def read(_descriptor, address, size, offset):
        if offset % PAGE == 0:  # the first of a span
            together.wait(10)
        got = data[offset : offset + min(size, 300)]
        ctypes.memmove(address, got, len(got))
        return len(got)

    before = set(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else set()
    spans = [read_of(bytes_file, PAGE + 700 * i, 500) for i in range(1, 5)]
    with Reader([bytes_file], threads=4) as reader:
        install(reader, read)
        for request in [reader.read([span]) for span in spans]:
            request.wait()
    for span in spans:
        assert span.memory[span.start :][:500].tobytes() == data[span.offset :][:500]
    if before:
        assert set(os.listdir("/proc/self/fd")) <= before


def test_a_part_that_is_not_there_any_more(bytes_file):
    with Reader([bytes_file]) as reader:
        os.truncate(bytes_file, PAGE)
        with pytest.raises(
            ModelFileError, match=f"bytes: cannot be read any more: it ends before byte {2 * PAGE + 100}"
        ):
            reader.read([read_of(bytes_file, 100, 2 * PAGE)]).wait()


def test_a_disk_that_fails(bytes_file):
    def read(*_given):
        return -1

    with Reader([bytes_file], threads=1) as reader:
        answer(reader, read)
        number = np.array([errno.EIO], np.int32)
        where = ctypes.CFUNCTYPE(ctypes.c_int64)(lambda: number.ctypes.data)
        reader._calls[read_queue.CALLS.error // 8] = ctypes.cast(where, ctypes.c_void_p).value or 0
        request = reader.read([read_of(bytes_file, 0, 9)])
        with pytest.raises(ModelFileError, match=f"cannot be read any more: {os.strerror(errno.EIO)}"):
            request.wait()
        answer_as_windows(reader, read)
        request = reader.read([read_of(bytes_file, 0, 9)])
        with pytest.raises(ModelFileError, match="cannot be read any more"):
            request.wait()


def test_urgent_parts_come_first_and_others_can_be_cancelled(bytes_file):
    begun, gate, order = threading.Event(), threading.Event(), []

    def read(_descriptor, _address, size, offset):
        begun.set()
        gate.wait(10)
        order.append(offset // PAGE)
        return size

    spans = [[read_of(bytes_file, PAGE * i, 1)] for i in range(5)]
    with Reader([bytes_file], threads=1) as reader:
        answer(reader, read)
        first = reader.read(spans[0])
        begun.wait(10)
        idle = [reader.read(parts, urgent=False) for parts in spans[1:4]]
        urgent = reader.read(spans[4])
        reader.prioritize(idle[2])
        assert reader.cancel(idle[0])
        assert not reader.cancel(first)
        assert not reader.cancel(idle[2])
        gate.set()
        for request in (first, urgent, *idle[1:]):
            request.wait()
    assert order == [0, 4, 3, 2]
