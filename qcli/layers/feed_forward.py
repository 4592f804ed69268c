"""The feed-forward network of a decoder layer: one for all tokens (MLP), or experts that tokens are routed to (MoE)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qcli.gguf.file import GGUFFile
from qcli.layers.hyperparameters import Hyperparameters
from qcli.layers.state import State
from qcli.layers.weights import experts_apart, gate_up_experts, linear, linear_experts, one_expert, vector
from quant.kernels import columns, experts_streamed, experts_streamed_few
from quant.kernels.experts import GatedExperts, LayerExperts, dense_step, experts_step
from quant.kernels.experts_few import dense_few, experts_few
from quant.kernels.experts_grouped import dense_grouped, experts_grouped
from quant.kernels.experts_streamed import ExpertProvider
from quant.kernels.gates import UNGATED
from quant.kernels.matmul import add_matmul, matmul
from quant.kernels.router import Routing
from quant.plan import Activation, Plan
from quant.weights import ExpertMatrices, Matrix


@dataclass(frozen=True)
class MLP:
    """A feed-forward network, with or without a gate: x += scale * down(f(gate h) * up h)."""

    layer: GatedExperts
    scale: float = 1.0

    @classmethod
    def read(cls, hparams: Hyperparameters, i: int, *, activation: str = "silu", scale: float = 1.0) -> MLP:
        """ffn_gate, unless the activation has none, ffn_up and ffn_down of layer i, with biases where the file has them."""
        width = hparams.sizes("feed_forward_length", least=0)[i]
        return cls(_network(hparams, f"blk.{i}.ffn", "", width, activation), scale)

    def trace(self, plan: Plan, h: Activation, x: Activation) -> None:
        """x += scale * mlp(h), both [tokens, n]."""
        plan.part = "feed forward"
        dense = dense_step if plan.tokens == 1 else dense_few if plan.stepwise else dense_grouped
        dense(plan, self.layer, h, x, self.scale)


@dataclass(frozen=True)
class Latent:
    """What is around experts of a narrower space: down [width, n] leads into it, up [n, width] out of it."""

    ffn_latent_down: Matrix
    ffn_latent_up: Matrix

    @classmethod
    def read(cls, hparams: Hyperparameters, i: int, width: int) -> Latent:
        """Layer i of a file."""
        n, block = hparams.hidden_size, f"blk.{i}.ffn_latent"
        return cls(linear(hparams.file, f"{block}_down", width, n), linear(hparams.file, f"{block}_up", n, width))

    def enter(self, plan: Plan, h: Activation) -> tuple[Activation, Activation]:
        """Trace from h [tokens, n] to what the experts take, and what they add to, both [tokens, width]."""
        width = self.ffn_latent_down.rows
        taken, added = plan.activation("latent", width), plan.activation("latent added", width)
        matmul(plan, h, [(self.ffn_latent_down, taken)])
        columns.quantize(plan, taken)
        columns.clear(plan, added)
        return taken, added

    def leave(self, plan: Plan, added: Activation, x: Activation) -> None:
        """x [tokens, n] += up added."""
        columns.quantize(plan, added)
        add_matmul(plan, added, self.ffn_latent_up, x)


@dataclass(frozen=True)
class MoE:
    """A mixture of experts: a router, its experts, and perhaps an expert that all tokens share, with or without a gate.

    Where the experts are in a latent space, the shared one is not: it stands by itself.
    """

    ffn_gate_inp: Matrix
    ffn_gate_inp_shexp: Matrix | None
    layer: LayerExperts
    latent: Latent | None = None
    shared: MLP | None = None

    @classmethod
    def read(
        cls, hparams: Hyperparameters, i: int, state: State, routing: Routing, *, shared: int = 0, shared_gate: bool = False,
        activation: str = "silu", scale: float = 1.0, latent: int = 0,
    ) -> MoE:  # fmt: skip
        """The experts of layer i; shared: width of the shared expert, 0 for none; scale: of what is added.

        latent: columns of the space that the routed experts are in, 0 where it is that of the residual stream.

        Biases of the matrices, and of the router's scores (`exp_probs_b`), and what each expert's result is multiplied by
        (`ffn_down_exps.scale`), are read where the file has them.
        """
        file, block, n, count = hparams.file, f"blk.{i}", hparams.hidden_size, hparams.num_experts
        key = "expert_feed_forward_length"
        width = hparams.sizes(key if hparams.has(key) else "feed_forward_length")[i]
        bias = f"{block}.exp_probs_b.bias"
        if bias in file.tensors:
            routing = replace(routing, bias=vector(file, bias, count))
        scales = f"{block}.ffn_down_exps.scale"
        if scales in file.tensors:
            routing = replace(routing, expert_scales=vector(file, scales, count))
        own = _network(hparams, f"{block}.ffn", "_shexp", shared, activation) if shared else None
        layer = LayerExperts(
            routed=_routed(file, block, count, width, latent or n, activation),
            shared=None if latent else own,
            routing=routing,
            touched=state.touched(count),
            scale=scale,
        )
        return cls(
            linear(file, f"{block}.ffn_gate_inp", count, n),
            linear(file, f"{block}.ffn_gate_inp_shexp", 1, n) if shared_gate else None,
            layer,
            Latent.read(hparams, i, latent) if latent else None,
            MLP(own, scale) if latent and own else None,
        )

    def trace(self, plan: Plan, h: Activation, x: Activation, routed_by: Activation | None = None) -> None:
        """x += scale * moe(h), both [tokens, n]; routed_by [tokens, n]: what the router sees, if it is not h."""
        routed_by = routed_by or h
        plan.part = "router"
        logits = plan.activation("router", self.ffn_gate_inp.rows)
        outputs, shared_gate = [(self.ffn_gate_inp, logits)], None
        if self.ffn_gate_inp_shexp:
            shared_gate = plan.activation("shared gate", 1)
            outputs.append((self.ffn_gate_inp_shexp, shared_gate))
        matmul(plan, routed_by, outputs)
        plan.part = "experts"
        if self.latent is None:
            self._add_experts(plan, routed_by, h, logits, shared_gate, x)
            return
        taken, added = self.latent.enter(plan, h)
        self._add_experts(plan, routed_by, taken, logits, None, added)
        self.latent.leave(plan, added, x)
        if self.shared:
            self.shared.trace(plan, h, x)

    def _add_experts(
        self,
        plan: Plan,
        routed_by: Activation,
        h: Activation,
        logits: Activation,
        shared_gate: Activation | None,
        x: Activation,
    ) -> None:
        """x += scale * the experts of h, both [tokens, n], wherever these are; routed_by: what the router saw."""
        provider: ExpertProvider | None = plan.hook(ExpertProvider)
        if provider and plan.stepwise:
            router = self.ffn_gate_inp, routed_by
            streamed = experts_streamed.experts_step if plan.tokens == 1 else experts_streamed_few.experts_few
            streamed(plan, provider, self.layer, router, h, logits, shared_gate, x)
            return
        if provider:
            experts_streamed.experts_grouped(plan, provider, self.layer, h, logits, shared_gate, x)
            return
        resident = experts_step if plan.tokens == 1 else experts_few if plan.stepwise else experts_grouped
        resident(plan, self.layer, h, logits, shared_gate, x)


FeedForward = MLP | MoE


def dense_then_moe(hparams: Hyperparameters, i: int, state: State, routing: Routing, shared: int = 0) -> FeedForward:
    """Layer i of a model whose first layers are dense; shared: the width of the shared expert."""
    if i < hparams.count("leading_dense_block_count"):
        return MLP.read(hparams, i)
    return MoE.read(hparams, i, state, routing, shared=shared)


def read_routing(hparams: Hyperparameters, *, scores: str = "softmax", normalised: bool = False) -> Routing:
    """How the router of a file chooses experts and weighs them; scores, normalised: where the file does not say."""
    kind = hparams.count("expert_gating_func") or {"softmax": 1, "sigmoid": 2}[scores]
    if kind not in (1, 2, 3):
        hparams.unsupported(f"routing by the function {kind} is not supported")
    by_sigmoid = kind == 2
    return Routing(
        experts_per_token=hparams.num_experts_per_tok,
        scores="sigmoid" if by_sigmoid else "softmax",
        normalised=kind == 3 or hparams.flag("expert_weights_norm", normalised),
        scale=hparams.routed_scaling_factor,
        groups=hparams.count("expert_group_count") or 1,
        groups_used=hparams.count("expert_group_used_count") or 1,
        group_best=2 if by_sigmoid and hparams.count("expert_group_count") > 1 else 1,
    )


def _network(hparams: Hyperparameters, prefix: str, suffix: str, width: int, activation: str) -> GatedExperts:
    """One network of `width` hidden columns: the tensors `prefix`_gate`suffix`, unless it has none, _up and _down."""
    file, n = hparams.file, hparams.hidden_size
    gate = None if activation in UNGATED else one_expert(linear(file, f"{prefix}_gate{suffix}", width, n))
    up = one_expert(linear(file, f"{prefix}_up{suffix}", width, n))
    return GatedExperts(gate, up, one_expert(linear(file, f"{prefix}_down{suffix}", n, width)), activation)


def _routed(file: GGUFFile, block: str, count: int, width: int, n: int, activation: str) -> GatedExperts:
    """The `count` routed experts of a layer, of `width` hidden columns each."""
    if f"{block}.ffn_gate.0.weight" in file.tensors:
        shapes = ("gate", width, n), ("up", width, n), ("down", n, width)
        gate, up, down = (experts_apart(file, f"{block}.ffn_{part}", count, *shape) for part, *shape in shapes)
        return GatedExperts(gate, up, down, activation)
    down = linear_experts(file, f"{block}.ffn_down_exps", count, n, width)
    if down.scales is not None and down.bias is not None:
        raise ValueError(f'"{block}.ffn_down_exps" has a scale beside a bias')
    down = replace(down, scales=None)  # as the routing has them: one product of a weight and a scale is enough
    if activation in UNGATED:
        return GatedExperts(None, linear_experts(file, f"{block}.ffn_up_exps", count, width, n), down, activation)
    return GatedExperts(*_gate_up(file, block, count, width, n), down, activation)


def _gate_up(file: GGUFFile, block: str, count: int, width: int, n: int) -> tuple[ExpertMatrices, ExpertMatrices]:
    """The gate and up matrices of all experts: two tensors, or one that holds each expert's gate rows, then its up rows."""
    fused = f"{block}.ffn_gate_up_exps.weight"
    if fused in file.tensors:
        return gate_up_experts(file, fused, count, width, n)
    gate = linear_experts(file, f"{block}.ffn_gate_exps", count, width, n)
    return gate, linear_experts(file, f"{block}.ffn_up_exps", count, width, n)
