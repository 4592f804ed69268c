"""Tool calls at the command line: told apart from an answer, asked about, run, and shown folded to a line."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final
from unicodedata import category

import typer

from qcli import console, line_input
from qcli.commands import completion
from qcli.errors import UsageError
from qcli.tools.call import MalformedCall, ToolCall
from qcli.wording import counted, duration, shortened

if TYPE_CHECKING:
    from qcli.sessions.conversation import Conversation
    from qcli.tools.calling import Limits, Result
    from qcli.tools.mcp_config import McpServer
    from qcli.tools.toolset import Toolset

APPROVALS: Final = ("ask", "all", "none")
CHAIN: Final = 10  # calls for a message of the user, unless another number is given
_WIDE: Final = 100  # characters of a call or a result, where nobody's terminal says
_MOST_SHOWN: Final = 4000  # characters of a call that somebody is asked about
_REFUSED: Final = "The user did not allow this call."
_STOPPED: Final = "The user stopped this call."

File = Annotated[
    str | None,
    typer.Option(
        "--tools",
        metavar="FILE",
        help="Functions (tools) that the model may ask you to run: a Python file, or a list of tools in JSON.",
    ),
]
Functions = Annotated[
    str | None,
    typer.Option(
        "--tools",
        metavar="FILE.py",
        help="A Python file whose functions the model may use, for example to look things up; you are asked each time.",
    ),
]
Mcp = Annotated[
    str | None,
    typer.Option(
        "--mcp",
        metavar="CONFIG",
        help="MCP servers whose tools the model may use: a JSON file with mcpServers (needs the package mcp).",
    ),
]
Choice = Annotated[
    str | None,
    typer.Option(
        "--tool-choice",
        metavar="auto|none|required|NAME",
        help="Whether the model uses --tools: if it likes, never, always, or the one of this name (default: auto).",
    ),
]
Approve = Annotated[
    str | None,
    typer.Option(
        "--approve",
        metavar="ask|all|none",
        help="Whether tools are run: ask you each time, run all, or run none (default: ask).",
        autocompletion=completion.one_of(APPROVALS),
    ),
]
ChainLimit = Annotated[
    int | None,
    typer.Option(
        "--chain-limit", metavar="N", min=1, help=f"Run at most N tools in a row for one message (default: {CHAIN})."
    ),
]


def typed_tools(path: str | None, choice: str | None) -> dict[str, Any]:
    """The options of an answer that may call the tools of a file; none without one. Raises UsageError."""
    from qcli.tools.choice import checked_choice

    if path is None:
        checked_choice(choice, None, "--tool-choice")
        return {}
    from qcli.tools.tools_file import read_tools

    tools = read_tools(path).tools
    return {"tools": tools, "tool_choice": checked_choice(choice, tools, "--tool-choice")}


@dataclass
class Calls:
    """The calls of an answer, taken out of its pieces."""

    whole: list[ToolCall] = field(default_factory=list)
    malformed: list[MalformedCall] = field(default_factory=list)

    def apart(self, pieces: Generator[str, None, None]) -> Generator[str, None, None]:
        """The pieces but for the calls."""
        with closing(pieces):
            for piece in pieces:
                if isinstance(piece, ToolCall):
                    self.whole.append(piece)
                elif isinstance(piece, MalformedCall):
                    self.malformed.append(piece)
                else:
                    yield piece

    def listed(self) -> list[dict[str, Any]]:
        """The calls as OpenAI's clients read them."""
        return [call.listed() for call in self.whole]

    def tell(self) -> None:
        """Tell of each call on a line, and of what is none."""
        for call in self.whole:
            console.info(f"call: {written(call)}")
        self.tell_malformed()

    def tell_malformed(self) -> None:
        """Tell of what began as a call and is none."""
        for text in self.malformed:
            console.info(_folded(f"a tool call that is incomplete, or cannot be read: {text}"))


