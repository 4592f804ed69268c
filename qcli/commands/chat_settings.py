"""The commands of a chat that look at the model and change it, and how it answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from qcli import console, interrupt
from qcli.commands import listing
from qcli.commands.answer import figures, tell_of_limits
from qcli.commands.chat_turns import short
from qcli.commands.recording import come_back
from qcli.commands.talk import Talk
from qcli.errors import ThinkError, UsageError
from qcli.runtime.sampling import OPTIONS, Option
from qcli.sessions import context
from qcli.sessions.calls import told
from qcli.settings import declared
from qcli.text import think_setting
from qcli.wording import counted, shortened

DEFAULT = "default"
STATS = ("short", "long", "off")
_MAX_TOKENS = Option((), declared.SETTINGS["max_tokens"].help, None, minimum=1, whole=True)
_WITHOUT = {"seed": "new each time", "max_tokens": "the model decides"}  # what is shown where nothing is set

# What people's fingers know as settings, and what is typed for them here.
_ELSEWHERE = {
    "system": "/system TEXT",
    "verbose": "/set stats long",
    "quiet": "/set stats off",
    "nothink": "/think off",
    "num_predict": "/set max_tokens N",
    "num_ctx": "`qcli chat --ctx N`",
    "model": "/model NAME",
}


@dataclass(frozen=True)
class Setting:
    """Something that /set shows and changes."""

    help: str
    shown: Callable[[Talk], str]
    change: Callable[[Talk, str], None]  # to what was typed, or back; raises UsageError
    words: tuple[str, ...] = ()  # that can be typed besides numbers


def _option(name: str, option: Option) -> Setting:
    def shown(talk: Talk) -> str:
        given = {key: value for key, value in talk.options.items() if key in OPTIONS}
        value = talk.options.get(name) if name not in OPTIONS else getattr(talk.llm.sampling(**given), name)
        return _WITHOUT.get(name, "") if value is None else f"{value}"

    def change(talk: Talk, typed: str) -> None:
        talk.set(name, None if typed == DEFAULT else option.check(name, _number(typed, option.whole)))

    return Setting(option.help, shown, change, (DEFAULT,))


def _number(typed: str, whole: bool) -> Any:
    """The number that was typed; what is none stays as it is."""
    with suppress(ValueError):
        return int(typed) if whole else float(typed)
    return typed


def _change_stats(talk: Talk, typed: str) -> None:
    if typed not in (*STATS, DEFAULT):
        raise UsageError(f"stats cannot be {shortened(typed)}", f"give {', '.join(STATS[:-1])} or {STATS[-1]}")
    talk.stats = STATS[0] if typed == DEFAULT else typed


def _shown_think(talk: Talk) -> str:
    value = DEFAULT if talk.options.get("think") is None else f"{talk.options['think']}"
    return value if talk.llm.thinking.thinks else f"{value} (this model does not think)"


def _change_think(talk: Talk, typed: str) -> None:
    value = think_setting.think_setting("think", typed)
    talk.llm.thinking.manner(value)
    talk.set("think", None if value == DEFAULT else value)


def _change_stop_loops(talk: Talk, typed: str) -> None:
    setting = declared.SETTINGS["stop_loops"]
    talk.set("stop_loops", True if typed == DEFAULT else setting.parse("stop_loops", typed))


SETTINGS: dict[str, Setting] = {
    **{name: _option(name, option) for name, option in OPTIONS.items()},
    "max_tokens": _option("max_tokens", _MAX_TOKENS),
    "think": Setting(think_setting.HELP, _shown_think, _change_think, think_setting.WORDS),
    "stop_loops": Setting(
        declared.SETTINGS["stop_loops"].help,
        lambda talk: "on" if talk.options.get("stop_loops", True) else "off",
        _change_stop_loops,
        ("on", "off", DEFAULT),
    ),
    "stats": Setting(
        "How much is told about speed after each answer.", lambda talk: talk.stats, _change_stats, (*STATS, DEFAULT)
    ),
}


def set_option(talk: Talk, argument: str) -> None:
    """Show all settings or one, or change one."""
    if not argument:
        width = max(map(len, SETTINGS))
        listing.tell([(f"{name:{width}}  {s.shown(talk)}", s.help) for name, s in SETTINGS.items()])
        listing.tell([("/set NAME VALUE", "changes one"), (f"/set NAME {DEFAULT}", "goes back to the default")])
        return
    words = re.split(r"[\s=]+", argument)
    if words[0].lower() == "parameter" and len(words) > 1:  # as it is typed elsewhere
        words = words[1:]
    name = _named(words[0])
    if len(words) > 2:
        raise UsageError(f"{name} takes one value", f"type /set {name} {words[1]}")
    if len(words) == 2 and words[1]:
        SETTINGS[name].change(talk, words[1].lower())
        console.info(f"{name} is now {SETTINGS[name].shown(talk)}")
    else:
        listing.tell([(f"{name} {SETTINGS[name].shown(talk)}", SETTINGS[name].help)])


def think(talk: Talk, argument: str) -> None:
    """Show or change whether, how long and how openly the model thinks."""
    if argument:
        set_option(talk, f"think {argument}")
        return
    words = ", ".join(talk.llm.thinking.words)
    console.info(f"think is {_shown_think(talk)}; /think takes {words}, or a number of tokens")


def think_words(talk: Talk, typed: str) -> Iterator[tuple[str, str]]:
    """What can be typed after /think."""
    return ((word, "") for word in talk.llm.thinking.words)


def _named(typed: str) -> str:
    """The name of the setting that is meant, of which the beginning is enough. Raises UsageError."""
    name = typed.lower().lstrip("-").replace("-", "_")
    found = [name] if name in SETTINGS else [known for known in SETTINGS if known.startswith(name)]
    if len(found) == 1:
        return found[0]
    if name in _ELSEWHERE:
        raise UsageError(f"there is no setting {shortened(typed)!r}", f"{_ELSEWHERE[name]} does it")
    close = found or get_close_matches(name, SETTINGS, n=1)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise UsageError(f"there is no setting {shortened(typed)!r}", f"{hint}/set lists them")


def set_words(talk: Talk, typed: str) -> Iterator[tuple[str, str]]:
    """What can be typed after /set, and after the name of a setting."""
    name, space, _ = typed.partition(" ")
    if not space:
        yield from ((known, f"{s.shown(talk)} · {s.help}") for known, s in SETTINGS.items())
    elif name.lower() in SETTINGS:
        yield from ((f"{name} {word}", "") for word in SETTINGS[name.lower()].words)


def model(talk: Talk, argument: str) -> None:
    """Show the model, or have another one go on with the conversation."""
    if not argument:
        console.info(f"{talk.llm.name} · {talk.llm.file.path}")
        return
    if _is_this_one(talk, argument):
        console.info(f"{talk.llm.name} is already the model")
        return
    with talk.keys_kept():
        with talk.bar, interrupt.ends_all(talk.bar):
            talk.change_model(argument)
        _think_as_it_can(talk)
        came = come_back(talk.conversation, talk.bar)
    read = f" · {counted(came.tokens, 'token')} read in {came.seconds:.1f} s" if came is not None else ""
    console.info(f"{talk.llm.name} goes on{read}")
    tell_of_limits(talk.llm, talk.interactive)


def _think_as_it_can(talk: Talk) -> None:
    """Leave it to a new model how to think if it cannot think as the one before was told to."""
    try:
        talk.llm.thinking.manner(talk.options.get("think"))
    except ThinkError as problem:
        talk.set("think", None)
        console.info(f"{problem.message}; from now on it is {DEFAULT}")


def _is_this_one(talk: Talk, name: str) -> bool:
    """Whether the model is loaded already. Raises QcliError if there is none such, or it is none that can be run."""
    from qcli.catalog.resolve import resolve
    from qcli.gguf.file import GGUFFile
    from qcli.models import context_length

    path, _ = resolve(name)
    with GGUFFile.open(path) as file:
        context_length(file)
    return bool(path.samefile(talk.llm.file.path))


def model_names(talk: Talk, typed: str) -> Iterator[tuple[str, str]]:
    """The models on this machine that have a name."""
    from qcli.catalog.entries import load_catalog
    from qcli.catalog.resolve import path_of

    return ((name, entry.description) for name, entry in load_catalog().items() if path_of(entry) is not None)


def stats(talk: Talk, argument: str) -> None:
    """Tell all figures of the last answer, and how full the context is."""
    engine = talk.llm.engine
    if talk.llm.stats.prompt_tokens:
        console.figures(figures(talk.llm.stats))
    console.info(f"{engine.position:,} of the context of {engine.ctx:,} tokens are used")


def tools(talk: Talk, argument: str) -> None:
    """List what the model may call, and whether it is run."""
    if talk.tools is None:
        raise UsageError("this chat has no tools", "qcli chat --tools FILE.py starts one with tools, or --mcp CONFIG")
    listing.tell([(tool.name, " ".join(tool.description.split()[:40])) for tool in talk.tools.options["tools"]])
    console.info(f"calls of these are {talk.tools.manner}")


def tokens(talk: Talk, argument: str) -> None:
    """Tell how many tokens each message has, and all together that the model still sees."""
    branch = talk.conversation.log.branch()
    if not branch:
        raise UsageError("there is no message yet", "type a message first")
    llm = talk.llm
    counts = [
        len(message.ids) if context.is_of(message, llm) else len(llm.tokenize(message.text, special=False))
        for message in branch
    ]
    width = max(len(f"{n:,}") for n in counts)
    left_out = context.left_out_before(branch, llm.engine.ctx)
    said = context.talk(branch)
    unseen = {message.id: "no longer seen" for message in said[:left_out]}
    unseen |= {message.id: "summed up" for message in said[: context.summed_up(branch)]}
    for message, n in zip(branch, counts, strict=True):
        role = f"{message.role}, {unseen[message.id]}" if message.id in unseen else message.role
        console.info(f"{n:{width},}  {role}: {short(told(message))}")
    rendered = llm.render(context.prompt(branch, left_out), tools=talk.options.get("tools"))
    whole = len(llm.tokenize(rendered))
    share = f"{100 * whole / llm.engine.ctx:.0f} % of the context of {llm.engine.ctx:,}"
    console.info(f"{counted(whole, 'token')} with the signs between the messages: {share}")
