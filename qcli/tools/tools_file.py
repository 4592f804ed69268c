"""A file of tools: OpenAI's list as JSON, or Python functions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from qcli.errors import UsageError
from qcli.tools.python_file import tools_of
from qcli.tools.tool import Tools, checked_tools

_LARGEST = 1 << 20  # bytes


@dataclass(frozen=True)
class ToolsFile:
    """Tools, and the Python file whose functions they are; None if they are a list alone, which nobody can run."""

    tools: Tools
    functions: Path | None


def read_tools(path: str | Path) -> ToolsFile:
    """Read a file of tools; nothing of it runs. Raises UsageError."""
    if str(path) == "-":
        raise UsageError("tools cannot come from standard input", "give the name of a file")
    path = Path(path)
    text = text_of(path)
    if path.suffix.lower() in (".py", ".pyw"):
        return ToolsFile(tools_of(text, str(path)), path.absolute())
    try:
        listed = json.loads(text)
    except json.JSONDecodeError as problem:
        hint = "give a JSON file with OpenAI's list of tools, or a Python file (.py) with functions"
        raise UsageError(f"{path}:{problem.lineno}: is not JSON: {problem.msg}", hint) from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path}: is not JSON that could be read", "give a simpler file") from None
    try:
        return ToolsFile(checked_tools(listed), None)
    except UsageError as problem:
        raise UsageError(f"{path}: {problem.message}", problem.hints) from None


def text_of(path: Path) -> str:
    """The text of a file of tools. Raises UsageError."""
    try:
        if path.stat().st_size > _LARGEST or not path.is_file():
            reason = "is no file" if not path.is_file() else f"has more than {_LARGEST >> 20} MiB"
            raise UsageError(f"{path}: {reason}", "give a file of tools, JSON or Python")
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text", "give a file of tools, JSON or Python") from None
    except (OSError, ValueError) as problem:
        why = getattr(problem, "strerror", None) or problem
        raise UsageError(f"{path}: cannot be read: {why}", "check the path") from None
