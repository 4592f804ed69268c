"""A limit of addresses is told in a line, before anything is compiled."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from qcli import cli
from qcli.errors import QcliError
from qcli.host import address_space, kernels
from quant.every_kernel import every_kernel

LIMITED = """
import resource
from qcli import cli, console
resource.setrlimit(resource.RLIMIT_AS, ({n} << 20, {n} << 20))
console.leave(cli.invoke(["run", "Hi", "--raw", "-n", "1", "-q"]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems limit no addresses")
@pytest.mark.parametrize("megabytes", [280, 400])
def test_a_limit_that_is_too_small_is_told_before_the_compiler_fails(tmp_path, megabytes):
    """Of 280 MB not even LLVM can be loaded; 400 MB would do for small kernels, and others would end the process."""
    environment = os.environ | {"QCLI_CACHE_DIR": str(tmp_path / "cache"), "XDG_DATA_HOME": str(tmp_path)}
    command = [sys.executable, "-c", LIMITED.format(n=megabytes)]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=60, env=environment)
    error, hint = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (1, b"")
    assert error.startswith(
        f"error: the address space of this process is limited to {megabytes * 1.048576:.0f} MB, and about "
    )
    assert hint.startswith("hint: `ulimit -v unlimited`")
    assert not list(tmp_path.rglob("*.o"))


@pytest.mark.parametrize(("limit", "is_told"), [(400 << 20, True), (1 << 40, False), (None, False)])
def test_where_something_is_missing(monkeypatch, limit, is_told):
    prepared = []
    monkeypatch.setattr(address_space, "used_and_limit", lambda: limit and (300 << 20, limit))
    monkeypatch.setattr(kernels, "compile_and_load", lambda *given: prepared.append(given))
    monkeypatch.setattr(kernels, "is_missing", lambda _: True)
    if is_told:
        with pytest.raises(QcliError, match="limited to 419 MB"):
            kernels.prepare([every_kernel()[0]])
    else:
        kernels.prepare([every_kernel()[0]])
    assert len(prepared) == (not is_told)
    monkeypatch.setattr(kernels, "is_missing", lambda _: False)
    kernels.prepare([every_kernel()[0]])


def test_what_fails_for_want_of_addresses_is_told_as_that(monkeypatch, type_line):
    def fail(*_):
        raise OSError("Could not find/load shared object file 'libllvmlite.so'")

    monkeypatch.setattr("qcli.gguf.file.GGUFFile.open", fail)
    monkeypatch.setattr(address_space, "used_and_limit", lambda: (300 << 20, 301 << 20))
    assert "the address space of this process is limited to 316 MB" in type_line("show", "storyteller")[2]
    monkeypatch.setattr(address_space, "used_and_limit", lambda: None)
    assert "libllvmlite" in type_line("show", "storyteller")[2]


def test_threads_that_the_system_refuses_are_told(monkeypatch, type_line):
    def fail(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("qcli.gguf.file.GGUFFile.open", fail)
    said = "error: the system has no more threads for this user\nhint: end other programs, or raise `ulimit -u`\n"
    assert type_line("show", "storyteller") == (1, "", said)
    assert cli.invoke(["--version"]) == 0
