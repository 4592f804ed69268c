"""LLM: a model file, ready to answer. The object behind every command, and the one to import."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from qcli import catalog
from qcli.errors import OutputError, UsageError
from qcli.gguf.file import GGUFFile
from qcli.progress import Progress
from qcli.runtime import saved_text
from qcli.runtime.answer_options import Checked, Options, check_positive, checked
from qcli.runtime.chat_prompts import ChatPrompts, Message, checked_messages
from qcli.runtime.checkpoint import NO_MARKS, Checkpoint, Keep, Marks
from qcli.runtime.engine import Engine
from qcli.runtime.exclusive import Answer, Exclusive
from qcli.runtime.generate import generate_ids, generate_text
from qcli.runtime.prefix_cache import PrefixCache
from qcli.runtime.resume import Resumed, resume
from qcli.runtime.sampler import Sampler
from qcli.runtime.sampling import OPTIONS, Sampling, SamplingOptions
from qcli.runtime.state_store import store_for
from qcli.runtime.stats import Stats
from qcli.runtime.thought_closer import ThoughtCloser
from qcli.runtime.token_ids import check_ids, token_ids
from qcli.sessions.conversation import Conversation
from qcli.text.content import checked_text
from qcli.text.parsers import parser_with_calls
from qcli.text.think_tags import ThinkTags, find_think_tags
from qcli.text.thoughts import speaks_harmony
from qcli.text.tokenizer import Tokenizer
from qcli.tools.notation import Notation, find_notation
from qcli.tools.tool import Tools, checked_tools
from qcli.wording import parse_size

if TYPE_CHECKING:
    from qcli.text.chat_template import ChatTemplate, Manner
    from qcli.text.think_setting import Think
    from qcli.text.thinking import Thinking


class LLM:
    """A model by path or by name (None: the embedded one); a context manager.

    One answer at a time: a new one ends one that was left unread, and reading that one on is a QcliError. While another
    thread reads an answer, a new one is refused; a lock of your own makes threads wait for each other. After close(), and in
    a child process after os.fork(), whatever needs the model is a QcliError.
    """

    def __init__(
        self,
        path_or_name: str | Path | None = None,
        threads: int | None = None,
        ctx: int | None = None,
        *,
        kv_type: str | None = None,
        ram: int | str | None = None,
        keep: Keep = None,
        progress: Progress | None = None,
    ) -> None:
        """Map the file and load the engine; raises ModelNotFoundError, ModelFileError.

        threads: None for the physical cores; ctx: capacity in tokens, None for what the model was made for, up to 32,768;
        kv_type: "f16" or, half the size, "q8_0", for the keys and values of attention;
        ram: bytes, or "24GB", that the process may use, None for what is free: beyond that, experts are read as needed;
        keep: what to keep on disk for the next process, so that it need not prefill it: "beginnings" of prompts, as system
        messages are, or "turns", every conversation after each answer;
        progress(stage, fraction from 0 to 1) is called while kernels compile, weights load and prompts are prefilled.
        """
        began = perf_counter()
        check_positive("threads", threads)
        check_positive("ctx", ctx)
        path, self._entry = catalog.resolve(path_or_name)
        self.file = GGUFFile.open(path)
        try:
            ram = parse_size(ram) if isinstance(ram, str) else ram
            self.engine = Engine.load(self.file, threads=threads, ctx=ctx, kv_type=kv_type, ram=ram, progress=progress)
        except BaseException:
            self.file.close()
            raise
        self._keep = keep
        store = store_for(self.file, self.engine.state, self.engine.vocab_size) if keep else None
        self._cache = PrefixCache(self.engine, store)
        self._exclusive = Exclusive(partial(_end, self._cache, self.file))
        self._progress = self._exclusive.heard(progress)
        self._written: dict[tuple[Manner, Tools | None], ChatPrompts] = {}
        self._closer: weakref.ref[ThoughtCloser] | None = None  # of the last answer, which has it
        self.stats = Stats()  # of the last answer
        self.load_s = perf_counter() - began

    @property
    def name(self) -> str:
        """What models.toml calls the model, else its file's name."""
        return catalog.name_of(self.file.path, self._entry)

    def __repr__(self) -> str:
        engine = self.engine
        used = f"{engine.threads} threads, {engine.position} of {engine.ctx} tokens of context used"
        return f"<LLM {self.name}: {'closed' if self._exclusive.lifetime.closed else used}>"

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The file's tokenizer, read when first needed. Raises ModelFileError."""
        self._check_open()
        return Tokenizer.of_model(self.file, self.engine.vocab_size)

    @cached_property
    def template(self) -> ChatTemplate:
        """The file's chat template, compiled when first needed. Raises ModelFileError."""
        self._check_open()
        from qcli.text.chat_template import ChatTemplate  # Jinja2 takes 0.05 s that a raw prompt need not wait for

        return ChatTemplate.from_gguf(self.file, self.tokenizer)

    @cached_property
    def think_tags(self) -> list[ThinkTags]:
        """The tags between which the model thinks, most often one pair or none."""
        self._check_open()
        return find_think_tags(self.tokenizer, self.file.get_str("tokenizer.chat_template", ""))

    @cached_property
    def thinking(self) -> Thinking:
        """How the model is told to think or not."""
        self._check_open()
        from qcli.text.thinking import Thinking

        architecture = self.file.get_str("general.architecture", "")
        return Thinking(self.template, self.think_tags, speaks_harmony(self.tokenizer), architecture)

    @cached_property
    def _notation(self) -> Notation | None:
        """How the model writes tool calls."""
        return find_notation(self.tokenizer.special_texts, self.file.get_str("tokenizer.chat_template", ""))

    def _prompts(self, think: Think, tools: Tools | None) -> ChatPrompts:
        """The prompts of conversations whose next answer is thought about so, and may call these. Raises UsageError."""
        key = self.thinking.manner(think), tools
        if key not in self._written:
            self._written[key] = ChatPrompts(self.tokenizer, self.template, self.think_tags, *key, self._notation)
        return self._written[key]

    def tokenize(self, text: str, special: bool = True) -> list[int]:
        """Token ids of a text.

        special=True, for prompts that you have written: "<|im_end|>" in the text is the control token of that name.
        special=False, for text of other people: it is read as the ten characters that stand there.
        """
        self._check_open()
        return self.tokenizer.encode(checked_text(text), special)

    def detokenize(self, ids: Iterable[int]) -> str:
        """The text of token ids, control tokens left out."""
        self._check_open()
        return self.tokenizer.decode(token_ids(ids, self.tokenizer.vocab_size))

    def render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        *,
        think: Think = None,
        tools: Tools | Sequence[Any] | None = None,
    ) -> str:
        """The prompt that the model's chat template makes of a conversation."""
        self._check_open()
        manner = self.thinking.manner(think)
        variables = dict(manner.variables) | ({"tools": checked_tools(tools).listed} if tools else {})
        text = self.template.render(messages, add_generation_prompt=add_generation_prompt, **variables)
        return text + manner.ending if add_generation_prompt else text

    def sampling(self, **given: Unpack[SamplingOptions]) -> Sampling:
        """The model's own sampling, with those options replaced that are given and not None. Raises UsageError."""
        self._check_open()
        chosen: dict[str, Any] = {n: value for n, value in given.items() if value is not None or n not in OPTIONS}
        return Sampling(**{**catalog.sampling_defaults(self._entry, self.file), **chosen})

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits after each id, float32 [T, vocab], from an empty state, by the prefill that generation uses."""
        with self._exclusive.use_anew():
            ids = token_ids(ids, self.engine.vocab_size)
            check_ids(ids, self.engine.vocab_size)
            return self._cache.logits(ids)

    def generate(self, prompt: str, **options: Unpack[Options]) -> Answer:
        """Continue a prompt as it stands, without a template; yields the text in pieces of whole characters.

        Control tokens that the prompt spells are read as such. Pieces of the class Thought are what the model thinks; of
        `think`, a number of tokens alone has a meaning here.
        """
        with self._exclusive.use():
            wanted = checked(options).without_template()
            ids = self.tokenizer.prompt(checked_text(prompt))
            return self._begin(ids, NO_MARKS, prompt, self.tokenizer.end_ids, wanted)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        begun: Sequence[int] = (),
        like: Iterable[Sequence[Message]] = (),
        **options: Unpack[Options],
    ) -> Answer:
        """Answer a conversation; of one that begins like another that was there, only what is new is prefilled.

        An answer among the messages may say by which ids it was generated ("ids"), as `Answer.ids` has them.
        begun: ids of the answer so far, which goes on from there; like: conversations that may come later and begin like
        this one, so that what they share need not be prefilled again.
        Yields pieces as generate does; those of the class Thought are what the model thinks before it answers, and with tools,
        those of the class ToolCall are whole calls, to be answered by a message of the role "tool".
        """
        with self._exclusive.use():
            messages, wanted = checked_messages(messages), checked(options)
            prompts = self._prompts(wanted.think, wanted.tools)
            prompt, ids = prompts.of(messages)
            begun = token_ids(begun, self.tokenizer.vocab_size)
            marks = prompts.marks(messages, ids, like, self._keep)
            return self._begin(ids + begun, marks, prompt.text, prompts.end_ids, wanted, begun)

    def end_thought(self) -> None:
        """Have the answer that is being read close its thought now, by the model's own words, and go on; from any thread."""
        if self._closer and (closer := self._closer()):
            closer.end_thought()

    def checkpoint(self) -> Checkpoint:
        """What the model has read and said so far, to come back to by restore(); keys and values are not copied."""
        with self._exclusive.use_anew():
            return self._cache.checkpoint()

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write what the model has read and said so far into a file, keys and values too. Raises OutputError."""
        checkpoint = self.checkpoint()
        if checkpoint.logits is None:
            raise UsageError("there is nothing to save yet", "have the model answer something first")
        saved_text.save(Path(path), checkpoint, self.engine.state, self.file, overwrite)

    def load(self, path: str | Path) -> None:
        """Go on from what save() wrote, of this model. Raises QcliError."""
        with self._exclusive.use_anew():
            read = partial(saved_text.load, Path(path), self.engine.vocab_size, self.engine.state, self.file)
            self._cache.adopt(read)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint of this model; what was given up meanwhile is prefilled again."""
        with self._exclusive.use_anew():
            self._cache.restore(checkpoint, self._progress)

    def conversation(self, **given: Any) -> Conversation:
        """A conversation with this model, whose turns can be taken back, edited and forked; `given` as Conversation takes."""
        return Conversation(self, **given)

    def close(self) -> None:
        """Stop the answer, end the threads, unmap the file; closing twice does no harm.

        Another thread that computes finishes its token first; in a callback of this thread, it is the callback's call that
        closes when it returns. A forked child has nothing to close.
        """
        self._exclusive.close()

    def __enter__(self) -> LLM:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def resume(self, messages: Sequence[Message], think: Think = None, tools: Tools | None = None) -> Resumed:
        """Bring back what is known of a conversation, and prefill what is not, so that the next answer begins at once."""
        with self._exclusive.use_anew():
            return resume(
                self._cache, self._prompts(think, tools), checked_messages(messages), self._keep, self._progress
            )

    def _begin(
        self,
        ids: list[int],
        marks: Marks,
        prompt: str,
        end_ids: frozenset[int],
        wanted: Checked,
        begun: Sequence[int] = (),
    ) -> Answer:
        check_ids(ids, self.engine.vocab_size)
        sampler = Sampler(self.sampling(**wanted.sampling), self.tokenizer.vocab_size)
        parser = parser_with_calls(self.tokenizer, self.think_tags, prompt, self._notation, wanted.tools)
        self._exclusive.end_unread()
        self.stats, said = Stats(load_s=self.load_s), [*begun]
        closer = ThoughtCloser(parser, self._closing_ids, wanted.budget)
        self._closer = weakref.ref(closer)
        tokens = generate_ids(
            self._cache, ids, sampler, wanted.max_tokens, end_ids, self.stats, self._progress, marks, closer.next_id
        )
        return self._exclusive.begin(generate_text(tokens, closer, wanted.stop, self.stats, said), said)

    def _closing_ids(self) -> list[int]:
        return self.tokenizer.encode(self.thinking.closing_words)

    def _check_open(self) -> None:
        self._exclusive.lifetime.check_open()


def _end(cache: PrefixCache, file: GGUFFile) -> None:
    try:
        cache.close()
    except OutputError as error:  # the usage of its experts
        warnings.warn(str(error), stacklevel=2)
    file.close()
