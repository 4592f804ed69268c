"""What a user's own models.toml may say of a model, checked key by key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from qcli.errors import UsageError
from qcli.host.toml_files import TomlFile
from qcli.hub.address import Address, is_safe, parse
from qcli.runtime.sampling import OPTIONS
from qcli.wording import shortened

_TEXTS: Final = ("path", "alias_of", "repo", "file", "quant", "description", "named")
_KEYS: Final = (*_TEXTS, "aliases", "sampling")
_AS_IN: Final = {
    "aliases": 'as in: aliases = ["short", "shorter"]',
    "repo": 'as in: repo = "owner/name"',
    "file": "give the name that it has in its repository, with folders",
}


def checked(written: TomlFile, name: str, values: Any) -> dict[str, Any]:
    """The keys and values of a model's table, as they can be meant. Raises UsageError, which names the line."""

    def refused(key: str, said: str, hint: str) -> UsageError:
        return UsageError(f"{written.where(key, name)}: {shortened(key)} {said}", hint)

    if not isinstance(values, dict):
        raise UsageError(f"{written.where(name)}: {shortened(name)} is no table", "a model begins with [its name]")
    for key, value in values.items():
        if key not in _KEYS:
            hint = f"there are: {', '.join(_KEYS)}"
            if isinstance(value, dict):
                hint = f'a name with a dot in it needs quotes, as in ["{name}.{key}"]'
            raise refused(key, f"says nothing of {shortened(name)}", hint)
        if key == "sampling":
            _check_sampling(value, refused)
        elif not _can_be(key, value):
            raise refused(key, f"cannot be {shortened(str(value))}", _AS_IN.get(key, "give a text in quotes"))
    return dict(values)


def _can_be(key: str, value: Any) -> bool:
    if key == "aliases":
        return isinstance(value, list) and all(isinstance(one, str) and one and one.isprintable() for one in value)
    if not (isinstance(value, str) and value.isprintable()):
        return False
    if key == "repo":
        return value.count("/") == 1 and parse(value) == Address(value)
    return key != "file" or is_safe(value)


def _check_sampling(values: Any, refused: Callable[[str, str, str], UsageError]) -> None:
    if not isinstance(values, dict):
        raise refused("sampling", "is no table", "as in: sampling = { temperature = 0.7 }")
    for name, value in values.items():
        try:
            values[name] = OPTIONS[name].check(name, value)
        except KeyError:
            raise refused("sampling", f"has no option {shortened(name)}", f"there are: {', '.join(OPTIONS)}") from None
        except UsageError as problem:
            raise refused("sampling", f"is wrong: {problem.message}", problem.hint) from None
