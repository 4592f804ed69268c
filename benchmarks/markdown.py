"""What rendering an answer takes of the processor, token by token.

    python benchmarks/markdown.py [tokens] [columns]

An answer with all that Markdown has comes in pieces of four characters, about a token each, and is rendered for a terminal. Tells
milliseconds of processor time a token: mean, median, 99th percentile, and the most. The time goes where a word, a line of code
or a table is complete.
"""

from __future__ import annotations

import statistics
import sys
import time

TEXT = """
## A heading with `code`

Some prose, **bold words** and *others*, 漢字かな交じり文、そして絵文字 👩‍👩‍👧, a [link](https://example.org/a/path), `code in
a line`, and a paragraph that is long enough to be wrapped a few times by a terminal of eighty columns, as most of an answer is.

1. **First**: what is numbered
   - and nested, with ~~errors~~ mended
2. **Second**: what follows

> A quote of two lines, the first
> and the second.

```python
def area(width: float, height: float) -> float:
    return width * height  # square metres

for side in range(10):
    print(f"{side}: {area(side, side):.2f}")
```

| Name | Value | Note |
|:-----|------:|------|
| one | 1 | **bold** |
| two | 22 | `code` |
"""


def measured(tokens: int, columns: int) -> list[float]:
    """Milliseconds of processor time that each token takes."""
    from qcli.terminal.markdown import MarkdownWriter

    size = 0

    def count(text: str) -> None:
        nonlocal size
        size += len(text)

    writer = MarkdownWriter(count, lambda: columns)
    writer(TEXT)  # what is loaded once
    writer.close()
    text = TEXT * (tokens * 4 // len(TEXT) + 1)
    took = []
    for at in range(0, tokens * 4, 4):
        begun = time.thread_time_ns()
        writer(text[at : at + 4])
        took.append((time.thread_time_ns() - begun) / 1e6)
    return took


if __name__ == "__main__":
    tokens, columns = ([int(value) for value in sys.argv[1:]] + [10_000, 80][len(sys.argv) - 1 :])[:2]
    took = sorted(measured(tokens, columns))
    print(f"{tokens:,} tokens at {columns} columns, ms a token:", end=" ")
    print(f"mean {statistics.mean(took):.3f}, median {statistics.median(took):.3f}", end=", ")
    print(f"99th percentile {took[len(took) * 99 // 100]:.3f}, most {took[-1]:.2f}")
