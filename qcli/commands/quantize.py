"""qcli quantize: a model with smaller weights."""

from __future__ import annotations

from time import perf_counter
from typing import Annotated

import typer

from qcli import console, interrupt
from qcli.commands import options
from qcli.commands.examples import examples
from qcli.errors import UsageError
from qcli.host.folders import expanded
from qcli.wording import parse_size


@examples(
    ("qcli quantize model-BF16.gguf model-Q4_K_M.gguf Q4_K_M", "Writes a copy of less than a third of the size."),
    (
        "qcli quantize model-BF16.gguf model-Q4_K_M.gguf Q4_K_M --dry-run",
        "Tells the size of the copy, and writes nothing.",
    ),
)
def quantize(
    source: Annotated[
        str | None,
        typer.Argument(metavar="IN", help="A name that `qcli models` lists, or a .gguf file, best one in BF16 or F16."),
    ] = None,
    out: Annotated[str | None, typer.Argument(metavar="OUT", help="The file to write.")] = None,
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="TYPE", help="How small: Q8_0 (about half of F16), Q4_K_M (less than a third), and others."
        ),
    ] = None,
    tensor: Annotated[
        list[str] | None,
        typer.Option(
            "--tensor",
            metavar="PATTERN=TYPE",
            help="Another type for the parts whose name matches, such as 'output*=Q6_K'. Can be given several times.",
        ),
    ] = None,
    imatrix: Annotated[
        str | None,
        typer.Option(
            "--imatrix",
            metavar="FILE",
            help="A file that `qcli imatrix` (or llama-imatrix) wrote: what matters most is kept more exactly.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, options.flag("--dry-run", help="Tell the size and types of the copy, and write nothing.")
    ] = False,
    split_size: Annotated[
        str | None,
        typer.Option(
            "--split-size",
            metavar="SIZE",
            help="Write several files of at most this size, such as 4G or 500M (default: one file).",
        ),
    ] = None,
    threads: options.Threads = None,
    force: Annotated[bool, options.flag("--force", "-f", help="Replace OUT if it exists.")] = False,
    allow_requantize: Annotated[
        bool,
        options.flag(
            "--allow-requantize",
            help="Allow a model that was made smaller before, which loses more quality (default: refuse).",
        ),
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a copy of a model that is smaller and faster."""
    from qcli.catalog.resolve import resolve
    from qcli.commands.quantize_report import report
    from qcli.gguf.file import GGUFFile
    from qcli.host.threads import default_threads
    from qcli.quantize import convert, imatrix_file, job

    source, out, kind = _arguments(source, out, kind, dry_run)
    overrides = [job.override(given) for given in tensor or ()]
    split_bytes = None if split_size is None else _size(split_size)
    with GGUFFile.open(resolve(source)[0]) as file, console.status("loading", quiet) as bar, interrupt.cleans_up():
        about = None if imatrix is None else (expanded(imatrix), imatrix_file.read(expanded(imatrix)))
        todo = job.make_job(
            file, expanded(out), kind,
            overrides=overrides, imatrix=about, allow_requantize=allow_requantize, split_bytes=split_bytes,
        )  # fmt: skip
        seconds = None
        if not dry_run:
            began = perf_counter()
            convert.check_output(todo, force)
            with interrupt.ends_all(bar):
                convert.compile_kernels(todo, bar.update)
            convert.run(todo, threads or default_threads(), force, bar.update)
            seconds = perf_counter() - began
        bar.close()
        report(todo, seconds, as_json, quiet)


def _arguments(source: str | None, out: str | None, kind: str | None, dry_run: bool) -> tuple[str, str, str]:
    if kind is None and dry_run:  # nothing is written, so that a file to write need not be named
        out, kind = "", out
    if source is None or out is None or kind is None:
        message = "IN, OUT and TYPE are needed"
        raise UsageError(message, "type, for example, qcli quantize model-BF16.gguf model-Q4_K_M.gguf Q4_K_M")
    return source, out, kind


def _size(given: str) -> int:
    try:
        size = parse_size(given)
    except UsageError:
        size = 0
    if size < 10**6:
        raise UsageError(f"{given!r} is not the size of a part", "give one of a megabyte or more, such as 4G or 500M")
    return size
