"""A connection to a server of files: by the proxies that the environment names, kept open between requests, bounded in all.

http.client rather than the client of huggingface_hub: it reads into memory that is there, and is 1.5 times as quick.
Certificates are those that huggingface_hub trusts.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import quote, urljoin, urlsplit

from qcli.errors import QcliError
from qcli.hub.sites import Site, connection_to, proxied, shown, site_of
from qcli.wording import counted

LONGEST_WAIT = 120  # seconds that a server may ask to wait
TRIES = 6  # of a lane that fetches
_QUESTIONS = 4  # tries of a question, for whose answer a person waits
_TIMEOUT = 30.0  # seconds without a byte
_REDIRECTS = 5
_FIRST_PAUSE = 1.0  # seconds; each further one takes twice as long
_LONGEST_PAUSE = 30.0
_SMALL = 1 << 16  # bytes of an answer that are read to keep its connection
_NOT_QUOTED = "%/:=&?~#+!$,;'@()*[]"
T = TypeVar("T")


class TransientError(Exception):
    """What may be over the next time: the connection broke, the server is busy."""

    def __init__(self, said: str, wait: float = 0.0) -> None:
        super().__init__(said)
        self.said = said
        self.wait = wait  # seconds, as the server asks


class RefusedError(Exception):
    """What the server answers in place of what was asked for, and would the next time."""

    def __init__(self, url: str, status: int, reason: str = "") -> None:
        super().__init__(url, status)
        self.url, self.status, self.reason = url, status, reason


class Answer:
    """What a server answers: status and headers, and a body to read."""

    def __init__(self, url: str, response: http.client.HTTPResponse, close: Callable[[], None]) -> None:
        self.url = url
        self.status = response.status
        self.headers = response.headers
        self._response = response
        self._close = close

    @property
    def redirect(self) -> str | None:
        """The address that is given in place of this one."""
        there = self.headers.get("Location")
        if not there or self.status not in (301, 302, 303, 307, 308):
            return None
        try:
            return urljoin(self.url, there)
        except ValueError:
            return there  # `site_of` refuses it

    def readinto(self, room: memoryview) -> int:
        """Fill some of the room, and return how many bytes; 0 at the end. Raises TransientError."""
        try:
            return self._response.readinto(room)
        except (
            OSError,
            ValueError,
            AttributeError,
            http.client.HTTPException,
        ) as problem:  # those of a closed one, too
            raise _trouble(problem) from None

    def read(self, most: int) -> bytes:
        """The whole body. Raises QcliError if there are more bytes than that, TransientError if it is cut."""
        body, room = bytearray(), memoryview(bytearray(1 << 16))
        while n := self.readinto(room):
            body += room[:n]
            if len(body) > most:
                raise QcliError(f"{shown(self.url)}: the answer has no end", "try again later")
        told = self.headers.get("Content-Length", "")
        if told.isdigit() and int(told) != len(body):
            raise TransientError("the answer was cut")
        return bytes(body)

    def finish(self) -> None:
        """Done with it: the connection is kept if the body is at its end, or nearly."""
        rest = self._response.length
        if self._response.isclosed() or (rest is not None and rest <= _SMALL):
            with suppress(OSError, http.client.HTTPException):
                self._response.read()
                return
        self._close()


class Client:
    """One connection, for one thread.

    headers: sent with every request, those that tell who one is to the site of `home` alone.
    """

    def __init__(self, home: str, headers: Mapping[str, str], timeout: float = _TIMEOUT) -> None:
        self._home = site_of(home)
        self._headers = {name.lower(): value for name, value in headers.items()}
        self._timeout = timeout
        self._site: Site | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._response: http.client.HTTPResponse | None = None
        self._socket: socket.socket | None = None
        self._closed = False

    def is_home(self, url: str) -> bool:
        """Whether an address is on the site that the token is for."""
        return site_of(url) == self._home

    def ask(
        self, url: str, method: str = "GET", headers: Mapping[str, str] | None = None, stay: bool = False
    ) -> Answer:
        """The answer to a request, after redirects; with `stay` those to other sites are not followed, but returned.

        Raises TransientError, RefusedError; QcliError for redirects without end, or to what is no address.
        """
        for _ in range(_REDIRECTS + 1):
            answer = self._ask(url, method, headers or {})
            there = answer.redirect
            if there is None:
                return answer
            if site_of(url).scheme == "https" and site_of(there).scheme != "https":
                raise QcliError(f"{shown(url)}: leads to an address that is not encrypted (https)", "try again later")
            if stay and site_of(there) != site_of(url):
                return answer
            answer.finish()
            url = there
        raise QcliError(f"{shown(url)}: is redirected from one address to the next, without an end", "try again later")

    def interrupt(self, for_good: bool = True) -> None:
        """End what is being read, from any thread: its reader gets TransientError."""
        self._closed |= for_good
        if (there := self._socket) is not None:
            with suppress(OSError, ValueError):
                there.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; a further request opens another, unless it was interrupted for good."""
        self.interrupt(for_good=False)
        for opened in (self._response, self._connection):
            if opened is not None:
                with suppress(OSError, http.client.HTTPException):
                    opened.close()
        self._response = self._connection = self._site = self._socket = None

    def _ask(self, url: str, method: str, headers: Mapping[str, str]) -> Answer:
        site = site_of(url)
        sent = {name: value for name, value in self._headers.items() if site == self._home or name != "authorization"}
        sent |= {"accept-encoding": "identity"} | dict(headers)
        kept = self._site == site and self._connection is not None
        try:
            try:
                response = self._sent(site, url, method, sent)
            except (OSError, http.client.HTTPException):
                if not kept or self._closed:
                    raise
                self.close()  # the server had closed a connection that was kept
                response = self._sent(site, url, method, sent)
        except (OSError, ValueError, AttributeError, http.client.HTTPException) as problem:
            self.close()
            raise _trouble(problem) from None
        answer = Answer(url, response, self.close)
        if answer.status < 400:
            return answer
        wait, reason = _wait(answer), answer.headers.get("X-Error-Code", "")
        answer.finish()
        if answer.status in (408, 425, 429) or answer.status >= 500:
            raise TransientError(f"the server answers {answer.status}", wait)
        raise RefusedError(url, answer.status, reason)

    def _sent(self, site: Site, url: str, method: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        if self._closed:
            raise OSError("was closed")
        if self._site != site or self._connection is None:
            self.close()
            self._connection = connection_to(site, self._timeout)
            self._site = site
        target = quote(urlsplit(url)._replace(fragment="").geturl(), safe=_NOT_QUOTED)
        if (for_proxy := proxied(site)) is not None:
            headers = headers | for_proxy
        else:
            target = target[target.index("//") + 2 :]
            target = target[target.index("/") :] if "/" in target else "/"
        self._connection.request(method, target, headers=headers)
        self._socket = self._connection.sock
        self._response = self._connection.getresponse()
        return self._response


def patiently(work: Callable[[], T], what: str, client: Client | None = None, most: float = 60) -> T:
    """The result of requests that are tried again after TransientError; one that takes longer than `most` seconds is ended.

    Raises QcliError.
    """
    for attempt in range(_QUESTIONS):
        timer = threading.Timer(most, client.interrupt, (False,)) if client else None
        try:
            if timer:
                timer.daemon = True
                timer.start()
            return work()
        except TransientError as trouble:
            last = trouble
        finally:
            if timer:
                timer.cancel()
        if attempt + 1 < _QUESTIONS:
            time.sleep(pause(last, attempt))
    raise cannot(what, last)


def pause(trouble: TransientError, attempt: int) -> float:
    """Seconds to wait after so many attempts. Raises QcliError if the server asks for more than anyone would wait."""
    if trouble.wait > LONGEST_WAIT:
        minutes = counted(-(-int(trouble.wait) // 60), "minute")
        raise QcliError(f"{trouble.said}, and asks to come again in {minutes}", "type the same again then")
    return trouble.wait or min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)


def cannot(what: str, trouble: TransientError, then: str = "") -> QcliError:
    """What to tell after the last attempt, and what comes of another."""
    return QcliError(
        f"{what}: cannot be fetched: {trouble.said}", f"check the connection, and type the same again{then}"
    )


def _wait(answer: Answer) -> float:
    """Seconds that the server asks to wait: a number or a date; 0 if it asks for none."""
    told = answer.headers.get("Retry-After", "").strip()
    limit = re.search(r"\bt=(\d{1,9})\b", answer.headers.get("RateLimit", ""))
    if not told and answer.status == 429 and limit:
        told = limit[1]
    if told.isdigit():
        return float(told[:9])
    with suppress(ValueError, OverflowError):
        return max(0.0, parsedate_to_datetime(told).timestamp() - time.time())
    return 0.0


def _trouble(problem: Exception) -> TransientError:
    if isinstance(problem, ssl.SSLCertVerificationError):
        said = f"the server's certificate is not trusted: {problem.verify_message}"
        raise QcliError(said, "if your network has its own, SSL_CERT_FILE names the file with it") from None
    if isinstance(problem, TimeoutError):
        return TransientError("nothing comes")
    return TransientError(getattr(problem, "strerror", None) or str(problem) or type(problem).__name__)
