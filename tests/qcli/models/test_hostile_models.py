"""Files of every architecture with wrong numbers, missing tensors and missing keys: refused in one line, or run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import every_architecture
import numpy as np
import pytest
from tiny_model import Tiny, f32

from qcli.errors import QcliError
from qcli.gguf.file import GGUFFile
from qcli.gguf.header import Header
from qcli.runtime.engine import Engine

ALIKE = {"qwen3vlmoe": "qwen3moe", "dots1": "glm4moe", "minimax-m2": "olmoe"}  # read by the same code as another
NAMES = [name for name in every_architecture.NAMES if name not in ALIKE]


@pytest.fixture(scope="module", params=NAMES)
def plain(request, tmp_path_factory):
    """The path of a sound file."""
    return every_architecture.write(request.param, tmp_path_factory.mktemp("plain") / "model.gguf")


class Noted(Mapping[str, Any]):
    """Keys of a file, and which of them were asked for."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values, self.asked = values, set[str]()

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        self.asked.update(self._values)
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@pytest.fixture(scope="module")
def asked(plain) -> set[str]:
    """The keys that matter: what is done with a file does not depend on one that nobody asks for."""
    file = GGUFFile.open(plain)
    file.metadata = noted = Noted(file.metadata)
    assert runs(file)
    return noted.asked


def runs(file: GGUFFile | Path) -> bool:
    """Whether a model loads and takes a few tokens; if not, why not is said in one line."""
    error = None
    try:
        engine = Engine.load(file if isinstance(file, GGUFFile) else GGUFFile.open(file), threads=1, ctx=64, chunk=4)
        engine.prefill([1, 2, 3, 4, 5])
        engine.step(6)
        engine.close()
    except QcliError as caught:
        error = caught
    if error is None:
        return True
    assert error.message
    assert "\n" not in error.message
    assert error.hint
    return False


def test_sound_files_run(plain):
    assert runs(plain)


def with_keys(file: GGUFFile, keys: dict[str, Any]) -> GGUFFile:
    """The same tensors with other keys, as if it were a file of its own."""
    return GGUFFile(file.path, Header(file.version, keys, []), dict(file.tensors))


def changed(model: Tiny, path: Path, changes: list[tuple[str, Any]]) -> Iterator[GGUFFile]:
    """For each key and value the file that has this value.

    All values are read from one file, where they have other names, as a header need not be written and read again for each.
    """
    file = GGUFFile.open(model.writer()(path, model.keys | {f"{i}": value for i, (_, value) in enumerate(changes)}))
    keys = {key: file.metadata[key] for key in model.keys}
    for i, (key, _) in enumerate(changes):
        yield with_keys(file, keys | {key: file.metadata[f"{i}"]})


def test_numbers_that_are_wrong(plain, asked, tmp_path):
    model, changes = Tiny.read(plain), list[tuple[str, Any]]()
    for key, value in model.keys.items():
        if key.startswith("general.") or isinstance(value, str):
            continue
        several = value if isinstance(value, list | np.ndarray) else None
        first: Any = several[0] if several is not None else value
        for other in {0, -1, 1, 2 * first, first + 16, 2**31} - {first}:
            wrong = np.array([other, *several[1:]]) if several is not None else type(first)(other)
            changes.append((key, wrong))
    for (key, _), file in zip(changes, changed(model, tmp_path / "model.gguf", changes), strict=True):
        if key in asked:
            runs(file)


def test_keys_that_are_missing(plain, asked):
    file = GGUFFile.open(plain)
    for key in [key for key in file.metadata if key in asked]:
        runs(with_keys(file, {k: v for k, v in file.metadata.items() if k != key}))


def test_tensors_that_are_missing_or_short(plain, tmp_path):
    model = Tiny.read(plain)
    write = model.writer()
    first = [
        name for name in model.tensors if not name.startswith("blk.") or name.startswith(("blk.0.", "blk.1.", "blk.2."))
    ]
    for name in first:
        path = write(tmp_path / "model.gguf", model.keys, {name: None})
        optional = ("output.weight", ".bias", "_norm.weight", "attn_q_a.weight", "attn_k_b.weight", "shexp.weight")
        assert not runs(path) or name.endswith(optional)
        if name == "token_embd.weight" and "output.weight" not in model.tensors:
            continue  # half the vocabulary, here and there
        length, *others = model.shape(name)
        assert not runs(write(path, model.keys, {name: (length // 2, *others)}))


@pytest.mark.parametrize("value", ["text", 1.5, True, np.array([1, 2])])
def test_keys_of_another_type(plain, asked, tmp_path, value):
    model = Tiny.read(plain)
    changes = [(key, value) for key in model.keys if key in asked]
    for file in changed(model, tmp_path / "model.gguf", changes):
        runs(file)


def test_weights_that_are_no_numbers_do_no_harm(plain, tmp_path):
    model = Tiny.read(plain)
    for name, (kind, data) in model.tensors.items():
        if name == "rope_freqs.weight":  # frequencies are divided by it: refused
            continue
        nothing = np.array([0x7FC0 if kind == "BF16" else 0x7FC00000], np.uint16 if kind == "BF16" else np.uint32)
        model.tensors[name] = kind, np.resize(nothing.view(np.uint8), data.shape)
    assert runs(model.write(tmp_path / "model.gguf"))


def test_a_tensor_that_is_not_of_the_architecture(plain, tmp_path):
    """What nobody reads would have changed what the model says; llama.cpp refuses such files, too."""
    model = Tiny.read(plain)
    model.put("blk.1.attn_q_norm_2.weight", "F32", f32(np.ones(16)), 16)
    assert not runs(model.write(tmp_path / "model.gguf"))
    model.put("blk.1001.attn_q_norm_2.weight", *model.take("blk.1.attn_q_norm_2.weight"))
    assert runs(model.write(tmp_path / "model.gguf"))
