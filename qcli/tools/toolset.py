"""Tools that can be run: the functions of a Python file, and what servers offer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from qcli.tools.call import ToolCall
from qcli.tools.calling import Limits, Result, run_call
from qcli.tools.tool import Tools
from qcli.tools.tools_file import ToolsFile


class Toolset(Protocol):
    """Tools, and what runs them."""

    @property
    def tools(self) -> Tools:
        """What can be called."""

    def run(self, call: ToolCall, limits: Limits) -> Result:
        """Run a call. What goes wrong is a result, too; Ctrl-C ends it and passes on."""


@dataclass(frozen=True)
class Functions:
    """Those of a Python file."""

    file: ToolsFile

    @property
    def tools(self) -> Tools:
        """What can be called."""
        return self.file.tools

    def run(self, call: ToolCall, limits: Limits) -> Result:
        """Run a call in a process of its own."""
        return run_call(self.file, call, limits)


class Joined:
    """Several sets as one."""

    def __init__(self, sets: Sequence[Toolset]) -> None:
        """Raises UsageError for two tools of one name."""
        self._sets = sets
        self.tools = Tools([tool for part in sets for tool in part.tools])

    def run(self, call: ToolCall, limits: Limits) -> Result:
        """Have the set that knows the tool run a call."""
        owner = next((part for part in self._sets if part.tools.get(call.name)), self._sets[0])
        return owner.run(call, limits)
