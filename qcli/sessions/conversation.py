"""A conversation with a model: what is said, taken back, said otherwise, and gone on with another day."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from time import time
from typing import Any

from qcli.errors import ContextOverflowError, OutputError, UsageError
from qcli.host.signals import interrupts_wait
from qcli.runtime.resume import Resumed
from qcli.sessions import calls, context, turns
from qcli.sessions.header import header_of, what_differs
from qcli.sessions.library import Library
from qcli.sessions.log import SessionLog
from qcli.sessions.model import Model
from qcli.sessions.reply import Reply
from qcli.sessions.said import Said
from qcli.sessions.seeds import seeded
from qcli.sessions.session import COMPLETE, Message
from qcli.sessions.summary import Summary
from qcli.sessions.unsaved import Unsaved
from qcli.tools.call import ToolCall


class Conversation:
    """Messages that a model answers, as a tree: what is taken back or said otherwise stays in it.

    Each turn is added to the log when its answer ends, also one that was ended early, if anything was said. While an answer
    is read, nothing else can be done: what is called meanwhile ends it.
    """

    def __init__(
        self,
        llm: Model,
        log: SessionLog | None = None,
        *,
        system: str | None = None,
        ctx_full: str = "stop",
        tell: Callable[[str], object] | None = None,
        library: Library | None = None,
        **options: Any,
    ) -> None:
        """log: where it is recorded, and what it goes on from; None: nowhere, until `save`.

        system: a system message in place of the log's; "" for none; ctx_full: "stop": an answer ends when the context is
        full, and what does not fit is a ContextOverflowError; "oldest": the oldest turns are left out of the prompt;
        tell: gets remarks; library: where `save` and `fork` record; options: those of every answer, as LLM.chat takes them.
        """
        self.llm = llm
        self.log: SessionLog | Unsaved = Unsaved() if log is None else log
        self._system = system
        self._ctx_full = context.checked(ctx_full)
        self._tell = tell or (lambda remark: None)
        self.library = library or Library()
        self.options = options  # of the answers to come
        self._answer: Generator[str, None, None] | None = None  # the one that is being read
        self._told_nearly = False
        self.problem: OutputError | None = None  # why it is recorded no longer

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation so far, as LLM.chat takes it."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return system + context.prompt([m for m in self.log.branch() if m.role != "system"])

    @property
    def system(self) -> str:
        """The system message of the next answer; "" for none."""
        return context.system_text(self.log.branch()) if self._system is None else self._system

    @system.setter
    def system(self, text: str) -> None:
        self._system = text

    @property
    def turns(self) -> int:
        """How many messages of the user there are."""
        return len(turns.asked(self.log.branch()))

    def ask(self, text: str, *, about: str = "", **options: Any) -> Generator[str, None, None]:
        """Answer a message: pieces as LLM.chat yields them.

        about: a text that the message begins with, and other messages may begin with, too: it is kept apart.
        """
        self._settle()
        return self._begin(self.log.branch(), about + text, options, about)

    def edit(self, text: str, **options: Any) -> Generator[str, None, None]:
        """Answer another text in place of the last message."""
        branch = self._up_to_last_question()
        return self._begin(branch[:-1], text, options, more=self._summaries())

    def regenerate(self, **options: Any) -> Generator[str, None, None]:
        """Answer the last message again."""
        branch = self._up_to_last_question()
        if self.system != context.system_text(branch):
            return self._begin(branch[:-1], branch[-1].text, options, more=self._summaries())
        return self._start(branch, self._summaries(), None, options)

    def resume_answer(self, **options: Any) -> Generator[str, None, None]:
        """Go on with the last answer, which was cut by its end of tokens, by the context, or by whoever read it."""
        self._up_to_last_question()
        before, last, summaries = turns.around_last_said(self.log.branch())
        if last.finish_reason in COMPLETE:
            raise UsageError("the last answer is complete", "ask for more, or regenerate it")
        if last.role == "assistant" and not context.is_of(last, self.llm):
            raise UsageError("the last answer is another model's", "regenerate it, or ask for more")
        if last.role != "assistant":
            return self._start([*before, last], summaries, None, options)
        begun = last.sampling.get("think")  # its thought goes on as it began, whatever others are now to do
        return self._start(before, summaries, last, {**options, "think": begun})

    def open_calls(self) -> list[ToolCall]:
        """The calls of the last answer that no tool has answered yet."""
        self._settle()
        return calls.open_calls(self.log.branch())

    def add_results(self, *given: tuple[ToolCall, str]) -> None:
        """Record what tools gave back for calls of the last answer."""
        self._settle()
        self._add(self.log.branch(), calls.results(given))

    def go_on(self, **options: Any) -> Generator[str, None, None]:
        """Have the model go on from what tools gave back. Raises UsageError if a call is not answered yet."""
        if self.open_calls() or not (branch := self.log.branch()) or branch[-1].role != "tool":
            raise UsageError("there is a call to be answered first", "add_results() takes what its tool gave back")
        return self._start(branch, [], None, {"tool_choice": None, **options})

    def compact(self) -> Generator[str, None, None]:
        """Have the model sum up all but the last turns, and see that in place of them; pieces of what it says.

        Nothing changes before it has come to its end. Raises UsageError if there is nothing to sum up, QcliError if no
        summary comes of it, or one that is not shorter. `undo` takes it back.
        """
        self._settle()
        branch = self.log.branch()
        self._answer = self._summed_up(branch, Summary(self.llm, branch))
        return self._answer

    def _summed_up(self, branch: list[Message], summary: Summary) -> Generator[str, None, None]:
        with closing(summary.pieces(self.options)) as pieces:
            yield from pieces
        with interrupts_wait():
            self._add(branch, [summary.message()])
            self._told_nearly = False

    def bring_back(self) -> Resumed | None:
        """Have the model know the conversation so far, from what is kept of it or by reading it; None: it has no room.

        What `ask` would do at first, done before anything is asked.
        """
        self._settle()
        branch = self.log.branch()
        messages = context.prompt(branch, context.left_out_before(branch, self.llm.engine.ctx), self.llm)
        if not messages or not messages[-1]["content"].strip() or calls.open_calls(branch):
            return None
        try:
            return self.llm.resume(messages, think=self.options.get("think"), tools=self.options.get("tools"))
        except ContextOverflowError:
            return None

    def last_question(self) -> str:
        """The user's last message. Raises UsageError if there is none."""
        return self._up_to_last_question()[-1].text

    def undo(self, n: int = 1) -> None:
        """Take the last n turns back. Raises UsageError if there are fewer."""
        self._settle()
        self.log.set_head(turns.head_before(self.log, n))

    def redo(self, n: int = 1) -> None:
        """Bring n turns back that were taken back, of several branches that of the last message written."""
        self._settle()
        self.log.set_head(turns.head_after(self.log, n))

    def fork(self, name: str = "") -> Conversation:
        """A new conversation that goes on from here; this one stays as it is. It is recorded if this one is."""
        self._settle()
        log: SessionLog | Unsaved = Unsaved() if isinstance(self.log, Unsaved) else self._new_log(name)
        if branch := self.log.branch():
            log.append(*branch)
        forked = Conversation(
            self.llm,
            system=self._system,
            ctx_full=self._ctx_full,
            tell=self._tell,
            library=self.library,
            **self.options,
        )
        forked.log = log
        return forked

    def save(self, name: str = "") -> None:
        """Give it a name; one that is in memory alone is recorded from now on. Raises UsageError, OutputError."""
        self._settle()
        if not isinstance(self.log, Unsaved):
            if name:
                self.log.set_name(self.library.check_name(name, but=self.log.path))
            return
        log = self._new_log(name)
        if self.log.messages:
            log.append(*self.log.messages.values())
            log.set_head(self.log.head)
        self.log, self.problem = log, None

    def close(self) -> None:
        """End an answer that is being read, and let others go on with the conversation."""
        self._settle()
        self.log.close()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def _new_log(self, name: str) -> SessionLog:
        return self.library.create(header_of(self.llm), name)

    def _settle(self) -> None:
        """End an answer that is being read; what it has said so far is recorded."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()

    def _summaries(self) -> list[Message]:
        return turns.after_last_question(self.log.branch())

    def _up_to_last_question(self) -> list[Message]:
        self._settle()
        return turns.up_to_last_question(self.log.branch())

    def _begin(
        self, branch: list[Message], text: str, options: dict[str, Any], about: str = "", more: Sequence[Message] = ()
    ) -> Generator[str, None, None]:
        """Answer a text after a branch, more messages, and a system message if that has changed."""
        unanswered = calls.results((call, calls.NOT_RUN) for call in calls.open_calls(branch))
        new = [*more, Message(0, None, "user", text, time=time())]
        if self.system != context.system_text(branch):
            new.insert(0, Message(0, None, "system", self.system, time=time()))
        return self._start(branch, [*unanswered, *new], None, options, about)

    def _start(
        self, branch: list[Message], new: list[Message], begun: Message | None, options: dict[str, Any], about: str = ""
    ) -> Generator[str, None, None]:
        given = seeded(self.options, options, self.log.messages.values())
        said = Said.after(begun)
        self._answer = self._answered(branch, new, said, given, about)
        return self._answer

    def _answered(
        self, branch: list[Message], new: list[Message], said: Said, options: dict[str, Any], about: str
    ) -> Generator[str, None, None]:
        """The pieces of an answer, which is recorded in the end, after the new messages before it."""
        reply = Reply(self.llm, [*branch, *new], said, self._ctx_full, self._tell, options, about)
        try:
            with closing(reply.pieces()) as pieces:
                yield from pieces
        finally:
            if said.counts():
                with interrupts_wait():
                    self._record(branch, new, said.message(options, self.llm))

    def _record(self, branch: list[Message], new: list[Message], answer: Message) -> None:
        self._add(branch, [*new, answer])
        self._system = None
        self._tell_when_nearly_full(answer)

    def _add(self, branch: list[Message], new: list[Message]) -> None:
        parent, id = (branch[-1].id if branch else None), self.log.next_id()
        turn = []
        for message in new:
            turn.append(replace(message, id=id, parent=parent))
            parent, id = id, id + 1
        try:
            if isinstance(self.log, SessionLog) and what_differs(self.log.header, self.llm):
                self.log.set_header(**header_of(self.llm))
            self.log.append(*turn)
        except OutputError as problem:
            self._go_on_in_memory(problem)
            self.log.append(*turn)

    def _go_on_in_memory(self, problem: OutputError) -> None:
        log, self.log = self.log, Unsaved.of(self.log)
        log.close()
        self.problem = problem
        self._tell(f"{problem.message}: from now on, the conversation is not saved")

    def _tell_when_nearly_full(self, answer: Message) -> None:
        used = answer.figures["prompt_tokens"] + self.llm.stats.new_tokens
        ctx, longest = self.llm.engine.ctx, self.llm.engine.longest
        if not self._told_nearly and (remark := context.nearly_full(used, ctx, longest, self._ctx_full)):
            self._told_nearly = True
            self._tell(remark)
