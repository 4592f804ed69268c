"""qcli show: what is in a model file, whatever its architecture; with --supported, what qcli runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from qcli import console
from qcli.commands import options
from qcli.commands.examples import examples
from qcli.commands.tables import facts, new_table
from qcli.errors import UsageError
from qcli.wording import counted, quantity

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from qcli.gguf.file import Tensor
    from qcli.gguf.summary import Plain, Summary, Total

# Keys of an architecture that are shown, by the word before the value.
_ATTENTION = {
    "heads": "attention.head_count",
    "kv": "attention.head_count_kv",
    "head": "attention.key_length",
    "rotated": "rope.dimension_count",
    "base": "rope.freq_base",
    "window": "attention.sliding_window",
}
_RECURRENCE = {
    "heads": "ssm.time_step_rank",
    "groups": "ssm.group_count",
    "state": "ssm.state_size",
    "inner": "ssm.inner_size",
    "convolution": "ssm.conv_kernel",
}


@examples(
    ("qcli show model.gguf", "Shows its size, its precision and what the model was made for."),
    ("qcli show --supported", "Lists the kinds of models that qcli can run."),
)
def show(
    model: options.GivenModel = None,
    as_json: options.Json = False,
    tensors: Annotated[bool, options.flag("--tensors", help="List everything that is in the file, too.")] = False,
    architectures: Annotated[
        bool, options.flag("--supported", help="Instead, list the kinds of models that qcli can run.")
    ] = False,
) -> None:
    """Show what is in a model file, or which kinds of models run."""
    if architectures:
        from qcli.commands.supported import supported

        if model or tensors:
            raise UsageError("--supported is about no file", "leave out the model and --tensors")
        supported(as_json)
    else:
        _show_file(model, as_json, tensors)


def _show_file(model: str | None, as_json: bool, tensors: bool) -> None:
    """Print a model file's summary; `tensors` adds every key and every tensor."""
    from qcli.catalog.resolve import name_of, resolve
    from qcli.gguf.file import GGUFFile
    from qcli.gguf.summary import summarize

    path, entry = resolve(model)
    with GGUFFile.open(path) as file:
        summary = summarize(file, name_of(path, entry))
        if entry:
            summary.general_name = ""
        listed = list(file.tensors.values()) if tensors else []
        if as_json:
            console.json(_as_json(summary, listed if tensors else None))
        else:
            console.table(_drawn(summary, listed))


def _as_json(summary: Summary, tensors: list[Tensor] | None) -> dict[str, Any]:
    value = asdict(summary) | {"path": str(summary.path)}
    for kind, total in summary.types.items():
        value["types"][kind]["bits_per_weight"] = total.bits_per_weight
    if tensors is not None:
        value["tensors"] = [
            {"name": t.name, "type": t.type, "shape": list(t.shape), "offset": t.offset, "bytes": t.n_bytes}
            for t in tensors
        ]
    return value


