"""How each of a model's files would run here, without any of them: by one header, and one rehearsal of each type.

A file's types follow from its name (`retyped`), its amounts are scaled to its real size, and of files with the same main type
one is rehearsed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

from qcli.errors import QcliError, UnsupportedModelError
from qcli.forecast import glance
from qcli.forecast.prospect import USUAL, Offer, Options, Prospect
from qcli.forecast.recommendation import recommended
from qcli.forecast.rehearsal import Rehearsal
from qcli.forecast.retyped import (
    Types,
    bytes_of,
    bytes_under,
    mix_of,
    own_types,
    retyped,
    types_under,
    weights_in,
)
from qcli.gguf.file import GGUFFile
from qcli.gguf.summary import is_supported
from qcli.gguf.types import BLOCKS
from qcli.host.threads import default_threads
from qcli.hub.quant_names import bits_of, plain
from qcli.progress import Progress
from qcli.quantize.mixes import MIXES
from qcli.runtime.build import state_for
from qcli.streaming.dense import is_expert

SECONDS: Final = 8.0  # of rehearsals after the first, for which kernels may have to be compiled


@dataclass(frozen=True)
class Survey:
    """Each file in the order of the offers, and the one to take, with the reason, if any runs."""

    files: list[Prospect]
    recommended: tuple[int, str] | None
    free: int  # bytes of memory for a model and its context


@dataclass(frozen=True)
class _Case:
    """An offer, and what its name and size tell."""

    offer: Offer
    types: Types
    amounts: glance.Amounts
    fit: glance.Fit
    main: str  # the type of most of what a token reads
    scale: float  # its real size, as a share of that by its types


@dataclass(frozen=True)
class _Measured:
    """A rehearsal."""

    case: _Case
    seconds: float  # of a token


def by_size(offers: Sequence[Offer], options: Options = USUAL) -> Survey:
    """What can be told of files without a header of any of them."""
    free = glance.room(options.ram)
    found = [_by_size(offer, free) for offer in offers]
    return Survey(found, recommended(found, free), free)


def survey(
    file: GGUFFile,
    offers: Sequence[Offer],
    options: Options = USUAL,
    disk: Callable[[], Path] | None = None,
    progress: Progress | None = None,
) -> Survey:
    """How each file would run, without speeds unless there is a disk to measure.

    file: a header of the model; disk: makes a file, if experts are to be read. Raises UsageError,
    ContextOverflowError for options that it cannot have.
    """
    asked = _Surveyor(file, options)
    cases = [asked.case(offer) for offer in offers]
    found = [asked.prospect(offer, case) for offer, case in zip(offers, cases, strict=True)]
    if disk:
        likely = recommended(found, asked.free)
        asked.rehearse([case for case in cases if case], cases[likely[0]] if likely else None, disk, progress)
        found = [asked.prospect(offer, case) for offer, case in zip(offers, cases, strict=True)]
    return Survey(found, recommended(found, asked.free), asked.free)


def _by_size(offer: Offer, free: int) -> Prospect:
    mix = mix_of(offer.quant)
    if offer.quant and mix is None:
        return Prospect(offer.quant, offer.bytes, None, "cannot run")
    block = BLOCKS[mix.expert or mix.default] if mix else None
    bits = bits_of(offer.quant) or (8 * block.bytes / block.columns if block else None)
    return Prospect(
        offer.quant, offer.bytes, bits, "in memory" if glance.fits(offer.bytes or 0, free) else "larger than memory"
    )


def _is_usual(quant: str) -> bool:
    """Whether a name is that of a mix, so that its types are those that were guessed."""
    return plain(quant).upper().replace("-", "_") in MIXES


class _Surveyor:
    """One model on this machine."""

    def __init__(self, file: GGUFFile, options: Options) -> None:
        self._file, self._threads = file, options.threads or default_threads()
        self.free = glance.room(options.ram)
        self._base = glance.amounts(file, options.ctx, options.kv_type or "f16")
        self._weights = max(1, weights_in(file))
        self._header = min((tensor.offset for tensor in file.tensors.values()), default=0)
        self._runs = is_supported(str(file.metadata.get("general.architecture")))
        if self._runs:
            state_for(file, options.ctx, options.kv_type or "f16")
        self._measured: dict[str, _Measured | None] = {}  # by main type; None for one that cannot run
        self._disk_bytes_per_s: float | None = None
        self._last: Rehearsal | None = None

    def case(self, offer: Offer) -> _Case | None:
        """None for a file that cannot run."""
        types = own_types(self._file) if offer.own else types_under(self._file, offer.quant, offer.bytes)
        if types is None or not self._runs:
            return None
        experts, dense = (bytes_under(self._file, types, kind) for kind in (True, False))
        real = dense + experts if offer.own or not offer.bytes else max(1, offer.bytes - self._header)
        amounts = self._base.scaled(dense, experts, real)
        return _Case(offer, types, amounts, amounts.fit(self.free), self._main(types), real / max(1, dense + experts))

    def _main(self, types: Types) -> str:
        read: dict[str, float] = {}
        for tensor in self._file.tensors.values():
            kind, share = types[tensor.name], self._base.used if is_expert(tensor) else 1.0
            read[kind] = read.get(kind, 0.0) + share * bytes_of(tensor, kind)
        return max(read, key=lambda kind: read[kind], default="")

    def prospect(self, offer: Offer, case: _Case | None) -> Prospect:
        """What is known by now."""
        if case is None or self._measured.get(case.main, 0) is None:
            return Prospect(offer.quant, offer.bytes, 8 * (offer.bytes or 0) / self._weights or None, "cannot run")
        weights, measured = case.amounts.dense + case.amounts.experts, self._nearest(case)
        seconds = self._seconds(case, measured) if measured else None
        return Prospect(
            offer.quant,
            offer.bytes or weights,
            8 * weights / self._weights,
            case.fit,
            case.amounts.needed,
            case.amounts.in_memory(self.free),
            1 / seconds if seconds else None,
            case.fit != "in memory" or measured is None or measured.case is not case,
        )

    def _nearest(self, case: _Case) -> _Measured | None:
        """The rehearsal of the same type; where there was no time for it, of the one whose size is nearest."""
        done = [one for one in self._measured.values() if one]
        return self._measured.get(case.main) or min(
            done, key=lambda one: abs(one.case.amounts.per_token - case.amounts.per_token), default=None
        )

    def _seconds(self, case: _Case, measured: _Measured) -> float | None:
        """Of a token; a model that is streamed reads the rest of its experts from the disk, which hardly overlaps with sums."""
        seconds = measured.seconds * case.amounts.per_token / measured.case.amounts.per_token
        if case.fit == "in memory":
            return seconds
        if case.fit == "too large" or not self._disk_bytes_per_s:
            return None
        missing = 1 - case.amounts.in_memory(self.free)
        return seconds + missing * case.amounts.used * case.amounts.experts / self._disk_bytes_per_s

    def rehearse(
        self, cases: Sequence[_Case], likely: _Case | None, disk: Callable[[], Path], progress: Progress | None
    ) -> None:
        """Measure each main type once: first that of the file which is likely to be taken, then what is next to it."""
        centre = likely.amounts.per_token if likely else 0.0
        run = sorted(
            (case for case in cases if case.fit != "too large"), key=lambda case: abs(case.amounts.per_token - centre)
        )
        chosen: dict[str, _Case] = {likely.main: likely} if likely else {}
        for main in dict.fromkeys(case.main for case in run):
            alike = [case for case in run if case.main == main]
            chosen.setdefault(main, min(alike, key=lambda case: (not case.offer.own, not _is_usual(case.offer.quant))))
        reads = any(case.fit == "streamed" for case in run)
        ends = float("inf")
        for i, case in enumerate(chosen.values()):
            if perf_counter() > ends:
                break
            if progress:
                progress("trying each type", i / len(chosen))
            self._rehearse(case, disk if reads and not self._disk_bytes_per_s else None, progress)
            ends = min(ends, perf_counter() + SECONDS)

    def _rehearse(self, case: _Case, disk: Callable[[], Path] | None, progress: Progress | None) -> None:
        try:
            self._last = Rehearsal(retyped(self._file, case.types), self._threads, self._last)
            if disk:
                self._disk_bytes_per_s = self._last.disk_bytes_per_s(disk())
            self._measured[case.main] = _Measured(case, self._last.token_seconds(progress) * case.scale)
        except UnsupportedModelError:
            self._measured[case.main] = None
        except (QcliError, MemoryError, OSError):  # no memory for it now, say: the others' speeds tell enough
            pass
