"""What a person types for a model of huggingface.co: a repository, one quantization in it or one file, a revision.

owner/name, owner/name:Q4_K_M, owner/name:file.gguf, owner/name/folder/file.gguf, each with hf: or hf.co/ before it or an
@revision after the name, and the addresses that a browser shows there, or at the mirror that HF_ENDPOINT names.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote, urlsplit

from qcli.errors import UsageError
from qcli.wording import shortened

HUB = "https://huggingface.co"
_HOSTS = ("huggingface.co", "hf.co")
_OWNER = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_PLAIN = re.compile(
    rf"(?P<repo>{_OWNER}/{_OWNER})(?:@(?P<revision>[^:/@\s]+))?(?:(?P<by>[:/])(?P<rest>[^\x00-\x1f]*))?", re.ASCII
)
_SCHEME = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+):(?P<slashes>/*)(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_QUANT = re.compile(r"[\w.+-]+", re.ASCII)
_PAGES = ("resolve", "blob", "tree", "raw")  # what stands between a repository and a revision
_OTHER_KINDS = ("datasets", "spaces", "buckets", "api")  # what stands in place of an owner
_MOST = 96  # characters of a repository's name, as the hub has it
_LONG = 255  # bytes of a file's or a folder's name, as disks have it
_NO_NAME = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]|^/|(?:^|/)\.{0,2}(?:/|$)|[ .](?:/|$)')
_DEVICE = re.compile(r"(?:^|/)(?:con|prn|aux|nul|com\d|lpt\d)(?:\.[^/]*)?(?:/|$)", re.IGNORECASE)
_AS_IN = "an address is owner/name:QUANT, owner/name:file.gguf, or as a browser shows it for a file of huggingface.co"


@dataclass(frozen=True)
class Address:
    """A repository (owner/name), and what of it is meant: a quantization, a file's path in it, or neither."""

    repo: str
    quant: str | None = None
    file: str | None = None
    revision: str | None = None  # a branch, a tag or a commit; None for the newest

    def __str__(self) -> str:
        """As it can be typed."""
        at = f"@{quote(self.revision, safe='')}" if self.revision else ""
        wanted = self.file or self.quant
        return f"{self.repo}{at}:{wanted}" if wanted else f"{self.repo}{at}"


def parse(text: str) -> Address | None:
    """The address that a text is; None for one that is none, such as a name or a path.

    Whether a path of this name exists is not looked at: if one does, it is meant. Raises UsageError for an address of
    another site, and for one of huggingface.co that names no model.
    """
    text = text.strip()
    found = _SCHEME.fullmatch(text)
    scheme = found["scheme"].lower() if found else ""
    if found and scheme == "hf":
        return _below_hub(found["rest"], text)
    if found and found["slashes"]:
        if scheme in ("http", "https") and (rest := _after_host(found["rest"])) is not None:
            return _below_hub(rest, text)
        raise UsageError(
            f"{shortened(text)}: is not an address on huggingface.co", "download it, and give the file's path"
        )
    if (rest := _after_host(text)) is not None:
        return _below_hub(rest, text)
    return _plain(text)


def is_safe(name: str) -> bool:
    """Whether a file's name in a repository, folders and all, can be one below a folder of any system, and no other."""
    return (
        not (_NO_NAME.search(name) or _DEVICE.search(name))
        and name.isprintable()
        and all(len(part.encode()) <= _LONG for part in name.split("/"))
    )


def _after_host(text: str) -> str | None:
    """What follows huggingface.co/ or the mirror of HF_ENDPOINT; None for another site."""
    lower = text.lower().removeprefix("www.")
    mirror = re.sub(r"^https?:/+", "", os.environ.get("HF_ENDPOINT", "").lower()).rstrip("/")
    for host in (mirror, *_HOSTS) if mirror else _HOSTS:
        if lower == host or lower.startswith((f"{host}/", f"{host}?")):
            return text[len(text) - len(lower) + len(host) :].lstrip("/")
    return None


def _below_hub(path: str, text: str) -> Address:
    """The address after the site's name. Raises UsageError if it names no model."""
    parts = urlsplit("//x/" + path.lstrip("/"))
    owner, _, rest = parts.path.strip("/").partition("/")
    if owner == "models":  # hf://models/owner/name
        owner, _, rest = rest.partition("/")
    pieces = rest.split("/")
    if owner.lower() in _OTHER_KINDS:
        raise _no_model(text)
    if len(pieces) > 2 and pieces[1] in _PAGES:
        found = _page(f"{owner}/{pieces[0]}", pieces[1:], text)
    else:
        found = _plain(unquote(f"{owner}/{rest}"), strict=True)
    if found is None:
        raise _no_model(text)
    shown = parse_qs(parts.query).get("show_file_info")  # a file's card, over the page of its repository
    if shown and found.file is None:
        return Address(found.repo, None, _checked_file(shown[0], text), found.revision)
    return found


def _page(repo: str, pieces: list[str], text: str) -> Address | None:
    """The address of a file's or a folder's page: pieces are "blob", the revision, and the path."""
    count = 3 if pieces[1] == "refs" and len(pieces) > 3 else 1  # refs/pr/7
    revision, path = unquote("/".join(pieces[1 : 1 + count])), unquote("/".join(pieces[1 + count :]))
    found = _plain(repo, strict=True)
    if found is None or not is_safe(revision):
        return None
    given = None if revision == "main" else revision
    if path.lower().endswith(".gguf"):
        return Address(found.repo, None, _checked_file(path, text), given)
    folder = path.strip("/").rpartition("/")[2]
    if folder and not (pieces[0] == "tree" and _QUANT.fullmatch(folder)):
        return None
    return Address(found.repo, folder or None, None, given)


def _plain(text: str, strict: bool = False) -> Address | None:
    """owner/name with what may follow; None if it is none, or (unless strict) rather a path."""
    found = _PLAIN.fullmatch(text)
    if found is None or not all(_is_repo_name(name) for name in found["repo"].split("/")):
        return None
    repo, revision, rest = found["repo"], unquote(found["revision"] or "") or None, (found["rest"] or "").strip("/")
    if len(repo) > _MOST or (revision is not None and not is_safe(revision)):
        return None
    if rest.lower().endswith(".gguf"):
        if found["by"] == "/" and not strict and not is_safe(rest):
            return None
        return Address(repo, None, _checked_file(rest, text), revision)
    if not rest:
        return Address(repo, None, None, revision) if strict or not repo.lower().endswith(".gguf") else None
    if found["by"] == "/" or not _QUANT.fullmatch(rest):
        return None
    return Address(repo, None if rest.lower() == "latest" else rest, None, revision)


def _is_repo_name(name: str) -> bool:
    return "--" not in name and ".." not in name and not name.endswith(".git")


def _checked_file(name: str, text: str) -> str:
    name = name.strip("/")
    if not is_safe(name):
        raise _no_model(text)
    return name


def _no_model(text: str) -> UsageError:
    return UsageError(f"{shortened(text)!r}: names no model on huggingface.co", _AS_IN)
