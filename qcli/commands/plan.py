"""qcli plan: what a model would take of this machine, before it is loaded or even downloaded."""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcli import console, interrupt
from qcli.commands import options, prospect_table
from qcli.commands.examples import examples
from qcli.errors import ModelNotFoundError, QcliError, UsageError
from qcli.wording import counted, parse_size, size

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from qcli.catalog.entry import Entry
    from qcli.forecast.prospect import Options
    from qcli.forecast.result import Beside, Forecast
    from qcli.forecast.survey import Survey
    from qcli.hub.address import Address
    from qcli.hub.api import Listing
    from qcli.hub.repo_files import Variant


@examples(
    ("qcli plan model.gguf", "Tells whether it fits into memory, and how fast it would be."),
    ("qcli plan model.gguf --ram 16GB", "The same, for 16 GB of memory."),
    ("qcli plan unsloth/Qwen3-30B-A3B-Instruct-2507-GGUF", "Tells which version of a model to take for this machine."),
)
def plan(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A name that `qcli models` lists, a .gguf file, or of huggingface.co owner/repo or owner/repo:Q4_K_M.",
        ),
    ] = None,
    ram: options.Ram = None,
    ctx: options.Ctx = None,
    threads: options.Threads = None,
    kv_type: options.KvType = None,
    draft: options.Draft = None,
    as_json: options.Json = False,
) -> None:
    """Tell whether a model fits on this machine, and how fast it is.

    Of owner/repo on huggingface.co it compares all versions, and tells which one to take.
    """
    from qcli.drafts.setting import Draft
    from qcli.forecast.prospect import Options

    asks_head = Draft.of(draft or "auto").asks_head
    given = Options(threads, ctx, kv_type, parse_size(ram) if ram is not None else None, asks_head)
    bar = console.status("looking")
    with bar, interrupt.ends_all(bar):
        listing, found = _several(model)
        if listing is None:
            name, result = _of_one(model, given, bar)
        else:
            from qcli.forecast.repository import survey_repository

            survey, remark = survey_repository(listing, found, given, progress=bar.update)
    if listing is None and as_json:
        console.json(_as_json(name, result))
    elif listing is None:
        console.table(_drawn(name, result))
    elif as_json:
        console.json({"model": listing.repo, **prospect_table.as_json(found, survey, remark)})
    else:
        _tell(listing, found, survey, remark)


def _several(model: str | None) -> tuple[Listing | None, list[Variant]]:
    """A repository and its models, if these are several and the words name none of them. Raises as `header_of`."""
    from qcli.hub import api
    from qcli.hub.repo_files import variants
    from qcli.local_models.hub import cached_labels

    address = _repository(model) if model else None
    if address is None:
        return None, []
    try:
        listing = api.list_files(address.repo, address.revision)
    except QcliError as problem:
        if type(problem) is QcliError and cached_labels(address.repo):  # then what is here is planned
            return None, []
        raise
    found = variants(listing.files)
    return (listing, found) if len(found) > 1 else (None, [])


def _repository(model: str) -> Address | None:
    """The repository that is meant as a whole, whether or not something of it was downloaded."""
    from qcli.catalog.names import address_of
    from qcli.catalog.resolve import resolve
    from qcli.local_models.hub import cached_model

    address = address_of(model)
    if address is None or address.quant or address.file:
        return None
    try:
        return address if resolve(model)[0] == cached_model(address) else None
    except (ModelNotFoundError, UsageError):  # nothing of it is here, or several models
        return address


def _of_one(model: str | None, given: Options, bar: console.status) -> tuple[str, Forecast]:
    """The name of one model, and how it would run; where its header is not to be had, by its shape, if that is known."""
    from qcli.catalog.names import named
    from qcli.forecast.forecast import forecast
    from qcli.gguf.draft_block import open_with_draft
    from qcli.hub import headers

    with ExitStack() as stack:
        try:
            found = stack.enter_context(headers.header_of(model, bar.update))
        except QcliError as problem:
            entry = named(model) if model and type(problem) is QcliError else None
            if entry is None or not entry.shape:
                raise
            return entry.name, _by_shape(entry, given, bar, problem)
        file = stack.enter_context(open_with_draft(found.path))
        return found.name, forecast(file, **vars(given), disk=found.disk, progress=bar.update)


def _by_shape(entry: Entry, given: Options, bar: console.status, problem: QcliError) -> Forecast:
    """How a model of our list would run. Raises the problem if its quantization is not one that is known."""
    from qcli.forecast.forecast import forecast
    from qcli.forecast.known_shape import known_model

    with known_model(entry) as known:
        if known is None:
            raise problem
        file, disk = known
        console.info(f"estimated from what qcli knows of this model: {problem.message}")
        return forecast(file, **vars(given), disk=disk, progress=bar.update)


def _tell(listing: Listing, found: list[Variant], survey: Survey, remark: str) -> None:
    """Write the list of a repository's models."""
    if remark:
        console.info(f"only sizes are known: {remark}")
    columns = console.screen_columns() if console.answers_a_person() else math.inf
    rows = prospect_table.lines(found, survey, columns)
    if survey.recommended:
        rows.append(f"`qcli pull {listing.repo}:{found[survey.recommended[0]].label}` downloads it")
    console.out("\n".join([console.clean(listing.repo), *rows, ""]))


def _as_json(name: str, result: Forecast) -> dict[str, Any]:
    from dataclasses import asdict

    return {"model": name, **asdict(result)}


def _drawn(name: str, result: Forecast) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from qcli.forecast.words import rate, verdict

    memory = result.memory
    lines = [Text(console.clean(name), style="bold"), Text(verdict(result))]
    if result.speed:
        lines.append(Text(f"about {rate(result.speed.decode_tok_per_s)} tok/s, {_prompts(result)}"))
    if result.beside:
        lines.append(Text(_beside(result.beside)))
    return Group(*lines, "", _amounts(result), Text(f"may use {size(memory.ram)}; {_machine(result)}", style="dim"))


def _prompts(result: Forecast) -> str:
    from qcli.forecast.words import rate

    assert result.speed
    which = "prompts" if result.mode == "resident" else "the first prompt, if"
    return f"{which} of {counted(result.speed.prompt_tokens, 'token')}, at {rate(result.speed.prefill_tok_per_s)} tok/s"


def _beside(beside: Beside) -> str:
    room = (
        f"there is room for {min(beside.texts, options.MOST_PARALLEL)}"
        if beside.texts > 1
        else "there is no room for several"
    )
    return f"each answer that is given at the same time (--parallel) takes up to {size(beside.bytes_each)}; {room}"


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
