"""qcli run: streams, prompts, exit codes; over an engine of a few lines, then over the embedded model itself."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from qcli import console, interrupt
from qcli.commands.answer import figures, short_figures
from qcli.runtime.engine import Engine
from qcli.runtime.stats import Stats

QCLI = [sys.executable, "-m", "qcli"]


def asked(engine, tokenizer):
    """The prompt that the engine was given."""
    return tokenizer.decode(engine.ids[: engine.fed[0]], special=True)


def test_the_answer_on_stdout_and_one_line_of_figures_on_stderr(telling, type_line):
    code, out, err = type_line("run", "Tell me", "--stats")
    assert (code, out) == (0, "A cat sat.\n")
    assert err.count("\n") == 1
    for figure in ("prompt tokens at", "tok/s", "first token after", "4 new at", "GB/s", "5 of 32 experts"):
        assert figure in err


def test_figures_are_told_where_somebody_sees_them_or_asks_for_them(telling, type_line, monkeypatch):
    assert type_line("run", "Tell me") == (0, "A cat sat.\n", "")
    assert "first token after" in type_line("run", "Tell me", "--verbose")[2]
    assert "first token after" in type_line("run", "Tell me", "--json", "--stats")[2]
    assert type_line("run", "Tell me", "--stats", "-q")[0] == 2
    monkeypatch.setattr("qcli.console.stderr_columns", lambda: 80)
    assert "for real talk: `qcli models`" in type_line("run", "Tell me")[2].splitlines()[0]  # once
    err = type_line("run", "Tell me")[2]
    assert re.fullmatch(r"[\d,.]+ tok/s · [\d.]+ s · context \d+ % full\n", err)


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.03, "0.03 s"), (0.1, "0.1 s"), (5.04, "5.0 s"), (12.4, "12 s"), (59.6, "1 min 0 s")]
)
def test_short_figures(seconds, told):
    stats = Stats(prompt_tokens=3, ttft_s=seconds / 2, decode_s=seconds / 2, decode_steps=0)
    assert short_figures(stats, 3, 400) == [told, "context 1 % full"]
    assert short_figures(Stats(), 0, 400) == []


def test_quiet(telling, type_line):
    assert type_line("run", "Tell me", "--quiet") == (0, "A cat sat.\n", "")


def test_json_is_one_object_with_these_fields_and_all_there_is(telling, type_line):
    code, out, err = type_line("run", "Tell me", "--json")
    answer = json.loads(out)
    assert (code, err) == (0, "")
    assert list(answer) == ["model", "text", "thoughts", "prompt_tokens", "new_tokens", "finish_reason", "timings"]
    assert list(answer["timings"]) == ["load_s", "ttft_s", "prefill_tok_per_s", "decode_tok_per_s"]
    assert (answer["text"], answer["finish_reason"]) == ("A cat sat.", "stop")
    assert (answer["model"], answer["prompt_tokens"]) == ("storyteller", telling.fed[0])


@pytest.mark.parametrize(
    ("arguments", "piped", "prompt"),
    [
        (["Tell me"], "", "Tell me"),
        ([], "Tell\nme\n", "Tell\nme"),
        (["Sum this up:"], "a\r\nb\r\n", "Sum this up:\n\na\r\nb"),
        (["zażółć"], "", "zażółć"),
    ],
)
def test_prompts_come_as_argument_from_stdin_or_both(
    telling, type_line, storyteller_tokenizer, arguments, piped, prompt
):
    assert type_line("run", "--raw", *arguments, piped=piped)[0] == 0
    assert asked(telling, storyteller_tokenizer) == prompt


def test_the_chat_template_is_the_default(telling, type_line, storyteller_tokenizer):
    type_line("run", "Hi", "--system", "Be brief.")
    assert asked(telling, storyteller_tokenizer) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_stop_and_max_tokens(telling, type_line):
    assert type_line("run", "x", "-q", "--stop", "none", "--stop", " sat")[1] == "A cat\n"
    assert json.loads(type_line("run", "x", "--json", "--max-tokens", "1")[1])["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "there is no prompt"),
        (["  "], "there is no prompt"),
        (["x", "--bogus"], "--bogus"),
        (["x", "--top-p", "2"], "--top-p"),
        (["x", "--temperature", "nan"], "--temperature"),
        (["x", "--temperature", "warm"], "--temperature"),
        (["x", "--max-tokens", "0"], "--max-tokens"),
        (["x", "--threads", "0"], "--threads"),
        (["x", "--threads", "100000"], "--threads"),
        (["x", "--repeat-penalty", "0"], "--repeat-penalty"),
        (["x", "--stop", ""], "stop string"),
        (["x", "--raw", "--system", "y"], "--system"),
        (["x", "y"], "y"),
    ],
)
def test_what_cannot_be_meant_exits_with_2(telling, type_line, arguments, said):
    code, out, err = type_line("run", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert_one_line_and_a_hint(err)


@pytest.mark.parametrize("model", ["/no/such/file.gguf", "storytaler", ".", ""])
def test_a_model_that_is_not_there_is_an_error(type_line, model):
    code, out, err = type_line("run", "x", "-m", model)
    assert (code, out) == (1 if model else 2, "")  # no name at all is a mistake of the line
    assert_one_line_and_a_hint(err)


def test_a_file_that_is_no_model_exits_with_1(type_line, tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF\x03\0\0\0")
    code, out, err = type_line("run", "x", "-m", str(tmp_path / "m.gguf"))
    assert (code, out) == (1, "")
    assert_one_line_and_a_hint(err)


def test_a_prompt_beyond_the_context_exits_with_1(telling, type_line):
    code, out, err = type_line("run", "word " * 400)
    assert (code, out) == (1, "")
    assert "--ctx" in err
    assert_one_line_and_a_hint(err)


def test_even_a_bug_is_one_line(telling, type_line, monkeypatch):
    monkeypatch.setattr(telling, "reset_traffic", lambda: 1 / 0)
    code, _, err = type_line("run", "x")
    assert code == 1
    assert "ZeroDivisionError" in err
    assert_one_line_and_a_hint(err)


def assert_one_line_and_a_hint(err):
    first, second = err.splitlines()
    assert first.startswith("error: ")
    assert second.startswith("hint: ")


def interrupt_at(engine, step):
    """Let Ctrl-C strike inside the given step of the answer."""
    whole = engine.step

    def interrupted(token):
        if engine.fed and len(engine.ids) - sum(engine.fed) == step:
            raise KeyboardInterrupt
        return whole(token)

    engine.step = interrupted


def test_ctrl_c_keeps_what_was_printed_and_exits_with_130(telling, type_line):
    interrupt_at(telling, 1)
    code, out, err = type_line("run", "x", "--stats")
    assert (code, out) == (130, "A cat\n")
    assert "2 new" in err


def test_ctrl_c_with_json_prints_what_there_is(telling, type_line):
    interrupt_at(telling, 1)
    code, out, _ = type_line("run", "x", "--json")
    assert (code, json.loads(out)["finish_reason"], json.loads(out)["text"]) == (130, "cancelled", "A cat")


def test_ctrl_c_while_loading_exits_with_130_in_silence(type_line, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "load", interrupted)
    assert type_line("run", "x") == (130, "", "")


def test_help_version_and_nothing(type_line):
    for arguments in (["--help"], ["-h"], []):
        code, out, err = type_line(*arguments)
        assert (code, err) == (0, "")
        assert all(command in out for command in ("run", "chat", "show", "models"))
    assert type_line("--version")[1].startswith("qcli ")
    assert "--repeat-penalty" in type_line("run", "--help")[1]
    assert type_line("cook")[0] == 2


def test_each_command_is_told_in_one_line(type_line):
    _, out, _ = type_line("--help")
    assert "..." not in out.partition("Commands:")[2]


def test_help_loads_nothing_heavy():
    code = "import sys, qcli.cli; print([m for m in ('numpy', 'numba', 'rich', 'jinja2') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


# --- the embedded model, in a process of its own -----------------------------------------------------------------

STORY = [*QCLI, "run", "--raw", "Once upon a time", "--temperature", "0", "-t", "1"]


def test_the_embedded_model_tells_a_story():
    done = subprocess.run([*STORY, "-n", "24", "--stats"], input=b"", capture_output=True, timeout=300)
    story = done.stdout.decode()
    assert done.returncode == 0
    assert len(story.split()) > 10
    assert "\x1b" not in story + done.stderr.decode()
    assert "24 new" in done.stderr.decode()


def test_one_seed_one_story():
    command = [*QCLI, "run", "Tell me a story.", "--json", "--seed", "11", "-n", "16", "-t", "1"]
    stories = [json.loads(subprocess.check_output(command, input=b"", timeout=300)) for _ in range(2)]
    assert stories[0]["text"] == stories[1]["text"]
    assert stories[0]["new_tokens"] == 16


posix = pytest.mark.skipif(os.name == "nt", reason="signals and pipes of POSIX")


@posix
def test_a_reader_who_leaves_ends_the_story_quietly():
    with subprocess.Popen(STORY, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout.read(10)
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 0


@posix
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(closed):
    done = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *STORY, "-n", "3"], capture_output=True, timeout=300)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert done.stdout.strip() == (b"" if ">&-" in closed.replace("2>&-", "") else b", there was")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("line", ["--help", "run --help", "show", "models --json"])
def test_an_output_that_is_full_is_told_alike_by_all(line, unbuffered):
    environ = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run([*QCLI, *line.split()], stdout=full, stderr=subprocess.PIPE, timeout=60, env=environ)
    assert done.returncode == 1
    assert done.stderr.decode().startswith("error: cannot write to the standard output: No space left on device\nhint:")


LOSE_THE_INTERRUPT = """
import os, signal, sys, time
from qcli.cli import main
from qcli.commands.answer import figures
from qcli.runtime.engine import Engine
from qcli.runtime.stats import Stats

