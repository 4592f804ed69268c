"""The process that a tool runs in: python worker.py FILE FUNCTION MOST, arguments as JSON on its standard input.

It writes one line of JSON to its standard output: {"result": text} or {"error": text}. What the function prints is its
result if it gives nothing back. It imports nothing of qcli, so that the function has what any script has.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any


class _Printed(io.TextIOBase):
    """The beginning of what is printed."""

    def __init__(self, most: int) -> None:
        self.text, self._most = "", most

    def write(self, text: str) -> int:
        """Keep what there is room for."""
        self.text += text[: max(0, self._most - len(self.text))]
        return len(text)


def main() -> None:
    """Call the function, and write what it gives back."""
    path, name, most = sys.argv[1], sys.argv[2], int(sys.argv[3])
    answer = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # for whatever prints past Python
    os.dup2(nowhere, 2)
    arguments = json.load(sys.stdin)
    sys.argv[:] = [path]
    sys.path[0] = os.path.dirname(path)
    printed = _Printed(most + 1)
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            value = _function(path, name)(**arguments)
        found = {"result": _text(value, printed.text)[: most + 1]}
    except BaseException as problem:  # whatever the program of a user may raise
        found = {"error": f"{type(problem).__name__}: {problem}"[:most]}
    answer.write(json.dumps(found).encode())
    answer.flush()
    os._exit(0)  # threads of the function end with it


def _function(path: str, name: str) -> Any:
    spec = importlib.util.spec_from_file_location("tools", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["tools"] = module
    spec.loader.exec_module(module)
    return getattr(module, name)


def _text(value: Any, printed: str) -> str:
    if value is None:
        return printed
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


if __name__ == "__main__":
    main()
