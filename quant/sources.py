"""Which sources a module's compiled code comes from: its own, those of all modules of this package it imports, and the
compiler's. Modules that only keep code or load it do not decide what it is, and are left out.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent
# `from quant.simd import …`, `from quant import cpu, layout`, `import quant.jit`, at any depth of a file.
_IMPORT = re.compile(r"^[ \t]*(?:from (quant[\w.]*) import (\([^)]*\)|[\w, ]*)|import (quant[\w.]*))", re.MULTILINE)
_APART = ("quant.kernel_cache", "quant.loader", "quant.sources")
_NAME = re.compile(r"\w+")


@cache
def digest(module: str) -> str:
    """A name for the sources behind a module that is loaded or belongs to this package: 16 hexadecimal digits."""
    own = _file(module) or Path(str(sys.modules[module].__file__))
    together = hashlib.sha256(_read(own))
    for name in sorted(behind(own)):
        path = _file(name)
        assert path is not None
        together.update(name.encode() + b"\0" + _read(path))
    return together.hexdigest()[:16]


def behind(start: Path) -> set[str]:
    """Every module of this package that the code of a file may depend on, directly or through others."""
    reached: set[str] = set()
    ahead = ["quant.compiler", *_imports(start)]
    while ahead:
        name = ahead.pop()
        path = _file(name)
        if path and name not in reached and name not in _APART:
            reached.add(name)
            ahead.extend(_imports(path))
    return reached


@cache
def _imports(path: Path) -> tuple[str, ...]:
    return tuple(_named(_read(path).decode()))


def _named(source: str) -> Iterator[str]:
    """Names in import statements: modules, and what may be modules."""
    for package, names, plain in _IMPORT.findall(source):
        yield package or plain
        yield from (f"{package}.{name}" for name in _NAME.findall(names))


@cache
def _file(module: str) -> Path | None:
    """The file of a module of this package."""
    first, *rest = module.split(".")
    place = _HERE.joinpath(*rest)
    found = [path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()]
    return found[0] if first == "quant" and found else None


@cache
def _read(path: Path) -> bytes:
    return path.read_bytes()
