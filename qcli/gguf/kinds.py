"""GGUF files that are no language model: adapters, projectors, importance matrices and others, each by what it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from qcli.errors import UnsupportedModelError
from qcli.gguf.file import GGUFFile


class Kind(NamedTuple):
    """What a file is, and what to do with it."""

    what: str
    hint: str


_ADAPTER = Kind(
    "an adapter (LoRA): it changes a model, and is none",
    "give the model that it belongs to; llama.cpp's `llama-export-lora` makes one model of both",
)
_PROJECTOR = Kind(
    "a projector (mmproj) for images or sound: a part of a model that reads them",
    "give the model that it belongs to, often the other file of the same folder; qcli reads text",
)
_IMATRIX = Kind(
    "an importance matrix (imatrix): it guides quantization",
    "give the model that it was made of, or `qcli quantize IN OUT TYPE --imatrix FILE`",
)
_LOG_PROBS = Kind(
    "the predictions (log_probs) of a model on a text",
    "give a model, and this file as in `qcli perplexity MODEL --against FILE`",
)
_VECTOR = Kind(
    "a control vector: it steers a model, and is none", "give the model that it belongs to; qcli cannot steer it"
)
_VOCABULARY = Kind("a vocabulary only: it holds no weights", "give the file of a whole model")
_DRAFT = Kind(
    "a draft model that only works within another (EAGLE, Medusa or the like)",
    "give the model that it belongs to; qcli runs that alone",
)
_ENCODER = Kind("a model that makes numbers of texts (embeddings), and writes none", "give a model that writes text")

_BY_TYPE: Mapping[str, Kind] = {
    "adapter": _ADAPTER,
    "lora": _ADAPTER,
    "mmproj": _PROJECTOR,
    "projector": _PROJECTOR,
    "imatrix": _IMATRIX,
    "log_probs": _LOG_PROBS,
    "vocab": _VOCABULARY,
    "controlvector": _VECTOR,
    "control_vector": _VECTOR,
}
_BY_ARCHITECTURE: Mapping[str, Kind] = {
    "clip": _PROJECTOR,
    "controlvector": _VECTOR,
    **dict.fromkeys("eagle eagle2 eagle3 medusa".split(), _DRAFT),
    **dict.fromkeys(
        "bert nomic-bert nomic-bert-moe jina-bert-v2 jina-bert-v3 neo-bert modern-bert eurobert t5encoder"
        " gemma-embedding".split(),
        _ENCODER,
    ),
}
_BY_ENDING: Mapping[str, Kind] = {".lora_a": _ADAPTER, ".lora_b": _ADAPTER, ".in_sum2": _IMATRIX}
_ENDINGS = tuple(_BY_ENDING)


def other_kind(file: GGUFFile) -> Kind | None:
    """What a file is if it is no language model; None if it may be one."""
    found = _BY_TYPE.get(_lower(file, "general.type")) or _BY_ARCHITECTURE.get(_lower(file, "general.architecture"))
    if found:
        return found
    odd = (name for name in file.tensors if name.endswith(_ENDINGS))  # all endings at once: there may be many names
    endings = (kind for name in odd for ending, kind in _BY_ENDING.items() if name.endswith(ending))
    if any(name.startswith("direction.") for name in file.tensors):
        return _VECTOR
    lacks_weights = not file.tensors and "tokenizer.ggml.tokens" in file.metadata
    return next(endings, _VOCABULARY if lacks_weights else None)


def require_model(file: GGUFFile) -> None:
    """Raise UnsupportedModelError, which says what the file is, if it is no language model."""
    kind = other_kind(file)
    if kind:
        raise UnsupportedModelError(f"{file.path}: is {kind.what}", kind.hint)


def _lower(file: GGUFFile, key: str) -> str:
    value: Any = file.metadata.get(key, "")
    return value.lower() if isinstance(value, str) else ""
