"""AArch64 under emulation: the embedded model's story and the tests of formats and kernels, on several processors.

    python benchmarks/aarch64.py ROOT [--cpus cortex-a53,neoverse-n1,max] [--tests tests/quant/formats/test_formats.py,…]
        [--write docs/aarch64.md] [--compile-there] [--suite bookworm] [--mirror URL]

ROOT is a folder, in which an arm64 Debian is made by debootstrap, or used if it is there. Needs root, and Debian's packages
debootstrap, qemu-user-static and binfmt-support. Run it by a Python that has qcli and is as new as that of the suite (3.11 for
bookworm, 3.13 for trixie): its story is what the others are compared with, and its pip builds the wheel of this checkout and
installs it in ROOT with its `test` extra, as it is configured, from packages for AArch64.

Kernels are compiled on this machine for the other one (see cross_kernels.py) and loaded there, unless --compile-there; they stay
in ROOT. One process at a time is emulated. The exit code is 1 if a text differs, a test fails, or other kernels are used than the
processor's best.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Final

import numpy as np

CHECKOUT: Final = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- aarch64: written by benchmarks/aarch64.py -->\n", "<!-- /aarch64 -->\n"
HEADER: Final = (
    "| `qemu -cpu` | kernels | story | logits | tests | minutes: story | tests |\n|---|---|---|---|---|--:|--:|\n"
)
KERNELS: Final = {"cortex-a53": "neon", "neoverse-n1": "dotprod", "neoverse-v1": "i8mm", "max": "i8mm"}
_FILES = (
    "formats/test_formats kernels/test_matmul kernels/test_experts kernels/test_delta_net blocks/test_lookup test_simd"
)
TESTS: Final = ",".join(f"tests/quant/{name}.py" for name in _FILES.split())
_BINFMT: Final = Path("/proc/sys/fs/binfmt_misc")
_OURS: Final = "opt/qcli"  # below ROOT: packages, tests, kernels
_LIBRARIES: Final = range(36, 16, -1)  # of glibc, 2.36 to 2.17: wheels are named by the oldest they can do with

# Run here and there: the kernels' kind, the story; a file of logits, and one of the names of kernels that are used, or may be.
TELL: Final = """
import sys
import numpy as np
from qcli import LLM
from quant import cpu, prepare
from quant.jit import Kernel
names, compile_missing = set(), prepare.compile_missing
def noted(kernels, progress=None, processors=None, later=()):
    names.update(kernel.name for group in (kernels, *later) for kernel in group)
    return compile_missing(kernels, progress, processors, later)
prepare.compile_missing = noted
with LLM(threads=1) as llm:
    story = "".join(llm.generate("Once upon a time", max_tokens=100, temperature=0))
    np.save(sys.argv[1], llm.logits(llm.tokenize("Once upon a time" + story)))
