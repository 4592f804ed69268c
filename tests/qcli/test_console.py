"""What goes to which stream, and what a terminal sees that a pipe does not."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time

import pytest
from rich.table import Table
from terminal import in_terminal

from qcli import console
from qcli.errors import QcliError, UsageError

SOON = 0.08  # seconds after which bars appear here


def run(code, **options):
    """Run code in a Python of its own; its stdout, stderr and exit code."""
    command = [sys.executable, "-c", f"from qcli import console\n{code}"]
    return subprocess.run(command, capture_output=True, timeout=60, **options)


def test_the_answer_goes_to_stdout_and_the_rest_to_stderr(capsys):
    console.out("an ans")
    console.out("wer\x1b[1m\n")
    console.info("a remark")
    console.error(UsageError("it broke", "mend it"))
    assert capsys.readouterr() == ("an answer\x1b[1m\n", "a remark\nerror: it broke\nhint: mend it\n")


def test_an_error_is_one_line_and_has_no_control_codes(capsys):
    console.error(QcliError("a file's name\n\x1b]0;owned\x07"))
    assert capsys.readouterr().err == "error: a file's name \ufffd]0;owned\ufffd\n"


def test_json_is_one_value_in_utf8(capsys):
    console.json({"text": "é\n"})
    shown = capsys.readouterr().out
    assert json.loads(shown) == {"text": "é\n"}
    assert "é" in shown


def test_a_table_in_a_pipe_is_plain_and_whole(capsys):
    table = Table("name")
    table.add_row("x" * 200)
    console.table(table)
    shown = capsys.readouterr().out
    assert "x" * 200 in shown
    assert "\x1b" not in shown


def test_a_status_in_a_pipe_prints_nothing(capsys):
    with console.status("loading") as bar:
        bar.update("loading", 0.5)
        time.sleep(console.STATUS_DELAY * 1.5)
    assert capsys.readouterr() == ("", "")


BAR = f"""
import time
console.STATUS_DELAY = {SOON}
with console.status("loading") as bar:
    bar.update("loading weights", 0.5)
    time.sleep({SOON * 5})
"""


def test_a_status_in_a_terminal_shows_the_stage_and_goes_away():
    seen = in_terminal(BAR)
    assert "loading weights" in seen
    assert seen.rstrip().endswith("\x1b[2K")  # the line is erased


def test_a_still_status_is_drawn_only_when_it_is_updated():
    still = in_terminal(BAR.replace('"loading")', '"loading", still=True)'))
    assert "loading weights" in still
    assert still.rstrip().endswith("\x1b[2K")
    assert still.count("loading weights") < in_terminal(BAR).count("loading weights")


def test_a_short_status_never_shows():
    assert in_terminal('with console.status("loading") as bar: bar.update("loading", 0.5)') == ""


PYTHON = f"""
import time
console._LONG = {SOON}
told = console.Telling("auto")
for _ in range(5):
    told("reading 979 tokens", 0.5)
    time.sleep({SOON / 2})
told.close()
print("over")
"""


def test_python_tells_people_how_far_long_work_is():
    seen = in_terminal(PYTHON, PYTEST_CURRENT_TEST="")
    assert "reading 979 tokens ━" in seen
    assert seen.endswith("\r\x1b[2Kover\r\n")
    assert in_terminal(PYTHON) == "over\r\n"  # tests see nothing


class OutStream(io.StringIO):
    """The output of a notebook's cell, which is no terminal and obeys \\r alone."""

    __module__ = "ipykernel.iostream"


def telling(monkeypatch, wanted, stream):
    """What Python has whose stderr this is; in the test itself, as pytest sets stderr and its variable for each phase."""
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "")
    return console.Telling(wanted)


