"""What the processor that kernels are compiled for can do: its name, its integer dot product, its vector width."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Set
from functools import cache

import llvmlite.binding as llvm

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
_I8MM = frozenset("apple-m2 apple-m3 apple-m4 apple-a15 apple-a16 apple-a17 oryon-1 neoverse-v1 neoverse-v2".split())
_DOTPROD = frozenset("apple-m1 apple-a14 apple-a13 neoverse-n1 cortex-a76 cortex-a77 cortex-a78 cortex-x1".split())


@cache
def name() -> str:
    """The CPU that kernels are compiled for: this one, unless NUMBA_CPU_NAME forces another."""
    return os.environ.get("NUMBA_CPU_NAME") or str(llvm.get_host_cpu_name())


@cache
def _host() -> Mapping[str, bool]:
    """The features LLVM finds on this machine; none on systems where it cannot tell."""
    try:
        return dict(llvm.get_host_cpu_features())
    except RuntimeError:
        return {}


@cache
def features() -> str:
    """What Numba passes to LLVM beside the name: this CPU's features, or those that NUMBA_CPU_FEATURES forces."""
    if "NUMBA_CPU_NAME" in os.environ or "NUMBA_CPU_FEATURES" in os.environ:
        return os.environ.get("NUMBA_CPU_FEATURES", "")
    return ",".join(("+" if there else "-") + feature for feature, there in sorted(_host().items()))


@cache
def dot_unit() -> str:
    """The instruction behind an int8 dot product.

    One of 'avx512vnni', 'avxvnni', 'avx512' and 'avx2' (x86-64), 'i8mm' and 'dotprod' (AArch64), 'portable'.
    """
    forced = os.environ.get("NUMBA_CPU_FEATURES", "")
    if not forced and "NUMBA_CPU_NAME" not in os.environ:
        return unit_of_machine()
    found = _by_features({feature[1:] for feature in forced.split(",") if feature.startswith("+")})
    return _by_name(name()) if found == "portable" else found


def unit_of_machine() -> str:
    """As `dot_unit`, of this machine, whatever the environment forces."""
    found = _by_features(machine_features())
    return _by_name(str(llvm.get_host_cpu_name())) if found == "portable" else found


def machine_features() -> frozenset[str]:
    """What LLVM finds that this machine's processor has; empty on systems where it cannot tell."""
    return frozenset(feature for feature, there in _host().items() if there)


def _by_features(features: Set[str]) -> str:
    if {"avx512vnni", "avx512bw", "avx512vl"} <= features:
        return "avx512vnni"
    if "avxvnni" in features:
        return "avxvnni"
    if {"avx512bw", "avx512vl"} <= features:
        return "avx512"
    if {"avx2", "fma"} <= features:
        return "avx2"
    if "i8mm" in features:
        return "i8mm"
    return "dotprod" if "dotprod" in features else "portable"


def _by_name(cpu: str) -> str:
    units = {"avx512vnni": _AVX512_VNNI, "avxvnni": _AVX_VNNI, "avx512": _AVX512, "avx2": _AVX2}
    units |= {"i8mm": _I8MM, "dotprod": _DOTPROD}
    return next((unit for unit, names in units.items() if cpu in names), "portable")


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
