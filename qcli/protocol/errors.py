"""Requests that cannot be answered: what is wrong with them, and how each protocol says so."""

from __future__ import annotations

from typing import Any, Final

from qcli.errors import ContextOverflowError, ModelNotFoundError, QcliError, UsageError

_OPENAI: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_ANTHROPIC: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class RequestError(UsageError):
    """A request that cannot be meant; param: the field that says so, as `messages[2].content`."""

    def __init__(self, message: str, hint: str = "", *, param: str | None = None, status: int = 400) -> None:
        super().__init__(message, hint)
        self.param, self.status = param, status


def status_of(problem: QcliError) -> int:
    """The status of HTTP that says so."""
    if isinstance(problem, RequestError):
        return problem.status
    if isinstance(problem, ModelNotFoundError):
        return 404
    return 400 if isinstance(problem, UsageError | ContextOverflowError) else 500


def message_of(problem: QcliError) -> str:
    """What a client is told: of a fault that is not its own no more than that, as it may name files of this machine."""
    if status_of(problem) < 500 or isinstance(problem, RequestError):
        return str(problem)
    return "the server cannot answer that; its log says why"


def openai_error(problem: QcliError) -> dict[str, Any]:
    """The body of an error as OpenAI's clients read it."""
    status = status_of(problem)
    kind = _OPENAI.get(status, "server_error" if status >= 500 else "invalid_request_error")
    code = {ContextOverflowError: "context_length_exceeded", ModelNotFoundError: "model_not_found"}.get(type(problem))
    param = problem.param if isinstance(problem, RequestError) else None
    return {"error": {"message": message_of(problem), "type": kind, "param": param, "code": code}}


def anthropic_error(problem: QcliError) -> dict[str, Any]:
    """The body of an error as Anthropic's clients read it."""
    status = status_of(problem)
    kind = _ANTHROPIC.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message_of(problem)}}


def error_of(path: str, problem: QcliError) -> dict[str, Any]:
    """The body of an error as clients of a path read it."""
    return (anthropic_error if path.startswith("/v1/messages") else openai_error)(problem)
