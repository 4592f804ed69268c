"""qcli run: one prompt, one answer."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from inspect import signature
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, Unpack

import typer

from qcli import console, interrupt
from qcli.commands import completion, forms, options, tool_calls
from qcli.commands.answer import (
    discard,
    note_mistyped,
    note_of,
    tell_figures,
    tell_of_cut_thought,
    tell_of_limits,
    tell_of_loop,
    usual_stats,
)
from qcli.commands.chat import chat
from qcli.commands.examples import examples
from qcli.commands.file_texts import joined, read_texts
from qcli.commands.forms import Form
from qcli.commands.recording import Wanted, model_of, tell_of_resumed
from qcli.commands.run_output import Output
from qcli.errors import PromptError, UsageError
from qcli.host.folders import expanded
from qcli.line_input import is_interactive
from qcli.runtime.sampling import SamplingOptions
from qcli.terminal.text_input import STDIN, read_stdin
from qcli.text.think_setting import WITH_TEMPLATE

if TYPE_CHECKING:
    from qcli.llm import LLM

_SAVE = "Save the question and the answer as a new conversation; -c goes on with it."
_FIRST = "The model, if it is typed before the prompt; the same as -m."
_FILE = "A text file that the prompt is about. Can be given several times."
_STATS = "Show all speed and memory figures (default: a few, and only in a terminal)."
_CODE = "Print only the first block of code of the answer."
_OUTPUT = "Write the answer to FILE, when it is complete; an incomplete one goes to FILE.partial."
_FORCE = "Replace the FILE of -o if it exists."
_RAW = "Continue the text of the prompt instead of answering it, also if it repeats itself."

# What chats do not have.
_ONE_ANSWER = {
    "files": "--file",
    "raw": "--raw",
    "code": "-x",
    "to": "-o",
    "force": "--force",
    "as_json": "--json",
    "stats": "--stats",
    "schema": "--schema",
    "regex": "--regex",
    "choices": "--choice",
    "grammar": "--grammar",
    "stream": "--stream",
    "partial": "--partial",
    "logprobs": "--logprobs",
    "tool_choice": "--tool-choice",
}


@examples(
    ('qcli run "Why is the sky blue?"', "Answers a question."),
    ('git diff | qcli run "Write a commit message"', "Writes about the text that is piped in."),
)
@options.with_sampling
def run(
    first: Annotated[str | None, typer.Argument(metavar="MODEL", help=_FIRST, autocompletion=completion.models)] = None,
    second: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT", help="Your question or task. Text that is piped in is added to it; - takes only that."
        ),
    ] = None,
    model: options.Model = None,
    files: Annotated[list[str] | None, typer.Option("--file", "-f", metavar="FILE", help=_FILE)] = None,
    system: options.System = None,
    max_tokens: options.MaxTokens = None,
    think: options.Think = None,
    go_on: options.Continue = False,
    to: Annotated[str | None, typer.Option("--output", "-o", metavar="FILE", help=_OUTPUT)] = None,
    force: Annotated[bool, options.flag("--force", help=_FORCE)] = False,
    code: Annotated[bool, options.flag("--extract", "-x", help=_CODE)] = False,
    as_json: options.Json = False,
    logprobs: forms.LogProbs = None,
    plain: options.Plain = False,
    quiet: options.Quiet = False,
    stats: Annotated[bool, options.flag("--stats", help=_STATS)] = False,
    verbose: options.Verbose = False,
    stop: options.Stop = None,
    stop_loops: options.StopLoops = None,
    raw: Annotated[bool, options.flag("--raw", help=_RAW)] = False,
    tools: tool_calls.File = None,
    tool_choice: tool_calls.Choice = None,
    choices: forms.Choices = None,
    schema: forms.Schema = None,
    regex: forms.Regex = None,
    grammar: forms.Grammar = None,
    stream: forms.Stream = False,
    partial: forms.Partial = False,
    resume: options.Resume = None,
    save: Annotated[bool, options.flag("--save", help=_SAVE)] = False,
    name: options.Name = None,
    no_save: Annotated[bool, options.flag("--no-save", help=options.NO_SAVE)] = False,
    ctx_full: options.CtxFull = "stop",
    ram: options.Ram = None,
    threads: options.Threads = None,
    ctx: options.Ctx = None,
    kv_type: options.KvType = None,
    draft: options.Draft = None,
    draft_model: options.DraftModel = None,
    **sampling: Unpack[SamplingOptions],
) -> int:
    """Ask a model one thing, and get its answer.

    The prompt is your question or task. Without one, in a terminal, this opens `qcli chat`.
    """
    typed = {**locals(), **sampling}
    options.check_remarks(quiet, verbose)
    if second is None and is_interactive() and _has_no_prompt(first):
        return chat(**_as_chat(typed))
    model, prompt = options.first_names_model(model, first, second)
    _check_printed(quiet, stats, as_json, logprobs)
    wanted = Wanted(go_on, resume, save, name, no_save, ctx_full)
    _check_raw(raw, system, wanted, think)
    form = Form.typed(schema, regex, choices, grammar, stream, partial)
    may_call = tool_calls.typed_tools(tools, tool_choice)
    _check_tools(may_call, raw, form)
    calls = tool_calls.Calls() if may_call else None
    output = Output(as_json, code, to, force, raw, plain, quiet, think, form, max_tokens, calls)
    read = [name for name in files or [] if name != STDIN]
    output.check(read)
    about = _texts(files or [], raw)
    text = _prompt(prompt, STDIN in (files or []), quiet)
    records = save or name is not None
    keep = None if raw else wanted.keep(records, otherwise="beginnings")
    with ExitStack() as stack:
        stack.enter_context(interrupt.raises_once())
        stack.enter_context(console.silent_keyboard())
        bar = stack.enter_context(console.status("loading", quiet))
        with interrupt.ends_all(bar):
            from qcli.llm import LLM
            from qcli.sessions.library import Library

            library = Library()
            log = wanted.opened(library, stack)
            chosen = model_of(log) if model is None else model
            llm = stack.enter_context(
                LLM(
                    chosen,
                    threads,
                    ctx,
                    kv_type=kv_type,
                    ram=ram,
                    keep=keep,
                    draft=draft or "auto",
                    draft_model=draft_model,
                    constrained=form.constraint is not None or calls is not None,
                    progress=bar.update,
                )
            )
        wanted.note_use(llm)
        if not raw:
            llm.thinking.manner(think)
        if not raw and not quiet:
            tell_of_limits(llm, to_a_person=not as_json and _is_first_answer_of(llm))
        sources = [*map(expanded, read), llm.file.path, *([] if log is None else [log.path])]
        output.check(sources)
        ends_loops = not raw if stop_loops is None else stop_loops
        given: Any = {"max_tokens": max_tokens, "stop": stop, "think": think, "stop_loops": ends_loops, **sampling}
        given |= {"constraint": form.constraint, "logprobs": logprobs, **may_call}
        tell = discard if quiet or as_json else console.info
        conversation = stack.enter_context(
            wanted.conversation(llm, library, log, tell, records=records, system=system, options=given)
        )
        if log is not None:
            tell_of_resumed(conversation, tell)
        bar.begin("reading")
        pieces = llm.generate(about + text, **given) if raw else conversation.ask(text, about=about)
        answer = output.read(pieces, bar, llm)
        output.write(answer, llm, sources)
        if calls and not as_json:
            calls.tell()
        if not quiet and not as_json:
            tell_of_cut_thought(llm, answer.text, "give a larger --max-tokens, or --think off or 500")
            tell_of_loop(llm, "try --repeat-penalty {}; --no-stop-loops lets it go on", given)
        if not as_json or stats:
            tell_figures(llm, "long" if stats else usual_stats(quiet, verbose))
        if verbose:
            note_mistyped(llm)
    if problem := output.lacks(answer, llm.stats):
        raise problem
    if conversation.problem and (quiet or as_json):
        raise conversation.problem  # nobody was told yet
    if answer.interrupted:
        return interrupt.EXIT_CODE
    malformed = calls is not None and bool(calls.malformed)
    return int(bool(conversation.problem) or malformed or (answer.cut and to is not None))


def _is_first_answer_of(llm: LLM) -> bool:
    """Whether a person sees an answer of this model, of which there is something to know, for the first time."""
    from qcli.host.once import first_time

    return console.stderr_columns() < inf and bool(note_of(llm)) and first_time(f"answer-of-{llm.name}")


def _has_no_prompt(first: str | None) -> bool:
    from qcli.catalog.resolve import is_model  # NumPy, which --help need not wait for

    return first is None or is_model(first, names=False)


def _as_chat(typed: dict[str, Any]) -> dict[str, Any]:
    """The options of a chat that is opened as there is no prompt. Raises PromptError for those that chats do not have."""
    if lost := next((flag for name, flag in _ONE_ANSWER.items() if typed[name]), None):
        raise PromptError(f"{lost} needs a prompt, and there is none", 'type one, as in: qcli run "Once upon a time"')
    from qcli.settings.values import Settings  # which reads TOML

    settings = Settings()
    given = {name: value for name, value in typed.items() if name in signature(chat).parameters}
    given["named"] = typed["first"]
    if given["named"] and given["model"] == settings.value("model").value:  # it was not typed
        given["model"] = None
    if not (given["save"] or given["name"] or given["go_on"] or given["resume"]):
        given["no_save"] = given["no_save"] or settings.value("save").value is False
    return given


def _check_printed(quiet: bool, stats: bool, as_json: bool, logprobs: int | None) -> None:
    if quiet and stats:
        raise UsageError("--quiet and --stats cannot be used together", "leave out one of them")
    if logprobs is not None and not as_json:
        raise UsageError("--logprobs needs --json", "add --json, or leave out --logprobs")


def _check_tools(may_call: Mapping[str, Any], raw: bool, form: Form) -> None:
    if may_call and (raw or form.constraint):
        other = "--raw" if raw else "--schema, --regex, --choice or --grammar"
        raise UsageError(f"--tools and {other} cannot be used together", "leave out one of them")


def _check_raw(raw: bool, system: str | None, wanted: Wanted, think: str | int | None) -> None:
    if raw and system:
        raise UsageError("--raw and --system cannot be used together", "leave out one of them")
    if raw and (wanted.old or wanted.save or wanted.name is not None):
        raise UsageError("--raw continues a text, so there is no conversation to save or go on with", "leave out --raw")
    if raw and think in WITH_TEMPLATE:
        raise UsageError(f"--raw and --think {think} cannot be used together", "leave out one of them")


def _texts(files: list[str], raw: bool) -> str:
    """The texts of files as they stand before what is asked about them; the next question may begin with the same."""
    texts = read_texts(files)
    return "".join(text for _, text in texts) if raw else joined(texts)


def _prompt(argument: str | None, stdin_is_read: bool, quiet: bool) -> str:
    """The argument, then a blank line and what is piped in, if either is there; "-" alone is what is piped or typed."""
    given = "" if argument == STDIN else argument
    what = "the prompt" if not given else "what to add to the prompt"
    piped = read_stdin(what, quiet) if _asked(argument) and not stdin_is_read else ""
    piped = piped.removesuffix("\n").removesuffix("\r")
    text = "\n\n".join(part for part in (given, piped) if part)
    if not text.strip():
        raise PromptError("there is no prompt", 'type one, as in: qcli run "Once upon a time"')
    return text


def _asked(argument: str | None) -> bool:
    """Whether standard input is a part of the prompt."""
    return argument == STDIN or not (sys.stdin is None or sys.stdin.isatty())
