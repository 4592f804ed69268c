"""A text in the editor that its owner has chosen."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from qcli.errors import QcliError, UsageError
from qcli.host.systems import usual_editor, words_of
from qcli.terminal.keyboard import left_to_others
from qcli.terminal.text_input import decoded

CHOSEN_BY = ("VISUAL", "EDITOR")


def edited(text: str) -> str:
    """The text as it is when the editor ends, without blank lines at its end. Raises UsageError if none was chosen."""
    command = _editor()
    with tempfile.TemporaryDirectory(prefix="qcli-") as folder:  # readable by the user alone
        path = Path(folder) / "message.md"
        path.write_text(text + "\n", "utf-8")
        try:
            with left_to_others():
                code = subprocess.call([*command, str(path)])
        except OSError as problem:
            raise _failed(command[0], problem.strerror or str(problem)) from None
        if code:
            raise _failed(command[0], f"it ended with code {code}")
        try:
            return decoded(path.read_bytes()).replace("\r\n", "\n").rstrip()
        except OSError as problem:
            raise _failed(command[0], f"its file is gone: {problem.strerror or problem}") from None


def _editor() -> list[str]:
    chosen = next(filter(None, map(os.environ.get, CHOSEN_BY)), "").strip()
    try:
        words = words_of(chosen or usual_editor())
    except ValueError as problem:  # a quote that is not closed
        raise UsageError(f"the editor {chosen!r:.60} cannot be used: {problem}", "set EDITOR to another") from None
    if not words:
        raise UsageError("no editor is set", "`export EDITOR=nano` before qcli chat sets one")
    return words


def _failed(editor: str, why: str) -> QcliError:
    return QcliError(f"{editor}: the message was not edited: {why}", "set EDITOR to another editor")
