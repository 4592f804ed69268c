"""Write a model of a known shape, with the random weights of `qcli bench --shape`, as a file that llama.cpp loads, too.

    python benchmarks/write_shape.py SHAPE OUT.gguf [--layers N] [--quant Q4_K_M]
    qcli bench -m OUT.gguf -p 512 -n 64 -t 2 --peer

So both can be measured on the same bytes, in turns. The vocabulary has as many tokens as the model's, and means nothing.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from qcli.bench.model_shape import ModelShape
from qcli.bench.random_weights import Mix, find_mix, layers_that_fit, random_file
from qcli.bench.shapes import SHAPES, find_shape
from qcli.gguf.file import GGUFFile

# Keys that llama.cpp asks for, and qcli does not.
MORE_KEYS: dict[str, dict[str, int | float]] = {
    "gemma4": {"embedding_length_per_layer_input": 0, "rope.dimension_count_swa": 256},
    "nemotron_h_moe": {"attention.layer_norm_epsilon": 1e-5},
    "bailingmoe2": {"expert_weights_norm": True},
    "qwen3next": {"feed_forward_length": 5120},
    "qwen3moe": {"feed_forward_length": 6144},
}


def write_shape(shape: ModelShape, mix: Mix, layers: int, path: Path) -> None:
    """Write the model cut to its first layers, beside, then rename it."""
    file, part = random_file(shape, mix, layers), path.with_name(f"{path.name}.part")
    writer = gguf.GGUFWriter(part, shape.architecture)
    for key, value in file.metadata.items():
        if key != "general.architecture":
            _add(writer, key, value)
    for key, value in MORE_KEYS.get(shape.architecture, {}).items():
        _add(writer, f"{shape.architecture}.{key}", value)
    _add_vocabulary(writer, shape.vocab_size)
    _add_tensors(writer, file)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(part, path)


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, np.ndarray):
        writer.add_array(key, value.tolist())
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_string(key, value)


def _add_vocabulary(writer: gguf.GGUFWriter, size: int) -> None:
    """A token for each byte, as byte-level BPE spells it, one merge, and tokens that no text has."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    spelled = [*map(chr, printed), *(chr(256 + i) for i in range(len(others))), "ab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([*spelled, *(f"token {i}" for i in range(size - len(spelled)))])
    writer.add_token_types([gguf.TokenType.NORMAL] * size)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(size - 2)
    writer.add_eos_token_id(size - 1)


def _add_tensors(writer: gguf.GGUFWriter, file: GGUFFile) -> None:
    for tensor in file.tensors.values():
        if tensor.type == "F32":
            writer.add_tensor(tensor.name, tensor.data.reshape(-1).view(np.float32).reshape(tensor.shape))
        else:
            rows = tensor.data.reshape(*tensor.shape[:-1], -1)
            writer.add_tensor(tensor.name, rows, raw_dtype=gguf.GGMLQuantizationType[tensor.type])


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--quant", default="Q4_K_M")
    given = parser.parse_args()
    shape, mix = find_shape(given.shape), find_mix(given.quant)
    layers = layers_that_fit(shape, mix, given.layers)
    write_shape(shape, mix, layers, given.out)
    print(f"{given.out}: {layers} layers of {shape.layers}, {given.out.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
