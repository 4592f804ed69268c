"""llama.cpp's downloads: owner_repository_file.gguf in one folder, or, as it keeps them since 2026, laid out as the hub's."""

from __future__ import annotations

import re
from pathlib import Path

from qcli.gguf.names import stem_of
from qcli.local_models import hub, places
from qcli.local_models.found import Found, in_repository, whole_models
from qcli.local_models.walk import Walk

TOOL = "llama.cpp"
_ADDRESS = re.compile(r"https://huggingface\.co/([\w.-]+/[\w.-]+)/resolve/[^/]+/([\w./-]+\.gguf)", re.IGNORECASE)


def find(walk: Walk) -> list[Found]:
    """Its models, by owner/repository where the file beside one says from where it came, else by the file's name."""
    found = []
    for folder in places.llama_cpp():
        models = whole_models(file for file in walk.files(folder, ".gguf") if "/" not in file)
        found += _named(folder, models) + hub.below(folder, walk, TOOL)
    return found


def _named(folder: Path, models: list[tuple[str, ...]]) -> list[Found]:
    known: dict[str, dict[tuple[str, ...], tuple[Path, ...]]] = {}
    found = []
    for files in models:
        paths = tuple(folder / file for file in files)
        came = [_ADDRESS.fullmatch(_url(folder / f"{file}.json")) for file in files]
        repos = {each[1] for each in came if each}
        if all(came) and len(repos) == 1:
            known.setdefault(repos.pop(), {})[tuple(each[2] for each in came if each)] = paths
        else:
            found.append(Found(stem_of(files[0]), TOOL, paths))
    return [model for repo, paths in known.items() for model in in_repository(repo, paths, TOOL)] + found


def _url(path: Path) -> str:
    said = places.read_json(path)
    url = said.get("url") if isinstance(said, dict) else None
    return url if isinstance(url, str) else ""
