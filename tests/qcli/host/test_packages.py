"""What brings the packages that a command lacks, to whichever Python runs it."""

from __future__ import annotations

import sys

import pytest

from qcli.host import packages
from qcli.host.packages import how_to_install


def test_packages_are_told_by_their_own_names(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/home/me/.venv/bin/python")
    monkeypatch.setattr(packages, "find_spec", lambda _: object())
    assert (
        how_to_install("serve") == "type: /home/me/.venv/bin/python -m pip install prometheus-client starlette uvicorn"
    )
    assert how_to_install("ray").endswith(' install "ray[data]"')


def test_an_environment_without_pip_is_uvs(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/home/my self/python")
    monkeypatch.setattr(packages, "find_spec", lambda _: None)
    assert how_to_install("peer") == 'type: uv pip install --python "/home/my self/python" llama-cpp-python'


@pytest.mark.parametrize("extra", ["mcp", "peer", "ray", "serve"])
def test_every_extra_that_a_command_names_is_known(extra):
    assert not how_to_install(extra).endswith(" ")
