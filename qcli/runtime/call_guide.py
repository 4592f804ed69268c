"""Holds tool calls to the schemas of their tools: once a call has begun, nothing can come that is no call of one of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from qcli.text.call_parser import CallParser
from qcli.text.harmony_calls import HarmonyCallParser
from qcli.text.tokenizer import Tokenizer
from qcli.tools import grammars
from qcli.tools.notation import Notation
from qcli.tools.plans import Given, Held, plan_of
from qcli.tools.tool import Tool, Tools

if TYPE_CHECKING:
    from qcli.constraints.matcher import Matcher
    from qcli.constraints.vocabulary import Mask, Vocabulary
    from qcli.runtime.thought_closer import ThoughtCloser

_BY_PARTS = ("xml", "pairs", "python", "gemma")  # families that write each argument by itself


class CallGuide:
    """Stands before the closer of an answer's thoughts, which it feeds with what comes."""

    def __init__(
        self,
        parser: CallParser | HarmonyCallParser,
        closer: ThoughtCloser,
        tokenizer: Tokenizer,
        vocabulary: Vocabulary,
        notation: Notation,
        tools: Tools,
        choice: str,
        end_ids: frozenset[int],
    ) -> None:
        """choice: "auto", or "required" or a tool's name: after its thought, the answer is then nothing but calls, or one."""
        self._parser, self._closer, self._tokenizer, self._vocabulary = parser, closer, tokenizer, vocabulary
        self._notation, self._tools = notation, usable(tools, notation.family in _BY_PARTS)
        self._only = "" if choice in ("auto", "required") else choice
        self._is_due = choice != "auto"  # whether a call has to begin
        self._nothing_else = choice != "auto"
        self._ends = vocabulary.mask_of_ends(end_ids)
        self._rest: _Rest | None = None  # of the call that has begun
        self._coming: list[int] = []  # ids of a marker that has to come

    @property
    def thinking(self) -> bool:
        """Whether what comes next belongs to a thought."""
        return self._closer.thinking

    def push(self, id: int) -> Iterator[str]:
        """The pieces that this id completes."""
        was_begun = self._parser.call_begun
        pieces = list(self._closer.push(id))
        self._coming = self._coming[1:] if self._coming[:1] == [id] else []
        begun = self._parser.call_begun
        if begun is None:
            if self._rest and self._notation.family in ("json", "xml"):
                self._coming = self._tokenizer.encode_marker(f"\n{self._notation.end}")
            elif self._nothing_else and not self._is_due and id == self._opening[0]:
                self._coming = self._opening[1:]
            self._rest = None
        elif was_begun is None:
            self._is_due, self._coming = False, []
            self._begin(begun)
        elif self._rest and not self._rest.accept(id):
            self._rest = None
        return iter(pieces)

    def flush(self) -> Iterator[str]:
        """The rest of the text, after the last id."""
        return self._closer.flush()

    def next_id(self) -> int | None:
        """The id that has to come next; None if there is a choice."""
        closing = self._closer.next_id()
        if closing is not None:
            return closing
        if self._rest:
            return self._rest.next_id()
        if self._is_due and not self._coming and not self._parser.thinking:
            self._coming = self._opening
        return self._coming[0] if self._coming else None

    def mask(self) -> Mask | None:
        """The ids that may come next, until the next call; None: all. Raises QcliError if there are none."""
        if self._rest:
            return self._rest.mask()
        if self._is_due or not self._nothing_else or self.thinking or self._parser.call_begun is not None:
            return None
        return self._ends | self._vocabulary.mask_of([] if self._only else self._opening[:1])

    @property
    def is_over(self) -> bool:
        """Whether the only call that was wanted is there."""
        return bool(self._only) and not (self._is_due or self._rest or self._coming)

    @property
    def _opening(self) -> list[int]:
        """The ids that begin a call here."""
        return self._tokenizer.encode_marker(self._parser.opening)

    def _begin(self, inside: str) -> None:
        """Hold the rest of a call, of which some text may be there already."""
        rest = _Rest(self._tokenizer, self._vocabulary, self._notation, self._tools, self._only, self._parser)
        held = all(rest.accept(id) for id in (self._vocabulary.encode(inside) if inside else ()))
        self._rest = rest if held else None


