"""One model of models.toml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qcli.hub.address import Address


@dataclass(frozen=True)
class Entry:
    """One model of models.toml: in this package (asset), on huggingface.co (repo), or the user's own (local, alias_of).

    Of a repository one file is meant, or one quantization, or what suits best.
    """

    name: str
    description: str = ""
    bytes: int = 0
    sha256: str = ""
    local: str = ""
    alias_of: str = ""  # the name of another one, whose file it is
    asset: str = ""
    repo: str = ""
    file: str = ""
    quant: str = ""
    shape: str = ""  # that of `qcli.bench.shapes` which it has
    aliases: tuple[str, ...] = ()  # other names that mean it
    note: str = ""  # goes on with the name: what a person has to know who talks with it
    named: str = ""  # a pattern for general.name: files that match get the same sampling options
    sampling: Mapping[str, float | int] = field(default_factory=dict)

    @property
    def address(self) -> Address | None:
        """Where it is on huggingface.co, if it is there."""
        return Address(self.repo, self.quant or None, self.file or None) if self.repo else None
