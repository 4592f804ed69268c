"""Findings as JSON, and as Markdown to paste into an issue, in which no path tells whose machine it is."""

from __future__ import annotations

import getpass
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from qcli import __version__
from qcli.doctor.finding import FAIL, WARN, Finding
from qcli.host import folders
from qcli.host.named_files import resolved
from qcli.hub.cache import hub_cache
from qcli.wording import counted

Found = Sequence[tuple[str, Finding]]  # each with the title of its section

# Paths that are still there when all known ones are taken out, but for those of the system, which are the same for all.
_PATH: Final = re.compile(
    r"(?<![\w~>.])(?:[A-Za-z]:)?[/\\](?!proc/|sys/|dev/|full/path)[^\s/\\:;,()'\"]+[/\\][^\s:;,()'\"]*"
)
_SHORTEST: Final = 3  # letters of a name that is taken out


def as_json(found: Found) -> dict[str, Any]:
    """All that was found, for programs."""
    checks = [{"section": title, **vars(finding)} for title, finding in found]
    return {"qcli": __version__, "failed": count(found, FAIL), "warnings": count(found, WARN), "checks": checks}


def count(found: Found, status: str) -> int:
    """How many findings have this status."""
    return sum(finding.status == status for _, finding in found)


def verdict(found: Found) -> str:
    """All in a few words."""
    failed, warned = count(found, FAIL), count(found, WARN)
    if not (failed or warned):
        return f"all is well: {counted(len(found), 'check')} passed"
    parts = [counted(failed, "failure")] if failed else []
    parts += [counted(warned, "warning")] if warned else []
    return f"{' and '.join(parts)} in {counted(len(found), 'check')}"


def as_markdown(found: Found, private: Iterable[Path] = ()) -> str:
    """A table for each section; private: folders, such as that of the model, beside those that are known."""
    hide, lines = _hider(private), [f"### qcli doctor: {verdict(found)}"]
    for title in dict.fromkeys(title for title, _ in found):
        lines += ["", f"**{title}**", "", "| | | |", "|---|---|---|"]
        lines += [_row(finding, hide) for its, finding in found if its == title]
    return "\n".join([*lines, ""])


def _row(finding: Finding, hide: Callable[[str], str]) -> str:
    said = f"{finding.said} → {finding.hint}" if finding.hint else finding.said
    cells = [finding.status, finding.name, *[hide(said)]]
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(text: str) -> str:
    """Text that cannot end its cell, nor its line, nor be read as HTML."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return shown.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _hider(private: Iterable[Path]) -> Callable[[str], str]:
    """A function that takes out of a text what tells whose machine it is."""
    names = _names(private)
    known = sorted(names, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, known)) or "(?!)")

    def hide(text: str) -> str:
        text = pattern.sub(lambda found: names[found[0]], text)
        text = _PATH.sub("PATH", text)
        for word in _persons():
            text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "USER", text)
        return text

    return hide


def _names(private: Iterable[Path]) -> Mapping[str, str]:
    """Folders, as they may be written, and what stands for each."""
    found: dict[str, str] = {}
    for path in private:
        found |= dict.fromkeys((str(path), str(path.absolute()), str(resolved(path))), "MODEL_FOLDER")
    asked: dict[str, Callable[[], Path | None]] = {
        "TEMP": lambda: Path(tempfile.gettempdir()),
        "ENVIRONMENT": lambda: Path(sys.prefix),
        "CACHE": folders.some_cache,
        "DATA": folders.data,
        "CONFIG": folders.config,
        "DOWNLOADS": hub_cache,
    }
    for word, where in asked.items():
        with suppress(Exception):  # no home, no temporary folder: then no text names it
            if place := where():
                found[str(place)] = word
    with suppress(RuntimeError):
        found[str(Path.home())] = "~"
    return {path: word for path, word in found.items() if len(path) > 1 and path != "."}


def _persons() -> list[str]:
    """The names of the user and of the machine."""
    names = {platform.node()}
    with suppress(Exception):  # Windows has no pwd to ask
        names.add(getpass.getuser())
    return [name for name in names if len(name) >= _SHORTEST and name not in ("root", "localhost")]
