"""Several answers of an LLM at a time: to a list of questions, or in coroutines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Unpack

from qcli.errors import UsageError
from qcli.runtime.answer_options import Options, check_positive
from qcli.runtime.async_answer import AsyncAnswer
from qcli.runtime.chat_prompts import Message
from qcli.runtime.several import MOST, Result, Several

if TYPE_CHECKING:
    from qcli.runtime.exclusive import Answer
    from qcli.runtime.together import Together


class SeveralAnswers(ABC):
    """A part of `LLM`."""

    _several: Several

    @abstractmethod
    def _one_of(self, asked: str | Sequence[Message], raw: bool, options: Options, beside: Together | None) -> Answer:
        """Begin one of several answers, beside others, for whoever has the model; else alone."""

    def batch(
        self, asked: Iterable[str | Sequence[Message]], *, parallel: int = MOST, raw: bool = False,
        each: Iterable[Options] | None = None, **options: Unpack[Options],
    ) -> list[Result]:  # fmt: skip
        """Answer questions, or conversations, `parallel` at a time where memory allows it; what came of each, in their order.

        raw: texts are continued as they stand, as by generate. each: options of each question, beside those of all. What goes
        wrong with one is its `problem`, and the others are answered.
        """
        check_positive("parallel", parallel)
        questions = [*asked]
        more: list[Options] = [{} for _ in questions] if each is None else [*each]
        if len(more) != len(questions):
            raise UsageError(f"each has options for {len(more)} questions of {len(questions)}", "give as many")
        some = zip(questions, more, strict=True)
        return self._several.batch((partial(self._one_of, one, raw, {**options, **own}) for one, own in some), parallel)

    def astream(self, asked: str | Sequence[Message], *, raw: bool = False, **options: Unpack[Options]) -> AsyncAnswer:
        """The pieces of an answer for `async for`, as chat and generate yield them; raw: as in batch.

        Several that are read at the same time are answered at the same time, where memory allows it.
        """
        return AsyncAnswer(partial(self._several.submit, partial(self._one_of, asked, raw, options)))
