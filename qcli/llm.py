"""LLM: a model file, ready to answer. The object behind every command, and the one to import."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from qcli import catalog
from qcli.errors import ModelFileError, OutputError, PromptError, QcliError, UsageError
from qcli.gguf.file import GGUFFile
from qcli.progress import Progress
from qcli.runtime.engine import Engine
from qcli.runtime.generate import generate_text
from qcli.runtime.prefix_cache import PrefixCache
from qcli.runtime.sampler import Sampler
from qcli.runtime.sampling import Sampling, SamplingOptions
from qcli.runtime.stats import Stats
from qcli.runtime.token_ids import token_ids
from qcli.text.content import content_text
from qcli.text.think_tags import ThinkTags, find_think_tags
from qcli.text.thoughts import AnswerParser, answer_parser
from qcli.text.tokenizer import Tokenizer
from qcli.text.user_text import ControlTexts
from qcli.wording import parse_size

if TYPE_CHECKING:
    from qcli.text.chat_template import ChatTemplate, Prompt

Message = Mapping[str, Any]  # {"role": "user" | "assistant" | "system", "content": str}


class Options(SamplingOptions, total=False):
    """How to answer; what is left out, or None, is the model's own default."""

    max_tokens: int | None  # None: until the model ends or the context is full
    stop: str | Sequence[str] | None  # the text ends before the first of these


