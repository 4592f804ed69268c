"""All models that other tools and the hub have on this machine, and the one that a name means."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from qcli.errors import ModelNotFoundError, UsageError
from qcli.hub.address import parse
from qcli.hub.repo_files import RepoFile, choose
from qcli.local_models import hub, llama_cpp, lm_studio, ollama
from qcli.local_models.found import Found
from qcli.local_models.walk import Walk
from qcli.wording import shortened

_TOOLS = (hub, lm_studio, llama_cpp, ollama)  # of several that have a model of one name, the first is meant
_LONGEST = 1000  # characters of a name
_NAMED = 8  # of models that may be meant


@dataclass(frozen=True)
class Search:
    """What was found, and remarks about folders that could not be looked through."""

    models: list[Found]
    remarks: list[str]


def search() -> Search:
    """Look through the folders of all tools. A file that two tools lead to is the first one's."""
    models: list[Found] = []
    remarks: list[str] = []
    seen = set()
    for tool in _TOOLS:
        walk = Walk()
        for found in tool.find(walk):
            if found.path not in seen or found.tool == ollama.TOOL:  # of which one blob may have several names
                seen.add(found.path)
                models.append(found)
        remarks += walk.remarks
    return Search(models, remarks)


def find(name: str) -> Found | None:
    """The model that is listed under a name, or that a file's name or an address of huggingface.co means; None if none is.

    Of an address without a quantization, the one that a download would take. Raises ModelNotFoundError if different
    models are called so, UsageError if an address could mean several.
    """
    if len(name) > _LONGEST:  # a prompt
        return None
    models = search().models
    exact = [found for found in models if found.name.lower() == name.lower()]
    called = exact[:1] or [found for found in models if found.is_called(name)]
    if len({found.name for found in called}) > 1:
        listed = [found.name for found in called]
        more = ", …" if len(listed) > _NAMED else ""
        hint = f"type one of: {', '.join(listed[:_NAMED])}{more}"
        raise ModelNotFoundError(f"{shortened(name)}: {len(listed)} models on this machine are called so", hint)
    return called[0] if called else _by_address(name, models)


def _by_address(name: str, models: list[Found]) -> Found | None:
    """Of the first tool that has such a model."""
    try:
        address = parse(name)
    except UsageError:  # of another site
        return None
    if address is None or address.revision is not None:
        return None
    fitting = [found for found in models if found.repo.lower() == address.repo.lower()]
    for tool in dict.fromkeys(found.tool for found in fitting):
        its = [found for found in fitting if found.tool == tool]
        with suppress(ModelNotFoundError):  # what is asked for is not among its files
            chosen = choose([RepoFile(file) for found in its for file in found.files], address)
            return next(found for found in its if chosen.name in found.files)
    return None
