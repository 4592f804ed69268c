"""Names that carry numbers, of tensors and of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from qcli.gguf.names import count_parts, layer_of, part_paths, split_layer, stem_of


@pytest.mark.parametrize(
    ("tensor", "layer", "own"),
    [
        ("blk.0.attn_q.weight", 0, "attn_q.weight"),
        ("blk.47.ssm_a", 47, "ssm_a"),
        ("output.weight", -1, "output.weight"),
        ("blk.x.attn_q.weight", -1, "blk.x.attn_q.weight"),
        ("blk.3.", -1, "blk.3."),
    ],
)
def test_the_layer_of_a_tensor(tensor, layer, own):
    assert split_layer(tensor) == (layer, own)
    assert layer_of(tensor) == layer


@pytest.mark.parametrize(
    ("file", "stem", "parts"),
    [
        ("m.gguf", "m", 1),
        ("m.GGUF", "m", 1),
        ("m-00001-of-00003.gguf", "m", 3),
        ("m-00002-of-00003.gguf", "m", 1),  # not the first
        ("m-1-of-3.gguf", "m-1-of-3", 1),
        ("m.bin", "m.bin", 1),
    ],
)
def test_stem_and_number_of_parts(file, stem, parts):
    assert (stem_of(file), count_parts(file)) == (stem, parts)


def test_parts_are_named_alike_from_the_first_or_from_the_whole(tmp_path):
    names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    for given in ("m.gguf", names[0]):
        assert part_paths(tmp_path / given, 2) == [tmp_path / name for name in names]
    assert part_paths(Path("m.gguf"), 1) == [Path("m.gguf")]
