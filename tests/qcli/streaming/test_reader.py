"""Reads of parts of files: to the last byte, on several threads, urgent ones first."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from qcli.errors import ModelFileError
from qcli.host.pages import PAGE, allocate_pages
from qcli.streaming.reader import Reader, Span, buffer_bytes


@pytest.fixture
def bytes_file(tmp_path):
    path = tmp_path / "bytes"
    path.write_bytes(np.random.default_rng(0).integers(0, 256, 3 * PAGE + 77, np.uint8).tobytes())
    return path


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (1, PAGE), (PAGE - 1, 2), (5000, 7365), (3 * PAGE, 77)])
def test_any_part_of_a_file_is_read_to_its_last_byte(bytes_file, offset, size):
    span = Span(bytes_file, offset, size, allocate_pages(buffer_bytes(size)))
    with Reader([bytes_file], threads=2) as reader:
        request = reader.read([span])
        request.wait()
    assert span.memory[span.start :][:size].tobytes() == bytes_file.read_bytes()[offset : offset + size]


def test_threads_read_beside_each_other_where_no_read_has_a_position(bytes_file, monkeypatch):
    monkeypatch.delattr(os, "preadv")
    seek, together = os.lseek, threading.Barrier(4)

    def sought(descriptor, offset, whence):
        seek(descriptor, offset, whence)
        if offset > 0:  # not the trial
            together.wait(10)  # all threads have sought before any of them reads
        return offset

    monkeypatch.setattr(os, "lseek", sought)
    before = set(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else set()
    spans = [Span(bytes_file, PAGE + 700 * i, 500, allocate_pages(buffer_bytes(500))) for i in range(1, 5)]
    with Reader([bytes_file], threads=4) as reader:
        for request in [reader.read([span]) for span in spans]:
            request.wait()
    for span in spans:
        assert span.memory[span.start :][:500].tobytes() == bytes_file.read_bytes()[span.offset :][:500]
    if before:
        assert set(os.listdir("/proc/self/fd")) <= before


def test_a_part_that_is_not_there_any_more(bytes_file):
    with Reader([bytes_file]) as reader:
        os.truncate(bytes_file, PAGE)
        with pytest.raises(ModelFileError, match="it ends before byte"):
            reader.read([Span(bytes_file, 100, 2 * PAGE, allocate_pages(buffer_bytes(2 * PAGE)))]).wait()


def test_urgent_parts_come_first_and_others_can_be_cancelled(bytes_file, monkeypatch):
    gate, order = threading.Event(), []

    def fill(span, *_files):
        gate.wait(10)
        order.append(span.offset)

    monkeypatch.setattr("qcli.streaming.reader._fill", fill)
    spans = [[Span(bytes_file, i, 1, allocate_pages(1))] for i in range(5)]
    with Reader([bytes_file], threads=1) as reader:
        first = reader.read(spans[0])
        while reader._urgent:  # until the only thread has taken it
            pass
        idle = [reader.read(parts, urgent=False) for parts in spans[1:4]]
        urgent = reader.read(spans[4])
        reader.prioritize(idle[2])
        assert reader.cancel(idle[0])
        assert not reader.cancel(first)
        gate.set()
        for request in (first, urgent, *idle[1:]):
            request.wait()
    assert order == [0, 4, 3, 2]
