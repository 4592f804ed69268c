"""The file of results: a line for each row that is done, there whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from qcli.errors import OutputError
from qcli.host.append_file import AppendFile
from qcli.wording import counted, shortened

_BEGINNING: Final = (b'{"id":"batch_req_', b'{"custom_id":')


class Results:
    """A file that results are added to, each as soon as it is known; one process at a time does so. A context manager."""

    def __init__(self, path: Path) -> None:
        """Open a file, or have one made by the first result. `done` has the ids of the rows whose results are there, and the
        digests of what was asked, "" of results that do not tell.

        A line that was cut off in the writing is taken out by the next addition. Raises OutputError for a file of other
        contents, or one that cannot be written, UsageError if another process has it open.
        """
        self.path = path
        self.done: dict[str, str] = {}
        self.errors = 0  # rows among them that have no answer
        if not path.parent.is_dir():
            raise OutputError(f"{path}: there is no folder {path.parent}", f"`mkdir -p {path.parent}` makes it")
        if path.exists() and not path.is_file():
            is_folder = path.is_dir()
            hint = "name a file in it" if is_folder else "name a file, such as answers.jsonl"
            raise OutputError(f"{path}: is {'a folder' if is_folder else 'not a file'}", hint)
        if not path.exists():
            if not os.access(path.parent, os.W_OK):
                raise OutputError(f"{path.parent}: this folder cannot be written to", "write to another folder")
            self._file = AppendFile(path, mode=0o666)
            return
        self._file = AppendFile.open(path, str(path))
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    def check(self, digests: Mapping[str, str]) -> None:
        """Raise OutputError if results of these ids were given to other questions than those of these digests."""
        others = [id for id, digest in digests.items() if self.done.get(id, digest) != digest]
        if not others:
            return
        told = f"its result of {shortened(others[0])} is not known to answer what is asked now"
        if len(others) > 1:
            told += f", nor {counted(len(others) - 1, 'other')}"
        raise OutputError(
            f"{self.path}: {told}", "give -o another name, or take out of the file what is to be asked again"
        )

    def add(self, result: Mapping[str, Any]) -> None:
        """Add a result and wait until it is on the disk. Raises OutputError."""
        line = json.dumps(result, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        self._file.append(line.encode() + b"\n")
        self._count(result)

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *problem: object) -> None:
        self._file.close()

    def _read(self) -> None:
        end = 0
        with self._file.reader() as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n") and _is_begun(line):
                    break
                try:
                    result = json.loads(line)
                except (ValueError, RecursionError):
                    result = None
                if not isinstance(result, dict) or not isinstance(result.get("custom_id"), str):
                    hint = "give -o another name, or move the file away"
                    raise OutputError(f"{self.path}: line {number} is no result of `qcli batch`", hint)
                self._count(result)
                end += len(line)
        self._file.cut(end)

    def _count(self, result: Mapping[str, Any]) -> None:
        response = result.get("response")
        said = (response if isinstance(response, dict) else result).get("request_id")
        self.done[str(result["custom_id"])] = said.removeprefix("req_") if isinstance(said, str) else ""
        self.errors += result.get("error") is not None


def _is_begun(line: bytes) -> bool:
    """Whether a line without an end is the beginning of a result."""
    return any(line.startswith(known) or known.startswith(line) for known in _BEGINNING)
