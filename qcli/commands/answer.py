"""What `run` and `chat` share: an answer as it comes, and the line of figures after it."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from math import ceil, inf
from typing import TYPE_CHECKING, Any

from qcli import console
from qcli.commands.folded_thoughts import FoldedThoughts
from qcli.runtime.sampling import OPTIONS
from qcli.text.code_blocks import opened
from qcli.text.thoughts import Thought
from qcli.wording import counted, duration

if TYPE_CHECKING:
    from qcli.llm import LLM
    from qcli.runtime.stats import Stats
    from qcli.terminal.markdown import MarkdownWriter


class Screen:
    """Where an answer is shown: on a terminal its Markdown is rendered, unless it is wanted plain; else it stays as it is."""

    def __init__(self, plain: bool = False) -> None:
        self._markdown = None if plain or not console.answers_a_person() else _markdown()
        self._opening = ""

    def goes_on(self, text: str) -> None:
        """The next pieces continue a text that was shown before; where that ends within a block of code, they are code, too."""
        self._opening = opened(text) if self._markdown else ""

    def __call__(self, piece: str) -> None:
        """Show a piece."""
        opening, self._opening = self._opening, ""
        (self._markdown or console.out)(opening + piece)

    def finish(self) -> None:
        """Show what waits for its place."""
        if self._markdown:
            self._markdown.close()

    def end_line(self, shown: str) -> None:
        """End the line after an answer that has none at its end; what is rendered has."""
        if not self._markdown and not shown.endswith("\n"):
            console.out("\n")


def _markdown() -> MarkdownWriter:
    from qcli.terminal.markdown import MarkdownWriter

    return MarkdownWriter(console.screen, console.screen_columns, no_color=bool(os.environ.get("NO_COLOR")))


def show(
    pieces: Generator[str, None, None],
    bar: console.status,
    write: Callable[[str], None] = console.out,
    aside: Callable[[str], None] = console.aside,
) -> tuple[str, bool]:
    """Pass the pieces of an answer to `write` as they come, thoughts to `aside`; the answer, and whether Ctrl-C ended it.

    What a Screen holds back is shown at the end, and before thoughts that come later.
    """
    fold = aside.end if isinstance(aside, FoldedThoughts) else None
    finish = write.finish if isinstance(write, Screen) else lambda: None
    text: list[str] = []
    interrupted = thinking = False
    lines = ""  # that end the thoughts so far
    try:
        with closing(pieces):
            for piece in pieces:
                bar.close()
                if isinstance(piece, Thought):
                    shown = (lines + piece).rstrip("\n")
                    lines = (lines + piece)[len(shown) :]
                    thinking = thinking or bool(shown)
                    finish()
                    aside(shown)
                    continue
                if thinking and piece:
                    thinking, lines = False, ""
                    if fold:
                        fold()
                    else:
                        aside("\n\n")  # one blank line before the answer, however many the model leaves
                text.append(piece)
                write(piece)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        bar.close()
        if fold:
            fold()
        finish()
    return "".join(text), interrupted


def tell_of_limits(llm: LLM, to_a_person: bool) -> None:
    """Tell what a model is not made for, as it brings no chat template, or to a person as models.toml says of a toy."""
    if to_a_person and (note := note_of(llm)):
        console.info(f"{llm.name} {note} · for real talk: `qcli models` lists others, `qcli pull NAME` downloads one")
    elif not llm.file.get_str("tokenizer.chat_template", ""):
        remark = "was perhaps not made for chatting (it has no chat template) and may answer nonsense"
        console.info(f"{llm.name} {remark} (qcli run --raw lets it continue a text)")


def tell_of_loop(llm: LLM, hint: str, options: Mapping[str, Any]) -> None:
    """Tell that the last answer was stopped as it repeats itself, if it was.

    hint: what can be typed, {} being a repeat_penalty higher than that of the answer's options.
    """
    if llm.stats.finish_reason == "loop":
        penalty = llm.sampling(**{name: value for name, value in options.items() if name in OPTIONS}).repeat_penalty
        console.info(f"stopped, as the answer repeats itself · {hint.format(round(max(1.0, penalty) + 0.1, 2))}")


def tell_of_cut_thought(llm: LLM, answer: str, hint: str) -> None:
    """Tell that the last answer was cut before it began, as the model was still thinking, if it was; hint: what to type."""
    stats = llm.stats
    if stats.finish_reason == "length" and stats.thought_tokens and not answer.strip():
        console.info(f"cut while it was thinking, before the answer · {hint}")


def note_of(llm: LLM) -> str:
    """What has to be known of a model, as models.toml says; "" for nothing."""
    from qcli.catalog.entries import load_catalog  # NumPy, which --help need not wait for
    from qcli.catalog.resolve import path_of

    entries = load_catalog().values()
    return next((entry.note for entry in entries if entry.note and path_of(entry) == llm.file.path), "")


def note_mistyped(llm: LLM) -> None:
    """Tell in one line which control tokens the file calls ordinary text, if there are any."""
    if mistyped := llm.tokenizer.mistyped:
        console.info(f"read as control signs, though the model file marks them as ordinary text: {' '.join(mistyped)}")


def thoughts_aside(llm: LLM, think: str | int | None, quiet: bool) -> Callable[[str], None]:
    """What shows the thoughts of the next answer: as they come, or if they are to be hidden their number."""
    if quiet:
        return discard
    return FoldedThoughts(lambda: llm.stats) if think == "hide" else console.aside


def discard(piece: str) -> None:
    """Show nothing."""


def usual_stats(quiet: bool, verbose: bool) -> str:
    """What is told after an answer unless something is asked for: short figures if somebody sees them, long ones, or off."""
    if quiet or verbose:
        return "off" if quiet else "long"
    return "short" if console.stderr_columns() < inf else "off"


def tell_figures(llm: LLM, which: str) -> None:
    """Tell the figures of the last answer: those that are "short", "long", or with "off" none."""
    if which == "long":
        console.figures(figures(llm.stats))
    elif which == "short":
        console.figures(short_figures(llm.stats, llm.engine.position, llm.engine.ctx))


def short_figures(stats: Stats, used: int, ctx: int) -> list[str]:
    """Decode speed, the time that the answer took, and how much of a context of `ctx` tokens is used."""
    if not stats.prompt_tokens:
        return []
    speed = stats.decode_tok_per_s
    shown = [f"{speed:,.{0 if speed >= 9.95 else 1}f} tok/s"] if speed else []
    return [*shown, duration(stats.ttft_s + stats.decode_s), f"context {ceil(100 * used / ctx)} % full"]


def figures(stats: Stats) -> list[str]:
    """Prompt tokens and prefill speed, TTFT, new tokens and decode speed, GB/s, experts, what came from the disk."""
    cached = f" ({stats.cached_tokens} cached)" if stats.cached_tokens else ""
    prompt = counted(stats.prompt_tokens, "prompt token") + cached
    shown = [
        prompt + _speed(stats.prefill_tok_per_s),
        f"first token after {stats.ttft_s:.2f} s",
        f"{stats.new_tokens:,} new" + _speed(stats.decode_tok_per_s, f", {stats.gb_per_s:,.1f} GB/s"),
    ]
    if stats.guessed:
        shown.append(
            f"accepted {stats.guessed_right / stats.guessed:.0%} of guesses, {stats.tokens_per_step:.1f} tokens a step"
        )
    if stats.experts_total:
        shown.append(f"{stats.experts_touched:,} of {stats.experts_total:,} experts used")
    if reads := stats.disk_reads:
        shown.append(f"read {reads.bytes_per_step / 1e6:,.0f} MB for each token")
        shown.append(f"{reads.hit_rate:.0%} of the experts were in memory")
        shown.append(f"{reads.wait_s_per_step * 1e3:,.0f} ms waiting for the disk")
    return shown


def _speed(tok_per_s: float, more: str = "") -> str:
    digits = 0 if tok_per_s >= 100 else 1
    return f" at {tok_per_s:,.{digits}f} tok/s{more}" if tok_per_s else ""
