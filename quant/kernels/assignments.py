"""Which tokens each expert is multiplied with: pairs of a token and one of its choices, in order of expert.

The j-th choice of token t, of k, is pair t * k + j. A matrix that every token takes is an expert that all of them chose.
"""

from __future__ import annotations

from dataclasses import dataclass

from quant.jit import inline
from quant.layout import Layout
from quant.plan import Operand, Plan
from quant.simd import load_i64

ASSIGNMENTS = Layout("experts", "k", "starts", "pairs", "weights", "most")  # fields of `Assignments`


@dataclass(frozen=True)
class Assignments:
    """Expert e gets pairs[i], which is of token pairs[i] // k, for i from starts[e] up to starts[e + 1].

    Without pairs, pair i stands at place i; without starts, one expert gets all tokens of a replay. weights: float32, what
    the result of each pair is multiplied with; most: tokens that one expert may get.
    """

    experts: int
    k: int = 1
    starts: Operand = 0  # int64 [experts + 1]
    pairs: Operand = 0  # int64 [starts[experts]]
    weights: Operand = 0
    most: int = 0

    def table(self, plan: Plan) -> Operand:
        """An operand: the table that kernels read."""
        return plan.table(ASSIGNMENTS, **vars(self))


@inline
def start_and_count(assignments, expert):
    """The place of an expert's first pair, and how many it has."""
    at = load_i64(assignments + ASSIGNMENTS.starts) + 8 * expert
    start = load_i64(at)
    return start, load_i64(at + 8) - start


@inline
def pair_at(assignments, place):
    """The pair at a place of the order."""
    pairs = load_i64(assignments + ASSIGNMENTS.pairs)
    return load_i64(pairs + 8 * place) if pairs else place
