"""What can be typed in a chat besides messages: each command is declared once, in COMMANDS.

From its declaration follow what is obeyed, /help, what Tab offers, and what is meant by a word that is nearly one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from os.path import exists

from qcli.commands import chat_files, chat_settings, chat_turns, listing
from qcli.commands.talk import Talk
from qcli.errors import UsageError

_COMMAND = re.compile(r"/([A-Za-z?][^\s/]*)(?:\s+(.*))?", re.DOTALL)
_LEAVING = ("exit", "quit")  # without a slash, too
_QUOTES = '"""'
_KEYS = (
    ("@FILE", "in a message: lets the model read that file"),
    ('"""', "before and after a message of several lines"),
    ("Alt-Enter", "new line; so does Enter after \\"),
    ("Ctrl-C", "stops the answer; /continue goes on with it"),
    ("Ctrl-T", "stops the thinking, and gets the answer"),
    ("Tab", "completes commands, names and files; the first letters of a command are enough"),
)


@dataclass(frozen=True)
class Command:
    """A command of a chat."""

    does: Callable[[Talk, str], None]
    help: str  # in one line
    takes: str = ""  # what may follow it
    also: tuple[str, ...] = ()  # other words for it
    words: Callable[[Talk, str], Iterable[tuple[str, str]]] = lambda talk, typed: ()  # that Tab offers, and their help


def is_leaving(turn: str) -> bool:
    """Whether a turn that a person types is a word alone that means to leave, without a slash."""
    return turn.lower() in _LEAVING


def quoted(turn: str) -> str | None:
    """The message between two times three quotes, whatever it begins with; None if there are none."""
    if turn.startswith(_QUOTES) and turn.endswith(_QUOTES) and len(turn) > 2 * len(_QUOTES):
        return turn.removeprefix(_QUOTES).removesuffix(_QUOTES).strip("\r\n")
    return None


def parsed(turn: str) -> tuple[str, str]:
    """The command that a turn is, and what follows it; no command if it is a message.

    A word after a slash is a command, if need be one that is mistyped and never goes to the model, unless it is the path
    of something in the root of the disk and more follows; a word with another slash in it is a path.
    """
    found = _COMMAND.fullmatch(turn)
    if not found:
        return "", ""
    word, argument = found[1].lower(), (found[2] or "").strip()
    meant = _meant(word)
    if len(meant) == 1:
        return meant[0], argument
    if argument and not meant and exists(f"/{found[1]}"):
        return "", ""
    return word, argument


def obey(talk: Talk, name: str, argument: str) -> None:
    """Do what a command says, all but /exit. Raises QcliError."""
    command = COMMANDS.get(name)
    if command is None:
        raise _unknown(name)
    if argument and not command.takes:
        raise UsageError(
            f"/{name} takes nothing after its name", 'to send it as a message, type """ before and after it'
        )
    command.does(talk, argument)


def completions(talk: Talk, before: str) -> Iterator[tuple[str, str, str]]:
    """What Tab offers after the text before the cursor: the end of it that is replaced, by what, and its help."""
    word = before[max(before.rfind(space) for space in " \n\t") + 1 :]
    if "\n" not in before and (found := re.match(r"/([^\s/]*)(\s+)?", before)):
        if not found[2]:
            for name, command in COMMANDS.items():
                if name.startswith(found[1].lower()):
                    yield before, f"/{name}" + (" " if command.takes else ""), command.help
            return
        typed = before[found.end() :]
        meant = _meant(found[1].lower())
        if len(meant) == 1:
            for offered, help in COMMANDS[meant[0]].words(talk, typed):
                if _bare(offered).startswith(_bare(typed)):
                    yield typed, offered, help
    elif word.startswith("@"):
        for path in chat_files.paths(word[1:]):
            yield word, f'@"{path}"' if " " in path else f"@{path}", ""


def _bare(text: str) -> str:
    return text.replace('"', "").lower()


def _meant(word: str) -> list[str]:
    """The commands that a word can mean: the one of that name, else those that begin so."""
    if word in COMMANDS:
        return [word]
    if other := [name for name, command in COMMANDS.items() if word in command.also]:
        return other
    return [name for name in COMMANDS if name.startswith(word)]


