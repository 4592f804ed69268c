"""Which layers attend to a window of the last positions, and which to all."""

from __future__ import annotations

from qcli.layers.hyperparameters import Hyperparameters

_PATTERN = "attention.sliding_window_pattern"


def read_windows(hparams: Hyperparameters, window: int, every: int) -> tuple[int, ...]:
    """The window of each layer in positions: `window`, or 0 where it sees all.

    A file says for each layer whether it has one, or that every so many-th has none; `every`: where it does not say.
    """
    period = every
    if hparams.has(_PATTERN):
        flags = hparams.sizes(_PATTERN, least=0)
        if max(flags) <= 1 and len(hparams.file.get_ints(f"{hparams.arch}.{_PATTERN}")) > 1:
            return tuple(window * flag for flag in flags)
        period = hparams.size(_PATTERN)
    return tuple(window if (i + 1) % period else 0 for i in range(hparams.num_hidden_layers))
