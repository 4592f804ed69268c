"""What a server has done, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from qcli.runtime.stats import Stats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counts of one server."""

    def __init__(self, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        """running, waiting: how many questions are, now."""
        self._all = all = CollectorRegistry()
        for name, help, now in (
            ("qcli_questions_running", "Questions that are being answered.", running),
            ("qcli_questions_waiting", "Questions whose turn has not come.", waiting),
        ):
            Gauge(name, help, registry=all).set_function(now)
        self._requests = Counter("qcli_requests", "Requests, by path and status.", ["path", "status"], registry=all)
        self._read = Counter("qcli_prompt_tokens", "Tokens of prompts.", registry=all)
        self._cached = Counter("qcli_cached_prompt_tokens", "Those that did not have to be read.", registry=all)
        self._written = Counter("qcli_generated_tokens", "Tokens of answers.", registry=all)
        self._first = Histogram(
            "qcli_first_token_seconds", "From a request to its first token.", buckets=_SECONDS, registry=all
        )
        self._whole = Histogram("qcli_request_seconds", "From a request to its end.", buckets=_SECONDS, registry=all)

    def request(self, path: str, status: int) -> None:
        """Count a request that has a status."""
        self._requests.labels(path, str(status)).inc()

    def first_token(self, seconds: float) -> None:
        """Note how long the first token of an answer took."""
        self._first.observe(seconds)

    def answer(self, stats: Stats, seconds: float) -> None:
        """Count an answer, also of one that was cancelled what there is of it."""
        self._read.inc(stats.prompt_tokens)
        self._cached.inc(stats.cached_tokens)
        self._written.inc(stats.new_tokens)
        self._whole.observe(seconds)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._all)
