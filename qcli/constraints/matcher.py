"""What may come next of a text that has to satisfy a grammar, token by token, by llguidance."""

from __future__ import annotations

from typing import Final

from llguidance import LLMatcher, LLParserLimits

from qcli.constraints.numbers import DigitRun
from qcli.constraints.reasons import worded
from qcli.constraints.vocabulary import Mask, Vocabulary
from qcli.errors import QcliError

# The library's own limits hold but for these: lexer states are kept, at 2 kB each.
LIMITS: Final = LLParserLimits(max_lexer_states=50_000, verbose_errors=False)
PREFIX: Final = "the constraint cannot be held: "
_HINT: Final = "give a simpler one: fewer alternatives, smaller numbers of repetitions"


class Matcher:
    """A text as far as it has come."""

    def __init__(self, vocabulary: Vocabulary, grammar: str, is_json: bool = False) -> None:
        """grammar: as llguidance reads it; is_json: whether it is one of JSON. Raises QcliError for one that is too large."""
        self._vocabulary = vocabulary
        self._matcher = LLMatcher(vocabulary.tokenizer, grammar, log_level=0, limits=LIMITS)
        self._mask = vocabulary.mask_of([])
        self._bytes = 4 * (-(-(vocabulary.end + 1) // 32))
        self._digits = DigitRun() if is_json else None
        self._check()

    def mask(self) -> tuple[Mask, bool]:
        """The tokens that may come next, until the next call; and whether the text may end here.

        Raises QcliError where neither is so, and for what takes too long.
        """
        self._mask[:] = 0
        may_end = True
        if not self.is_over:
            self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._bytes)
            self._check()
            may_end = self._vocabulary.has(self._mask, self._vocabulary.end)
            self._mask &= self._vocabulary.text_ids
            if self._digits and self._digits.is_long and (may_end or (self._mask & ~self._vocabulary.digits).any()):
                self._mask &= ~self._vocabulary.digits
        if not may_end and not self._mask.any():
            raise QcliError(f"{PREFIX}no text fits it", _HINT)
        return self._mask, may_end

    def forced(self) -> list[int]:
        """Ids that have to come next, as a tokenizer would cut their text; none where there is a choice."""
        ids = [] if self.is_over else self._matcher.compute_ff_tokens()
        self._check()
        allowed = self._vocabulary.text_ids
        return ids if all(self._vocabulary.has(allowed, id) for id in ids) else []

    def accept(self, id: int) -> bool:
        """Add a token; False, and nothing is added, if it may not come next."""
        return self.accept_all([id])

    def accept_all(self, ids: list[int]) -> bool:
        """Add tokens; False, and none is added, if they may not come next."""
        if self.is_over or self._matcher.validate_tokens(ids) < len(ids):
            return not ids
        self._matcher.consume_tokens(ids)
        self._check()
        if self._digits:
            self._digits.push(b"".join(self._vocabulary.pieces[id] for id in ids))
        return True

    @property
    def is_whole(self) -> bool:
        """Whether the text satisfies the grammar as it is."""
        return self._matcher.is_accepting()

    @property
    def is_over(self) -> bool:
        """Whether nothing can be added any more."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise QcliError(PREFIX + worded(self._matcher.get_error()), _HINT)
