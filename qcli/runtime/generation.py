"""An answer from its prompt on: who reads its tokens, who chooses them, and the text that comes of it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from qcli.progress import Progress
from qcli.runtime.answer_options import Checked
from qcli.runtime.call_guide import CallGuide
from qcli.runtime.checkpoint import Marks
from qcli.runtime.chooser import Chooser
from qcli.runtime.generate import generate_ids, generate_text
from qcli.runtime.guide import Guide
from qcli.runtime.log_probs import LogProbs
from qcli.runtime.reader import Reader
from qcli.runtime.sampler import Sampler
from qcli.runtime.sampling import Sampling
from qcli.runtime.stats import Stats
from qcli.runtime.thought_closer import ThoughtCloser
from qcli.text.call_parser import CallParser
from qcli.text.harmony_calls import HarmonyCallParser
from qcli.text.parsers import parser_with_calls
from qcli.text.think_tags import ThinkTags
from qcli.text.thoughts import AnswerParser, speaks_harmony
from qcli.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from qcli.constraints.constraint import Constraint
    from qcli.constraints.matcher import Matcher
    from qcli.constraints.vocabulary import Vocabulary
    from qcli.runtime.prefix_cache import PrefixCache
    from qcli.runtime.together import TextInSlot
    from qcli.tools.notation import Notation


class Prompt(NamedTuple):
    """What is to be answered."""

    ids: list[int]  # of the prompt, and of what was said of the answer before
    text: str  # of the prompt
    end_ids: frozenset[int]  # that end the answer
    marks: Marks
    begun: Sequence[int] = ()  # the ids that were said before
    may_think: bool = False  # whether the model may begin with a thought of its own accord
    notation: Notation | None = None  # how it writes tool calls


class Generation:
    """One answer, whose ids are in `said` as far as they have come, and the log-probabilities in `logprobs`."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        tags: Sequence[ThinkTags],
        prompt: Prompt,
        wanted: Checked,
        sampling: Sampling,
        closing_ids: Callable[[], Sequence[int]],
        vocabulary: Vocabulary | None,
        stats: Stats,
    ) -> None:
        """closing_ids: what closes a thought; vocabulary: where there is a constraint; stats: told what the answer took."""
        parser = parser_with_calls(tokenizer, tags, prompt.text, prompt.notation, wanted.tools)
        self.closer = ThoughtCloser(parser, closing_ids, wanted.budget)
        self.said = [*prompt.begun]
        self._prompt, self._wanted, self._stats = prompt, wanted, stats
        guide = _guide(tokenizer, tags, prompt, wanted, parser, self.closer, vocabulary, stats)
        self._reader: Reader = guide or self.closer
        self._is_over: Callable[[], bool] = lambda: guide is not None and guide.is_over
        choices: dict[str, Any] = {"next_id": self.closer.next_id}
        if guide:
            choices = {"next_id": guide.next_id, "mask": guide.mask}
        self.logprobs: list[dict[str, Any]] = []
        if wanted.logprobs is not None:
            log_probs = LogProbs(self._reader, parser, tokenizer, wanted.logprobs)
            self._reader, choices["log_probs"] = log_probs, log_probs
            self.logprobs = stats.logprobs = log_probs.entries
        self._chooser = Chooser(Sampler(sampling, tokenizer.vocab_size), **choices)

    def pieces(self, cache: PrefixCache | TextInSlot, progress: Progress | None) -> Generator[str, None, None]:
        """The pieces of its text."""
        prompt, wanted = self._prompt, self._wanted
        tokens = generate_ids(
            cache, prompt.ids, self._chooser, wanted.max_tokens, prompt.end_ids, self._stats, progress, prompt.marks,
            self._is_over,
        )  # fmt: skip
        return generate_text(tokens, self._reader, wanted.stop, self._stats, self.said, wanted.loops)


def _guide(
    tokenizer: Tokenizer,
    tags: Sequence[ThinkTags],
    prompt: Prompt,
    wanted: Checked,
    parser: AnswerParser,
    closer: ThoughtCloser,
    vocabulary: Vocabulary | None,
    stats: Stats,
) -> Guide | CallGuide | None:
    """What holds the answer to its constraint, or its calls to their tools; None if nothing does."""
    if vocabulary and wanted.constraint:
        openings = _openings(tokenizer, tags, prompt)
        start = partial(_matcher, vocabulary, wanted.constraint)
        return Guide(parser, closer, vocabulary, start, prompt.end_ids, openings, stats)
    if vocabulary and prompt.notation and isinstance(parser, CallParser | HarmonyCallParser) and wanted.tools:
        notation, tools, choice = prompt.notation, wanted.tools, wanted.tool_choice
        return CallGuide(parser, closer, tokenizer, vocabulary, notation, tools, choice, prompt.end_ids)
    return None


def _matcher(vocabulary: Vocabulary, constraint: Constraint) -> Matcher:
    from qcli.constraints.matcher import Matcher  # with llguidance: 0.03 s

    return Matcher(vocabulary, constraint.grammar, constraint.is_json)


def _openings(tokenizer: Tokenizer, tags: Sequence[ThinkTags], prompt: Prompt) -> list[list[int]]:
    """The ids of each tag that the model may begin a thought with: not after a thought that the prompt closed already."""
    if not prompt.may_think or speaks_harmony(tokenizer):
        return []
    if any(prompt.text.rstrip().endswith(pair.close) for pair in tags):
        return []
    tokens = [[pair.open_id] for pair in tags if pair.open_id is not None and pair.close_id is not None]
    return tokens or [tokenizer.encode_after(pair.open) for pair in tags[:1]]
