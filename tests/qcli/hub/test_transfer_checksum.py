"""The checksum of a file that is on its way: what is hashed, from where, and which lanes wait for it."""

from __future__ import annotations

import hashlib
import random
import threading
import time

import pytest

from qcli.hub import transfer_checksum, transfer_part
from qcli.hub.transfer_checksum import Checksum
from qcli.hub.transfer_part import Part

BLOCK, BLOCKS = 1 << 12, 40
DATA = random.Random(3).randbytes(BLOCKS * BLOCK - 77)


@pytest.fixture
def part(tmp_path, monkeypatch) -> Part:
    monkeypatch.setattr(transfer_part, "BLOCK", BLOCK)
    part = Part(tmp_path / "content", len(DATA), "etag")
    part.begin()
    return part


def bring(part: Part, checksum: Checksum, block: int, buffer: memoryview) -> memoryview:
    """As a lane does: fill the buffer, write it, mark the block, tell of it."""
    data = buffer[: part.length(block)]
    data[:] = DATA[block * BLOCK :][: len(data)]
    with open(part.path, "r+b") as file:
        file.seek(block * BLOCK)
        file.write(data)
    part.there[block] = 1
    return checksum.came(block, buffer)


def begun(checksum: Checksum) -> threading.Thread:
    thread = threading.Thread(target=checksum.run, daemon=True)
    thread.start()
    return thread


def wait_for(what) -> None:
    end = time.monotonic() + 10
    while not what():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_buffer_is_used_again_only_after_it_was_hashed(part):
    """One block comes after its turn could have been; each lane's next buffer is none that waits."""
    checksum = Checksum(part)
    buffers, waiting = [checksum.buffer() for _ in range(3)], []
    for block in range(1, 10):
        lane = block % 3
        waiting.append(buffers[lane])
        buffers[lane] = bring(part, checksum, block, buffers[lane])
        assert all(buffers[lane] is not one for one in waiting)
    thread = begun(checksum)
    for block in (0, *range(10, BLOCKS)):
        buffers[0] = bring(part, checksum, block, buffers[0])
    thread.join(10)
    assert checksum.hexdigest() == hashlib.sha256(DATA).hexdigest()
    assert checksum.bytes == len(DATA)


@pytest.mark.parametrize("seed", range(8))
def test_blocks_come_in_any_order_from_several_lanes(part, seed):
    """Some were left by an earlier download; the others come by four threads, which hash along."""
    order = random.Random(seed).sample(range(BLOCKS), BLOCKS)
    left, order = order[: 5 * (seed % 3)], order[5 * (seed % 3) :]
    for block in left:
        bring(part, Checksum(part), block, memoryview(bytearray(BLOCK)))
    checksum = Checksum(part)
    thread = begun(checksum)

    def lane(blocks):
        buffer = checksum.buffer()
        for block in blocks:
            buffer = bring(part, checksum, block, buffer)

    lanes = [threading.Thread(target=lane, args=(order[i::4],)) for i in range(4)]
    for one in lanes:
        one.start()
    for one in (*lanes, thread):
        one.join(10)
    assert checksum.hexdigest() == hashlib.sha256(DATA).hexdigest()


def test_a_block_near_its_turn_is_hashed_from_memory_and_a_far_one_from_the_file(part, monkeypatch):
    read: list[int] = []
    read_back = Checksum._read_back
    monkeypatch.setattr(
        Checksum, "_read_back", lambda self, *a: read.append(self.bytes // BLOCK) or read_back(self, *a)
    )
    checksum = Checksum(part)
    buffer = checksum.buffer()
    for block in reversed(range(BLOCKS)):
        buffer = bring(part, checksum, block, buffer)
    begun(checksum).join(10)
    assert read == list(range(transfer_checksum._NEAR, BLOCKS))


def test_a_lane_that_is_far_ahead_waits_until_its_turn_is_nearer(part):
    checksum = Checksum(part)
    far = transfer_checksum._NEAR + 2
    assert not checksum.hold(far - 3)
    held: list[bool] = []
    lane = threading.Thread(target=lambda: held.append(checksum.hold(far)))
    lane.start()
    wait_for(lambda: checksum._waiting)
    thread = begun(checksum)
    buffer = checksum.buffer()
    for block in range(2):
        buffer = bring(part, checksum, block, buffer)
        wait_for(lambda block=block: checksum._turn == block + 1)
        assert held == []
    bring(part, checksum, 2, buffer)
    lane.join(10)
    assert held == [True]
    checksum.close()
    thread.join(10)


def test_lanes_wait_no_longer_once_the_checksum_waits_for_them(part):
    """Nothing comes: after a moment each of them may go on, however far ahead."""
    checksum = Checksum(part)
    lane = threading.Thread(target=checksum.hold, args=(BLOCKS - 1,))
    lane.start()
    thread = begun(checksum)
    wait_for(lambda: checksum._idle_since)
    time.sleep(0.01)
    checksum._adapted, checksum._idle_then = checksum._idle_since, 0.0
    checksum.adapt()
    lane.join(10)
    assert not lane.is_alive()
    checksum.close()
    thread.join(10)


def test_lanes_are_held_again_when_the_checksum_falls_behind(part, monkeypatch):
    monkeypatch.setattr(transfer_checksum, "_NEAR", 2)
    monkeypatch.setattr(transfer_checksum, "_FAR", 12)
    checksum = Checksum(part)
    checksum.hold_none()
    assert not checksum.hold(BLOCKS - 1)
    buffer = checksum.buffer()
    reached = []
    for block in range(1, 16):
        buffer = bring(part, checksum, block, buffer)
        checksum.adapt()
        reached.append(checksum._reach)
    assert reached == [BLOCKS] * 12 + [6, 3, 2]


def test_what_an_earlier_download_left_holds_nobody(part):
    for block in range(BLOCKS - 1):
        bring(part, Checksum(part), block, memoryview(bytearray(BLOCK)))
    checksum = Checksum(part)
    checksum.adapt()
    assert not checksum.hold(BLOCKS - 1)


@pytest.mark.parametrize("to", [0, BLOCK, len(DATA) - 1])
@pytest.mark.parametrize("kept", [True, False])
def test_a_file_that_another_program_cut_is_none(part, to, kept):
    checksum = Checksum(part)
    buffer = checksum.buffer()
    for block in range(BLOCKS) if kept else reversed(range(BLOCKS)):
        buffer = bring(part, checksum, block, buffer)
    with open(part.path, "r+b") as file:
        file.truncate(to)
    with pytest.raises(OSError, match="cut by another program"):
        checksum.run()