class LLM:
    """A model by path or by name (None: the embedded one); a context manager. One answer at a time."""

    def __init__(
        self,
        path_or_name: str | Path | None = None,
        threads: int | None = None,
        ctx: int | None = None,
        *,
        kv_type: str | None = None,
        ram: int | str | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Map the file and load the engine; raises ModelNotFoundError, ModelFileError.

        threads: None for the physical cores; ctx: capacity in tokens, None for what the model was made for, up to 32,768;
        kv_type: "f16" or, half the size, "q8_0", for the keys and values of attention;
        ram: bytes, or a text such as "24GB", that the process may use, None for what is free: if the model needs more,
        experts are read from the file as tokens are routed to them;
        progress(stage, fraction from 0 to 1) is called while kernels compile, weights load and prompts are prefilled.
        """
        began = perf_counter()
        _check_positive("threads", threads)
        _check_positive("ctx", ctx)
        path, self._entry = catalog.resolve(path_or_name)
        self.file = GGUFFile.open(path)
        try:
            ram = parse_size(ram) if isinstance(ram, str) else ram
            self.engine = Engine.load(self.file, threads=threads, ctx=ctx, kv_type=kv_type, ram=ram, progress=progress)
        except BaseException:
            self.file.close()
            raise
        self._cache = PrefixCache(self.engine)
        self._progress = progress
        self._answer: Generator[str, None, None] | None = None
        self.stats = Stats()  # of the last answer
        self.load_s = perf_counter() - began

    @property
    def name(self) -> str:
        """What models.toml calls the model, else its file's name."""
        return catalog.name_of(self.file.path, self._entry)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The file's tokenizer, read when first needed. Raises ModelFileError."""
        tokenizer = Tokenizer.from_gguf(self.file)
        if tokenizer.vocab_size > self.engine.vocab_size:
            raise ModelFileError(
                f"{self.file.path}: {tokenizer.vocab_size} tokens, {self.engine.vocab_size} embeddings",
                "the file contradicts itself: download or convert it again",
            )
        return tokenizer

    @cached_property
    def template(self) -> ChatTemplate:
        """The file's chat template, compiled when first needed. Raises ModelFileError."""
        from qcli.text.chat_template import ChatTemplate  # Jinja2 takes 0.05 s that a raw prompt need not wait for

        return ChatTemplate.from_gguf(self.file, self.tokenizer)

    @cached_property
    def think_tags(self) -> list[ThinkTags]:
        """The tags between which the model thinks, most often one pair or none."""
        return find_think_tags(self.tokenizer, self.file.get_str("tokenizer.chat_template", ""))

    def _prompt(self, messages: Sequence[Message]) -> Prompt:
        """The prompt of a conversation, whose messages spell no control token and no tag of a thought."""
        tags = frozenset(text for pair in self.think_tags for text in (pair.open, pair.close))
        return self.template.prompt(messages, ControlTexts([*self.tokenizer.control_texts, *tags]), tags)

    def tokenize(self, text: str, special: bool = True) -> list[int]:
        """Token ids of a text; with `special`, control tokens written in it count as such."""
        return self.tokenizer.encode(text, special)

    def detokenize(self, ids: Iterable[int]) -> str:
        """The text of token ids, control tokens left out."""
        return self.tokenizer.decode(token_ids(ids, self.tokenizer.vocab_size))

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """The prompt that the model's chat template makes of a conversation."""
        return self.template.render(messages, add_generation_prompt=add_generation_prompt)

    def sampling(self, **given: Unpack[SamplingOptions]) -> Sampling:
        """The model's own sampling, with those options replaced that are given and not None. Raises UsageError."""
        chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return Sampling(**{**catalog.sampling_defaults(self._entry, self.file), **chosen})

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits after each id, float32 [T, vocab], from an empty state, by the prefill that generation uses."""
        self._stop_answer()
        ids = token_ids(ids, self.engine.vocab_size)
        self._check_ids(ids)
        return self._cache.logits(ids)

    def generate(self, prompt: str, **options: Unpack[Options]) -> Generator[str, None, None]:
        """Continue a prompt as it stands, without a template; yields the text in pieces of whole characters.

        Control tokens that the prompt spells are read as such. Pieces of the class Thought are what the model thinks.
        """
        ids = self.tokenizer.prompt(prompt)
        return self._start(ids, None, answer_parser(self.tokenizer, self.think_tags, prompt), options)

    def chat(self, messages: Sequence[Message], **options: Unpack[Options]) -> Generator[str, None, None]:
        """Answer a conversation; of one that extends the last, only what is new is prefilled.

        Yields pieces as generate does; those of the class Thought are what the model thinks before it answers.
        """
        if not messages or not content_text(messages[-1].get("content")).strip():
            raise PromptError("there is nothing to answer", "end the conversation with a text to answer")
        prompt = self._prompt(messages)
        ids = self.tokenizer.prompt(prompt.text, prompt.mark)
        parser = answer_parser(self.tokenizer, self.think_tags, prompt.text)
        return self._start(ids, self._stable_prefix_length(messages, ids), parser, options)

    def close(self) -> None:
        """Stop the answer, end the threads, unmap the file."""
        self._stop_answer()
        try:
            self.engine.close()
        except OutputError as error:  # the usage of its experts
            warnings.warn(str(error), stacklevel=2)
        self.file.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(
        self, ids: list[int], checkpoint_at: int | None, parser: AnswerParser | None, options: Options
    ) -> Generator[str, None, None]:
        self._stop_answer()
        self._check_ids(ids)
        sampling: dict[str, Any] = {**options}
        max_tokens, stop = sampling.pop("max_tokens", None), sampling.pop("stop", None) or ()
        _check_positive("max_tokens", max_tokens)
        sampler = Sampler(self.sampling(**sampling), self.tokenizer.vocab_size)
        self._cache.checkpoint_at = checkpoint_at
        self.stats = Stats(load_s=self.load_s)
        self._answer = generate_text(
            self._cache,
            self.tokenizer,
            ids,
            sampler,
            max_tokens,
            (stop,) if isinstance(stop, str) else stop,
            self.stats,
            self._progress,
            parser,
        )
        return self._answer

    def _stable_prefix_length(self, messages: Sequence[Message], ids: list[int]) -> int | None:
        """How many of the prompt's ids the prompt of the next turn will begin with; None if that cannot be told.

        Not all of them with templates that open a thought for the answer and leave thoughts out of the history.
        """
        next_turn = [*messages, {"role": "assistant", "content": "."}, {"role": "user", "content": "."}]
        try:
            prompt = self._prompt(next_turn)
        except QcliError:  # a template may refuse such a conversation
            return None
        next_ids = self.tokenizer.prompt(prompt.text, prompt.mark)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ids, next_ids, strict=False)))

    def _stop_answer(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def _check_ids(self, ids: Sequence[int]) -> None:
        if not len(ids):
            raise PromptError("the prompt is empty", "give it some text")
        last = self.engine.vocab_size - 1
        for id in (min(ids), max(ids)):
            if not 0 <= id <= last:
                raise UsageError(f"no token has the id {id}", f"ids go from 0 to {last}")


def _check_positive(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise UsageError(f"{name} cannot be {value}", "give 1 or more, or leave it out")
