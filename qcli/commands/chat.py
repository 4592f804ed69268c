"""qcli chat: a conversation of several turns."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Unpack

from qcli import console, interrupt
from qcli.commands import options
from qcli.commands.answer import discard, figures, note_mistyped, show, tell_of_default_template
from qcli.errors import ContextOverflowError, QcliError, UsageError
from qcli.line_input import is_interactive, turns
from qcli.runtime.sampling import SamplingOptions

if TYPE_CHECKING:
    from qcli.llm import LLM, Options

_COMMAND = re.compile(r"/([A-Za-z?]+)(?:\s+(.*))?", re.DOTALL)
_COMMANDS = ("clear", "regenerate", "system", "stats", "exit", "help")
_MEANT = {"quit": "exit", "bye": "exit", "q": "exit", "?": "help", "h": "help", "reset": "clear", "retry": "regenerate"}
_HELP = """/clear         begin a new conversation
/regenerate    answer the last message again
/system TEXT   set the system message; without a text, show it
/system off    drop it
/stats         figures of the last answer, and how full the context is
/exit          leave, as does Ctrl-D
Alt-Enter, or \\ at the end of a line, begins a new line; Ctrl-C stops an answer."""


@options.with_sampling
def chat(
    model: options.Model = None,
    system: options.System = None,
    max_tokens: options.MaxTokens = None,
    stop: options.Stop = None,
    threads: options.Threads = None,
    ctx: options.Ctx = None,
    kv_type: options.KvType = None,
    ram: options.Ram = None,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    **sampling: Unpack[SamplingOptions],
) -> None:
    """Talk with a model; each turn computes only what is new.

    /help lists what else can be typed.
    """
    options.check_remarks(quiet, verbose)
    bar = console.status("loading", quiet)
    with bar, interrupt.ends_all(bar):
        from qcli.llm import LLM

        llm = LLM(model, threads, ctx, kv_type=kv_type, ram=ram, progress=bar.update)
    with llm:
        if verbose:
            note_mistyped(llm)
        if is_interactive() and not quiet:
            console.info(f"{llm.name} · /help lists the commands, Ctrl-D leaves")
        if not quiet:
            tell_of_default_template(llm)
        given: Options = {"max_tokens": max_tokens, "stop": stop, **sampling}
        conversation = Conversation(llm, bar, given, system, quiet)
        for turn in turns():
            if not conversation.take(turn):
                break


class Conversation:
    """The messages so far, answered ones only: a turn that fails or says nothing leaves them as they were."""

    def __init__(self, llm: LLM, bar: console.status, given: Options, system: str | None, quiet: bool) -> None:
        self._llm, self._bar, self._given, self._quiet = llm, bar, given, quiet
        self._system = system
        self._messages: list[dict[str, str]] = []
        self._answers = 0

    def take(self, turn: str) -> bool:
        """Obey a command or answer a message; False to leave."""
        command, argument = parsed(turn)
        try:
            if not command:
                self._answer(turn)
            elif argument and command != "system":
                raise UsageError(f"/{command} takes nothing after it", "begin a message with another word")
            elif command == "exit":
                return False
            else:
                self._obey(command, argument)
        except QcliError as problem:
            if not is_interactive():
                raise
            console.error(_with_way_out(problem))
        return True

    def _obey(self, name: str, argument: str) -> None:
        if name == "help":
            console.info(_HELP)
        elif name == "clear":
            self._messages = []
            console.info("a new conversation")
        elif name == "regenerate":
            self._regenerate()
        elif name == "system":
            self._set_system(argument)
        elif name == "stats":
            engine = self._llm.engine
            console.figures(figures(self._llm.stats))
            console.info(f"{engine.position} of the context's {engine.ctx} tokens used")
        else:
            raise UsageError(f"there is no command /{name}", _instead(name))

    def _set_system(self, argument: str) -> None:
        if argument:
            self._system = None if argument.lower() == "off" else argument
        console.info(f"the system message is: {self._system}" if self._system else "there is no system message")

    def _regenerate(self) -> None:
        if not self._messages:
            raise UsageError("there is no answer yet", "type a message first")
        *before, asked, _ = self._messages
        self._answer(asked["content"], before)

    def _answer(self, text: str, before: list[dict[str, str]] | None = None) -> None:
        """Answer a text after the messages so far, or after these; what is answered stays."""
        asked = [*(self._messages if before is None else before), {"role": "user", "content": text}]
        with self._bar:
            pieces = self._llm.chat(self._opening() + asked, **self._options())
            shown, interrupted = show(pieces, self._bar, aside=discard if self._quiet else console.aside)
        if not shown.endswith("\n"):
            console.out("\n")
        if shown:
            self._messages = [*asked, {"role": "assistant", "content": shown}]
        if not self._quiet:
            console.figures(figures(self._llm.stats))
        if interrupted and not is_interactive():
            raise KeyboardInterrupt

    def _opening(self) -> list[dict[str, str]]:
        return [{"role": "system", "content": self._system}] if self._system else []

    def _options(self) -> Options:
        """The options of the next answer: each has a seed of its own, so /regenerate differs, yet the chat repeats."""
        self._answers += 1
        seed = self._given.get("seed")
        return self._given if seed is None else {**self._given, "seed": seed + self._answers - 1}


def _with_way_out(problem: QcliError) -> QcliError:
    if isinstance(problem, ContextOverflowError):
        return ContextOverflowError(problem.message, "/clear begins anew; --ctx gives a larger context")
    return problem


def parsed(turn: str) -> tuple[str, str]:
    """The command that a turn is and what follows it; no command if it is a message, which may begin with a path.

    A word alone, or one like a command, is that command, typed wrongly: nothing of the kind goes to the model.
    """
    found = _COMMAND.fullmatch(turn)
    if not found:
        return "", ""
    name, argument = found[1].lower(), (found[2] or "").strip()
    name = _MEANT.get(name, name) if not argument else name
    if name in _COMMANDS or not argument or get_close_matches(name, _COMMANDS, n=1, cutoff=0.7):
        return name, argument
    return "", ""


def _instead(name: str) -> str:
    close = get_close_matches(name, _COMMANDS, n=1)
    return f"did you mean /{close[0]}? /help lists them" if close else "/help lists them"
