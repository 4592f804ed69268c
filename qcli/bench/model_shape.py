"""What is known of a model without its weights: its keys, and the tensors that its files have, each with its role."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qcli.gguf.header import Value

Role = Literal["embedding", "head", "mixer", "experts", "down", "router", "vector", "ones", "decay"]
Row = tuple[str, Role, tuple[int, ...]]  # of the table of tensors: name, role, shape in NumPy order
Keys = dict[str, int | float | tuple[int, ...]]  # of a GGUF file, without the architecture in front


@dataclass(frozen=True)
class ModelShape:
    """A model without its weights; `keys` lack the number of layers."""

    name: str
    architecture: str
    layers: int
    vocab_size: int
    keys: Keys
    layer: Callable[[Keys, int], Iterator[Row]]  # the tensors of one layer, named without "blk.N."
    # kinds of the layers, as profiles name them: layer 0 has the first, …, then again the first
    mixers: tuple[str, ...]
    context: int  # tokens
    tied: bool = False  # whether the head is the embedding
    others: tuple[Row, ...] = ()  # tensors that are of no layer
    mtp: Callable[[Keys], Iterator[Row]] | None = None  # those of a block for multi-token prediction, if it is known

    def rows(self, layers: int, mtp: bool = False) -> Iterator[Row]:
        """The tensors of the model cut to its first layers; mtp: and of its block for multi-token prediction."""
        n = whole(self.keys)["embedding_length"]
        yield "token_embd.weight", "head" if self.tied else "embedding", (self.vocab_size, n)
        yield "output_norm.weight", "ones", (n,)
        if not self.tied:
            yield "output.weight", "head", (self.vocab_size, n)
        yield from self.others
        for i in range(layers):
            for name, role, shape in self.layer(self.keys, i):
                yield f"blk.{i}.{name}", role, shape
        for name, role, shape in self.mtp(self.keys) if mtp and self.mtp else ():
            yield f"blk.{layers}.{name}", role, shape

    def metadata(self, layers: int, mtp: bool = False) -> dict[str, Value]:
        """The keys of a file of the model cut to its first layers; mtp: as in `rows`."""
        blocks = int(mtp and self.mtp is not None)
        keys = {**self.keys, "block_count": layers + blocks, "context_length": self.context}
        keys |= {"nextn_predict_layers": blocks} if blocks else {}
        own: dict[str, Value] = {
            f"{self.architecture}.{key}": _by_layer(value[:layers]) if isinstance(value, tuple) else value
            for key, value in keys.items()
        }
        return {"general.architecture": self.architecture, "general.name": self.name} | own

    def count(self, mixer: str, layers: int) -> int:
        """How many of the first layers have this kind of mixer."""
        return sum(self.mixers[i % len(self.mixers)] == mixer for i in range(layers))


def _by_layer(values: tuple[int, ...]) -> NDArray[np.int32] | NDArray[np.bool_]:
    return np.array(values, bool if isinstance(values[0], bool) else np.int32)


def whole(keys: Keys) -> dict[str, int]:
    """The keys that have one number, as whole numbers."""
    return {key: int(value) for key, value in keys.items() if not isinstance(value, tuple)}
