"""Machine code on disk: found again, found damaged, and not found where it must not be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kernel_helpers import new_plan, replay
from one_kernel import add_up
from places import ROOT

from quant import kernel_cache, sources
from quant.jit import Kernel, kernel
from quant.prepare import prepare
from quant.renaming import PART
from quant.simd import store_i64


@kernel
def write_answer(rank, size, out):
    """out [1] = 42."""
    store_i64(out, 42)


def answer(declared: Kernel) -> int:
    out, plan = np.zeros(1, np.int64), new_plan(1)
    plan.add(declared, out)
    replay(plan)
    return int(out[0])


def kept(declared: Kernel) -> Path:
    """The file that holds a kernel's code."""
    folder = kernel_cache.folder()
    assert folder is not None
    return folder / f"{declared.name}-{sources.digest(declared.body.__module__)}.o"


def again(declared: Kernel) -> Kernel:
    """The same kernel, as another process would declare it."""
    return Kernel(declared.body, declared.parameters, declared.returns)


def test_a_function_can_be_called_from_python():
    assert add_up(40, 1, 1.5) == 42


@pytest.fixture
def own_folder(monkeypatch, tmp_path):
    """A cache of this test alone: others look for the same code at the same time."""
    monkeypatch.setattr(kernel_cache, "root", lambda: tmp_path)
    kernel_cache.folder().mkdir(parents=True)


@pytest.mark.usefixtures("own_folder")
def test_code_is_kept_and_found_again():
    assert answer(again(write_answer)) == 42
    before = kept(write_answer).stat().st_mtime_ns
    assert answer(again(write_answer)) == 42
    assert kept(write_answer).stat().st_mtime_ns == before


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize("damage", [b"", b"\0" * 100, None])
def test_damaged_code_is_compiled_anew(damage):
    answer(again(write_answer))
    path = kept(write_answer)
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]) if damage is None else damage)
    assert answer(again(write_answer)) == 42
    assert path.read_bytes()[:32] != damage
    assert len(path.read_bytes()) > 100


@pytest.mark.usefixtures("own_folder")
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no such pipes")
def test_a_pipe_among_kept_code_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.o")
    assert not kernel_cache.is_whole(tmp_path / "pipe.o")


def test_lost_code_is_compiled_anew():
    answer(again(write_answer))
    kept(write_answer).unlink()
    assert answer(again(write_answer)) == 42
    assert kept(write_answer).exists()


@pytest.mark.usefixtures("own_folder")
def test_several_kernels_are_prepared_with_progress():
    answer(again(write_answer))
    kept(write_answer).unlink()
    told: list[float] = []
    prepare([again(write_answer), again(add_up)], told.append)
    assert kept(write_answer).exists()
    assert told == sorted(told)
    assert all(0 <= part <= 1 for part in told)


TWO = """
import sys
sys.path.insert(0, "tests/helpers")
from one_kernel import add_up
from quant import kernel_cache
assert add_up(40, 1, 1.5) == 42
print(kernel_cache.folder())
"""


def in_another_process(root: Path, code: str = TWO, **environment: str) -> Path:
    environment = {**os.environ, "QCLI_CACHE_DIR": str(root), **environment}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def test_a_folder_may_be_chosen_and_need_not_exist(tmp_path):
    folder = in_another_process(tmp_path / "new" / "cache")
    assert folder.is_relative_to(tmp_path)
    assert [path for path in folder.iterdir() if path.name.startswith("one_kernel.add_up")]
    assert not [path for path in folder.iterdir() if not path.name.endswith(".o")]


