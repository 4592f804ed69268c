"""LLM: a model file, ready to answer. The object behind every command, and the one to import."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from qcli import console
from qcli.catalog.recommended_sampling import sampling_defaults
from qcli.catalog.resolve import name_of, resolve
from qcli.constraints.python_types import parsed
from qcli.constraints.vocabulary import Preparation
from qcli.drafts.setting import Draft, draft_setting, require_head
from qcli.gguf.draft_block import open_with_draft
from qcli.progress import Progress
from qcli.runtime.answer_options import Checked, Options, check_positive, checked
from qcli.runtime.chat_prompts import Message, as_messages, checked_messages
from qcli.runtime.chats import Chats
from qcli.runtime.checkpoint import ALONE, NO_MARKS, Keep
from qcli.runtime.closing import close_model
from qcli.runtime.engine import Engine
from qcli.runtime.exclusive import Answer, Exclusive
from qcli.runtime.generation import Generation, Prompt
from qcli.runtime.prefix_cache import PrefixCache
from qcli.runtime.prompt_size import sized
from qcli.runtime.resume import Resumed, resume
from qcli.runtime.sampling import OPTIONS, Sampling, SamplingOptions
from qcli.runtime.several import Several
from qcli.runtime.several_answers import SeveralAnswers
from qcli.runtime.state_store import store_for
from qcli.runtime.stats import Stats
from qcli.runtime.text_states import TextStates
from qcli.runtime.thought_closer import ThoughtCloser
from qcli.runtime.together import Together
from qcli.sessions.conversation import Conversation
from qcli.text.content import checked_text
from qcli.text.think_tags import ThinkTags, find_think_tags
from qcli.text.thoughts import speaks_harmony
from qcli.text.token_ids import check_ids, token_ids
from qcli.text.tokenizer import Tokenizer
from qcli.wording import parse_size

if TYPE_CHECKING:
    from qcli.text.chat_template import ChatTemplate
    from qcli.text.think_setting import Think
    from qcli.text.thinking import Thinking


class LLM(TextStates, SeveralAnswers):
    """A model by path or by name (None: the embedded one); a context manager.

    One answer at a time: a new one ends one that was left unread, and reading that one on is a QcliError. What one thread
    asks waits until the answers of others are read, closed or dropped; batch() and astream() give several at a time. After
    close(), and in a child process after os.fork(), whatever needs the model is a QcliError.
    """

    def __init__(
        self, path_or_name: str | Path | None = None, threads: int | None = None, ctx: int | None = None, *,
        kv_type: str | None = None, ram: int | str | None = None, keep: Keep = None, draft: str | int = "auto",
        draft_model: str | Path | None = None, constrained: bool = False,
        progress: Progress | Literal["auto"] | bool | None = "auto",
    ) -> None:  # fmt: skip
        """Map the file and load the engine; raises ModelNotFoundError, ModelFileError.

        threads: None for the physical cores; ctx: capacity in tokens, None for what the model was made for, up to 32,768;
        kv_type: "f16", half the size, "q8_0", or twice, "f32", for the keys and values of attention;
        ram: bytes, or "24GB", that the process may use, None for what is free: beyond that, experts are read as needed;
        keep: what to keep on disk for the next process, so that it need not prefill it: "beginnings" of prompts, as system
        messages are, or "turns", every conversation after each answer; "shared": beginnings, in memory, nothing else;
        draft: "auto", "off", "mtp", "lookup", or how many tokens to guess at a time: the same answer, sooner;
        draft_model: a file with a block for multi-token prediction, None for one beside the model, if there is one;
        constrained: whether answers will have a form to keep to, for which the vocabulary is made ready meanwhile;
        progress: is told a stage and a fraction from 0 to 1 while kernels compile, weights load, prompts are prefilled;
        "auto" shows it to people, in a terminal or a notebook, if that takes some seconds, False to nobody.
        """
        began = perf_counter()
        check_positive("threads", threads)
        check_positive("ctx", ctx)
        guesses = Draft.of(draft_setting("draft", draft))
        path, self._entry = resolve(path_or_name)
        self.file = open_with_draft(path, draft_model)
        self._preparation = Preparation(path) if constrained else None
        with console.Telling(progress) as told:
            try:
                ram = parse_size(ram) if isinstance(ram, str) else ram
                given: Any = {"threads": threads, "ctx": ctx, "kv_type": kv_type, "ram": ram, "progress": told}
                self.engine = Engine.load(self.file, mtp=guesses.asks_head, beside=True, **given)
                require_head(guesses, self.engine.draft_head is not None, path)
            except BaseException:
                self.file.close()
                raise
        self._keep, of_disk = keep, (self.file, self.engine.state, self.engine.vocab_size)
        store = store_for(*of_disk) if keep in ("beginnings", "turns") else None
        self._cache = PrefixCache(self.engine, store, guesses)
        self._exclusive = Exclusive(partial(close_model, self._cache, self.file), told.close)
        self._progress = self._exclusive.heard(told)
        self._closer: weakref.ref[ThoughtCloser] | None = None  # of the last answer, which has it
        self._together: Together | None = None  # where several answers are given at a time
        self._several = Several(self._exclusive, self._cache)
        self._stats, self._last_of = Stats(), threading.local()
        self.load_s = perf_counter() - began

    @property
    def name(self) -> str:
        """What models.toml calls the model, else its file's name."""
        return name_of(self.file.path, self._entry)

    @property
    def stats(self) -> Stats:
        """Of the last answer that this thread has asked for; if there is none, of the last."""
        own: Stats = getattr(self._last_of, "stats", self._stats)
        return own

    def __repr__(self) -> str:
        engine = self.engine
        used = f"{engine.threads} threads, {engine.position} of {engine.ctx} tokens of context used"
        return f"<LLM {self.name}: {'closed' if self._exclusive.lifetime.closed else used}>"

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The file's tokenizer, read when first needed. Raises ModelFileError."""
        self._exclusive.lifetime.check_open()
        prepared = self._preparation and self._preparation.tokenizer()
        return (prepared or Tokenizer.from_gguf(self.file)).checked(self.file, self.engine.vocab_size)

    @cached_property
    def template(self) -> ChatTemplate:
        """The file's chat template, compiled when first needed. Raises ModelFileError."""
        self._exclusive.lifetime.check_open()
        from qcli.text.chat_template import ChatTemplate  # Jinja2 takes 0.05 s that a raw prompt need not wait for

        return ChatTemplate.from_gguf(self.file, self.tokenizer)

    @cached_property
    def think_tags(self) -> list[ThinkTags]:
        """The tags between which the model thinks, most often one pair or none."""
        self._exclusive.lifetime.check_open()
        return find_think_tags(self.tokenizer, self.file.get_str("tokenizer.chat_template", ""))

    @cached_property
    def thinking(self) -> Thinking:
        """How the model is told to think or not."""
        self._exclusive.lifetime.check_open()
        from qcli.text.thinking import Thinking

        architecture = self.file.get_str("general.architecture", "")
        return Thinking(self.template, self.think_tags, speaks_harmony(self.tokenizer), architecture)

    @cached_property
    def _chats(self) -> Chats:
        return Chats(self.tokenizer, self.template, self.think_tags, self.thinking)

    def tokenize(self, text: str, special: bool = True) -> list[int]:
        """Token ids of a text.

        special=True, for prompts that you have written: "<|im_end|>" in the text is the control token of that name.
        special=False, for text of other people: it is read as the ten characters that stand there.
        """
        self._exclusive.lifetime.check_open()
        return self.tokenizer.encode(checked_text(text), special)

    def detokenize(self, ids: Iterable[int]) -> str:
        """The text of token ids, control tokens left out."""
        self._exclusive.lifetime.check_open()
        return self.tokenizer.decode(token_ids(ids, self.tokenizer.vocab_size))

    def render(
        self, messages: Sequence[Message], add_generation_prompt: bool = True, *, think: Think = None, tools: Any = None
    ) -> str:
        """The prompt that the model's chat template makes of a conversation."""
        self._exclusive.lifetime.check_open()
        return self._chats.rendered(messages, add_generation_prompt, think, tools)

    def sampling(self, **given: Unpack[SamplingOptions]) -> Sampling:
        """The model's own sampling, with those options replaced that are given and not None. Raises UsageError."""
        self._exclusive.lifetime.check_open()
        chosen: dict[str, Any] = {n: value for n, value in given.items() if value is not None or n not in OPTIONS}
        return Sampling(**{**sampling_defaults(self._entry, self.file), **chosen})

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
        with self._exclusive.use(anew=self._together is None):
            return self._begin(*self._continued(prompt, options), self._together)

    def chat(
        self, messages: Sequence[Message], *, begun: Sequence[int] = (), like: Iterable[Sequence[Message]] = (),
        **options: Unpack[Options],
    ) -> Answer:  # fmt: skip
        """Answer a conversation; of one that begins like another that was there, only what is new is prefilled.

        An answer among the messages may say by which ids it was generated ("ids"), as `Answer.ids` has them.
        begun: ids of the answer so far, to go on from; like: conversations that may come later and begin like this one.
        Yields pieces as generate does: Thoughts are what the model thinks before it answers, ToolCalls whole calls of a tool.
        """
        with self._exclusive.use(anew=self._together is None):
            return self._begin(*self._asked(messages, options, begun, like), self._together)

    def parse(self, asked: str | Sequence[Message], kind: Any, **options: Unpack[Options]) -> Any:
        """Answer a conversation, or a question, by an object of a type: a dataclass, a pydantic model, or such as list[str].
        Raises QcliError for an answer that is cut by max_tokens or by the context."""
        answer = self.chat(as_messages(asked), **{**options, "schema": kind})
        return parsed(kind, answer, lambda: answer.stats.fits)

    def together(self, most: int) -> Together:
        """Have answers be given together from now on, up to so many at a time: each goes on by `Together.pieces`.

        What an answer says does not depend on others. Raises QcliError if there is no room for the experts of several texts.
        """
        with self._exclusive.use_anew():
            self._together = Together(self._cache, most)
            return self._together

    def end_thought(self) -> None:
        """Have the answer that is being read close its thought now, by the model's own words, and go on; from any thread."""
        if self._closer and (closer := self._closer()):
            closer.end_thought()

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
        self._exclusive.lifetime.check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def resume(self, messages: Sequence[Message], think: Think = None, tools: Any = None) -> Resumed:
        """Bring back what is known of a conversation, and prefill what is not, so that the next answer begins at once."""
        with self._exclusive.use_anew():
            prompts = self._chats.prompts(think, tools)
            return resume(self._cache, prompts, checked_messages(messages), self._keep, self._progress)

    def _continued(self, prompt: str, options: Options) -> tuple[Prompt, Checked]:
        wanted = checked(options).without_template()
        ids = self.tokenizer.prompt(sized(checked_text(prompt), self.tokenizer, self.engine))
        kept = ALONE if self._keep == "shared" else NO_MARKS
        return Prompt(ids, prompt, self.tokenizer.end_ids, kept.with_one_at(len(ids)) if wanted.again else kept), wanted

    def _asked(self, asked: Any, options: Options, begun: Sequence[int] = (), like: Any = ()) -> tuple[Prompt, Checked]:
        messages, wanted = sized(checked_messages(asked), self.tokenizer, self.engine), checked(options)
        begun = token_ids(begun, self.tokenizer.vocab_size)
        return self._chats.asked(messages, wanted, begun, like, self._keep), wanted

    def _one_of(self, asked: str | Sequence[Message], raw: bool, options: Options, beside: Together | None) -> Answer:
        """Begin one of several answers, beside others, for whoever has the model; else alone."""
        text: Any = asked
        if beside is None:
            return self.generate(text, **options) if raw else self.chat(as_messages(asked), **options)
        made = self._continued(text, options) if raw else self._asked(as_messages(asked), options)
        return self._begin(*made, beside)

    def _begin(self, prompt: Prompt, wanted: Checked, together: Together | None) -> Answer:
        check_ids(prompt.ids, self.engine.vocab_size)
        if wanted.is_held and not self._preparation:
            self._preparation = Preparation(self.file.path, self.tokenizer)
        vocabulary = self._preparation.vocabulary() if wanted.is_held and self._preparation else None
        sampling = self.sampling(**wanted.sampling)
        text = together.text() if together else None
        if not text:
            self._exclusive.end_unread()
        stats = self._stats = self._last_of.stats = Stats(load_s=self.load_s)
        given = prompt, wanted, sampling, self._closing_ids, vocabulary, stats
        new = Generation(self.tokenizer, self.think_tags, *given)
        self._closer = weakref.ref(new.closer)
        pieces = new.pieces(text or self._cache, self._progress)
        answer = self._exclusive.begin(pieces, new.said, new.logprobs, stats)
        if together and text:
            together.begin(answer, pieces, text)
        return answer

    def _closing_ids(self) -> list[int]:
        return self.tokenizer.encode(self.thinking.closing_words)
