"""Closing a model: what computes, then its file."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from qcli.errors import OutputError

if TYPE_CHECKING:
    from qcli.gguf.file import GGUFFile
    from qcli.runtime.prefix_cache import PrefixCache


def close_model(cache: PrefixCache, file: GGUFFile) -> None:
    """Close what computes, and the file; what could not be written of its usage is a warning."""
    try:
        cache.close()
    except OutputError as error:  # the usage of its experts
        warnings.warn(str(error), stacklevel=2)
    file.close()
