"""qcli: quantized Mixture-of-Experts language models on an ordinary CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qcli.llm import LLM

__version__ = "0.1.0"
__all__ = ["LLM", "__version__"]


def __getattr__(name: str) -> Any:
    """Import LLM, and Numba with it, when it is first asked for: `qcli --help` needs neither."""
    if name == "LLM":
        from qcli.llm import LLM

        return LLM
    raise AttributeError(f"module 'qcli' has no attribute {name!r}")
