"""The models in a repository's list of files: which files make one up, and which one a person means.

The list comes from a server and is not trusted: a file whose name could lead out of a folder, or whose size cannot be true,
is no part of any model.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from qcli.errors import ModelNotFoundError, QcliError, UsageError
from qcli.gguf.names import MAX_PARTS, stem_of
from qcli.hub.address import Address, is_safe
from qcli.hub.quant_names import bits_of, is_model_file, plain, quant_of, type_of
from qcli.wording import counted, shortened

MAX_BYTES: Final = 1 << 42  # of one file; no known model comes near
_MOST_FILES = 10_000  # that are models, or parts; a large repository has hundreds
_MOST_TOLD = 12  # names in a message
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
_JOINED = re.compile(r"\.gguf(?:[-.](?:split|part)[-.]?\w+|\.[a-z])$|-chunk-\d+-of-\d+\.gguf$", re.IGNORECASE)
# what to take where nothing tells more: the best that a machine for the size of 4 bits can do, then what comes near
_ORDER: Final = (
    *("q4-k-m", "q4-k-xl", "mxfp4-moe", "mxfp4", "q4-k-l", "iq4-nl", "iq4-xs", "q4-k-s", "q4-k", "q4-0", "q4-1"),
    *("q5-k-m", "q5-k-xl", "q5-k-s", "q5-0", "q6-k", "q3-k-xl", "q3-k-l", "q3-k-m", "iq3-m", "iq3-s", "q8-0", "q3-k-s"),
    *("iq3-xs", "iq3-xxs", "q2-k-xl", "q2-k", "iq2-m", "bf16", "f16", "f32"),
)


@dataclass(frozen=True)
class RepoFile:
    """A file as its repository lists it: its name with folders, bytes, and SHA-256 in hex, where they are told."""

    name: str
    bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Variant:
    """A model as one of a repository's quantizations: all its files, in order."""

    quant: str  # as it is published, as in UD-Q4_K_XL; "" where no name tells it
    files: tuple[RepoFile, ...]

    @property
    def name(self) -> str:
        """The name of the first file, by which the model is opened."""
        return self.files[0].name

    @property
    def label(self) -> str:
        """The quantization, or the file's name where that tells none."""
        return self.quant or stem_of(self.name)

    @property
    def bytes(self) -> int | None:
        """All files together; None where the size of one is not told."""
        sizes = [file.bytes for file in self.files if file.bytes is not None]
        return sum(sizes) if len(sizes) == len(self.files) else None

    @property
    def bits_per_weight(self) -> float | None:
        """Where the name tells it."""
        return bits_of(self.quant)


@dataclass(frozen=True)
class _Listed:
    """What a list of files holds: models, split ones that lack files, and names that are passed over."""

    whole: list[Variant]
    broken: list[tuple[Variant, int]]  # a model with the files that there are, and how many there should be
    odd: int  # names and sizes that cannot be true


def variants(files: Iterable[RepoFile]) -> list[Variant]:
    """The models that are there with all their files, the smallest first; one published both whole and split once.

    Raises QcliError for a list that is too long.
    """
    return _once(_listed(files).whole)


def default(found: Sequence[Variant]) -> list[Variant]:
    """What to take where nothing tells more: one model, or those between which only a person can choose."""
    ranks = {kind: rank for rank, kind in enumerate(_ORDER)}
    best = min((ranks.get(type_of(one.quant), len(ranks)) for one in found), default=0)
    first = [one for one in found if ranks.get(type_of(one.quant), len(ranks)) == best]
    return [one for one in first if plain(one.quant) == type_of(one.quant)] or first


def choose(files: Iterable[RepoFile], address: Address) -> Variant:
    """The model that an address means; of an address without a quantization or a file, the one that `default` tells.

    Raises ModelNotFoundError if there is none such, or not all of it; UsageError if it could be one of several;
    QcliError for a list that is too long.
    """
    files = list(files)
    listed = _listed(files)
    if not (listed.whole or listed.broken):
        raise _none_at_all(files, listed, address)
    if address.file:
        found = _by_file(listed.whole, address.file)
    elif address.quant:
        found = _by_quant(_once(listed.whole), address.quant)
    else:
        found = default(_once(listed.whole))
    if not found:
        raise _not_there(files, listed, address)
    found = _plainest(found)
    if len(found) > 1:
        quants = {one.quant for one in found} - {""}
        named = [one.quant if len(quants) == len(found) else one.name for one in found]
        raise UsageError(f"{address}: could be {_told(named)}", f"name one, as in {address.repo}:{named[0]}")
    return found[0]


def meant(files: Iterable[RepoFile], address: Address) -> list[RepoFile]:
    """The files that an address means, each by itself, whether or not they are a whole model; all where it names none."""
    each = [Variant(quant_of(file.name), (file,)) for file in files]
    if address.file:
        each = _by_file(each, address.file)
    elif address.quant:
        each = _by_quant(each, address.quant)
    return [one.files[0] for one in each]


def _listed(files: Iterable[RepoFile]) -> _Listed:
    sets: dict[tuple[str, int], dict[int, RepoFile]] = defaultdict(dict)
    odd = seen = 0
    for file in files:
        if not is_model_file(file.name):
            continue
        if (seen := seen + 1) > _MOST_FILES:
            raise QcliError(f"more than {_MOST_FILES:,} model files in one repository are too many", "take another one")
        if not is_safe(file.name) or not 0 <= (file.bytes or 0) <= MAX_BYTES:
            odd += 1
            continue
        found = _PART.search(file.name)
        part, count = (int(found[1]), int(found[2])) if found else (1, 1)
        if 1 <= part <= count <= MAX_PARTS:
            sets[file.name[: found.start()] if found else file.name, count if found else 0].setdefault(part, file)
        else:
            odd += 1
    whole, broken = [], []
    for (_, count), parts in sets.items():
        made = Variant(quant_of(parts[min(parts)].name), tuple(parts[part] for part in sorted(parts)))
        if len(parts) == max(1, count):
            whole.append(made)
        else:
            broken.append((made, count))
    return _Listed(sorted(whole, key=lambda one: (one.bytes or 0, one.name)), broken, odd)


