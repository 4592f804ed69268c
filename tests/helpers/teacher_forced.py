"""What a head of multi-token prediction makes of a text, the next id being the text's at every position."""

from __future__ import annotations

import numpy as np

from qcli.gguf.file import GGUFFile
from qcli.layers.mtp import mtp_of
from qcli.layers.state import State
from qcli.models import load
from qcli.runtime.program import Program
from quant.batch import Batch
from quant.plan import Plan
from quant.team import Team


def teacher_forced(path, ids, kv_type="f16", threads=2):
    """Rows after the model's norm, float32 [tokens, n], and logits of the head [tokens - 1, vocab]."""
    state, count, team = State(128, kv_type, mtp=True), len(ids) - 1, Team(threads)
    model = load(GGUFFile.open(path), state)
    head = mtp_of(model)
    trunk, guesses = Plan(len(ids), threads, state.batch), Plan(len(ids), threads, Batch(count))
    state.batch.set(len(ids), 0)
    h = head.normed(trunk, model.trunk(trunk, np.array(ids)))
    x = head.trunk(guesses, h, np.array([*ids[1:], 0]))
    logits = head.head(guesses, x, guesses.activation("own", head.columns), head.shared_head)
    for plan in (trunk, guesses):
        Program.of(plan).replay(lambda records, _: team.run(records))
    team.close()
    return h.values.copy(), logits.values[:count].copy()
