"""The models that requests may name: the one that the server was started with, and those on this machine."""

from __future__ import annotations

from qcli.catalog.entries import load_catalog
from qcli.catalog.resolve import path_of
from qcli.errors import ModelNotFoundError
from qcli.local_models.search import search
from qcli.wording import shortened

_MOST_TOLD = 12  # names in an error


class KnownModels:
    """Names, none of which is a path: whoever asks cannot have any file opened."""

    def __init__(self, first: str, typed: str | None) -> None:
        """first: what the model is called that answers where none is named; typed: as it was named to the server."""
        self.first, self._typed = first, typed

    def names(self) -> list[str]:
        """All of them, the first one first."""
        here = [entry.name for entry in load_catalog().values() if path_of(entry)]
        return [*dict.fromkeys([self.first, *here, *(found.name for found in search().models)])]

    def name_of(self, asked: str | None) -> str:
        """The name of the model that a request asks for, in any case. Raises ModelNotFoundError."""
        if asked is None or asked.lower() == self.first.lower():
            return self.first
        names = self.names()
        if found := next((name for name in names if name.lower() == asked.lower()), None):
            return found
        more = ", …" if len(names) > _MOST_TOLD else ""
        raise ModelNotFoundError(
            f"there is no model {shortened(asked)!r} on this server", f"there are {', '.join(names[:_MOST_TOLD])}{more}"
        )

    def typed(self, name: str | None) -> str | None:
        """The word that `resolve` takes for a name."""
        return self._typed if name in (None, self.first) else name
