"""Which number of threads, and how many tokens of a prompt at a time, are the fastest for a model: all are tried in turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import median
from typing import Final, Literal

from qcli.bench.cases import Case
from qcli.bench.measure import Rigs, load_rigs
from qcli.bench.rig import Rig
from qcli.doctor.memory import thread_counts
from qcli.gguf.file import GGUFFile
from qcli.host.threads import default_threads
from qcli.progress import Progress
from qcli.runtime.engine import DEFAULT_CHUNK

PROMPT, ANSWER = 256, 16  # tokens
CHUNKS: Final = (DEFAULT_CHUNK // 4, DEFAULT_CHUNK // 2, DEFAULT_CHUNK, 2 * DEFAULT_CHUNK)
_ROUNDS: Final = 3  # after one that warms up
_NEAR: Final = 0.97  # of the best: within what one and the same varies by
_SECONDS: Final = 60.0  # that chunks may take

Setup = tuple[int, int]  # threads, and tokens of a prompt at a time; 0: as many as the engine chooses


@dataclass(frozen=True)
class Tried:
    """What one choice gave."""

    threads: int
    chunk: int  # tokens of a prompt that go through the layers together
    prompt_tok_per_s: float
    answer_tok_per_s: float | None = None

    @property
    def score(self) -> float:
        """Prompts and answers count alike."""
        return sqrt(self.prompt_tok_per_s * (self.answer_tok_per_s or self.prompt_tok_per_s))


def try_threads(file: GGUFFile, ram: int | None, progress: Progress) -> list[Tried]:
    """Each number of threads, up to all that the processor runs at a time, fewest first. Raises as Engine.load."""
    counts = sorted({*thread_counts(), max(1, default_threads() * 3 // 4)})
    return _tried(file, [(count, 0) for count in counts], PROMPT, ANSWER, ram, progress)


def try_chunks(file: GGUFFile, threads: int, tok_per_s: float, ram: int | None, progress: Progress) -> list[Tried]:
    """Prompts cut into pieces of several sizes; none where that would take too long. tok_per_s: of prompts, about."""
    longest = file.get_int(f"{file.get_str('general.architecture')}.context_length")
    tokens = min(max(CHUNKS), longest, int(_SECONDS * tok_per_s / len(CHUNKS) / (1 + _ROUNDS)))
    chunks = [chunk for chunk in CHUNKS if chunk <= tokens]
    if len(chunks) < 2:
        return []
    return _tried(file, [(threads, chunk) for chunk in chunks], max(chunks), 0, ram, progress)


def best(tried: Sequence[Tried], usual: Tried | None) -> Tried:
    """The usual choice if hardly any is faster, else the first that is about as fast as the fastest."""
    enough = _NEAR * max(one.score for one in tried)
    if usual and usual.score >= enough:
        return usual
    return next(one for one in tried if one.score >= enough)


def _tried(
    file: GGUFFile, setups: list[Setup], prompt: int, answer: int, ram: int | None, progress: Progress
) -> list[Tried]:
    """In turns, so that a machine whose speed drifts does so for all; a streamed model's one after the other."""
    rigs = _load(file, setups[:1], prompt, answer, ram, progress)
    if next(iter(rigs.values())).traffic is None:
        rigs |= _load(file, setups[1:], prompt, answer, ram, progress)
        return _in_turns(rigs, prompt, answer, progress)
    found = _in_turns(rigs, prompt, answer, progress)
    for setup in setups[1:]:
        found += _in_turns(_load(file, [setup], prompt, answer, ram, progress), prompt, answer, progress)
    return found


def _load(file: GGUFFile, setups: list[Setup], prompt: int, answer: int, ram: int | None, progress: Progress) -> Rigs:
    cases = [case for setup in setups for case in _cases(setup, prompt, answer)]
    return load_rigs(file, cases, ram=ram, progress=progress) if cases else {}


def _cases(setup: Setup, prompt: int, answer: int) -> list[Case]:
    kinds: list[tuple[Literal["pp", "tg"], int]] = [("pp", prompt), ("tg", answer)]
    return [Case(kind, tokens, 0, *setup) for kind, tokens in kinds if tokens]


def _in_turns(rigs: Rigs, prompt: int, answer: int, progress: Progress) -> list[Tried]:
    """What each rig gives; they are closed."""
    seconds: dict[tuple[Setup, str], list[float]] = {}
    try:
        for turn in range(1 + _ROUNDS):
            for done, (setup, rig) in enumerate(rigs.items()):
                progress("measuring", (turn + done / len(rigs)) / (1 + _ROUNDS))
                for case in _cases(setup, prompt, answer):
                    seconds.setdefault((setup, case.kind), []).append(rig.run(case))
        return [_speeds(setup, rig, seconds, prompt, answer) for setup, rig in rigs.items()]
    finally:
        for rig in rigs.values():
            rig.close()


def _speeds(setup: Setup, rig: Rig, seconds: dict[tuple[Setup, str], list[float]], prompt: int, answer: int) -> Tried:
    """Of the median turn after the first."""
    prompts = prompt / median(seconds[setup, "pp"][1:])
    answers = answer / median(seconds[setup, "tg"][1:]) if answer else None
    return Tried(setup[0], rig.chunk, prompts, answers)
