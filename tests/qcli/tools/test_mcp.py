"""MCP servers: what a file of them says, and their tools, with clients of a few lines in place of the SDK's."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qcli.errors import QcliError, UsageError
from qcli.tools.call import ToolCall
from qcli.tools.calling import Limits
from qcli.tools.mcp_config import McpServer, read_servers
from qcli.tools.mcp_servers import McpServers
from qcli.tools.toolset import Joined

ZONE = {"type": "object", "properties": {"zone": {"type": "string"}}}


class Client:
    """Has two tools, listed on two pages."""

    def __init__(self, server: McpServer, closed: list[str]) -> None:
        self._server, self._closed = server, closed

    async def __aenter__(self) -> Client:
        if self._server.command == "broken":
            raise ExceptionGroup("of tasks", [OSError("no such command")])
        return self

    async def __aexit__(self, *problem: object) -> None:
        self._closed.append(self._server.name)

    async def list_tools(self, cursor: str | None = None) -> Any:
        name = "fail" if cursor else "now"
        tool = SimpleNamespace(name=name, description=None, input_schema=ZONE if name == "now" else {})
        return SimpleNamespace(tools=[tool], next_cursor=None if cursor else "more")

    async def call_tool(self, name: str, arguments: dict[str, Any], seconds: float) -> Any:
        if name == "fail":
            raise TimeoutError
        said = [SimpleNamespace(type="text", text=f"noon in {arguments['zone']}"), SimpleNamespace(type="image")]
        return SimpleNamespace(content=said, structured_content=None, is_error=arguments["zone"] == "x")


def servers(*names: str, closed: list[str] | None = None, command: str = "c") -> McpServers:
    given = [McpServer(name, command) for name in names]
    return McpServers(given, lambda server, stack: Client(server, [] if closed is None else closed))


def test_tools_of_a_server_are_listed_and_run() -> None:
    closed: list[str] = []
    with servers("one", closed=closed) as found:
        assert found.tools.names == ["now", "fail"]
        assert found.tools.listed[0]["function"]["parameters"] == ZONE
        result = found.run(ToolCall("now", {"zone": "Oslo"}), Limits())
        assert (result.text, result.ok) == ("noon in Oslo\n[image]", True)
        assert found.run(ToolCall("now", {"zone": "x"}), Limits()).text.startswith("Error: noon in x")
        assert (
            found.run(ToolCall("now", {"zone": 1}), Limits()).text == "Error: zone of now is of the type string, not 1"
        )
        assert found.run(ToolCall("fail", {}), Limits(2)).text == "Error: it took more than 2 seconds"
        assert "there is no tool rm" in found.run(ToolCall("rm", {}), Limits()).text
    assert closed == ["one"]


def test_servers_that_share_names_and_sets_that_do(tmp_path: Path) -> None:
    with servers("one", "two") as found:
        assert found.tools.names == ["one_now", "one_fail", "two_now", "two_fail"]
        assert found.run(ToolCall("two_now", {"zone": "Rome"}), Limits()).ok
        assert Joined([found]).run(ToolCall("one_now", {"zone": "Rome"}), Limits()).ok
        with pytest.raises(UsageError, match="two tools are called one_now"):
            Joined([found, found])


def test_a_server_that_does_not_answer_is_told_by_name() -> None:
    with pytest.raises(QcliError, match="the MCP server one does not answer: no such command"):
        servers("one", command="broken")


def test_a_file_of_servers(tmp_path: Path) -> None:
    listed = {"a": {"command": "npx", "args": ["-y", "x"], "env": {"K": "v"}}, "b": {"url": "https://example.com/mcp"}}
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": listed}))
    a, b = read_servers(tmp_path / "mcp.json")
    assert (a.command, a.args, dict(a.env), b.url) == ("npx", ("-y", "x"), {"K": "v"}, "https://example.com/mcp")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "mcp.json:1: is not JSON"),
        ("[]", "names no server"),
        ('{"mcpServers": {}}', "names no server"),
        ('{"mcpServers": {"a b": {}}}', "a b cannot be the name of a server"),
        ('{"mcpServers": {"a": 3}}', "a: is 3"),
        ('{"mcpServers": {"a": {}}}', "a: needs a command or a url"),
        ('{"mcpServers": {"a": {"command": "x", "url": "https://x"}}}', "and one of the two"),
        ('{"mcpServers": {"a": {"command": "x", "args": "y"}}}', "args cannot be 'y'"),
        ('{"mcpServers": {"a": {"command": 1}}}', "command cannot be 1"),
        ('{"mcpServers": {"a": {"command": "x", "env": {"K": 1}}}}', "env cannot be"),
        ('{"mcpServers": {"a": {"url": "file:///x"}}}', "url cannot be file:///x"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mcp.json").write_text(text)
    with pytest.raises(UsageError) as refused:
        read_servers(tmp_path / "mcp.json")
    assert said in refused.value.message


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mcp", None)
    with pytest.raises(UsageError, match=r"install anyio mcp"):
        McpServers([McpServer("a", "x")])
