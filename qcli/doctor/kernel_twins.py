"""Every compiled kernel against its twin in NumPy on small random data: whoever computes wrongly is named.

The trials of each family are in `qcli.doctor.trials`; here are those of quant types. Whole numbers up to 127, one of which is
127 in each 32, lose nothing when they are quantized, so that a type's twin needs to know nothing of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qcli.bench.random_blocks import random_blocks
from qcli.doctor.finding import FAIL, MAKE_ANEW, PASS, Finding
from qcli.doctor.trials import attention, choices, experts, experts_read, products, quantizers, reading, recurrent, rows
from qcli.doctor.trials.trial import Experiment, Trial, experiment, new_plan, quantized, result
from qcli.host import kernels
from qcli.progress import Progress
from qcli.wording import counted
from quant import formats, kernel_cache, team
from quant.formats import Format
from quant.jit import Kernel
from quant.kernels.bandwidth import read_all, sum_lines
from quant.kernels.embed import embed
from quant.kernels.matmul import matmul
from quant.plan import aligned
from quant.weights import Matrix

# What no trial judges, and why.
UNJUDGED: Final = {
    team.wait: "it decides whether a thread that has nothing to do spins or sleeps, and changes no number"
}
_FAMILIES: Final = rows, attention, recurrent, choices, products, experts, reading, experts_read

_ROWS, _COLUMNS, _TOKENS = 40, 512, 17  # more than whole tiles of 16
_TOLERANCE: Final = 5e-6  # of the sum of all products by magnitude; float32 sums err by 1e-7
_MOST_NAMED: Final = 4

Numbers = NDArray[np.float32] | NDArray[np.float64] | np.floating


class _Failure(NamedTuple):
    """A kernel whose results are not its twin's, and all that took part in the trial."""

    kernel: Kernel
    used: frozenset[Kernel]


def check(every: bool, progress: Progress) -> Iterator[Finding]:
    """Try the kernels that are compiled, or all of them."""
    known = all_trials()
    trials = [trial for trial in known if every or all(map(kernel_cache.has, trial.kernels))]
    experiments = [trial.set_up() for trial in trials]
    used = [
        frozenset((*trial.kernels, *each.kernels, *team.KERNELS))
        for trial, each in zip(trials, experiments, strict=True)
    ]
    kernels.prepare(list(dict.fromkeys(kernel for each in used for kernel in each)), progress)
    failures, right = list[_Failure](), set[Kernel]()
    for done, (trial, one, taking_part) in enumerate(zip(trials, experiments, used, strict=True)):
        progress(_names(trial.kernels), done / len(trials))
        wrong = first_wrong(trial, one)
        if wrong:
            failures.append(_Failure(wrong, taking_part))
        else:
            right |= taking_part
    tried = len({kernel for trial in trials for kernel in trial.kernels})
    yield _told(tried, suspects(failures, right), len({kernel for trial in known for kernel in trial.kernels}) - tried)


def first_wrong(trial: Trial, one: Experiment) -> Kernel | None:
    """The first kernel of a trial whose results are wrong, if any are; what comes after it is judged by nobody."""
    with np.errstate(all="ignore"):  # what is wrong may be no number
        errors = one.errors()
    return next(
        (kernel for kernel, error in zip(trial.kernels, errors, strict=False) if not error <= 1), None
    )  # NaN is not


def suspects(failures: list[_Failure], right: set[Kernel]) -> list[str]:
    """The kernels to name: where one explains all failures, because it took part in each, that one; else each that failed.

    right: kernels that took part in trials whose results were right.
    """
    wrong = list(dict.fromkeys(failure.kernel for failure in failures))
    everywhere = [kernel for kernel in wrong if all(kernel in failure.used for failure in failures)]
    named = [kernel for kernel in everywhere if kernel not in right] or everywhere or wrong
    return [kernel.name for kernel in named]


def _names(of: tuple[Kernel, ...]) -> str:
    return ", ".join(kernel.name.rpartition(".")[2] for kernel in of)


