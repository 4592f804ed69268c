"""A conversation of another day, or of another branch, is brought back into the state."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple

from qcli.errors import ContextOverflowError
from qcli.progress import Progress
from qcli.runtime.chat_prompts import ChatPrompts, Message
from qcli.runtime.checkpoint import NO_MARKS, Keep, Marks
from qcli.runtime.prefix_cache import PrefixCache

_SOON_READ = 16  # tokens: what a template writes between an answer and the next message


class Resumed(NamedTuple):
    """What came back of a conversation."""

    tokens: int
    missing: int  # of them, those that had to be prefilled
    seconds: float


def resume(
    cache: PrefixCache, prompts: ChatPrompts, messages: Sequence[Message], keep: Keep, progress: Progress | None
) -> Resumed:
    """Bring the state to a conversation, from memory or disk, and prefill what neither has.

    Raises ContextOverflowError if the context has no room for it.
    """
    began = perf_counter()
    ids = prompts.settled(messages)
    if len(ids) > cache.engine.ctx:
        message = f"the conversation has {len(ids)} tokens, and the context holds {cache.engine.ctx}"
        raise ContextOverflowError(
            message, (f"give --ctx {len(ids) + 512} (ctx= in Python) if memory allows", "begin another conversation")
        )
    missing = len(ids) - cache.rewind(ids)
    if missing > _SOON_READ:
        end = frozenset({len(ids)})
        cache.prefill(ids, progress, Marks(end, end) if keep == "turns" else NO_MARKS)
        return Resumed(len(ids), missing, perf_counter() - began)
    return Resumed(len(ids), 0, perf_counter() - began)
