"""Which value a setting has, and who says so: the environment, else config.toml, else nobody."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from qcli.errors import OutputError, UsageError
from qcli.host import folders
from qcli.host.toml_files import TomlFile
from qcli.settings.declared import SETTINGS, Setting
from qcli.wording import shortened

Source = Literal["environment", "file", "default"]
LIST = "`qcli config` lists them"


@dataclass(frozen=True)
class Value:
    """A setting's value."""

    setting: Setting
    value: Any  # as a command takes it; None where nobody says anything
    source: Source
    where: str = ""  # the variable, or the file and line


class Settings:
    """The settings as they are now. The file is read when a value is first asked for that the environment does not give."""

    def __init__(self, path: Path | None = None, environment: Mapping[str, str] = os.environ) -> None:
        """path: of config.toml; the user's own, unless another is given."""
        self.path = _own() if path is None else path  # None: there is no home
        self._environment = environment

    @cached_property
    def file(self) -> TomlFile | None:
        """The file, empty if it is not there; None without a home. Raises UsageError, QcliError."""
        return None if self.path is None else TomlFile.read(self.path)

    def value(self, key: str) -> Value:
        """The value of a key of SETTINGS. Raises UsageError, which names where a wrong one stands; QcliError."""
        setting = SETTINGS[key]
        if text := self._environment.get(setting.variable, "").strip():
            return Value(setting, setting.parse(setting.variable, text), "environment", setting.variable)
        if self.file is not None and key in self.file.values:
            where = self.file.where(key)
            return Value(setting, setting.accepted(f"{where}: {key}", self.file.values[key]), "file", where)
        return Value(setting, None, "default")

    def unknown(self) -> list[str]:
        """The keys of the file that are no settings."""
        return [key for key in (self.file.values if self.file else {}) if key not in SETTINGS]

    def remarks(self) -> list[str]:
        """Of each key of the file that is no setting, where it stands and which may be meant."""
        told = []
        for key in self.unknown():
            try:
                said = f"{shortened(key)} is written {known(key).key}"
            except UsageError as problem:
                said = f"{problem.message}; {problem.hint}"
            told.append(f"{self.file.where(key) if self.file else ''}: {said}")
        return told

    def set(self, key: str, text: str) -> Value:
        """Write a value into the file. Raises UsageError, OutputError, QcliError."""
        setting = known(key)
        value = setting.parse(setting.key, text)
        self._write(setting.key, json.dumps(setting.read(text.strip()), ensure_ascii=False))
        return Value(setting, value, "file", str(self.path))

    def unset(self, key: str) -> bool:
        """Take a key out of the file, also one that is no setting; whether it was there. Raises as `set` does."""
        if not (self.file and key in self.file.values):
            known(key)
            return False
        self._write(key, None)
        return True

    def _write(self, key: str, literal: str | None) -> None:
        if self.file is None:
            raise OutputError("there is no home folder for settings", "set the variable HOME to a folder")
        self.file.write(key, literal)
        del self.file


def known(key: str) -> Setting:
    """The setting of a key, as it is typed. Raises UsageError."""
    if (name := key.replace("-", "_").lower()) not in SETTINGS:
        close = get_close_matches(name, SETTINGS, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}? {LIST}" if close else LIST
        raise UsageError(f"there is no setting {shortened(key)}", hint)
    return SETTINGS[name]


def _own() -> Path | None:
    try:
        return folders.config() / "config.toml"
    except FileNotFoundError:
        return None
