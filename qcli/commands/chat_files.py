"""The commands of a chat that take texts from files, and answers elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from qcli import console
from qcli.commands.file_texts import read_texts, typed_names
from qcli.commands.talk import Talk, number
from qcli.errors import UsageError
from qcli.host.folders import expanded
from qcli.wording import counted, quantity

_MARKDOWN = (".md", ".markdown", ".txt")
_MOST_NAMES = 200  # of a folder, that are offered


def read(talk: Talk, argument: str) -> None:
    """Have the next message be about the texts of files."""
    if not argument:
        raise UsageError("/read needs the name of a file", "type, for example, /read notes.md")
    talk.attach(read_texts(typed_names(argument)))
    console.info("the next message is about it" if len(talk.texts) == 1 else "the next message is about them")


def copy(talk: Talk, argument: str) -> None:
    """Put an answer, or the last block of code, into the clipboard."""
    from qcli.terminal import clipboard

    text = _last_code(talk) if argument.lower() == "code" else _answer(talk, number(argument, "copy", "answers"))
    if not clipboard.copy(text):
        raise UsageError("/copy works only in a terminal", "/export FILE writes the conversation to a file")
    console.info(f"copied: {counted(len(text), 'character')}, if your terminal allows it")
    if len(clipboard.sequence(text)) > clipboard.MOST:
        console.info("this may be too much for your terminal; /export FILE writes it to a file")


def export(talk: Talk, argument: str) -> None:
    """Write the conversation to a file."""
    from qcli.host.atomic_files import AtomicFiles
    from qcli.line_input import agreed
    from qcli.sessions.export import whole
    from qcli.sessions.markdown import markdown

    if not argument:
        raise UsageError("/export needs the name of a file", "type, for example, /export talk.md")
    if not talk.conversation.log.branch():
        raise UsageError("there is nothing to export yet", "type a message first")
    to, session = expanded(argument.strip("\"'")), talk.conversation.log
    if to.suffix.lower() not in (".json", *_MARKDOWN):
        raise UsageError(f"{to}: the name has no ending that says how to write it", "give a name with .md or .json")
    is_there = to.is_file() and talk.interactive
    if is_there and not agreed(f"{to} already exists. Replace it?"):
        console.info("nothing was written")
        return
    facts = {name: getattr(session, name) for name in ("name", "title", "model", "changed")}
    text = f"{json.dumps(whole(session, **facts), indent=2)}\n" if to.suffix.lower() == ".json" else markdown(session)
    data = text.encode("utf-8", "replace")
    with AtomicFiles([to], is_there, reads=[path for path in (talk.path, talk.llm.file.path) if path]) as files:
        files.open(to).write(data)
    console.info(f"written to {to} · {quantity(len(data), 'B')}")


def file_names(talk: Talk, typed: str) -> Iterator[tuple[str, str]]:
    """The files and folders that begin as the last of the names that are typed."""
    before, last = _before_and_last(typed)
    for name in paths(last.removeprefix('"')):
        yield before + (f'"{name}"' if " " in name else name), ""


def paths(typed: str) -> list[str]:
    """The paths that begin so, folders with a slash at their end; hidden ones if a dot is typed."""
    folder, begin = (
        (typed, "") if typed.endswith("/") else (typed[: len(typed) - len(Path(typed).name)], Path(typed).name)
    )
    try:
        found = sorted(expanded(folder or ".").iterdir())
    except (OSError, ValueError):
        return []
    shown = [path for path in found if path.name.startswith(begin) and (begin or not path.name.startswith("."))]
    return [f"{folder}{path.name}{'/' if path.is_dir() else ''}" for path in shown[:_MOST_NAMES]]


def _before_and_last(typed: str) -> tuple[str, str]:
    """What is typed, divided before its last word, or before its last quote that is not closed."""
    at = typed.rfind('"') if typed.count('"') % 2 else typed.rfind(" ") + 1
    return typed[:at], typed[at:]


def _answers(talk: Talk) -> list[str]:
    """The answers, the last one first. Raises UsageError if there is none."""
    found = [
        message.text
        for message in reversed(talk.conversation.log.branch())
        if message.role == "assistant" and not (message.calls and not message.text)
    ]
    if not found:
        raise UsageError("there is no answer yet", "type a message first")
    return found


def _answer(talk: Talk, n: int) -> str:
    answers = _answers(talk)
    if n > len(answers):
        raise UsageError(
            f"there is no answer {n}, there are {len(answers)}", "/copy 1, or just /copy, copies the last one"
        )
    return answers[n - 1]


def _last_code(talk: Talk) -> str:
    from qcli.text.code_blocks import code_blocks

    for answer in _answers(talk):
        if blocks := code_blocks(answer):
            return blocks[-1]
    raise UsageError("no answer has a block of code", "/copy copies the whole last answer")
