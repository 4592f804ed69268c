"""The body of a request as it comes over a connection: bounded in size, and in how long it may take."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.requests import Request

from qcli.protocol.body import MOST_BYTES
from qcli.protocol.errors import RequestError

_PATIENCE: Final = 30.0  # seconds for all of it
_READ: Final = 64 << 20  # bytes of one that is too large, after which it may well be cut: clients read no answer before


async def read_body(request: Request) -> bytes:
    """All of it. Raises RequestError for one that is too large or too slow, ClientDisconnect."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(_PATIENCE):
            async for part in request.stream():
                size += len(part)
                if size <= MOST_BYTES:
                    parts.append(part)
                elif size > _READ:
                    break
    except TimeoutError:
        raise RequestError("the body did not come in time", "send it faster", status=408) from None
    if size > MOST_BYTES:
        raise RequestError(f"the body is larger than {MOST_BYTES >> 20} MiB", "send less", status=413)
    return b"".join(parts)
