"""Which version of a model to download, where a repository has several: asked at a terminal, refused in a script."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qcli import console, interrupt
from qcli.commands import prospect_table
from qcli.errors import ModelNotFoundError, UsageError
from qcli.wording import shortened

if TYPE_CHECKING:
    from qcli.hub.api import Listing
    from qcli.hub.repo_files import Variant

_ATTEMPTS = 3
_LEAVES = ("q", "quit", "exit")


def chosen(listing: Listing) -> Variant:
    """The only version of a model in a repository, or the one that a person at the terminal chooses.

    Raises ModelNotFoundError if there is none; UsageError, after a list of them, where nobody can be asked, or none is chosen.
    """
    from qcli.hub.address import Address
    from qcli.hub.repo_files import choose, default, variants
    from qcli.line_input import is_interactive

    found = variants(listing.files)
    if len(found) < 2:
        return choose(listing.files, Address(listing.repo))
    first = _told(listing, found)
    if is_interactive() and (taken := _asked(listing, found, first)):
        return taken
    hint = f"name one, as in `qcli pull {listing.repo}:{(first or (default(found) or found)[0]).label}`"
    if is_interactive():
        raise UsageError(f"{listing.repo}: no version was chosen", hint)
    raise UsageError(
        f"{listing.repo}: has {len(found)} versions", f"{hint}; `qcli plan {listing.repo}` tells speeds, too"
    )


def _told(listing: Listing, found: list[Variant]) -> Variant | None:
    """Write the list, with speeds if there is a person to wait for them; returns the one that is recommended."""
    from qcli.line_input import is_interactive

    bar = console.status("looking")
    with bar, interrupt.ends_all(bar):
        from qcli.forecast.repository import survey_repository

        survey, remark = survey_repository(listing, found, speeds=is_interactive(), progress=bar.update)
    if remark:
        console.info(f"speeds are not known: {remark}")
    console.info("\n".join(prospect_table.lines(found, survey, console.stderr_columns())))
    return found[survey.recommended[0]] if survey.recommended else None


def _asked(listing: Listing, found: list[Variant], first: Variant | None) -> Variant | None:
    """The one that a person names; None if none."""
    from qcli.line_input import asked

    enter = f", Enter for {first.label}" if first else ""
    for _ in range(_ATTEMPTS):
        answer = asked(f"number or name{enter}, q to leave:")
        if answer is None or answer.lower() in _LEAVES:
            return None
        if not answer and first:
            return first
        if taken := _by_answer(answer, listing, found):
            return taken
        console.info(f"{shortened(answer)}: is none of them" if answer else "type one")
    return None


def _by_answer(answer: str, listing: Listing, found: list[Variant]) -> Variant | None:
    from qcli.hub.address import Address
    from qcli.hub.repo_files import choose

    if answer.isdecimal() and 1 <= int(answer[:6]) <= len(found):
        return found[int(answer[:6]) - 1]
    named = [one for one in found if one.label.lower() == answer.lower()]
    if len(named) == 1:
        return named[0]
    try:
        return choose(listing.files, Address(listing.repo, answer)) if answer else None
    except (ModelNotFoundError, UsageError):
        return None
