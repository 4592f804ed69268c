"""The processor: which kernels it gets, how many of its cores may be used, and who else uses them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Final

from qcli.bench.machine import this_machine
from qcli.doctor.finding import FAIL, PASS, WARN, Finding
from qcli.host import threads
from qcli.host.load import load
from qcli.progress import Progress
from qcli.wording import counted
from quant import cpu

_UNITS: Final = {  # of quant.cpu.dot_unit, of each kind of processor the fastest first
    "avx512vnni": "AVX-512 VNNI",
    "avxvnni": "AVX-VNNI",
    "avx512": "AVX-512",
    "avx2": "AVX2",
    "i8mm": "I8MM",
    "dotprod": "DotProd",
    "neon": "NEON",
    "portable": "no special instructions",
}
_TOLD: Final = (*("avx2 fma f16c avx512f avx512bw avx512vl avx512vnni avx512bf16 avxvnni amx-int8").split(), "neon",
                *"dotprod i8mm bf16 sve sve2".split())  # fmt: skip
_FORCING: Final = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")
_SECONDS: Final = 0.5  # in which the load is measured
_BUSY = 0.3  # cores that others use before a token waits for them
_STOLEN = 0.05


def processor(_progress: Progress) -> Iterator[Finding]:
    """Its name, and the instructions that kernels use of it."""
    machine, unit = this_machine(), cpu.dot_unit()
    features = sorted(cpu.machine_features().intersection(_TOLD), key=_TOLD.index)
    figures: dict[str, Any] = {"name": machine.cpu, "target": machine.target, "kernels": unit, "features": features,
               "lacks": [_UNITS[better] for better in _better(unit)]}  # fmt: skip
    if problem := cpu.wrongly_chosen():
        yield Finding("processor", FAIL, f"{problem}: no kernel can be made", _unset(), figures)
    elif lacking := cpu.missing():
        hint = "use a machine from 2013 or later"
        yield Finding("processor", FAIL, f"{machine.cpu} lacks {lacking}: no kernel can run on it", hint, figures)
    else:
        yield _kernels_of(machine.cpu, unit, figures)


def _kernels_of(name: str, unit: str, figures: dict[str, Any]) -> Finding:
    said, best = f"{name}; kernels use {_UNITS[unit]}", cpu.unit_of_machine()
    if best != unit and best in _better(unit):
        said += f", though it has the faster {_UNITS[best]}"
        return Finding("processor", WARN, said, _unset(), figures)
    if unit == "portable":
        hint = "a processor with AVX2 (from 2013 on) or DotProd (from 2018 on) is many times faster"
        return Finding("processor", WARN, f"{said}: it is slow", hint, figures)
    better = _better(unit)
    said += f", the best that it has; faster ones, which it lacks: {', '.join(_UNITS[b] for b in better)}" if better else (
        ", the fastest there are")  # fmt: skip
    return Finding("processor", PASS, said, "", figures)


def _better(unit: str) -> list[str]:
    """The units of the same kind of processor that are faster."""
    kinds = ["avx512vnni", "avxvnni", "avx512", "avx2"], ["i8mm", "dotprod", "neon"]
    same = next((kind for kind in kinds if unit in kind), kinds[0] if cpu.is_x86() else kinds[1])
    return same[: same.index(unit)] if unit in same else same


def _unset() -> str:
    return f"unset {' and '.join(name for name in _FORCING if name in os.environ) or _FORCING[0]}"


def cores(_progress: Progress) -> Iterator[Finding]:
    """How many there are, may be used, and are used."""
    found, used = threads.cores(), threads.default_threads()
    figures = {**vars(found), "threads": used}
    said = f"{counted(found.physical, 'core')}, of which qcli uses {used}"
    if found.performance < found.physical:
        said += f": {found.physical - found.performance} are slow ones, for which the fast ones would wait"
    if found.quota is not None and found.quota < found.performance:
        said = f"a limit (cgroup) lets qcli use {found.quota} of {counted(found.physical, 'core')}"
        hint = "raise it: `docker run --cpus`, CPUQuota of a systemd service, or limits.cpu of Kubernetes"
        yield Finding("cores", WARN, f"{said}: answers are that much slower", hint, figures)
    elif found.allowed < found.machine:
        said += f"; this process may use {found.allowed} of {counted(found.machine, 'hardware thread')}"
        hint = "if that is not meant, look for taskset, `docker run --cpuset-cpus` or a batch system's settings"
        yield Finding("cores", WARN, said, hint, figures)
    else:
        yield Finding("cores", PASS, said, "", figures)


def others(_progress: Progress) -> Iterator[Finding]:
    """How much of the processor others use now."""
    now, count = load(_SECONDS), threads.cores().machine
    if now is None:
        return
    figures = {"others": round(now.others, 2), "stolen": round(now.stolen, 2)}
    if now.stolen > _STOLEN * count:
        said = f"the host of this virtual machine keeps {now.stolen:.1f} of {counted(count, 'core')} to itself"
        yield Finding("load", WARN, said, "speed will vary; ask for cores of your own, or try at another time", figures)
    elif now.others > _BUSY:
        said = (
            f"other programs use {now.others:.1f} of {counted(count, 'core')}: answers, and figures below, are slower"
        )
        yield Finding("load", WARN, said, "close them, and look again; `top` or the task manager shows them", figures)
    else:
        yield Finding("load", PASS, "the processor is free: other programs use next to nothing", "", figures)