@pytest.mark.parametrize("wanted", ["auto", True])
def test_a_notebook_gets_a_line_without_control_codes(monkeypatch, wanted):
    monkeypatch.setattr(console, "_LONG", 0.0)
    cell = OutStream()
    told = telling(monkeypatch, wanted, cell)
    told("reading 979 tokens", 0.5)
    end = time.monotonic() + 10
    while "━" not in cell.getvalue() and time.monotonic() < end:
        time.sleep(0.001)
    told.close()
    assert "reading 979 tokens ━━━━━━━━━━━━──────────── 50 %" in cell.getvalue()
    assert not set(cell.getvalue()) & {"\x1b", "\n"}
    assert cell.getvalue().endswith(" \r")


@pytest.mark.parametrize(
    ("wanted", "stream"),
    [
        (False, OutStream()),
        (None, OutStream()),
        (lambda stage, fraction: None, OutStream()),
        ("auto", io.StringIO()),
    ],
)
def test_where_nobody_wants_to_know_or_looks_nothing_is_begun(monkeypatch, wanted, stream):
    before = threading.active_count()
    told = telling(monkeypatch, wanted, stream)
    told("reading 979 tokens", 0.5)
    assert threading.active_count() == before


def test_short_work_in_python_shows_nothing(monkeypatch):
    cell = OutStream()
    told = telling(monkeypatch, "auto", cell)
    told("reading 979 tokens", 0.5)
    told.close()
    assert cell.getvalue() == ""


@pytest.mark.parametrize("wrong", ["yes", 3, [1]])
def test_progress_that_cannot_be_meant_is_refused(wrong):
    with pytest.raises(UsageError):
        console.Telling(wrong)


FIGURES = """
import fcntl, struct, sys, termios
fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("4H", 24, {columns}, 0, 0))
console.figures(["12 tokens", "3 tok/s", "experts 5 of 32"])
"""


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (37, "12 tokens · 3 tok/s · experts 5 of 32\r\n"),
        (36, "12 tokens · 3 tok/s\r\nexperts 5 of 32\r\n"),
        (10, "12 tokens\r\n3 tok/s\r\nexperts 5 of 32\r\n"),
        (0, "12 tokens · 3 tok/s · experts 5 of 32\r\n"),
    ],
)
def test_no_line_ends_within_a_figure(columns, said):
    assert in_terminal(FIGURES.format(columns=columns), NO_COLOR="1") == said


def test_figures_in_a_pipe_are_one_line(capsys):
    console.figures(["x" * 100, "y"])
    assert capsys.readouterr().err == "x" * 100 + " · y\n"


def test_what_is_said_to_be_dumb_may_obey_control_codes():
    assert in_terminal(r'console.out("a\x1b[2Jb\n")', TERM="dumb") == "a\ufffd[2Jb\r\n"


def test_no_bar_for_the_quiet_or_for_a_dumb_terminal():
    assert in_terminal(BAR.replace('"loading")', '"loading", quiet=True)')) == ""
    assert in_terminal(BAR, TERM="dumb") == ""


FAIL = """
from qcli.errors import QcliError
console.fail(QcliError("it broke", "mend it"))
"""


def test_an_error_begins_a_line_of_its_own():
    said = "error: it broke\r\nhint: mend it\r\n"
    assert in_terminal("console.out('a c')" + FAIL, 1, NO_COLOR="1") == "a c\r\n" + said
    assert in_terminal("console.out('a c\\n')" + FAIL, 1, NO_COLOR="1") == "a c\r\n" + said
    assert in_terminal("console.aside('hm')" + FAIL, 1, NO_COLOR="1") == "hm\r\n" + said
    assert run("console.out('a c')" + FAIL).stderr == b"error: it broke\nhint: mend it\n"


def test_what_is_said_within_an_answer_has_a_line_of_its_own():
    said = in_terminal("console.out('a c'); console.info('one'); console.info('two'); console.out('at')", NO_COLOR="1")
    assert said == "a c\r\none\r\ntwo\r\nat"


def test_a_failure_takes_the_bar_away():
    seen = in_terminal(BAR + FAIL.replace("\n", "\n    "), 1)
    assert "loading weights" in seen
    assert "\x1b[2K" in seen[seen.rindex("loading weights") : seen.index("it broke")]