values = [v for name, m in list(sys.modules.items()) if name.startswith("quant.") for v in vars(m).values()]
names |= {v.name for v in values if isinstance(v, Kernel) and v.is_loaded}
names |= {"quant.kernels.multiply.multiply_q8", "quant.kernels.multiply.multiply_q8_by_16"}  # of processors without pairs
open(sys.argv[2], "w").write("\\n".join(sorted(names)))
sys.stdout.write(cpu.dot_unit() + "\\n" + story)
"""


@dataclass
class Told:
    """What the model told on a processor, and by which kernels."""

    unit: str
    story: str
    logits: np.ndarray
    names: str
    minutes: float


@dataclass
class Tested:
    """What pytest said at the end: how many passed, failed, were skipped."""

    counts: dict[str, int]
    minutes: float

    @property
    def well(self) -> bool:
        return self.counts.get("passed", 0) > 0 and not {"failed", "error", "errors"} & set(self.counts)


class Root:
    """An arm64 Debian in a folder, and commands in it. Mounts are those of a command alone, and end with it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ours = folder, folder / _OURS

    def make(self, suite: str, mirror: str) -> None:
        """Have debootstrap fetch its packages, and unpack them, unless it is there; what is half made is made anew.

        Nothing is configured there, which an emulated machine takes an hour for, and Python does without.
        """
        done = self.folder / "etc/made-by-aarch64.py"
        if done.exists():
            return
        if self.folder.exists() and any(self.folder.iterdir()) and not (self.folder / "debootstrap").exists():
            sys.exit(f"{self.folder} is not empty, and no root of this script's: name another folder")
        shutil.rmtree(self.folder, ignore_errors=True)
        tell(f"making an arm64 Debian {suite} in {self.folder}")
        first = ["debootstrap", "--foreign", "--arch=arm64", "--variant=minbase", "--include=python3", suite]
        subprocess.run([*first, self.folder, mirror], check=True)
        for package in sorted(self.folder.glob("var/cache/apt/archives/*.deb")):
            self._unpack(package)
        for name in ("passwd", "group"):
            shutil.copyfile(self.folder / f"usr/share/base-passwd/{name}.master", self.folder / "etc" / name)
        done.touch()

    def _unpack(self, package: Path) -> None:
        files = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, stdout=subprocess.PIPE).stdout
        subprocess.run(["tar", "-x", "--keep-directory-symlink", "-C", self.folder], check=True, input=files)

    def run(
        self, command: Sequence[str], processor: str = "max", *, silent: bool = False
    ) -> subprocess.CompletedProcess:
        """Run a command on an emulated processor; silent: what it writes is given, not shown."""
        mounts = 'mount -t proc proc "$0/proc" && mount -t tmpfs shm "$0/dev/shm"'
        inside = ["sh", "-c", f'{mounts} && exec chroot "$0" "$@"', str(self.folder), *command]
        alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", *inside]
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8", "QEMU_CPU": processor,
            "PYTHONPATH": f"/{_OURS}/packages", "QCLI_CACHE_DIR": f"/{_OURS}/cache",
        }  # fmt: skip
        return subprocess.run(alone, env=environment, text=True, stdout=subprocess.PIPE if silent else None)

    def install(self) -> None:
        """The wheel of this checkout, with what its tests need, and the tests."""
        self.ours.mkdir(parents=True, exist_ok=True)
        pip, packages = [sys.executable, "-m", "pip"], self.ours / "packages"
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, CHECKOUT], check=True)
            (built,) = Path(folder).glob("*.whl")
            new = [*pip, "install", "--quiet", "--upgrade", "--target", packages, "--only-binary=:all:"]
            if not packages.exists():
                python = self.run(["python3", "-c", "import sys; print(*sys.version_info[:2], sep='.')"], silent=True)
                of_arm64 = [f"--platform=manylinux_2_{minor}_aarch64" for minor in _LIBRARIES]
                of_arm64 += ["--platform=manylinux2014_aarch64", f"--python-version={python.stdout.strip()}"]
                subprocess.run([*new, "--implementation=cp", *of_arm64, f"{built}[test]"], check=True)
            for old in ("qcli", "quant"):
                shutil.rmtree(packages / old, ignore_errors=True)
            subprocess.run([*new, "--no-deps", built], check=True)
        shutil.rmtree(self.ours / "checkout", ignore_errors=True)
        shutil.copytree(CHECKOUT / "tests", self.ours / "checkout/tests", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copyfile(CHECKOUT / "pyproject.toml", self.ours / "checkout/pyproject.toml")

    def compile(self, processor: str, names: str, tests: Sequence[str]) -> None:
        """Compile the kernels of these names, and those of tests, here for there."""
        asked = self.run(["python3", "-c", "from quant import cpu; print(cpu.features())"], processor, silent=True)
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(names)
            file.flush()
            script = [
                sys.executable,
                CHECKOUT / "benchmarks/cross_kernels.py",
                self.ours / "cache",
                asked.stdout.strip(),
            ]
            subprocess.run([*script, file.name], check=True)
            subprocess.run([*script, *(self.ours / "checkout" / test for test in tests)], check=True)

    def told(self, processor: str) -> Told:
        """What the model tells there."""
        return told(self.folder, lambda command: self.run(["python3", *command], processor, silent=True))

    def tested(self, processor: str, tests: Sequence[str]) -> Tested:
        """What the tests say there; it is shown, too."""
        began, places = perf_counter(), [f"/{_OURS}/checkout/{test}" for test in tests]
        plain = ["-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "--rootdir", f"/{_OURS}/checkout"]
        done = self.run(["python3", *plain, *places], processor, silent=True)
        tell(done.stdout)
        return Tested(counts(done.stdout), (perf_counter() - began) / 60)


def told(root: Path, run) -> Told:
    """What the model tells; run(command): by the Python of a machine whose files are below root."""
    began = perf_counter()
    with tempfile.TemporaryDirectory(dir=root / "tmp") as folder:
        logits, names = Path(folder, "logits.npy"), Path(folder, "names")
        done = run(["-c", TELL, *(f"/{path.relative_to(root)}" for path in (logits, names))])
        done.check_returncode()
        unit, _, story = done.stdout.partition("\n")
        return Told(unit, story, np.load(logits), names.read_text(), (perf_counter() - began) / 60)


def counts(said: str) -> dict[str, int]:
    """What pytest's last line counts: `3 failed, 466 passed in 600.01s`."""
    last = said.strip().rpartition("\n")[2]
    return {kind: int(number) for number, kind in re.findall(r"(\d+) ([a-z]+)(?=,| in )", last)}


def tell(said: str) -> None:
    print(said, file=sys.stderr, flush=True)


def row(processor: str, there: Told, here: Told, tested: Tested | None) -> str:
    """A line of the table."""
    story = "the same" if there.story == here.story else "DIFFERS"
    logits = "the same bits" if np.array_equal(there.logits, here.logits) else "others"
    if logits == "others" and there.logits.shape == here.logits.shape:
        logits = f"at most {np.abs(there.logits - here.logits).max():.1g} away"
    unit = there.unit if KERNELS.get(processor, there.unit) == there.unit else f"{there.unit} (NOT ITS BEST)"
    said = ", ".join(f"{number} {kind}" for kind, number in tested.counts.items()) if tested else ""
    minutes = f"{there.minutes:.1f} | {tested.minutes:.1f}" if tested else f"{there.minutes:.1f} | "
    return f"| {processor} | {unit} | {story} | {logits} | {said} | {minutes} |\n"


def commit() -> str:
    """That of the checkout, and whether files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", CHECKOUT, *arguments], text=True, capture_output=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")


def check_machine() -> None:
    """Ends the program where a root cannot be made."""
    if os.geteuid() != 0:
        sys.exit("only root can do this: run it with sudo")
    if not shutil.which("debootstrap"):
        sys.exit("debootstrap is missing: apt install debootstrap qemu-user-static binfmt-support")
    if not list(_BINFMT.glob("*aarch64*")):
        sys.exit(
            "programs for AArch64 are not passed to qemu: apt install qemu-user-static binfmt-support; in a container "
            f"also mount -t binfmt_misc binfmt_misc {_BINFMT}; update-binfmts --enable qemu-aarch64"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument(
        "--cpus", default="cortex-a53,neoverse-n1,max", help="of those that `qemu-aarch64-static -cpu help` lists"
    )
    parser.add_argument("--tests", default=TESTS, help="test files; nothing for the story alone")
    parser.add_argument("--write", type=Path, help="a page, to put the table between its two marks")
    parser.add_argument(
        "--compile-there", action="store_true", help="have the emulated machine compile kernels: takes hours"
    )
    parser.add_argument("--suite", default="bookworm")
    parser.add_argument("--mirror", default="http://deb.debian.org/debian")
    given = parser.parse_args()
    check_machine()
    root, what = Root(given.root.absolute()), f"{date.today()}, commit {commit()}"  # as it is installed
    root.make(given.suite, given.mirror)
    tell("installing the wheel")
    root.install()
    here = told(
        Path("/"), lambda command: subprocess.run([sys.executable, *command], text=True, stdout=subprocess.PIPE)
    )
    tests, table, well = [test for test in given.tests.split(",") if test], HEADER, True
    for processor in given.cpus.split(","):
        if not given.compile_there:
            tell(f"{processor}: kernels")
            root.compile(processor, here.names, tests)
        tell(f"{processor}: the story")
        there, tested = root.told(processor), None
        if tests:
            tell(f"{processor}: tests")
            tested = root.tested(processor, tests)
        line = row(processor, there, here, tested)
        tell(line)
        table += line
        well &= there.story == here.story and there.unit == KERNELS.get(processor, there.unit)
        well &= tested is None or tested.well
    said = f"{what}, compared with {here.unit} on x86-64. Tests: `{' '.join(tests)}`.\n\n{table}"
    sys.stdout.write(said)
    if given.write:
        text = given.write.read_text()
        before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
        given.write.write_text(f"{before}\n{said}\n{after}")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
