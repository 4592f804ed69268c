"""qcli bench: how fast a model runs on this machine, and where the time goes."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcli import console, interrupt
from qcli.commands import options
from qcli.commands.examples import examples
from qcli.errors import UsageError
from qcli.wording import parse_size

if TYPE_CHECKING:
    from qcli.bench.cases import Case
    from qcli.bench.disk import CacheSize
    from qcli.bench.measure import Result
    from qcli.bench.model_shape import ModelShape
    from qcli.bench.peer import Peer
    from qcli.bench.random_weights import Mix
    from qcli.bench.subject import Subject
    from qcli.commands.bench_report import Report


def _sizes(*names: str, help: str) -> Any:
    return typer.Option(*names, metavar="N,…", help=help, show_default=False)


@examples(
    ("qcli bench", "Measures the small model that comes with qcli."),
    ("qcli bench -m model.gguf -t 1,2,4 -p 0", "Measures how fast it answers with 1, 2 and 4 threads."),
)
def bench(
    model: options.Model = None,
    n_prompt: Annotated[
        str, _sizes("--n-prompt", "-p", help="Read a prompt of N tokens; 0: skip this test (default: 512).")
    ] = "512",
    n_gen: Annotated[
        str, _sizes("--n-gen", "-n", help="Answer with N tokens; 0: skip this test (default: 64).")
    ] = "64",
    n_depth: Annotated[
        str, _sizes("--n-depth", "-d", help="Tokens that were read before the test (default: 0).")
    ] = "0",
    threads: Annotated[str | None, _sizes("--threads", "-t", help=options.THREADS)] = None,
    batch_size: Annotated[
        str | None,
        _sizes("--batch-size", "-b", help="Tokens of a prompt to take together (default: as `qcli run` does)."),
    ] = None,
    kv_type: options.KvType = None,
    ram: options.Ram = None,
    repetitions: Annotated[
        int,
        typer.Option(
            "--repetitions", "-r", metavar="N", min=1, show_default=False, help="Repeat each test N times (default: 3)."
        ),
    ] = 3,
    shape: Annotated[
        str | None,
        typer.Option("--shape", metavar="NAME", help="Random weights in the shape of a known model, without its file."),
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(
            "--layers", metavar="N", min=1, help="With --shape: its first N layers (default: as many as fit)."
        ),
    ] = None,
    quant: Annotated[
        str | None,
        typer.Option(
            "--quant", metavar="TYPE", help="With --shape: the type of the weights, such as q8_0 (default: q4_k_m)."
        ),
    ] = None,
    peer: Annotated[bool, options.flag("--peer", help="Measure llama.cpp beside it, with the same file.")] = False,
    as_json: options.Json = False,
) -> None:
    """Measure how fast a model is here, and where the time goes.

    A list of numbers, such as -t 1,2, measures each of them, combined with each of the other lists. A token is about three
    quarters of a word.
    """
    from qcli.bench.cases import combinations, numbers
    from qcli.bench.peer import require_peer
    from qcli.bench.random_weights import find_mix
    from qcli.bench.shapes import find_shape
    from qcli.host.threads import default_threads

    _check(model, shape, layers, quant, peer, ram)
    n_bytes = parse_size(ram) if ram is not None else None
    chosen = (find_shape(shape), find_mix(quant or "q4_k_m")) if shape is not None else None
    cases = combinations(
        numbers("-p", n_prompt, 0),
        numbers("-n", n_gen, 0),
        numbers("-d", n_depth, 0),
        [default_threads()] if threads is None else numbers("-t", threads, 1, 1024),
        [0] if batch_size is None else numbers("-b", batch_size, 1),
    )
    if peer:
        require_peer()
    report = _measured(model, chosen, layers, cases, kv_type or "f16", n_bytes, repetitions, peer)
    if as_json:
        console.json(report.as_json())
    else:
        console.table(report.drawn())


def _check(
    model: str | None, shape: str | None, layers: int | None, quant: str | None, peer: bool, ram: str | None
) -> None:
    if shape is None and (layers is not None or quant is not None):
        raise UsageError("--layers and --quant go with --shape", "add --shape qwen3-next-80b-a3b")
    if shape is not None and model is not None:
        raise UsageError("--shape takes no model, and one is given", "leave out -m or --shape")
    if shape is not None and peer:
        raise UsageError("--peer needs a file, and --shape has none", "give -m MODEL instead of --shape")
    if shape is not None and ram is not None:
        hint = "give -m MODEL instead of --shape, or ask `qcli plan` about a model that is not here"
        raise UsageError("--ram needs a file to read experts from, and --shape has none", hint)
    if peer and ram is not None:
        message = "--peer cannot be held to --ram: llama.cpp maps the file into as much memory as is free"
        raise UsageError(message, "leave out --peer; `llama-bench` measures it alone")


def _measured(
    model: str | None,
    chosen: tuple[ModelShape, Mix] | None,
    layers: int | None,
    cases: list[Case],
    kv_type: str,
    ram: int | None,
    repetitions: int,
    peer: bool,
) -> Report:
    """Load the model into an engine for each number of threads and batch size, and run all cases."""
    bar = console.status("loading", still=True)
    with bar, interrupt.ends_all(bar):
        from qcli.bench.bandwidth import Bandwidth
        from qcli.bench.cases import context_of
        from qcli.bench.measure import load_rigs, measure
        from qcli.bench.peer import Peer
        from qcli.bench.subject import of_file, of_shape
        from qcli.streaming.budget import limit

        subject = of_shape(*chosen, layers, bar.update) if chosen else of_file(model)
        subject.check_context(cases)
        ram = sys.maxsize if chosen else limit(ram)  # random weights are in memory already
        rigs = load_rigs(subject.file, cases, kv_type, ram, peer, bar.update)
        first = next(iter(rigs.values()))
        bandwidth = Bandwidth({case.threads for case in cases}, first.dense)
    with bar, ExitStack() as stack:
        for close in (subject.file.close, bandwidth.close, *(rig.close for rig in rigs.values())):
            stack.callback(close)
        peer_process = stack.enter_context(Peer(subject.file.path, context_of(cases), kv_type)) if peer else None
        results = measure(rigs, bandwidth, cases, repetitions, peer_process, bar.update)
        return _report(subject, kv_type, first.cache_size(ram), results, peer_process)


def _report(
    subject: Subject, kv_type: str, cache_size: CacheSize | None, results: list[Result], peer: Peer | None
) -> Report:
    from qcli.bench.estimate import whole_tok_per_s
    from qcli.bench.machine import this_machine
    from qcli.commands.bench_report import Report, WholeModel

    shape, layers = subject.shape, subject.layers
    whole = None
    if shape:
        estimates = [whole_tok_per_s(shape, layers, result) for result in results]
        whole = WholeModel(shape.layers, subject.whole_bytes, estimates)
    return Report(
        model=subject.name,
        architecture=subject.architecture,
        layers=layers,
        size_bytes=subject.size_bytes,
        kv_type=kv_type,
        machine=this_machine(),
        results=results,
        whole=whole,
        cache_size=cache_size,
        peer=peer.about if peer else None,
    )
