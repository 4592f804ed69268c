"""Packages that some commands need and not every installation has: what brings them to this one.

They are told by their own names, never as an extra of qcli by its name alone: PyPI has another project called so.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec

_NAME = re.compile(r"[\w.-]+(\[[\w.,-]+\])?")


def how_to_install(extra: str) -> str:
    """What to type to get the packages of one of qcli's extras, for the Python that runs this, with pip or with uv."""
    python = f'"{sys.executable}"' if " " in sys.executable else sys.executable
    names = " ".join(f'"{name}"' if "[" in name else name for name in _packages(extra))
    if find_spec("pip") is None:  # in environments that uv has made
        return f"type: uv pip install --python {python} {names}"
    return f"type: {python} -m pip install {names}"


def _packages(extra: str) -> list[str]:
    try:
        lines = requires("qcli") or []
    except PackageNotFoundError:  # sources that are not installed
        lines = []
    found = [line for line in lines if re.search(rf"extra == ['\"]{extra}['\"]", line)]
    return [match[0] for line in found if (match := _NAME.match(line))]
