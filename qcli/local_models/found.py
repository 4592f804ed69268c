"""A model that was found, and what those of a repository are called, which several tools keep by owner/name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from qcli.errors import QcliError
from qcli.gguf.names import stem_of
from qcli.hub.repo_files import RepoFile, variants


@dataclass(frozen=True)
class Found:
    """A model in the folder of a tool."""

    name: str  # as it is listed, and can be typed
    tool: str  # "hub cache", "LM Studio", "llama.cpp" or "Ollama"
    parts: tuple[Path, ...]  # its file, or the files of a split model in their order
    others: tuple[str, ...] = ()  # what else it is called
    repo: str = ""  # owner/name, where it is kept by that
    files: tuple[str, ...] = ()  # names of the parts in the repository

    @property
    def path(self) -> Path:
        """The file to open."""
        return self.parts[0]

    def is_called(self, typed: str) -> bool:
        """Whether that is one of its names, in any case."""
        return typed.lower() in (name.lower() for name in (self.name, *self.others))


def whole_models(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Of the files of a folder, or of a repository, those that are models by their names, each with all its parts."""
    try:
        return [tuple(file.name for file in one.files) for one in variants(map(RepoFile, names))]
    except QcliError:  # more of them than any repository has
        return []


def in_repository(repo: str, paths: dict[tuple[str, ...], tuple[Path, ...]], tool: str) -> list[Found]:
    """The models of a repository, given the paths of each by the names of its files there.

    Listed as owner/name if there is one, else as owner/name:QUANT, else as owner/name/file.gguf.
    """
    quants = {one.files[0].name: one.quant for one in variants(RepoFile(name) for names in paths for name in names)}
    told = [*quants.values()]
    found = []
    for names, parts in paths.items():
        first, quant = names[0], quants.get(names[0], "")
        short = f"{repo}:{quant}" if quant and told.count(quant) == 1 else f"{repo}/{first}"
        name = repo if len(paths) == 1 else short
        found.append(Found(name, tool, parts, (stem_of(first.rpartition("/")[2]),), repo, names))
    return sorted(found, key=lambda one: one.name.lower())
