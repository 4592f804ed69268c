"""The self-test: it passes here, and finds a kernel that computes wrongly, a wrong text and wrong bits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from places import ROOT

from qcli.doctor import engine_trial, kernel_twins, self_test
from qcli.doctor.finding import FAIL, PASS, Finding
from qcli.doctor.trials import rows
from quant import formats, kernel_cache


def silent(*_):
    pass


def test_the_embedded_model_and_the_faults_that_it_shows(monkeypatch):
    found = list(engine_trial.check(silent))
    assert [(one.name, one.status) for one in found] == [
        (name, PASS) for name in ("text", "several tokens", "threads", "saved texts", "streaming")
    ]
    monkeypatch.setattr(engine_trial, "ANSWER", ", there was a dog.")
    monkeypatch.setattr(engine_trial, "_same", lambda *_: False)
    found = list(engine_trial.check(silent))
    assert {one.status for one in found} == {FAIL}
    assert "there was a little" in found[0].said
    assert all("qcli cache clear kernels" in one.hint for one in found)


def only(monkeypatch, *trials):
    """The self-test has no others."""
    monkeypatch.setattr(kernel_twins, "all_trials", lambda: list(trials))


def test_kernels_that_compute_what_they_should(monkeypatch):
    only(monkeypatch, *rows.TRIALS, *kernel_twins._of_format(formats.find("Q4_K")))
    told = []
    (finding,) = kernel_twins.check(True, lambda *how: told.append(how))
    assert (finding.status, finding.figures) == (PASS, {"tried": len(rows.TRIALS) + 3, "wrong": []})
    assert {"rms_norm_rows", "q4_k_unpack_tile"} <= {stage for stage, _ in told}


def test_a_kernel_that_computes_wrongly_is_named(monkeypatch):
    """Q4_K's product in place of Q6_K's, whose blocks are longer."""
    swapped = replace(formats.find("Q6_K"), dot_rows=formats.find("Q4_K").dot_rows)
    only(monkeypatch, *kernel_twins._of_format(formats.find("F32")), *kernel_twins._of_format(swapped))
    (finding,) = kernel_twins.check(True, silent)
    assert finding.status == FAIL
    assert finding.said == "1 of 6 kernels computes wrong numbers: quant.formats.q4_k.q4_k_dot_rows"
    assert "qcli cache clear kernels" in finding.hint


def test_only_what_is_compiled_is_tried_unless_told(monkeypatch):
    only(monkeypatch, *rows.TRIALS)
    monkeypatch.setattr(kernel_cache, "has", lambda kernel: kernel is rows.columns.clear_rows)
    (finding,) = kernel_twins.check(False, silent)
    assert finding.figures["tried"] == 1
    assert f"{len(rows.TRIALS) - 1} more are not compiled yet: `qcli doctor --all-kernels`" in finding.said


def test_code_of_another_kernel_in_the_cache_is_found(tmp_path):
    """The file is whole, and its blocks are as large, but the numbers are those of IQ4_NL."""
    right, wrong = (formats.find(name).dot_rows for name in ("Q4_0", "IQ4_NL"))
    _ = right.address, wrong.address  # compiled
    place = tmp_path / kernel_cache.folder().relative_to(kernel_cache.root())
    shutil.copytree(kernel_cache.folder(), place)
    shutil.copy(place / kernel_cache.name_of(wrong), place / kernel_cache.name_of(right))
    program = """from qcli.doctor import kernel_twins
kinds = [kernel_twins.formats.find(name) for name in ("Q4_0", "IQ4_NL")]
trials = [trial for kind in kinds for trial in kernel_twins._of_format(kind)]
kernel_twins.all_trials = lambda: trials
print(next(kernel_twins.check(True, lambda *_: None)).said)"""
    environment = {**os.environ, "QCLI_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1 of 6 kernels computes wrong numbers: quant.formats.q4_0.q4_0_dot_rows\n"


def in_a_process_that(monkeypatch, program):
    monkeypatch.setattr(self_test, "_MODULE", ("-c", program))
    told = []
    return list(self_test.check(False, lambda *how: told.append(how))), told


def test_a_kernel_that_crashes_is_told(monkeypatch):
    program = """import os
print('{"stage": "kernels: 3", "fraction": 0.5}', flush=True)
os.abort()"""
    (finding,), told = in_a_process_that(monkeypatch, program)
    assert told == [("kernels: 3", 0.5)]
    assert finding.status == FAIL
    assert "at: kernels: 3" in finding.said
    assert "qcli cache clear kernels" in finding.hint


def test_a_kernel_that_never_returns_is_told(monkeypatch):
    monkeypatch.setattr(self_test, "_SECOND", 0.05)
    monkeypatch.setattr(self_test, "_SILENCE", 20)
    program = """import time
print('{"stage": "kernels: 3", "fraction": 0.5}', flush=True)
time.sleep(600)"""
    (finding,), _ = in_a_process_that(monkeypatch, program)
    assert finding.status == FAIL
    assert finding.said == "the self-test said nothing for 20 s, and was ended (at: kernels: 3)"


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_ends_the_process_and_leaves_nothing(tmp_path):
    program = """import time
from qcli.doctor import self_test
from qcli.host.temporary import temporary_folder
def forever(every, progress):
    with temporary_folder() as folder:
        progress(str(folder), 0.5)
        while True:
            try:
                time.sleep(60)
            except BaseException:  # as the compiler's callbacks swallow it
                pass
self_test._tests = forever
self_test.main([])"""
    command, environment = (
        [sys.executable, "-c", program],
        {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
    )
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        place = json.loads(process.stdout.readline())["stage"]
        assert os.path.isdir(place)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert not os.path.exists(place)


def test_findings_come_through(monkeypatch):
    program = """print('{"name": "a", "status": "PASS", "said": "fine", "hint": "", "figures": {"n": 1}}')"""
    found, _ = in_a_process_that(monkeypatch, program)
    assert found == [Finding("a", PASS, "fine", "", {"n": 1})]


def test_without_an_interpreter_it_runs_here(monkeypatch):
    monkeypatch.setattr("sys.executable", "nowhere")
    monkeypatch.setattr(
        self_test, "_tests", lambda every, progress: iter([("self-test", Finding(str(every), PASS, ""))])
    )
    assert [found.name for found in self_test.check(True, silent)] == ["True"]
