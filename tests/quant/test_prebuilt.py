"""Objects that come with the package: for whom they are, and that they are used."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from quant import cpu, kernel_cache, loader, prebuild, prebuilt
from quant.jit import Kernel, function
from quant.simd import store_i64

HASWELL = prebuilt.TARGETS["x86-64-v3"].needs
SERVER = prebuilt.TARGETS["x86-64-v4-vnni"].needs


@function("p")
def put_seven(out):
    """out = 7."""
    store_i64(out, 7)


@pytest.mark.parametrize(
    ("unit", "features", "target"),
    [
        ("avx2", HASWELL, "x86-64-v3"),
        ("avx2", HASWELL | {"sha"}, "x86-64-v3"),
        ("avx2", HASWELL - {"lzcnt"}, ""),
        ("avxvnni", HASWELL | {"avxvnni"}, "x86-64-v3-vnni"),
        ("avx512vnni", SERVER, "x86-64-v4-vnni"),
        ("avx512vnni", SERVER - {"avx512cd"}, ""),
        ("avx512", SERVER - {"avx512vnni"}, ""),  # whose kernels are others
        ("dotprod", {"dotprod"}, ""),
    ],
)
def test_who_has_which(unit, features, target):
    assert prebuilt.fitting("linux", "x86_64", unit, features) == target
    assert prebuilt.fitting("win32", "x86_64", unit, features) == ""
    assert prebuilt.fitting("linux", "aarch64", unit, features) == ""


@pytest.fixture
def comes_with(monkeypatch, tmp_path):
    """A package with the object of `put_seven` for this processor, and an empty cache; the folder."""
    place = tmp_path / "objects"
    prebuild.write(place, [put_seven])
    monkeypatch.setattr(prebuilt, "folder", lambda: place)
    monkeypatch.setattr(kernel_cache, "root", lambda: tmp_path / "cache")
    kernel_cache.folder().mkdir(parents=True)
    return place


def seven(kernel):
    out = np.zeros(1, np.int64)
    kernel(out.ctypes.data)
    return int(out[0])


def again():
    return Kernel(put_seven.body, put_seven.parameters, put_seven.returns)


def test_it_is_used(comes_with, monkeypatch):
    monkeypatch.setattr(loader, "_compile", lambda _: pytest.fail("compiled"))
    assert kernel_cache.has(put_seven)
    assert seven(again()) == 7
    assert kernel_cache.kept() == []


def test_one_that_is_damaged_is_compiled_anew(comes_with):
    (path,) = comes_with.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert seven(again()) == 7
    assert len(kernel_cache.kept()) == 1


def test_none_for_a_processor_that_is_chosen(monkeypatch, tmp_path):
    prebuilt.folder.cache_clear()
    monkeypatch.setattr(prebuilt, "FOLDER", tmp_path)
    monkeypatch.setattr(prebuilt, "fitting", lambda *_: "here")
    (tmp_path / "here").mkdir()
    try:
        assert prebuilt.folder() == tmp_path / "here"
        prebuilt.folder.cache_clear()
        monkeypatch.setenv("NUMBA_CPU_NAME", "haswell")
        assert prebuilt.folder() is None
    finally:
        prebuilt.folder.cache_clear()


def test_a_target_without_objects_has_none(monkeypatch, tmp_path):
    prebuilt.folder.cache_clear()
    monkeypatch.setattr(prebuilt, "FOLDER", tmp_path)
    assert prebuilt.folder() is None
    prebuilt.folder.cache_clear()


@pytest.mark.skipif(sys.platform != "linux" or not cpu.is_x86(), reason="objects are for Linux on x86-64")
def test_targets_have_the_unit_that_they_are_for(monkeypatch):
    for target in prebuilt.TARGETS.values():
        cpu.name.cache_clear(), cpu.dot_unit.cache_clear()
        monkeypatch.setenv("NUMBA_CPU_NAME", target.name)
        monkeypatch.setenv("NUMBA_CPU_FEATURES", target.more)
        assert cpu.dot_unit() == target.unit
    cpu.name.cache_clear(), cpu.dot_unit.cache_clear()
