"""A file of log-probabilities that a model gives to every next token of a text, with which other models are compared.

A GGUF file: `general.type` is "log_probs", `log_probs.model` says whose they are; tensors `tokens` I32 [chunks, ctx], and
`log_probs` F16 [chunks, ctx - 1 - ctx // 2, vocab], of positions ctx // 2 to ctx - 2. Float16 is precise to 1/4096 of a
log-probability, so to less than 1e-4 of any probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcli.errors import ModelFileError, ModelNotFoundError, UsageError
from qcli.evaluate.scored_text import scored_from
from qcli.gguf.file import GGUFFile
from qcli.gguf.writer import GGUFWriter, NewTensor, file_bytes, text
from qcli.host.atomic_files import AtomicFiles

_TYPE = "log_probs"
_SAVE = "`qcli perplexity MODEL TEXT --save-logits FILE` makes one"


class LogProbsWriter:
    """Writes the file chunk by chunk. Raises OutputError."""

    def __init__(self, output: AtomicFiles, model: str, chunks: Sequence[Sequence[int]], vocab_size: int) -> None:
        ctx = len(chunks[0])
        shape = (len(chunks), ctx - 1 - scored_from(ctx), vocab_size)
        keys = text("general.type", _TYPE) | text(f"{_TYPE}.model", model)
        tensors = [NewTensor("tokens", "I32", (len(chunks), ctx)), NewTensor(_TYPE, "F16", shape)]
        output.require_space(file_bytes(keys, tensors))
        self._writer = GGUFWriter(output, output.paths[0], keys, tensors)
        self._writer.write(np.asarray(chunks, "<i4").view(np.uint8))

    def add(self, log_probs: NDArray[np.float32]) -> None:
        """Write those of the next chunk, float32 [scored, vocab]."""
        self._writer.write(log_probs.astype("<f2").view(np.uint8))

    def finish(self) -> None:
        """Flush the file to the disk; it is complete then."""
        self._writer.finish()


class LogProbs:
    """The file of a reference model, open for reading; a context manager."""

    def __init__(self, path: Path) -> None:
        """Raises ModelNotFoundError, ModelFileError."""
        self.path = path
        try:
            self._file = GGUFFile.open(path)
        except (ModelNotFoundError, ModelFileError) as problem:
            raise type(problem)(problem.message, _SAVE) from None
        if self._file.metadata.get("general.type") != _TYPE:
            raise ModelFileError(f"{path}: is a GGUF file, but none of log-probabilities", _SAVE)
        self.model = self._file.get_str(f"{_TYPE}.model", "")
        tokens, values = self._file.tensor("tokens"), self._file.tensor(_TYPE)
        sizes = (tokens.type, values.type, len(tokens.shape), len(values.shape)) == ("I32", "F16", 2, 3)
        if not sizes or values.shape[:2] != (tokens.shape[0], tokens.shape[1] - 1 - scored_from(tokens.shape[1])):
            raise ModelFileError(f"{path}: its log-probabilities do not belong to its tokens", _SAVE)
        self.chunks: list[list[int]] = tokens.data.view("<i4").tolist()
        self.vocab_size = values.shape[2]
        self._values = values.data.view("<f2").reshape(values.shape)

    def __enter__(self) -> LogProbs:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def check(self, chunks: Sequence[Sequence[int]], vocab_size: int) -> None:
        """Raises UsageError unless a model with this vocabulary and these chunks, [tokens] each, can be compared."""
        if vocab_size != self.vocab_size:
            message = f"{self.path}: was made with {self.vocab_size:,} tokens in the vocabulary, and the model has {vocab_size:,}"
            raise UsageError(message, "compare models of one family")
        if list(map(list, chunks)) != self.chunks[: len(chunks)]:
            message = f"{self.path}: was made of other tokens: another text, --ctx or tokenizer"
            raise UsageError(message, "leave out TEXT and --ctx to take those of the file")

    def chunk(self, i: int) -> NDArray[np.float32]:
        """Those of a chunk, float32 [scored, vocab], normalized anew: the probabilities of a token sum to 1."""
        values: NDArray[np.float32] = self._values[i].astype(np.float32)
        if not (values <= 0).all():  # neither a NaN nor a probability above one
            raise ModelFileError(f"{self.path}: holds numbers that are no log-probabilities", _SAVE)
        values -= np.log(np.exp(values).sum(1, keepdims=True, dtype=np.float64)).astype(np.float32)
        return values
