"""qcli perplexity: how well a model predicts a text, and how far its predictions are from another model's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcli import console, interrupt
from qcli.commands import options
from qcli.commands.examples import examples
from qcli.commands.tables import facts
from qcli.errors import UsageError
from qcli.host.folders import expanded
from qcli.wording import counted

if TYPE_CHECKING:
    from rich.console import RenderableType

    from qcli.evaluate.log_probs_file import LogProbs
    from qcli.evaluate.perplexity import Estimate, Scores
    from qcli.runtime.engine import Engine


@examples(
    (
        "qcli perplexity model-BF16.gguf notes.txt --save-logits notes.logits",
        "Measures how well the model predicts notes.txt.",
    ),
    ("qcli perplexity model-Q4_K_M.gguf --against notes.logits", "Measures how much a smaller copy of it differs."),
)
def perplexity(
    model: options.NeededModel = None,
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="A text file; not needed with --against.")] = None,
    ctx: Annotated[
        int | None,
        typer.Option("--ctx", metavar="N", min=4, help="Cut the text into pieces of N tokens (default: 512)."),
    ] = None,
    most: Annotated[
        int | None, typer.Option("--chunks", metavar="N", min=1, help="Use only the first N pieces (default: all).")
    ] = None,
    save: Annotated[
        str | None, typer.Option("--save-logits", metavar="FILE", help="Save the predictions, for --against.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="FILE", help="Compare with predictions that were saved.")
    ] = None,
    threads: options.Threads = None,
    kv_type: options.KvType = None,
    force: Annotated[bool, options.flag("--force", "-f", help="Replace FILE if it exists.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Measure how well a model predicts a text.

    Perplexity: the lower, the better. With --against: how far its predictions are from those of another model.
    """
    if model is None or (text is None and against is None):
        raise UsageError("MODEL and TEXT are needed", "type, for example, qcli perplexity MODEL wiki.test.raw")
    with ExitStack() as stack:
        bar = stack.enter_context(console.status("loading", quiet))
        stack.enter_context(interrupt.cleans_up())
        with interrupt.ends_all(bar):
            from qcli.catalog.resolve import resolve
            from qcli.evaluate.log_probs_file import LogProbs
            from qcli.gguf.file import GGUFFile
            from qcli.gguf.kinds import require_model
            from qcli.host.atomic_files import AtomicFiles
            from qcli.runtime.engine import Engine

            reference = stack.enter_context(LogProbs(expanded(against))) if against is not None else None
            file = stack.enter_context(GGUFFile.open(resolve(model)[0]))
            require_model(file)
            reads = [*file.paths, *(expanded(given) for given in (text, against) if given is not None)]
            output = AtomicFiles([expanded(save)], force, reads=reads) if save is not None else None
            chunks = _chunks(file, text, ctx, most, reference)
            size = len(chunks[0])
            engine = Engine.load(file, threads=threads, ctx=size, chunk=size, kv_type=kv_type, progress=bar.update)
            stack.callback(engine.close)
            if reference:
                reference.check(chunks, engine.vocab_size)
        scores, interrupted = _scored(engine, chunks, reference, output, str(file.path.name), bar)
        bar.close()
        if scores is None or (interrupted and (as_json or quiet)):
            return interrupt.EXIT_CODE
        if interrupted:
            console.info(f"after {scores.chunks} of {counted(len(chunks), 'chunk')}: perplexity {scores.perplexity}")
            return interrupt.EXIT_CODE
        if as_json:
            console.json(_as_json(scores, size, reference))
        else:
            console.table(_drawn(scores, size, reference))
    return 0


def _chunks(
    file: Any, text: str | None, ctx: int | None, most: int | None, reference: LogProbs | None
) -> list[list[int]]:
    from qcli.evaluate.scored_text import CTX, chunks
    from qcli.terminal.text_input import read_file
    from qcli.text.tokenizer import Tokenizer

    if text is None:
        assert reference
        if ctx not in (None, len(reference.chunks[0])):
            message = f"{reference.path}: was made with --ctx {len(reference.chunks[0])}, not {ctx}"
            raise UsageError(message, "leave out --ctx")
        return reference.chunks[:most]
    size = ctx or (len(reference.chunks[0]) if reference else CTX)
    cut = chunks(Tokenizer.from_gguf(file), read_file(text), size, most)
    return cut[: len(reference.chunks)] if reference else cut


def _scored(
    engine: Engine,
    chunks: Sequence[Sequence[int]],
    reference: LogProbs | None,
    output: Any,
    name: str,
    bar: console.status,
) -> tuple[Scores | None, bool]:
    """The scores of all chunks, or of those before Ctrl-C, and whether it was pressed."""
    from qcli.evaluate.log_probs_file import LogProbsWriter
    from qcli.evaluate.perplexity import score

    scores: Scores | None = None
    try:
        with ExitStack() as stack:
            writer = None
            if output is not None:
                writer = LogProbsWriter(stack.enter_context(output), name, chunks, engine.vocab_size)
            for scores in score(engine, chunks, reference, writer):
                bar.update("scoring", scores.chunks / len(chunks), str(scores.perplexity))
            if writer:
                writer.finish()
    except KeyboardInterrupt:
        return scores, True
    return scores, False


def _rows(scores: Scores, reference: LogProbs | None) -> list[tuple[str, str]]:
    rows = [("perplexity", str(scores.perplexity))]
    if scores.divergence and reference:
        d = scores.divergence
        rows += [
            (f"of {reference.model}", str(d.reference)),
            ("ratio", str(scores.ratio)),
            ("mean KL divergence", f"{d.mean_kl.value:.5f} ± {d.mean_kl.error:.5f}"),
            ("99 % are below", f"{d.kl_99:.5f}"),
            ("largest", f"{d.max_kl:.5f}"),
            ("same top token", f"{d.same_top_share.value:.2%} ± {d.same_top_share.error:.2%}"),
        ]
    return rows


def _drawn(scores: Scores, ctx: int, reference: LogProbs | None) -> RenderableType:
    tokens, of_text = counted(len(scores.losses), "token"), counted(scores.chunks, "chunk")
    return facts([*_rows(scores, reference), ("scored", f"{tokens} of {of_text} of {ctx}")])


def _as_json(scores: Scores, ctx: int, reference: LogProbs | None) -> dict[str, Any]:
    def both(name: str, estimate: Estimate) -> dict[str, float]:
        return {name: estimate.value, f"{name}_error": estimate.error}

    value = {"chunks": scores.chunks, "ctx": ctx, "scored_tokens": len(scores.losses)}
    found: dict[str, Any] = value | both("perplexity", scores.perplexity)
    if scores.divergence and reference:
        d = scores.divergence
        found |= (
            {"reference": reference.model} | both("reference_perplexity", d.reference) | both("ratio", scores.ratio)
        )
        found |= (
            both("mean_kl", d.mean_kl) | {"kl_99": d.kl_99, "max_kl": d.max_kl} | both("same_top", d.same_top_share)
        )
    return found