def _unknown(word: str) -> UsageError:
    if meant := _meant(word):
        return UsageError(f"/{word} can be {_listed(meant)}", "type more letters")
    words = {word: name for name, command in COMMANDS.items() for word in (name, *command.also)}
    close = get_close_matches(word, words, n=1)
    hint = f"did you mean /{words[close[0]]}? /help lists them" if close else "/help lists them"
    return UsageError(f"there is no command /{word:.40}", hint)


def _listed(names: list[str]) -> str:
    return " or ".join(f"/{name}" for name in names)


def _help(talk: Talk, argument: str) -> None:
    if not argument:
        listing.tell([*(_shown(name) for name in COMMANDS), *_KEYS])
        return
    word = argument.removeprefix("/").lower()
    meant = _meant(word)
    if not meant:
        raise _unknown(word)
    listing.tell([_shown(name) for name in meant])
    if len(meant) == 1 and (also := COMMANDS[meant[0]].also):
        words = ", ".join(f"/{word}" for word in also)
        listing.tell([("also typed as", words)])


def _shown(name: str) -> tuple[str, str]:
    return f"/{name} {COMMANDS[name].takes}".rstrip(), COMMANDS[name].help


def _command_names(talk: Talk, typed: str) -> Iterator[tuple[str, str]]:
    return ((name, command.help) for name, command in COMMANDS.items())


def _exit(talk: Talk, argument: str) -> None:
    """The chat itself looks for this word, and leaves."""


COMMANDS: dict[str, Command] = {
    "undo": Command(
        chat_turns.undo, "take back the last turn (your message and its answer), or the last N", "[N]", ("back",)
    ),
    "redo": Command(chat_turns.redo, "bring back what /undo took back", "[N]"),
    "edit": Command(
        chat_turns.edit, "change your last message in your editor ($VISUAL or $EDITOR), and get a new answer"
    ),
    "regenerate": Command(chat_turns.regenerate, "get another answer to your last message", also=("retry",)),
    "continue": Command(chat_turns.resume_answer, "go on with an answer that was stopped"),
    "read": Command(
        chat_files.read, "let the model read files with your next message", "FILE...", words=chat_files.file_names
    ),
    "copy": Command(
        chat_files.copy,
        "copy the last answer, the one N answers back, or the last block of code",
        "[N|code]",
        words=lambda talk, typed: [("code", "the last block of code")],
    ),
    "compact": Command(
        chat_turns.compact, "make room: the model sums up the old messages, and then sees only the summary"
    ),
    "clear": Command(chat_turns.clear, "begin a new conversation", also=("reset", "new")),
    "fork": Command(chat_turns.fork, "go on in a copy; this conversation stays as it is", "[NAME]", ("branch",)),
    "sessions": Command(chat_turns.sessions, "list the saved conversations", also=("list",)),
    "resume": Command(
        chat_turns.resume,
        "go on with a conversation of /sessions, by name or number (default: the one before)",
        "[NAME]",
        ("load",),
        chat_turns.session_names,
    ),
    "save": Command(chat_turns.save, "save this conversation, or give it a name", "[NAME]", ("name",)),
    "export": Command(
        chat_files.export,
        "write this conversation to a file: to read (.md), or for programs (.json)",
        "FILE",
        words=chat_files.file_names,
    ),
    "system": Command(
        chat_turns.system,
        'give instructions for every answer, such as "Answer in French.", or drop them (default: show them)',
        "[TEXT|off]",
    ),
    "model": Command(
        chat_settings.model,
        "go on with another model, which reads this conversation first (default: show the model)",
        "[NAME]",
        words=chat_settings.model_names,
    ),
    "set": Command(
        chat_settings.set_option,
        "change a setting, as in /set temperature 0.2 (default: show all)",
        "[NAME [VALUE]]",
        words=chat_settings.set_words,
    ),
    "think": Command(
        chat_settings.think,
        "let the model think before it answers: on, off, hide, low, medium, high, or N tokens at most",
        "[VALUE|N]",
        words=chat_settings.think_words,
    ),
    "tools": Command(chat_settings.tools, "list the tools (functions) that the model may ask qcli to run"),
    "tokens": Command(
        chat_settings.tokens, "tell how long each message is, in tokens (about three quarters of a word each)"
    ),
    "stats": Command(chat_settings.stats, "tell how fast the last answer was, and how full the context is"),
    "help": Command(_help, "list these commands, or explain one", "[COMMAND]", ("?", "h"), _command_names),
    "exit": Command(_exit, "leave the chat; Ctrl-D does the same", also=("quit", "bye", "q")),
}
