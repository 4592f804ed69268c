"""A file that says which MCP servers there are, in the form that other programs have it in, too.

{"mcpServers": {"files": {"command": "npx", "args": ["-y", "…"], "env": {"KEY": "…"}}, "far": {"url": "https://…/mcp"}}}
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from qcli.errors import UsageError
from qcli.tools.tools_file import text_of
from qcli.wording import shortened

_FORM: Final = 'give {"mcpServers": {"name": {"command": "…", "args": ["…"]}}}, or a "url" in place of the command'
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_MOST: Final = 32


@dataclass(frozen=True)
class McpServer:
    """A server: a command that is started, or an address."""

    name: str
    command: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    url: str = ""


def read_servers(path: str | Path) -> list[McpServer]:
    """Read a file of servers; nothing is started. Raises UsageError."""
    try:
        value = json.loads(text_of(Path(path)))
    except json.JSONDecodeError as problem:
        raise UsageError(f"{path}:{problem.lineno}: is not JSON: {problem.msg}", _FORM) from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path}: is not JSON that could be read", _FORM) from None
    listed = value.get("mcpServers", value.get("servers")) if isinstance(value, dict) else None
    if not isinstance(listed, dict) or not listed:
        raise UsageError(f"{path}: names no server", _FORM)
    if len(listed) > _MOST:
        raise UsageError(f"{path}: names {len(listed)} servers", f"give at most {_MOST}")
    return [_server(f"{path}: {shortened(name)}", name, given) for name, given in listed.items()]


def _server(where: str, name: str, given: Any) -> McpServer:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{where} cannot be the name of a server", "give at most 32 letters, digits and _ . -")
    if not isinstance(given, dict):
        raise UsageError(f"{where}: is {shortened(repr(given))}", _FORM)
    command, args, env, url = (given.get(key) for key in ("command", "args", "env", "url"))
    texts = {"command": command, "url": url}
    wrong = next(
        (key for key, value in texts.items() if value is not None and not (isinstance(value, str) and value)), ""
    )
    if args is not None and not (isinstance(args, list) and all(isinstance(part, str) for part in args)):
        wrong = "args"
    if env is not None and not (isinstance(env, dict) and all(isinstance(value, str) for value in env.values())):
        wrong = "env"
    if wrong:
        raise UsageError(f"{where}: {wrong} cannot be {shortened(repr(given[wrong]))}", _FORM)
    if (command is None) == (url is None):
        raise UsageError(f"{where}: needs a command or a url, and one of the two", _FORM)
    if url is not None and not url.startswith(("http://", "https://")):
        raise UsageError(f"{where}: url cannot be {shortened(url)}", "give one that begins with https:// or http://")
    return McpServer(name, command or "", tuple(args or ()), env or {}, url or "")
