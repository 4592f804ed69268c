"""A forecast in words."""

from __future__ import annotations

from qcli.forecast.result import Forecast
from qcli.wording import size


def verdict(result: Forecast) -> str:
    """Whether it fits, in a line."""
    memory, streaming = result.memory, result.streaming
    if result.mode == "resident":
        return f"resident: it needs {size(memory.needed)}, and all of it stays in memory"
    if streaming is None:
        return f"too large: it needs at least {size(memory.needed)}, or a smaller --ctx, or a smaller file of the model"
    usage = "as earlier runs used them" if streaming.usage_known else "if all are as likely"
    return (
        f"streamed: it needs {size(memory.needed)} to stay in memory; room for {streaming.slots} of"
        f" {streaming.experts_per_layer} experts in each layer\n{streaming.hit_rate:.0%} of a token's experts"
        f" will be in memory ({usage}); a token reads"
        f" {size(streaming.bytes_per_token)} from the disk, which gives {size(streaming.disk_bytes_per_s)}/s"
    )


def rate(tok_per_s: float) -> str:
    """A speed, to be followed by tok/s."""
    return f"{tok_per_s:,.{0 if tok_per_s >= 20 else 1}f}"
