"""What huggingface.co, or the mirror that HF_ENDPOINT names, tells of a repository and of its files.

Nothing of it is trusted: lengths and counts are bounded, and a name is believed only where `is_safe` holds.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from typing import Any, Final, TypeVar
from urllib.parse import quote

from qcli import __version__
from qcli.errors import ModelNotFoundError, QcliError, UsageError
from qcli.hub.address import HUB
from qcli.hub.connection import Answer, Client, RefusedError, patiently
from qcli.hub.repo_files import MAX_BYTES, RepoFile
from qcli.hub.sites import shown
from qcli.wording import shortened

MAX_FILES: Final = 20_000
_MAX_LIST = 16 << 20  # bytes; a list of 20,000 files takes 8 MB
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LOGIN = "`hf auth login`, or HF_TOKEN, tells the site who you are; its page in a browser says whether it asks for more"
_NAME_OR_LOGIN = "check its name; if it is private, `hf auth login`, or HF_TOKEN, tells the site who you are"
T = TypeVar("T")


@dataclass(frozen=True)
class Listing:
    """A repository as it is at one commit."""

    repo: str  # as the hub spells it
    commit: str
    files: tuple[RepoFile, ...]


@dataclass(frozen=True)
class Source:
    """One file as the hub has it: where to fetch it, and what it has to be."""

    url: str  # at its commit
    location: str  # where it is read, if that is another site; such an address holds for an hour or so
    bytes: int
    etag: str  # "" if none is told
    sha256: str | None
    commit: str | None


def is_offline() -> bool:
    """Whether the environment forbids to ask the hub."""
    return _is_set("HF_HUB_OFFLINE") or _is_set("TRANSFORMERS_OFFLINE")


def endpoint() -> str:
    """The hub's address. Raises QcliError if it may not be asked, UsageError for one that is none."""
    if is_offline():
        raise QcliError("HF_HUB_OFFLINE is set: no server is asked", "unset it, or give the path of a .gguf file")
    given = os.environ.get("HF_ENDPOINT") or HUB
    if not given.startswith(("https://", "http://")):
        raise UsageError(f"HF_ENDPOINT is {given!r}", "give it an address that begins with https://, or leave it out")
    return given.rstrip("/")


def client() -> Client:
    """A connection to the hub, which tells it the user's token, if there is one. Raises QcliError, UsageError.

    The headers are not huggingface_hub's: to make them it asks the hub for a list, and reads whatever comes.
    """
    headers = {"User-Agent": f"qcli/{__version__}"}
    if token := _token():
        headers["Authorization"] = f"Bearer {token}"
    return Client(endpoint(), headers)


def _token() -> str | None:
    """The one that huggingface_hub would send. Raises UsageError for one that cannot be sent."""
    if _is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        return None
    from huggingface_hub import get_token

    token = get_token()
    if token and not (token.isascii() and token.isprintable()):
        raise UsageError(
            "the token (HF_TOKEN, or that of `hf auth login`) holds characters that none has", "copy it anew"
        )
    return token


def list_files(repo: str, revision: str | None = None) -> Listing:
    """The files of a repository, sizes and checksums with them.

    Raises ModelNotFoundError if there is none such, or none that one may see; QcliError.
    """
    at = f"/revision/{quote(revision, safe='')}" if revision else "/revision/main"
    url = f"{endpoint()}/api/models/{quote(repo)}{at}?blobs=true"
    told = _asked(lambda hub: json.loads(hub.ask(url).read(_MAX_LIST)), repo, revision)
    found = told if isinstance(told, dict) else {}
    listed, commit = found.get("siblings"), found.get("sha")
    if not isinstance(listed, list) or not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise _no_hub(url)
    if len(listed) > MAX_FILES:
        raise QcliError(f"{repo}: lists {len(listed):,} files, more than a model has", "take another repository")
    spelled = str(found.get("id"))
    return Listing(
        spelled if spelled.lower() == repo.lower() else repo,
        commit,
        tuple(_file(one) for one in listed if _has_name(one)),
    )


def source_of(repo: str, file: str, revision: str | None = None) -> Source:
    """Where to fetch a file, its length and checksum. Raises ModelNotFoundError, QcliError."""
    base = f"{endpoint()}/{quote(repo)}/resolve"
    url = f"{base}/{quote(revision or 'main', safe='')}/{quote(file)}"

    def head(hub: Client) -> Answer:
        answer = hub.ask(url, "HEAD", stay=True)
        answer.finish()
        return answer

    answer = _asked(head, f"{repo}:{file}", revision)
    told, there = answer.headers, answer.redirect
    size = told.get("X-Linked-Size") or ("" if there else told.get("Content-Length")) or ""
    if not size.isdigit() or not 0 < int(size[:20]) <= MAX_BYTES:
        said = f"says that it has {size[:20]} bytes" if size else "does not tell how long it is"
        raise QcliError(f"{shown(url)}: the server {said}", "take another file or server")
    linked, commit = _unquoted(told.get("X-Linked-Etag")), told.get("X-Repo-Commit", "")
    commit = commit if _COMMIT.fullmatch(commit) else ""
    return Source(
        url=f"{base}/{commit}/{quote(file)}" if commit else url,
        location=there or "",
        bytes=int(size),
        etag=etag_of(told),
        sha256=linked if _SHA256.fullmatch(linked) else None,
        commit=commit or None,
    )


def refused(what: str, problem: RefusedError, revision: str | None = None) -> QcliError:
    """What to tell where the server does not give what was asked for."""
    if problem.reason == "GatedRepo":
        return ModelNotFoundError(f"{what}: its owner asks you to log in before you download it", _LOGIN)
    if problem.status in (401, 403):  # the hub says so of repositories that do not exist, too
        return ModelNotFoundError(f"{what}: there is no such repository, or it asks for a login", _NAME_OR_LOGIN)
    if problem.status in (404, 410):
        at = f" at revision {shortened(revision)}" if revision else ""
        return ModelNotFoundError(f"{what}: is not there{at}", "check the names of the repository and of the file")
    return QcliError(f"{shown(problem.url)}: the server answers {problem.status}", "try again later")


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE")


def _asked(question: Callable[[Client], T], what: str, revision: str | None) -> T:
    hub = client()
    try:
        return patiently(lambda: question(hub), what, hub)
    except RefusedError as problem:
        raise refused(what, problem, revision) from None
    except (ValueError, RecursionError):  # no JSON
        raise _no_hub(endpoint()) from None
    finally:
        hub.close()


def _no_hub(url: str) -> QcliError:
    return QcliError(f"{shown(url)}: does not answer as huggingface.co would", "check HF_ENDPOINT and the proxy")


def etag_of(headers: Message) -> str:
    """What tells this content from another, without the marks around it; "" if nothing does."""
    return _unquoted(headers.get("X-Linked-Etag")) or _unquoted(headers.get("ETag"))


def _unquoted(told: str | None) -> str:
    return (told or "").strip().removeprefix("W/").strip('"')


def _has_name(one: Any) -> bool:
    return isinstance(one, dict) and isinstance(one.get("rfilename"), str)


def _file(one: dict[str, Any]) -> RepoFile:
    lfs = one["lfs"] if isinstance(one.get("lfs"), dict) else {}
    size, sha256 = one.get("size", lfs.get("size")), lfs.get("sha256")
    known = type(size) is int
    return RepoFile(
        one["rfilename"],
        size if known else None,
        sha256 if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else None,
    )
