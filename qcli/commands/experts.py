"""qcli experts: how often each expert of a model is chosen, as a map of layers and experts."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcli import console, interrupt
from qcli.commands import options
from qcli.commands.examples import examples
from qcli.errors import UsageError
from qcli.wording import counted, parse_size

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from qcli.evaluate.expert_counts import LayerCounts

_SHADES = " ·░▒▓█"
_STEPS = (0.0, 0.5, 1.0, 2.0, 4.0)  # multiples of the average at which the next shade begins
_COLOURS = ("grey15", "grey35", "dark_cyan", "green3", "gold1", "red1")
_NAMES = ("never", "below half", "below", "above", "2 times", "4 times")
_MOST = 128  # characters of the map in a line
_BESIDE = 32  # characters beside it, for figures


@examples(
    ('qcli experts --prompt "Once upon a time"', "Shows which experts this text uses, layer by layer."),
    ("qcli experts model.gguf", "Shows which ones earlier answers used."),
)
def experts(
    model: options.GivenModel = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", metavar="TEXT", help="Count the experts that this text uses.")
    ] = None,
    file: Annotated[
        str | None, typer.Option("--file", metavar="FILE", help="Count the experts that the text of a file uses.")
    ] = None,
    ram: options.Ram = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
    as_csv: Annotated[bool, options.flag("--csv", help="Print layer, expert and count, one expert a line.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw which parts (experts) of a model a text uses.

    Such a model has many experts and uses a few for each token. Without a text: those that earlier answers used, which is
    known for models larger than memory.
    """
    if prompt is not None and file is not None:
        raise UsageError("--prompt and --file cannot be used together", "leave out one of them")
    if as_json and as_csv:
        raise UsageError("--json and --csv cannot be used together", "leave out one of them")
    with console.status("loading", quiet) as bar, interrupt.ends_all(bar):
        source, layers = _counted(model, prompt, file, threads, ram, bar)
    if as_json:
        console.json(_as_json(source, layers))
    elif as_csv:
        console.out(_as_csv(layers))
    else:
        console.table(_drawn(source, layers))


def _counted(
    model: str | None, prompt: str | None, file: str | None, threads: int | None, ram: str | None, bar: console.status
) -> tuple[str, list[LayerCounts]]:
    from qcli.catalog.resolve import resolve
    from qcli.evaluate import expert_counts
    from qcli.gguf.file import GGUFFile
    from qcli.gguf.kinds import require_model
    from qcli.terminal.text_input import read_file
    from qcli.text.tokenizer import Tokenizer

    n_bytes = parse_size(ram) if ram is not None else None
    with GGUFFile.open(resolve(model)[0]) as opened:
        require_model(opened)
        if prompt is None and file is None:
            return "earlier runs", expert_counts.by_usage(opened)
        text = prompt if prompt is not None else read_file(file or "")
        ids = Tokenizer.from_gguf(opened).prompt(text)
        layers = expert_counts.by_text(opened, ids, threads=threads, ram=n_bytes, progress=bar.update)
        return f"{counted(len(ids), 'token')} of text", layers


def _as_json(source: str, layers: list[LayerCounts]) -> dict[str, Any]:
    listed = [{"layer": layer.number, "counts": [round(n, 4) for n in layer.counts.tolist()]} for layer in layers]
    return {"source": source, "layers": listed}


def _as_csv(layers: list[LayerCounts]) -> str:
    rows = (f"{layer.number},{expert},{n:.6g}\n" for layer in layers for expert, n in enumerate(layer.counts.tolist()))
    return "layer,expert,count\n" + "".join(rows)


def _drawn(source: str, layers: list[LayerCounts]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    widest = max(len(layer.counts) for layer in layers)
    a_column = experts_per_column(widest, max(16, _width() - _BESIDE))
    columns = -(-widest // a_column)
    heading = f"layer  {f'experts 0 to {widest - 1}':<{columns}}  used      top tenth"
    rows = [_row(layer, a_column, columns) for layer in layers]
    title = Text(console.clean(f"how often experts were chosen: {source}"), style="bold")
    return Group(title, Text(""), Text(heading, style="dim"), *rows, Text(""), _legend(a_column))


def _width() -> int:
    return shutil.get_terminal_size().columns if console.answers_a_person() else _MOST + _BESIDE


def experts_per_column(experts: int, width: int) -> int:
    """How many experts share a column of the map, 1, 2, 4, …, so that it fits into `width` characters."""
    each = 1
    while -(-experts // each) > min(width, _MOST):
        each *= 2
    return each


def shades(layer: LayerCounts, a_column: int) -> list[int]:
    """The shade of each column: 0 (never chosen) to 5 (at least four times as often as the average)."""
    counts = layer.counts
    average = counts.mean() or 1.0
    means = (counts[first : first + a_column].mean() / average for first in range(0, len(counts), a_column))
    return [sum(mean > step if i == 0 else mean >= step for i, step in enumerate(_STEPS)) for mean in means]


def _row(layer: LayerCounts, a_column: int, columns: int) -> Text:
    """A line of the map: every column in its colour, the share of experts used, the share of choices of the top tenth."""
    from rich.text import Text

    cells = [(_SHADES[shade], _COLOURS[shade]) for shade in shades(layer, a_column)]
    used, tenth = layer.used / len(layer.counts), layer.share_of_top(0.1)
    padding = " " * max(columns - len(cells), len("experts 0 to 9") - columns)
    return Text.assemble((f"{layer.number:>5}  ", "dim"), *cells, f"{padding}  {used:4.0%}  {tenth:13.0%}")


def _legend(a_column: int) -> Text:
    from rich.text import Text

    each = "an expert" if a_column == 1 else f"the mean of {a_column} experts"
    legend = Text(f"a column is {each}, next to the average:", style="dim")
    for shade, name in enumerate(_NAMES):
        sign = "blank" if _SHADES[shade] == " " else _SHADES[shade]
        legend.append(f" {sign}", _COLOURS[shade] if shade else "").append(f" {name}")
    return legend