def _drawn(summary: Summary, tensors: list[Tensor]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    title = Text(console.clean(summary.name), style="bold")
    parts: list[RenderableType] = [title, "", facts(_facts(summary))]
    if summary.groups:
        parts += ["", _totals("weights", summary.groups), "", _totals("type", summary.types, bits=True)]
    if tensors:
        parts += ["", _keys(summary), "", _tensors(tensors)]
    return Group(*parts)


def _facts(summary: Summary) -> Iterable[tuple[str, str]]:
    known = "" if summary.supported else " (qcli cannot run it)"
    parts = f", {summary.files} parts" if summary.files > 1 else ""
    yield "file", str(summary.path)
    yield "general.name", summary.general_name
    yield "size", f"{quantity(summary.size_bytes, 'B')}{parts}, GGUF {summary.gguf_version}"
    yield "architecture", summary.architecture + known
    if summary.total.tensors:
        bits = f"{summary.total.bits_per_weight:.2f} bits each"
        yield "parameters", f"{quantity(summary.total.parameters)}, {bits}"
        read = f"{quantity(summary.per_token.parameters)} parameters, {quantity(summary.per_token.bytes, 'B')}"
        yield "a token reads", read
        if summary.scaled:
            yield "scales", f"beside {counted(summary.scaled, 'tensor')} of weights: of the tensor, or of each expert"
        yield "layers", _layers(summary)
    yield "experts", _experts(summary)
    yield "widths", _widths(summary)
    yield "attention", _sentence(summary, _ATTENTION)
    yield "recurrence", _sentence(summary, _RECURRENCE)
    yield "context", counted(summary.context_length, "token") if summary.context_length else ""
    yield "tokenizer", _tokenizer(summary)
    yield "chat template", "yes" if summary.chat_template else "none: that of its special tokens, or ChatML"


def _layers(summary: Summary) -> str:
    layers = summary.layers
    kinds = [f"{layers.recurrent} recurrent", f"{layers.attention} attention"] if layers.recurrent else []
    if layers.with_experts and layers.dense:
        kinds += [f"{layers.with_experts} with experts", f"{layers.dense} dense"]
    drafts = f"; {layers.mtp} MTP" if layers.mtp else ""
    return f"{layers.total}" + (f": {', '.join(kinds)}" if kinds else "") + drafts


def _experts(summary: Summary) -> str:
    experts = summary.experts
    if experts is None:
        return "none: every token uses all weights" if summary.total.tensors else ""
    shared = f" and {experts.shared} shared" if experts.shared else ""
    return f"{experts.count} in a layer; a token uses {experts.used}{shared}"


def _widths(summary: Summary) -> str:
    layers = summary.layers
    keys = {"hidden": "embedding_length"}
    if layers.dense or f"{summary.architecture}.expert_feed_forward_length" not in summary.metadata:
        keys["feed-forward"] = "feed_forward_length"
    if layers.with_experts:
        keys |= {"expert": "expert_feed_forward_length", "shared": "expert_shared_feed_forward_length"}
    return _sentence(summary, keys)


def _sentence(summary: Summary, keys: dict[str, str]) -> str:
    """The values of these keys of the architecture, each after its word; absent ones are left out."""
    found = {word: summary.metadata.get(f"{summary.architecture}.{key}") for word, key in keys.items()}
    return ", ".join(f"{word} {_short(value)}" for word, value in found.items() if value is not None)


def _tokenizer(summary: Summary) -> str:
    model, split = (summary.metadata.get(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    rule = f" ({_short(split)})" if split else ""
    return f"{_short(model)}{rule}, {counted(summary.vocab_size, 'token')}" if model else ""


def _totals(heading: str, totals: dict[str, Total], bits: bool = False) -> Table:
    whole = sum(total.bytes for total in totals.values())
    headings = ["tensors", "parameters", "size", "share", *(["bits"] if bits else [])]
    table = _table([heading], headings)
    for name, total in totals.items():
        cells = [str(total.tensors), quantity(total.parameters), quantity(total.bytes, "B")]
        cells.append(f"{total.bytes / whole:.1%}")
        table.add_row(name, *cells, *([f"{total.bits_per_weight:.2f}"] if bits else []))
    return table


def _keys(summary: Summary) -> Table:
    table = _table(["key", "value"], [])
    for key, value in summary.metadata.items():
        table.add_row(*_cells(key, _short(value)))
    return table


def _tensors(tensors: list[Tensor]) -> Table:
    table = _table(["tensor", "type"], ["shape", "size"])
    for tensor in tensors:
        shape = " × ".join(f"{n}" for n in tensor.shape)
        table.add_row(*_cells(tensor.name, tensor.type, shape, quantity(tensor.n_bytes, "B")))
    return table


def _table(left: list[str], right: list[str]) -> Table:
    table = new_table()
    for heading in left:
        table.add_column(heading, min_width=13, overflow="fold")
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _cells(*texts: str) -> list[RenderableType]:
    """Cells of text from the file: markup stays text, control codes are made visible."""
    from rich.text import Text

    return [Text(console.clean(text)) for text in texts]


def _short(value: Plain | None) -> str:
    """A value in a few words, in one line."""
    if isinstance(value, dict):
        return f"array of {value['length']:,}"
    if isinstance(value, list):
        same = value.count(value[0]) == len(value) if value else False
        return _short(value[0]) if same else " ".join(_short(v) for v in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{int(value):,}" if value == int(value) and abs(value) < 1e15 else f"{value:.6g}"
    text = str(value)
    return text if len(text) <= 160 else text[:159] + "…"
