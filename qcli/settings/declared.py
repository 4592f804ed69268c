"""The settings: each is declared once. config.toml, QCLI_<KEY> of the environment, `qcli config` and all checks follow."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

from qcli.drafts import setting as drafts
from qcli.errors import UsageError
from qcli.runtime import gap_setting
from qcli.runtime.sampling import OPTIONS, Option
from qcli.settings.key_setting import key_setting
from qcli.text import think_setting
from qcli.wording import parse_size, shortened

_ANY: Final = sys.float_info.max  # no limit, as Option has it
_TRUTHS: Final = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


class Setting(NamedTuple):
    """What is to know of one setting."""

    key: str  # in config.toml
    help: str
    otherwise: str  # what holds where nobody says anything
    accepted: Callable[
        [str, Any], Any
    ]  # the value of a file as commands take it; UsageError about the name it is given
    read: Callable[[str], Any] = str  # what is typed, as a file would have it
    shared: bool = False  # whether it holds for all commands that load a model, not for run and chat alone

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"QCLI_{self.key.upper()}"

    def parse(self, named: str, text: str) -> Any:
        """The value of what was typed; named: where, as errors say it. Raises UsageError."""
        return self.accepted(named, self.read(text.strip()))


def _text(named: str, value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise UsageError(f"{named} cannot be {_shown(value)}", "give a text")
    return value


def _size(named: str, value: Any) -> str:
    try:
        parse_size(str(value))
    except UsageError as problem:
        raise UsageError(f"{named} cannot be {_shown(value)}", problem.hint) from None
    return str(value)


def _choice(choices: tuple[str, ...], named: str, value: Any) -> str:
    if value not in choices:
        raise UsageError(f"{named} cannot be {_shown(value)}", f"give {' or '.join(choices)}")
    return str(value)


def _truth(named: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{named} cannot be {_shown(value)}", "give true or false")
    return value


def _shown(value: Any) -> str:
    return shortened(str(value).lower() if isinstance(value, bool) else repr(value) if value == "" else str(value))


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _in_range(option: Option, named: str, value: Any) -> Any:
    return option.check(named, str(value).lower() if isinstance(value, bool) else value)


def _whole(key: str, help: str, otherwise: str, maximum: float = _ANY, shared: bool = False) -> Setting:
    option = Option(flags=(), help=help, default=None, minimum=1, maximum=maximum, whole=True)
    return Setting(key, help, otherwise, partial(_in_range, option), _number, shared)


def _switch(key: str, help: str, otherwise: str) -> Setting:
    return Setting(key, help, otherwise, _truth, lambda text: _TRUTHS.get(text.lower(), text))


def _sampling() -> Iterator[Setting]:
    for key, option in OPTIONS.items():
        if option.flags:
            otherwise = "a new one each time" if option.default is None else "what suits the model"
            yield Setting(key, option.help, otherwise, partial(_in_range, option), _number)


SETTINGS: Final[dict[str, Setting]] = {
    setting.key: setting
    for setting in (
        Setting("model", "The model to use when you name none.", "storyteller", _text, shared=True),
        _whole(
            "threads",
            "How much of the processor to use: the number of threads.",
            "one for each core, or fewer beside busy programs",
            1024,
            shared=True,
        ),
        Setting("ram", "Memory to use, such as 24GB.", "what is free", _size, shared=True),
        _whole(
            "ctx",
            "Context: how much text the model can see at a time, in tokens (about three quarters of a word each).",
            "what suits the model",
        ),
        _whole(
            "max_tokens",
            "Stop an answer after so many tokens (about three quarters of a word each).",
            "the model decides",
        ),
        Setting(
            "ctx_full",
            "When the context is full: stop the answer, or forget the oldest messages.",
            "stop",
            partial(_choice, ("stop", "oldest")),
        ),
        Setting(
            "kv_type",
            "How to remember the conversation: f16; q8_0, which takes half the memory; or f32, which takes twice as much.",
            "f16",
            partial(_choice, ("f16", "q8_0", "f32")),
        ),
        Setting("draft", drafts.HELP, "auto", drafts.draft_setting, _number),
        _switch("save", "Whether conversations that you type in a terminal are saved.", "true"),
        _switch("stop_loops", "Whether to stop an answer that repeats itself.", "true"),
        Setting("api_key", "The key that requests to `qcli serve` must have.", "none", key_setting, shared=True),
        Setting("max_gap", gap_setting.HELP, "0.3", gap_setting.gap_setting, _number, shared=True),
        Setting("think", think_setting.HELP, "the model decides", think_setting.think_setting, _number),
        *_sampling(),
    )
}
