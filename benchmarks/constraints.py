"""What holding an answer to a schema takes of the processor, token by token, with a vocabulary of 151,936 tokens.

    python benchmarks/constraints.py [answers] [GGUF file]

A model of random logits, which favours the tokens of a given answer, is held to a schema with texts, numbers, choices and a list.
Tells seconds for what is done once (the vocabulary, which a thread makes while a model loads; the check of the schema; the first
mask), and milliseconds of processor time a token for what is done beside the model: finding what may or must come next, drawing
from it, and taking note of it. The same for drawing without a constraint.
"""

from __future__ import annotations

import gzip
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

VOCABULARY = Path(__file__).parents[1] / "tests" / "data" / "qwen2-vocab.gguf.gz"
SCHEMA = {
    "type": "object",
    "properties": {
        "invoice": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4,8}$"},
        "customer": {"type": "string"},
        "currency": {"enum": ["EUR", "USD", "GBP"]},
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "what": {"type": "string", "maxLength": 80},
                    "count": {"type": "integer", "minimum": 1},
                    "price": {"type": "number", "minimum": 0},
                },
                "required": ["what", "count", "price"],
                "additionalProperties": False,
            },
        },
        "total": {"type": "number"},
        "paid": {"type": "boolean"},
    },
    "required": ["invoice", "customer", "currency", "items", "total", "paid"],
    "additionalProperties": False,
}
ANSWER = {
    "invoice": "AB-20417",
    "customer": "The Old Bakery at the Market, Müller & Sons",
    "currency": "EUR",
    "items": [
        {"what": "wheat flour, finely ground, in bags of 25 kg", "count": 12, "price": 23.5},
        {"what": 'baking tins, "family size"', "count": 3, "price": 8.99},
    ],
    "total": 308.97,
    "paid": False,
}


def timed(work: Callable[[], object]) -> float:
    """Seconds that something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measured(answers: int, path: Path) -> tuple[list[float], list[float], int]:
    """Milliseconds of processor time a token with the schema and without, and how many tokens were forced."""
    from qcli.constraints.constraint import constraint
    from qcli.constraints.matcher import Matcher
    from qcli.constraints.vocabulary import Preparation
    from qcli.runtime.chooser import Chooser
    from qcli.runtime.guide import Guide
    from qcli.runtime.sampler import Sampler
    from qcli.runtime.sampling import Sampling
    from qcli.runtime.stats import Stats
    from qcli.runtime.thought_closer import ThoughtCloser
    from qcli.text.thoughts import AnswerParser

    preparation = Preparation(path)
    took = timed(preparation.vocabulary)
    vocabulary, tokenizer = preparation.vocabulary(), preparation.tokenizer()
    print(f"tokenizer and vocabulary of {vocabulary.end:,} tokens, beside loading: {took:.2f} s")
    print(f"check of the schema, before loading: {timed(lambda: constraint(schema=SCHEMA)):.4f} s")
    wanted = constraint(schema=SCHEMA)
    assert wanted
    start = partial(Matcher, vocabulary, wanted.grammar, is_json=True)
    print(f"first mask, before the first token: {timed(lambda: start().mask()):.4f} s")
    ids = tokenizer.encode(json.dumps(ANSWER, separators=(",", ":"), ensure_ascii=False), special=False)
    noise = np.random.default_rng(0).standard_normal((16, vocabulary.end)).astype(np.float32)
    held: list[float] = []
    plain: list[float] = []
    forced = 0
    Sampler(Sampling(seed=0), vocabulary.end).sample(noise[0], start().mask()[0])  # what is loaded once
    for seed in range(answers):
        parser = AnswerParser(tokenizer)
        closer = ThoughtCloser(parser, list)
        guide = Guide(parser, closer, vocabulary, start, tokenizer.end_ids, [], Stats())
        chooser = Chooser(Sampler(Sampling(seed=seed), vocabulary.end), guide.next_id, guide.mask)
        free = Sampler(Sampling(seed=seed), vocabulary.end)
        logits = np.empty(vocabulary.end, np.float32)
        for at, favoured in enumerate(ids):
            logits[:] = noise[at % 16]
            logits[favoured] = 30
            began = time.thread_time_ns()
            forced += guide.next_id() is not None
            id = chooser.sample(logits)
            list(guide.push(id))
            is_over = guide.is_over
            held.append((time.thread_time_ns() - began) / 1e6)
            began = time.thread_time_ns()
            free.sample(logits)
            plain.append((time.thread_time_ns() - began) / 1e6)
            if is_over:
                break
    return held, plain, forced // answers


def told(name: str, times: list[float]) -> str:
    """A line of figures."""
    ordered = sorted(times)
    high = ordered[len(ordered) * 99 // 100]
    middle, mean = statistics.median(ordered), statistics.mean(ordered)
    return f"{name:20} median {middle:.3f}  mean {mean:.3f}  99 % {high:.3f}  most {ordered[-1]:.3f} ms"


def main(answers: int = 50, file: str = "") -> None:
    """Measure, and print."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(file or Path(folder) / "vocabulary.gguf")
        if not file:
            with gzip.open(VOCABULARY) as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target)
        held, plain, forced = measured(answers, path)
    print(f"{len(held) // answers} tokens an answer, {forced} of them forced; processor time a token:")
    print(told("with the schema", held))
    print(told("without", plain))


if __name__ == "__main__":
    main(*(int(word) if word.isdecimal() else word for word in sys.argv[1:3]))  # type: ignore[arg-type]
