"""A GGUF model file, or all parts of a split one: metadata, and tensors as read-only views on the mapped file."""

from __future__ import annotations

import math
import mmap
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from qcli.errors import ModelFileError, ModelNotFoundError, QcliError, UnsupportedModelError
from qcli.gguf.header import BIG_ENDIAN, Header, Value, printable, read_header
from qcli.gguf.names import MAX_PARTS, part_paths
from qcli.gguf.strings import StringArray
from qcli.host import bus_error
from qcli.host.named_files import reason

_REQUIRED: Final[Any] = object()

_ANOTHER_FILE = "give a model file, whose name ends in .gguf; `qcli models` lists those that are here"
_DOWNLOAD_ALL = "the parts do not belong together: download the model again"
_KEEP_PARTS = "keep the parts apart, as they were downloaded, or join them with llama.cpp's `llama-gguf-split --merge`"
_PIECE = re.compile(r"(?<=\.gguf)[-.](split-\w+|part-?\w+|\d{3})$", re.IGNORECASE)
_CONVERT_AGAIN = "convert the model again with a current llama.cpp"
_ANOTHER_TYPE = "get another file of the model: those called Q4_K_M, Q5_K_M, Q6_K or Q8_0 run, and most others"
_KINDS = (
    (b"PK\x03\x04", "a zip archive or PyTorch checkpoint"),
    (b"\x80\x02", "a pickled PyTorch checkpoint"),
    (b"lmgg", "an old GGML file, from before GGUF"),
    (b"fmgg", "an old GGML file, from before GGUF"),
    (b"tjgg", "an old GGML file, from before GGUF"),
    (b"\x1f\x8b", "gzip-compressed: decompress it first"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed: decompress it first"),
    (b"\xfd7zXZ", "xz-compressed: decompress it first"),
    (b"version https://git-lfs", "a Git LFS pointer: `git lfs pull` gets the real file"),
    (b"<", "a web page, perhaps saved by a failed download"),
    (b"\0\0\0\0", "empty at its start, perhaps an unfinished download"),
)


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor of the file; `data` is a view on the memory map, which stays as long as there are views."""

    name: str
    type: str  # ggml's name: "Q4_K", "F32", …
    shape: tuple[int, ...]  # NumPy order: (experts, rows, columns), (rows, columns) or (n,)
    data: NDArray[np.uint8]  # [prod(shape[:-1]), bytes per row], read-only
    path: Path
    offset: int  # bytes, from the start of the file
    n_bytes: int
    odd: str = ""  # why there are no weights in it, and no data; `GGUFFile.tensor` refuses it


class GGUFFile:
    """A model file open for reading; a context manager.

    path: as opened (the first part); paths: of all parts; version: 2 or 3; metadata: by key, numbers as Python scalars or
    read-only arrays, strings as str or StringArray; entries: the same by key as the (first) file has them, byte for
    byte; tensors: by name, in file order, those of all parts; used: names of the tensors that were asked for, so that
    an architecture can tell which ones it left out.
    """

    def __init__(self, path: Path, header: Header, tensors: dict[str, Tensor], others: Sequence[Path] = ()) -> None:
        """others: the second and further files of a split model."""
        self.path = path
        self.paths = [path, *others]
        self.version = header.version
        self.metadata: Mapping[str, Value] = MappingProxyType(header.metadata)
        self.entries: Mapping[str, memoryview] = MappingProxyType(header.entries)
        self.tensors: Mapping[str, Tensor] = MappingProxyType(tensors)
        self.used: set[str] = set()
        self._closed = False

    @classmethod
    def open(cls, path: str | Path) -> GGUFFile:
        """Map a file and check its whole header, and those of the other parts if it is the first of a split model.

        Raises ModelNotFoundError, ModelFileError, UnsupportedModelError (big-endian, GGUF 1, unknown type).
        """
        path = Path(path)
        map_, first = _first(path)
        tensors: dict[str, Tensor] = {}
        _add_tensors(tensors, first, map_, path)
        others = _other_parts(path, first, map_)
        for number, part in enumerate(others, start=1):
            map_ = _map(part)
            header = read_header(map_, part)
            if header.metadata.get("split.no") != number:
                raise ModelFileError(f"{part}: does not say that it is part {number + 1}", _DOWNLOAD_ALL)
            _add_tensors(tensors, header, map_, part)
        if first.metadata.get("split.tensors.count", len(tensors)) != len(tensors):
            raise ModelFileError(f"{path}: its parts do not hold as many tensors as it says", _DOWNLOAD_ALL)
        return cls(path, first, tensors, others)

    def close(self) -> None:
        """Drop the map; views that were handed out stay valid. What asks for keys or tensors after that is a QcliError."""
        self._closed = True
        self.metadata = MappingProxyType({})
        self.entries = MappingProxyType({})
        self.tensors = MappingProxyType({})

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get_int(self, key: str, default: int = _REQUIRED) -> int:
        """A whole number. Raises ModelFileError if the key is absent and has no default, or is of another type."""
        value = self._get(key, default)
        return value if type(value) is int else self._wrong(key, "a whole number")

    def get_float(self, key: str, default: float = _REQUIRED) -> float:
        """A finite number; errors as above."""
        value = self._get(key, default)
        if type(value) not in (int, float) or not math.isfinite(value):
            self._wrong(key, "a finite number")
        return float(value)

    def get_bool(self, key: str, default: bool = _REQUIRED) -> bool:
        """True or false; errors as above."""
        value = self._get(key, default)
        return value if type(value) is bool else self._wrong(key, "true or false")

    def get_str(self, key: str, default: str = _REQUIRED) -> str:
        """A text; errors as above."""
        value = self._get(key, default)
        return value if type(value) is str else self._wrong(key, "a text")

    def get_ints(self, key: str, default: list[int] = _REQUIRED) -> list[int]:
        """Whole numbers, from an array or a single number; booleans count as 0 and 1; errors as above."""
        value = self._get(key, default)
        if isinstance(value, np.ndarray) and value.dtype.kind in "iub":
            return [int(v) for v in value.tolist()]
        if isinstance(value, int):
            return [int(value)]
        return value if isinstance(value, list) else self._wrong(key, "whole numbers")

    def tensor(self, name: str) -> Tensor:
        """The tensor of this name. Raises ModelFileError if there is none, UnsupportedModelError for an odd one."""
        self._check_open()
        if name not in self.tensors:
            raise ModelFileError(f'{self.path}: the tensor "{name}" is missing', _CONVERT_AGAIN)
        self.used.add(name)
        tensor = self.tensors[name]
        if tensor.odd:
            raise UnsupportedModelError(f'{tensor.path}: the tensor "{printable(name)}" {tensor.odd}', _ANOTHER_TYPE)
        return tensor

    def _check_open(self) -> None:
        if self._closed:
            raise QcliError(f"{self.path}: was closed here", "open it again, or close it later")

    def _get(self, key: str, default: Any) -> Any:
        self._check_open()
        value = self.metadata.get(key, default)
        if value is _REQUIRED:
            raise ModelFileError(f'{self.path}: the key "{key}" is missing', _CONVERT_AGAIN)
        return value

    def _wrong(self, key: str, wanted: str) -> NoReturn:
        value = self.metadata[key]
        found = printable(repr(value))
        if isinstance(value, np.ndarray | StringArray):
            found = f"an array of {len(value)}"
        raise ModelFileError(f'{self.path}: the key "{key}" is {found}, not {wanted}', _CONVERT_AGAIN)


def _map(path: Path) -> mmap.mmap:
    """A whole file, mapped read-only. Raises ModelNotFoundError, ModelFileError if it is not a regular file of GGUF."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
            raise _not_a_file(path)
        with open(path, "rb") as file:
            start = file.read(64)
            if start[:4] != b"GGUF":
                raise _not_gguf(path, start)
            return bus_error.watch(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), path)
    except FileNotFoundError as error:
        why = reason(error, "`qcli models` lists the models it knows", path, "no such file")
        raise ModelNotFoundError(f"{path}: {why.said}", why.hint) from None
    except OSError as error:
        why = reason(error, "check the path and its permissions", path)
        raise ModelFileError(f"{printable(str(path))}: cannot be read: {why.said}", why.hint) from None
    except ValueError as error:  # a zero byte in the path
        message = f"{printable(str(path))}: cannot be read: {error}"
        raise ModelFileError(message, "check the path and its permissions") from None


