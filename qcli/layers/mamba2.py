"""The Mamba 2 mixer (Dao and Gu, arXiv 2405.21060) of a decoder layer, its weights named as in GGUF."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.state import State
from qcli.layers.weights import linear, vector
from quant.kernels.deferred import catch_up, deferred_floats
from quant.kernels.mamba2 import Mamba2, mamba2_step
from quant.kernels.mamba2_chunk import mamba2_chunk
from quant.kernels.matmul import add_matmul, matmul
from quant.plan import Activation, Plan
from quant.weights import Matrix


@dataclass(frozen=True)
class StateSpace:
    """The weights of one mixer; ssm_in gives z, then x, b and c together, then the step dt of each head."""

    ssm_in: Matrix
    ssm_out: Matrix
    net: Mamba2
    eps: float
    scale: float

    @classmethod
    def read(cls, hparams: Hyperparameters, i: int, state: State, scale: float = 1.0) -> StateSpace:
        """Layer i of a file; scale: of the output."""
        file, block, n, taps = hparams.file, f"blk.{i}", hparams.hidden_size, hparams.size("ssm.conv_kernel")
        heads, groups = hparams.size("ssm.time_step_rank"), hparams.size("ssm.group_count")
        columns, state_width = hparams.size("ssm.inner_size"), hparams.size("ssm.state_size")
        if columns % heads or heads % groups:
            hparams.wrong(f"{columns} columns in {heads} heads in {groups} groups")
        channels, width = columns + 2 * groups * state_width, columns // heads
        ssm_in = linear(file, f"{block}.ssm_in", columns + channels + heads, n)
        ssm_out = linear(file, f"{block}.ssm_out", n, columns)
        net = Mamba2(
            heads=heads,
            groups=groups,
            width=width,
            state_width=state_width,
            conv=np.ascontiguousarray(vector(file, f"{block}.ssm_conv1d.weight", channels, taps).T),
            conv_bias=vector(file, f"{block}.ssm_conv1d.bias", channels),
            a=_rates(hparams, f"{block}.ssm_a", heads),
            d=_flat(hparams, f"{block}.ssm_d", heads, 1),
            dt_bias=vector(file, f"{block}.ssm_dt.bias", heads),
            norm=_flat(hparams, f"{block}.ssm_norm.weight", groups, columns // groups),
            conv_state=state.ring(taps, channels),
            state=state.recurrent(heads, width // 16, state_width, 16),
            deferred=state.deferred(heads, deferred_floats(state_width, width)),
        )
        state.on_catch_up(partial(catch_up, net=net))
        return cls(ssm_in, ssm_out, net, hparams.rms_norm_eps, scale)

    def trace(self, plan: Plan, h: Activation, x: Activation) -> None:
        """x += scale * mixer of h, both [tokens, n]."""
        plan.part = "state space"
        net, to_dt = self.net, self.net.columns + self.net.channels
        z, mixed = plan.activation("z", net.columns), plan.activation("xbc", net.channels)
        dt, out = plan.activation("dt", net.heads), plan.activation("state space out", net.columns)
        parts = self.ssm_in.part(0, net.columns), self.ssm_in.part(net.columns, to_dt)
        outputs = [*zip(parts, (z, mixed), strict=True), (self.ssm_in.part(to_dt, self.ssm_in.rows), dt)]
        matmul(plan, h, outputs)
        add = mamba2_step if plan.stepwise else mamba2_chunk
        add(plan, net, mixed, z, dt, self.eps, out)
        add_matmul(plan, out, self.ssm_out, x, self.scale)


def _rates(hparams: Hyperparameters, name: str, heads: int) -> NDArray[np.float32]:
    """float32 [heads]: -exp(A_log) of the config, with which a state cannot grow."""
    a = _flat(hparams, name, heads, 1)
    if (a > 0).any():
        hparams.wrong(f'"{name}" has a head whose state would grow')
    return a


def _flat(hparams: Hyperparameters, name: str, rows: int, columns: int) -> NDArray[np.float32]:
    """A tensor [rows, columns] as one vector; some files have it as a vector already."""
    flat = len(hparams.file.tensor(name).shape) == 1
    return vector(hparams.file, name, *((rows * columns,) if flat else (rows, columns))).reshape(-1)
