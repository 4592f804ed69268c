"""Which layers attend to a window of the last positions, and which to all."""

from __future__ import annotations

from qcli.layers.hyperparameters import Hyperparameters

_PATTERN = "attention.sliding_window_pattern"
# Every so many-th layer sees all, where a file does not say it.
_EVERY = {"afmoe": 4, "exaone-moe": 4, "gemma3": 6, "gemma4": 1, "gpt-oss": 2}
_MAY_LACK = ("gemma3",)  # the window's size: all layers see all then


def read_windows(hparams: Hyperparameters) -> tuple[int, ...]:
    """The window of each layer in positions; 0 where it sees all, as all do of architectures that have no windows.

    A file says for each layer whether it has one, or that every so many-th has none, or an architecture has its own rule.
    """
    if hparams.arch not in _EVERY:
        return (0,) * hparams.num_hidden_layers
    read = hparams.count if hparams.arch in _MAY_LACK else hparams.size
    window, period = read("attention.sliding_window"), _EVERY[hparams.arch]
    if hparams.has(_PATTERN):
        flags = hparams.sizes(_PATTERN, least=0)
        if max(flags) <= 1 and len(hparams.file.get_ints(f"{hparams.arch}.{_PATTERN}")) > 1:
            return tuple(window * flag for flag in flags)
        period = hparams.size(_PATTERN)
    return tuple(window if (i + 1) % period else 0 for i in range(hparams.num_hidden_layers))
