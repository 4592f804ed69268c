"""Examples of a command, declared above its function and shown at the end of its help."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.text import Text

Function = TypeVar("Function", bound=Callable[..., Any])


def examples(*given: tuple[str, str]) -> Callable[[Function], Function]:
    """Declare examples of a command: what is typed, and what that does."""

    def declare(function: Function) -> Function:
        function.examples = given  # type: ignore[attr-defined]
        return function

    return declare


def of(function: Any) -> tuple[tuple[str, str], ...]:
    """The examples of a command's function."""
    found: tuple[tuple[str, str], ...] = getattr(function, "examples", ())
    return found


def drawn(given: tuple[tuple[str, str], ...]) -> Text:
    """Examples as a terminal's help shows them."""
    from rich.text import Text

    lines = [part for typed, does in given for part in ((f"\n   {typed}\n", "bold cyan"), (f"     {does}", "dim"))]
    return Text.assemble((" For example", "bold"), *lines)