class ToolRunner:
    """Runs what a model calls, as far as the person at the terminal allows it."""

    def __init__(self, tools: Toolset, approve: str, chain_limit: int, limits: Limits) -> None:
        self._tools, self._approve, self._most, self._limits = tools, approve, chain_limit, limits
        self._left = chain_limit

    @classmethod
    def typed(
        cls,
        path: str | None,
        mcp: str | None,
        approve: str | None,
        chain_limit: int | None,
        interactive: bool,
        stack: ExitStack,
    ) -> ToolRunner | None:
        """What is meant, its servers started until the stack is closed; None without tools. Raises UsageError, QcliError."""
        if path is None and mcp is None:
            given = {"--approve": approve, "--chain-limit": chain_limit}
            if flag := next((flag for flag, value in given.items() if value is not None), None):
                raise UsageError(f"{flag} needs --tools or --mcp", f"add one of them, or leave out {flag}")
            return None
        from qcli.tools.calling import Limits
        from qcli.tools.toolset import Joined

        if approve not in (None, *APPROVALS):
            raise UsageError(f"--approve cannot be {shortened(approve or '')}", f"give {', '.join(APPROVALS)}")
        sets: list[Toolset] = [] if path is None else [_functions(path)]
        servers = [] if mcp is None else _read_servers(mcp)
        if (approve or "ask") == "ask" and not interactive:
            raise UsageError("there is nobody to ask about tool calls", "give --approve all, or --approve none")
        if servers:
            sets.append(_started(servers, stack))
        return cls(Joined(sets), approve or "ask", chain_limit or CHAIN, Limits())

    @property
    def options(self) -> dict[str, Any]:
        """Those of an answer that may call the tools."""
        return {"tools": self._tools.tools}

    @property
    def manner(self) -> str:
        """What is done with calls, in words."""
        most = f"at most {self._most} for a message"
        words = {
            "ask": f"run when you say so, {most}",
            "all": f"run without asking, {most}",
            "none": "shown, and not run",
        }
        return words[self._approve]

    def begin(self) -> None:
        """Another message is answered: as many calls as ever may come."""
        self._left = self._most

    def answers(self, conversation: Conversation, meanwhile: Callable[[], AbstractContextManager[None]]) -> bool:
        """Run the open calls of a conversation's last answer, and record what they give back; whether the model goes on.

        meanwhile: what is entered while a function runs.
        """
        calls = conversation.open_calls()
        if not calls or self._approve == "none":
            for call in calls:
                console.info(f"tool call, not run: {written(call)}")
            return False
        if len(calls) > self._left:
            done = f"{counted(self._most, 'call')} at most are run for a message (--chain-limit)"
            console.info(f"not run: {', '.join(map(written, calls))}: {done}")
            return False
        self._left -= len(calls)
        for call in calls:
            text = self._answer(call, meanwhile)
            conversation.add_results((call, text or _STOPPED))
            if text is None:
                return False
        return True

    def _answer(self, call: ToolCall, meanwhile: Callable[[], AbstractContextManager[None]]) -> str | None:
        """What the model is told of a call; None if the person wants no more of it."""
        if self._approve == "ask":
            reply = line_input.asked(f"run {_to_be_allowed(call)}? [y]es, [a]ll from now on, [N]o:")
            if reply is None:
                return None
            if not reply.lower().startswith(("y", "a")):
                return _REFUSED
            if reply.lower().startswith("a"):
                self._approve = "all"
        try:
            with meanwhile(), console.status(f"running {console.clean(call.name)}"):
                result = self._tools.run(call, self._limits)
        except KeyboardInterrupt:
            console.info(f"{call.name} was stopped; what it did until then is done")
            return None
        _tell(call, result)
        return result.text


def _functions(path: str) -> Toolset:
    from qcli.tools.tools_file import read_tools
    from qcli.tools.toolset import Functions

    file = read_tools(path)
    if file.functions is None:
        hint = "give a Python file with functions; qcli run --tools shows the calls of such a list"
        raise UsageError(f"{path}: has no functions that could be run", hint)
    return Functions(file)


def _read_servers(path: str) -> list[McpServer]:
    from qcli.tools.mcp_config import read_servers

    return read_servers(path)


def _started(servers: list[McpServer], stack: ExitStack) -> Toolset:
    from qcli.tools.mcp_servers import McpServers

    with console.status("starting MCP servers"):
        return stack.enter_context(McpServers(servers))


def written(call: ToolCall) -> str:
    """A call as Python writes it, folded to a line."""
    return _folded(_visible(call.shown))


def _visible(text: str) -> str:
    """A text in which marks that show as nothing, or turn the order of others about, are spelled."""
    return "".join(f"\\u{ord(mark):04x}" if category(mark) == "Cf" else mark for mark in text)


def _to_be_allowed(call: ToolCall) -> str:
    """A call on a line; one that is too long for that stands before, as nobody can allow what is not shown."""
    line = written(call)
    if not line.endswith("…"):
        return line
    shown = _visible(call.shown)
    hidden = len(shown) - _MOST_SHOWN
    if hidden > 0:
        half = _MOST_SHOWN // 2
        shown = f"{shown[:half]} [… {counted(hidden, 'character')} are not shown …] {shown[-half:]}"
    console.info(shown)
    return call.name


def _tell(call: ToolCall, result: Result) -> None:
    took = f" ({duration(result.seconds)})" if result.seconds >= 1 else ""
    console.info(_folded(f"{written(call)} → {result.text.strip() or 'nothing'}") + took)


def _folded(text: str) -> str:
    """A text as one line of the terminal."""
    most = min(console.stderr_columns(), 1000) if console.stderr_columns() < 10_000 else _WIDE
    line = " ".join(text[: 10 * int(most)].split())
    return line if len(line) <= most else line[: int(most) - 1] + "…"
