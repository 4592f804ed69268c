"""qcli plan: what a model would take of this machine, before it is loaded or even downloaded."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcli import console, interrupt
from qcli.commands import options
from qcli.wording import counted, parse_size, size

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from qcli.forecast.outlook import Outlook


def plan(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="A GGUF file, a name, or owner/repo:file.gguf on huggingface.co."),
    ] = None,
    ram: options.Ram = None,
    ctx: options.Ctx = None,
    threads: options.Threads = None,
    kv_type: options.KvType = None,
    as_json: options.Json = False,
) -> None:
    """Tell whether a model would fit here, and how fast it would be."""
    bar = console.status("looking")
    with bar, interrupt.ends_all(bar), ExitStack() as stack:
        from qcli import hub
        from qcli.forecast.outlook import foresee
        from qcli.gguf.file import GGUFFile

        room = parse_size(ram) if ram is not None else None
        found = stack.enter_context(hub.header_of(model, bar.update))
        file = stack.enter_context(GGUFFile.open(found.path))
        outlook = foresee(
            file, threads=threads, ctx=ctx, kv_type=kv_type, ram=room, disk=found.disk, progress=bar.update
        )
    if as_json:
        console.json(_as_json(found.name, outlook))
    else:
        console.table(_drawn(found.name, outlook))


def _as_json(name: str, outlook: Outlook) -> dict[str, Any]:
    from dataclasses import asdict

    return {"model": name, **asdict(outlook)}


def _drawn(name: str, outlook: Outlook) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    memory = outlook.memory
    lines = [Text(console.clean(name), style="bold"), Text(verdict(outlook))]
    if outlook.speed:
        lines.append(Text(f"about {_speed(outlook.speed.decode_tok_per_s)} tok/s, {_prompts(outlook)}"))
    return Group(*lines, "", _amounts(outlook), Text(f"may use {size(memory.ram)}; {_machine(outlook)}", style="dim"))


def verdict(outlook: Outlook) -> str:
    """Whether it fits, in a line."""
    memory, streaming = outlook.memory, outlook.streaming
    if outlook.mode == "resident":
        return f"resident: it needs {size(memory.needed)}, and all of it stays in memory"
    if streaming is None:
        return f"too large: it needs at least {size(memory.needed)}, or a smaller --ctx, or a smaller file of the model"
    learnt = "as earlier runs asked for them" if streaming.learnt else "if they are asked for about alike"
    return (
        f"streamed: it needs {size(memory.needed)} to stay in memory; room for {streaming.slots} of {streaming.held} experts"
        f" in each layer\n{streaming.hit_rate:.0%} of the experts will be there ({learnt}); a token reads"
        f" {size(streaming.bytes_per_token)} from the disk, which gives {size(streaming.disk_bytes_per_s)}/s"
    )


def _prompts(outlook: Outlook) -> str:
    assert outlook.speed
    which = "prompts" if outlook.mode == "resident" else "the first prompt, if"
    return f"{which} of {counted(outlook.speed.prompt_tokens, 'token')}, at {_speed(outlook.speed.prefill_tok_per_s)} tok/s"


def _machine(outlook: Outlook) -> str:
    threads, tokens = counted(outlook.threads, "thread"), counted(outlook.ctx, "token")
    return f"{threads}, context of {tokens} as {outlook.kv_type}; speed measured on random weights"


def _amounts(outlook: Outlook) -> Table:
    from rich.table import Table

    weights, memory = outlook.weights, outlook.memory
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    rows = [
        ("dense weights", weights.dense, "every token meets them"),
        ("experts", weights.experts, f"a token reads {size(weights.per_token)}, dense weights among them"),
        ("keys and values", memory.cache, f"of {counted(outlook.ctx, 'token')}"),
        ("recurrent state", memory.state - memory.cache, ""),
        ("buffers", memory.buffers, ""),
        ("program", memory.program, "with a reserve"),
    ]
    for label, count, note in rows:
        if count:
            table.add_row(label, size(count), note)
    return table


def _speed(tok_per_s: float) -> str:
    return f"{tok_per_s:,.{0 if tok_per_s >= 20 else 1}f}"
