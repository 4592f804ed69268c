"""An LLM with threads of its own: closed, closed twice, forked, dropped, interrupted."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time

import pytest

import qcli
from qcli import LLM
from qcli.errors import QcliError
from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine
from qcli.streaming import budget, usage_file

USER = {"role": "user", "content": "Tell me a story."}
GREEDY = {"temperature": 0, "max_tokens": 4}
USES = {
    "tokenizer": lambda llm: llm.tokenizer,
    "template": lambda llm: llm.template,
    "think_tags": lambda llm: llm.think_tags,
    "thinking": lambda llm: llm.thinking,
    "tokenize": lambda llm: llm.tokenize("a"),
    "detokenize": lambda llm: llm.detokenize([300]),
    "render": lambda llm: llm.render([USER]),
    "sampling": lambda llm: llm.sampling(),
    "logits": lambda llm: llm.logits([300]),
    "generate": lambda llm: llm.generate("a"),
    "chat": lambda llm: llm.chat([USER]),
    "with": lambda llm: llm.__enter__(),
    "prefill": lambda llm: llm.engine.prefill([300, 301]),
    "step": lambda llm: llm.engine.step(300),
    "engine.logits": lambda llm: llm.engine.logits([300, 301]),
}


def threads_end(before: int) -> bool:
    """Whether there are soon as many threads as before."""
    until = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    return threading.active_count() <= before


@pytest.fixture
def streaming(monkeypatch, tmp_path):
    """As if memory were too small for any model's experts."""
    monkeypatch.setattr(budget, "fits", lambda *_: False)
    monkeypatch.setattr(usage_file, "path_for", lambda _: tmp_path / "usage")
    return tmp_path / "usage"


@pytest.fixture(scope="module")
def closed():
    llm = LLM(threads=2)
    llm.close()
    return llm


@pytest.mark.parametrize("use", USES)
def test_after_close_every_use_says_so(closed, use):
    with pytest.raises(QcliError, match="this model was closed") as caught:
        USES[use](closed)
    assert str(closed.file.path) not in str(caught.value)


def test_after_close_what_was_read_before_does_not_work_by_chance():
    with LLM(threads=2) as llm:
        list(llm.chat([USER], **GREEDY))
    for use in USES.values():
        if use not in [USES[kept] for kept in ("tokenizer", "template", "think_tags", "thinking")]:
            with pytest.raises(QcliError, match="this model was closed"):
                use(llm)
    assert llm.stats.new_tokens == 4
    assert repr(llm) == "<LLM storyteller: closed>"


def test_what_is_there_is_shown():
    assert "LLM" in dir(qcli)
    with LLM(threads=2, ctx=64) as llm:
        list(llm.generate("Once", **GREEDY))
        assert repr(llm) == "<LLM storyteller: 2 threads, 4 of 64 tokens of context used>"
        assert repr(llm.engine) == "<Engine: 2 threads, 4 of 64 tokens of context used>"
        assert repr(llm.tokenizer) == "<Tokenizer: ByteLevel, 8192 tokens>"
    assert repr(llm.engine) == "<Engine: 2 threads, closed>"


def test_closing_twice_closes_no_file_of_others(streaming):
    llm = LLM(threads=2)
    list(llm.generate("Once", **GREEDY))
    llm.close()
    with open(os.devnull) as one, open(os.devnull) as other:
        llm.engine.close()
        llm.engine.expert_loader.cache.reader.close()
        llm.close()
        os.fstat(one.fileno()), os.fstat(other.fileno())


def test_close_in_a_progress_callback_ends_the_prefill():
    llm = LLM(threads=2, progress=lambda stage, fraction: stage.startswith("reading") and llm.close())
    with pytest.raises(QcliError, match="closed"):
        list(llm.generate("Once upon a time " * 100, **GREEDY))


