"""The commands of a chat that go from turn to turn, and from conversation to conversation."""

from __future__ import annotations

from collections.abc import Iterator

from qcli import console
from qcli.commands.answer import discard, show
from qcli.commands.recording import bring_back, called
from qcli.commands.talk import Talk, number
from qcli.errors import UsageError
from qcli.wording import counted

_LISTED = 20


def undo(talk: Talk, argument: str) -> None:
    """Take turns back."""
    n = number(argument, "undo")
    is_summary = n == 1 and any(message.role == "summary" for message in talk.conversation.log.branch()[-1:])
    before = talk.conversation.log.branch()
    talk.conversation.undo(n)
    ran = sum(message.role == "tool" for message in before[len(talk.conversation.log.branch()) :])
    what = f"; what the {'tool' if ran == 1 else 'tools'} did stays done" if ran else ""
    if is_summary:
        console.info("the summary is removed: the model sees the messages themselves again")
        return
    _tell_turns(talk, f"{counted(n, 'turn')} taken back; /redo brings it back", what)


def redo(talk: Talk, argument: str) -> None:
    """Bring turns back."""
    n = number(argument, "redo")
    talk.conversation.redo(n)
    _tell_turns(talk, f"{counted(n, 'turn')} brought back")


def edit(talk: Talk, argument: str) -> None:
    """Have the last message changed in an editor, and answer it."""
    from qcli.terminal.editor import edited

    if not talk.interactive:
        raise UsageError("/edit works only in a terminal", "/undo takes the last message back; then type another one")
    before = talk.conversation.last_question()
    text = edited(before)
    if not text.strip() or text.strip() == before.strip():
        console.info("nothing was changed; /regenerate gets another answer")
        return
    console.info(f"> {text}")
    talk.say(talk.conversation.edit(text))


def regenerate(talk: Talk, argument: str) -> None:
    """Answer the last message again."""
    talk.say(talk.conversation.regenerate())


def resume_answer(talk: Talk, argument: str) -> None:
    """Go on with an answer."""
    branch = talk.conversation.log.branch()
    talk.say(
        talk.conversation.resume_answer(), goes_on=branch[-1].text if branch and branch[-1].role == "assistant" else ""
    )


def compact(talk: Talk, argument: str) -> None:
    """Have a summary stand for old turns."""
    before = talk.conversation.log.head
    with talk.bar:
        write = discard if talk.quiet else console.aside
        interrupted = show(talk.conversation.compact(), talk.bar, write, discard)[1]
    if interrupted and not talk.interactive:
        raise KeyboardInterrupt
    if talk.conversation.log.head == before:
        console.info("stopped: nothing was changed")
        return
    told = talk.conversation.log.branch()[-1].figures
    turns, tokens = counted(told["turns"], "turn"), counted(told["replaced_tokens"], "token")
    console.info(f"summed up {turns}: {tokens} -> {counted(told['new_tokens'], 'token')}; /undo undoes this")


def clear(talk: Talk, argument: str) -> None:
    """Begin a new conversation with the same system message."""
    talk.begin(None, talk.conversation.system)
    console.info("a new conversation")


def fork(talk: Talk, argument: str) -> None:
    """Go on in a copy."""
    if talk.path is None:
        raise UsageError("only a saved conversation can be copied", "/save saves this one")
    if not talk.conversation.turns:
        raise UsageError("there is nothing to copy yet", "type a message first")
    talk.go_to(talk.conversation.fork(argument))
    console.info("you are now in a copy of this conversation; /resume - goes back to the first one")


def sessions(talk: Talk, argument: str) -> None:
    """List the recorded conversations."""
    listed = talk.library.list()
    if not listed:
        console.info("no conversation is saved yet")
    for summary in listed[:_LISTED]:
        here = " · this one" if summary.path == talk.path else ""
        messages = counted(summary.messages, "message")
        console.info(f"{summary.number:3}  {called(summary.name, summary.title)} · {messages} · {summary.model}{here}")
    if len(listed) > _LISTED:
        console.info(f"     and {len(listed) - _LISTED:,} more: `qcli sessions` lists them all")


def resume(talk: Talk, argument: str) -> None:
    """Go on with another conversation."""
    talk.begin(talk.library.open(talk.found(argument or "-")), None)
    with talk.keys_kept():
        bring_back(talk.conversation, talk.bar, console.info)


def session_names(talk: Talk, typed: str) -> Iterator[tuple[str, str]]:
    """What can be typed after /resume, and how each begins."""
    for summary in talk.library.list()[:_LISTED]:
        if summary.path != talk.path:
            yield summary.name or str(summary.number), summary.title


def save(talk: Talk, argument: str) -> None:
    """Record the conversation, or name it."""
    if talk.path is not None and not argument:
        raise UsageError("this conversation is saved already", "/save NAME gives it a name")
    talk.conversation.save(argument)
    name = talk.conversation.log.name
    console.info(f"saved as {name}" if name else "saved from now on, with all that was said before")


def system(talk: Talk, argument: str) -> None:
    """Show, set or drop the system message."""
    if argument:
        talk.conversation.system = "" if argument.lower() == "off" else argument
    text = talk.conversation.system
    console.info(f"instructions (system message): {text}" if text else "there are no instructions (system message)")


def short(text: str) -> str:
    """A line's worth of a text."""
    words = " ".join(text[:400].split())
    return words if len(words) <= 60 else words[:59] + "…"


def _tell_turns(talk: Talk, done: str, more: str = "") -> None:
    turns = talk.conversation.turns
    last = (
        f'{counted(turns, "turn")}, the last: "{short(talk.conversation.last_question())}"'
        if turns
        else "nothing is left"
    )
    console.info(f"{done} · {last}{more}")
