"""Renaming and deleting where Windows refuses: its answers are given by functions that stand in for the system's."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from quant import kernel_cache, renaming
from quant.jit import kernel

DENIED, SHARED, FULL = 5, 32, 112


@kernel
def nothing(rank, size):
    """A name in the cache."""


def refusal(code: int) -> OSError:
    """As Windows raises it: other systems' errors have no such attribute."""
    problem = PermissionError(errno.EACCES, "Access is denied")
    problem.winerror = code
    return problem


@pytest.fixture
def waited(monkeypatch):
    """The pauses, which take no time."""
    pauses: list[float] = []
    monkeypatch.setattr(renaming.time, "sleep", pauses.append)
    return pauses


@pytest.fixture
def busy(monkeypatch, waited):
    """Have the system refuse so many times, then do it."""

    def refuse(name, times, code=SHARED, owner=os):
        true, refusals = getattr(owner, name), [refusal(code)] * times

        def act(*given, **named):
            if refusals:
                raise refusals.pop()
            return true(*given, **named)

        monkeypatch.setattr(owner, name, act)
        return refusals

    return refuse


@pytest.fixture
def written(tmp_path) -> Path:
    path = tmp_path / "written"
    path.write_text("new")
    (tmp_path / "there").write_text("old")
    return path


@pytest.mark.parametrize("code", [DENIED, SHARED])
def test_a_file_that_is_looked_at_for_a_moment_gets_its_name_all_the_same(busy, waited, written, code):
    busy("replace", 3, code)
    renaming.replace(written, there := written.with_name("there"))
    assert (there.read_text(), written.exists()) == ("new", False)
    assert waited == [0.001, 0.002, 0.004]


def test_one_that_stays_open_is_an_error_after_a_second(busy, waited, written):
    busy("replace", 1000)
    with pytest.raises(PermissionError):
        renaming.replace(written, written.with_name("there"))
    assert 0.9 < sum(waited) < 1.1
    assert (written.read_text(), written.with_name("there").read_text()) == ("new", "old")


@pytest.mark.parametrize("act", [renaming.replace, renaming.keep_first])
def test_nobody_waits_for_what_does_not_pass(busy, waited, written, act):
    busy("replace", 1, FULL)
    with pytest.raises(PermissionError):
        act(written, written.with_name("there"))
    assert (waited, written.read_text()) == ([], "new")


def test_nor_for_a_right_that_is_missing_on_other_systems(monkeypatch, waited, written):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    for act in (renaming.replace, renaming.keep_first):
        with pytest.raises(PermissionError):
            act(written, written.with_name("there"))
    assert waited == []


def test_deleting_waits_too_and_what_is_gone_is_gone(busy, waited, written):
    busy("unlink", 2, owner=Path)
    renaming.remove(written)
    renaming.remove(written)
    assert (waited, written.exists()) == ([0.001, 0.002], False)


def test_of_two_that_are_the_same_the_one_in_use_stays(busy, waited, written):
    busy("replace", 1000)
    renaming.keep_first(written, there := written.with_name("there"))
    assert (there.read_text(), written.exists(), waited) == ("old", False, [])


def test_the_first_of_its_name_is_waited_for(busy, waited, written):
    busy("replace", 2)
    renaming.keep_first(str(written), new := written.with_name("other"))
    assert (new.read_text(), written.exists(), waited) == ("new", False, [0.001])


@pytest.fixture
def folder(monkeypatch, tmp_path) -> Path:
    """The kernel cache of this test alone."""
    monkeypatch.setattr(kernel_cache, "root", lambda: tmp_path)
    place = kernel_cache.folder()
    assert place is not None
    place.mkdir(parents=True)
    return place


def test_code_that_another_process_reads_is_not_written_again(busy, folder):
    kernel_cache.save(nothing, "symbol", b"code")
    busy("replace", 1000)
    kernel_cache.save(nothing, "symbol", b"code")
    assert [path.name for path in folder.iterdir()] == [kernel_cache.name_of(nothing)]
    assert kernel_cache.read(nothing) == ("symbol", b"code")


def test_code_that_cannot_be_kept_leaves_nothing_behind(monkeypatch, folder):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.warns(RuntimeWarning, match=r"cannot be kept there \(No space left on device\)"):
        kernel_cache.save(nothing, "symbol", b"code")
    assert list(folder.iterdir()) == []