def _once(found: list[Variant]) -> list[Variant]:
    """Without those that are there in fewer files, or nearer to the top, too."""
    best: dict[tuple[str, ...], Variant] = {}
    for one in found:
        *folders, file = one.name.lower().split("/")
        key = (*(folder for folder in folders if quant_of(folder) != folder), stem_of(file), one.quant.lower())
        if key not in best or _scattered(one) < _scattered(best[key]):
            best[key] = one
    kept = {id(one) for one in best.values()}
    return [one for one in found if id(one) in kept]


def _scattered(one: Variant) -> tuple[int, int]:
    return len(one.files), one.name.count("/")


def _plainest(found: list[Variant]) -> list[Variant]:
    """The one whose name has no word that not all the others have too, if there is one: Model-Q4_0, not Model-MTP-Q4_0."""
    words = [set(plain(stem_of(one.name)).split("-")) for one in found]
    shared = set.intersection(*words) if words else set()
    plainest = [one for one, its in zip(found, words, strict=True) if its == shared]
    return plainest if len(plainest) == 1 else found


def _by_file(found: list[Variant], wanted: str) -> list[Variant]:
    """The models that have a file of this name; failing that in any case, in any folder, or with parts."""
    ways: tuple[Callable[[str], bool], ...] = (
        lambda name: name == wanted,
        lambda name: name.lower() == wanted.lower(),
        lambda name: name.lower().endswith("/" + wanted.lower()),
        lambda name: stem_of(name.lower()) == stem_of(wanted.lower()),
        lambda name: plain(stem_of("/" + name)).endswith("-" + plain(stem_of(wanted))),
    )
    for is_meant in ways:
        if meant := [one for one in found if any(is_meant(file.name) for file in one.files)]:
            return meant
    return []


def _by_quant(found: list[Variant], wanted: str) -> list[Variant]:
    """The models of this quantization; failing that of one whose name tells more, or with these words in the file's."""
    asked = plain(wanted)
    ways: tuple[Callable[[Variant], bool], ...] = (
        lambda one: plain(one.quant) == asked,
        lambda one: type_of(one.quant) == asked,
        lambda one: plain(one.quant).endswith("-" + asked) or f"-{type_of(one.quant)}-".startswith(f"-{asked}-"),
        lambda one: f"-{plain(stem_of(one.name))}".endswith("-" + asked),
        lambda one: f"-{asked}-" in f"-{plain(stem_of(one.name))}-",
    )
    for is_meant in ways:
        if meant := [one for one in found if is_meant(one)]:
            return meant
    return []


def _not_there(files: list[RepoFile], listed: _Listed, address: Address) -> ModelNotFoundError:
    """Why a model was not found: files of it are missing, it is in parts to be joined, or it is called otherwise."""
    wanted = address.file or address.quant or ""
    halves = [one for one, _ in listed.broken]
    half = (_by_file if address.file else _by_quant)(halves, wanted) if wanted else halves
    counts = {id(one): count for one, count in listed.broken}
    if half:
        count = counts[id(half[0])]
        missing = counted(count - len(half[0].files), "file")
        said = f"{address}: {missing} of {count} of {half[0].label} {'is' if missing[:2] == '1 ' else 'are'} not there"
        return ModelNotFoundError(said, _others(listed.whole))
    if wanted and any(_JOINED.search(file.name) and plain(stem_of(wanted)) in plain(file.name) for file in files):
        said = f"{address}: is there in an old kind of parts, which qcli does not read"
        return ModelNotFoundError(said, "download them, put them together in order, and give the file's path")
    kind = "has no file" if address.file else "has no"
    return ModelNotFoundError(f"{address.repo} {kind} {shortened(wanted)}", _others(listed.whole, wanted))


def _others(whole: list[Variant], wanted: str = "") -> str:
    labels = [one.label for one in _once(whole)]
    if len(labels) > _MOST_TOLD and wanted:
        near = {label.lower(): label for label in labels[:1000]}
        close = get_close_matches(wanted.lower(), near, n=3, cutoff=0.5)
        labels = [near[label] for label in close] + [label for label in labels if label.lower() not in close]
    return (
        f"there {'is' if len(labels) == 1 else 'are'} {_told(labels)}" if labels else "no model there has all its files"
    )


def _told(names: list[str]) -> str:
    """Names for a message: some of many."""
    shown = [shortened(name) for name in names[:_MOST_TOLD]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def _none_at_all(files: list[RepoFile], listed: _Listed, address: Address) -> ModelNotFoundError:
    if listed.odd:
        said = (
            f"{address.repo}: its list of files cannot be true: {counted(listed.odd, 'name or size', 'names or sizes')}"
        )
        return ModelNotFoundError(
            f"{said} as no file has them", "look at it with a browser, or take another repository"
        )
    told = " of its files" if files else ""
    hint = "people publish them in repositories whose names end in -GGUF"
    if any(_JOINED.search(file.name) for file in files):
        hint = "its files are in an old kind of parts: download them, put them together, and give the file's path"
    elif any(file.name[-5:].lower() == ".gguf" for file in files):
        hint = "those with mmproj, imatrix, mtp or draft in their names are no models by themselves"
    return ModelNotFoundError(f"{address.repo}: none{told} is a model as a .gguf file", hint)
