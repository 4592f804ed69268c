"""qcli pull: a model from huggingface.co to this machine, checked, and resumed where it was broken off."""

from __future__ import annotations

import math
import shlex
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qcli import console
from qcli.commands import completion, options
from qcli.commands.examples import examples
from qcli.commands.pull_choice import chosen
from qcli.errors import ModelNotFoundError, QcliError, UsageError
from qcli.host.folders import expanded
from qcli.wording import shortened, size

if TYPE_CHECKING:
    from qcli.catalog.entry import Entry
    from qcli.hub.address import Address
    from qcli.hub.pull import Pulled

_LINE_EVERY = 30.0  # seconds between lines where no bar can be
_RATE_OVER = 5.0  # seconds
_LIST = "`qcli models` lists the names"
_GOES_ON = "what has arrived is kept: type the same command again to go on from there"
_OR_RM = "; `qcli rm {}` deletes it"


@examples(
    ("qcli pull qwen3-30b-a3b", "Downloads a model that `qcli models` lists."),
    (
        "qcli pull unsloth/Qwen3-30B-A3B-Instruct-2507-GGUF:Q4_K_M",
        "Downloads the version Q4_K_M of another model on huggingface.co.",
    ),
)
def pull(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A name that `qcli models` lists, or of huggingface.co owner/repo, owner/repo:Q4_K_M or an address.",
            autocompletion=completion.models,
        ),
    ],
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="FOLDER",
            help="Put the files there (default: where other programs find models from huggingface.co, too).",
        ),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Download a model from huggingface.co.

    If there are several versions, it lists how each would run here, and asks which one to get. The download is checked. If it
    is interrupted, type the same command again: it goes on from there. The variables HF_TOKEN, HF_HOME, HF_ENDPOINT and
    HTTPS_PROXY are respected.
    """
    entry, address = _meant(model)
    if address is None:
        console.out(f"{_here(entry, model)}\n")
        if not quiet:
            console.info(f"already here; {_next(model)}")
        return
    told = _Progress(quiet)
    try:
        pulled, means = _pulled(model, entry, address, None if to is None else expanded(to), told)
    except KeyboardInterrupt:
        if told.came:
            console.info(_GOES_ON + ("" if to else _OR_RM.format(shlex.quote(model))))
        raise
    console.out(f"{pulled.path}\n")
    if not quiet:
        from qcli.hub.pull import summary

        console.info(summary(pulled))
        problem = _problem(pulled.path)
        console.info(f"qcli cannot run it: {problem}" if problem else _next(str(pulled.path) if to else means))


def _problem(path: Path) -> str:
    """Why qcli cannot run a file, as far as its header tells; "" if it can."""
    from qcli.gguf.file import GGUFFile
    from qcli.gguf.kinds import require_model
    from qcli.gguf.summary import is_supported

    try:
        with GGUFFile.open(path) as file:
            require_model(file)
            architecture = str(file.metadata.get("general.architecture"))
            return "" if is_supported(architecture) else f"its architecture is {shortened(architecture)}"
    except QcliError as problem:
        return problem.message.removeprefix(f"{path}: ")


def _meant(model: str) -> tuple[Entry | None, Address | None]:
    """The entry of models.toml, and the address on the hub; no address for what is on this machine as it is."""
    from qcli.catalog.names import closest, named
    from qcli.catalog.resolve import resolve
    from qcli.host import folders
    from qcli.hub.address import parse

    try:
        if folders.expanded(model).is_file():
            return None, None
    except OSError:  # it is too long for a path, and for any name
        raise ModelNotFoundError(f"there is no model {shortened(model)!r}", _LIST) from None
    if entry := named(model):
        return entry, entry.address
    if address := parse(model):
        return None, address
    if resolve(model)[0].is_file():  # another tool has it
        return None, None
    hint = _LIST if model.lower().endswith(".gguf") else closest(model)
    raise ModelNotFoundError(f"there is no model {shortened(model)!r}", hint)


def _here(entry: Entry | None, model: str) -> Path:
    from qcli.catalog.resolve import resolve

    return resolve(entry.name if entry else model)[0]


def _pulled(model: str, entry: Entry | None, address: Address, to: Path | None, told: _Progress) -> tuple[Pulled, str]:
    """The model on this machine, and the words that mean it. Raises QcliError."""
    from qcli.hub import api
    from qcli.hub.pull import Pull, Pulled
    from qcli.hub.repo_files import choose

    with told:
        try:
            listing = api.list_files(address.repo, address.revision)
        except (ModelNotFoundError, UsageError):
            raise
        except QcliError as problem:
            if to is None and (local := _cached(address)):
                told.remark(f"the source was not asked: {problem.message}")
                return Pulled(local, local.stat().st_size, 0, ()), model
            raise
    open_ = not (address.quant or address.file)
    variant = chosen(listing) if open_ else choose(listing.files, address)
    told.files = [file.name for file in variant.files]
    with told:
        pulled = Pull.of(listing, variant, address, entry, folder=to, told=told.update, remark=told.remark).run()
    return pulled, f"{model}:{variant.quant or variant.name}" if open_ else model


def _cached(address: Address) -> Path | None:
    from qcli.local_models.hub import cached_model

    try:
        return cached_model(address)
    except UsageError:  # it could be one of several
        return None


def _next(means: str) -> str:
    return f"`qcli chat -m {shlex.quote(means)}` talks to it"


class _Progress:
    """A bar, or where none can be a line now and then."""

    def __init__(self, quiet: bool) -> None:
        self.came = False  # whether anything did
        self.files: list[str] = []
        self._quiet = quiet
        self._bar = console.status("asking", quiet)
        self._plain = not quiet and console.stderr_columns() == math.inf
        self._said = time.monotonic()
        self._stage = ""
        self._seen: deque[tuple[float, int]] = deque()

    def __enter__(self) -> None:
        self._bar.__enter__()

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def remark(self, text: str) -> None:
        """Tell something that is worth a line."""
        if not self._quiet:
            console.info(text)

    def update(self, stage: str, file: str, done: int, total: int) -> None:
        """Show how far a stage is, in bytes."""
        self.came |= done > 0
        if stage != self._stage:
            self._stage, waits = stage, "waiting" in stage
            self._seen.clear()
            if waits:
                self.remark(f"{file}: another download of it is under way: waiting")
        if not total:
            return
        amount = f"{size(done)} of {size(total)}, {size(self._rate(done))}/s"
        if len(self.files) > 1:
            amount += f", part {self.files.index(file) + 1} of {len(self.files)}"
        self._bar.update(stage, done / total, amount)
        now = time.monotonic()
        if self._plain and now - self._said >= _LINE_EVERY:
            self._said = now
            console.info(f"{stage} {amount}")

    def _rate(self, done: int) -> float:
        """Bytes a second over the last few seconds."""
        now = time.monotonic()
        self._seen.append((now, done))
        while now - self._seen[0][0] > _RATE_OVER and len(self._seen) > 2:
            self._seen.popleft()
        (then, before), seconds = self._seen[0], now - self._seen[0][0]
        return (done - before) / seconds if seconds and then else 0.0
