"""LM Studio's models: publisher/repository/file.gguf below its folder."""

from __future__ import annotations

from itertools import groupby

from qcli.local_models import places
from qcli.local_models.found import Found, in_repository, whole_models
from qcli.local_models.walk import Walk

TOOL = "LM Studio"


def find(walk: Walk) -> list[Found]:
    """Its models, each by publisher/repository; a file that lies elsewhere in the folder is left out, as it does."""
    found = []
    for folder in places.lm_studio():
        files = [file for file in walk.files(folder, ".gguf") if file.count("/") >= 2]
        for repo, group in groupby(files, lambda file: "/".join(file.split("/")[:2])):
            models = whole_models(file.removeprefix(f"{repo}/") for file in group)
            paths = {names: tuple(folder / repo / name for name in names) for names in models}
            found += in_repository(repo, paths, TOOL)
    return found
