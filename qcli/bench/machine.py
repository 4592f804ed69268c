"""What the machine is that a benchmark ran on."""

from __future__ import annotations

from dataclasses import dataclass

from qcli.host.systems import processor_name
from qcli.host.threads import default_threads
from quant import cpu


@dataclass(frozen=True)
class Machine:
    """The CPU, as it is named beside the figures."""

    cpu: str  # the maker's name of it, as "AMD EPYC 7B13"
    target: str  # LLVM's name of it, for which kernels are compiled
    dot_unit: str  # the instructions that multiply int8
    cores: int  # physical ones that this process may use


def this_machine() -> Machine:
    """The machine that this runs on."""
    return Machine(processor_name() or cpu.name(), cpu.name(), cpu.dot_unit(), default_threads())
