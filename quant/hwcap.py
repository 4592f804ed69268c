"""What Linux says that an AArch64 processor has: the bits of AT_HWCAP and AT_HWCAP2, by LLVM's names.

They are what a process may use: under emulation, and where a hypervisor or the system keeps an instruction back, the name of
the processor and /proc/cpuinfo, by which LLVM goes, say otherwise.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping

_AT_HWCAP, _AT_HWCAP2 = 16, 26
# The bits of a feature in both words (arch/arm64/include/uapi/asm/hwcap.h); all of them must be set.
_HWCAP = {
    "fp-armv8": (0,), "neon": (1,), "aes": (3, 4), "sha2": (5, 6), "crc": (7,), "lse": (8,), "fullfp16": (9, 10),
    "rdm": (12,), "jsconv": (13,), "complxnum": (14,), "rcpc": (15,), "sha3": (17, 21), "dotprod": (20,), "sve": (22,),
    "fp16fml": (23,),
}  # fmt: skip
_HWCAP2 = {"sve2": (1,), "fptoint": (8,), "i8mm": (13,), "bf16": (14,)}


def host_features() -> dict[str, bool]:
    """Of this AArch64: what it has and what it lacks, as far as code is made differently; empty on other systems."""
    if not sys.platform.startswith("linux"):
        return {}
    try:
        getauxval = ctypes.CDLL(None).getauxval
    except (AttributeError, OSError):  # no such function in this C library
        return {}
    getauxval.restype, getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return features_of(getauxval(_AT_HWCAP), getauxval(_AT_HWCAP2))


def features_of(hwcap: int, hwcap2: int) -> dict[str, bool]:
    """What stands in the two words; empty if they are 0, as where the system does not tell."""
    if not hwcap:
        return {}
    return _read(_HWCAP, hwcap) | _read(_HWCAP2, hwcap2)


def _read(features: Mapping[str, tuple[int, ...]], word: int) -> dict[str, bool]:
    return {feature: all(word >> bit & 1 for bit in bits) for feature, bits in features.items()}
