"""What a user is told once, and not again."""

from __future__ import annotations

from qcli.host import folders


def first_time(what: str) -> bool:
    """Whether this user has not been told of something yet; from now on, they have. No, if that cannot be noted.

    what: a name for it, fit for a file.
    """
    try:
        folder = folders.state() / "told"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / what).touch(exist_ok=False)
    except OSError:
        return False
    return True
