"""What the processor that kernels are compiled for can do: its name, its integer dot product, its vector width."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Set
from functools import cache

import llvmlite.binding as llvm

from quant import hwcap
from quant.cpu_probe import LACKS_F16C

_CHOICES = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")
_AVX512_VNNI = frozenset(
    "cascadelake cooperlake icelake-client icelake-server rocketlake tigerlake sapphirerapids emeraldrapids "
    "graniterapids graniterapids-d diamondrapids znver4 znver5 znver6".split()
)
_AVX512 = frozenset("skylake-avx512 skx cannonlake x86-64-v4".split())
_AVX_VNNI = frozenset(
    "alderlake raptorlake meteorlake gracemont sierraforest grandridge arrowlake arrowlake-s lunarlake pantherlake "
    "clearwaterforest".split()
)
_AVX2 = frozenset("haswell broadwell skylake znver1 znver2 znver3 x86-64-v3 core-avx2".split())
_NEON = frozenset({"neon"})
_DOTPROD = _NEON | {"dotprod"}
_I8MM = _DOTPROD | {"i8mm", "bf16"}
# By LLVM's names: Apple's, as macOS is asked for no features, and others that somebody may compile for.
_AARCH64: Mapping[str, Set[str]] = {
    **dict.fromkeys("apple-a13 apple-a14 apple-m1".split(), _DOTPROD),
    **dict.fromkeys("apple-a15 apple-a16 apple-a17 apple-m2 apple-m3".split(), _I8MM),
    **dict.fromkeys("apple-a18 apple-a19 apple-m4 apple-m5".split(), _I8MM | {"sme"}),
    **dict.fromkeys("apple-a12 cortex-a53 cortex-a57 cortex-a72 cortex-a73".split(), _NEON),
    **dict.fromkeys("cortex-a55 cortex-a75 cortex-a76 cortex-a77 cortex-a78 cortex-x1 neoverse-n1".split(), _DOTPROD),
    **dict.fromkeys("ampere1 ampere1a ampere1b oryon-1".split(), _I8MM),
    **dict.fromkeys("neoverse-n2 neoverse-n3 neoverse-v1 neoverse-v2 neoverse-v3 grace".split(), _I8MM | {"sve"}),
}


@cache
def name() -> str:
    """The CPU that kernels are compiled for: this one, unless NUMBA_CPU_NAME forces another."""
    return os.environ.get("NUMBA_CPU_NAME") or str(llvm.get_host_cpu_name())


@cache
def _host() -> Mapping[str, bool]:
    """The features found on this machine, by LLVM and in Linux's HWCAP, which is right; none where neither can tell."""
    try:
        found = dict(llvm.get_host_cpu_features())
    except RuntimeError:
        found = {}
    return found | (hwcap.host_features() if is_aarch64() else {})


@cache
def features() -> str:
    """What Numba passes to LLVM beside the name: this CPU's features, or those that NUMBA_CPU_FEATURES forces."""
    if "NUMBA_CPU_NAME" in os.environ or "NUMBA_CPU_FEATURES" in os.environ:
        return os.environ.get("NUMBA_CPU_FEATURES", "")
    return ",".join(("+" if there else "-") + feature for feature, there in sorted(_host().items()))


@cache
def dot_unit() -> str:
    """The instruction behind an int8 dot product.

    One of 'avx512vnni', 'avxvnni', 'avx512' and 'avx2' (x86-64), 'i8mm', 'dotprod' and 'neon' (AArch64), 'portable'.
    """
    forced = os.environ.get("NUMBA_CPU_FEATURES", "")
    if not forced and "NUMBA_CPU_NAME" not in os.environ:
        return unit_of_machine()
    found = _by_features({feature[1:] for feature in forced.split(",") if feature.startswith("+")})
    return _by_name(name()) if found in ("neon", "portable") else found


def unit_of_machine() -> str:
    """As `dot_unit`, of this machine, whatever the environment forces."""
    return _by_features(machine_features()) if _host() else _by_name(str(llvm.get_host_cpu_name()))


def machine_features() -> frozenset[str]:
    """What this machine's processor has; where the system does not tell, what its name stands for, if that is known here."""
    there = frozenset(feature for feature, there in _host().items() if there)
    return there if _host() else frozenset(_AARCH64.get(str(llvm.get_host_cpu_name()), ()))


def _by_features(features: Set[str]) -> str:
    if {"avx512vnni", "avx512bw", "avx512vl"} <= features:
        return "avx512vnni"
    if "avxvnni" in features:
        return "avxvnni"
    if {"avx512bw", "avx512vl"} <= features:
        return "avx512"
    if {"avx2", "fma"} <= features:
        return "avx2"
    if {"i8mm", "dotprod"} <= features:
        return "i8mm"
    if "dotprod" in features:
        return "dotprod"
    return "neon" if "neon" in features or is_aarch64() else "portable"


def _by_name(cpu: str) -> str:
    units = {"avx512vnni": _AVX512_VNNI, "avxvnni": _AVX_VNNI, "avx512": _AVX512, "avx2": _AVX2}
    found = next((unit for unit, names in units.items() if cpu in names), None)
    return found or _by_features(_AARCH64.get(cpu, frozenset()))


def missing() -> str:
    """What the processor lacks to run any kernel here, or nothing."""
    if not is_x86() or dot_unit() != "portable" or "NUMBA_CPU_NAME" in os.environ:
        return ""
    return "" if _host().get("f16c") else "F16C"


@cache
def wrongly_chosen() -> str:
    """Why no kernel can run on the processor that NUMBA_CPU_NAME and NUMBA_CPU_FEATURES choose, or nothing."""
    chosen = " and ".join(f"{variable}={os.environ[variable]}" for variable in _CHOICES if variable in os.environ)
    if not chosen:
        return ""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-P", "-m", "quant.cpu_probe", name(), features()]
    try:
        tried = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True)
    except OSError:  # no such interpreter, as in a frozen program
        return ""
    if tried.returncode == LACKS_F16C:
        return f"{chosen}: such a processor lacks F16C"
    unknown = tried.returncode or b"not a recognized" in tried.stderr
    return f"{chosen}: the compiler knows no such processor" if unknown else ""


def is_x86() -> bool:
    """Whether kernels are compiled for x86-64."""
    return platform.machine().lower() in ("x86_64", "amd64", "x64")


def is_aarch64() -> bool:
    """Whether kernels are compiled for AArch64."""
    return platform.machine().lower() in ("aarch64", "arm64")
