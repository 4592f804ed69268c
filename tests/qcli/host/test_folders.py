"""Where the user's folders are: never where a command happens to be typed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qcli.errors import UsageError
from qcli.host import folders
from qcli.hub import cache
from qcli.hub.address import Address
from qcli.local_models.hub import cached_model

posix = pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="folders as XDG names them")
_CHOICES = ("QCLI_CACHE_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "HF_HOME", "HF_HUB_CACHE")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home, and nothing that chooses another folder."""
    for name in _CHOICES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def homeless(monkeypatch):
    """A user of a container: no HOME, and unknown to the system."""
    pwd = pytest.importorskip("pwd", reason="users of POSIX")

    def unknown(_):
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@posix
@pytest.mark.parametrize("relative", ["cache", "./cache", "~/cache", " "])
def test_relative_paths_of_xdg_are_ignored(home, monkeypatch, relative):
    monkeypatch.setenv("XDG_CACHE_HOME", relative)
    monkeypatch.setenv("XDG_STATE_HOME", relative)
    monkeypatch.setenv("XDG_CONFIG_HOME", relative)
    assert folders.config() == home / ".config" / "qcli"
    assert folders.cache() == home / ".cache" / "qcli"
    assert folders.state() == home / ".local" / "state" / "qcli"
    assert cache.hub_cache() == home / ".cache" / "huggingface" / "hub"


@posix
def test_full_paths_of_xdg_are_taken(home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "c"))
    assert folders.cache() == home / "c" / "qcli"
    assert cache.hub_cache() == home / "c" / "huggingface" / "hub"


@posix
def test_without_a_home_there_is_no_folder_of_ones_own(homeless, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for find in (folders.cache, folders.state, folders.shared_cache):
        with pytest.raises(FileNotFoundError):
            find()
    assert cache.hub_cache() is None
    assert cached_model(Address("a/b", None, "c.gguf")) is None
    assert folders.some_cache() == folders.spare_cache() == tmp_path / f"qcli-{os.getuid()}"


def test_the_chosen_folder_may_begin_with_the_home(home, monkeypatch):
    monkeypatch.setenv("QCLI_CACHE_DIR", str(home / "x"))
    assert folders.cache() == home / "x"


@posix
def test_a_tilde_in_what_is_chosen_is_the_home(home, monkeypatch):
    monkeypatch.setenv("QCLI_CACHE_DIR", "~/x")
    assert folders.cache() == home / "x"
    monkeypatch.setenv("HF_HOME", "~/hf")
    assert cache.hub_cache() == home / "hf" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", "~/hub")
    assert cache.hub_cache() == home / "hub"


@pytest.mark.parametrize("chosen", ["cache", "~nobody-of-this-name/x", "."])
def test_machine_code_is_not_run_from_wherever_one_is(monkeypatch, chosen):
    monkeypatch.setenv("QCLI_CACHE_DIR", chosen)
    with pytest.raises(UsageError, match="no full path"):
        folders.cache()


@posix
@pytest.mark.parametrize("made", ["writable by all", "a link"])
def test_a_temporary_folder_that_others_may_fill_is_not_used(monkeypatch, tmp_path, made):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mine = tmp_path / f"qcli-{os.getuid()}"
    if made == "a link":
        (tmp_path / "other").mkdir()
        mine.symlink_to(tmp_path / "other")
    else:
        mine.mkdir()
        mine.chmod(0o777)
    with pytest.raises(PermissionError):
        folders.spare_cache()


def test_a_user_who_is_not_there_is_no_error():
    assert folders.expanded("~nobody-of-this-name/m.gguf") == Path("~nobody-of-this-name/m.gguf")


@pytest.mark.parametrize("model", ["~nobody-of-this-name/m.gguf", "~nobody-of-this-name", "~", "~/none.gguf"])
@pytest.mark.parametrize("command", ["show", "plan", "experts"])
def test_a_model_below_such_a_home_is_one_line(refused, command, model):
    refused([command, model], 1, "~" if "nobody" in model else "")


@posix
@pytest.mark.parametrize("variables", [{}, {"HF_HOME": "~"}, {"HF_HUB_CACHE": "~x/y"}, {"XDG_CACHE_HOME": "here"}])
def test_every_command_that_lists_models_works_without_a_home(homeless, type_line, monkeypatch, tmp_path, variables):
    monkeypatch.chdir(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, out, _ = type_line("models")
    assert code == 0
    assert "not downloaded" in out
    assert list(tmp_path.iterdir()) == []


@posix
def test_nothing_is_made_where_one_is(tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    environment = {**os.environ, "XDG_CACHE_HOME": "cache", "HOME": str(tmp_path)}
    code = "from qcli.host import kernels; from quant import kernel_cache; print(kernel_cache.folder())"
    done = subprocess.run([sys.executable, "-c", code], cwd=here, env=environment, capture_output=True, text=True)
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / ".cache" / "qcli")
    assert list(here.iterdir()) == []


@posix
@pytest.mark.parametrize(
    "line",
    ["imatrix storyteller {text} --output=~/none/x", "perplexity storyteller {text} --save-logits=~/none/x"],
)
def test_a_tilde_that_the_shell_leaves_is_the_home(type_line, home, line):
    (home / "text").write_text("A cat sat on a mat. " * 400)
    code, out, err = type_line(*line.format(text=home / "text").split())
    assert (code, out) == (1, "")
    assert f"there is no folder {home / 'none'}" in err
