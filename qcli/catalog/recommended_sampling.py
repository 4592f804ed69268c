"""Sampling options that suit a model: as models.toml recommends them, or as its file does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase

from qcli.catalog.entries import load_catalog
from qcli.catalog.entry import Entry
from qcli.gguf.file import GGUFFile
from qcli.runtime.sampling import OPTIONS


def sampling_defaults(entry: Entry | None, file: GGUFFile) -> dict[str, float]:
    """The sampling options that suit a model, by name: as models.toml recommends, by its entry or by general.name; else
    as the file itself does.

    With a recommendation, the options that it leaves out and that would filter are off; without one, none are named.
    """
    given = (entry.sampling if entry else {}) or _by_general_name(file) or _recommended_in(file)
    off = {name: option.off for name, option in OPTIONS.items() if option.off is not None}
    return {**off, **given} if given else {}


def _by_general_name(file: GGUFFile) -> Mapping[str, float | int]:
    name = re.sub(r"[^a-z0-9.]+", "-", str(file.metadata.get("general.name", "")).lower())
    matches = (entry for entry in reversed(load_catalog().values()) if entry.named and fnmatchcase(name, entry.named))
    return next((entry.sampling for entry in matches), {})


def _recommended_in(file: GGUFFile) -> dict[str, float]:
    """What the keys general.sampling.* of a file say, as far as they make sense."""
    found: dict[str, float] = {}
    for name, option in OPTIONS.items():
        value = file.metadata.get(option.gguf_key) if option.gguf_key else None
        if isinstance(value, int | float) and option.accepts(value):
            value = int(value) if isinstance(option.default, int) else round(value, 6)  # 0.7 from a float32
            if option.accepts(value):
                found[name] = value
    return found
