"""qcli imatrix: an importance matrix, which says how large the inputs of a model's weights are on a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcli import console, interrupt
from qcli.commands import options
from qcli.commands.examples import examples
from qcli.errors import UsageError
from qcli.host.folders import expanded
from qcli.wording import counted

if TYPE_CHECKING:
    from qcli.quantize.imatrix import Starved
    from qcli.quantize.imatrix_file import Imatrix

_SHOWN = 8  # experts of a layer that are listed


@examples(
    ("qcli imatrix model-BF16.gguf notes.txt -o notes.imatrix.gguf", "Measures on the text of notes.txt."),
    ("qcli imatrix model-BF16.gguf notes.txt -o notes.imatrix.gguf --chunks 50", "Uses only the first 25,600 tokens."),
)
def imatrix(
    model: options.NeededModel = None,
    text: Annotated[
        str | None,
        typer.Argument(metavar="TEXT", help="A text file, best one like what the model will be used for."),
    ] = None,
    out: Annotated[str | None, typer.Option("--output", "-o", metavar="FILE", help="The .gguf file to write.")] = None,
    ctx: Annotated[
        int,
        typer.Option(
            "--ctx", metavar="N", min=4, show_default=False, help="Cut the text into pieces of N tokens (default: 512)."
        ),
    ] = 512,
    most: Annotated[
        int | None, typer.Option("--chunks", metavar="N", min=1, help="Use only the first N pieces (default: all).")
    ] = None,
    threads: options.Threads = None,
    force: Annotated[bool, options.flag("--force", "-f", help="Replace FILE if it exists.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure which parts of a model matter most for a text.

    `qcli quantize --imatrix` then keeps those more exactly.
    """
    if model is None or text is None or out is None:
        raise UsageError(
            "MODEL, TEXT and -o FILE are needed", "type, for example, qcli imatrix MODEL TEXT -o imatrix.gguf"
        )
    to = expanded(out)
    with console.status("loading", quiet) as bar, interrupt.cleans_up():
        with interrupt.ends_all(bar):
            from qcli.catalog.resolve import resolve
            from qcli.evaluate.scored_text import chunks
            from qcli.gguf.file import GGUFFile
            from qcli.gguf.kinds import require_model
            from qcli.host.atomic_files import AtomicFiles
            from qcli.quantize import imatrix_file
            from qcli.quantize.imatrix import load, measure, starved
            from qcli.terminal.text_input import read_file
            from qcli.text.tokenizer import Tokenizer

            file = GGUFFile.open(resolve(model)[0])
            require_model(file)
            output = AtomicFiles([to], force, reads=[*file.paths, expanded(text)])  # before anything takes long
            cut = chunks(Tokenizer.from_gguf(file), read_file(text), ctx, most)
            engine = load(file, ctx, threads, bar.update)
        try:
            found = measure(engine, cut, Path(text).name, bar.update)
        finally:
            engine.close()
        imatrix_file.write(output, found)
        bar.close()
        layers = starved(found)
        if as_json:
            console.json(_as_json(to, found, layers))
        elif any(layer.counts for layer in layers):
            console.out(_in_words(layers))
        if not as_json and not quiet:
            weights, of_text = counted(len(found.entries), "weight"), counted(len(cut), "chunk")
            console.info(f"{to}: {weights}, {of_text} of {counted(ctx, 'token')}")


def _in_words(layers: list[Starved]) -> str:
    """The experts that too few tokens chose for their importance to be known."""
    from qcli.quantize.imatrix import FEW

    count, whole = sum(len(layer.counts) for layer in layers), sum(layer.experts for layer in layers)
    lines = [
        f"{count:,} of {whole:,} experts were chosen by fewer than {FEW} tokens: a longer or broader text would measure"
        " them better"
    ]
    for layer in filter(lambda layer: layer.counts, layers):
        few = sorted(layer.counts.items(), key=lambda item: item[1])
        shown = ", ".join(f"{expert} ({tokens})" for expert, tokens in few[:_SHOWN])
        more = f" and {len(few) - _SHOWN} more" if len(few) > _SHOWN else ""
        lines.append(f"layer {layer.layer}: experts (tokens) {shown}{more}")
    return "\n".join(lines) + "\n"


def _as_json(path: Path, found: Imatrix, layers: list[Starved]) -> dict[str, Any]:
    return {
        "file": str(path),
        "weights": len(found.entries),
        "chunks": found.chunks,
        "chunk_size": found.chunk_size,
        "starved": [
            {"layer": layer.layer, "experts": layer.experts, "tokens": {str(e): n for e, n in layer.counts.items()}}
            for layer in layers
            if layer.counts
        ],
    }
