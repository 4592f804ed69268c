"""Every kernel is held against its twin, and one that does nothing, or whose twin says something else, is named."""

from __future__ import annotations

import numpy as np
import pytest
from suite_kernels import asked_for_here

from qcli.doctor import kernel_twins
from qcli.doctor.kernel_twins import UNJUDGED, _Failure, first_wrong, suspects
from qcli.doctor.trials import rows
from qcli.doctor.trials.trial import error, unlike
from quant import team
from quant.every_kernel import every_kernel
from quant.jit import function
from quant.plan import Plan

TRIALS = kernel_twins.all_trials()
JUDGED = {kernel: trial for trial in reversed(TRIALS) for kernel in trial.kernels}  # the first trial of each


@function("pp", returns=True)
def nothing(first, second):
    """In place of any kernel: more arguments do no harm."""
    return 0


def title(trial):
    return "-".join(kernel.name.rpartition(".")[2] for kernel in trial.kernels)


def test_every_kernel_is_judged_by_a_trial():
    missed = [kernel.name for kernel in asked_for_here() if kernel not in JUDGED and kernel not in UNJUDGED]
    assert missed == []
    assert not set(UNJUDGED) & set(JUDGED)


@pytest.mark.parametrize("trial", TRIALS, ids=title)
def test_kernels_are_like_their_twins(trial):
    errors = trial.set_up().errors()
    assert len(errors) == len(trial.kernels)
    assert max(errors) <= 0.8  # not near to what is called wrong


@pytest.mark.parametrize("kernel", JUDGED, ids=lambda kernel: kernel.name)
def test_a_kernel_that_does_nothing_is_named(monkeypatch, kernel):
    one = JUDGED[kernel].set_up()
    assert kernel in {*one.kernels, team.replay}
    monkeypatch.setitem(vars(kernel), "address", nothing.address)
    vars(kernel).pop("_callable", None)
    try:
        assert first_wrong(JUDGED[kernel], one) is kernel
    finally:
        vars(kernel).pop("_callable", None)


@pytest.mark.parametrize("trial", TRIALS, ids=title)
def test_a_trial_knows_what_it_calls(trial, monkeypatch):
    """So that all of it is compiled before, by several processes."""
    one, compile_plan, called = trial.set_up(), Plan.compile, set()

    def compiled(plan):
        called.update(plan.kernels)
        return compile_plan(plan)

    monkeypatch.setattr(Plan, "compile", compiled)
    one.errors()
    assert called <= set(one.kernels)


def test_a_twin_that_says_something_else_is_found(monkeypatch):
    monkeypatch.setattr(rows, "gelu", lambda x: x)
    trial = next(trial for trial in rows.TRIALS if trial.kernels == (rows.gate_columns.gate_rows,))
    assert first_wrong(trial, trial.set_up()) is rows.gate_columns.gate_rows


def test_numbers_that_are_none_are_wrong():
    assert error([1.0, 2.0], [1.0, 2.0]) == 0
    assert error([1.0, 2.0], [1.0, 2.001]) > 1
    for found in ([1.0, np.nan], [1.0, np.inf], [1.0], []):
        assert error(found, [1.0, 2.0]) == np.inf
    assert unlike([1, 2], [1, 2]) == 0
    assert unlike([1, 2], [1, 3]) == unlike([1], [1, 1]) == np.inf


A, B, C, D = every_kernel()[:4]


@pytest.mark.parametrize(
    ("failures", "right", "named"),
    [
        ([(A, {A, B})], {B}, [A]),
        ([(A, {A, B}), (B, {B, C})], {C}, [B]),  # A calls B, which is wrong
        ([(A, {A, B}), (B, {A, B})], {B}, [A]),  # B is right elsewhere
        ([(A, {A, C}), (B, {B, C})], {C}, [A, B]),  # two faults
        ([(A, {A}), (A, {A, B})], {A}, [A]),  # wrong in some trials, right in others
        ([], {A}, []),
    ],
)
def test_who_is_to_blame(failures, right, named):
    found = suspects([_Failure(kernel, frozenset(used)) for kernel, used in failures], right)
    assert found == [kernel.name for kernel in named]
