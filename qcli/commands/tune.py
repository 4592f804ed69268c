"""qcli tune: which settings are the fastest on this machine, by trying them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcli import console, interrupt
from qcli.commands import completion, options
from qcli.commands.examples import examples
from qcli.wording import counted, parse_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from qcli.bench.subject import Subject
    from qcli.doctor.disk import Speeds
    from qcli.doctor.tuning import Tried
    from qcli.progress import Progress

_SHAPE, _LAYERS = "qwen3-30b-a3b", 2  # of random weights, where no model is named: too large for any processor's cache


@examples(
    ("qcli tune", "Tries numbers of threads, with random weights, in about a minute."),
    ("qcli tune model.gguf --save", "Tries them with a model, and uses the best from now on."),
)
def tune(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A name that `qcli models` lists, or a .gguf file (default: random weights in a usual shape).",
            autocompletion=completion.models,
        ),
    ] = None,
    save: Annotated[bool, options.flag("--save", help="Use the best number of threads from now on.")] = False,
    ram: options.Ram = None,
    as_json: options.Json = False,
) -> None:
    """Find the fastest settings for this machine.

    `qcli run` and `qcli chat` choose well by themselves; this tells whether they do. Close other programs before.
    """
    n_bytes = parse_size(ram) if ram is not None else None
    if n_bytes is not None and model is None:
        console.info("random weights stay in memory, whatever --ram says: `qcli tune MODEL` reads a file")
        n_bytes = None  # there is nothing to read experts from
    bar = console.status("loading", still=True)
    with bar, interrupt.ends_all(bar):
        from qcli.doctor.tuning import best, try_chunks, try_threads
        from qcli.host.threads import default_threads

        subject = _subject(model, bar.update)
        with subject.file as file:
            tried = try_threads(file, n_bytes, bar.update)
            usual = next((one for one in tried if one.threads == default_threads()), None)
            chosen = best(tried, usual)
            chunks = try_chunks(file, chosen.threads, chosen.prompt_tok_per_s, n_bytes, bar.update)
        lanes = _lanes(subject, bar.update)
    if as_json:
        console.json(_as_json(subject.name, tried, chunks, lanes, chosen, chosen == usual))
    else:
        console.table(_drawn(subject.name, tried, chunks, lanes, chosen, chosen == usual))
    if save:
        _save(chosen.threads)
    elif chosen != usual and not as_json:
        console.info("`qcli tune --save` measures again and keeps it; `qcli config set threads N` sets any number")


def _subject(model: str | None, progress: Progress) -> Subject:
    """The model, else random weights: those that come with qcli would fit into a processor's cache."""
    from qcli.bench.random_weights import find_mix
    from qcli.bench.shapes import find_shape
    from qcli.bench.subject import of_file, of_shape

    if model is not None:
        return of_file(model)
    return of_shape(find_shape(_SHAPE), find_mix("q4_k_m"), _LAYERS, progress)


def _lanes(subject: Subject, progress: Progress) -> Speeds:
    """How many reads at a time are enough for the disk with the model, or with the folder for caches."""
    from qcli.doctor import disk
    from qcli.host import folders

    path = Path(subject.file.path)
    if not subject.shape and path.stat().st_size >= disk.LARGE:
        return disk.measured(path, disk.PIECE, progress)
    return disk.of_folder(disk.existing(folders.some_cache()), progress)


def _save(threads: int) -> None:
    from qcli.settings.values import Settings

    settings = Settings()
    settings.set("threads", str(threads))
    console.info(f"threads is {threads}, in {settings.path}; `qcli config unset threads` takes it back")


def _as_json(
    name: str, tried: list[Tried], chunks: list[Tried], lanes: Speeds, chosen: Tried, is_usual: bool
) -> dict[str, Any]:
    return {
        "model": name,
        "threads": [vars(one) for one in tried],
        "chunks": [vars(one) for one in chunks],
        "lanes": [{"lanes": count, "bytes_per_s": round(speed)} for count, speed in lanes.direct.items()],
        "best_threads": chosen.threads,
        "is_default": is_usual,
    }


def _drawn(
    name: str, tried: list[Tried], chunks: list[Tried], lanes: Speeds, chosen: Tried, is_usual: bool
) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(console.clean(name), style="bold"), "", _threads(tried, chosen)]
    if chunks:
        parts += ["", _table(("tokens of a prompt at a time", "prompts tok/s"),
                             [(f"{one.chunk:,}", _rate(one.prompt_tok_per_s)) for one in chunks])]  # fmt: skip
    read = [(str(count), f"{speed / 1e9:.2f}") for count, speed in lanes.direct.items()]
    parts += ["", _table(("reads of the disk at a time", "GB/s"), read), ""]
    count = counted(chosen.threads, "thread")
    said = f"{count}: as qcli chooses by itself, so that there is nothing to set" if is_usual else f"best: {count}"
    return Group(*parts, Text(said, style="bold"))


def _threads(tried: list[Tried], chosen: Tried) -> Table:
    rows = []
    for one in tried:
        speeds = _rate(one.prompt_tok_per_s), _rate(one.answer_tok_per_s or 0.0)
        rows.append((str(one.threads), *speeds, "←" if one == chosen else ""))
    return _table(("threads", "prompts tok/s", "answers tok/s", ""), rows)


def _table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    from qcli.commands.tables import new_table

    table = new_table()
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def _rate(tok_per_s: float) -> str:
    from qcli.forecast.words import rate

    return rate(tok_per_s)
