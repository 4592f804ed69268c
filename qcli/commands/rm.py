"""qcli rm: deletes models that were downloaded, and names of the user's own; never unasked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qcli import console
from qcli.commands import completion, options
from qcli.commands.consent import is_agreed
from qcli.commands.examples import examples
from qcli.errors import ModelNotFoundError, UsageError
from qcli.wording import shortened, size

if TYPE_CHECKING:
    from qcli.local_models.found import Found
    from qcli.local_models.removal import Removal

_INSTEAD = {
    "Ollama": "type `ollama rm {name}`",
    "LM Studio": "delete it in LM Studio, or type `qcli rm {name} --other-tools`",
    "llama.cpp": "`qcli rm {name} --other-tools` deletes it all the same",
}


@examples(
    ("qcli rm qwen3-30b-a3b", "Asks first, then deletes the model."),
    ("qcli rm unsloth/Qwen3-30B-A3B-Instruct-2507-GGUF:Q4_K_M", "Deletes only the version Q4_K_M."),
)
def rm(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME",
            help="A model on this machine that `qcli models` lists, or a name of your own.",
            autocompletion=completion.models,
        ),
    ],
    yes: Annotated[bool, options.flag("--yes", "-y", help="Delete without asking (default: ask).")] = False,
    other_tools: Annotated[
        bool,
        options.flag(
            "--other-tools", help="Delete it even if LM Studio or llama.cpp downloaded it (default: leave it)."
        ),
    ] = False,
) -> None:
    """Delete downloaded models.

    Of a download that was broken off, what has arrived is deleted; of a name of your own only the name, and its file stays.
    """
    for name in dict.fromkeys(names):
        if not _forgotten(name, yes):
            _delete(name, yes, other_tools)


def _forgotten(name: str, yes: bool) -> bool:
    """Take a name of the user's own out of models.toml, if it is one and that is wanted; whether it is one."""
    from qcli.commands.own_names import own_table

    table = own_table(name)
    if table is None:
        return False
    file, key = table
    values = file.values[key]
    meant = values.get("path") or values.get("alias_of")
    if is_agreed(f"forget the name {key}? {meant} stays", yes, f"qcli rm {name}"):
        file.remove_table(key)
        console.info(f"the name {key} is deleted; {meant} stays")
    return True


def _delete(name: str, yes: bool, other_tools: bool) -> None:
    """Raises ModelNotFoundError, UsageError for what is not to be deleted, OutputError."""
    from qcli.catalog.resolve import resolve
    from qcli.host.named_files import resolved
    from qcli.hub.cache import hub_cache
    from qcli.local_models import last_used
    from qcli.local_models.hub import TOOL
    from qcli.local_models.removal import from_hub
    from qcli.local_models.search import search

    models = search().models
    if len(several := {found.name for found in models if found.repo.lower() == name.lower()}) > 1:
        raise UsageError(
            f"{name}: {len(several)} versions of it are here", f"type one of: {', '.join(sorted(several))}"
        )
    try:
        path, entry = resolve(name)
    except ModelNotFoundError:
        if not _begun_deleted(name, yes):
            raise
        return
    if entry and entry.asset:
        raise UsageError(f"{entry.name} comes with qcli", "it cannot be deleted")
    found = next((found for found in models if found.path == path), None)
    hub = hub_cache()
    removal = from_hub(_parts(path), hub) if hub else None
    if found and not removal:
        removal = _of_another_tool(found, other_tools)
    if removal is None and not path.exists():
        raise ModelNotFoundError(f"{shortened(str(path))}: no such file", "`qcli models` lists what can be deleted")
    if removal is None:
        raise UsageError(
            f"{shortened(str(path))}: is your own file, not a download", "delete it as you delete any other file"
        )
    called = entry.name if entry else found.name if found else name
    where = f", which {found.tool} downloaded" if found and found.tool != TOOL else ""
    if is_agreed(f"delete {called} ({path.name}){where}? it frees {size(removal.n_bytes)}", yes, f"qcli rm {name}"):
        target = resolved(path)
        removal.run()
        last_used.forget(target)
        console.info(f"{called} is deleted: {size(removal.n_bytes)} freed")


def _begun_deleted(name: str, yes: bool) -> bool:
    """Delete what broken downloads of a model left, if that is wanted; whether there was any. Raises UsageError, OutputError."""
    from qcli.catalog.names import address_of
    from qcli.local_models.removal import of_begun

    address = address_of(name)
    removal = of_begun(address) if address else None
    if removal is None:
        return False
    if is_agreed(f"delete what has arrived of {name}? it frees {size(removal.n_bytes)}", yes, f"qcli rm {name}"):
        removal.run()
        console.info(f"what had arrived of {name} is deleted: {size(removal.n_bytes)} freed")
    return True


def _of_another_tool(found: Found, other_tools: bool) -> Removal:
    """Raises UsageError unless that was said to be wanted; Ollama's blobs belong to several models, which it knows best."""
    from qcli.local_models import ollama, places
    from qcli.local_models.removal import from_hub, of_files

    if not other_tools or found.tool == ollama.TOOL:
        hint = _INSTEAD[found.tool].format(name=found.name)
        raise UsageError(f"{found.name} belongs to {found.tool}", hint)
    folders = [*places.lm_studio(), *places.llama_cpp()]
    inside = next((folder for folder in folders if folder in found.path.parents), found.path.parent)
    return from_hub(found.parts, inside) or of_files(found.parts, inside)


def _parts(path: Path) -> list[Path]:
    from qcli.gguf.names import count_parts, part_paths

    return part_paths(path, count_parts(path.name))
