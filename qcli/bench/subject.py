"""The model that is measured: from a file, or of a known shape with random weights."""

from __future__ import annotations

from dataclasses import dataclass

from qcli import models
from qcli.bench.cases import Case, context_of
from qcli.bench.model_shape import ModelShape
from qcli.bench.random_weights import Mix, layers_that_fit, random_file, size_of
from qcli.catalog.resolve import name_of, resolve
from qcli.errors import UsageError
from qcli.gguf.file import GGUFFile
from qcli.progress import Progress


@dataclass(frozen=True)
class Subject:
    """A model to measure."""

    name: str
    file: GGUFFile
    shape: ModelShape | None = None  # if the weights are random
    whole_bytes: int = 0  # of that shape with all its layers

    @property
    def architecture(self) -> str:
        """As GGUF names it."""
        return self.file.get_str("general.architecture")

    @property
    def layers(self) -> int:
        """Without those of multi-token prediction (MTP), which no token passes."""
        mtp = self.file.get_int(f"{self.architecture}.nextn_predict_layers", 0)
        return self.file.get_int(f"{self.architecture}.block_count") - mtp

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.n_bytes for tensor in self.file.tensors.values())

    def check_context(self, cases: list[Case]) -> None:
        """Raises UsageError if a case needs more context than the model was made for."""
        longest, needed = models.context_length(self.file), context_of(cases)
        if needed > longest:
            raise UsageError(
                f"{self.name} was made for {longest:,} tokens of context, not {needed:,}", "give smaller -p, -n or -d"
            )


def of_file(model: str | None) -> Subject:
    """The file of a path or a name; without either, of the embedded model."""
    path, entry = resolve(model)
    file = GGUFFile.open(path)
    return Subject(name_of(path, entry), file)


def of_shape(shape: ModelShape, mix: Mix, layers: int | None, progress: Progress | None = None) -> Subject:
    """A model with random weights, cut to its first layers: as many as fit into memory, if no number is given.

    Raises UsageError, or QcliError if they do not fit.
    """
    if layers is not None and layers > shape.layers:
        raise UsageError(
            f"{shape.name} has {shape.layers} layers, not {layers}", f"give --layers {shape.layers} or less"
        )
    count = layers_that_fit(shape, mix, layers)
    file = random_file(shape, mix, count, progress)
    return Subject(shape.name, file, shape, size_of(shape, mix, shape.layers))
