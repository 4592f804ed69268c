"""In place of llama-cpp-python: decodes nothing, and says what it was asked in the file named by FAKE_PEER_LOG."""

from __future__ import annotations

import ctypes
import os
import time
from types import SimpleNamespace

__version__ = "9.9"
llama_token = ctypes.c_int32


def _note(*what):
    with open(os.environ["FAKE_PEER_LOG"], "a", encoding="utf-8") as log:
        log.write(" ".join(map(str, what)) + "\n")


def llama_backend_init():
    print("llama.cpp prints what it likes", flush=True)
    _note("pid", os.getpid())


def llama_model_default_params():
    return SimpleNamespace(n_gpu_layers=-1)


def llama_model_load_from_file(path, how):
    assert how.n_gpu_layers == 0
    return None if os.environ.get("FAKE_PEER_DOES") == "refuse" else path


def llama_model_get_vocab(model):
    return model


def llama_vocab_n_tokens(vocab):
    return 100


def llama_print_system_info():
    return b"CPU : SSE3 = 1 | "


def llama_context_default_params():
    return SimpleNamespace()


def llama_init_from_model(model, how):
    _note("context", how.n_ctx, how.n_batch, how.n_ubatch, how.type_k, how.type_v)
    return SimpleNamespace(held=0)


def llama_set_n_threads(context, decode, prefill):
    _note("threads", decode, prefill)


def llama_get_memory(context):
    return context


def llama_memory_clear(memory, data):
    memory.held = 0


def llama_state_get_size(context):
    return 8


def llama_state_get_data(context, state, size):
    state[0] = context.held
    return size


def llama_state_set_data(context, state, size):
    context.held = state[0]
    return size


def llama_batch_get_one(tokens, count):
    assert all(0 <= token < 100 for token in tokens)
    return count


def llama_decode(context, count):
    does = os.environ.get("FAKE_PEER_DOES")
    if does == "crash":
        os.write(2, b"something\nGGML_ASSERT(false) failed\n")
        os.abort()
    if does == "fail":
        return 1
    _note("decode", count, "after", context.held)
    context.held += count
    time.sleep(60 if does == "hang" else 0.001)
    return 0


def llama_synchronize(context):
    _note("end")
