"""qcli: quantized Mixture-of-Experts language models on an ordinary CPU."""

from __future__ import annotations

TYPE_CHECKING = False  # not from typing, whose import takes 10 ms
if TYPE_CHECKING:
    from typing import Any

    from qcli.llm import LLM
    from qcli.sessions.conversation import Conversation
    from qcli.tools.call import ToolCall

__version__ = "0.1.0"
__all__ = ["LLM", "Conversation", "ToolCall", "__version__"]

_MODULES = {"LLM": "qcli.llm", "Conversation": "qcli.sessions.conversation", "ToolCall": "qcli.tools.call"}


def __getattr__(name: str) -> Any:
    """Import a class, and what it needs, when it is first asked for: `qcli --help` needs none."""
    if name not in _MODULES:
        raise AttributeError(f"module 'qcli' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """The names that there are, those among them that are not imported yet."""
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING", "annotations"})