def test_no_color_is_honoured():
    assert "\x1b[2m" in in_terminal('console.info("dim")')
    assert in_terminal('console.info("plain")', NO_COLOR="1") == "plain\r\n"


def test_a_model_cannot_drive_the_terminal():
    assert in_terminal(r'console.out("a\x1b[2Jb\x9b1mc\r\td\n")') == "a\ufffd[2Jb\ufffd1mc\ufffd\td\r\n"


@pytest.mark.parametrize(
    "typed",
    [
        ["-c", "from qcli import console\nfor _ in range(9): console.out('x' * 100_000)\nraise SystemExit(7)"],
        ["-m", "qcli", "--help"],
        ["-m", "qcli", "batch", "--help"],
    ],
)
def test_a_reader_who_leaves_ends_the_program_quietly(typed):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as nobody:
        done = subprocess.run([sys.executable, *typed], stdout=nobody, stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a disk that is always full")
def test_a_full_disk_is_an_error_with_a_hint():
    code = "try: console.out('x')\nexcept Exception as e: console.error(e)"
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", f"from qcli import console\n{code}"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    assert done.stderr.startswith("error: cannot write to the standard output")
    assert "hint:" in done.stderr


def test_text_that_the_encoding_lacks_still_prints():
    done = run("console.setup()\nconsole.out('é\\ud800 · •')", env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (0, b"?? - *")


def test_the_end_of_a_line_as_windows_has_it_is_one():
    assert in_terminal(r'console.out("a\r\nb\n")') == "a\r\nb\r\n"
    assert in_terminal(r'for piece in ("a\r", "\nb", "\r", "c\n"): console.out(piece)') == "a\r\nb\ufffdc\r\n"
    assert in_terminal(r'console.aside("a\r"); console.aside("\n")', NO_COLOR="1") == "a\r\n"


def in_one_pipe(code: str) -> bytes:
    """What a pipe gets of stdout and stderr together."""
    command = [sys.executable, "-c", f"from qcli import console\n{code}"]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60).stdout


def test_what_follows_an_unfinished_line_in_the_same_pipe_begins_a_new_one():
    code = "console.aside('welcome to'); console.info('31 tokens'); console.out('x'); console.info('y')"
    assert in_one_pipe(code) == b"welcome to\n31 tokens\nx\ny\n"
    apart = run("console.aside('welcome to'); console.out('x'); console.info('31 tokens')")
    assert (apart.stdout, apart.stderr) == (b"x", b"welcome to\n31 tokens\n")


def test_what_is_printed_first_comes_first_in_a_pipe():
    assert in_one_pipe("print('answer'); console.info('figures')") == b"answer\nfigures\n"


def test_a_remark_takes_the_bar_away_meanwhile():
    remark = "    console.info('by the way')\n"
    seen = in_terminal(BAR + remark + f"    time.sleep({SOON})", NO_COLOR="1")
    assert "\x1b[2K" in seen[: seen.index("by the way")]
    assert "loading weights" in seen[seen.index("by the way\r\n") :]


TYPED = """
import os, sys, time
console.STATUS_DELAY = {soon}
print("ready", flush=True)
with console.status("loading") as bar:
    time.sleep(3 * {soon})
    print("bar", flush=True)
    sys.stdin.readline()
print("over", flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")
def test_what_is_typed_into_a_bar_leaves_no_remains_of_it():
    import pty

    child, terminal = pty.fork()
    if not child:
        os.environ["TERM"] = "xterm"
        code = f"from qcli import console\n{TYPED.format(soon=SOON)}"
        os.execv(sys.executable, [sys.executable, "-c", code])

    def until(word: bytes) -> bytes:
        seen = b""
        while word not in seen:
            seen += os.read(terminal, 4096)
        return seen

    until(b"bar")
    os.write(terminal, b"typed ahead\n")
    assert b"typed ahead" not in until(b"over")
    os.write(terminal, b"again\n")
    assert b"again" in until(b"again")  # the echo is back
    os.waitpid(child, 0)
    os.close(terminal)