def _not_a_file(path: Path) -> ModelFileError:
    if not path.is_dir():
        return ModelFileError(f"{path}: is not a regular file", _ANOTHER_FILE)
    inside = sorted(inner for inner in path.iterdir() if inner.suffix.lower() == ".gguf")
    return ModelFileError(f"{path}: is a folder", f"type {inside[0]}" if inside else _ANOTHER_FILE)


def _not_gguf(path: Path, start: bytes) -> ModelFileError:
    if not start:
        return ModelFileError(f"{path}: is empty", "the download has failed: download it again")
    if start[:4] == b"FUGG":
        return UnsupportedModelError(f"{path}: {BIG_ENDIAN}", _CONVERT_AGAIN)
    kind = next((kind for magic, kind in _KINDS if start.startswith(magic)), "")
    if start[8:9] == b"{":
        kind = "a safetensors file"
    return ModelFileError(f"{path}: is not a GGUF model file" + (f" ({kind})" if kind else ""), _ANOTHER_FILE)


def _first(path: Path) -> tuple[mmap.mmap, Header]:
    """The first file; the hint is another for a piece that was cut off by bytes, as some downloads are."""
    try:
        return (map_ := _map(path)), read_header(map_, path)
    except ModelFileError as problem:
        whole = _PIECE.sub("", path.name)
        if whole == path.name:
            raise
        hint = f"it is a piece of a file: `cat` all pieces in their order into {whole}"
        raise type(problem)(problem.message, hint) from None


