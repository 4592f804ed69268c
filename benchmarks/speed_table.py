"""Put what `qcli bench --json` measured into docs/speed.md, as the table between its two marks.

qcli bench --shape qwen3-next-80b-a3b --layers 4 -p 64,512,2048 -d 0,4096,16384 -t 2 --json > one.json
python benchmarks/speed_table.py docs/speed.md one.json [another.json …]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

BEGIN, END = "<!-- speed: written by benchmarks/speed_table.py -->\n", "<!-- /speed -->\n"
HEADER = "| machine | threads | test | tok/s | GB/s | of what memory gives |\n|---|--:|---|--:|--:|--:|\n"


def row(test: dict) -> str:
    """One test as a row; the share of the roofline means something where weights are read once a token."""
    machine, depth = test["machine"], f" @ {test['depth']}" if test["depth"] else ""
    decodes = test["test"].startswith("tg")
    name = test["test"].split(" ")[0] + depth
    share = f"{test['roofline']:.0%} of {machine['bandwidth_gb_per_s']:.0f} GB/s" if decodes else ""
    moved = f"{test['gb_per_s']:.1f}" if decodes else ""
    where = f"{machine['cpu']}, {machine['cores']} cores"
    return f"| {where} | {test['threads']} | {name} | {test['tok_per_s']:.0f} ± {test['stdev']:.0f} | {moved} | {share} |\n"


def main(readme: str, *files: str) -> None:
    tests = [test for file in files for test in json.loads(Path(file).read_text())]
    text = Path(readme).read_text()
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    Path(readme).write_text(before + "\n" + HEADER + "".join(map(row, tests)) + "\n" + after)


if __name__ == "__main__":
    main(*sys.argv[1:])
