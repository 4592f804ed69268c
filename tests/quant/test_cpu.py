"""How a processor is recognised: by what the system says that it has, and only where it says nothing by its name."""

from __future__ import annotations

import subprocess
import sys

import llvmlite.binding as llvm
import pytest

from quant import cpu, hwcap

# The two words as Linux gives them, and what they mean.
PLAIN = 0b1111_1111  # Cortex-A53: fp, asimd, evtstrm, aes, pmull, sha1, sha2, crc32
N1 = (
    PLAIN | 1 << 8 | 0b11 << 9 | 1 << 12 | 1 << 15 | 1 << 20
)  # Neoverse N1: and atomics, halves, rdm, rcpc, dot products
V1, V1_MORE = N1 | 1 << 22 | 1 << 23, 1 << 13 | 1 << 14  # Neoverse V1: and SVE, i8mm, bf16


@pytest.fixture
def machine(monkeypatch):
    """Have this be a machine: how LLVM calls it, what it finds, and Linux's words; an AArch64, unless it is said not to be."""

    def be(name, found, words=(0, 0), is_aarch64=True):
        monkeypatch.delenv("NUMBA_CPU_NAME", raising=False)
        monkeypatch.delenv("NUMBA_CPU_FEATURES", raising=False)
        monkeypatch.setattr(cpu, "is_aarch64", lambda: is_aarch64)
        monkeypatch.setattr(llvm, "get_host_cpu_name", lambda: name)
        monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: found)
        monkeypatch.setattr(hwcap, "host_features", lambda: hwcap.features_of(*words))
        for cached in (cpu.name, cpu._host, cpu.features, cpu.dot_unit):
            monkeypatch.setattr(cpu, cached.__name__, cached.__wrapped__)

    return be


def there(words):
    return {feature for feature, is_there in hwcap.features_of(*words).items() if is_there}


def test_the_bits_of_hwcap():
    plain = {"fp-armv8", "neon", "aes", "sha2", "crc"}
    assert there((PLAIN, 0)) == plain
    assert there((N1, 0)) == plain | {"lse", "fullfp16", "rdm", "rcpc", "dotprod"}
    assert there((V1, V1_MORE)) == there((N1, 0)) | {"sve", "fp16fml", "i8mm", "bf16"}
    assert "aes" not in there((PLAIN - (1 << 4), 0))  # AES alone, which LLVM's "aes" is not
    assert hwcap.features_of(0, 0) == {}


def test_this_machine_is_asked_if_it_is_one():
    """On x86 the words mean other things."""
    assert bool(hwcap.host_features()) == (sys.platform == "linux")
    assert ("dotprod" in cpu._host()) == (sys.platform == "linux" and cpu.is_aarch64())


@pytest.mark.parametrize(
    ("name", "words", "unit"),
    [
        ("generic", (PLAIN, 0), "neon"),
        ("generic", (N1, 0), "dotprod"),  # under an emulator /proc/cpuinfo is that of another machine
        ("generic", (V1, V1_MORE), "i8mm"),
        ("neoverse-n1", (PLAIN, 0), "neon"),  # what a name stands for may be kept back
        ("neoverse-v1", (N1, 0), "dotprod"),
    ],
)
def test_hwcap_is_right_whatever_the_name(machine, name, words, unit):
    machine(name, {"aes": False, "sve": False}, words)
    assert (cpu.dot_unit(), cpu.unit_of_machine()) == (unit, unit)


def test_an_aarch64_of_another_name_has_neon(machine):
    machine("a-name-of-tomorrow", {})
    assert (cpu.dot_unit(), cpu.unit_of_machine()) == ("neon", "neon")


def test_the_compiler_is_told_what_a_processor_lacks(machine):
    machine("neoverse-v1", {"aes": True, "dotprod": True}, (N1, 0))
    told = cpu.features().split(",")
    assert {"+aes", "+dotprod", "+lse", "-i8mm", "-sve", "-bf16"} <= set(told)


def test_x86_is_taken_by_its_features_not_by_its_name(machine):
    machine("haswell", {"sse4.2": True, "avx2": False, "fma": False}, is_aarch64=False)
    assert cpu.dot_unit() == "portable"


@pytest.mark.parametrize(
    ("name", "unit", "more"),
    [
        ("apple-a12", "neon", set()),
        ("apple-m1", "dotprod", {"dotprod"}),
        ("apple-m2", "i8mm", {"dotprod", "i8mm", "bf16"}),
        ("apple-m3", "i8mm", {"dotprod", "i8mm", "bf16"}),
        ("apple-m4", "i8mm", {"dotprod", "i8mm", "bf16", "sme"}),
        ("apple-m5", "i8mm", {"dotprod", "i8mm", "bf16", "sme"}),
    ],
)
def test_apples_are_taken_by_name_where_no_system_tells(machine, name, unit, more):
    machine(name, {})
    assert (cpu.dot_unit(), cpu.unit_of_machine()) == (unit, unit)
    assert cpu.machine_features() == {"neon"} | more
    assert cpu.features() == ""


# An instruction of each feature, as LLVM's code.
_ON_BYTES = "<4 x i32> @{}(<4 x i32> %a, <16 x i8> %b, <16 x i8> %c)"
_ON_BF16 = "<4 x float> @{}(<4 x float> %a, <8 x bfloat> %b, <8 x bfloat> %c)"
_USES = {
    "dotprod": (_ON_BYTES, "llvm.aarch64.neon.sdot.v4i32.v16i8"),
    "i8mm": (_ON_BYTES, "llvm.aarch64.neon.smmla.v4i32.v16i8"),
    "bf16": (_ON_BF16, "llvm.aarch64.neon.bfdot.v4f32.v8bf16"),
    "sme": ("i64 @{}()", "llvm.aarch64.sme.cntsd"),
    "sve": ("i64 @{}()", "llvm.vscale.i64"),
}
_PROBE = """
import sys
import llvmlite.binding as llvm
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
machine = llvm.Target.from_triple("aarch64-unknown-linux-gnu").create_target_machine(cpu=sys.argv[1])
machine.emit_assembly(llvm.parse_assembly(sys.argv[2]))
"""


def compiles(name, features):
    """Whether LLVM knows the processor and can use all of the features; else it ends its process."""
    code = ""
    for feature in features:
        function, called = _USES[feature]
        returned, call = function.split(" @")[0], function.format(called)
        code += f"declare {call}\ndefine {function.format(feature)} {{\n%r = call {call}\nret {returned} %r\n}}\n"
    done = subprocess.run([sys.executable, "-c", _PROBE, name, code], text=True, capture_output=True)
    assert "not a recognized" not in done.stderr
    assert done.returncode == 0 or "Cannot select" in done.stderr, done.stderr
    return done.returncode == 0


@pytest.mark.parametrize(
    "name", ["apple-a13", "apple-m1", "apple-m2", "apple-m3", "apple-m4", "apple-m5", "neoverse-v3"]
)
def test_the_compiler_takes_a_name_for_what_is_known_of_it(name):
    assert compiles(name, cpu._AARCH64[name] - {"neon"})


@pytest.mark.parametrize(
    ("name", "lacks"),
    [("apple-a12", "dotprod"), ("apple-m1", "i8mm"), ("apple-m3", "sme"), ("apple-m5", "sve"), ("neoverse-n1", "i8mm")],
)
def test_and_for_no_more(name, lacks):
    assert lacks not in cpu._AARCH64.get(name, ())
    assert not compiles(name, [lacks])