def _are_joined(first: Header, map_: mmap.mmap) -> bool:
    """Whether another file follows in the same file."""
    end = max((row.offset + row.n_bytes for row in first.tensors), default=4)
    return map_.find(b"GGUF" + first.version.to_bytes(4, "little"), end) >= 0


def _other_parts(path: Path, first: Header, map_: mmap.mmap) -> list[Path]:
    """The second and further files of a split model, in order, given the first; of another model none."""
    number, count = first.metadata.get("split.no", 0), first.metadata.get("split.count", 1)
    if type(number) is not int or type(count) is not int or not 0 <= number < max(count, 1) <= MAX_PARTS:
        raise ModelFileError(f"{path}: says it is part {number} (from 0) of {count}", _DOWNLOAD_ALL)
    if count <= 1:
        return []
    parts = part_paths(path, count)
    if number:
        raise ModelFileError(f"{path}: is part {number + 1} of {count}", f"open the first: {parts[0]}")
    if not all(part.exists() for part in [path, *parts[1:]]) and _are_joined(first, map_):
        raise ModelFileError(f"{path}: is several parts of a model, joined into one file", _KEEP_PARTS)
    if path != parts[0]:
        raise ModelFileError(f"{path}: is part 1 of {count}, but not named so", f"name it {parts[0].name}")
    for part in parts:
        if not part.exists():
            hint = f"put all {count} parts into one folder"
            raise ModelNotFoundError(f"{part}: this part of the model is missing", hint)
    return parts[1:]


def _add_tensors(tensors: dict[str, Tensor], header: Header, map_: mmap.mmap, path: Path) -> None:
    file, nothing = np.frombuffer(map_, np.uint8), np.empty((1, 0), np.uint8)
    for name, kind, shape, n_bytes, offset, odd in header.tensors:
        if name in tensors:
            raise ModelFileError(f'{path}: the tensor "{printable(name)}" appears twice', _DOWNLOAD_ALL)
        data = nothing if odd else file[offset : offset + n_bytes].reshape(math.prod(shape[:-1]), -1)
        tensors[name] = Tensor(name, kind, shape, data, path, offset, n_bytes, odd)
