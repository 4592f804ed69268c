"""Which quant type each tensor of a file gets: by the mix, by the user's --tensor, and by the length of its rows.

The rules are those of llama.cpp's llama-quantize (llama_tensor_get_type, tensor_allows_quantization), and give the same types.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from qcli.errors import UsageError
from qcli.gguf.file import GGUFFile, Tensor
from qcli.gguf.header import Value
from qcli.gguf.names import layer_of
from qcli.gguf.types import BLOCKS
from qcli.quantize.mixes import Choice, Mix, Place

Overrides = Sequence[tuple[re.Pattern[str], str]]

FLOATS: Final = frozenset({"F32", "F16", "BF16"})

# Parts of the names of matrices that stay as they are: small, and an error in them is in every token's result.
_KEPT: Final = tuple(
    "_norm.weight ffn_gate_inp.weight ffn_gate_tid2eid.weight altup laurel per_layer_model_proj position_embd token_types "
    "ssm_conv1d shortconv.conv.weight indexer.k_proj.weight indexer.q_proj.weight attn_rel_b.weight time_mix_first.weight "
    "time_mix_w0.weight time_mix_w1.weight time_mix_w2.weight time_mix_v0.weight time_mix_v1.weight time_mix_v2.weight "
    "time_mix_a0.weight time_mix_a1.weight time_mix_a2.weight time_mix_g1.weight time_mix_g2.weight "
    "time_mix_decay_w1.weight time_mix_decay_w2.weight time_mix_lerp_fused.weight sam.pos_embd sam.neck. sam.net_ .rel_pos "
    ".patch_embd .patch_merger a.rvq.codebook mm.a.code_embd".split()
)

# The role of a tensor: that of the first text which is in its name.
_ROLES: Final = {
    "attn_qkv.weight": "value",
    "attn_kv_b.weight": "value",
    "attn_v.weight": "value",
    "attn_k.weight": "key",
    "attn_q.weight": "query",
    "attn_output.weight": "attention_output",
    "ffn_up": "up",
    "ffn_gate": "gate",
    "ffn_down": "down",
}

# Where rows are no multiple of 256: the nearest type of 32.
_SHORT: Final = dict.fromkeys("IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ4_XS".split(), "IQ4_NL") | {
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "TQ1_0": "Q4_0",
    "TQ2_0": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}


def choose_types(file: GGUFFile, mix: Mix, overrides: Overrides = (), importance: bool = False) -> dict[str, str]:
    """The type that every tensor gets, by name: the one of `wanted_types`, or what fits its rows in place of that."""
    wanted = wanted_types(file, mix, overrides, importance)
    return {name: fitting(kind, file.tensors[name]) for name, kind in wanted.items()}


def wanted_types(file: GGUFFile, mix: Mix, overrides: Overrides = (), importance: bool = False) -> dict[str, str]:
    """The type that every tensor should have, by name; importance: whether there is a matrix of it.

    The first override whose pattern is in a tensor's name decides; UsageError for a pattern that is in none.
    """
    chooser = _Chooser(file, mix, importance)
    unused = {pattern.pattern for pattern, _ in overrides}
    chosen: dict[str, str] = {}
    for tensor in sorted(file.tensors.values(), key=_by_layer):
        if not allows_quantization(tensor):
            chosen[tensor.name] = tensor.type
            continue
        hit = next((entry for entry in overrides if entry[0].search(tensor.name)), None)
        if hit:
            unused.discard(hit[0].pattern)
        chosen[tensor.name] = hit[1] if hit else chooser.type_of(tensor)
    if unused:
        message = f"no matrix that may be quantized has a name with {min(unused)!r} in it"
        raise UsageError(message, "`qcli show MODEL --tensors` lists the names")
    return {name: chosen[name] for name in file.tensors}


def allows_quantization(tensor: Tensor) -> bool:
    """Whether a tensor may change its type: a matrix that is no norm, router or the like."""
    rows = [n for n in tensor.shape[:-1] if n > 1]
    return bool(rows) and tensor.name.endswith("weight") and not any(part in tensor.name for part in _KEPT)


class _Chooser:
    """Applies a mix to a file's tensors, which must come in order of layer: it counts those of each role."""

    def __init__(self, file: GGUFFile, mix: Mix, importance: bool) -> None:
        self._mix, self._importance = mix, importance
        arch = str(file.metadata.get("general.architecture", ""))
        self._experts = max(1, _number(file.metadata, f"{arch}.expert_count"))
        self._layers = max(1, _number(file.metadata, f"{arch}.block_count"))
        heads = _number(file.metadata, f"{arch}.attention.head_count")
        keys = _number(file.metadata, f"{arch}.attention.head_count_kv", heads)
        self._queries_per_key = heads // keys if keys else 0
        self._llama_70b = arch == "llama" and self._layers == 80 and heads != keys
        self._tied = "output.weight" not in file.tensors
        self._values = sum(_role(name) == "value" for name in file.tensors)
        self._seen: Counter[str] = Counter()

    def type_of(self, tensor: Tensor) -> str:
        """The type that the mix has for a tensor, whatever the length of its rows."""
        mix, name = self._mix, tensor.name
        embeds = name in ("token_embd.weight", "per_layer_token_embd.weight")
        if name == "output.weight" or (self._tied and embeds):
            fits = tensor.shape[-1] % BLOCKS[mix.default].columns == 0
            return mix.head if fits or _SHORT.get(mix.head) == "Q8_0" else "Q8_0"
        if mix.expert and len(tensor.shape) > 2 and tensor.shape[0] > 1:
            return mix.expert
        if embeds:
            return mix.embedding or mix.default
        role = _role(name)
        if not role:
            return mix.default
        choice: Choice = getattr(mix, role)
        place = self._place(name, role)
        found = next((kind for condition, kind in choice.items() if condition(place)), mix.default)
        poor = role == "value" and found in ("Q3_K", "Q4_K") and not mix.below_3_bits
        return "Q5_K" if poor and place.llama_70b else found

    def _place(self, name: str, role: str) -> Place:
        index, count = self._seen[role], self._values if role == "value" else self._layers
        self._seen[role] += 1
        if self._experts > 1 and role in ("gate", "up", "down") and not (role == "down" and self._mix.below_3_bits):
            index = layer_of(name)
        return Place(index, count, self._experts, self._queries_per_key, self._importance, self._llama_70b)


def _role(name: str) -> str:
    return next((role for part, role in _ROLES.items() if part in name), "")


def _by_layer(tensor: Tensor) -> tuple[int, bytes]:
    return layer_of(tensor.name), tensor.name.encode()


def fitting(kind: str, tensor: Tensor) -> str:
    """The type itself, or what takes its place where a tensor's rows are no multiple of its block."""
    return kind if kind == tensor.type else in_place_of(kind, tensor.shape[-1])


def in_place_of(kind: str, columns: int) -> str:
    """The type that rows of so many columns get where `kind` is wanted."""
    if columns % BLOCKS[kind].columns:
        kind = _SHORT.get(kind, kind)
    return kind if columns % BLOCKS[kind].columns == 0 else "F16"


def _number(metadata: Mapping[str, Value], key: str, default: int = 0) -> int:
    """A whole number; of an array, its first."""
    value = metadata.get(key, default)
    if isinstance(value, np.ndarray) and len(value):
        value = value[0].item()
    return value if isinstance(value, int) else default
