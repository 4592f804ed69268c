"""Runs every case once to warm up, then all of them in turns, so that a machine whose speed drifts does so for all alike."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from statistics import median, stdev
from time import perf_counter
from typing import Protocol

from qcli.bench.bandwidth import Bandwidth
from qcli.bench.cases import Case, context_of
from qcli.bench.disk import DiskReads
from qcli.bench.rig import Profile, Rig
from qcli.errors import UsageError
from qcli.gguf.file import GGUFFile
from qcli.progress import Progress
from qcli.runtime.engine import Engine
from qcli.streaming.cache import Traffic

WAITING = "waiting"  # the part of the time in which threads wait for others
Rigs = dict[tuple[int, int], Rig]  # by threads and batch size


class Runner(Protocol):
    """Another program that can run a case: a peer."""

    def run(self, case: Case) -> float:
        """Seconds of one repetition."""


@dataclass
class Result:
    """All that was measured of one case."""

    case: Case
    bytes_moved: float  # that a repetition reads from memory and writes, at least
    seconds: list[float] = field(default_factory=list)
    peer_seconds: list[float] = field(default_factory=list)
    profile: Profile | None = None
    bandwidths: list[float] = field(
        default_factory=list
    )  # GB/s before and after each repetition, same threads: the mean
    traffic: list[Traffic] = field(default_factory=list)  # of each repetition of a streamed model

    @property
    def median_s(self) -> float:
        """Seconds of the median repetition."""
        return median(self.seconds)

    @property
    def tok_per_s(self) -> float:
        """Tokens a second of the median repetition."""
        return self.case.tokens / self.median_s

    @property
    def stdev(self) -> float:
        """Standard deviation of the speed over the repetitions, in tok/s."""
        return _spread(self.case, self.seconds)

    @property
    def gb_per_s(self) -> float:
        """10^9 bytes a second that the median repetition moved, at least."""
        return self.bytes_moved / self.median_s / 1e9

    @property
    def bandwidth(self) -> float:
        """The machine's memory bandwidth meanwhile, in GB/s."""
        return median(self.bandwidths)

    @property
    def roofline(self) -> float:
        """The share of the machine's memory bandwidth that was used, 0 to 1: each repetition by the bandwidth around it."""
        pairs = zip(self.seconds, self.bandwidths, strict=True)
        return median(self.bytes_moved / seconds / 1e9 / limit for seconds, limit in pairs)

    @property
    def disk_reads(self) -> DiskReads | None:
        """None if all of the model stays in memory."""
        return DiskReads.of(self.traffic, self.seconds, self.case.tokens) if self.traffic else None

    def times(self) -> dict[str, tuple[float, float]]:
        """Seconds at work and waiting of each part in the median repetition: the profiled one's, scaled to its length."""
        if self.profile is None:
            return {}
        scale = self.median_s / self.profile.seconds
        return {part: (scale * work, scale * wait) for part, (work, wait) in self.profile.parts.items()}

    def parts(self) -> dict[str, float]:
        """Seconds at work of each part in the median repetition, then seconds waiting for other threads."""
        times = self.times()
        return {part: work for part, (work, _) in times.items()} | {WAITING: sum(wait for _, wait in times.values())}

    @property
    def peer_tok_per_s(self) -> float:
        """Tokens a second of the peer's median repetition."""
        return self.case.tokens / median(self.peer_seconds)

    @property
    def peer_stdev(self) -> float:
        """Standard deviation of the peer's speed, in tok/s."""
        return _spread(self.case, self.peer_seconds)


def _spread(case: Case, seconds: list[float]) -> float:
    return stdev(case.tokens / s for s in seconds) if len(seconds) > 1 else 0.0