class _Rest:
    """The rest of a call, part by part."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocabulary: Vocabulary,
        notation: Notation,
        tools: Tools,
        only: str,
        parser: CallParser | HarmonyCallParser,
    ) -> None:
        self._tokenizer, self._vocabulary = tokenizer, vocabulary
        self._plan = plan_of(notation, tools, only, parser.before_channel)
        self._matcher: Matcher | None = None
        self._said: list[int] = []  # of this part
        self._coming: list[int] = []
        self._ends: dict[int, tuple[str, list[int]]] = {}  # markers that may end it, and their ids after the first
        self._over = False
        self._take(next(self._plan))

    def accept(self, id: int) -> bool:
        """Add an id; False if it may not come next."""
        if self._coming:
            expected = self._coming.pop(0)
            if not self._coming and id == expected:
                self._go_on("")
            return id == expected
        if id in self._ends and (self._matcher is None or self._matcher.is_whole):
            marker, self._coming = self._ends[id][0], [*self._ends[id][1]]
            if self._coming:
                self._marker = marker
            else:
                self._go_on(marker)
            return True
        if self._matcher is None or not self._matcher.accept(id):
            return self._over
        self._said.append(id)
        if self._matcher.is_over and not self._ends:
            self._go_on("")
        return True

    def next_id(self) -> int | None:
        """The id that has to come next."""
        if self._coming:
            return self._coming[0]
        if len(self._ends) == 1 and (self._matcher is None or self._matcher.is_over):
            return next(iter(self._ends))
        if self._matcher and not (self._ends and self._matcher.is_whole):
            forced = self._matcher.forced()
            return forced[0] if forced else None
        return None

    def mask(self) -> Mask | None:
        """The ids that may come next; None: all."""
        if self._over:
            return None
        if self._matcher and not self._matcher.is_over:
            mask, may_end = self._matcher.mask()
        else:
            mask, may_end = self._vocabulary.mask_of([]), True
        return mask | self._vocabulary.mask_of([*self._ends]) if may_end and self._ends else mask

    def _go_on(self, marker: str) -> None:
        """Begin the next part."""
        marker, self._marker = marker or self._marker, ""
        text = self._tokenizer.decode(self._said)
        try:
            self._take(self._plan.send((text, marker)))
        except StopIteration:
            self._over, self._matcher, self._ends = True, None, {}

    def _take(self, part: Held | Given) -> None:
        self._matcher, self._ends, self._said, self._marker = None, {}, [], ""
        if isinstance(part, Given):
            self._coming = self._tokenizer.encode_marker(part.text)
            return
        for text in part.then:
            first, *more = self._tokenizer.encode_marker(text)
            self._ends[first] = text, more
        if part.grammar is not None:
            self._matcher = _matcher(self._vocabulary, part.grammar)


@lru_cache(maxsize=8)
def usable(tools: Tools, by_parts: bool) -> Tools:
    """Tools whose schemas can be held to; where one cannot, its values are held to less. by_parts: each argument by itself."""
    every = Notation("python" if by_parts else "json list", "")
    if _fits(grammars.whole_call(every, tools)):
        return tools
    return Tools([_usable(tool, by_parts) for tool in tools])


def _usable(tool: Tool, by_parts: bool) -> Tool:
    parts = {name: _fitting(schema) for name, schema in tool.properties.items()}
    if _fits(grammars.arguments(tool)) and (not by_parts or parts == tool.properties):
        return tool
    return Tool(tool.name, tool.description, {"type": "object", "properties": parts, "required": tool.required})


def _fitting(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema, or where it cannot be followed its type alone, or anything."""
    found = (schema, {"type": schema.get("type")})
    return next((wanted for wanted in found if _fits(grammars.value(wanted))), {})


def _fits(lark: str) -> bool:
    """Whether a grammar can be followed."""
    from llguidance import LLMatcher

    from qcli.constraints.check import reason

    return reason(LLMatcher.grammar_from_lark(lark)) is None


def _matcher(vocabulary: Vocabulary, lark: str) -> Matcher:
    from llguidance import LLMatcher

    from qcli.constraints.matcher import Matcher

    return Matcher(vocabulary, LLMatcher.grammar_from_lark(lark))
