"""Tools of MCP servers, by the official SDK, which the extra `mcp` brings.

The SDK is asynchronous; a thread of its own runs it, and is asked from here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack
from time import perf_counter
from typing import Any, Final

from qcli.errors import QcliError, UsageError
from qcli.host.packages import how_to_install
from qcli.tools.arguments import problem_with
from qcli.tools.call import ToolCall
from qcli.tools.calling import Limits, Result, bounded
from qcli.tools.mcp_config import McpServer
from qcli.tools.tool import Tool, Tools, checked_tools
from qcli.wording import shortened

_START_S: Final = 60.0  # for a server to be there: some are downloaded first
_PAGES: Final = 100  # of a server's list

Connect = Callable[[McpServer, ExitStack], Any]  # makes the SDK's client of a server


class McpServers:
    """Servers that run until they are closed; a context manager."""

    def __init__(self, servers: Sequence[McpServer], connect: Connect | None = None) -> None:
        """Start or reach each server. Raises QcliError for one that does not answer, UsageError for what it offers."""
        self._owners: dict[str, tuple[Any, str]] = {}  # of each tool, its client and what the server calls it
        connect = connect or _sdk()
        from anyio.from_thread import start_blocking_portal

        with ExitStack() as stack:  # an error, or Ctrl-C, ends what is there already
            self._portal = stack.enter_context(start_blocking_portal())
            offered = [(server, *self._opened(server, connect, stack)) for server in servers]
            self.tools = self._named(offered)
            self._stack = stack.pop_all()

    def run(self, call: ToolCall, limits: Limits) -> Result:
        """Have a server run a call. What goes wrong is a result, too; Ctrl-C ends the waiting and passes on."""
        tool = self.tools.get(call.name)
        if tool is None:
            return Result(f"Error: there is no tool {call.name}; there are {', '.join(self.tools.names)}", False)
        if wrong := problem_with(tool, call.arguments):
            return Result(f"Error: {wrong}", False)
        client, name = self._owners[call.name]
        began = perf_counter()
        try:
            found = self._waited(client.call_tool, name, call.arguments, limits.seconds, most=limits.seconds)
        except Exception as problem:  # whatever a server, or the way to it, may raise
            text = _reason(problem, limits.seconds)
            return Result(bounded(f"Error: {text}", limits), False, perf_counter() - began)
        text = _text(found)
        ok = not found.is_error
        return Result(bounded(text if ok else f"Error: {text}", limits), ok, perf_counter() - began)

    def close(self) -> None:
        """End the servers that were started."""
        self._stack.close()

    def __enter__(self) -> McpServers:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def _opened(self, server: McpServer, connect: Connect, stack: ExitStack) -> tuple[Any, list[Any]]:
        """A server's client, and the tools that it lists. Raises QcliError."""
        try:
            opening = self._portal.wrap_async_context_manager(connect(server, stack))
            client = stack.enter_context(opening)
            listed, cursor = [], None
            for _ in range(_PAGES):
                page = self._waited(_listing, client, cursor, most=_START_S)
                listed += page.tools
                cursor = page.next_cursor
                if not cursor:
                    break
        except Exception as problem:  # whatever a server, or the way to it, may raise
            what = f"the MCP server {server.name} does not answer: {shortened(_reason(problem, _START_S))}"
            raise QcliError(what, f"try its {'address' if server.url else 'command'} by itself") from None
        return client, listed

    def _named(self, offered: Sequence[tuple[McpServer, Any, list[Any]]]) -> Tools:
        """The tools of all servers; where two share a name, the server's name stands before it."""
        every = [tool.name for _, _, listed in offered for tool in listed]
        tools: list[Tool] = []
        for server, client, listed in offered:
            for tool in listed:
                name = tool.name if every.count(tool.name) == 1 else f"{server.name}_{tool.name}"
                schema = {**(tool.input_schema or {})}
                try:
                    (made,) = checked_tools(
                        [{"name": name, "description": tool.description or "", "parameters": schema}]
                    )
                except UsageError as problem:
                    what = f"the MCP server {server.name}: {problem.message}"
                    raise UsageError(what, "leave this server out") from None
                tools.append(made)
                self._owners[name] = client, tool.name
        return Tools(tools)

    def _waited(self, function: Any, *arguments: Any, most: float) -> Any:
        """What an asynchronous function gives, or raises, within so many seconds."""
        future = self._portal.start_task_soon(function, *arguments)
        try:
            return future.result(most + 5)  # the SDK's own time is over before
        except BaseException:
            future.cancel()
            raise


async def _listing(client: Any, cursor: str | None) -> Any:
    return await client.list_tools(cursor=cursor)


def _sdk() -> Connect:
    """What makes clients. Raises UsageError where the SDK is not installed."""
    try:
        from mcp import Client, StdioServerParameters
        from mcp.client.stdio import stdio_client
    except ImportError:
        raise UsageError("MCP servers need a package that is not installed", how_to_install("mcp")) from None

    def connect(server: McpServer, stack: ExitStack) -> Any:
        if server.url:
            return Client(server.url, read_timeout_seconds=_START_S)
        errors = stack.enter_context(open(os.devnull, "w"))  # noqa: SIM115
        started = StdioServerParameters(command=server.command, args=[*server.args], env=dict(server.env) or None)
        return Client(stdio_client(started, errors), read_timeout_seconds=_START_S)

    return connect


def _text(result: Any) -> str:
    """What a call gave back, as text; of pictures and the like, that they are there."""
    texts = [str(getattr(part, "text", f"[{getattr(part, 'type', 'something')}]")) for part in result.content or ()]
    if not texts and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "\n".join(texts)


def _reason(problem: BaseException, seconds: float) -> str:
    """Why something failed, in words: groups of errors tell of their first one."""
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    if isinstance(problem, TimeoutError | CancelledError):
        return f"it took more than {seconds:g} seconds"
    return str(problem) or type(problem).__name__
