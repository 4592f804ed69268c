"""The same answers from every vector unit: those that this machine has run here, the others are read as assembly."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache

import llvmlite.binding as llvm
import pytest
from places import HELPERS, ROOT, TESTS

import qcli.host.kernels  # noqa: F401  (says where kernels are kept)
from quant import cpu, kernel_cache

# A processor, the features beside its name, the unit that is meant, and what this machine needs to run its code.
X86 = {
    "ivybridge": ("", "portable", "avx f16c"),
    "haswell": ("+avx2,+fma", "avx2", "avx2 fma f16c bmi2 lzcnt movbe"),
    "skylake-avx512": ("+avx512bw,+avx512vl", "avx512", "avx512bw avx512vl avx512dq avx512cd clwb"),
    "alderlake": ("+avxvnni,+avx2,+fma", "avxvnni", "avxvnni gfni vaes vpclmulqdq sha"),
    "icelake-server": ("+avx512vnni,+avx512bw,+avx512vl", "avx512vnni", "avx512vnni avx512vbmi2 gfni vaes"),
}
OTHER = {"generic": ("", "portable" if cpu.is_x86() else "neon", "")}
_TYPES = "Q8_0 or Q2_K or Q4_K or Q5_K or Q6_K or IQ4_NL or NVFP4 or F16 and not BF16"
_KERNELS = f"(dot_and_tile_are_exact or extremes or unpacked) and ({_TYPES})"
_SHARED = "(test_simd or test_lookup or test_grids or test_blocks256) and not other_processors"
CHOSEN = f"{_SHARED} or {_KERNELS} or bytes_are_those_of_ggml and IQ4_NL"

# Garbage is looked for rarely, as in quant/compile_worker.py: what Numba consists of stays.
PYTEST = "import gc, sys, pytest; gc.set_threshold(100_000); sys.exit(pytest.main(sys.argv[1:]))"


def here() -> dict[str, tuple[str, str, str]]:
    """The processors whose code this machine can run, but for its own kind: all other tests do that."""
    known = X86 if platform.machine().lower() in ("x86_64", "amd64") else OTHER
    has = {feature for feature, there in llvm.get_host_cpu_features().items() if there}
    return {name: row for name, row in known.items() if has.issuperset(row[2].split()) and row[1] != cpu.dot_unit()}


def start(command, processor, features=None, **more):
    """A Python process that compiles for another processor; more: arguments of Popen."""
    environment = {**os.environ, "NUMBA_CPU_NAME": processor, "PYTHONPATH": str(ROOT)}
    if features is not None:
        environment["NUMBA_CPU_FEATURES"] = features
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *command], env=environment, text=True, stdout=pipe, stderr=pipe, **more)


@pytest.mark.skipif(not cpu.is_x86(), reason="compiles for processors of this kind")
def test_kernels_that_another_unit_has_can_be_compiled():
    """Nobody asks for them; who compiles all kernels beforehand meets them."""
    names = ("quant.kernels.multiply.multiply_u4", "quant.kernels.multiply.multiply_u4_by_16")
    command = ["-m", "quant.compile_worker", str(kernel_cache.root())]  # a line a kernel, or its traceback
    process = start(command, "icelake-server", X86["icelake-server"][0], stdin=subprocess.PIPE)
    said, complained = process.communicate("\n".join(names), timeout=300)
    assert (said, process.returncode) == ("\n" * len(names), 0), complained


@pytest.mark.parametrize("processor", here())
def test_kernels_compiled_for_another_processor(processor):
    names = (
        "quant/test_simd.py",
        "quant/blocks/test_lookup.py",
        "quant/blocks/test_grids.py",
        "quant/blocks/test_blocks256.py",
        "quant/formats/test_formats.py",
        "quant/quantizers/test_quantizers.py",
    )
    files = [str(TESTS / name) for name in names]
    plain = ["-q", "-n0", "--noconftest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    plain += ["-p", "qcli.host.kernels"]  # which keeps what is compiled, as for all other tests
    command = ["-c", PYTEST, *plain, "--rootdir", str(ROOT), "-k", CHOSEN, *files]
    process = start(command, processor, here()[processor][0])
    said, complained = process.communicate(timeout=900)
    assert process.returncode == 0, said + complained
    assert " passed" in said


CODE = """
import sys
from quant.int8_dot import UNIT
sys.stdout.write(UNIT)
"""


@pytest.mark.parametrize(("processor", "row"), [*X86.items(), *OTHER.items()])
def test_the_unit_is_chosen_by_features(processor, row):
    said, _ = start(["-c", CODE], processor, row[0]).communicate()
    assert said == row[1]


# What the compiler must make of an int8 dot product of 64 columns, for machines that need not be here.
INSTRUCTIONS = [
    ("x86_64-unknown-linux-gnu", "sapphirerapids", "avx512vnni", "vpdpbusd", 1),
    ("x86_64-unknown-linux-gnu", "znver4", "avx512vnni", "vpdpbusd", 1),
    ("x86_64-unknown-linux-gnu", "alderlake", "avxvnni", "vpdpbusd", 2),
    ("x86_64-unknown-linux-gnu", "skylake-avx512", "avx512", "vpmaddubsw", 1),
    ("x86_64-unknown-linux-gnu", "haswell", "avx2", "vpmaddubsw", 2),
    ("aarch64-apple-darwin", "apple-m1", "dotprod", "sdot", 4),
    ("aarch64-apple-darwin", "apple-m2", "i8mm", "sdot", 4),
    ("aarch64-unknown-linux-gnu", "neoverse-n1", "dotprod", "sdot", 4),
    ("aarch64-unknown-linux-gnu", "neoverse-v2", "i8mm", "sdot", 4),
    ("aarch64-unknown-linux-gnu", "cortex-a72", "neon", "smull", 4),
]


@cache
def assemblies(triple, processor, features=None):
    """The unit, and what was compiled for a processor: for each operation its assembly; and what went wrong."""
    command = [str(HELPERS / "cross_compile.py"), triple, *_operations(triple, processor, features)]
    said, complained = start(command, processor, features).communicate(timeout=120)
    unit, *codes = said.split("\n=")
    return unit, dict(code.split("\n", 1) for code in codes), complained


def _operations(triple, processor, features):
    """Those that tests read of a processor."""
    of_dots, of_tiles = [(*row[:2], None, "dot") for row in INSTRUCTIONS], [(*row[:2], None, row[2]) for row in TILES]
    wanted = [*of_dots, *of_tiles, *((*row[:3], "lookup") for row in LOOKUPS)]
    return [operation for *meant, operation in wanted if meant == [triple, processor, features]]


def mnemonics(code):
    """The instructions of an assembly, without their operands."""
    lines = code.replace("{vex}\t", "").splitlines()
    return [line.strip().replace(".", "\t").split()[0] for line in lines if line.startswith("\t") and line.strip(".\t")]


@pytest.mark.parametrize(("triple", "processor", "unit", "instruction", "times"), INSTRUCTIONS)
def test_the_instruction_that_a_processor_has_for_it(triple, processor, unit, instruction, times):
    first, codes, complained = assemblies(triple, processor)
    assert first == unit, complained
    found = mnemonics(codes.get("dot", ""))
    assert found.count(instruction) >= times, complained
    if instruction in ("sdot", "vpdpbusd"):
        assert found.count(instruction) == times
        assert not {"smull", "pmull", "vpmaddubsw"} & set(found)


# 16 columns of 16 rows: two rows, two of four tokens and eight columns in an instruction; or a word of one of three tokens.
TILES = [
    ("aarch64-unknown-linux-gnu", "neoverse-v1", "matrices", "smmla", 8 * 2 * 2),
    ("aarch64-apple-darwin", "apple-m2", "matrices", "smmla", 8 * 2 * 2),
    ("aarch64-unknown-linux-gnu", "neoverse-n1", "dot columns", "sdot", 4 * 4 * 3),
    ("aarch64-apple-darwin", "apple-m1", "dot columns", "sdot", 4 * 4 * 3),
]


@pytest.mark.parametrize(("triple", "processor", "operation", "instruction", "times"), TILES)
def test_tiles_of_prefill(triple, processor, operation, instruction, times):
    _, codes, complained = assemblies(triple, processor)
    found = mnemonics(codes.get(operation, ""))
    assert found.count(instruction) == times, complained
    assert not ({"smull", "sdot", "smmla", "ld1r"} - {instruction}) & set(found)  # no token's word is loaded by itself


# The byte shuffle that looks up 64 nibbles: a processor, its features, and how often which instruction is there.
LOOKUPS = [
    ("x86_64-unknown-linux-gnu", "icelake-server", "+avx512vnni,+avx512bw,+avx512vl,+avx512vbmi", "vpermb", 1),
    ("x86_64-unknown-linux-gnu", "skylake-avx512", None, "vpshufb", 1),
    ("x86_64-unknown-linux-gnu", "haswell", None, "vpshufb", 2),
    ("aarch64-apple-darwin", "apple-m1", None, "tbl", 4),
]


@pytest.mark.parametrize(("triple", "processor", "features", "instruction", "times"), LOOKUPS)
def test_a_lookup_is_one_shuffle_a_register(triple, processor, features, instruction, times):
    _, codes, complained = assemblies(triple, processor, features)
    assert mnemonics(codes.get("lookup", "")).count(instruction) == times, complained
