"""The user's turns of a chat: in a terminal typed lines that can be edited, with a history; else one turn a line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from qcli import console, interrupt
from qcli.terminal.keyboard import left_to_others
from qcli.terminal.text import clean, is_any_terminal
from qcli.terminal.text_input import stdin_lines

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completer
    from prompt_toolkit.document import Document
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    from qcli.terminal.keyboard import Keyboard

Completions = Callable[[str], Iterable[tuple[str, str, str]]]

MAX_LINE = 1 << 20  # bytes
_QUOTES = '"""'


def is_interactive() -> bool:
    """Whether standard input and stderr, where the prompt is shown, are a terminal."""
    return is_any_terminal(sys.stdin) and is_any_terminal(sys.stderr)


def turns(completions: Completions = lambda before: (), keyboard: Keyboard | None = None) -> Iterator[str]:
    """The turns that are typed or piped in, until the end of the input, without blank ones.

    completions: what Tab offers after the text before the cursor: the end of it that is replaced, by what, and a line of help;
    keyboard: what it has read before a turn is the beginning of that turn, and can be changed; before the first one, Enter at
    its end sends it, as nothing was shown yet that could change what is asked.
    """
    lines = _typed(completions, keyboard) if is_interactive() else stdin_lines(MAX_LINE)
    return (line.strip() for line in lines if line.strip())


def agreed(question: str) -> bool:
    """Whether a person at the terminal answers a question with yes."""
    return (asked(f"{question} [y/N]") or "").lower() in ("y", "yes")


def asked(question: str) -> str | None:
    """What a person at the terminal answers to a question; None at Ctrl-C or the end of the input."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.output import create_output

    session: PromptSession[str] = PromptSession(
        f"{clean(question)} ", key_bindings=_without_late(KeyBindings()), output=create_output(stdout=sys.stderr)
    )
    with suppress(KeyboardInterrupt, EOFError), left_to_others(), interrupt.gives_back():
        return session.prompt().strip()
    return None


def _typed(completions: Completions, keyboard: Keyboard | None) -> Iterator[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.input.typeahead import get_typeahead
    from prompt_toolkit.output import create_output

    session: PromptSession[str] = PromptSession(
        "> ",
        multiline=True,
        prompt_continuation="  ",
        key_bindings=_keys(),
        history=_history(),
        completer=_completer(completions),
        complete_while_typing=False,
        enable_suspend=True,
        output=create_output(stdout=sys.stderr),
    )
    is_first = True
    while True:
        try:
            with left_to_others(), interrupt.gives_back():
                if keyboard and keyboard.has_typed:  # after what the last prompt has read already
                    keyboard.put_first("".join(key.data for key in get_typeahead(session.app.input)))
                begun = keyboard.typed() if keyboard else ""
                sent = is_first and bool(begun.strip()) and keyboard is not None and keyboard.was_sent
                is_first = False
                _leave_paste(session)
                line = session.prompt(default=begun, accept_default=sent)
        except KeyboardInterrupt:
            console.info("type /exit or Ctrl-D to leave")
        except EOFError:
            return
        else:
            yield line


def _leave_paste(session: PromptSession[str]) -> None:
    """Forget a paste that began just as the last line was entered: its end was read by others, and would be waited for."""
    if parser := getattr(session.app.input, "vt100_parser", None):  # Windows has none
        parser.reset()


def _keys() -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if _quote_is_open(buffer.text):
            buffer.insert_text("\n")
        elif buffer.document.char_before_cursor == "\\":
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return _without_late(keys)


def _without_late(keys: KeyBindings) -> KeyBindings:
    """Let the keys that end a line do nothing when it is ended already: they are an error there."""
    from prompt_toolkit.application import get_app
    from prompt_toolkit.filters import Condition

    is_late = Condition(lambda: get_app().future is None or get_app().is_done)
    for key in ("enter", "c-c", "c-d", "<sigint>"):
        keys.add(key, filter=is_late)(lambda event: None)
    return keys


def _quote_is_open(text: str) -> bool:
    """Whether a text begins with three quotes and does not end with three more: Enter begins another line of it."""
    begun = text.strip()
    return begun.startswith(_QUOTES) and (len(begun) < 2 * len(_QUOTES) or not begun.endswith(_QUOTES))


def _completer(completions: Completions) -> Completer:
    from prompt_toolkit.completion import Completer, Completion

    class Offered(Completer):
        def get_completions(self, document: Document, event: CompleteEvent) -> Iterator[Completion]:
            for replaced, text, help in completions(document.text_before_cursor):
                yield Completion(clean(text), -len(replaced), display_meta=clean(help))

    return Offered()


def _history() -> History:
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    from qcli.host import folders

    class KeptHistory(FileHistory):
        """A history that costs no message: a full disk, or a file that is gone, keeps the line from the next chat alone."""

        def store_string(self, string: str) -> None:
            with suppress(OSError):
                super().store_string(string)

    try:
        return KeptHistory(_private_file(folders.state() / "history"))
    except OSError:  # a home that is read-only, or none: a history of this chat alone
        return InMemoryHistory()


def _private_file(path: Path) -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    path.chmod(0o600)
    return path
