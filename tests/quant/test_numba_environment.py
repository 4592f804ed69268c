"""Numba's variables that are left over in an environment: the same code as ever, and nothing printed."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
from places import ROOT

from quant import cpu, numba_environment

COMPILE = """
import hashlib, sys
sys.path.insert(0, "tests/helpers")
from one_kernel import add_up
from quant import loader
print(hashlib.sha256(b"".join(map(bytes, loader._compile(add_up)[1:]))).hexdigest())
"""


def compiled(code: str = COMPILE, **environment: str) -> tuple[int, str, str]:
    """Compile in a process of its own, without a cache; its exit code, stdout and stderr."""
    environment = {**numba_environment.without(os.environ), **environment}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def usual() -> tuple[int, str, str]:
    return compiled()


@pytest.mark.parametrize(
    "variable", ["DISABLE_JIT=1", "DEBUG=1", "BOUNDSCHECK=1", "OPT=0", "OPT=fast", "NUM_THREADS=abc", "ENABLE_AVX=0"]
)
def test_what_is_left_over_changes_nothing(usual, variable):
    assert usual[0] == 0
    name, value = f"NUMBA_{variable}".split("=")
    assert compiled(**{name: value}) == usual


def test_a_program_that_has_imported_numba_before_gets_the_same_code(usual):
    assert compiled("import numba\n" + COMPILE, NUMBA_BOUNDSCHECK="1") == usual


def test_variables_are_as_before_afterwards(monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    monkeypatch.setenv("NUMBA_CPU_NAME", "haswell")
    with numba_environment.set_aside():
        assert "NUMBA_DISABLE_JIT" not in os.environ
        assert os.environ["NUMBA_CPU_NAME"] == "haswell"
    assert os.environ["NUMBA_DISABLE_JIT"] == "1"
    assert numba_environment.without({"NUMBA_OPT": "0", "NUMBA_CPU_NAME": "x", "HOME": "/"}) == {
        "NUMBA_CPU_NAME": "x",
        "HOME": "/",
    }


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="processors of x86-64")
@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("NUMBA_CPU_NAME", "generic", "lacks F16C"),
        ("NUMBA_CPU_NAME", "nonsense", "knows no such processor"),
        ("NUMBA_CPU_FEATURES", "nonsense", "knows no such processor"),
        ("NUMBA_CPU_FEATURES", "+nonsense", "knows no such processor"),
        ("NUMBA_CPU_FEATURES", "-f16c", "lacks F16C"),
        ("NUMBA_CPU_NAME", "haswell", ""),
    ],
)
def test_a_processor_that_is_chosen_can_run_kernels_or_is_refused(monkeypatch, variable, value, said):
    for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    for cached in (cpu.name, cpu.features):
        monkeypatch.setattr(cpu, cached.__name__, cached.__wrapped__)
    problem = cpu.wrongly_chosen.__wrapped__()
    assert (said in problem and f"{variable}={value}" in problem) if said else problem == ""


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="processors of x86-64")
def test_a_wrong_choice_is_one_line_of_the_command():
    environment = {**os.environ, "NUMBA_CPU_NAME": "generic"}
    command = [sys.executable, "-m", "qcli", "run", "hi"]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: NUMBA_CPU_NAME=generic: such a processor lacks F16C\nhint: ")
    assert len(done.stderr.splitlines()) == 2
