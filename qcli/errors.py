"""Everything that may go wrong for a user of qcli.

    QcliError                     exit code 1
    ├── UsageError                exit code 2: what was typed cannot be meant
    │   ├── PromptError           exit code 2: there is no prompt to answer
    │   └── ThinkError            exit code 2: the model cannot be told to think like that
    ├── ModelNotFoundError        no such file, no such name
    ├── ModelFileError            the file breaks the GGUF format, or the promises of its own header
    │   ├── TemplateError         its chat template fails over a conversation
    │   └── UnsupportedModelError the file is sound; qcli cannot run it
    ├── ContextOverflowError      more tokens than the context holds
    └── OutputError               a file cannot be written, or may not be overwritten

Each carries one line that says what happened and where, and a hint: what to type next. Where several things would help, and
one of them is an option that not every command has, they are given one by one, and a command tells of those that it takes.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from typing import ClassVar, Final

_QUOTED: Final = re.compile("`[^`]*`")  # a whole command to type, which may be another one
_OPTION: Final = re.compile(r"(?<![\w-])--[a-z][\w-]*")


class QcliError(Exception):
    """An error to show as one line and a hint, never as a traceback."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str | tuple[str, ...] = "") -> None:
        """hint: what to type next, or several things of which each would do."""
        super().__init__(message, hint)
        self.message = message
        self.hints = hint if isinstance(hint, tuple) else (hint,)

    @property
    def hint(self) -> str:
        """All of the hint."""
        return _either(self.hints)

    def hint_with(self, options: Container[str]) -> str:
        """The hint for a command that has these options: of several things those that need no other one."""
        fit = [hint for hint in self.hints if all(name in options for name in options_in(hint))]
        return _either(fit if len(self.hints) > 1 else self.hints)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


def options_in(hint: str) -> list[str]:
    """The options that a hint names for the command that was typed: not those of whole commands, in `…`."""
    return _OPTION.findall(_QUOTED.sub("", hint))


def _either(hints: Sequence[str]) -> str:
    """One; one, or another; one, another, or a third."""
    *most, last = hints or [""]
    return f"{', '.join(most)}, or {last}" if most else last


class UsageError(QcliError):
    """What was typed cannot be meant: an option out of range, two that exclude each other."""

    exit_code = 2


class PromptError(UsageError):
    """There is no prompt to answer."""


class ThinkError(UsageError):
    """A model cannot be told to think like that: it does not think, or its chat template does not know the word."""


class ModelNotFoundError(QcliError):
    """No file and no known model goes by this name."""


class ModelFileError(QcliError):
    """A file that is not GGUF, is damaged, or contradicts itself."""


class TemplateError(ModelFileError):
    """A chat template that fails over a conversation."""


class UnsupportedModelError(ModelFileError):
    """A sound file with something qcli does not know: an architecture, a tensor type, a version."""


class ContextOverflowError(QcliError):
    """More tokens than the context has room for."""


class OutputError(QcliError):
    """A file that cannot be written, or that is there and may not be overwritten."""
