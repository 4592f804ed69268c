"""The body of a request as it comes over a connection: bounded in size, and in how long it may take."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.requests import Request

from qcli.protocol.body import MOST_BYTES
from qcli.protocol.errors import RequestError

_PATIENCE: Final = 30.0  # seconds for all of it


async def read_body(request: Request) -> bytes:
    """All of it. Raises RequestError for one that is too large or too slow, ClientDisconnect."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > MOST_BYTES:
        raise _too_large()
    parts, size = [], 0
    try:
        async with asyncio.timeout(_PATIENCE):
            async for part in request.stream():
                parts.append(part)
                size += len(part)
                if size > MOST_BYTES:
                    raise _too_large()
    except TimeoutError:
        raise RequestError("the body did not come in time", "send it faster", status=408) from None
    return b"".join(parts)


def _too_large() -> RequestError:
    return RequestError(f"the body is larger than {MOST_BYTES >> 20} MiB", "send less", status=413)