def load_rigs(
    file: GGUFFile,
    cases: list[Case],
    kv_type: str | None = None,
    ram: int | None = None,
    peer: bool = False,
    progress: Progress | None = None,
    *,
    fixed: bool = True,
) -> Rigs:
    """An engine for each number of threads and batch size; the weights are shared.

    ram: see Engine.load; peer: whether one will run, too; fixed: whether all of a case's threads decode, or as many of
    them as pay, as where no number is given to Engine.load. Raises UsageError if the model is streamed and not alone, as
    each engine, and the peer, would take all the memory for itself.
    """
    ctx, rigs = context_of(cases), {}
    wanted = dict.fromkeys((case.threads, case.batch) for case in cases)
    try:
        for threads, batch in wanted:
            chunk = min(batch, ctx) or None
            engine = Engine.load(
                file,
                threads=threads if fixed else None,
                ctx=ctx,
                chunk=chunk,
                kv_type=kv_type,
                ram=ram,
                progress=progress,
            )
            rigs[threads, batch] = Rig(engine, file)
            if engine.expert_loader:
                _check_alone(len(wanted), peer)
    except BaseException:
        for rig in rigs.values():
            rig.close()
        raise
    return rigs


def _check_alone(engines: int, peer: bool) -> None:
    if peer:
        message = "the model does not fit into memory, and what there is cannot be given to a --peer too"
        raise UsageError(message, "leave out --peer")
    if engines > 1:
        message = (
            f"the model does not fit into memory, and each of {engines} pairs of -t and -b would take all there is"
        )
        raise UsageError(message, "give one -t and one -b at a time")


def measure(
    rigs: Rigs,
    bandwidth: Bandwidth,
    cases: list[Case],
    repetitions: int,
    peer: Runner | None = None,
    progress: Progress | None = None,
) -> list[Result]:
    """Run every case once to warm up, `repetitions` times by the clock, and once more to see where the time goes."""
    progress = progress or (lambda _stage, _fraction: None)
    _fill(rigs, cases, progress)
    runs = _warm_up(rigs, cases, peer, progress)
    meter = _ProgressMeter(progress, sum(run.expected for run in runs) * (repetitions + 1))
    for _ in range(repetitions):
        for run in runs:
            _repeat(run, bandwidth, peer)
            meter.add(run.expected)
    for run in runs:
        run.result.profile = run.rig.profile(run.result.case)
        meter.add(run.expected)
    return [run.result for run in runs]


@dataclass
class _Run:
    """A case, the rig that runs it, and what was measured so far."""

    rig: Rig
    result: Result
    expected: float  # seconds that a repetition takes, its peer's among them, by the warm-up


class _ProgressMeter:
    """Adds up expected seconds of what is done, and tells their share of the total."""

    def __init__(self, progress: Progress, total_s: float) -> None:
        self._progress, self._total_s, self._done = progress, total_s, 0.0
        self.add(0.0)

    def add(self, seconds: float) -> None:
        self._done += seconds
        self._progress("measuring", self._done / self._total_s)


def _fill(rigs: Rigs, cases: list[Case], progress: Progress) -> None:
    """Prefill each rig to its depths, from one to the next deeper one; a peer does so itself."""
    for threads, batch, depth in sorted({(case.threads, case.batch, case.depth) for case in cases if case.depth}):
        rigs[threads, batch].fill(depth, progress)


def _warm_up(rigs: Rigs, cases: list[Case], peer: Runner | None, progress: Progress) -> list[_Run]:
    runs = []
    for done, case in enumerate(cases):
        progress("warming up", done / len(cases))
        began = perf_counter()
        rig = rigs[case.threads, case.batch]
        case = replace(case, batch=case.batch or rig.chunk)
        result = Result(case, rig.bytes_moved(case))
        if peer:
            peer.run(case)
        runs.append(_Run(rig, result, perf_counter() - began))
    return runs


def _repeat(run: _Run, bandwidth: Bandwidth, peer: Runner | None) -> None:
    result, case = run.result, run.result.case
    before = bandwidth.sample(case.threads)
    result.seconds.append(run.rig.run(case))
    result.bandwidths.append((before + bandwidth.sample(case.threads)) / 2)
    if run.rig.traffic:
        result.traffic.append(run.rig.traffic)
    if peer:
        result.peer_seconds.append(peer.run(case))
