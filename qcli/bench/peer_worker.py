"""The process that runs llama.cpp: reads cases as JSON lines, writes seconds; measures what llama-bench measures.

usage: python -m qcli.bench.peer_worker MODEL CONTEXT KV_TYPE
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
from time import perf_counter
from typing import Any

from qcli.bench.cases import Case, random_ids
from qcli.gguf.types import BLOCKS

_GGML_TYPES = {name.lower(): block.number for name, block in BLOCKS.items()}


class Worker:
    """A model of llama.cpp, with a context for each batch size, and a saved state for each depth."""

    def __init__(self, path: str, ctx: int, kv_type: str) -> None:
        self._api: Any = importlib.import_module("llama_cpp")
        self._api.llama_backend_init()
        params = self._api.llama_model_default_params()
        params.n_gpu_layers = 0
        self._model = self._api.llama_model_load_from_file(path.encode(), params)
        if not self._model:
            raise RuntimeError(f"cannot load {path}")
        self._vocab_size = self._api.llama_vocab_n_tokens(self._api.llama_model_get_vocab(self._model))
        self._ctx, self._kv_type = ctx, kv_type
        self._contexts: dict[int, Any] = {}
        self._states: dict[tuple[int, int], Any] = {}

    @property
    def about(self) -> dict[str, str]:
        """Its version, and the CPU features that it was built for."""
        features = self._api.llama_print_system_info().decode()
        return {"version": self._api.__version__, "features": features.strip(" |")}

    def run(self, case: Case) -> float:
        """Seconds of one repetition."""
        context = self._begin(case)
        ids = random_ids(self._vocab_size, case.tokens, seed=0)
        size = case.batch if case.kind == "pp" else 1
        began = perf_counter()
        self._decode(context, ids, size)
        return perf_counter() - began

    def _begin(self, case: Case) -> Any:
        context = self._context(case.batch)
        self._api.llama_set_n_threads(context, case.threads, case.threads)
        self._api.llama_memory_clear(self._api.llama_get_memory(context), False)
        if case.depth:
            key = case.batch, case.depth
            if key not in self._states:
                self._decode(context, random_ids(self._vocab_size, case.depth, seed=case.depth), case.batch)
                self._states[key] = self._saved(context)
            state = self._states[key]
            self._api.llama_state_set_data(context, state, len(state))
        return context

    def _context(self, batch: int) -> Any:
        if batch not in self._contexts:
            params = self._api.llama_context_default_params()
            params.n_ctx = self._ctx
            params.n_batch = params.n_ubatch = min(batch, self._ctx)
            params.type_k = params.type_v = _GGML_TYPES[self._kv_type]
            self._contexts[batch] = self._api.llama_init_from_model(self._model, params)
            if not self._contexts[batch]:
                raise RuntimeError(f"cannot make a context of {self._ctx} tokens")
        return self._contexts[batch]

    def _saved(self, context: Any) -> Any:
        size = self._api.llama_state_get_size(context)
        state = (ctypes.c_uint8 * size)()
        self._api.llama_state_get_data(context, state, size)
        return state

    def _decode(self, context: Any, ids: list[int], size: int) -> None:
        for first in range(0, len(ids), size):
            part = ids[first : first + size]
            tokens = (self._api.llama_token * len(part))(*part)
            if self._api.llama_decode(context, self._api.llama_batch_get_one(tokens, len(part))):
                raise RuntimeError(f"cannot decode {len(part)} tokens")
        self._api.llama_synchronize(context)


def main(path: str, ctx: str, kv_type: str) -> None:
    """Run each case that comes in until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what llama.cpp prints goes to the log
    worker = None
    for line in sys.stdin:
        try:
            worker = worker or Worker(path, int(ctx), kv_type)
            answer = {"seconds": worker.run(Case(**json.loads(line))), "about": worker.about}
        except (RuntimeError, OSError, ImportError, AttributeError) as problem:
            answer = {"error": str(problem)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
