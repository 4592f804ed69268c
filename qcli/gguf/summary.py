"""What is in a model file, by its tensors and keys, whatever the architecture."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from qcli.gguf.file import GGUFFile, Tensor
from qcli.gguf.header import Value
from qcli.gguf.names import split_layer
from qcli.gguf.strings import StringArray

Plain = int | float | bool | str | list["Plain"] | dict[str, int]

_RECURRENT = re.compile(r"ssm_|shortconv\.|time_mix_")
_ATTENTION = re.compile(r"attn_(q|k|v|qkv|kv|output)\w*\.")
_DENSE = re.compile(r"ffn_(gate|up|down)\.|channel_mix_")
_MTP = re.compile(r"nextn\.")
_EXPERTS = "routed experts"
_LISTED = 1024  # elements; of a longer array, only the length is told
# What a tensor is for, in the order in which a token passes through: the first pattern that its name begins with.
_GROUPS = {
    "embedding": re.compile(r"(per_layer_)?token_embd\.|token_types\.|position_embd\."),
    "norms": re.compile(r"\w*norm\w*\."),
    "mixers": re.compile(r"attn_|ssm_|shortconv\.|time_mix_"),
    "routers": re.compile(r"ffn_gate_inp\.|exp_probs_b"),
    _EXPERTS: re.compile(r"ffn_\w+_(ch)?exps\."),
    "shared experts": re.compile(r"ffn_\w+_shexp\."),
    "dense FFN": re.compile(r"ffn_|channel_mix_"),
    "head": re.compile(r"output\."),
    "MTP": _MTP,
    "other": re.compile(r""),
}


@dataclass
class Total:
    """The sum over some tensors."""

    tensors: int = 0
    parameters: int = 0
    bytes: int = 0

    def add(self, tensor: Tensor, share: float = 1.0) -> None:
        """Add a tensor, or a share of its parameters and bytes."""
        self.tensors += 1
        self.parameters += 0 if tensor.odd else round(share * math.prod(tensor.shape))
        self.bytes += round(share * tensor.n_bytes)

    @property
    def bits_per_weight(self) -> float:
        """0 without tensors."""
        return 8 * self.bytes / self.parameters if self.parameters else 0.0


@dataclass
class Layers:
    """How many layers are of each kind; those for multi-token prediction (`mtp`) are not in the total."""

    total: int = 0
    recurrent: int = 0
    attention: int = 0
    with_experts: int = 0
    dense: int = 0
    mtp: int = 0


@dataclass
class Experts:
    """Of each layer that has any; named as the keys expert_count, expert_used_count and expert_shared_count of GGUF."""

    count: int  # routed ones
    used: int  # of these, by each token
    shared: int


@dataclass
class Summary:
    """All that `qcli show` prints; its JSON has these names."""

    path: Path
    files: int
    gguf_version: int
    name: str
    general_name: str  # the key general.name; empty if models.toml names the model
    architecture: str
    supported: bool
    size_bytes: int
    context_length: int
    layers: Layers
    experts: Experts | None
    vocab_size: int
    chat_template: bool
    scaled: int = 0  # tensors of weights with a scale beside them, of the whole tensor or of each expert
    total: Total = field(default_factory=Total)  # of all tensors
    per_token: Total = field(default_factory=Total)  # read to decode a token: only the experts used, no MTP
    groups: dict[str, Total] = field(default_factory=dict)
    types: dict[str, Total] = field(default_factory=dict)
    metadata: dict[str, Plain] = field(default_factory=dict)  # every key; a long array by its length


def summarize(file: GGUFFile, name: str) -> Summary:
    """The summary of a file; name: what the user calls it. A key that is absent or of an unexpected type counts as empty."""
    architecture = _text(file, "general.architecture")
    by_layer = _names_by_layer(file)
    mtp_layers = {number for number, names in by_layer.items() if _any(_MTP, names)}
    paths = {tensor.path for tensor in file.tensors.values()} | {file.path}
    summary = Summary(
        path=file.path,
        files=len(paths),
        gguf_version=file.version,
        name=name,
        general_name=_text(file, "general.name"),
        architecture=architecture,
        supported=is_supported(architecture),
        size_bytes=sum(path.stat().st_size for path in paths),
        context_length=_whole_number(file, f"{architecture}.context_length"),
        layers=_layers([names for number, names in by_layer.items() if number not in mtp_layers], len(mtp_layers)),
        experts=_experts(file, architecture),
        vocab_size=_vocab_size(file),
        chat_template="tokenizer.chat_template" in file.metadata,
        scaled=sum(_has_scale(file, tensor) for tensor in file.tensors.values()),
        metadata={key: _plain(value) for key, value in file.metadata.items()},
    )
    _add_up(summary, file, mtp_layers)
    return summary


def is_supported(architecture: str) -> bool:
    """Whether qcli has a file for this architecture, found by its name alone."""
    module = architecture.replace("-", "_")
    named = module.isidentifier() and not module.startswith("_")
    return named and find_spec(f"qcli.models.{module}") is not None


def _add_up(summary: Summary, file: GGUFFile, mtp_layers: set[int]) -> None:
    experts = summary.experts
    share = experts.used / experts.count if experts else 1.0
    tied = "output.weight" not in file.tensors
    groups = {group: Total() for group in _GROUPS}
    for tensor in file.tensors.values():
        group = _group(tensor.name, mtp_layers)
        groups[group].add(tensor)
        summary.total.add(tensor)
        summary.types.setdefault(tensor.type, Total()).add(tensor)
        is_head = tied and tensor.name == "token_embd.weight"
        if group != "MTP" and (group != "embedding" or is_head):
            summary.per_token.add(tensor, share if group == _EXPERTS else 1.0)
    summary.groups = {group: total for group, total in groups.items() if total.tensors}
    summary.types = dict(sorted(summary.types.items(), key=lambda item: -item[1].bytes))


def _group(name: str, mtp_layers: set[int]) -> str:
    layer, own = split_layer(name)
    if layer in mtp_layers:
        return "MTP"
    return next(group for group, pattern in _GROUPS.items() if pattern.match(own))


def _names_by_layer(file: GGUFFile) -> dict[int, list[str]]:
    """The names of each layer's tensors, without their blk.N. in front."""
    layers: dict[int, list[str]] = {}
    for name in file.tensors:
        layer, own = split_layer(name)
        if layer >= 0:
            layers.setdefault(layer, []).append(own)
    return layers


