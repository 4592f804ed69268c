"""A repository's files by one header: one rehearsal of each type, its speed scaled to the bytes of the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from places import DATA

from qcli.errors import ContextOverflowError, QcliError, UnsupportedModelError
from qcli.forecast import glance, rehearsal, simulated_cache
from qcli.forecast import survey as surveys
from qcli.forecast.prospect import Offer, Options
from qcli.forecast.survey import by_size, survey
from qcli.gguf.file import GGUFFile

MODEL = DATA / "qwen3next.gguf"


@pytest.fixture
def file():
    with GGUFFile.open(MODEL) as opened:
        yield opened


class Faked:
    """In place of a rehearsal: a second for each megabyte of the model; what was asked of all of them."""

    asked: list[str]
    refuses: type[Exception] | None = None

    def __init__(self, file: GGUFFile, threads: int, before: object = None) -> None:
        self.file = file
        self.asked.append(file.tensors["blk.0.ffn_up_exps.weight"].type)
        if self.refuses:
            raise self.refuses("no")

    def disk_bytes_per_s(self, disk: Path) -> float:
        self.asked.append(disk.name)
        return 1e6

    def token_seconds(self, progress: object = None) -> float:
        return sum(tensor.n_bytes for tensor in self.file.tensors.values()) / 1e6


@pytest.fixture
def faked(monkeypatch) -> list[str]:
    monkeypatch.setattr(Faked, "asked", [], raising=False)
    monkeypatch.setattr(surveys, "Rehearsal", Faked)
    return Faked.asked


def known(value: float | None) -> float:
    assert value is not None
    return value


def free(monkeypatch, n_bytes: int) -> None:
    monkeypatch.setattr(glance, "room", lambda _: n_bytes)


def test_files_of_the_same_type_are_rehearsed_once_and_scaled(file, faked):
    offers = [Offer("Q8_0", 2_600_000), Offer("UD-Q8_K_XL", 5_200_000), Offer("Q4_0", 2_000_000), Offer("IQ2_KS", 9)]
    found = survey(file, offers, disk=lambda: MODEL).files
    assert sorted(faked) == ["Q4_0", "Q8_0"]
    assert [one.fit for one in found] == ["in memory"] * 3 + ["cannot run"]
    header = min(tensor.offset for tensor in file.tensors.values())
    assert found[0].tok_per_s == pytest.approx(1e6 / (2_600_000 - header))
    assert found[1].tok_per_s == pytest.approx(1e6 / (5_200_000 - header))
    assert [one.estimated for one in found[:2]] == [False, True]
    assert found[3].tok_per_s is None
    assert known(found[1].bits) > 1.9 * known(found[0].bits)


def test_its_own_types_and_size_are_taken_as_they_are(file, faked):
    [own, unsized] = survey(file, [Offer("Q3_K_M", MODEL.stat().st_size, own=True), Offer("Q8_0", None)]).files
    weights = sum(tensor.n_bytes for tensor in file.tensors.values())
    assert known(own.needed) - glance.amounts(file).beside == weights
    assert 0 < known(unsized.bytes) < weights / 1.5
    assert faked == []  # without a disk no speeds


def test_a_streamed_file_reads_what_memory_has_no_room_for(monkeypatch, file, faked):
    amounts = glance.amounts(file)
    monkeypatch.setattr(glance, "STAGING_BYTES", 0)
    free(monkeypatch, amounts.dense + amounts.beside + amounts.experts // 2)
    [one] = survey(file, [Offer("own", MODEL.stat().st_size, own=True)], disk=lambda: MODEL).files
    assert faked[1:] == ["qwen3next.gguf"]
    assert (one.fit, one.estimated) == ("streamed", True)
    assert one.in_memory == pytest.approx(0.5, abs=0.01)
    weights = amounts.dense + amounts.experts
    assert 1 / known(one.tok_per_s) == pytest.approx((weights + amounts.used * amounts.experts / 2) / 1e6, rel=0.01)
    free(monkeypatch, amounts.dense)
    [one] = survey(file, [Offer("own", None, own=True)], disk=lambda: MODEL).files
    assert (one.fit, one.tok_per_s) == ("too large", None)


def test_types_for_which_there_is_no_time_are_told_from_others(monkeypatch, file, faked):
    offers = [Offer("BF16", None), Offer("Q8_0", None), Offer("Q4_1", None), Offer("Q5_0", None)]
    survey(file, offers, disk=lambda: MODEL)
    assert faked == ["Q8_0", "Q5_0", "Q4_1", "BF16"]  # what is likely to be taken, then what is next to it
    faked.clear()
    monkeypatch.setattr(surveys, "SECONDS", -1)
    found = survey(file, offers[1:], disk=lambda: MODEL).files
    assert faked == ["Q8_0"]
    assert all(one.tok_per_s for one in found)
    assert sorted(one.estimated for one in found) == [False, True, True]


def test_what_cannot_be_rehearsed_has_no_speed_and_what_is_not_supported_does_not_run(monkeypatch, file, faked):
    offers = [Offer("Q8_0", None), Offer("Q4_0", None)]
    monkeypatch.setattr(Faked, "refuses", MemoryError)
    assert [(one.fit, one.tok_per_s) for one in survey(file, offers, disk=lambda: MODEL).files] == [
        ("in memory", None)
    ] * 2
    monkeypatch.setattr(Faked, "refuses", UnsupportedModelError)
    found = survey(file, offers, disk=lambda: MODEL)
    assert [one.fit for one in found.files] == ["cannot run"] * 2
    assert found.recommended is None


def test_options_are_those_of_a_run(file, faked):
    usual, long, small = (
        known(survey(file, [Offer("Q8_0", None)], Options(ctx=ctx, kv_type=kind)).files[0].needed)
        for ctx, kind in ((64, None), (128, None), (128, "q8_0"))
    )
    assert usual < small < long
    with pytest.raises(ContextOverflowError):
        survey(file, [], Options(ctx=10**8))
    with pytest.raises(QcliError, match="kv-type"):
        survey(file, [], Options(kv_type="f64"))
    assert survey(file, [Offer("Q8_0", None)], Options(ram=1)).files[0].fit == "too large"


def test_without_a_header_sizes_tell_a_little(monkeypatch):
    free(monkeypatch, 5 * 10**9)
    found = by_size([Offer("Q4_K_M", 3 * 10**9), Offer("Q8_0", 9 * 10**9), Offer("IQ2_KS", 1), Offer("", 2 * 10**9)])
    assert [one.fit for one in found.files] == ["in memory", "larger than memory", "cannot run", "in memory"]
    assert [one.bits for one in found.files] == [4.5, 8.5, None, None]
    assert found.recommended is not None
    assert found.recommended[0] == 0


def test_a_real_rehearsal(monkeypatch, file):
    monkeypatch.setattr(rehearsal, "_SECONDS", 0.01)
    monkeypatch.setattr(simulated_cache, "_DISK_SECONDS", 0.005)
    [one] = survey(file, [Offer("own", None, own=True)], Options(threads=1), disk=lambda: MODEL).files
    assert known(one.tok_per_s) > 0  # how near it comes is no matter of pass and fail: other work takes the time
    made = rehearsal.Rehearsal(file, 1)
    assert made.disk_bytes_per_s(MODEL) > 0
    assert made.token_seconds() > 0
