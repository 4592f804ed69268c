"""qcli: quantized Mixture-of-Experts language models on an ordinary CPU."""

from __future__ import annotations

TYPE_CHECKING = False  # not from typing, whose import takes 10 ms
if TYPE_CHECKING:
    from typing import Any

    from qcli.llm import LLM

__version__ = "0.1.0"
__all__ = ["LLM", "__version__"]


def __getattr__(name: str) -> Any:
    """Import LLM, and Numba with it, when it is first asked for: `qcli --help` needs neither."""
    if name == "LLM":
        from qcli.llm import LLM

        return LLM
    raise AttributeError(f"module 'qcli' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The names that there are, LLM among them before it is imported."""
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING", "annotations"})
