"""The mixer of Kimi Delta Attention (arXiv 2510.26692), its weights named as in GGUF."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.state import State
from qcli.layers.weights import linear, vector
from quant.kernels.columns import quantize
from quant.kernels.deferred import catch_up, deferred_floats
from quant.kernels.delta_net import DeltaNet
from quant.kernels.kimi_delta import kimi_delta_step
from quant.kernels.kimi_delta_chunk import kimi_delta_chunk
from quant.kernels.matmul import add_matmul, matmul
from quant.plan import Activation, Plan
from quant.weights import Matrix


@dataclass(frozen=True)
class Projection:
    """A matrix, or two that lead through a narrow row."""

    first: Matrix
    second: Matrix | None

    @classmethod
    def read(cls, hparams: Hyperparameters, name: str, rows: int) -> Projection:
        """The tensors `name`_a [narrow, n] and `name`_b [rows, narrow], or `name`_a or `name` alone [rows, n]."""
        file, n = hparams.file, hparams.hidden_size
        if f"{name}_b.weight" not in file.tensors:
            whole = name if f"{name}.weight" in file.tensors else f"{name}_a"
            return cls(linear(file, whole, rows, n), None)
        narrow = file.tensor(f"{name}_a.weight").shape[0]
        return cls(linear(file, f"{name}_a", narrow, n), linear(file, f"{name}_b", rows, narrow))

    def begin(self, plan: Plan, name: str, y: Activation) -> tuple[Matrix, Activation]:
        """What the rows that are projected are multiplied with, and where to: y, or the narrow row of this name."""
        return self.first, plan.activation(name, self.first.rows) if self.second else y

    def end(self, plan: Plan, name: str, y: Activation) -> None:
        """From the narrow row, if there is one, to y [tokens, rows]."""
        if self.second:
            narrow = plan.activation(name, self.first.rows)
            quantize(plan, narrow)
            matmul(plan, narrow, [(self.second, y)])


@dataclass(frozen=True)
class KimiDeltaAttention:
    """The weights of one mixer; ssm_f gives the decays of channels, ssm_g the gates of outputs."""

    qkv: tuple[Matrix, Matrix, Matrix]
    ssm_f: Projection
    ssm_g: Projection
    ssm_beta: Matrix
    attn_output: Matrix
    net: DeltaNet
    eps: float

    @classmethod
    def read(cls, hparams: Hyperparameters, i: int, state: State, lower_bound: float = 0.0) -> KimiDeltaAttention:
        """Layer i of a file; lower_bound: below 0, of a safe gate's decays."""
        file, block, n, heads = hparams.file, f"blk.{i}", hparams.hidden_size, hparams.num_attention_heads[i]
        width = hparams.size("kda.head_dim") if hparams.has("kda.head_dim") else hparams.size("ssm.state_size")
        if not heads:
            hparams.wrong(f"layer {i} has no heads")
        columns, taps = heads * width, hparams.size("ssm.conv_kernel")
        conv = [_squeezed(hparams, f"{block}.ssm_conv1d_{part}.weight", columns, taps) for part in "qkv"]
        q, k, v = (linear(file, f"{block}.attn_{part}", columns, n) for part in "qkv")
        net = DeltaNet(
            key_heads=heads,
            value_heads=heads,
            key_dim=width,
            value_dim=width,
            share=1,
            conv=np.ascontiguousarray(np.concatenate(conv).T),
            a=_rates(hparams, f"{block}.ssm_a", heads, bounded=lower_bound < 0),
            dt_bias=vector(file, f"{block}.ssm_dt.bias", columns).reshape(heads, width),
            norm=vector(file, f"{block}.ssm_norm.weight", width),
            conv_state=state.ring(taps, 3 * columns),
            state=state.recurrent(heads, width // 16, width, 16),
            sigmoid_gate=True,
            lower_bound=lower_bound,
            deferred=state.deferred(heads, deferred_floats(width, width, width)),
        )
        state.on_catch_up(partial(catch_up, net=net))
        return cls(
            qkv=(q, k, v),
            ssm_f=Projection.read(hparams, f"{block}.ssm_f", columns),
            ssm_g=Projection.read(hparams, f"{block}.ssm_g", columns),
            ssm_beta=linear(file, f"{block}.ssm_beta", heads, n),
            attn_output=linear(file, f"{block}.attn_output", n, columns),
            net=net,
            eps=hparams.rms_norm_eps,
        )

    def trace(self, plan: Plan, h: Activation, x: Activation) -> None:
        """x += Kimi Delta Attention of h, both [tokens, n]."""
        plan.part = "linear attention"
        columns, mixed = self.net.value_columns, plan.activation("qkv", self.net.channels)
        z, beta = plan.activation("z", columns), plan.activation("beta", self.ssm_beta.rows)
        alpha, out = plan.activation("alpha", columns), plan.activation("linear attention out", columns)
        outputs = [(w, mixed.part(i * columns, columns)) for i, w in enumerate(self.qkv)]
        outputs += [(self.ssm_beta, beta)]
        outputs += [self.ssm_f.begin(plan, "narrow alpha", alpha), self.ssm_g.begin(plan, "narrow z", z)]
        matmul(plan, h, outputs)
        self.ssm_f.end(plan, "narrow alpha", alpha)
        self.ssm_g.end(plan, "narrow z", z)
        kimi_delta = kimi_delta_step if plan.stepwise else kimi_delta_chunk
        kimi_delta(plan, self.net, mixed, z, beta, alpha, self.eps, out)
        add_matmul(plan, out, self.attn_output, x)


def _squeezed(hparams: Hyperparameters, name: str, *shape: int) -> NDArray[np.float32]:
    """A tensor as float32 of this shape; files have it with dimensions of 1 in between."""
    found = hparams.file.tensor(name).shape
    without = [[n for n in sizes if n != 1] for sizes in (found, shape)]
    return vector(hparams.file, name, *(found if without[0] == without[1] else shape)).reshape(shape)


def _rates(hparams: Hyperparameters, name: str, heads: int, bounded: bool) -> NDArray[np.float32]:
    """float32 [heads]: -exp(A_log) of the config, with which a state cannot grow, or exp(A_log) where decays are bounded."""
    a = _squeezed(hparams, name, heads)
    if not bounded and (a > 0).any():
        hparams.wrong(f'"{name}" has a head whose state would grow')
    return a
