"""Architectures: `<general.architecture>.py` each, found by name.

Such a file offers `load(file, state) -> Model`, and VERIFIED: a line on what was compared with what, and how near it is.
"""

from __future__ import annotations

import importlib
import pkgutil
from difflib import get_close_matches
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qcli.errors import UnsupportedModelError
from qcli.gguf.file import GGUFFile
from qcli.gguf.kinds import require_model
from qcli.layers.state import State
from quant.plan import Activation, Plan

# As files spell them; in the names of all others a hyphen stands for each underscore.
_SPELLED = {name.replace("-", "_"): name for name in ("ernie4_5-moe", "nemotron_h", "nemotron_h_moe")}


class Model(Protocol):
    """Weights and shape of a loaded model, able to trace its forward pass."""

    vocab_size: int

    def trunk(self, plan: Plan, ids: NDArray[np.int64]) -> Activation:
        """Trace from token ids int64 [tokens] to the rows before the head, float32 [tokens, n]."""

    def head(self, plan: Plan, x: Activation) -> Activation:
        """Trace from those rows to logits [plan.tokens, vocab]; the last row's alone where the plan takes one token."""


def module_name(architecture: str) -> str:
    """The file name of an architecture."""
    return architecture.replace("-", "_")


@cache
def supported() -> tuple[str, ...]:
    """The architectures there is a file for, as files spell them, in alphabetical order."""
    return tuple(sorted(_SPELLED.get(name, name.replace("_", "-")) for name in _modules()))


@cache
def _modules() -> frozenset[str]:
    return frozenset(module.name for module in pkgutil.iter_modules(__path__))


def verified(architecture: str) -> tuple[str, str]:
    """What a supported architecture is, in a line, and what of it was compared with what."""
    module = importlib.import_module(f"qcli.models.{module_name(architecture)}")
    return (module.__doc__ or "").partition("\n")[0], module.VERIFIED


def context_length(file: GGUFFile) -> int:
    """The most tokens that the model was made for."""
    _module(file)
    return file.get_int(f"{file.get_str('general.architecture')}.context_length")


def load(file: GGUFFile, state: State) -> Model:
    """The model in a file, with its memory in `state`; UnsupportedModelError names what could be loaded."""
    model: Model = _module(file).load(file, state)
    return model


def _module(file: GGUFFile) -> Any:
    require_model(file)
    name = file.get_str("general.architecture")
    if module_name(name) in _modules():
        return importlib.import_module(f"qcli.models.{module_name(name)}")
    close = get_close_matches(name, supported(), 1, 0.0)[0]
    known = ", ".join(supported())
    raise UnsupportedModelError(
        f'{file.path}: the architecture "{name}" is not supported',
        f"supported: {known}; the closest is {close}. `qcli show` reads any file",
    )
