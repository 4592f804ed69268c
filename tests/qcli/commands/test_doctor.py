"""qcli doctor: its screen, its report without names, its JSON, its exit codes."""

from __future__ import annotations

import getpass
import json
import os
from pathlib import Path

import pytest
from places import DATA

from qcli.bench import bandwidth
from qcli.commands import doctor
from qcli.doctor import disk, processor, programs
from qcli.doctor.finding import FAIL, PASS, WARN, Check, Finding
from qcli.doctor.report import as_markdown
from qcli.host.load import Load

TITLES = ["processor", "memory", "disk", "programs", "self-test"]


@pytest.fixture
def found(monkeypatch):
    """In place of what is examined: findings that a test gives."""

    def given(*findings: Finding) -> None:
        checks = [Check("given", lambda _: iter(findings))]
        monkeypatch.setattr(doctor, "_sections", lambda *_: {"machine": checks})

    return given


def test_everything(type_line, monkeypatch, tmp_path):
    monkeypatch.setattr(bandwidth, "MOST", 1 << 22)
    monkeypatch.setattr(disk, "_FILE", 1 << 20)
    monkeypatch.setattr(disk, "_SECONDS", 0.01)
    monkeypatch.setattr(processor, "load", lambda _: Load(0, 0))
    code, out, err = type_line("doctor", "--json")
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert list(dict.fromkeys(one["section"] for one in told["checks"])) == TITLES
    assert told["failed"] == 0
    assert all(one["hint"] for one in told["checks"] if one["status"] != PASS)


def test_the_screen_says_what_to_do(type_line, found):
    found(Finding("cores", PASS, "8 cores"), Finding("disk", FAIL, "it is full", "free some space"))
    code, out, _ = type_line("doctor")
    assert code == 1
    assert out.splitlines() == [
        "machine",
        "PASS  cores  8 cores",
        "FAIL  disk   it is full",
        "             → free some space",
        "",
        "1 failure in 2 checks; → tells what to do",
    ]


def test_a_warning_is_no_failure(type_line, found):
    found(Finding("cores", WARN, "few", "buy more"))
    assert type_line("doctor")[0] == 0
    found(Finding("cores", PASS, "many"))
    assert type_line("doctor")[1].endswith("\nall is well: 1 check passed\n")


def test_the_report_tells_of_nobody(type_line, found, monkeypatch, tmp_path):
    home = Path.home()
    found(
        Finding("a", PASS, f"{home / 'secret'}/models: fine"),
        Finding("b", WARN, f"{tmp_path}/x: full", "type A=/full/path, and look at /proc/cpuinfo"),
        Finding("c", FAIL, "/mnt/alice/models/m.gguf, D:\\Alice\\m.gguf | <b>\n- x: broken"),
    )
    code, out, _ = type_line("doctor", "--report")
    assert code == 1
    assert str(home / "secret") not in out
    assert str(tmp_path) not in out
    assert "alice" not in out.lower()
    assert "/full/path, and look at /proc/cpuinfo" in out
    assert "| FAIL | c | PATH, PATH \\| &lt;b> - x: broken |" in out
    assert out.startswith("### qcli doctor: 1 failure and 1 warning in 3 checks\n\n**machine**\n")


def test_names_of_people_and_machines(monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "alice")
    monkeypatch.setattr("platform.node", lambda: "alices-laptop")
    text = as_markdown([("s", Finding("n", PASS, "on alices-laptop: alice, malice"))])
    assert "on USER: USER, malice" in text


def test_a_model_s_folder_is_not_told(type_line, found, tmp_path):
    found()
    path = tmp_path / "my secret folder" / "broken.gguf"
    path.parent.mkdir()
    path.write_bytes(b"GGUF")
    code, out, _ = type_line("doctor", str(path), "--report")
    assert code == 1
    assert "| FAIL | file | MODEL_FOLDER/broken.gguf: " in out
    assert "secret" not in out


def test_a_model_is_examined_too(type_line, found):
    found()
    code, out, _ = type_line("doctor", str(DATA / "README.md"))
    assert code == 1
    assert "is not a GGUF model file" in out
    assert "→ give a model file" in out


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (["nowhere.gguf"], 1, "nowhere.gguf: no such file"),
        (["no-such-model"], 1, "there is no model"),
        ([os.curdir], 1, "is a folder"),
        (["--json", "--report"], 2, "cannot be used together"),
    ],
)
def test_what_cannot_be_examined(refused, line, code, said):
    refused(["doctor", *line], code, said)


def test_kernels_are_compiled_beforehand(type_line, monkeypatch):
    monkeypatch.setattr(programs, "compile_all", lambda progress: progress("", 1.0) or (3, 210))
    monkeypatch.setattr(doctor, "_model", lambda _: ({}, []))
    monkeypatch.setattr("qcli.doctor.finding.examine", only_compiling)
    code, out, _ = type_line("doctor", "--compile")
    assert code == 0
    assert "3 functions of 210 compiled in" in " ".join(out.split())


def only_compiling(sections, progress):
    (check,) = (check for check in sections["programs"] if check.name == "compiling")
    return (("programs", finding) for finding in check.look(progress))


def test_nothing_is_compiled_unasked():
    assert "compiling" not in [check.name for check in doctor._sections(False, False)["programs"]]
