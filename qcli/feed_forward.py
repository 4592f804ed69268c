"""The feed-forward part of a layer: experts that tokens are routed to, or one that every token takes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qcli.gguf_file import GGUFFile
from qcli.state import State
from qcli.tensors import gate_up_experts, linear, linear_experts, matrix, one_expert, vector
from quant.kernels.experts import ExpertLayer, Gated, dense_step, experts_step
from quant.kernels.experts_grouped import dense_grouped, experts_grouped
from quant.kernels.matmul import matmul
from quant.kernels.router import Routing
from quant.plan import Activation, Plan
from quant.weights import Experts, Matrix


@dataclass(frozen=True)
class Dense:
    """A layer without a router: down(f(gate x) * up x)."""

    layer: Gated

    @classmethod
    def read(cls, file: GGUFFile, block: str, n: int, width: int, activation: str = "silu") -> Dense:
        """`block`.ffn_gate, ffn_up and ffn_down, with biases where the file has them."""
        return cls(_gated(file, f"{block}.ffn", "", n, width, activation))

    def trace(self, plan: Plan, h: Activation, out: Activation, scale: float = 1.0, adds: bool = True) -> None:
        """h [tokens, n]: out [tokens, n] = scale * the result, added to out if `adds`."""
        plan.part = "feed forward"
        dense = dense_step if plan.tokens == 1 else dense_grouped
        dense(plan, self.layer, h, out, scale, adds)


@dataclass(frozen=True)
class Routed:
    """The router and the routed experts of a layer, and the shared expert if there is one, with or without a gate."""

    ffn_gate_inp: Matrix
    ffn_gate_inp_shexp: Matrix | None
    layer: ExpertLayer

    @classmethod
    def read(
        cls, file: GGUFFile, block: str, n: int, count: int, width: int, routing: Routing, state: State, *, shared: int = 0,
        shared_gate: bool = False, activation: str = "silu", scale: float = 1.0,
    ) -> Routed:  # fmt: skip
        """`count` experts of `width`, and one of width `shared`, with a gate or without; scale multiplies what they add.

        Biases, and `exp_probs_b`, are read where the file has them.
        """
        bias = f"{block}.exp_probs_b.bias"
        if bias in file.tensors:
            routing = replace(routing, bias=vector(file, bias, count))
        layer = ExpertLayer(
            routed=_routed(file, block, count, width, n, activation),
            shared=_gated(file, f"{block}.ffn", "_shexp", n, shared, activation) if shared else None,
            routing=routing,
            touched=state.touched(count),
            scale=scale,
        )
        router = linear(file, f"{block}.ffn_gate_inp", count, n)
        return cls(router, matrix(file, f"{block}.ffn_gate_inp_shexp.weight", 1, n) if shared_gate else None, layer)

    def trace(self, plan: Plan, h: Activation, x: Activation) -> None:
        """h [tokens, n]: x [tokens, n] += scale * what the experts give."""
        plan.part = "router"
        logits = plan.rows("router", self.ffn_gate_inp.rows)
        shared_gate = plan.rows("shared gate", 1) if self.ffn_gate_inp_shexp else None
        outputs = [(self.ffn_gate_inp, logits)]
        if self.ffn_gate_inp_shexp and shared_gate:
            outputs.append((self.ffn_gate_inp_shexp, shared_gate))
        matmul(plan, h, outputs)
        plan.part = "experts"
        routed = experts_step if plan.tokens == 1 else experts_grouped
        routed(plan, self.layer, h, logits, shared_gate, x)


FeedForward = Dense | Routed


def _gated(file: GGUFFile, prefix: str, suffix: str, n: int, width: int, activation: str) -> Gated:
    gate = one_expert(linear(file, f"{prefix}_gate{suffix}", width, n))
    up = one_expert(linear(file, f"{prefix}_up{suffix}", width, n))
    return Gated(gate, up, one_expert(linear(file, f"{prefix}_down{suffix}", n, width)), activation)


def _routed(file: GGUFFile, block: str, count: int, width: int, n: int, activation: str) -> Gated:
    gate, up = _gate_up(file, block, count, width, n)
    return Gated(gate, up, linear_experts(file, f"{block}.ffn_down_exps", count, n, width), activation)


def _gate_up(file: GGUFFile, block: str, count: int, width: int, n: int) -> tuple[Experts, Experts]:
    """Two tensors, or one of each expert's gate rows and then its up rows."""
    fused = f"{block}.ffn_gate_up_exps.weight"
    if fused in file.tensors:
        return gate_up_experts(file, fused, count, width, n)
    gate = linear_experts(file, f"{block}.ffn_gate_exps", count, width, n)
    return gate, linear_experts(file, f"{block}.ffn_up_exps", count, width, n)
