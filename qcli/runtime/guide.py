"""Holds an answer to a constraint, from where its thoughts end: which id has to come next, and which ones may."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from qcli.errors import QcliError
from qcli.text.thoughts import AnswerParser, HarmonyParser, Thought

if TYPE_CHECKING:
    from qcli.constraints.matcher import Matcher
    from qcli.constraints.vocabulary import Mask, Vocabulary
    from qcli.runtime.stats import Stats
    from qcli.runtime.thought_closer import ThoughtCloser

_LINE_ENDS: Final = 2  # tokens of line ends that may stand between a thought and the answer; they are part of neither


class Guide:
    """Stands before the closer of an answer's thoughts, which it feeds with what comes.

    Within thoughts anything may come but the end of the answer. At the beginning of an answer, a thought may begin instead.
    """

    def __init__(
        self,
        parser: AnswerParser,
        closer: ThoughtCloser,
        vocabulary: Vocabulary,
        start: Callable[[], Matcher],
        end_ids: frozenset[int],
        openings: Sequence[Sequence[int]],
        stats: Stats,
    ) -> None:
        """start: makes a matcher of a text that has not begun; openings: ids, each of which begin a thought.

        stats: are told whether the answer fits.
        """
        self._parser, self._closer, self._vocabulary, self._start = parser, closer, vocabulary, start
        self._ends = vocabulary.mask_of_ends(end_ids)
        self._matcher: Matcher | None = start() if parser.answering else None
        self._openings = [[*ids] for ids in openings if ids] if parser.answering else []  # what is left of each
        self._lines = 0  # line ends that may still come before the answer
        self._forced: list[int] = []
        self._stats = stats
        stats.fits = False

    @property
    def thinking(self) -> bool:
        """Whether what comes next belongs to a thought."""
        return self._closer.thinking

    def push(self, id: int) -> Iterator[str]:
        """The pieces that this id completes. Raises QcliError for an id that may not come next."""
        before = self._parser.answering
        pieces = list(self._closer.push(id))
        if not self._parser.answering:
            self._matcher, self._openings, self._forced = None, [], []
        elif not before:
            self._begin("".join(piece for piece in pieces if not isinstance(piece, Thought)))
        else:
            self._accept(id)
        return iter(pieces)

    def flush(self) -> Iterator[str]:
        """The rest of the text, after the last id."""
        self._stats.fits = self._parser.answering and self._matcher is not None and self._matcher.is_whole
        return self._closer.flush()

    def next_id(self) -> int | None:
        """The id that has to come next; None if there is a choice."""
        closing = self._closer.next_id()
        if closing is not None or not self._parser.answering:
            return self._parser.obliged if closing is None else closing
        if not self._forced and self._matcher and not self._openings and not self._lines:
            self._forced = self._matcher.forced()
        return self._forced[0] if self._forced else None

    def mask(self) -> Mask:
        """The ids that may come next, until the next call. Raises QcliError if there are none."""
        if not self._parser.answering:
            return ~self._ends
        if self._matcher:
            mask, may_end = self._matcher.mask()
            if may_end:
                mask |= self._ends
        else:
            mask = self._vocabulary.mask_of([])
        if self._openings:
            mask |= self._vocabulary.mask_of([ids[0] for ids in self._openings])
        if self._lines:
            mask |= self._vocabulary.line_ends
        return mask

    @property
    def is_over(self) -> bool:
        """Whether the answer fits and nothing can follow it."""
        return self._parser.answering and self._matcher is not None and self._matcher.is_over

    def _begin(self, text: str) -> None:
        """After a thought: begin the answer, of which the last token of the thought may have brought some text."""
        self._matcher, self._openings = self._start(), []
        self._lines = 0 if isinstance(self._parser, HarmonyParser) else _LINE_ENDS
        if text.strip("\n"):
            self._lines = 0
            self._require(self._matcher.accept_all(self._vocabulary.encode(text.lstrip("\n"))))

    def _accept(self, id: int) -> None:
        """Add an id to the answer, or to the tag that may begin a thought."""
        if self._lines and self._vocabulary.has(self._vocabulary.line_ends, id):
            self._lines -= 1
            return
        fits = self._matcher is not None and self._matcher.accept(id)
        if self._lines and not fits and self._vocabulary.pieces[id].isspace():
            return  # of the words that closed the thought
        self._lines = 0
        self._forced = self._forced[1:] if self._forced[:1] == [id] else []
        self._openings = [ids[1:] for ids in self._openings if len(ids) > 1 and ids[0] == id]
        self._matcher = self._matcher if fits else None
        self._require(self._matcher is not None or bool(self._openings))

    def _require(self, fits: bool) -> None:
        if not fits:
            raise QcliError(
                "the answer so far does not fit what it should be",
                "have it answered again, or leave the constraint out",
            )
