"""What a conversation was held with: its log's header, and what of it is different today."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qcli.sessions.model import Model


def header_of(llm: Model) -> dict[str, Any]:
    """The header of a conversation with this model."""
    template = hashlib.sha256(llm.template.source.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return {"model": llm.name, "path": str(llm.file.path.absolute()), "template": template}


def what_differs(header: Mapping[str, Any], llm: Model) -> str:
    """In words, what a conversation was held with and is not gone on with; "" if all is as it was."""
    now = header_of(llm)
    if header.get("model") != now["model"]:
        return f"it was held with {header.get('model') or 'another model'}, and {llm.name} goes on with it"
    return "" if header.get("template") == now["template"] else f"the chat template of {llm.name} has changed since"
