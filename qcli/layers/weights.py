"""From tensors of a file to weights as kernels see them, each checked against the shape its model expects."""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from qcli.errors import ModelFileError, UnsupportedModelError
from qcli.gguf.file import GGUFFile, Tensor
from qcli.layers.hyperparameters import ANOTHER_MODEL
from quant import formats
from quant.weights import ExpertMatrices, Matrix, experts_of

_DOWNLOAD = "the file contradicts itself: download or convert the model again"


def matrix(file: GGUFFile, name: str, rows: int, columns: int) -> Matrix:
    """The tensor as [rows, columns]; a vector of `columns` counts as one row."""
    tensor = file.tensor(name)
    shape = tensor.shape if len(tensor.shape) > 1 else (1, *tensor.shape)
    if shape != (rows, columns):
        _wrong_shape(file, tensor, (rows, columns))
    return _matrix(file, tensor)


def linear(file: GGUFFile, name: str, rows: int, columns: int) -> Matrix:
    """`name`.weight as [rows, columns], with `name`.bias and `name`.scale if the file has them."""
    weights, scales = matrix(file, f"{name}.weight", rows, columns), _scales(file, name, 1)
    if scales is not None:
        weights = replace(weights, scale=float(scales[0]))
    return replace(weights, bias=vector(file, f"{name}.bias", rows)) if f"{name}.bias" in file.tensors else weights


def experts(file: GGUFFile, name: str, count: int, rows: int, columns: int) -> ExpertMatrices:
    """The tensor as `count` matrices [rows, columns]."""
    return experts_of(_stacked(file, name, count, rows, columns), count)


def linear_experts(file: GGUFFile, name: str, count: int, rows: int, columns: int) -> ExpertMatrices:
    """`name`.weight as `count` matrices [rows, columns], with `name`.bias [count, rows] and `name`.scale [count] if the file
    has them."""
    weights = replace(experts(file, f"{name}.weight", count, rows, columns), scales=_scales(file, name, count))
    if f"{name}.bias" not in file.tensors:
        return weights
    return replace(weights, bias=vector(file, f"{name}.bias", count, rows))


def experts_apart(file: GGUFFile, name: str, count: int, rows: int, columns: int) -> ExpertMatrices:
    """The tensors `name`.0.weight to `name`.`count - 1`.weight [rows, columns], as old files have experts; of one type."""
    parts = [matrix(file, f"{name}.{i}.weight", rows, columns) for i in range(count)]
    if any(part.format is not parts[0].format for part in parts):
        message = f'{file.path}: the experts "{name}.*.weight" are of several types'
        raise UnsupportedModelError(
            message, "get a newer file of the model, which has the experts of a layer in one tensor"
        )
    addresses = np.array([part.address for part in parts], np.int64)
    return ExpertMatrices(addresses, parts[0].format, rows, columns, parts, f"{name}_exps.weight")


def gate_up_experts(
    file: GGUFFile, name: str, count: int, rows: int, columns: int
) -> tuple[ExpertMatrices, ExpertMatrices]:
    """A fused tensor of `count` x [gate rows, then up rows] as two."""
    stacked = _stacked(file, name, count, 2 * rows, columns)
    return experts_of(stacked, count, 0, rows), experts_of(stacked, count, rows, rows)


def one_expert(weights: Matrix) -> ExpertMatrices:
    """A dense matrix as an expert that is always there."""
    scales = None if weights.scale == 1 else np.array([weights.scale], np.float32)
    return replace(experts_of(weights, 1), bias=None if weights.bias is None else weights.bias[None], scales=scales)


def vector(file: GGUFFile, name: str, *shape: int) -> NDArray[np.float32]:
    """A small tensor as float32, copied out of the file; further dimensions of 1 in front do not count."""
    tensor = file.tensor(name)
    front = len(tensor.shape) - len(shape)
    if tensor.shape != (1,) * front + shape:
        _wrong_shape(file, tensor, shape)
    return _format(file, tensor).dequantize(tensor.data).reshape(shape).copy()


def with_rows(weights: Matrix, rows: NDArray[np.int64]) -> Matrix:
    """A copy in memory of these rows, in this order."""
    bias = None if weights.bias is None else weights.bias[rows]
    return replace(weights, data=np.ascontiguousarray(weights.data[rows]), bias=bias)


def _scales(file: GGUFFile, name: str, count: int) -> NDArray[np.float32] | None:
    """What products of `name`.weight are multiplied by, float32 [count], as files of NVFP4 have it; None if nothing does so.

    `name`.input_scale is for who multiplies with inputs of 4 bits; here they have scales of their own.
    """
    scale, inputs = f"{name}.scale", f"{name}.input_scale"
    if inputs in file.tensors and file.tensors[inputs].shape == (count,):
        file.tensor(inputs)
    if scale not in file.tensors or file.tensors[scale].shape != (count,):
        return None
    values = vector(file, scale, count)
    if f"{name}.bias" in file.tensors and not values.all():
        raise ModelFileError(f'{file.path}: the tensor "{scale}" is 0, beside a bias', _DOWNLOAD)
    return values


def _stacked(file: GGUFFile, name: str, count: int, rows: int, columns: int) -> Matrix:
    tensor = file.tensor(name)
    if tensor.shape != (count, rows, columns):
        _wrong_shape(file, tensor, (count, rows, columns))
    return _matrix(file, tensor)


def _matrix(file: GGUFFile, tensor: Tensor) -> Matrix:
    try:
        return Matrix(tensor.data, _format(file, tensor), tensor.shape[-1], name=tensor.name)
    except ValueError as error:
        raise UnsupportedModelError(f'{file.path}: the tensor "{tensor.name}": {error}', ANOTHER_MODEL) from None


def _format(file: GGUFFile, tensor: Tensor) -> formats.Format:
    try:
        return formats.find(tensor.type)
    except KeyError:
        raise UnsupportedModelError(
            f'{file.path}: the tensor "{tensor.name}" has type {tensor.type}, which qcli cannot run yet',
            "get another file of the model: those called Q4_K_M, Q5_K_M, Q6_K or Q8_0 run, and most others",
        ) from None


def _wrong_shape(file: GGUFFile, tensor: Tensor, wanted: tuple[int, ...]) -> NoReturn:
    message = f'{file.path}: the tensor "{tensor.name}" is {list(tensor.shape)}, not {list(wanted)}'
    raise ModelFileError(message, _DOWNLOAD)
