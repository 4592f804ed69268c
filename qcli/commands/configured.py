"""Settings of the user in place of options that were not typed."""

from __future__ import annotations

from typing import Any

_TALK = ("run", "chat")
# What says itself which model is meant, so that no other is.
_NAMES_A_MODEL = ("go_on", "resume", "named", "second", "shape", "supported")
_SAVES = ("save", "name", "no_save", "go_on", "resume")


def fill(context: Any) -> None:
    """Give a command's options that were not typed the values of settings. Raises UsageError, QcliError for wrong ones.

    context: Typer's, with the command line read. `qcli bench` measures what is typed: it takes the model alone.
    """
    from qcli.settings.declared import SETTINGS
    from qcli.settings.values import Settings

    command, values = context.command.name, context.params
    typed = {name for name in values if _is_typed(context, name)}
    settings = Settings()
    for key, setting in SETTINGS.items():
        if key not in values or key in typed or not (command in _TALK or setting.shared):
            continue
        if (command == "bench" and key != "model") or (key == "model" and typed.intersection(_NAMES_A_MODEL)):
            continue
        if key == "save":
            if command == "chat" and not typed.intersection(_SAVES) and settings.value(key).value is False:
                values["no_save"] = True
        elif (value := settings.value(key).value) is not None:
            values[key] = value


def _is_typed(context: Any, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
