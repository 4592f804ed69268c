"""Settings of the user in place of options that were not typed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qcli.errors import ModelNotFoundError, ThinkError

if TYPE_CHECKING:
    from qcli.settings.declared import Setting

_TALK = ("run", "chat")
# What says itself which model is meant, so that no other is.
_NAMES_A_MODEL = ("go_on", "resume", "named", "second", "shape", "architectures")
_SAVES = ("save", "name", "no_save", "go_on", "resume")


@contextmanager
def filled(context: Any) -> Iterator[None]:
    """Give a command's options that were not typed the values of settings, for a block that runs it.

    context: Typer's, with the command line read. Raises UsageError, QcliError for wrong values, which name where they stand;
    so do the ModelNotFoundError of the block about the model of a setting, and the ThinkError about how that is to think.
    """
    from qcli.settings.declared import SETTINGS
    from qcli.settings.values import Settings

    typed = {name for name in context.params if _is_typed(context, name)}
    settings = Settings()
    wanted = [key for key, setting in SETTINGS.items() if _is_wanted(setting, context, typed)]
    found = {key: value for key in wanted if (value := settings.value(key)).value is not None}
    context.params |= {key: value.value for key, value in found.items() if key != "save"}
    if "save" in found and not found["save"].value:
        context.params["no_save"] = True
    try:
        yield
    except ModelNotFoundError as problem:
        model = found.get("model")
        if model is None or model.value not in problem.message:
            raise
        raise ModelNotFoundError(f"{model.where}: model: {problem.message}", problem.hints) from None
    except ThinkError as problem:
        if "think" not in found:
            raise
        raise ThinkError(
            f"{found['think'].where}: {problem.message}", f"{problem.hint}, as in --think default"
        ) from None


def _is_wanted(setting: Setting, context: Any, typed: set[str]) -> bool:
    """Whether a command takes the value of a setting. `qcli bench` measures what is typed: it takes the model alone."""
    key, command = setting.key, context.command.name
    if key not in context.params or key in typed or not (setting.shared or command in _TALK):
        return False
    if key == "think" and context.params.get("raw"):  # without a chat template, nobody is told to think
        return False
    if key == "save":  # of chats; `qcli run` records where it is told to
        return command == "chat" and not typed.intersection(_SAVES)
    return not typed.intersection(_NAMES_A_MODEL) if key == "model" else command != "bench"


def _is_typed(context: Any, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
