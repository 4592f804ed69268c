"""Compiled kernels against plain NumPy on small random data: whoever computes wrongly is named.

Whole numbers up to 127, one of which is 127 in each 32, lose nothing when they are quantized, so that the twin needs to
know nothing of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qcli.bench.random_blocks import random_blocks
from qcli.doctor.finding import FAIL, MAKE_ANEW, PASS, Finding
from qcli.host import kernels
from qcli.progress import Progress
from qcli.wording import counted
from quant import formats, kernel_cache, team
from quant.batch import Batch
from quant.formats import Format
from quant.jit import Kernel
from quant.kernels.bandwidth import read_all, sum_lines
from quant.kernels.columns import quantize, take_rows
from quant.kernels.embed import embed, embed_rows
from quant.kernels.matmul import matmul, matmul_rows, matmul_step
from quant.kernels.norm import rms_norm, rms_norm_rows
from quant.plan import Activation, Plan, aligned
from quant.team import Team
from quant.weights import Matrix

_ROWS, _COLUMNS, _TOKENS = 40, 512, 17  # more than whole tiles of 16
_THREADS: Final = 2
_TOLERANCE: Final = 5e-6  # of the sum of all products by magnitude; float32 sums err by 1e-7
_MOST_NAMED: Final = 4

Numbers = NDArray[np.float32] | NDArray[np.float64] | np.floating


class Trial(NamedTuple):
    """A kernel, those that it needs beside it, and what gives its largest error, 1 being what is tolerated."""

    kernel: Kernel
    needs: tuple[Kernel, ...]
    error: Callable[[], float]


def check(every: bool, progress: Progress) -> Iterator[Finding]:
    """Try the kernels that are compiled, or all of them."""
    known = all_trials()
    trials = [trial for trial in known if every or kernel_cache.has(trial.kernel)]
    kernels.prepare([*{k: None for trial in trials for k in (trial.kernel, *trial.needs)}, *team.KERNELS], progress)
    wrong = []
    for done, trial in enumerate(trials):
        progress(trial.kernel.name.rpartition(".")[2], done / len(trials))
        if not trial.error() <= 1:  # NaN is not, either
            wrong.append(trial.kernel.name)
    yield _told(len(trials), wrong, len(known) - len(trials))


def _told(tried: int, wrong: list[str], left: int) -> Finding:
    figures = {"tried": tried, "wrong": wrong}
    if not wrong:
        rest = f"; {left} more are not compiled yet: `qcli doctor --all-kernels` tries them, too" if left else ""
        return Finding(
            "kernels", PASS, f"{counted(tried, 'kernel')} tried, all compute what they should{rest}", "", figures
        )
    named = ", ".join(wrong[:_MOST_NAMED]) + (", …" if len(wrong) > _MOST_NAMED else "")
    said = f"{len(wrong)} of {counted(tried, 'kernel')} compute wrong numbers: {named}"
    return Finding("kernels", FAIL, said, MAKE_ANEW, figures)


def all_trials() -> list[Trial]:
    """Of every quant type three; and of kernels whose twin is a line."""
    each = [trial for name in formats.names() for trial in _of_format(formats.find(name))]
    return [*each, Trial(rms_norm_rows, (), _norm_error), Trial(sum_lines, (), _sum_error)]


def _of_format(kind: Format) -> Iterator[Trial]:
    yield Trial(kind.dot_rows, (matmul_step, take_rows), lambda: _product_error(kind, 1))
    yield Trial(kind.unpack_tile, (matmul_rows, take_rows), lambda: _product_error(kind, _TOKENS))
    yield Trial(kind.unpack_rows, (embed_rows,), lambda: _embedding_error(kind))


def _product_error(kind: Format, tokens: int) -> float:
    """x w^T: dot_rows multiplies one row of x, unpack_tile unpacks for many."""
    w, x = _matrix(kind), _whole_numbers(tokens)
    plan, given, y = _plan(tokens), Activation(tokens, _COLUMNS), Activation(tokens, _ROWS)
    given.values[:] = x
    quantize(plan, given)
    matmul(plan, given, [(w, y)])
    _replay(plan)
    weights = kind.dequantize(w.data).astype(np.float64)
    return _error(y.values, x @ weights.T, np.abs(x) @ np.abs(weights).T)


def _embedding_error(kind: Format) -> float:
    w, ids = _matrix(kind), aligned(_TOKENS, np.int64)
    ids[:] = np.arange(_TOKENS) * 7 % _ROWS
    plan, out = _plan(_TOKENS), Activation(_TOKENS, _COLUMNS)
    embed(plan, ids, w, out)
    _replay(plan)
    expected = kind.dequantize(w.data[ids]).astype(np.float64)
    return _error(out.values, expected, np.abs(expected).max(axis=1, keepdims=True))


def _norm_error() -> float:
    x, weight = _whole_numbers(_TOKENS) / 64, np.linspace(-1, 2, _COLUMNS, dtype=np.float32)
    plan, given, out = _plan(_TOKENS), Activation(_TOKENS, _COLUMNS), Activation(_TOKENS, _COLUMNS)
    given.values[:] = x
    rms_norm(plan, given, weight, 1e-6, out)
    values = out.values  # asked for before the plan is compiled, or nobody reads it
    _replay(plan)
    expected = x / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-6) * weight
    return _error(values, expected, np.abs(expected).max(axis=1, keepdims=True))


def _sum_error() -> float:
    source = aligned(64 * 128, np.float32)
    source[:] = np.arange(len(source)) % 97
    plan = _plan(1)
    sums = read_all(plan, source)
    _replay(plan)
    return _error(sums[:, 0].sum(), source.sum(dtype=np.float64), np.float64(1))


def _matrix(kind: Format) -> Matrix:
    blocks = random_blocks(np.random.default_rng(1), kind.name, _ROWS * _COLUMNS // kind.block.columns, spread=1.0)
    return Matrix(np.ascontiguousarray(blocks).reshape(_ROWS, -1), kind, _COLUMNS)


def _whole_numbers(tokens: int) -> NDArray[np.float64]:
    x = np.random.default_rng(2).integers(-127, 128, (tokens, _COLUMNS)).astype(np.float64)
    x[:, ::32] = 127
    return x


def _plan(tokens: int) -> Plan:
    return Plan(tokens, _THREADS, Batch())


def _replay(plan: Plan) -> None:
    crew, compiled = Team(_THREADS), plan.compile()
    try:
        plan.batch.set(plan.tokens, 0)
        crew.run(compiled)
    finally:
        crew.close()


def _error(found: Numbers, expected: Numbers, scale: Numbers) -> float:
    """The largest difference, in parts of what is tolerated; infinite where something is no number."""
    if not np.isfinite(found).all():
        return float("inf")
    return float((np.abs(found - expected) / np.maximum(scale, 1e-30)).max() / _TOLERANCE)
