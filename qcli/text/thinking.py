"""How a model is told to think or not, learned from what its chat template makes of a question.

Templates have a switch (`enable_thinking`, `thinking`, `reasoning`), a degree (`reasoning_effort`), both or none. A model
without a switch that has tags for thoughts is given an empty one, as its template writes it, to have it not think.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

from qcli.errors import QcliError, ThinkError
from qcli.text.chat_template import PLAIN, ChatTemplate, Manner
from qcli.text.think_setting import EFFORTS, Think, think_setting
from qcli.text.think_tags import ThinkTags

_SWITCHES: Final = ("enable_thinking", "thinking", "reasoning")
_EFFORT: Final = "reasoning_effort"
_THOUGHT, _ANSWER = "Zq7thoughtX", "Zq7answerX"  # words that no template writes itself
_QUESTION: Final = {"role": "user", "content": "a"}
_USUAL: Final = ("\n", "\n", "\n\n")  # between the tags and what stands there, where a template does not tell

_FINAL: Final = "<|channel|>final<|message|>"  # of harmony: the answer begins
_TO_FINAL: Final = f"<|end|><|start|>assistant{_FINAL}"
# What Qwen3 was taught to end a thought by (its report, section 4.3: thinking budgets).
_QWEN3: Final = (
    "Considering the limited time by the user, I have to give the solution based on the thinking directly now."
)
_OTHERS: Final = "That is enough thinking. I will give the answer now."


class Thinking:
    """What a model's chat template offers, and how its thoughts are closed; nothing is rendered before it is needed."""

    def __init__(
        self, template: ChatTemplate, tags: Sequence[ThinkTags], harmony: bool = False, architecture: str = ""
    ) -> None:
        """harmony: whether the vocabulary has the channels of gpt-oss; architecture: of the file, some know closing words."""
        self._template, self._pairs, self._harmony = template, tags, harmony
        self._sentence = _QWEN3 if architecture.startswith("qwen3") else _OTHERS

    def manner(self, think: Think) -> Manner:
        """How prompts are written so that the model thinks as it is told.

        Of a model that does not think, "off", "hide" and a number of tokens hold anyway.
        Raises UsageError for what nobody can be told, ThinkError for what this model cannot.
        """
        think = "default" if think is None else think_setting("think", think)
        if think == "default":
            return PLAIN
        if not self.thinks:
            if think == "on" or think in EFFORTS:
                raise ThinkError(f"think cannot be {think}: this model does not think", "give default, off or hide")
            return PLAIN
        if think in EFFORTS and think not in self.efforts:
            hint = f"give {', '.join(self.words)}, or a number of tokens"
            raise ThinkError(f"think cannot be {think} with this model", hint)
        if think == "off":
            return self._off
        effort = {_EFFORT: think} if think in EFFORTS else {}
        return Manner((*self._switched(True).items(), *effort.items()))

    @cached_property
    def thinks(self) -> bool:
        """Whether the model has thoughts that can be told apart, or can be told to have some."""
        return bool(self._harmony or self._tags or self._switch or self.efforts)

    @cached_property
    def efforts(self) -> tuple[str, ...]:
        """Those of low, medium and high between which the template makes a difference."""
        if _EFFORT not in self._template.source:
            return ()
        written = {effort: self._question(**self._switched(True), **{_EFFORT: effort}) for effort in EFFORTS}
        known = tuple(effort for effort in EFFORTS if written[effort] is not None)
        without = self._question(**self._switched(True))
        return known if len({without, *(written[effort] for effort in known)}) > 1 else ()

    @cached_property
    def closing_words(self) -> str:
        """The text that ends a thought in its midst, and begins the answer; "" if the model has no tags for thoughts."""
        if self._harmony:
            return _TO_FINAL
        if self._tags is None:
            return ""
        _, before, after = self._gaps
        return f"\n\n{self._sentence}{before}{self._tags.close}{after}"

    @property
    def words(self) -> tuple[str, ...]:
        """What can be said of this model's thinking, besides a number of tokens."""
        return ("default", *(("on",) if self.thinks else ()), "off", "hide", *self.efforts)

    @cached_property
    def _tags(self) -> ThinkTags | None:
        """The pair that thoughts are closed with: one of tokens if there is one, one that the template names."""
        pairs = [pair for pair in self._pairs if None not in (pair.open_id, pair.close_id)] or [*self._pairs]
        return next((pair for pair in pairs if pair.open in self._template.source), pairs[0] if pairs else None)

    @cached_property
    def _switch(self) -> str | None:
        """The variable of the template that turns thinking on and off."""
        for name in _SWITCHES:
            if name in self._template.source:
                on, off = self._question(**{name: True}), self._question(**{name: False})
                if on is not None and off is not None and on != off:
                    return name
        return None

    def _switched(self, on: bool) -> dict[str, Any]:
        return {self._switch: on} if self._switch else {}

    @cached_property
    def _off(self) -> Manner:
        variables = self._switched(False)
        return Manner((*variables.items(),), self._empty_thought(self._question(**variables) or ""))

    def _empty_thought(self, question: str) -> str:
        """What has to follow a question as the template writes it, so that no thought comes."""
        if self._harmony:
            return _FINAL if question.endswith("<|start|>assistant") else ""
        if self._tags is None:
            return ""
        opened, before, after = self._gaps
        if question.rstrip().endswith(self._tags.open):
            gap = "" if question.endswith(f"{self._tags.open}{opened}") else opened
            return f"{gap}{before}{self._tags.close}{after}"
        if self._switch or question.rstrip().endswith(self._tags.close):
            return ""
        if not any(tag in self._template.source for tag in (self._tags.open, self._tags.close)):
            return ""  # the vocabulary has tags, and the model was not taught to use them
        return f"{self._tags.open}{opened}{before}{self._tags.close}{after}"

    @cached_property
    def _gaps(self) -> tuple[str, str, str]:
        """White space after the opening tag, before the closing tag and after it, as the template writes them."""
        assert self._tags is not None
        begin, end = re.escape(self._tags.open), re.escape(self._tags.close)
        for written in self._histories():
            if found := re.search(rf"{begin}(\s*){_THOUGHT}(\s*){end}(\s*){_ANSWER}", written):
                return found[1], found[2], found[3]
        off = self._question(**self._switched(False)) or ""
        if found := re.search(rf"{begin}(\n?)(\s*){end}(\s*)$", off):
            return found[1], found[2], found[3]
        return _USUAL

    def _histories(self) -> list[str]:
        """Conversations with a thought, as far as the template shows it."""
        assert self._tags is not None
        spelled = f"{self._tags.open}\n{_THOUGHT}\n{self._tags.close}\n\n{_ANSWER}"
        answers = [{"content": _ANSWER, "reasoning_content": _THOUGHT}, {"content": spelled}]
        talks = [[_QUESTION, {"role": "assistant", **answer}] for answer in answers]
        return [text for talk in talks if (text := self._written(talk, add_generation_prompt=False)) is not None]

    def _question(self, **variables: Any) -> str | None:
        """The prompt for the answer to a question; None if the template refuses it."""
        return self._written([_QUESTION], **variables)

    def _written(self, messages: list[dict[str, str]], **variables: Any) -> str | None:
        try:
            return self._template.render(messages, **variables)
        except QcliError:
            return None
