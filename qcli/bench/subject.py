"""What is measured: a file, or a known model's shape with random weights."""

from __future__ import annotations

from dataclasses import dataclass

from qcli import catalog, models
from qcli.bench.cases import Case, context_of
from qcli.bench.random_weights import Mix, layers_that_fit, random_file, size_of
from qcli.bench.shapes import Shape
from qcli.errors import UsageError
from qcli.gguf.file import GGUFFile
from qcli.progress import Progress


@dataclass(frozen=True)
class Subject:
    """A model to measure."""

    name: str
    file: GGUFFile
    shape: Shape | None = None
    whole_bytes: int = 0  # of all layers, of a shape

    @property
    def architecture(self) -> str:
        return self.file.get_str("general.architecture")

    @property
    def layers(self) -> int:
        """Of the trunk."""
        drafts = self.file.get_int(f"{self.architecture}.nextn_predict_layers", 0)
        return self.file.get_int(f"{self.architecture}.block_count") - drafts

    @property
    def size_bytes(self) -> int:
        """Of all tensors."""
        return sum(tensor.n_bytes for tensor in self.file.tensors.values())

    def check_room(self, cases: list[Case]) -> None:
        """UsageError if the model was not made for so many tokens."""
        longest, needed = models.context_length(self.file), context_of(cases)
        if needed > longest:
            raise UsageError(
                f"{self.name} was made for {longest} tokens of context, not {needed}", "give smaller -p, -n or -d"
            )


def of_file(model: str | None) -> Subject:
    """A model by path or name, the embedded one by default."""
    path, entry = catalog.resolve(model)
    file = GGUFFile.open(path)
    return Subject(catalog.name_of(path, entry), file)


def of_shape(shape: Shape, mix: Mix, layers: int | None, progress: Progress | None = None) -> Subject:
    """Random weights; layers: as many as fit into memory, if not given."""
    if layers is not None and layers > shape.layers:
        raise UsageError(
            f"{shape.name} has {shape.layers} layers, not {layers}", f"give --layers {shape.layers} or less"
        )
    count = layers_that_fit(shape, mix, layers)
    file = random_file(shape, mix, count, progress)
    return Subject(shape.name, file, shape, size_of(shape, mix, shape.layers))
