"""What tests of kernels need: a plan, a team that replays it, inputs, and random weights of a format."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np

import qcli.host.kernels  # noqa: F401  (compiled kernels are kept)
from qcli.bench.random_blocks import random_blocks
from quant import formats
from quant.activation import quantize_row
from quant.batch import Batch, Slots
from quant.jit import kernel
from quant.plan import Activation, Plan, aligned
from quant.team import Team
from quant.weights import ExpertMatrices, Matrix


def new_plan(tokens: int, threads: int = 1, stepwise: bool = False) -> Plan:
    return Plan(tokens, threads, Batch(), stepwise=stepwise)


@contextmanager
def running(plan: Plan):
    """A function that replays the plan: run(tokens, position, deferred); tokens: as many as the plan takes."""
    team, compiled = Team(plan.threads), plan.compile()

    def run(tokens: int | None = None, position: int = 0, deferred: int = 0) -> None:
        plan.batch.set(plan.tokens if tokens is None else tokens, position, deferred)
        team.run(compiled)

    try:
        yield run
    finally:
        team.close()


def replay(plan: Plan, tokens: int | None = None, position: int = 0) -> None:
    """Replay a plan once."""
    with running(plan) as run:
        run(tokens, position)


def texts_plan(texts: int, threads: int, *arrays) -> tuple[Plan, Slots]:
    """A plan that takes a token of each of some texts, and what it has in place of the arrays of a state."""
    slots = Slots()
    for array in arrays:
        slots.add(array, aligned((texts, *array.shape), array.dtype))
    return Plan(texts, threads, Batch(texts=texts), stepwise=True, slots=slots), slots


def replay_texts(plan: Plan, taken: list[int], positions: list[int]) -> None:
    """Replay such a plan once: for the texts in these slots, each at its position."""
    team, compiled = Team(plan.threads), plan.compile()
    plan.batch.set_texts(taken, positions)
    team.run(compiled)
    team.close()


@kernel
def quantize_rows(rank, size, x, stride, tokens, columns, q, residual, q_stride):
    """Fill the quantized layouts, if anybody reads them, from the float32 one."""
    if q and rank == 0:
        for t in range(tokens):
            at = t * q_stride
            quantize_row(x + t * stride, columns, q + at, residual + at if residual else 0, 0, columns // 32)


def source(plan: Plan, values) -> Activation:
    """An activation that holds float32 [tokens, columns], in every layout that is asked for."""
    given = Activation(*values.shape)
    given.values[:] = values
    quantized = given.written("q8"), given.written("residual"), given.stride("q8")
    plan.add(quantize_rows, given.read("f32"), given.stride("f32"), *values.shape, *quantized)
    return given


def random_rows(rng, name: str, rows: int, columns: int) -> Matrix:
    """Random blocks whose scales make values of about unit size."""
    kind = formats.find(name)
    if kind.activation == "f32":
        return float_matrix(name, rng.standard_normal((rows, columns)))
    data = random_blocks(rng, name, rows * columns // kind.block.columns, spread=1)
    return Matrix(data.reshape(rows, -1), kind, columns)


def float_matrix(name: str, values) -> Matrix:
    """float [rows, columns] as F32, F16 or BF16 (rounded towards zero)."""
    values = np.ascontiguousarray(values, np.float32)
    if name == "F16":
        raw = values.astype(np.float16)
    else:
        raw = values if name == "F32" else (values.view(np.uint32) >> 16).astype(np.uint16)
    return Matrix(raw.view(np.uint8), formats.find(name), values.shape[1])


def stacked(matrices: list[Matrix]) -> ExpertMatrices:
    """One expert a matrix, wherever each lies in memory."""
    first = matrices[0]
    addresses = np.array([m.address for m in matrices], np.int64)
    bias = None if first.bias is None else np.array([m.bias for m in matrices])
    return ExpertMatrices(addresses, first.format, first.rows, first.columns, matrices, bias=bias)
