"""What protocols that give one answer to a request have in common."""

from __future__ import annotations

from typing import Self

from qcli.protocol.events import Event


class OneAnswer:
    """An exchange that has no parts but itself."""

    @property
    def parts(self) -> list[Self]:
        """The answers that it wants."""
        return [self]

    def closing(self) -> list[Event]:
        """The events after the end of all parts: none."""
        return []
