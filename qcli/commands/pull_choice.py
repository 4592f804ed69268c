"""Which of a repository's quantizations to take, where the words leave that open: asked at a terminal, refused in a script."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qcli import console
from qcli.commands import listing as lists
from qcli.errors import UsageError
from qcli.wording import shortened, size

if TYPE_CHECKING:
    from qcli.hub.api import Listing
    from qcli.hub.repo_files import Variant

_ATTEMPTS = 3


def chosen(listing: Listing) -> Variant:
    """The only model of a repository, or the one that a person at the terminal takes.

    Raises ModelNotFoundError if there is none; UsageError, after a list of them, where nobody can be asked.
    """
    from qcli.hub.address import Address
    from qcli.hub.repo_files import choose, default, variants
    from qcli.line_input import asked, is_interactive

    found = variants(listing.files)
    if len(found) < 2:
        return choose(listing.files, Address(listing.repo))
    usual = default(found)
    lists.tell([_row(number, one, one in usual) for number, one in enumerate(found, 1)])
    if is_interactive():
        first = f", Enter for {usual[0].label}" if len(usual) == 1 else ""
        for _ in range(_ATTEMPTS):
            answer = asked(f"number or name{first}:")
            if answer is None:
                break
            if taken := _by_answer(answer, found, usual):
                return taken
            console.info(f"{shortened(answer)}: is none of them" if answer else "type one")
    one = (usual or found)[0].label
    raise UsageError(f"{listing.repo}: has {len(found)} of them", f"name one, as in `qcli pull {listing.repo}:{one}`")


def _row(number: int, one: Variant, usual: bool) -> tuple[str, str]:
    """What a person sees of a model, to choose by."""
    facts = [size(one.bytes) if one.bytes else ""]
    if one.bits_per_weight:
        facts.append(f"about {one.bits_per_weight:.1f} bits a weight")
    if len(one.files) > 1:
        facts.append(f"in {len(one.files)} files")
    if usual:
        facts.append("the usual choice")
    return f"{number:3}  {one.label}", " · ".join(fact for fact in facts if fact)


def _by_answer(answer: str, found: list[Variant], usual: list[Variant]) -> Variant | None:
    if not answer and len(usual) == 1:
        return usual[0]
    if answer.isdigit() and 1 <= int(answer[:6]) <= len(found):
        return found[int(answer) - 1]
    named = [one for one in found if one.label.lower() == answer.lower()]
    return named[0] if len(named) == 1 else None
