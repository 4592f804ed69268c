"""How the models of a repository on huggingface.co would run here, told from its list of files and the header of one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from qcli.errors import ContextOverflowError, QcliError, UsageError
from qcli.forecast.prospect import USUAL, Offer, Options
from qcli.forecast.retyped import mix_of
from qcli.forecast.survey import Survey, by_size, survey
from qcli.gguf.file import GGUFFile
from qcli.gguf.header import printable
from qcli.gguf.summary import is_supported
from qcli.hub.api import Listing
from qcli.hub.headers import header_in, scratch
from qcli.hub.repo_files import Variant, default
from qcli.progress import Progress

_MOST: Final = 200  # models


def survey_repository(
    listing: Listing,
    found: Sequence[Variant],
    options: Options = USUAL,
    speeds: bool = True,
    progress: Progress | None = None,
) -> tuple[Survey, str]:
    """The models in the order of `found`, and why no more is told of them, if there is a reason.

    speeds: whether to measure, which takes seconds. Raises UsageError, ContextOverflowError for options that no file can have;
    UsageError for more models than anybody looks through.
    """
    if len(found) > _MOST:
        hint = f"name one, as in {listing.repo}:{found[0].label}"
        raise UsageError(f"{listing.repo}: has {len(found):,} models, too many to compare", hint)
    own = _to_ask_for(found)
    offers = [Offer(one.quant, one.bytes, one is own) for one in found]
    try:
        with header_in(listing, own, progress) as path, GGUFFile.open(path) as file:
            disk = partial(scratch, path.parent) if speeds else None
            try:
                return survey(file, offers, options, disk, progress), _not_supported(file)
            except ContextOverflowError as problem:
                raise type(problem)(problem.message.replace(str(path), listing.repo), problem.hints) from None
    except (UsageError, ContextOverflowError):
        raise
    except QcliError as problem:
        return by_size([Offer(one.quant, one.bytes) for one in found], options), problem.message


def _to_ask_for(found: Sequence[Variant]) -> Variant:
    """The model whose header to fetch: the usual one, or what runs and is in few files."""
    runs = [one for one in found if mix_of(one.quant)] or list(found)
    usual = default(runs)
    return min(runs, key=lambda one: (one not in usual[:1], len(one.files)))


def _not_supported(file: GGUFFile) -> str:
    architecture = str(file.metadata.get("general.architecture"))
    return "" if is_supported(architecture) else f"qcli has no {printable(architecture)} models yet"
