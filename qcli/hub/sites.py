"""Where a server is, and the way there: past the proxies that the environment names, with certificates that are trusted."""

from __future__ import annotations

import base64
import http.client
import ssl
from functools import cache
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from qcli.errors import QcliError
from qcli.wording import shortened


class Site(NamedTuple):
    """Where a server is."""

    scheme: str
    host: str
    port: int


def site_of(url: str) -> Site:
    """The server of an address. Raises QcliError for one that is no http(s) address."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise QcliError(f"{shortened(url)!r}: is no address to fetch from", "check HF_ENDPOINT")
    return Site(parts.scheme, parts.hostname.lower(), port)


def shown(url: str) -> str:
    """An address for a message: without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{unquote(parts.path)}"


def connection_to(site: Site, timeout: float) -> http.client.HTTPConnection:
    """A connection, not open yet, that has `timeout` seconds for each step. Raises QcliError."""
    proxy = _proxy(site)
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"
    if proxy and urlsplit(proxy).scheme not in ("http", "https"):
        raise QcliError(f"the proxy {shown(proxy)} is of a kind that qcli cannot use", "name an http:// proxy")
    there = site_of(proxy) if proxy else site
    if (there if proxy and site.scheme == "http" else site).scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            there.host, there.port, timeout=timeout, context=_context()
        )
    else:
        connection = http.client.HTTPConnection(there.host, there.port, timeout=timeout)
    if proxy and site.scheme == "https":
        connection.set_tunnel(site.host, site.port, _credentials(proxy))
    return connection


def proxied(site: Site) -> dict[str, str] | None:
    """The headers for the proxy on the way to a site without encryption, who is asked by full addresses; None without one."""
    proxy = _proxy(site) if site.scheme == "http" else None
    return _credentials(proxy) if proxy else None


@cache
def _context() -> ssl.SSLContext:
    from httpx2 import create_ssl_context

    return create_ssl_context()


def _proxy(site: Site) -> str | None:
    proxies = getproxies()
    found = proxies.get(site.scheme) or proxies.get("all")
    return found if found and not proxy_bypass(f"{site.host}:{site.port}") else None


def _credentials(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    known = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(known.encode()).decode()}"}
