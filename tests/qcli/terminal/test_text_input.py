"""Texts as people's systems write them: byte order marks, UTF-16, pipes that stay open, a lone dash."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading

import pytest

from qcli.commands import file_texts
from qcli.errors import ModelNotFoundError, QcliError, UsageError
from qcli.terminal import text_input

TEXT = "Zażółć 🦊\r\nend\n"
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]


@pytest.fixture
def piped(monkeypatch):
    def pipe(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), "ascii"))

    return pipe


@pytest.mark.parametrize("encoding", [*ENCODINGS, "utf-16-be"])
def test_a_mark_tells_the_encoding_and_is_no_text(encoding):
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    assert text_input.decoded(mark + TEXT.encode(encoding)) == TEXT


@pytest.mark.parametrize("data", [b"a\xffb", b"\xff\xfea\x00\x00", b"\xff", b"\xef\xbb"])
def test_what_is_no_text_is_replaced(data):
    assert "\ufffd" in text_input.decoded(data)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_files_and_standard_input_are_read_alike(tmp_path, piped, encoding):
    (tmp_path / "text").write_bytes(TEXT.encode(encoding))
    piped(TEXT.encode(encoding))
    assert text_input.read_file(str(tmp_path / "text")) == text_input.read_file("-") == TEXT


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("none", ModelNotFoundError, "none: no such file"),
        (".", ModelNotFoundError, "not a file"),
        ("", UsageError, "the name of a file is empty"),
        ("https://a.b/wiki.txt", ModelNotFoundError, "https://a.b/wiki.txt: is an address"),
        ("~nobody-of-this-name/x", ModelNotFoundError, "no such file"),
        ("a\0b", QcliError, ""),
        ("x" * 5000, QcliError, ""),
    ],
)
def test_files_that_are_none(tmp_path, monkeypatch, name, error, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        text_input.read_file(name)
    assert said in caught.value.message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes in folders")
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_pipe_with_a_name_is_read_as_a_file(tmp_path, encoding):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[TEXT.encode(encoding)])
    writer.start()
    assert text_input.read_file(str(tmp_path / "pipe")) == TEXT
    writer.join()


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="its shells give pipes no names")
def test_a_pipe_that_a_shell_has_numbered(monkeypatch):
    mine, theirs = os.pipe()
    os.write(theirs, b"text")
    os.close(theirs)
    assert file_texts.joined(file_texts.read_texts([f"/dev/fd/{mine}"])) == "-:\n```\ntext\n```\n\n"
    os.close(mine)
    mine, theirs = os.pipe()
    os.write(theirs, b"text")
    monkeypatch.setattr(text_input, "MAX_STDIN", 3)  # more is refused before the pipe ends
    with pytest.raises(UsageError, match="MiB come from this pipe"):
        text_input.read_file(f"/dev/fd/{mine}")
    os.close(mine)
    os.close(theirs)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="there are no devices in folders")
def test_a_device_is_no_text():
    with pytest.raises(ModelNotFoundError, match="is not a file"):
        text_input.read_file("/dev/zero")


def test_too_much(tmp_path, monkeypatch, piped):
    monkeypatch.setattr(text_input, "MAX_FILE", 3)
    monkeypatch.setattr(text_input, "MAX_STDIN", 3 << 20)
    (tmp_path / "text").write_text("text")
    with pytest.raises(UsageError, match="larger"):
        text_input.read_file(str(tmp_path / "text"))
    piped(bytes(4 << 20))
    with pytest.raises(UsageError, match="more than 3 MiB"):
        text_input.read_stdin("the text")


def test_lines(piped):
    piped("\ufeffoné\ntwo\n\nthree".encode())
    assert list(text_input.stdin_lines(100)) == ["oné\n", "two\n", "\n", "three"]
    piped("é".encode() * 5)
    assert "".join(text_input.stdin_lines(3)) == "ééééé"
    piped("one\n".encode("utf-16"))
    with pytest.raises(UsageError, match="UTF-16"):
        list(text_input.stdin_lines(100))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_run_reads_any(telling, monkeypatch, piped, encoding, capsys):
    from qcli.cli import invoke

    piped("a".encode(encoding))
    assert invoke(["run", "--raw", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prompt_tokens"] == telling.fed[0] == 1


def test_a_dash_is_standard_input(telling, type_line):
    code, out, err = type_line("run", "-")
    assert (code, out) == (2, "")
    assert "there is no prompt" in err
    assert type_line("run", "-", "-q", piped="hi") == (0, "A cat sat.\n", "")


def test_a_pipe_that_stays_open_is_told_of():
    command = [sys.executable, "-m", "qcli", "run", "hi", "-n", "1"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:  # fmt: skip
        assert child.stderr
        assert b"waiting for the end of standard input" in child.stderr.readline()
        out, _ = child.communicate(b"", timeout=300)
    assert child.returncode == 0
    assert out


def test_quiet_waits_in_silence(monkeypatch, capsys):
    reading, writing = os.pipe()
    monkeypatch.setattr(text_input, "PATIENCE", 0.01)
    threading.Timer(0.2, os.close, [writing]).start()
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert text_input.read_stdin("it", quiet=True) == ""
        monkeypatch.undo()
    assert capsys.readouterr().err == ""
