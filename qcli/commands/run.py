"""qcli run: one prompt, one answer."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Unpack

import typer

from qcli import console, interrupt
from qcli.commands import options
from qcli.commands.answer import discard, figures, note_mistyped, show, tell_of_default_template
from qcli.errors import PromptError, UsageError
from qcli.runtime.sampling import SamplingOptions
from qcli.terminal.text_input import STDIN, read_stdin
from qcli.text.thoughts import without_tags

if TYPE_CHECKING:
    from qcli.runtime.stats import Stats

_RAW = "Continue the prompt as it stands, without a chat template; control tokens that it spells count as such."


@options.with_sampling
def run(
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="What to answer; standard input is appended, or all of it for -."),
    ] = None,
    model: options.Model = None,
    system: options.System = None,
    raw: Annotated[bool, options.flag("--raw", help=_RAW)] = False,
    max_tokens: options.MaxTokens = None,
    stop: options.Stop = None,
    threads: options.Threads = None,
    ctx: options.Ctx = None,
    kv_type: options.KvType = None,
    ram: options.Ram = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    **sampling: Unpack[SamplingOptions],
) -> int:
    """Answer one prompt, typed or piped in."""
    if raw and system:
        raise UsageError("--raw has no place for a --system message", "leave out one of the two")
    options.check_remarks(quiet, verbose)
    text = _prompt(prompt, quiet)
    with console.status("loading", quiet) as bar:
        with interrupt.ends_all(bar):
            from qcli.llm import LLM

            llm = LLM(model, threads, ctx, kv_type=kv_type, ram=ram, progress=bar.update)
        with llm:
            if not raw and not quiet:
                tell_of_default_template(llm)
            given: Any = {"max_tokens": max_tokens, "stop": stop, **sampling}
            pieces = llm.generate(text, **given) if raw else llm.chat(_messages(system, text), **given)
            thoughts: list[str] = []
            if as_json:
                shown, interrupted = show(pieces, bar, discard, thoughts.append)
                console.json(_as_json(shown, without_tags("".join(thoughts)), llm.stats))
            else:
                shown, interrupted = show(pieces, bar, aside=discard if quiet else console.aside)
                if not shown.endswith("\n"):
                    console.out("\n")
                if not quiet:
                    console.figures(figures(llm.stats))
            if verbose:
                note_mistyped(llm)
    return interrupt.EXIT_CODE if interrupted else 0


def _prompt(argument: str | None, quiet: bool) -> str:
    """The argument, then a blank line and what is piped in, if either is there; "-" alone is what is piped or typed."""
    given = "" if argument == STDIN else argument
    piped = read_stdin("the prompt" if not given else "what to add to the prompt", quiet) if _asked(argument) else ""
    piped = piped.removesuffix("\n").removesuffix("\r")
    text = "\n\n".join(part for part in (given, piped) if part)
    if not text.strip():
        raise PromptError("there is no prompt", 'type one, as in: qcli run "Once upon a time"')
    return text


def _asked(argument: str | None) -> bool:
    """Whether standard input is a part of the prompt."""
    return argument == STDIN or not (sys.stdin is None or sys.stdin.isatty())


def _messages(system: str | None, text: str) -> list[dict[str, str]]:
    first = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": text}]


def _as_json(text: str, thoughts: str, stats: Stats) -> dict[str, Any]:
    timings = ("load_s", "ttft_s", "prefill_tok_per_s", "decode_tok_per_s")
    return {
        "text": text,
        "thoughts": thoughts,
        "prompt_tokens": stats.prompt_tokens,
        "new_tokens": stats.new_tokens,
        "finish_reason": stats.finish_reason,
        "timings": {name: round(getattr(stats, name), 4) for name in timings},
    }
