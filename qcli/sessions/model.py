"""What a conversation needs of a model: a part of LLM, which itself makes conversations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from qcli.gguf.file import GGUFFile
    from qcli.runtime.engine import Engine
    from qcli.runtime.exclusive import Answer
    from qcli.runtime.resume import Resumed
    from qcli.runtime.stats import Stats
    from qcli.text.think_setting import Think


class Model(Protocol):
    """A model that answers messages."""

    file: GGUFFile
    engine: Engine

    @property
    def stats(self) -> Stats:
        """Of the last answer that this thread has asked for."""

    @property
    def name(self) -> str:
        """What the model is called."""

    @property
    def template(self) -> Any:
        """Its chat template."""

    @property
    def chat(self) -> Callable[..., Answer]:
        """Answers messages."""

    @property
    def sampling(self) -> Callable[..., Any]:
        """Every sampling option of an answer, those that are not given as suits the model."""

    @property
    def resume(self) -> Callable[..., Resumed]:
        """Brings back what is known of messages."""

    def render(self, messages: Sequence[dict[str, Any]], *, think: Think = None, tools: Any = None) -> str:
        """The prompt of messages."""

    def tokenize(self, text: str) -> list[int]:
        """The token ids of a text."""
