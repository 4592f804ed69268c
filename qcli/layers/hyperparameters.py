"""Hyperparameters of a model, from the keys `{architecture}.*` of its file, each checked before anything is built from it.

Properties are named as in Hugging Face's configs.
"""

from __future__ import annotations

from functools import cached_property
from typing import NoReturn

from qcli.errors import ModelFileError, UnsupportedModelError
from qcli.gguf.file import GGUFFile

_DOWNLOAD = "download the model again"
ANOTHER_MODEL = "all files of this model have that in common: take another model"


class Hyperparameters:
    """The hyperparameters of a file: a key that is absent without a default, or whose value cannot be, is a ModelFileError."""

    def __init__(self, file: GGUFFile) -> None:
        self.file = file
        self.arch = file.get_str("general.architecture")

    def size(self, key: str, default: int | None = None) -> int:
        """A whole number above 0."""
        value = self.file.get_int(f"{self.arch}.{key}", *(() if default is None else (default,)))
        return value if 0 < value < 1 << 31 else self.wrong(f'the key "{self.arch}.{key}" is {value}')

    def count(self, key: str, default: int = 0) -> int:
        """A whole number, 0 or above; `default` where the file does not say."""
        value = self.file.get_int(f"{self.arch}.{key}", default)
        return value if 0 <= value < 1 << 31 else self.wrong(f'the key "{self.arch}.{key}" is {value}')

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        """A number from low to high."""
        value = self.file.get_float(f"{self.arch}.{key}", *(() if default is None else (default,)))
        return value if low <= value <= high else self.wrong(f'the key "{self.arch}.{key}" is {value:g}')

    def sizes(self, key: str, default: list[int] | None = None, least: int = 1) -> tuple[int, ...]:
        """A whole number of `least` or more for each layer, from one for all or one for each."""
        values = self.file.get_ints(f"{self.arch}.{key}", *(() if default is None else (default,)))
        values = values * self.num_hidden_layers if len(values) == 1 else values
        if len(values) < self.num_hidden_layers or min(values) < least or max(values) >= 1 << 31:
            self.wrong(f'"{self.arch}.{key}" does not give a number for {self.num_hidden_layers} layers')
        return tuple(values[: self.num_hidden_layers])

    def flag(self, key: str, default: bool) -> bool:
        """Yes or no; `default` where the file does not say."""
        return self.file.get_bool(f"{self.arch}.{key}", default)

    def has(self, key: str) -> bool:
        """Whether the file has this key."""
        return f"{self.arch}.{key}" in self.file.metadata

    def text(self, key: str, default: str) -> str:
        """A text; `default` where the file does not say."""
        return self.file.get_str(f"{self.arch}.{key}", default)

    @cached_property
    def num_hidden_layers(self) -> int:
        """Layers before the head; those for multi-token prediction, which come after them in a file, are not counted."""
        layers = self.size("block_count") - self.count("nextn_predict_layers")
        return layers if 0 < layers <= 1024 else self.wrong(f"{layers} layers")

    @cached_property
    def hidden_size(self) -> int:
        """Columns of the residual stream."""
        return self.size("embedding_length")

    @cached_property
    def rms_norm_eps(self) -> float:
        """Added to the mean square in every root-mean-square norm; some files give it the name of other norms' epsilon."""
        known = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"
        return self.number(next((key for key in known if self.has(key)), known[0]), 0, 1)

    @cached_property
    def num_attention_heads(self) -> tuple[int, ...]:
        """Query heads of each layer."""
        return self.sizes("attention.head_count", least=0)

    @cached_property
    def num_key_value_heads(self) -> tuple[int, ...]:
        """Key-value heads of each layer; each is shared by equally many query heads."""
        heads = self.sizes("attention.head_count_kv", list(self.num_attention_heads), least=0)
        if any(k and q % k for q, k in zip(self.num_attention_heads, heads, strict=True)):
            self.wrong("heads do not divide into groups")
        return heads

    @cached_property
    def head_dim(self) -> int:
        """The width of a query and of a key."""
        return self.size("attention.key_length", self.hidden_size // max(1, *self.num_attention_heads))

    @cached_property
    def v_head_dim(self) -> int:
        """The width of a value."""
        return self.size("attention.value_length", self.hidden_size // max(1, *self.num_attention_heads))

    @cached_property
    def num_experts(self) -> int:
        """Routed experts of a layer."""
        return self.size("expert_count")

    @cached_property
    def num_experts_per_tok(self) -> int:
        """Experts that a token is routed to in a layer."""
        return self.size("expert_used_count")

    @cached_property
    def routed_scaling_factor(self) -> float:
        """What the weights of a token's experts are multiplied by; 0 in a file means that they are not."""
        return self.number("expert_weights_scale", -1e6, 1e6, 0.0) or 1.0

    def wrong(self, message: str) -> NoReturn:
        """The file contradicts itself."""
        raise ModelFileError(f"{self.file.path}: {message}", _DOWNLOAD)

    def unsupported(self, message: str, hint: str = ANOTHER_MODEL) -> NoReturn:
        """The file is sound, but qcli cannot run it."""
        raise UnsupportedModelError(f"{self.file.path}: {message}", hint)
