"""From a file to a model and the state that it computes with: resident on the mapped file, or with its experts streamed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qcli import models
from qcli.errors import ContextOverflowError, ModelFileError, UnsupportedModelError, UsageError
from qcli.gguf.draft_block import with_blocks
from qcli.gguf.file import GGUFFile
from qcli.layers.hyperparameters import ANOTHER_MODEL
from qcli.layers.mtp import mtp_of
from qcli.layers.state import State
from qcli.models import Model
from qcli.progress import Progress
from qcli.streaming import usage_file
from quant.kernels.kv_cache import TYPES as KV_TYPES

if TYPE_CHECKING:
    from qcli.streaming.expert_loader import ExpertLoader

DEFAULT_CTX = 32_768  # tokens, where the model was made for as many
STEP_TOKENS = 8  # at most, of one step: a token, and guesses of those that follow it


def state_for(
    file: GGUFFile, ctx: int | None, kv_type: str, most_tokens: int = 1, mtp: bool = False, chunk: int | None = None
) -> State:
    """An empty state for a file's model, and steps of so many tokens; mtp: and for its head of multi-token prediction.

    chunk: tokens of a prompt that are taken together, see State.

    Raises UsageError, ModelFileError, ContextOverflowError.
    """
    if kv_type not in KV_TYPES:
        raise UsageError(f'there is no --kv-type "{kv_type}"', f"give one of: {', '.join(KV_TYPES)}")
    longest = models.context_length(file)
    if longest < 1:
        raise ModelFileError(f"{file.path}: was made for {longest:,} tokens of context", "download the model again")
    if ctx is not None and ctx > longest:
        message = f"{file.path}: was made for {longest:,} tokens of context, not {ctx:,}"
        raise ContextOverflowError(message, (f"give --ctx {longest} or less", "ask for fewer tokens"))
    return State(ctx or min(longest, DEFAULT_CTX), kv_type, longest, most_tokens, mtp, chunk)


def model_of(
    file: GGUFFile, ctx: int | None, kv_type: str, most_tokens: int = 1, mtp: bool = False, chunk: int | None = None
) -> tuple[Model, State]:
    """A file's model, and the state that it is built upon. Raises ModelFileError, ContextOverflowError."""
    state = state_for(file, ctx, kv_type, most_tokens, mtp, chunk)
    try:
        return models.load(file, state), state
    except ValueError as error:  # shapes that fit the file but not the kernels
        message = f"{file.path}: qcli does not support the shapes of this model: {error}"
        raise UnsupportedModelError(message, ANOTHER_MODEL) from error
    except MemoryError:
        message = f"{file.path}: there is no memory for a context of {state.ctx:,} tokens"
        raise ContextOverflowError(message, ("give a smaller --ctx", "close other programs")) from None


def as_loaded(file: GGUFFile, model: Model) -> GGUFFile:
    """A file without the blocks for multi-token prediction that its model has not: of several the first alone has a use."""
    return with_blocks(file, 1 if mtp_of(model) else 0)


def streamed_model_of(
    file: GGUFFile, ctx: int | None, kv_type: str, progress: Progress | None, mtp: bool = False,
    chunk: int | None = None,
) -> tuple[Model, State, ExpertLoader]:  # fmt: skip
    """The model with its dense weights copied into memory, its state, and what reads its experts.

    It is built anew because a model has the addresses of its weights: one on the mapped file was needed first, to see
    that it takes more memory than there is.
    """
    from qcli.streaming.dense import load_dense
    from qcli.streaming.expert_loader import ExpertLoader

    file = load_dense(file, progress)
    model, state = model_of(file, ctx, kv_type, STEP_TOKENS, mtp, chunk)
    return model, state, ExpertLoader(file, usage_path=usage_file.path_for(file))
