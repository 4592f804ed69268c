"""qcli chat: a conversation of several turns."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Unpack

from qcli import console, interrupt
from qcli.commands import options, tool_calls
from qcli.commands.answer import discard, note_mistyped, tell_of_limits, usual_stats
from qcli.commands.chat_commands import completions, is_leaving, obey, parsed, quoted
from qcli.commands.examples import examples
from qcli.commands.recording import Wanted, bring_back, model_of
from qcli.commands.system_errors import system_error
from qcli.commands.talk import Talk
from qcli.errors import QcliError
from qcli.line_input import is_interactive, turns
from qcli.runtime.sampling import SamplingOptions
from qcli.terminal.keyboard import Keyboard

if TYPE_CHECKING:
    from collections.abc import Callable

    from qcli.commands.talk import Make
    from qcli.llm import LLM
    from qcli.sessions.conversation import Conversation
    from qcli.sessions.library import Library
    from qcli.sessions.log import SessionLog

_SAVE = "Save a conversation whose messages are piped in; one that you type is saved anyway."


@examples(
    ("qcli chat", "Talks with the small model that comes with qcli."),
    ("qcli chat -c", "Goes on with your last conversation."),
)
@options.with_sampling
def chat(
    named: options.GivenModel = None,
    model: options.Model = None,
    system: options.System = None,
    max_tokens: options.MaxTokens = None,
    think: options.Think = None,
    go_on: options.Continue = False,
    resume: options.Resume = None,
    save: Annotated[bool, options.flag("--save", help=_SAVE)] = False,
    name: options.Name = None,
    no_save: Annotated[bool, options.flag("--no-save", help=options.NO_SAVE)] = False,
    ctx_full: options.CtxFull = "stop",
    plain: options.Plain = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    stop: options.Stop = None,
    stop_loops: options.StopLoops = None,
    tools: tool_calls.Functions = None,
    mcp: tool_calls.Mcp = None,
    approve: tool_calls.Approve = None,
    chain_limit: tool_calls.ChainLimit = None,
    ram: options.Ram = None,
    threads: options.Threads = None,
    ctx: options.Ctx = None,
    kv_type: options.KvType = None,
    draft: options.Draft = None,
    draft_model: options.DraftModel = None,
    **sampling: Unpack[SamplingOptions],
) -> int:
    """Talk with a model.

    /help lists what else you can type there. What you type in a terminal is saved on this machine for you only, and -c goes
    on with it.
    """
    options.check_remarks(quiet, verbose)
    model = options.named_model(model, named)
    wanted = Wanted(go_on, resume, save, name, no_save, ctx_full)
    records = is_interactive() or save or name is not None or wanted.old
    bar = console.status("loading", quiet)
    keyboard = Keyboard()
    keys_kept = keyboard if is_interactive() else nullcontext()
    with ExitStack() as stack:
        if is_interactive():
            stack.enter_context(interrupt.ends_all(bar))
        runner = tool_calls.ToolRunner.typed(tools, mcp, approve, chain_limit, is_interactive(), stack)
        with keys_kept, bar, interrupt.ends_all(bar):
            from qcli.llm import LLM
            from qcli.sessions.library import Library

            library = Library()
            log = wanted.opened(library, stack)
            chosen = model_of(log) if model is None else model
            keep = wanted.keep(records)

            def load(model: str | None) -> LLM:
                more: dict[str, Any] = {"keep": keep, "constrained": runner is not None, "progress": bar.update}
                more |= {"draft": draft or "auto", "draft_model": draft_model if model == chosen else None}
                llm = LLM(model, threads, ctx, kv_type=kv_type, ram=ram, **more)
                wanted.note_use(llm)
                return llm

            llm = stack.enter_context(load(chosen))
        llm.thinking.manner(think)
        if verbose:
            note_mistyped(llm)
        given: dict[str, Any] = {
            "max_tokens": max_tokens,
            "stop": stop,
            "think": think,
            "stop_loops": stop_loops is not False,
            **sampling,
            **(runner.options if runner else {}),
        }
        make = _maker(library, wanted, records, discard if quiet else console.info)
        first = make(llm, log, system, {**given})
        make = _maker(library, replace(wanted, name=None), records, discard if quiet else console.info)
        stats = usual_stats(quiet, verbose)
        talk = Talk(llm, first, library, bar, quiet, is_interactive(), make, load, chosen, {**given}, stats, keyboard)
        talk.plain, talk.tools = plain, runner
        stack.enter_context(talk)
        with keys_kept:
            if not quiet:
                _greet(talk, log)
            with interrupt.does_nothing() if talk.interactive else nullcontext():  # between turns
                for turn in turns(partial(completions, talk), keyboard):
                    if not _take(talk, turn):
                        break
    return int(not talk.interactive and talk.incomplete)


def _maker(library: Library, wanted: Wanted, records: bool, tell: Callable[[str], object]) -> Make:
    """What makes conversations as they are wanted, of a log or new ones."""

    def make(llm: LLM, log: SessionLog | None, system: str | None, given: dict[str, Any]) -> Conversation:
        return wanted.conversation(llm, library, log, tell, records=records, system=system, options=given)

    return make


def _greet(talk: Talk, log: SessionLog | None) -> None:
    if talk.interactive:
        recorded = "" if talk.path is None else "; `qcli chat -c` comes back"
        console.info(f"{talk.llm.name} · /help lists the commands, Ctrl-D leaves{recorded}")
    tell_of_limits(talk.llm, talk.interactive)
    if log is not None:
        with talk.keys_kept():
            bring_back(talk.conversation, talk.bar, console.info)


def _take(talk: Talk, turn: str) -> bool:
    """Obey a command or answer a message; False to leave."""
    text = quoted(turn) if talk.interactive else None
    command, argument = parsed(turn) if text is None else ("", "")
    if (command, argument) == ("exit", "") or (talk.interactive and is_leaving(turn)):
        return False
    try:
        with interrupt.raises_once() if talk.interactive else nullcontext():
            if command:
                obey(talk, command, argument)
            else:
                talk.ask(turn if text is None else text)
    except (QcliError, OSError) as problem:
        if not talk.interactive:
            raise
        console.error(problem if isinstance(problem, QcliError) else system_error(problem))
    except KeyboardInterrupt:
        if not talk.interactive:
            raise
        console.info("stopped")
    return True
