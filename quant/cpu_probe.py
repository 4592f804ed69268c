"""A process that tries a processor: `python -m quant.cpu_probe NAME FEATURES`, as LLVM ends a process for a wrong name.

Its exit code is 0, or LACKS_F16C if conversions of half-precision numbers would be calls of functions that are not there.
"""

from __future__ import annotations

import sys

import llvmlite.binding as llvm

LACKS_F16C = 3
_CODE = "define half @f(float %x) { %y = fptrunc float %x to half\n ret half %y }"


def probe(name: str, features: str) -> int:
    """Compile a conversion for a processor; what the process should end with."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(cpu=name, features=features, jit=True)
    return LACKS_F16C if "truncsfhf2" in machine.emit_assembly(llvm.parse_assembly(_CODE)) else 0


if __name__ == "__main__":
    sys.exit(probe(*sys.argv[1:]))