class Loses:
    def __del__(self):  # as a compiler's callback does: an exception in it goes nowhere
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)

def load(*_, progress, **__):
    progress("compiling kernels (once)", 0.5)
    Loses()
    time.sleep(60)

Engine.load = load
sys.argv = ["qcli", "run", "x"]
main()
"""


@posix
def test_a_signal_while_kernels_compile_is_not_lost():
    done = subprocess.run([sys.executable, "-c", LOSE_THE_INTERRUPT], input=b"", capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@posix
def test_a_signal_ends_the_story_with_130():
    with subprocess.Popen(
        [*STORY, "--max-tokens", "1500", "--stats"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout.read(10)
        child.send_signal(signal.SIGINT)
        said = child.stderr.read().decode()
    assert child.returncode == 130
    assert "Traceback" not in said
    assert " new at " in said


BEGUN = """
import signal
from qcli.__main__ import main

def told(*given):
    usual(*given)
    signal.signal = usual
    print("begun", flush=True)

usual, signal.signal = signal.signal, told
main()
"""


@posix
@pytest.mark.parametrize("milliseconds", [0, 5, 20, 50, 100, 200, 300])
def test_a_signal_while_all_is_imported_ends_it_in_silence(milliseconds):
    story = [*STORY[3:5], "Once upon a time " * 300]  # is read for longer than the last signal waits
    command = [sys.executable, "-c", BEGUN, *story, "--quiet"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:  # fmt: skip
        assert child.stdout.readline() == b"begun\n"
        time.sleep(milliseconds / 1000)
        child.send_signal(signal.SIGINT)
        assert child.stderr.read() == b""
    assert child.returncode == 130


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
def test_what_the_shell_has_ignored_stays_ignored(name):
    number = getattr(signal, name)
    usual = signal.signal(number, signal.SIG_IGN)
    try:
        interrupt.raises()
        with interrupt.cleans_up(), interrupt.ends_all(console.status("loading")):
            assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, usual)


def test_a_dense_model_has_no_experts_to_tell_of():
    assert "experts" not in " ".join(figures(Stats(experts_total=0)))
    assert figures(Stats(experts_touched=3, experts_total=8))[-1] == "3 of 8 experts used"
