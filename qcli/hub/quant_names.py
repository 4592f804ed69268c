"""Quantizations by the names that files of huggingface.co carry: "Model-UD-Q4_K_XL.gguf" holds a UD-Q4_K_XL."""

from __future__ import annotations

import re

from qcli.gguf.names import stem_of

# what publishers put before a type (UD-Q4_K_XL, i1-Q4_K_M, smol-IQ2_KS), the type itself, and bits a weight after it
_MAKER = r"(?:(?:UD|i1|smol)[-_.])"
_TYPE = (
    r"(?:I?Q\d+(?:_\d|[_-](?:KSS|KS|KT|KV|K|NL|XXS|XS|XXL|XL|S|M|L|P|R\d))*"
    r"|TQ\d(?:_\d)?|I2_S|(?:MX|NV)FP\d+(?:[_-]MOE)?|B?F(?:16|32)|FP(?:8|16|32))"
)
_QUANT = re.compile(
    rf"(?<![^-._ ])(?P<quant>{_MAKER}?{_TYPE}(?:[-_](?P<bits>\d+(?:\.\d+)?)bpw)?)(?![^-._ ])", re.IGNORECASE
)
_NO_TYPE = re.compile(r"^(?:ud|i1|smol)-|-[\d-]+bpw$")
# parts of models, and notes on them: projectors of pictures, importance matrices, heads that draft tokens, cut files
_NO_MODEL = re.compile(
    r"(?:^|[-._/])(?:mmproj|imatrix|draft)(?:[-._/]|$)|(?:^|/)(?:mtp|eagle\d|dflash|dspark)[-._]|[-._](?:eagle\d|dflash)\.gguf$|-chunk-\d+-of-\d+\.gguf$",
    re.IGNORECASE,
)


def is_model_file(name: str) -> bool:
    """Whether a file of a repository is a model, or a part of one, by its name."""
    return name[-5:].lower() == ".gguf" and not _NO_MODEL.search(name)


def quant_of(name: str) -> str:
    """The quantization that a file's name tells, as it is written there, or else that of its folder; "" for none."""
    *folders, file = name.split("/")
    for words in (stem_of(file), *reversed(folders)):
        for found in _QUANT.finditer(words):
            last = found
        if _QUANT.search(words):
            return last["quant"]
    return ""


def bits_of(quant: str) -> float | None:
    """Bits a weight, where a quantization's name tells them, as IQ4_XS-4.67bpw does."""
    found = _QUANT.fullmatch(quant)
    return float(found["bits"]) if found and found["bits"] else None


def plain(words: str) -> str:
    """Words of a name as they are compared: in lower case, with one kind of separator, and f16 however it is called."""
    return re.sub(r"(?<![a-z])fp(?=16|32)", "f", re.sub(r"[-_. /]+", "-", words.lower()).strip("-"))


def type_of(quant: str) -> str:
    """A quantization, as it is compared, without who made it and without its bits: "q4-k-xl" for UD-Q4_K_XL."""
    return _NO_TYPE.sub("", plain(quant))
