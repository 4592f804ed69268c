"""qcli chat: a conversation of several turns."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Unpack

from qcli import console, interrupt
from qcli.commands import options
from qcli.commands.answer import discard, figures, note_mistyped, show
from qcli.errors import ContextOverflowError, QcliError, UsageError
from qcli.line_input import is_interactive, turns
from qcli.runtime.sampling import SamplingOptions

if TYPE_CHECKING:
    from qcli.llm import LLM, Options

_COMMAND = re.compile(r"/([a-z?]+)(?:\s+(.*))?", re.DOTALL)
_HELP = """/clear         begin a new conversation
/regenerate    answer the last message again
/system TEXT   set the system message; without a text, drop it
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
        command = _COMMAND.fullmatch(turn)
        if not command:
            self._answer(turn)
        elif command[1] == "exit":
            return False
        else:
            self._obey(command[1], (command[2] or "").strip())
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
            self._system = argument or None
            console.info("the system message is set" if argument else "no system message")
        elif name == "stats":
            engine = self._llm.engine
            console.figures(figures(self._llm.stats))
            console.info(f"{engine.position} of the context's {engine.ctx} tokens used")
        else:
            console.error(UsageError(f"there is no command /{name}", "/help lists them"))

    def _regenerate(self) -> None:
        if not self._messages:
            console.error(UsageError("there is no answer yet", "type a message first"))
            return
        *self._messages, asked, _ = self._messages
        self._answer(asked["content"])

    def _answer(self, text: str) -> None:
        asked = [*self._messages, {"role": "user", "content": text}]
        try:
            with self._bar:
                pieces = self._llm.chat(self._opening() + asked, **self._options())
                shown, interrupted = show(pieces, self._bar, aside=discard if self._quiet else console.aside)
        except QcliError as problem:
            if not is_interactive():
                raise
            console.error(_with_way_out(problem))
            return
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
