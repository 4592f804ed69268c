"""The seed of each answer of a conversation: drawn, or counted up from one that holds for all."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

from qcli.sessions.session import Message

_SEEDS = 1 << 64


def seeded(usual: dict[str, Any], given: dict[str, Any], before: Iterable[Message]) -> dict[str, Any]:
    """The options of an answer, `given` ones in place of usual ones, with a seed; before: all messages so far."""
    options = {**usual, **given}
    if options.get("seed") is None:
        options["seed"] = secrets.randbits(32)
    elif "seed" not in given:  # one seed, and still another answer each time
        options["seed"] = (options["seed"] + sum(message.role == "assistant" for message in before)) % _SEEDS
    return options
