"""The log-probabilities of an answer's tokens, and of those that the model would sooner have said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qcli.text.thoughts import Thought

if TYPE_CHECKING:
    from qcli.runtime.reader import Reader
    from qcli.text.thoughts import AnswerParser
    from qcli.text.tokenizer import Tokenizer

_LOWEST: Final = -9999.0  # of a token that cannot come: JSON has no infinity


class LogProbs:
    """Stands before the reader of an answer, which it feeds; keeps what was noted of the tokens of the answer's text.

    They are those of the model itself: softmax of its logits, before penalties, constraints, temperature and filters.
    """

    def __init__(self, reader: Reader, parser: AnswerParser, tokenizer: Tokenizer, most: int) -> None:
        """most: how many of the likeliest tokens to keep of each place."""
        self._reader, self._parser, self._tokenizer, self._most = reader, parser, tokenizer, most
        self._noted: dict[str, Any] | None = None  # of the token that was chosen last
        self._thought = not parser.answering  # whether one has come
        self._said = False  # whether any text of the answer has
        self.entries: list[dict[str, Any]] = []  # as OpenAI's "content" has them, and "id"

    def note(self, logits: np.ndarray, token: int) -> None:
        """Note a token that was chosen after logits, float32 [vocab or more]."""
        logits = logits[: self._tokenizer.vocab_size]
        peak = logits.max()
        total = float(peak) + float(np.log(np.exp(logits - peak).sum(dtype=np.float64)))
        best = np.argpartition(logits, -self._most)[-self._most :] if self._most else np.empty(0, np.intp)
        ordered = best[np.lexsort((best, -logits[best]))].tolist()
        self._noted = {
            **self._entry(token, float(logits[token]) - total),
            "top_logprobs": [self._entry(id, float(logits[id]) - total) for id in ordered],
        }

    @property
    def thinking(self) -> bool:
        """Whether what comes next belongs to a thought."""
        return self._reader.thinking

    def push(self, id: int) -> Iterator[str]:
        """The pieces that this id completes."""
        before = self._parser.answering
        pieces = list(self._reader.push(id))
        after, noted, self._noted = self._parser.answering, self._noted, None
        if before and not after and not self._said:
            self.entries.clear()  # of a tag that was spelled
        if noted and before and after and not self._is_gap(pieces):
            self.entries.append(noted)
        self._said = self._said or any(piece and not isinstance(piece, Thought) for piece in pieces)
        self._thought = self._thought or not after
        return iter(pieces)

    def flush(self) -> Iterator[str]:
        """The rest of the text, after the last id."""
        return self._reader.flush()

    def _is_gap(self, pieces: list[str]) -> bool:
        """Whether these are line ends between a thought and the answer."""
        return self._thought and not self.entries and bool(pieces) and not "".join(pieces).strip("\n")

    def _entry(self, id: int, log_prob: float) -> dict[str, Any]:
        data = self._tokenizer.token_bytes(id)
        shown = round(max(log_prob, _LOWEST), 6)
        return {"token": data.decode("utf-8", "replace"), "id": id, "bytes": [*data], "logprob": shown}
