"""What a shell completes: models, conversations, settings. Where nothing of these begins so, it offers its own files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

_MOST = 100  # files looked at for .gguf; more are left to the shell


def one_of(words: Iterable[str]) -> Callable[[str], list[str]]:
    """A completion with some words."""

    def begun(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return begun


def models(incomplete: str) -> list[tuple[str, str]]:
    """The models that `qcli models` lists, and .gguf files that lie here; not those with a colon, at which bash divides."""
    from pathlib import Path

    from qcli.errors import QcliError

    found: list[tuple[str, str]] = []
    with suppress(QcliError, OSError):
        from qcli.catalog.entries import load_catalog
        from qcli.catalog.resolve import place_of

        for name, entry in load_catalog().items():
            if name.lower().startswith(incomplete.lower()):  # in any case, as commands take it: shells ask for the same
                found.append((incomplete + name[len(incomplete) :], f"{place_of(entry)}: {entry.description}"))
    with suppress(QcliError, OSError):
        from qcli.local_models.search import search

        for model in search().models:
            if model.name.lower().startswith(incomplete.lower()):
                found.append((incomplete + model.name[len(incomplete) :], model.tool))
    with suppress(OSError):
        here = (path.name for path, _ in zip(Path().glob("*.gguf"), range(_MOST), strict=False))
        found += [(name, "a file") for name in here if name.startswith(incomplete)]
    return [(name, _said(said)) for name, said in found if _is_one_word(name.replace("/", "_"))]


def conversations(incomplete: str) -> list[tuple[str, str]]:
    """The names of those that are kept; numbers of those that have none, or one that a shell would take apart."""
    from qcli.errors import QcliError

    with suppress(QcliError, OSError):
        from qcli.sessions.library import Library

        named = [(one.name if _is_one_word(one.name) else str(one.number), one) for one in Library().list()]
        return [(word, _said(f"{one.called}, {one.model}")) for word, one in named if word.startswith(incomplete)]
    return []


def settings(incomplete: str) -> list[tuple[str, str]]:
    """The keys of config.toml."""
    from qcli.settings.declared import SETTINGS

    return [(key, _said(setting.help)) for key, setting in SETTINGS.items() if key.startswith(incomplete)]


def _is_one_word(name: str) -> bool:
    return bool(name) and all(letter.isalnum() or letter in "-_.+@" for letter in name)


def _said(text: str) -> str:
    """A description that no shell reads as code, nor Rich as markup: it is what people and models wrote."""
    kept = "".join(letter if letter.isalnum() or letter in " .,-:;%" else " " for letter in text)
    return " ".join(kept.split()).strip(":") or "-"