def test_an_exception_in_a_progress_callback_spoils_nothing():
    def fail(stage, fraction):
        if stage.startswith("reading") and failing:
            raise ZeroDivisionError

    failing = [True]
    prompt = "Once upon a time " * 200
    with LLM(threads=2, progress=fail) as llm:
        with pytest.raises(ZeroDivisionError):
            list(llm.generate(prompt, **GREEDY))
        failing.clear()
        assert "".join(llm.generate(prompt, **GREEDY)) == "".join(llm.generate(prompt, **GREEDY)) != ""


def test_an_exception_while_it_loads_leaves_no_thread(streaming):
    def fail(stage, fraction):
        if stage == "compiling kernels (once)":
            raise ZeroDivisionError

    before = threading.active_count()
    with pytest.MonkeyPatch.context() as now:
        now.setattr("qcli.runtime.programs._compile", lambda *_: fail("compiling kernels (once)", 0.5))
        with pytest.raises(ZeroDivisionError):
            LLM(threads=2)
    assert threading.active_count() == before


@pytest.mark.parametrize("begun", [False, True])
def test_one_that_is_dropped_ends_its_threads(begun):
    before = threading.active_count()
    llm = LLM(threads=2)
    answer = llm.generate("Once", **GREEDY)
    if begun:
        next(answer)
    assert threading.active_count() > before
    del llm, answer
    assert threads_end(before)


def test_one_that_is_dropped_ends_its_io_threads_and_saves_no_usage(streaming):
    before = threading.active_count()
    llm = LLM(threads=2)
    list(llm.generate("Once", **GREEDY))
    del llm
    assert threads_end(before)
    assert not streaming.exists()


def test_an_answer_keeps_what_it_needs():
    answer = LLM(threads=2).generate("Once", **GREEDY)
    assert len(list(answer)) > 0


def test_three_threads_get_their_answers():
    """Each the one that it would get alone, with figures of its own."""
    found: dict[int, tuple[str, int]] = {}

    def ask(number: int) -> None:
        text = "".join(llm.generate("Once", temperature=0, max_tokens=20 + 20 * number))
        found[number] = text, llm.stats.new_tokens

    with LLM(threads=2) as llm:
        expected = "".join(llm.generate("Once", temperature=0, max_tokens=60))
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert [found[number][1] for number in range(3)] == [20, 40, 60]
    assert found[2][0] == expected
    assert expected.startswith(found[0][0])


def test_close_while_another_thread_reads():
    llm, said = LLM(threads=2), []
    began = threading.Event()

    def read() -> None:
        try:
            for _ in llm.generate("Once", temperature=0, max_tokens=1500):
                began.set()
        except QcliError as problem:
            said.append(str(problem))

    reader = threading.Thread(target=read)
    reader.start()
    began.wait(60)
    llm.close()
    reader.join(60)
    assert len(said) == 1
    assert "closed" in said[0]


FORKED = """
import os, sys
from qcli import LLM
from qcli.errors import QcliError

llm = LLM(threads=2)
answer = llm.generate("Once", max_tokens=60, temperature=0)
next(answer)
child = os.fork()
if not child:
    code = 1
    try:
        for use in (lambda: next(answer), lambda: llm.generate("a"), lambda: llm.logits([300]), lambda: llm.engine.step(300)):
            try:
                use()
            except QcliError as problem:
                assert "before the process was forked" in str(problem), problem
            else:
                raise AssertionError
        llm.tokenize("a")
        llm.close()
        llm.close()
        del answer, llm
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(len(list(answer)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX has fork")
@pytest.mark.parametrize("streamed", [False, True])
def test_a_forked_child_is_told(streamed):
    more = "from qcli.streaming import budget\nbudget.fits = lambda *_: False\n" if streamed else ""
    done = subprocess.run([sys.executable, "-c", more + FORKED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20  # the parent reads on


def test_an_engine_is_dropped_without_the_collector(storyteller):
    before = threading.active_count()
    gc.disable()
    try:
        engine = Engine.load(GGUFFile.open(storyteller), threads=3, ctx=64)
        engine.prefill([300, 301])
        del engine
        assert threads_end(before)
    finally:
        gc.enable()
