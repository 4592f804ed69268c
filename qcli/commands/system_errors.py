"""What the system refuses, where nobody had expected it: in plain words."""

from __future__ import annotations

import errno
import os

from qcli import console
from qcli.errors import QcliError
from qcli.host.named_files import reason
from qcli.wording import shortened


def system_error(problem: OSError) -> QcliError:
    """The error to tell."""
    try:
        console.out("")  # fails again if stdout is what cannot be written to: a help text does not come by the console
    except QcliError as again:
        return again
    if problem.errno == errno.ENAMETOOLONG:
        return QcliError(f"{shortened(str(problem.filename))}: this name is too long for a file", "give a shorter one")
    if problem.errno == errno.ENOENT and not problem.filename and _folder_is_gone():
        return QcliError(
            "the folder that this was typed in was deleted", "`cd` into another one, and type the same again"
        )
    where = f"{problem.filename}: " if problem.filename else ""
    why = reason(problem, "check that the disk is there and that you may write to it")
    return QcliError(f"{where}{why.said}", why.hint)


def _folder_is_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False