def _told(tried: int, wrong: list[str], left: int) -> Finding:
    figures = {"tried": tried, "wrong": wrong}
    if not wrong:
        rest = f"; {left} more are not compiled yet: `qcli doctor --all-kernels` tries them, too" if left else ""
        said = f"{counted(tried, 'kernel')} tried, all compute what they should{rest}"
        return Finding("kernels", PASS, said, "", figures)
    named = ", ".join(wrong[:_MOST_NAMED]) + (", …" if len(wrong) > _MOST_NAMED else "")
    verb = "computes" if len(wrong) == 1 else "compute"
    said = f"{len(wrong)} of {counted(tried, 'kernel')} {verb} wrong numbers: {named}"
    return Finding("kernels", FAIL, said, MAKE_ANEW, figures)


def all_trials() -> list[Trial]:
    """Of every quant type, and of every family of kernels."""
    names = formats.names()
    types = [trial for name in names for trial in _of_format(formats.find(name))]
    others = [trial for family in _FAMILIES for trial in family.TRIALS]
    own = [Trial((kernel,), _sums) for kernel in (team.replay, sum_lines)]
    return [*own, *types, *products.of_types(names), *others, *quantizers.trials()]


def _of_format(kind: Format) -> list[Trial]:
    return [
        Trial((kind.dot_rows,), partial(_product, kind, 1)),
        Trial((kind.unpack_tile,), partial(_product, kind, _TOKENS)),
        Trial((kind.unpack_rows,), partial(_embedding, kind)),
    ]


def _product(kind: Format, tokens: int) -> Experiment:
    """x w^T: dot_rows multiplies one row of x, unpack_tile unpacks for many."""
    w, x = _matrix(kind), _whole_numbers(tokens)
    plan, y = new_plan(tokens), result(tokens, _ROWS)
    matmul(plan, quantized(plan, x.astype(np.float32)), [(w, y)])
    weights = kind.dequantize(w.data).astype(np.float64)
    return experiment(plan, lambda: _error(y.values, x @ weights.T, np.abs(x) @ np.abs(weights).T))


def _embedding(kind: Format) -> Experiment:
    w, ids = _matrix(kind), aligned(_TOKENS, np.int64)
    ids[:] = np.arange(_TOKENS) * 7 % _ROWS
    plan, out = new_plan(_TOKENS), result(_TOKENS, _COLUMNS)
    embed(plan, ids, w, out)
    expected = kind.dequantize(w.data[ids]).astype(np.float64)
    return experiment(plan, lambda: _error(out.values, expected, np.abs(expected).max(axis=1, keepdims=True)))


def _sums() -> Experiment:
    """Whole numbers, so that the order in which two threads add them does not matter."""
    source = aligned(64 * 128, np.float32)
    source[:] = np.arange(len(source)) % 97
    plan = new_plan(1)
    sums = read_all(plan, source)

    return experiment(plan, lambda: _error(sums[:, 0].sum(), source.sum(dtype=np.float64), np.float64(1)))


def _matrix(kind: Format) -> Matrix:
    blocks = random_blocks(np.random.default_rng(1), kind.name, _ROWS * _COLUMNS // kind.block.columns, spread=1.0)
    return Matrix(np.ascontiguousarray(blocks).reshape(_ROWS, -1), kind, _COLUMNS)


def _whole_numbers(tokens: int) -> NDArray[np.float64]:
    x = np.random.default_rng(2).integers(-127, 128, (tokens, _COLUMNS)).astype(np.float64)
    x[:, ::32] = 127
    return x


def _error(found: Numbers, expected: Numbers, scale: Numbers) -> float:
    """The largest difference, in parts of what is tolerated; infinite where something is no number."""
    if not np.isfinite(found).all():
        return float("inf")
    return float((np.abs(found - expected) / np.maximum(scale, 1e-30)).max() / _TOLERANCE)
