"""The mixes: which type a tensor gets under a name such as Q4_K_M, the same as llama.cpp's llama-quantize gives it.

A mix has a default type and, for tensors of some roles, a Choice: the type of the first condition that holds for the tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Place:
    """What a condition knows of a tensor: it is number `index` of `count` of its role, in a model with so many experts."""

    index: int
    count: int
    experts: int  # of a layer; 1 in a dense model
    queries_per_key: int  # query heads for each key-value head; 0 where a layer has none
    importance: bool  # whether there is an importance matrix
    llama_70b: bool = False  # Llama of 70B, for whose values llama.cpp has a rule of its own

    @property
    def eighths(self) -> int:
        return self.count // 8


Condition = Callable[[Place], bool]
Choice = Mapping[Condition, str]


def always(_: Place) -> bool:
    return True


def more_bits(p: Place) -> bool:
    """The first and the last eighth, and every third in between."""
    return p.index < p.eighths or p.index >= 7 * p.count // 8 or (p.index - p.eighths) % 3 == 2


def first_eighth(p: Place) -> bool:
    return p.index < p.eighths


def first_sixteenth(p: Place) -> bool:
    return p.index < p.count // 16


def middle(p: Place) -> bool:
    return p.eighths <= p.index < 7 * p.count // 8


def first(n: int) -> Condition:
    return lambda p: p.index < n


def shared_keys(p: Place) -> bool:
    """Four or more query heads share a key: its matrices are small, and good ones cost little."""
    return p.queries_per_key >= 4


def small_values(p: Place) -> bool:
    return p.queries_per_key >= 4 or p.experts >= 4


def eight(p: Place) -> bool:
    """Eight experts, as in Mixtral: attention is a small part of the whole."""
    return p.experts == 8


def unguided(p: Place) -> bool:
    return not p.importance


def both(one: Condition, two: Condition) -> Condition:
    return lambda p: one(p) and two(p)


def either(one: Condition, two: Condition) -> Condition:
    return lambda p: one(p) or two(p)


LOW = frozenset("IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS".split())


@dataclass(frozen=True)
class Mix:
    """The types of one name, such as Q4_K_M; `file_type` is the number that files carry as general.file_type."""

    file_type: int
    default: str  # of all tensors for which no other field has a type
    head: str = "Q6_K"  # the output, and embeddings that serve as such
    embedding: str = ""
    value: Choice = field(default_factory=dict)  # attn_v, attn_qkv, attn_kv_b
    key: Choice = field(default_factory=dict)
    query: Choice = field(default_factory=dict)
    attention_output: Choice = field(default_factory=dict)
    down: Choice = field(default_factory=dict)
    gate: Choice = field(default_factory=dict)
    up: Choice = field(default_factory=dict)
    below_3_bits: bool = False  # then down matrices are numbered one by one, not by layer
    expert: str = ""  # of matrices that there are one of for each expert, whatever their role
    needs_importance: frozenset[str] = LOW  # types that are useless without


_EIGHT_VALUE: Choice = {eight: "Q8_0"}  # 128 MB in Mixtral
_EIGHT_OUT: Choice = {eight: "Q5_K"}
_GUARDED = both(first_eighth, unguided)


def _plain(file_type: int, name: str) -> Mix:
    """Floats: one type for all matrices."""
    return Mix(file_type, name, head=name)


def _legacy(file_type: int, name: str, down: Choice | None = None) -> Mix:
    return Mix(file_type, name, value=_EIGHT_VALUE, key=_EIGHT_VALUE, down=down or {})


def _k(
    file_type: int, name: str, value: Choice | None = None, out: Choice | None = None, down: Choice | None = None
) -> Mix:
    return Mix(
        file_type,
        name,
        value={**_EIGHT_VALUE, **(value or {})},
        key=_EIGHT_VALUE,
        attention_output=out or {},
        down=down or {},
    )


def _below_3_bits(file_type: int, name: str, embedding: str, small: str, out: str) -> Mix:
    """small: the type of values and of the first down matrices."""
    return Mix(
        file_type,
        name,
        head="Q5_K",
        embedding=embedding,
        value={small_values: "Q4_K", always: small},
        key={eight: "Q4_K"},
        attention_output={eight: "Q5_K"} | ({always: out} if out else {}),
        down={first_eighth: small},
        below_3_bits=True,
    )


MIXES: dict[str, Mix] = {
    "F32": _plain(0, "F32"),
    "F16": _plain(1, "F16"),
    "BF16": _plain(32, "BF16"),
    "Q8_0": Mix(7, "Q8_0", head="Q8_0", value=_EIGHT_VALUE, key=_EIGHT_VALUE),
    "Q6_K": _k(18, "Q6_K"),
    "Q5_K_M": _k(17, "Q5_K", {more_bits: "Q6_K"}, down={more_bits: "Q6_K"}),
    "Q5_K_S": _k(16, "Q5_K"),
    "Q5_1": _legacy(9, "Q5_1"),
    "Q5_0": _legacy(8, "Q5_0", {both(first_eighth, lambda p: p.importance): "Q5_1"}),
    "Q4_K_M": _k(15, "Q4_K", {more_bits: "Q6_K"}, _EIGHT_OUT, {more_bits: "Q6_K"}),
    "Q4_K_S": _k(14, "Q4_K", {first(4): "Q5_K"}, _EIGHT_OUT, {first_eighth: "Q5_K"}),
    "Q4_1": _legacy(3, "Q4_1"),
    "Q4_0": _legacy(2, "Q4_0", {both(first_eighth, lambda p: p.importance): "Q4_1"}),
    "IQ4_NL": _k(25, "IQ4_NL", {shared_keys: "Q5_K"}, _EIGHT_OUT, {_GUARDED: "Q5_K"}),
    "IQ4_XS": _k(30, "IQ4_XS", {shared_keys: "Q5_K"}, _EIGHT_OUT, {_GUARDED: "Q5_K"}),
    "MXFP4_MOE": Mix(38, "Q8_0", head="Q8_0", expert="MXFP4"),
    "Q3_K_L": _k(13, "Q3_K", {always: "Q5_K"}, {eight: "Q3_K", always: "Q5_K"}, {always: "Q5_K"}),
    "Q3_K_M": _k(12, "Q3_K", {first(2): "Q5_K", always: "Q4_K"}, {**_EIGHT_OUT, always: "Q4_K"},
                 {first_sixteenth: "Q5_K", always: "Q4_K"}),
    "Q3_K_S": _k(11, "Q3_K", out=_EIGHT_OUT),
    "IQ3_M": _k(27, "IQ3_S", {always: "Q4_K"}, {**_EIGHT_OUT, always: "Q4_K"},
                {either(first_eighth, both(eight, more_bits)): "Q4_K"}),
    "IQ3_S": _k(26, "IQ3_S", {shared_keys: "Q4_K"}, _EIGHT_OUT),
    "IQ3_XS": Mix(22, "IQ3_S", value={**_EIGHT_VALUE, shared_keys: "Q4_K"}, key={**_EIGHT_VALUE, always: "IQ3_XXS"},
                  query={always: "IQ3_XXS"}, attention_output=_EIGHT_OUT, gate={middle: "IQ3_XXS"},
                  up={middle: "IQ3_XXS"}),
    "IQ3_XXS": Mix(23, "IQ3_XXS", head="Q5_K", embedding="IQ3_S",
                   value={**_EIGHT_VALUE, shared_keys: "Q4_K", unguided: "IQ3_S"}, key={**_EIGHT_VALUE, always: "IQ2_S"},
                   query={always: "IQ2_S"}, attention_output={**_EIGHT_OUT, always: "IQ3_S"},
                   down={_GUARDED: "Q4_K", unguided: "Q3_K"}),
    "Q2_K": _k(10, "Q2_K", {shared_keys: "Q4_K", always: "Q3_K"}, {**_EIGHT_OUT, always: "Q3_K"}, {always: "Q3_K"}),
    "Q2_K_S": Mix(21, "Q2_K", value={**_EIGHT_VALUE, shared_keys: "Q4_K"}, key=_EIGHT_VALUE,
                  down={first_eighth: "Q4_K"}, needs_importance=LOW | {"Q2_K"}),
    "IQ2_M": _below_3_bits(29, "IQ2_S", "IQ3_S", "IQ3_S", "IQ3_S"),
    "IQ2_S": _below_3_bits(28, "IQ2_XS", "IQ3_S", "IQ3_S", "IQ3_S"),
    "IQ2_XS": _below_3_bits(20, "IQ2_XS", "Q2_K", "Q2_K", ""),
    "IQ2_XXS": _below_3_bits(19, "IQ2_XXS", "Q2_K", "Q2_K", ""),
    "IQ1_M": _below_3_bits(31, "IQ1_M", "Q2_K", "Q2_K", "IQ2_XXS"),
    "IQ1_S": _below_3_bits(24, "IQ1_S", "Q2_K", "Q2_K", "IQ2_XXS"),
    "TQ2_0": Mix(37, "TQ2_0", embedding="Q4_K", value=_EIGHT_VALUE, key=_EIGHT_VALUE),
    "TQ1_0": Mix(36, "TQ1_0", embedding="Q4_K", value=_EIGHT_VALUE, key=_EIGHT_VALUE),
}  # fmt: skip

ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "MXFP4": "MXFP4_MOE"}
