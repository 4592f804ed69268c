"""What is deleted for good is asked about first: at a terminal a person, elsewhere --yes has to say so."""

from __future__ import annotations

from qcli.errors import QcliError


def is_agreed(question: str, yes: bool, line: str) -> bool:
    """Whether a person agrees, or did before: `yes`. Raises QcliError where nobody can be asked; `line` is for its hint."""
    from qcli.line_input import agreed, is_interactive

    if yes:
        return True
    if not is_interactive():
        raise QcliError(f"there is nobody to ask: {question}", f"`{line} --yes` deletes without asking")
    return agreed(question)
