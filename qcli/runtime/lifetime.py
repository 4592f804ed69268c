"""How long a model can be used: until it is closed, and in the process that loaded it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qcli.errors import QcliError

if TYPE_CHECKING:
    from qcli.streaming.expert_loader import ExpertLoader
    from quant.team import Team


class Lifetime:
    """From loading to close(), in one process: its threads do not survive a fork."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self.closed = False

    @property
    def here(self) -> bool:
        """Whether this process loaded the model."""
        return os.getpid() == self._process

    def check_open(self) -> None:
        """Raise QcliError after close()."""
        if self.closed:
            raise QcliError("this model was closed", "load it again, or close it later")

    def check(self) -> None:
        """Raise QcliError after close(), and in a child of the process that loaded the model."""
        self.check_open()
        if not self.here:
            raise QcliError(
                "this model was loaded before the process was forked, and its threads have stayed behind",
                "load it in the new process, or have multiprocessing start processes by spawn",
            )


def dismiss(lifetime: Lifetime, team: Team, loader: ExpertLoader | None) -> None:
    """Let all threads of an engine end that are of this process."""
    if lifetime.here:
        team.dismiss()
        if loader:
            loader.cache.reader.dismiss()