def _layers(layers: list[list[str]], mtp: int) -> Layers:
    recurrent = sum(_any(_RECURRENT, names) for names in layers)
    attention = sum(_any(_ATTENTION, names) and not _any(_RECURRENT, names) for names in layers)
    routed = sum(_any(_GROUPS[_EXPERTS], names) for names in layers)
    dense = sum(_any(_DENSE, names) and not _any(_GROUPS[_EXPERTS], names) for names in layers)
    return Layers(len(layers), recurrent, attention, routed, dense, mtp)


def _experts(file: GGUFFile, architecture: str) -> Experts | None:
    """Those of the layer with most; None for a model without routed experts."""
    stacks = [t.shape[0] for t in file.tensors.values() if "_exps." in t.name and len(t.shape) == 3 and t.shape[0]]
    if not stacks:
        return None
    count = max(stacks)
    used = min(max(_whole_number(file, f"{architecture}.expert_used_count"), 1), count)
    shared = any("_shexp." in name for name in file.tensors)
    return Experts(count, used, max(_whole_number(file, f"{architecture}.expert_shared_count"), 1) if shared else 0)


def _vocab_size(file: GGUFFile) -> int:
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    return len(tokens) if isinstance(tokens, StringArray) else 0


def _plain(value: Value) -> Plain:
    """A value for JSON, which has no NaN and no infinity."""
    if isinstance(value, np.ndarray | StringArray):
        return [_plain(v) for v in value.tolist()] if len(value) <= _LISTED else {"length": len(value)}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _has_scale(file: GGUFFile, weights: Tensor) -> bool:
    """Whether products of a tensor are multiplied by another, as files of NVFP4 have it."""
    scale = file.tensors.get(weights.name.removesuffix(".weight") + ".scale")
    count = weights.shape[0] if len(weights.shape) == 3 else 1
    return scale is not None and weights.name.endswith(".weight") and scale.shape == (count,)


def _any(pattern: re.Pattern[str], names: Iterable[str]) -> bool:
    return any(pattern.match(name) for name in names)


def _text(file: GGUFFile, key: str) -> str:
    value = file.metadata.get(key)
    return value if isinstance(value, str) else ""


def _whole_number(file: GGUFFile, key: str) -> int:
    value = file.metadata.get(key)
    return value if type(value) is int else 0
