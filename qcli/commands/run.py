"""qcli run: one prompt, one answer."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any, Unpack

import typer

from qcli import console, interrupt
from qcli.commands import completion, forms, options, tool_calls
from qcli.commands.answer import (
    discard,
    note_mistyped,
    show,
    tell_figures,
    tell_of_default_template,
    thoughts_aside,
    usual_stats,
)
from qcli.commands.examples import examples
from qcli.commands.file_texts import joined, read_texts
from qcli.commands.recording import Wanted, model_of, tell_of_resumed
from qcli.errors import PromptError, UsageError
from qcli.runtime.sampling import SamplingOptions
from qcli.terminal.text_input import STDIN, read_stdin
from qcli.text.think_setting import WITH_TEMPLATE
from qcli.text.thoughts import without_tags

if TYPE_CHECKING:
    from qcli.runtime.stats import Stats

_SAVE = "Record prompt and answer as a new conversation, for `qcli run -c` and `qcli chat -c`."
_FIRST = "Where two words are typed: a GGUF file, or a name that `qcli models` lists, as with -m."
_FILE = "A text that the prompt is about, which stands before it; may be repeated."
_STATS = "Tell all figures of the answer; else short ones, and those in a terminal alone."
_RAW = "Continue the prompt as it stands, without a chat template; control tokens that it spells count as such."


@examples(
    ('qcli run "Why is the sky blue?"', "Answers one question."),
    ('git diff | qcli run "Write a commit message"', "Answers about what is piped in."),
)
@options.with_sampling
def run(
    first: Annotated[str | None, typer.Argument(metavar="MODEL", help=_FIRST, autocompletion=completion.models)] = None,
    second: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="What to answer; standard input is appended, or all of it for -."),
    ] = None,
    model: options.Model = None,
    files: Annotated[list[str] | None, typer.Option("--file", "-f", metavar="FILE", help=_FILE)] = None,
    system: options.System = None,
    raw: Annotated[bool, options.flag("--raw", help=_RAW)] = False,
    max_tokens: options.MaxTokens = None,
    stop: options.Stop = None,
    think: options.Think = None,
    tools: tool_calls.File = None,
    tool_choice: tool_calls.Choice = None,
    schema: forms.Schema = None,
    regex: forms.Regex = None,
    choices: forms.Choices = None,
    grammar: forms.Grammar = None,
    stream: forms.Stream = False,
    partial: forms.Partial = False,
    go_on: options.Continue = False,
    resume: options.Resume = None,
    save: Annotated[bool, options.flag("--save", help=_SAVE)] = False,
    name: options.Name = None,
    no_save: Annotated[bool, options.flag("--no-save", help=options.NO_SAVE)] = False,
    threads: options.Threads = None,
    ctx: options.Ctx = None,
    ctx_full: options.CtxFull = "stop",
    kv_type: options.KvType = None,
    ram: options.Ram = None,
    as_json: options.Json = False,
    logprobs: forms.LogProbs = None,
    plain: options.Plain = False,
    stats: Annotated[bool, options.flag("--stats", help=_STATS)] = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    **sampling: Unpack[SamplingOptions],
) -> int:
    """Answer one prompt, typed or piped in."""
    options.check_remarks(quiet, verbose)
    model, prompt = options.first_names_model(model, first, second)
    if quiet and stats:
        raise UsageError("--quiet and --stats cannot both be meant", "leave out one of the two")
    wanted = Wanted(go_on, resume, save, name, no_save, ctx_full)
    _check_raw(raw, system, wanted, think)
    if logprobs is not None and not as_json:
        raise UsageError("--logprobs are a part of --json", "add --json, or leave it out")
    form = forms.Form.typed(schema, regex, choices, grammar, stream, partial)
    calls = tool_calls.Calls()
    tools_file, may_call = tool_calls.typed_tools(tools, tool_choice)
    if tools_file and (raw or form.constraint):
        raise UsageError("--tools is for answers without --raw, and without a form", "leave out one of the two")
    about = _texts(files or [], raw)
    text = _prompt(prompt, STDIN in (files or []), quiet)
    records = save or name is not None
    keep = None if raw else wanted.keep(records, otherwise="beginnings")
    with ExitStack() as stack:
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
                    constrained=form.constraint is not None or tools_file is not None,
                    progress=bar.update,
                )
            )
        if not raw:
            llm.thinking.manner(think)
        if not raw and not quiet:
            tell_of_default_template(llm)
        given: Any = {"max_tokens": max_tokens, "stop": stop, "think": think, **sampling}
        given |= {"constraint": form.constraint, "logprobs": logprobs, **may_call}
        tell = discard if quiet or as_json else console.info
        conversation = stack.enter_context(
            wanted.conversation(llm, library, log, tell, records=records, system=system, options=given)
        )
        if log is not None:
            tell_of_resumed(conversation, tell)
        pieces = llm.generate(about + text, **given) if raw else conversation.ask(text, about=about)
        pieces = calls.apart(pieces)
        thoughts: list[str] = []
        if as_json:
            shown, interrupted = show(pieces, bar, discard, thoughts.append)
            if form.prints(llm.stats):
                found = _as_json(shown, without_tags("".join(thoughts)), llm.stats, form, logprobs is not None)
                console.json({**found, **({"tool_calls": calls.listed()} if tools_file else {})})
        else:
            aside = thoughts_aside(llm, think, quiet)
            interrupted = form.show(pieces, bar, plain or raw, aside, lambda: llm.stats, lambda: bool(calls.whole))[1]
            calls.tell()
        if not as_json or stats:
            tell_figures(llm, "long" if stats else usual_stats(quiet, verbose))
        if verbose:
            note_mistyped(llm)
    if conversation.problem and (quiet or as_json):
        raise conversation.problem  # nobody was told yet
    if not interrupted and (problem := form.lacks(llm.stats, max_tokens)):
        raise problem
    return interrupt.EXIT_CODE if interrupted else int(bool(conversation.problem or calls.malformed))


def _check_raw(raw: bool, system: str | None, wanted: Wanted, think: str | int | None) -> None:
    if raw and system:
        raise UsageError("--raw has no place for a --system message", "leave out one of the two")
    if raw and (wanted.old or wanted.save or wanted.name is not None):
        raise UsageError("--raw continues a text, which is no conversation to record", "leave out --raw")
    if raw and think in WITH_TEMPLATE:
        raise UsageError(f"--raw has no place for --think {think}", "leave out one of the two")


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


def _as_json(text: str, thoughts: str, stats: Stats, form: forms.Form, logprobs: bool) -> dict[str, Any]:
    timings = ("load_s", "ttft_s", "prefill_tok_per_s", "decode_tok_per_s")
    is_json = form.constraint is not None and form.constraint.is_json
    return {
        "text": text,
        **({"value": json.loads(text) if stats.fits else None} if is_json else {}),
        "thoughts": thoughts,
        "prompt_tokens": stats.prompt_tokens,
        "new_tokens": stats.new_tokens,
        "finish_reason": stats.finish_reason,
        **({"fits": stats.fits} if form.constraint else {}),
        **({"logprobs": stats.logprobs} if logprobs else {}),
        "timings": {name: round(getattr(stats, name), 4) for name in timings},
    }
