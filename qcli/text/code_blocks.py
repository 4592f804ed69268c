"""The blocks of code in a Markdown text."""

from __future__ import annotations

import re

_FENCE = re.compile(r"( *)(`{3,}|~{3,})([^\n]*)")


def code_blocks(text: str) -> list[str]:
    """What stands between fences, without them and as far to the left as they stand; the last one may be unclosed."""
    blocks: list[str] = []
    indent, fence = 0, ""
    lines: list[str] = []
    for line in text.splitlines(keepends=True):
        found = _FENCE.fullmatch(line.rstrip("\r\n"))
        if not fence:
            if found and not ("`" in found[2] and "`" in found[3]):
                indent, fence, lines = len(found[1]), found[2], []
        elif found and found[2].startswith(fence) and not found[3].strip():
            blocks.append("".join(lines))
            fence = ""
        else:
            lines.append(line[min(indent, len(line) - len(line.lstrip(" "))) :])
    return [*blocks, "".join(lines)] if fence else blocks
