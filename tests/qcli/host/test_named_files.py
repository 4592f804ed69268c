"""Files that Windows lets nobody replace or delete, and paths that are too long for it: told before anything is lost."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from qcli.errors import ModelNotFoundError, OutputError
from qcli.gguf.file import GGUFFile
from qcli.host import named_files
from qcli.host.atomic_files import AtomicFiles
from qcli.local_models.removal import of_files
from qcli.runtime import state_file

DENIED, SHARED, NO_FILE, NO_PATH, EXCEEDS = 5, 32, 2, 3, 206


def answer(code: int, said: str, *names: object) -> OSError:
    """What Windows raises."""
    problem = FileNotFoundError(errno.ENOENT, said) if code in (NO_FILE, NO_PATH) else OSError(errno.EACCES, said)
    problem.winerror = code
    if names:
        problem.filename = names[0]
    return problem


@pytest.fixture
def held(monkeypatch):
    """A system that is Windows, and files that another program has open there."""
    paths: set[Path] = set()
    true: dict[str, Any] = {"rename": os.rename, "replace": os.replace, "unlink": os.unlink}

    def refusing(name):
        def act(path, *to, **how):
            if paths & {Path(path), *map(Path, to)}:
                raise answer(SHARED if name == "rename" else DENIED, "Access is denied", path)
            return true[name](path, *to, **how)

        return act

    monkeypatch.setattr(sys, "platform", "win32")
    for name in true:
        monkeypatch.setattr(os, name, refusing(name))
    monkeypatch.setattr("quant.renaming.time.sleep", lambda _: None)
    return paths


def test_whether_a_file_is_in_use(held, tmp_path, monkeypatch):
    (path := tmp_path / "model.gguf").write_text("mapped")
    assert not named_files.in_use(path)
    assert not named_files.in_use(tmp_path / "none")
    held.add(path)
    assert named_files.in_use(path)
    monkeypatch.setattr(sys, "platform", "linux")  # where its name can be given to another file all the same
    assert not named_files.in_use(path)
    assert path.read_text() == "mapped"


def test_an_output_that_a_process_runs_is_refused_before_it_is_made_again(held, tmp_path):
    (path := tmp_path / "model.gguf").write_text("mapped")
    held.add(path)
    with pytest.raises(OutputError, match=r"model\.gguf: another program has it open") as problem:
        AtomicFiles([tmp_path / "new.gguf", path], overwrite=True, reads=[])
    assert problem.value.hint == "end that program, and type the same again"
    assert path.read_text() == "mapped"


def test_of_several_outputs_none_is_replaced_if_one_cannot_be(held, tmp_path):
    paths = [tmp_path / "1.gguf", tmp_path / "2.gguf"]
    for path in paths:
        path.write_text("old")

    def write() -> None:
        with AtomicFiles(paths, overwrite=True, reads=[]) as files:
            for path in paths:
                files.open(path).write(b"new")
            held.add(paths[1])  # opened meanwhile

    with pytest.raises(OutputError, match=r"2\.gguf: another program has it open"):
        write()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"1.gguf": "old", "2.gguf": "old"}


def test_a_mapped_file_whose_handle_is_closed_is_told_when_it_is_replaced(held, tmp_path, monkeypatch):
    """It can be renamed, so that nothing tells before."""
    (path := tmp_path / "model.gguf").write_text("mapped")

    def write() -> None:
        with AtomicFiles([path], overwrite=True, reads=[]) as files:
            files.open(path).write(b"new")
            held.add(path)
            monkeypatch.setattr(os, "rename", lambda *_: None)

    with pytest.raises(OutputError, match="cannot be written: Access is denied, or another program has it open"):
        write()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mapped"]


def test_of_a_model_that_a_process_runs_nothing_is_deleted(held, tmp_path):
    parts = [tmp_path / "m-00001-of-00002.gguf", tmp_path / "m-00002-of-00002.gguf"]
    for part in parts:
        part.write_text("mapped")
    held.add(parts[1])
    with pytest.raises(OutputError, match=r"m-00002-of-00002\.gguf: another program has it open"):
        of_files(parts, tmp_path).run()
    assert all(part.exists() for part in parts)
    held.clear()
    of_files(parts, tmp_path).run()
    assert not any(part.exists() for part in parts)


def test_what_is_kept_to_save_time_stays_while_another_process_reads_it(held, tmp_path):
    state_file.write(path := tmp_path / "state", b"header", ())
    before = path.stat().st_mtime_ns
    held.add(path)
    state_file.write(path, b"header", ())
    assert (list(tmp_path.iterdir()), path.stat().st_mtime_ns) == ([path], before)


LONG = "/" + "x" * 299


@pytest.mark.parametrize(
    ("code", "path", "said"),
    [
        (
            EXCEEDS,
            "/short",
            "its path of 6 characters is too long for Windows",
        ),  # as of a folder that is made, from 248 on
        (NO_PATH, LONG, "its path of 300 characters is too long for Windows"),
        (NO_FILE, LONG, "its path of 300 characters is too long for Windows"),
        (NO_PATH, "/short", "as the system says it"),
        (SHARED, LONG, "another program has it open"),
        (DENIED, LONG, "as the system says it, or another program has it open"),
        (112, LONG, "as the system says it"),
    ],
)
def test_what_windows_means(code, path, said):
    why = named_files.reason(answer(code, "as the system says it"), "look", Path(path))
    assert why.said == said
    own = "look" if "system" in said else "LongPathsEnabled" if "characters" in said else "end that program"
    assert own in why.hint


@pytest.mark.parametrize("named", [LONG, Path(LONG)])
def test_a_temporary_file_may_have_a_path_that_is_too_long(named):
    why = named_files.reason(answer(NO_PATH, "The system cannot find the path", named), "look", Path("/short"))
    assert "300 characters" in why.said


def test_other_systems_say_it_themselves():
    assert named_files.reason(FileNotFoundError(errno.ENOENT, "No such file", LONG), "look") == ("No such file", "look")
    assert named_files.reason(OSError("odd"), "look", Path("x"), "so") == ("so", "look")
    assert named_files.reason(OSError("odd"), "look") == ("odd", "look")


def test_a_full_disk_is_not_a_matter_of_permissions():
    said, hint = named_files.reason(OSError(errno.ENOSPC, "No space left on device"), "check the permissions")
    assert (said, hint) == ("No space left on device", "free some space, and type the same again")


def test_a_model_by_a_path_that_is_too_long_is_not_said_to_be_missing(monkeypatch):
    def refuse(path, **_):
        raise answer(NO_PATH, "The system cannot find the path specified", str(path))

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(ModelNotFoundError, match="its path of 300 characters is too long"):
        GGUFFile.open(Path(LONG))


@pytest.mark.skipif(sys.platform == "win32", reason="links are for administrators, and a folder where one is stays")
def test_links_that_lead_back_and_a_folder_that_is_gone_are_no_error(tmp_path, monkeypatch):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert named_files.resolved(loop / "below") == loop / "below"
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert named_files.reason(FileNotFoundError(errno.ENOENT, "No such file"), "look", Path("x")).said == "No such file"
