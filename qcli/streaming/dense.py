"""Tells routed experts from dense weights, and reads the latter into memory, where reads of experts cannot evict them.

`Engine.load` calls `load_dense` once, before a streamed model is traced.
"""

from __future__ import annotations

import re
from copy import copy
from dataclasses import replace
from types import MappingProxyType

from qcli.gguf.file import GGUFFile, Tensor
from qcli.host.pages import allocate_pages
from qcli.progress import Progress
from qcli.streaming.reader import Reader, Span, buffer_bytes

_EXPERTS = re.compile(r"_exps\.weight$")
_READS_AT_ONCE = 32  # tensors


def is_expert(tensor: Tensor) -> bool:
    """Whether a tensor has a matrix for every routed expert, of which a token needs a few."""
    return bool(_EXPERTS.search(tensor.name)) and len(tensor.shape) == 3


def weight_bytes(file: GGUFFile, experts: bool) -> int:
    """Bytes of all routed experts, or of all other weights."""
    return sum(tensor.n_bytes for tensor in file.tensors.values() if is_expert(tensor) == experts)


def load_dense(file: GGUFFile, progress: Progress | None = None) -> GGUFFile:
    """A copy of the file whose dense tensors are in memory; experts stay mapped. Raises ModelFileError."""
    dense = [tensor for tensor in file.tensors.values() if tensor.n_bytes and not is_expert(tensor)]
    total, done = sum(tensor.n_bytes for tensor in dense), 0
    tensors = dict(file.tensors)
    with Reader(list({tensor.path for tensor in dense})) as reader:
        for first in range(0, len(dense), _READS_AT_ONCE):
            spans = [_span(tensor) for tensor in dense[first : first + _READS_AT_ONCE]]
            requests = [reader.read([span]) for span in spans]
            for tensor, span, request in zip(dense[first:], spans, requests, strict=False):
                request.wait()
                done += tensor.n_bytes
                data = span.memory[span.start : span.start + tensor.n_bytes]
                data.flags.writeable = False
                tensors[tensor.name] = replace(tensor, data=data.reshape(tensor.data.shape))
                if progress:
                    progress("loading weights", done / total)
    file = copy(file)
    file.tensors = MappingProxyType(tensors)
    return file


def _span(tensor: Tensor) -> Span:
    return Span(tensor.path, tensor.offset, tensor.n_bytes, allocate_pages(buffer_bytes(tensor.n_bytes)))
