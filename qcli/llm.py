"""LLM: a model file, ready to answer. The object behind every command, and the one to import."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np

from qcli import catalog
from qcli.errors import ModelFileError, OutputError, PromptError, QcliError, UsageError
from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine
from qcli.runtime.generate import Progress, Stats, generate_text
from qcli.runtime.prefix_cache import Held
from qcli.runtime.sampler import Sampler, Sampling
from qcli.streaming.budget import parse_size
from qcli.text.content import content_text
from qcli.text.thought_marks import ThoughtMarks, thought_marks
from qcli.text.thoughts import Plain, reader
from qcli.text.tokenizer import Tokenizer
from qcli.text.user_text import ControlTexts

if TYPE_CHECKING:
    from qcli.text.chat_template import ChatTemplate, Prompt

Message = Mapping[str, Any]  # {"role": "user" | "assistant" | "system", "content": str}


class Options(TypedDict, total=False):
    """How to answer; what is left out, or None, is the model's own default."""

    max_tokens: int | None  # None: until the model ends or the context is full
    stop: str | Sequence[str]  # the text ends before the first of these
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repeat_penalty: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    seed: int | None


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
        """Map the file and trace the engine; raises ModelNotFoundError, ModelFileError.

        threads: None for the physical cores; ctx: capacity in tokens, None for a sensible one of the model's;
        kv_type: "f16" or, half the size, "q8_0", for the keys and values of attention;
        ram: bytes, or such as "24GB", that the process may use, None for what is free: experts of a model that needs more
        are read as they are asked for;
        progress(stage, fraction) hears of compiling, loading and prefilling.
        """
        began = perf_counter()
        _positive("threads", threads)
        _positive("ctx", ctx)
        path, self._entry = catalog.resolve(path_or_name)
        self.file = GGUFFile.open(path)
        try:
            room = parse_size(ram) if isinstance(ram, str) else ram
            self.engine = Engine.load(self.file, threads=threads, ctx=ctx, kv_type=kv_type, ram=room, progress=progress)
        except BaseException:
            self.file.close()
            raise
        self._held = Held(self.engine)
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
        tokenizer = Tokenizer.from_gguf(self.file)
        if tokenizer.vocab_size > self.engine.vocab_size:
            raise ModelFileError(
                f"{self.file.path}: {tokenizer.vocab_size} tokens, {self.engine.vocab_size} embeddings",
                "the file contradicts itself: download or convert it again",
            )
        return tokenizer

    @cached_property
    def template(self) -> ChatTemplate:
        from qcli.text.chat_template import ChatTemplate  # Jinja2 takes 0.05 s that a raw prompt need not wait for

        return ChatTemplate.from_gguf(self.file, self.tokenizer)

    @cached_property
    def thought_marks(self) -> list[ThoughtMarks]:
        """The marks between which the model thinks, most often one pair or none."""
        return thought_marks(self.tokenizer, self.file.get_str("tokenizer.chat_template", ""))

    def _prompt(self, messages: Sequence[Message]) -> Prompt:
        """The prompt of a conversation, whose messages spell no control token and no mark of a thought."""
        marks = frozenset(text for pair in self.thought_marks for text in (pair.open, pair.close))
        return self.template.prompt(messages, ControlTexts([*self.tokenizer.control_texts, *marks]), marks)

    def tokenize(self, text: str, special: bool = True) -> list[int]:
        """Token ids of a text; `special` reads control tokens written in it."""
        return self.tokenizer.encode(text, special)

    def detokenize(self, ids: Iterable[int]) -> str:
        """The text of token ids, control tokens left out."""
        return self.tokenizer.decode(ids)

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """The prompt that the model's chat template makes of a conversation."""
        return self.template.render(messages, add_generation_prompt=add_generation_prompt)

    def sampling(self, **given: Any) -> Sampling:
        """The model's default sampling, with what is given and not None in its place."""
        chosen = catalog.sampling_defaults(self._entry, self.file)
        chosen |= {name: value for name, value in given.items() if value is not None}
        return Sampling(**chosen)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """float32 [T, vocab], one row a token, from an empty state, by the prefill that generation uses."""
        self._stop_answer()
        self._check_ids(ids)
        return self._held.logits(ids)

    def generate(self, prompt: str, **options: Unpack[Options]) -> Generator[str, None, None]:
        """Continue a prompt as it stands; yields the text in pieces of whole characters."""
        ids = self.tokenizer.prompt(prompt)
        return self._start(ids, None, reader(self.tokenizer, self.thought_marks, prompt), options)

    def chat(self, messages: Sequence[Message], **options: Unpack[Options]) -> Generator[str, None, None]:
        """Answer a conversation; one that extends the last prefills only what is new.

        Pieces of the class Thought are what the model thinks before it answers.
        """
        if not messages or not content_text(messages[-1].get("content")).strip():
            raise PromptError("there is nothing to answer", "end the conversation with a text to answer")
        prompt = self._prompt(messages)
        ids = self.tokenizer.prompt(prompt.text, prompt.mark)
        answer_reader = reader(self.tokenizer, self.thought_marks, prompt.text)
        return self._start(ids, self._lasting(messages, ids), answer_reader, options)

    def close(self) -> None:
        """Stop the answer, end the threads, unmap the file."""
        self._stop_answer()
        try:
            self.engine.close()
        except OutputError as error:  # the heat of its experts
            warnings.warn(str(error), stacklevel=2)
        self.file.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(
        self, ids: list[int], mark_at: int | None, reader: Plain | None, options: Options
    ) -> Generator[str, None, None]:
        self._stop_answer()
        self._check_ids(ids)
        max_tokens, stop = options.get("max_tokens"), options.get("stop") or ()
        _positive("max_tokens", max_tokens)
        sampling = self.sampling(**{name: options.get(name) for name in _SAMPLING})
        sampler = Sampler(sampling, self.tokenizer.vocab_size)
        self._held.mark_at = mark_at
        self.stats = Stats(load_s=self.load_s)
        self._answer = generate_text(
            self._held,
            self.tokenizer,
            ids,
            sampler,
            max_tokens,
            (stop,) if isinstance(stop, str) else stop,
            self.stats,
            self._progress,
            reader,
        )
        return self._answer

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

    def _lasting(self, messages: Sequence[Message], ids: list[int]) -> int | None:
        """How many of the prompt's ids will still begin the prompt of the next turn.

        Not all of them with templates that open a thought for the answer and leave it out of the history.
        """
        later = [*messages, {"role": "assistant", "content": "."}, {"role": "user", "content": "."}]
        try:
            prompt = self._prompt(later)
        except QcliError:  # a template may refuse such a conversation
            return None
        then = self.tokenizer.prompt(prompt.text, prompt.mark)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ids, then, strict=False)))


def _positive(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise UsageError(f"{name} cannot be {value}", "give 1 or more, or leave it out")


_SAMPLING = [field.name for field in fields(Sampling)]
