"""What keeping conversations costs a turn, and what it saves: resume, edit and fork of a long chat.

    python benchmarks/sessions.py MODEL [--tokens 4096] [--pairs 20] [--ram SIZE] [--threads N]

Turns are asked in pairs, one without and one with states on disk, in turns; processor time is that of the thread that
answers. The states lie in a folder of their own, which is deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

from qcli import LLM
from qcli.host.memory import process_memory
from qcli.runtime.engine import Engine

HOW: dict[str, Any] = {"temperature": 0.7, "seed": 1}
Talk = list[dict[str, Any]]


def ask(llm: LLM, talk: Talk, text: str, max_tokens: int = 32) -> tuple[Talk, float, float]:
    """Ask one thing; the talk with the answer, seconds of the thread that answers, seconds of the clock."""
    talk = [*talk, {"role": "user", "content": text}]
    began, used = perf_counter(), thread_time()
    answer = llm.chat(talk, max_tokens=max_tokens, **HOW)
    said = "".join(answer)
    seconds = thread_time() - used, perf_counter() - began
    return [*talk, {"role": "assistant", "content": said, "ids": answer.ids}], *seconds


def long_text(llm: LLM, tokens: int) -> str:
    """A text of about so many tokens."""
    words = "The cat sat on the mat and the dog came by to look at the bird in the tree. "
    return words * (tokens // len(llm.tokenize(words)))


def pairs(model: str, count: int, options: dict[str, Any]) -> None:
    """Turns with and without states on disk."""
    with LLM(model, **options) as plain, LLM(model, keep="turns", **options) as keeping:
        talks: dict[LLM, Talk] = {plain: [], keeping: []}
        for llm in talks:
            talks[llm] = ask(llm, [], "Hello.")[0]
        found = []
        for i in range(count):
            times = {}
            for llm in (plain, keeping) if i % 2 else (keeping, plain):
                talks[llm], *times[llm] = ask(llm, talks[llm], f"And then, {i}?")
                if keeping._cache.store:
                    keeping._cache.store.wait()
            found.append([times[keeping][n] / times[plain][n] for n in range(2)])
    processor, clock = (
        [statistics.median(pair[n] for pair in found), *sorted(pair[n] for pair in found)] for n in range(2)
    )
    print(f"{count} pairs, with states / without, median (least to most):")
    print(f"  processor time of the thread {processor[0]:.3f} ({processor[1]:.3f} to {processor[-1]:.3f})")
    print(f"  time of the clock            {clock[0]:.3f} ({clock[1]:.3f} to {clock[-1]:.3f})")


def written(folder: Path) -> int:
    """Bytes of all states."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def build(model: str, tokens: int, options: dict[str, Any], folder: Path) -> Talk:
    """A chat of so many tokens, kept on disk."""
    with LLM(model, keep="turns", **options) as llm:
        began = perf_counter()
        talk, *_ = ask(llm, [], long_text(llm, tokens))
        print(f"{llm.engine.position} tokens read and answered in {perf_counter() - began:.1f} s", end="")
        assert llm._cache.store
        llm._cache.store.wait()
        before = written(folder)
        print(f", {before / 1e6:.1f} MB on disk")
        talk, *_ = ask(llm, talk, "What about the bird?", max_tokens=8)
        llm._cache.store.wait()
        state = llm.engine.state
        turn = f"{llm.stats.prefilled_tokens} + {llm.stats.new_tokens} tokens"
        print(f"the next turn: {turn}, {(written(folder) - before) / 1e6:.1f} MB")
        print(
            f"recurrent states {state.recurrent_bytes / 1e6:.2f} MB, rows {state.cache_bytes / state.ctx:.0f} bytes a token"
        )
        edited, *_ = ask(llm, talk[:-2], "What about the dog?")
        print(
            f"edit of the last message: {llm.stats.prompt_tokens} tokens of prompt, {llm.stats.prefilled_tokens} prefilled"
        )
        ask(llm, talk[:-2], "What about the bird?")
        print(f"back in the first branch: {llm.stats.prefilled_tokens} prefilled")
        assert edited != talk
    return talk


def resumed(model: str, talk: Talk, options: dict[str, Any]) -> None:
    """In a new process: bring the chat back, and go on with its cut answer."""
    with LLM(model, keep="turns", **options) as llm:
        llm.tokenize(""), llm.template
        began = perf_counter()
        came = llm.resume(talk)
        back = perf_counter() - began
        steps = []
        whole = Engine.step

        def timed(engine: Engine, token: int) -> Any:
            began = perf_counter()
            logits = whole(engine, token)
            steps.append(perf_counter() - began)
            return logits

        Engine.step = timed  # type: ignore[method-assign]
        began = perf_counter()
        pieces = llm.chat(talk[:-1], begun=talk[-1]["ids"], max_tokens=24, **HOW)
        first = next(pieces, "")
        ready = perf_counter() - began
        list(pieces)
        step = statistics.median(steps[2:])
        print(f"resumed in a new process: {came.tokens} tokens, {came.missing} to compute, {back * 1e3:.0f} ms")
        print(
            f"go on with the answer: {llm.stats.prefilled_tokens} prefilled, TTFT {llm.stats.ttft_s * 1e3:.1f} ms",
            end="",
        )
        print(
            f" ({llm.stats.ttft_s / step:.2f} steps of {step * 1e3:.1f} ms), first text after {ready * 1e3:.0f} ms: {first!r}"
        )


def forks(model: str, talk: Talk, count: int, options: dict[str, Any]) -> None:
    """Memory of many forks of the chat, with nothing on disk."""
    with LLM(model, **options) as llm:
        ask(llm, talk[:2], "Go on.")
        began = process_memory()
        for i in range(count):
            ask(llm, talk[:2], f"And what of number {i}?")
        print(
            f"{count} forks: {llm._cache.kept.n_bytes / 1e6:.1f} MB kept, at most {llm._cache.kept.most_bytes / 1e6:.1f} MB;",
            end="",
        )
        print(f" the process grew by {(process_memory() - began) / 1e6:.1f} MB to {process_memory() / 1e9:.2f} GB")
        ask(llm, talk[:2], f"And what of number {count - 1}?")
        print(f"the last fork again: {llm.stats.prefilled_tokens} of {llm.stats.prompt_tokens} prefilled")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--ram")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--talk", help=argparse.SUPPRESS)
    given = parser.parse_args()
    options = {"threads": given.threads, "ram": given.ram, "ctx": given.tokens + 4096}
    if given.talk:
        resumed(given.model, json.loads(Path(given.talk).read_text()), options)
        return
    with tempfile.TemporaryDirectory() as folder:
        states = Path(folder)
        os.environ["QCLI_CACHE_DIR"], kernels = str(states), os.environ.get("QCLI_CACHE_DIR")
        (states / "kernels").symlink_to(Path(kernels or default_cache()) / "kernels")
        talk = build(given.model, given.tokens, options, states / "states")
        (states / "talk.json").write_text(json.dumps(talk))
        command = [sys.executable, __file__, *sys.argv[1:], "--talk", str(states / "talk.json")]
        subprocess.run(command, check=True)
        forks(given.model, talk, 20, options)
        pairs(given.model, given.pairs, options)


def default_cache() -> Path:
    """Where kernels are kept without QCLI_CACHE_DIR."""
    from platformdirs import user_cache_path

    return user_cache_path("qcli", appauthor=False)


if __name__ == "__main__":
    main()
