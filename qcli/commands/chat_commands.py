"""What can be typed in a chat besides messages: words that begin with a slash."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from qcli import console
from qcli.commands.answer import figures
from qcli.commands.recording import bring_back, called
from qcli.commands.talk import Talk, number
from qcli.errors import UsageError
from qcli.wording import counted

_COMMAND = re.compile(r"/([A-Za-z?]+)(?:\s+(.*))?", re.DOTALL)
_MEANT = {
    **{"quit": "exit", "bye": "exit", "q": "exit", "?": "help", "h": "help", "reset": "clear", "new": "clear"},
    **{"retry": "regenerate", "back": "undo", "list": "sessions", "load": "resume", "name": "save", "branch": "fork"},
}
_KEYS = (
    "Alt-Enter, or \\ at the end of a line, begins a new line; Ctrl-C stops an answer, which /continue goes on with."
)


@dataclass(frozen=True)
class Command:
    """A command of a chat."""

    does: Callable[[Talk, str], None]
    help: tuple[str, ...]  # "what is typed: what it does"
    takes: bool = False  # whether something may follow it


def parsed(turn: str) -> tuple[str, str]:
    """The command that a turn is and what follows it; no command if it is a message, which may begin with a path.

    A word alone, or one like a command, is that command, typed wrongly: nothing of the kind goes to the model.
    """
    found = _COMMAND.fullmatch(turn)
    if not found:
        return "", ""
    name, argument = found[1].lower(), (found[2] or "").strip()
    name = _MEANT.get(name, name) if not argument else name
    if name in COMMANDS or not argument or get_close_matches(name, COMMANDS, n=1, cutoff=0.7):
        return name, argument
    return "", ""


def obey(talk: Talk, name: str, argument: str) -> None:
    """Do what a command says, all but /exit. Raises QcliError."""
    command = COMMANDS.get(name)
    if command is None:
        raise UsageError(f"there is no command /{name}", _instead(name))
    if argument and not command.takes:
        raise UsageError(f"/{name} takes nothing after it", "begin a message with another word")
    command.does(talk, argument)


def _instead(name: str) -> str:
    close = get_close_matches(name, COMMANDS, n=1)
    return f"did you mean /{close[0]}? /help lists them" if close else "/help lists them"


def _help(talk: Talk, argument: str) -> None:
    lines = [line.partition(": ") for command in COMMANDS.values() for line in command.help]
    width = max(len(typed) for typed, _, _ in lines)
    console.info("\n".join([*(f"{typed:{width}}  {does}" for typed, _, does in lines), _KEYS]))


def _clear(talk: Talk, argument: str) -> None:
    talk.go_to(talk.make(None, talk.conversation.system))
    console.info("a new conversation")


def _system(talk: Talk, argument: str) -> None:
    if argument:
        talk.conversation.system = "" if argument.lower() == "off" else argument
    system = talk.conversation.system
    console.info(f"the system message is: {system}" if system else "there is no system message")


def _stats(talk: Talk, argument: str) -> None:
    engine = talk.llm.engine
    console.figures(figures(talk.llm.stats))
    console.info(f"{engine.position} of the context's {engine.ctx} tokens used")


def _undo(talk: Talk, argument: str) -> None:
    n = number(argument, "undo")
    talk.conversation.undo(n)
    _tell_turns(talk, f"{counted(n, 'turn')} taken back; /redo brings back")


def _redo(talk: Talk, argument: str) -> None:
    n = number(argument, "redo")
    talk.conversation.redo(n)
    _tell_turns(talk, f"{counted(n, 'turn')} brought back")


def _tell_turns(talk: Talk, done: str) -> None:
    turns = talk.conversation.turns
    last = (
        f'{counted(turns, "turn")}, the last: "{_short(talk.conversation.last_question())}"'
        if turns
        else "none is left"
    )
    console.info(f"{done} · {last}")


def _short(text: str) -> str:
    words = " ".join(text[:400].split())
    return words if len(words) <= 60 else words[:59] + "…"


def _edit(talk: Talk, argument: str) -> None:
    from qcli.terminal.editor import edited

    if not talk.interactive:
        raise UsageError("/edit needs a terminal", "/undo takes the last message back, and another one can follow")
    before = talk.conversation.last_question()
    text = edited(before)
    if not text.strip() or text.strip() == before.strip():
        console.info("nothing was changed; /regenerate answers the message again")
        return
    console.info(f"> {text}")
    talk.say(talk.conversation.edit(text))


def _regenerate(talk: Talk, argument: str) -> None:
    talk.say(talk.conversation.regenerate())


def _continue(talk: Talk, argument: str) -> None:
    talk.say(talk.conversation.resume_answer())


def _fork(talk: Talk, argument: str) -> None:
    if talk.path is None:
        raise UsageError("only a recorded conversation can be forked", "/save records this one")
    if not talk.conversation.turns:
        raise UsageError("there is nothing to fork yet", "type a message first")
    talk.go_to(talk.conversation.fork(argument))
    console.info("a copy, which goes on from here; /resume - goes back to the other one")


def _sessions(talk: Talk, argument: str) -> None:
    listed = talk.library.list()
    if not listed:
        console.info("no conversation is recorded yet")
    for summary in listed[:_LISTED]:
        here = " · this one" if summary.path == talk.path else ""
        messages = counted(summary.messages, "message")
        console.info(f"{summary.number:3}  {called(summary.name, summary.title)} · {messages} · {summary.model}{here}")
    if len(listed) > _LISTED:
        console.info(f"     and {len(listed) - _LISTED:,} more: `qcli sessions` lists them all")


def _resume(talk: Talk, argument: str) -> None:
    talk.go_to(talk.make(talk.library.open(talk.found(argument or "-")), None))
    bring_back(talk.conversation, talk.bar, console.info)


def _save(talk: Talk, argument: str) -> None:
    if talk.path is not None and not argument:
        raise UsageError("this conversation is recorded already", "/save NAME gives it a name")
    talk.conversation.save(argument)
    name = talk.conversation.log.name
    console.info(f"recorded as {name}" if name else "recorded from now on, with all that was said")


def _exit(talk: Talk, argument: str) -> None:
    """The chat itself looks for this word, and leaves."""


_LISTED = 20
COMMANDS: dict[str, Command] = {
    "undo": Command(_undo, ("/undo [N]: take the last turn back, or the last N",), takes=True),
    "redo": Command(_redo, ("/redo [N]: bring back what was taken back",), takes=True),
    "edit": Command(
        _edit, ("/edit: change your last message in an editor ($VISUAL or $EDITOR), and have it answered",)
    ),
    "regenerate": Command(_regenerate, ("/regenerate: answer the last message again",)),
    "continue": Command(_continue, ("/continue: go on with an answer that was stopped or cut",)),
    "clear": Command(_clear, ("/clear: begin a new conversation",)),
    "fork": Command(_fork, ("/fork [NAME]: go on in a copy, and leave this conversation as it is",), takes=True),
    "sessions": Command(_sessions, ("/sessions: list the conversations that are recorded",)),
    "resume": Command(
        _resume,
        ("/resume [NAME]: go on with another one, by name or number; -, or nothing: the one before",),
        takes=True,
    ),
    "save": Command(_save, ("/save [NAME]: record this conversation, or give it a name",), takes=True),
    "system": Command(
        _system,
        ("/system TEXT: set the system message; without a text, show it", "/system off: drop it"),
        takes=True,
    ),
    "stats": Command(_stats, ("/stats: figures of the last answer, and how full the context is",)),
    "help": Command(_help, ("/help: list these commands",)),
    "exit": Command(_exit, ("/exit: leave, as does Ctrl-D",)),
}
