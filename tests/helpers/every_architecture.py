"""A small sound file of every architecture that a test can make without the tokenizer of a real model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import deepseek2_model
import gqa_models
import qwen4exp_model
import reference_models

NAMES = [*reference_models.NAMES, "qwen4exp", "deepseek2", "deepseek2 apart", *gqa_models.MODELS]


def write(name: str, path: Path) -> Path:
    """Write the file of one of NAMES; "deepseek2 apart" keeps keys and values of each head."""
    if name == "qwen4exp":
        return qwen4exp_model.write(qwen4exp_model.Shape(), path)
    if name.startswith("deepseek2"):
        return replace(deepseek2_model.MODELS["V3"], absorbed=name == "deepseek2").write(path)
    if name in gqa_models.MODELS:
        return gqa_models.MODELS[name].write(path)
    return reference_models.read(name).write(path)
