"""A file whose dense weights are in memory, where reading experts cannot push them out."""

from __future__ import annotations

import re
from copy import copy
from dataclasses import replace
from types import MappingProxyType

from qcli.gguf.file import GGUFFile, Tensor
from qcli.host.pages import pages
from qcli.progress import Progress
from qcli.streaming.reader import Reader, Span, room

_EXPERTS = re.compile(r"_exps\.weight$")
_TOGETHER = 32  # tensors on their way at a time


def is_expert(tensor: Tensor) -> bool:
    """Whether a tensor holds a matrix of every expert, of which a token needs a few."""
    return bool(_EXPERTS.search(tensor.name)) and len(tensor.shape) == 3


def hold_dense(file: GGUFFile, progress: Progress | None = None) -> GGUFFile:
    """The file with every dense tensor read into memory; experts stay where they are. Raises ModelFileError."""
    dense = [tensor for tensor in file.tensors.values() if not is_expert(tensor)]
    whole, done = sum(tensor.n_bytes for tensor in dense), 0
    held = dict(file.tensors)
    with Reader(list({tensor.path for tensor in dense})) as reader:
        for first in range(0, len(dense), _TOGETHER):
            spans = [_span(tensor) for tensor in dense[first : first + _TOGETHER]]
            tickets = [reader.read([span]) for span in spans]
            for tensor, span, ticket in zip(dense[first:], spans, tickets, strict=False):
                ticket.wait()
                done += tensor.n_bytes
                data = span.memory[span.start : span.start + tensor.n_bytes]
                data.flags.writeable = False
                held[tensor.name] = replace(tensor, data=data.reshape(tensor.data.shape))
                if progress:
                    progress("loading weights", done / whole)
    file = copy(file)
    file.tensors = MappingProxyType(held)
    return file


def _span(tensor: Tensor) -> Span:
    return Span(tensor.path, tensor.offset, tensor.n_bytes, pages(room(tensor.n_bytes)))
