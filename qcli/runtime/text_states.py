"""What an LLM has read and said: gone back to, saved and gone on with."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qcli.errors import UsageError
from qcli.progress import Progress
from qcli.runtime import saved_text
from qcli.runtime.checkpoint import Checkpoint
from qcli.runtime.exclusive import Exclusive

if TYPE_CHECKING:
    from qcli.gguf.file import GGUFFile
    from qcli.runtime.engine import Engine
    from qcli.runtime.prefix_cache import PrefixCache


class TextStates:
    """A part of `LLM`."""

    file: GGUFFile
    engine: Engine
    _cache: PrefixCache
    _exclusive: Exclusive
    _progress: Progress

    def checkpoint(self) -> Checkpoint:
        """What the model has read and said so far, to come back to by restore(); keys and values are not copied."""
        with self._exclusive.use_anew():
            return self._cache.checkpoint()

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write what the model has read and said so far into a file, keys and values too. Raises OutputError."""
        if (checkpoint := self.checkpoint()).logits is None:
            raise UsageError("there is nothing to save yet", "have the model answer something first")
        saved_text.save(Path(path), checkpoint, self.engine.state, self.file, overwrite)

    def load(self, path: str | Path) -> None:
        """Go on from what save() wrote, of this model. Raises QcliError."""
        with self._exclusive.use_anew():
            read = partial(saved_text.load, Path(path), self.engine.vocab_size, self.engine.state, self.file)
            self._cache.adopt(read)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint of this model; what was given up meanwhile is prefilled again."""
        with self._exclusive.use_anew():
            self._cache.restore(checkpoint, self._progress)
