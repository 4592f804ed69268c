"""Which quant should I take? Quantize a model every way, and measure each: a table for docs/quantizing.md.

    python benchmarks/quant_table.py MODEL-BF16.gguf TEXT [MIX …] > table.md

Size, perplexity on the text, KL divergence from the original, and decoding speed by `qcli bench`. Files are made in a
temporary folder, one at a time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

MIXES = "Q8_0 Q6_K Q5_K_M Q5_K_S Q4_K_M Q4_K_S IQ4_NL IQ4_XS Q4_0 MXFP4_MOE Q3_K_L Q3_K_M Q3_K_S Q2_K".split()
HEADER = "| type | size | bits a weight | perplexity | mean KL | 99 % below | same top token | decoding |\n"
RULE = "|---|--:|--:|--:|--:|--:|--:|--:|\n"


def qcli(*arguments: str) -> dict | list:
    """What a command prints with --json."""
    done = subprocess.run([sys.executable, "-m", "qcli", *arguments, "--json"], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def speed(model: Path) -> str:
    """Tokens a second, decoding one by one."""
    (test,) = qcli("bench", "-m", str(model), "-p", "0", "-n", "128", "-r", "5")
    return f"{test['tok_per_s']:,.0f} tok/s"


def row(name: str, model: Path, scores: dict, bits: float) -> str:
    ppl = f"{scores['perplexity']:.2f} ± {scores['perplexity_error']:.2f}"
    kl, most, same = (
        f"{scores[key]:{form}}" for key, form in (("mean_kl", ".4f"), ("kl_99", ".3f"), ("same_top", ".1%"))
    )
    return f"| {name} | {model.stat().st_size / 1e6:.1f} MB | {bits:.2f} | {ppl} | {kl} | {most} | {same} | {speed(model)} |\n"


def main(original: str, text: str, *mixes: str) -> None:
    source = Path(original)
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "log-probs.gguf"
        qcli("perplexity", original, text, "--save-logits", str(kept))
        bits = qcli("quantize", original, "BF16", "--dry-run")["bits_per_weight"]
        print(HEADER + RULE, end="")
        print(row("BF16", source, qcli("perplexity", original, "--against", str(kept)), bits), end="", flush=True)
        for mix in mixes or MIXES:
            made = Path(folder) / f"{mix}.gguf"
            bits = qcli("quantize", original, str(made), mix, "--quiet")["bits_per_weight"]
            print(row(mix, made, qcli("perplexity", str(made), "--against", str(kept)), bits), end="", flush=True)
            made.unlink()


if __name__ == "__main__":
    main(*sys.argv[1:])
