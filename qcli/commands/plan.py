"""qcli plan: what a model would take of this machine, before it is loaded or even downloaded."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcli import console, interrupt
from qcli.commands import options
from qcli.commands.examples import examples
from qcli.wording import counted, parse_size, size

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from qcli.forecast.result import Forecast


@examples(
    ("qcli plan model.gguf", "Tells whether it fits into memory, and how fast it would be."),
    (
        "qcli plan model.gguf --ram 16GB --ctx 8192",
        "The same with 16 GB of memory, where the model sees less text at a time.",
    ),
)
def plan(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A name that `qcli models` lists, a .gguf file, or owner/repo:file.gguf on huggingface.co.",
        ),
    ] = None,
    ram: options.Ram = None,
    ctx: options.Ctx = None,
    threads: options.Threads = None,
    kv_type: options.KvType = None,
    as_json: options.Json = False,
) -> None:
    """Tell whether a model fits on this machine, and how fast it is."""
    bar = console.status("looking")
    with bar, interrupt.ends_all(bar), ExitStack() as stack:
        from qcli.forecast.forecast import forecast
        from qcli.gguf.file import GGUFFile
        from qcli.hub import headers

        room = parse_size(ram) if ram is not None else None
        found = stack.enter_context(headers.header_of(model, bar.update))
        file = stack.enter_context(GGUFFile.open(found.path))
        result = forecast(
            file, threads=threads, ctx=ctx, kv_type=kv_type, ram=room, disk=found.disk, progress=bar.update
        )
    if as_json:
        console.json(_as_json(found.name, result))
    else:
        console.table(_drawn(found.name, result))


def _as_json(name: str, result: Forecast) -> dict[str, Any]:
    from dataclasses import asdict

    return {"model": name, **asdict(result)}


def _drawn(name: str, result: Forecast) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    memory = result.memory
    lines = [Text(console.clean(name), style="bold"), Text(verdict(result))]
    if result.speed:
        lines.append(Text(f"about {_speed(result.speed.decode_tok_per_s)} tok/s, {_prompts(result)}"))
    return Group(*lines, "", _amounts(result), Text(f"may use {size(memory.ram)}; {_machine(result)}", style="dim"))


def verdict(result: Forecast) -> str:
    """Whether it fits, in a line."""
    memory, streaming = result.memory, result.streaming
    if result.mode == "resident":
        return f"resident: it needs {size(memory.needed)}, and all of it stays in memory"
    if streaming is None:
        return f"too large: it needs at least {size(memory.needed)}, or a smaller --ctx, or a smaller file of the model"
    usage = "as earlier runs used them" if streaming.usage_known else "if all are as likely"
    return (
        f"streamed: it needs {size(memory.needed)} to stay in memory; room for {streaming.slots} of"
        f" {streaming.experts_per_layer} experts in each layer\n{streaming.hit_rate:.0%} of a token's experts"
        f" will be in memory ({usage}); a token reads"
        f" {size(streaming.bytes_per_token)} from the disk, which gives {size(streaming.disk_bytes_per_s)}/s"
    )


def _prompts(result: Forecast) -> str:
    assert result.speed
    which = "prompts" if result.mode == "resident" else "the first prompt, if"
    return (
        f"{which} of {counted(result.speed.prompt_tokens, 'token')}, at {_speed(result.speed.prefill_tok_per_s)} tok/s"
    )


def _machine(result: Forecast) -> str:
    threads, tokens = counted(result.threads, "thread"), counted(result.ctx, "token")
    return f"{threads}, context of {tokens} as {result.kv_type}; speed measured on random weights"


def _amounts(result: Forecast) -> Table:
    from rich.table import Table

    weights, memory = result.weights, result.memory
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    rows = [
        ("dense weights", weights.dense, "every token reads them"),
        ("experts", weights.experts, f"a token reads {size(weights.per_token)}, dense weights among them"),
        ("keys and values", memory.kv_cache, f"of {counted(result.ctx, 'token')}"),
        ("recurrent state", memory.state - memory.kv_cache, ""),
        ("buffers", memory.buffers, ""),
        ("program", memory.program, "with a reserve"),
    ]
    for label, count, note in rows:
        if count:
            table.add_row(label, size(count), note)
    return table


def _speed(tok_per_s: float) -> str:
    return f"{tok_per_s:,.{0 if tok_per_s >= 20 else 1}f}"
