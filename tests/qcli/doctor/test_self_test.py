"""The self-test: it passes here, and finds a kernel that computes wrongly, a wrong text and wrong bits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qcli.doctor import engine_trial, kernel_twins, self_test
from qcli.doctor.finding import FAIL, PASS, Finding
from quant import formats


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


def test_kernels_that_compute_what_they_should(monkeypatch):
    monkeypatch.setattr(formats, "names", lambda: ("F32", "Q4_K", "Q6_K"))
    (finding,) = kernel_twins.check(True, silent)
    assert (finding.status, finding.figures) == (PASS, {"tried": 11, "wrong": []})


def test_a_kernel_that_computes_wrongly_is_named(monkeypatch):
    """Q4_K's product in place of Q6_K's, whose blocks are longer."""
    swapped = replace(formats.find("Q6_K"), dot_rows=formats.find("Q4_K").dot_rows)
    monkeypatch.setattr(formats, "names", lambda: ("F32", "Q6_K"))
    monkeypatch.setattr(formats, "find", {"F32": formats.find("F32"), "Q6_K": swapped}.get)
    (finding,) = kernel_twins.check(True, silent)
    assert finding.status == FAIL
    assert "1 of 8 kernels compute wrong numbers: quant.formats.q4_k.q4_k_dot_rows" in finding.said
    assert "qcli cache clear kernels" in finding.hint


@pytest.mark.parametrize("name", formats.names())
def test_every_type_has_three_trials(name):
    kind = formats.find(name)
    tried = {trial.kernel for trial in kernel_twins.all_trials()}
    assert {kind.dot_rows, kind.unpack_tile, kind.unpack_rows} <= tried


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
