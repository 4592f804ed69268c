"""The entry that a word means: by its name, an alias, how a name begins, or what another tool on this machine calls it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from typing import Final

from qcli.catalog.entries import by_all_names, load_catalog
from qcli.catalog.entry import Entry
from qcli.errors import ModelNotFoundError, QcliError, UsageError
from qcli.hub.address import Address, parse
from qcli.hub.quant_names import plain, quant_of
from qcli.local_models.found import Found
from qcli.local_models.search import find, search
from qcli.wording import shortened

_LIST: Final = "`qcli models` lists the names, or give the path of a .gguf file"
_SHORTEST: Final = 3  # letters of a beginning that stands for a name
_MOST_TOLD: Final = 6  # names in a hint


def entry_of(word: str, beginnings: bool = True) -> Entry | None:
    """The entry that a word means, also of a model of other tools, for which one is made. As `named` else."""
    if word.lower() not in by_all_names() and (found := find(word)):
        return made_for(found)
    return named(word, beginnings)


def made_for(found: Found) -> Entry:
    """An entry for a model of another tool, whose file may have no name of its own: Ollama's are called by checksums."""
    return Entry(found.name, local=str(found.path))


def named(word: str, beginnings: bool = True) -> Entry | None:
    """The entry that a word means, in any case; None for none: its name, an alias or (beginnings) how one name alone begins.

    Each may have a quantization after it, NAME:Q8_0, or be divided as Ollama's names are, gpt-oss:20b. Raises UsageError for
    a quantization that a single file cannot have, ModelNotFoundError for the beginning of several names.
    """
    name, _, quant = word.lower().partition(":")
    entries, known = load_catalog(), by_all_names()
    if divided := None if word.lower() in known or name in known else known.get(f"{name}-{quant}"):
        return divided
    entry = known.get(word.lower()) or known.get(name)
    if entry is None and beginnings and len(name) >= _SHORTEST:
        begun = [one for key, one in entries.items() if key.lower().startswith(name)]
        if len(begun) > 1:
            close = [one.name for one in search().models if one.name.lower().startswith(name)]
            raise ModelNotFoundError(f"there is no model {word!r}", _did_you_mean(close + [one.name for one in begun]))
        entry = begun[0] if begun else None
    if entry is None or word.lower() in known or quant in ("", "latest"):
        return entry
    return _of_quant(entry, word.partition(":")[2])


def address_of(model: str) -> Address | None:
    """Where on huggingface.co a name or an address leads; None for what is not there, as a path. Raises as `named`."""
    return entry.address if (entry := named(model)) else parse(model)


def _of_quant(entry: Entry, quant: str) -> Entry:
    if plain(quant) == plain(entry.quant or quant_of(entry.file or entry.asset)):
        return entry
    if not entry.repo:
        hint = f"type `{entry.name}` alone"
        raise UsageError(f"{entry.name} has only one version: there is no {shortened(quant)} of it", hint)
    return replace(entry, name=f"{entry.name}:{quant}", file="", quant=quant, bytes=0, sha256="")


def closest(model: str) -> str:
    """What to type in place of words that mean no model: names that are near, or a name among the words."""
    words = model.split()
    with suppress(QcliError):  # what was copied may be a command of another tool
        if len(words) > 1 and address_of(words[-1]):
            return f"type the name alone: {words[-1]}"
    means = {key: entry.name for key, entry in by_all_names().items()}
    means = {found.name.lower(): found.name for found in search().models} | means
    close = get_close_matches(model.lower(), means, n=6, cutoff=0.4)
    return _did_you_mean([*dict.fromkeys(means[name] for name in close)][:2])


def _did_you_mean(names: list[str]) -> str:
    *others, last = names[:_MOST_TOLD] or [""]
    return f"did you mean {', '.join(others)}{' or ' if others else ''}{last}? {_LIST}" if last else _LIST