def test_a_folder_that_cannot_be_made_is_replaced_by_a_temporary_one(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    folder = in_another_process(tmp_path / "file", TMPDIR=str(tmp_path), TEMP=str(tmp_path))
    assert folder.is_dir()
    assert folder.is_relative_to(tmp_path)


def test_a_folder_that_came_filled_and_read_only_is_read_and_another_is_written(tmp_path, monkeypatch):
    filled, spare = tmp_path / "filled", tmp_path / "spare"
    may = os.access
    monkeypatch.setattr(kernel_cache, "_candidates", (lambda: filled, lambda: spare))
    monkeypatch.setattr(os, "access", lambda path, mode: filled not in Path(path).parents and may(path, mode))
    roots = kernel_cache._roots.__wrapped__()
    assert roots == (spare, filled)
    monkeypatch.setattr(kernel_cache, "_roots", lambda: roots)
    code = filled / kernel_cache._subfolder() / kernel_cache.name_of(write_answer)
    code.write_bytes(kernel_cache.packed("symbol", b"code"))
    assert kernel_cache.read(write_answer) == ("symbol", b"code")
    kernel_cache.save(add_up, "other", b"more")
    assert [path.name for path in (spare / kernel_cache._subfolder()).iterdir()] == [kernel_cache.name_of(add_up)]


def test_a_cache_that_keeps_nothing_is_told_once_and_costs_only_time(tmp_path, monkeypatch):
    lost = tmp_path / "lost"
    monkeypatch.setattr(kernel_cache, "folder", lambda: lost)
    with pytest.warns(RuntimeWarning, match="QCLI_CACHE_DIR chooses another") as told:
        prepare([again(write_answer), again(add_up)])
    assert len(told) == 1
    assert str(told[0].message).startswith(f"{lost}: machine code cannot be kept there (No such file")
    assert not lost.exists()


def test_no_place_at_all_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("QCLI_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    assert kernel_cache._roots.__wrapped__()[0].is_relative_to(tmp_path / "file")


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners of POSIX")
def test_code_of_another_user_is_not_run(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("QCLI_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"qcli-{os.getuid() + 1}").mkdir()
    owner = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: owner)
    assert kernel_cache._roots.__wrapped__()[0].is_relative_to(tmp_path / "file")


def test_without_a_folder_code_is_compiled_and_not_kept(tmp_path):
    code = TWO.replace("assert", "kernel_cache.configure()\nassert")
    assert in_another_process(tmp_path, code) == Path("None")
    assert not list(tmp_path.iterdir())


def test_processors_do_not_share_code(tmp_path):
    here = in_another_process(tmp_path)
    other = in_another_process(tmp_path, NUMBA_CPU_FEATURES="")
    assert here.parent == other.parent
    assert here != other


def test_code_is_named_by_the_sources_it_comes_from(tmp_path):
    (tmp_path / "user.py").write_text("from quant import (\n    tile,\n)\ndef f():\n    import quant.plan\n")
    behind = sources.behind(tmp_path / "user.py")
    assert {"quant", "quant.tile", "quant.plan", "quant.simd", "quant.jit"} <= behind
    assert not {"quant.team", "quant.formats.q4_k"} & behind


def test_a_format_is_not_compiled_anew_for_a_change_of_another():
    names = {
        name: sources.behind(Path(sources.__file__).parent / "formats" / f"{name}.py") for name in ("q8_0", "q5_k")
    }
    assert "quant.formats.q4_k" in names["q5_k"]
    assert "quant.formats.q4_k" not in names["q8_0"]
    assert sources.digest("quant.formats.q5_k") != sources.digest("quant.formats.q8_0")


def test_what_a_process_left_that_was_killed_while_it_wrote_is_removed():
    answer(write_answer)
    here = kept(write_answer)
    left, under_way = (here.with_name(f"tmp{name}{PART}") for name in ("left", "new"))
    for path in (left, under_way):
        path.write_bytes(b"half")
    os.utime(left, (0, 0))
    try:
        kernel_cache.save(write_answer, "symbol", b"")
        assert (left.exists(), under_way.exists()) == (False, True)
    finally:
        under_way.unlink()
        here.unlink()


def test_what_is_being_written_says_so(monkeypatch):
    """Or nobody could tell what a killed process leaves."""
    named: list[Path] = []
    monkeypatch.setattr(kernel_cache, "keep_first", lambda written, path: named.append(Path(written)))
    answer(write_answer)
    kernel_cache.save(write_answer, "symbol", b"")
    assert [path.suffix for path in named] == [PART]
    named[0].unlink()


def test_old_code_of_other_sources_is_removed_in_time(tmp_path):
    answer(write_answer)
    here = kept(write_answer)
    old, young = (here.with_name(f"{write_answer.name}-{digits}.o") for digits in ("0" * 16, "1" * 16))
    old.write_bytes(b"")
    young.write_bytes(b"")
    os.utime(old, (0, 0))
    try:
        kernel_cache.save(write_answer, "symbol", b"")
        assert not old.exists()
        assert young.exists()
    finally:
        young.unlink()
        here.unlink()
