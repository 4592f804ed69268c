"""The command line's own complaints and help in plain words, where the library that reads it speaks of types."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from typer.core import TyperArgument, TyperCommand, TyperGroup

from qcli import console
from qcli.commands import configured, examples, panels
from qcli.errors import UsageError

# What Typer says of a value or a word -> what a person reads; several versions of it word things differently.
_PLAIN = (
    (r"Input should be a valid integer.*|.*is not a valid (int|integer)(eger)?( range)?", "needs a whole number"),
    (r"Input should be a (valid|finite) number.*|.*is not a valid float( range)?", "needs a number"),
    (r"Input should be greater than or equal to (\S+)|.*is not in the range x>=(\S+)", r"needs \1\2 or more"),
    (r"Input should be less than or equal to (\S+)|.*is not in the range .*<=(\S+)", r"needs \1\2 or less"),
    (r"Option '?(-\S+?)'? requires an argument", r"\1 needs a value"),
    (r"Option '?(-\S+?)'? does not take a value", r"\1 takes no value"),
    (r"Missing argument '?(.+?)'?", r"\1 is missing"),
    (r"No such option: (\S+)( .*)?", r"there is no option \1"),
    (r"No such command '([^']*)'.*", r"there is no command \1"),
    (r"Got unexpected extra argument(?:s|\(s\))? \((.*)\)", r"one word too many: \1"),
)


_NAMES: Final = ("FILE", "FILE.py", "FOLDER", "CONFIG", "IN", "OUT")  # as helps call what has the name of a file


class _PlainHelp:
    """Shows --help as an option without a value, arguments by their names alone, and examples at the end."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._examples = examples.of(named.get("callback"))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help; one with boxes is printed at once."""
        super().format_help(ctx, formatter)  # type: ignore[misc]
        if self._examples and self.rich_markup_mode:  # type: ignore[attr-defined]
            console.table(examples.drawn(self._examples))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options under their headings, in a help without boxes; a group lists its commands, too."""
        for heading, lines in panels.sections(self.get_params(ctx), ctx).items():
            with formatter.section(heading):
                formatter.write_dl(lines)
        if isinstance(self, TyperGroup):
            self.format_commands(ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, in a help without boxes."""
        if self._examples:
            with formatter.section("For example"):
                for typed, does in self._examples:
                    formatter.write(f"  {typed}\n    {does}\n")

    def get_help_option(self, ctx: Any) -> Any:
        """The option --help."""
        option = super().get_help_option(ctx)  # type: ignore[misc]
        if option is not None:
            option.metavar, option.callback = "", _show_help
        return option

    def get_params(self, ctx: Any) -> Any:
        """The options and arguments."""
        parameters = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if getattr(parameter, "is_flag", False) and parameter.metavar is None:
                parameter.metavar = ""
            parameter._get_number_range_help_str = lambda: ""  # [x>=1]: a wrong number is told, and what is right
            panels.placed(self.name, parameter)  # type: ignore[attr-defined]
            if isinstance(parameter, TyperArgument):
                parameter.display_type_rich = lambda ctx: None  # type: ignore[method-assign]
        return parameters


def _show_help(ctx: Any, _option: Any, wanted: bool) -> None:
    """Write the help by way of the console, which knows what to say of an output that fails."""
    if wanted and not ctx.resilient_parsing:
        console.out(ctx.get_help() + "\n")
        ctx.exit()


class Command(_PlainHelp, TyperCommand):
    """A command."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Read the words of its line; a number below zero is a word, no option."""
        ctx.ignore_unknown_options |= any(re.fullmatch(r"-\d+(\.\d*)?", word) for word in args)
        left = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:
            _refuse_nameless(self.params, ctx.params)
        return left

    def invoke(self, ctx: Any) -> Any:
        """Run it, with the user's settings in place of options that were not typed."""
        with configured.filled(ctx):
            return super().invoke(ctx)


def _refuse_nameless(parameters: Iterable[Any], given: Mapping[str, Any]) -> None:
    """Raise UsageError for a file or folder whose name is empty, which a path would take for the folder one is in."""
    for parameter in parameters:
        value = given.get(parameter.name)
        if parameter.metavar in _NAMES and "" in (value if isinstance(value, list | tuple) else [value]):
            name = parameter.opts[-1] if parameter.opts[0].startswith("-") else parameter.metavar
            what = "a folder" if parameter.metavar == "FOLDER" else "a file"
            hint = "give one, or leave it out; a variable of your shell may be empty"
            raise UsageError(f"{name} takes the name of {what}, and it is empty", hint)


class Group(_PlainHelp, TyperGroup):
    """The program with its commands."""


def usage_error(problem: Any) -> UsageError:
    """What is wrong with the words of a command line, from the exception that says so."""
    context = getattr(problem, "ctx", None)
    hint = f"{context.command_path if context else 'qcli'} --help lists what can be typed"
    parameter, said = getattr(problem, "param", None), getattr(problem, "message", "")
    if parameter is not None and said:
        name = parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.metavar or parameter.name
        return UsageError(f"{name} {_plain(said)}" if _plain(said) != said else f"{name}: {said}", hint)
    said = problem.format_message()
    close = getattr(problem, "possibilities", None) or re.findall(r"'([^']+)'", said.partition("Did you mean")[2])
    if close:
        hint = f"did you mean {' or '.join(sorted(close))}? {hint}"
    return UsageError(_plain(said.splitlines()[0].rstrip(".")), _hint(said, hint))


def _plain(said: str) -> str:
    for pattern, words in _PLAIN:
        if found := re.fullmatch(pattern, said.rstrip("."), re.DOTALL):
            return found.expand(words.replace(r"\1\2", r"\1" if found.re.groups < 2 or found[1] else r"\2"))
    return said


def _hint(said: str, hint: str) -> str:
    return f"a text of several words needs quotes around it; {hint}" if "unexpected extra argument" in said else hint
