"""The parts of a long help: under which heading an option stands, in a terminal's boxes and in a pipe alike."""

from __future__ import annotations

from typing import Any

OTHERS = "Options"  # what has no heading of its own: the options that are typed most, and --help
_LONG = ("run", "chat", "batch")  # commands whose options need headings
_HEADINGS = {
    "Answer": "stop stop_loops raw",
    "Tools": "tools tool_choice mcp approve chain_limit",
    "Form of the answer": "choices schema regex grammar stream partial",
    "Conversation": "resume save name no_save ctx_full",
    "Output": "to force code as_json logprobs plain stats quiet verbose",
    "Speed and memory": "threads ram ctx kv_type draft draft_model",
}
_HEADING_OF = {option: heading for heading, options in _HEADINGS.items() for option in options.split()}
# Options of Typer's own, in our words.
_COMPLETION = {
    "install_completion": "Have the Tab key complete commands, models and files in this shell.",
    "show_completion": "Show what that would add to the shell, to copy or change it.",
}


def placed(command: str | None, parameter: Any) -> None:
    """Put an option of a command under its heading."""
    if command in _LONG and parameter.name in _HEADING_OF:
        parameter.rich_help_panel = _HEADING_OF[parameter.name]
    parameter.help = _COMPLETION.get(parameter.name, getattr(parameter, "help", None))


def sections(parameters: list[Any], context: Any) -> dict[str, list[tuple[str, str]]]:
    """The lines of a help without boxes, by heading: the arguments, the options typed most, and the others."""
    found: dict[str, list[tuple[str, str]]] = {"Arguments": [], OTHERS: []}
    for parameter in parameters:
        if line := parameter.get_help_record(context):
            is_argument = parameter.param_type_name == "argument"
            heading = "Arguments" if is_argument else parameter.rich_help_panel or OTHERS
            found.setdefault(heading, []).append(line)
    return {heading: lines for heading, lines in found.items() if lines}
