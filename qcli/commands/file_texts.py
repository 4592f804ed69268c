"""Texts of files that a message is about: read, checked to be texts, and fenced; for `run -f`, and in a chat."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from glob import glob
from os.path import isdir, isfile  # which hold for no name that a system does not take, where those of Path raise
from pathlib import Path

from qcli.errors import UsageError
from qcli.host.folders import expanded
from qcli.host.systems import words_of
from qcli.terminal.text_input import STDIN, read_file

Texts = list[tuple[str, str]]  # names as they were typed, and texts

_MENTIONED = re.compile(r'(?<!\S)@(?:"([^"\n]+)"|([^\s"]+))')
_NUMBERED = ("/dev/fd/", "/proc/self/fd/")
_AFTER_A_NAME = ".,;:!?)'"


def read_texts(names: Sequence[str]) -> Texts:
    """The texts of files. Raises UsageError for what is no text, and what `read_file` raises."""
    return [(name, _checked(name, read_file(name))) for name in names]


def joined(texts: Texts) -> str:
    """Texts as they stand before what is asked about them; the next question may begin with the same."""
    return "".join(f"{fenced(_called(name), text)}\n\n" for name, text in texts)


def _called(name: str) -> str:
    """What a file is called in a message: its name, or "-" if it is a number that a shell gave to a pipe."""
    return STDIN if name.startswith(_NUMBERED) else Path(name).name


def fenced(name: str, text: str) -> str:
    """A file's text as it stands in a message: under its name, in a fence that the text itself does not have."""
    longest = max((len(run) for run in re.findall("`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{name}:\n{fence}\n{text}{'' if text.endswith(chr(10)) else chr(10)}{fence}"


def typed_names(line: str) -> list[str]:
    """The files that a line names, in quotes where a name has spaces; a pattern such as *.md stands for all it fits."""
    if isfile(expanded(line)):
        return [line]
    try:
        words = words_of(line)
    except ValueError:  # a quote that is not closed, which may be an apostrophe
        words = [line]
    names = []
    for word in words:
        name = word.strip('"')
        found = sorted(glob(str(expanded(name)))) if re.search(r"[*?[]", name) else []
        names += [path for path in found if isfile(path)] or [name]
    return names


def mentioned(message: str) -> tuple[str, list[str]]:
    """A message without the @ before the names of files, and those names.

    What begins with @ and is no file stays as it stands: people and packages are called so, too. Raises UsageError for a
    name that is nearly one, and for a folder.
    """
    names: list[str] = []

    def name(found: re.Match[str]) -> str:
        given: str = found[1] or found[2]
        for file in (given, given.rstrip(_AFTER_A_NAME)):
            if file and isfile(expanded(file)):
                names.append(file)
                return found[0].replace("@", "", 1)
        _check_is_no_slip(given.rstrip(_AFTER_A_NAME))
        return found[0]

    return _MENTIONED.sub(name, message), list(dict.fromkeys(names))


def _check_is_no_slip(name: str) -> None:
    path = expanded(name)
    if not path.name or not isdir(path.parent):
        return
    if isdir(path):
        raise UsageError(f"@{name}: is a folder", "name its files, or type /read with a pattern such as *.md")
    try:
        close = get_close_matches(path.name, [other.name for other in path.parent.iterdir()], n=1, cutoff=0.8)
    except OSError:  # a folder that cannot be looked into
        return
    if close:
        raise UsageError(f"@{name}: no such file", f"did you mean @{Path(name).with_name(close[0])}?")


def _checked(name: str, text: str) -> str:
    if "\0" in text or text.count("\ufffd") * 10 > len(text):
        shown = "standard input" if name == STDIN else name
        raise UsageError(f"{shown}: is not a text file", "give a text file (UTF-8)")
    return text
