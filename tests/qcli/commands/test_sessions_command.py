"""qcli sessions: what it lists and shows, what it takes elsewhere, and what it deletes."""

from __future__ import annotations

import json

import pytest
from terminal import in_terminal

from qcli import line_input
from qcli.host import folders
from qcli.sessions.library import Library
from qcli.sessions.log import Message


@pytest.fixture
def library(tmp_path_factory, monkeypatch):
    """The user's conversations: one of two branches, called weather, and a newer one without a name."""
    home = tmp_path_factory.mktemp("data")
    monkeypatch.setattr(folders, "data", lambda: home)
    library = Library()
    with library.create({"model": "storyteller"}, "weather") as log:
        log.append(Message(1, None, "user", "Rain?"), Message(2, 1, "assistant", "No.", "A drop?\n\nNone."))
        log.set_head(None)
        log.append(
            Message(3, None, "user", "Rain\x1b[31m or [bold]sun[/]?"),
            Message(4, 3, "assistant", "Sun:\n```\nsun", finish_reason="length", ids=(1, 2), sampling={"seed": 3}),
        )
    with library.create({"model": "storyteller"}) as log:
        log.append(
            Message(1, None, "system", "Be kind."), Message(2, 1, "user", "Hi"), Message(3, 2, "assistant", "Ho")
        )
    return library


def test_a_list(type_line, library):
    code, out, err = type_line("sessions")
    heading, newest, oldest = out.splitlines()
    assert (code, err) == (0, "")
    assert heading.split() == ["name", "begins", "model", "messages", "changed"]
    assert newest.split()[:4] == ["1", "Hi", "storyteller", "3"]
    assert oldest.split()[:2] == ["2", "weather"]
    assert "Rain\ufffd[31m or [bold]sun[/]?" in oldest
    assert type_line("sessions", "list") == (code, out, err)


def test_a_list_for_programs(type_line, library):
    listed = json.loads(type_line("sessions", "--json")[1])
    assert [item["name"] for item in listed] == ["", "weather"]
    assert listed[1] == {**vars(library.find("weather")), "path": str(library.find("weather").path)}


def test_no_conversations(type_line, library):
    for path in library.folder.iterdir():
        path.unlink()
    code, out, err = type_line("sessions")
    assert (code, out) == (0, "")
    assert "no saved conversation yet" in err
    assert type_line("sessions", "--json") == (0, "[]\n", "")
    for action in ("show", "export"):
        code, out, err = type_line("sessions", action)
        assert (code, out) == (2, "")
        assert "hint: `qcli chat` begins one" in err


def test_a_conversation_is_shown(type_line, library):
    code, out, _ = type_line("sessions", "show", "weather")
    assert code == 0
    assert out.startswith("weather\nmodel     storyteller\nchanged   20")
    assert "messages  2, and 2 in other branches\n" in out
    assert out.endswith("\nuser\nRain\x1b[31m or [bold]sun[/]?\n\nassistant\nSun:\n```\nsun\n")
    assert type_line("sessions", "show") == type_line("sessions", "show", "1")


def test_a_terminal_gets_none_of_its_control_codes(library):
    folder = str(library.folder.parent)
    code = f"""
from pathlib import Path
from qcli.cli import invoke
from qcli.host import folders
folders.data = lambda: Path({folder!r})
for line in (["sessions"], ["sessions", "show", "2"], ["sessions", "export", "2"], ["sessions", "rm", "2", "-y"]):
    invoke(line)"""
    shown = in_terminal(code, NO_COLOR="1")
    assert shown.count("Rain\ufffd[31m") >= 3
    assert "\x1b[31m" not in shown


def test_a_conversation_as_markdown(type_line, library):
    code, out, _ = type_line("sessions", "export", "weather")
    assert code == 0
    heading, facts, rest = out.split("\n\n", 2)
    assert heading == "# weather"
    assert facts.startswith("*storyteller · 20")
    assert facts.endswith(" · 2 messages*")
    assert rest == (
        "## User\n\nRain\x1b[31m or [bold]sun[/]?\n\n"
        "## Assistant\n\nSun:\n```\nsun\n```\n\n*(cut off at its longest)*\n"
    )
    with library.open(library.find("weather")) as log:
        log.set_head(2)
    assert "## Assistant\n\n> A drop?\n>\n> None.\n\nNo.\n" in type_line("sessions", "export", "weather")[1]


def test_a_conversation_as_json(type_line, library):
    code, out, _ = type_line("sessions", "export", "weather", "--json")
    value = json.loads(out)
    assert code == 0
    assert (value["name"], value["model"], value["branch"]) == ("weather", "storyteller", [3, 4])
    session = library.read(library.find("weather"))
    assert [Message(**{**m, "ids": tuple(m["ids"]), "calls": ()}) for m in value["messages"]] == [
        *session.messages.values()
    ]
    assert value["header"] == session.header
    assert type_line("sessions", "show", "weather", "--json")[1] == out


def test_into_a_file(type_line, library, tmp_path):
    for file, options in (("a.md", []), ("a.json", ["--json"])):
        line = ["sessions", "export", "weather", "-o", str(tmp_path / file), *options]
        printed = type_line("sessions", "export", "weather", *options)[1]
        code, out, err = type_line(*line)
        assert (code, out, err) == (0, "", f"weather is written to {tmp_path / file}\n")
        written = (tmp_path / file).read_text("utf-8")
        assert written == printed or json.loads(written) == json.loads(printed)
        code, out, err = type_line(*line)
        assert (code, "already exists" in err) == (1, True)
        assert type_line(*line, "--force")[0] == 0
        assert (tmp_path / file).read_text("utf-8") == written


def test_the_conversation_itself_is_not_written_over(type_line, library):
    path = library.last().path
    before = path.read_bytes()
    code, _, err = type_line("sessions", "export", "-o", str(path), "--force")
    assert (code, "is read by this command" in err) == (1, True)
    assert path.read_bytes() == before


def test_renamed(type_line, library):
    assert type_line("sessions", "rename", "1", " greeting ") == (0, "", "Hi is now called greeting\n")
    assert library.find("greeting").number == 1
    assert type_line("sessions", "show", "greeting")[1].startswith("greeting\n")


def test_deleted(type_line, library):
    assert type_line("sessions", "rm", "2", "weather", "--yes") == (0, "", "deleted: weather\n")
    assert [summary.title for summary in library.list()] == ["Hi"]
    code, _, err = type_line("sessions", "rm", "1", "weather", "-y")
    assert (code, "no conversation is called 'weather'" in err) == (2, True)
    assert len(library.list()) == 1  # nothing is deleted if one of the names is wrong


@pytest.mark.parametrize("yes", [True, False])
def test_a_person_is_asked_before_anything_is_deleted(type_line, library, monkeypatch, yes):
    questions = []
    monkeypatch.setattr(line_input, "is_interactive", lambda: True)
    monkeypatch.setattr(line_input, "agreed", lambda question: questions.append(question) or yes)
    code, out, err = type_line("sessions", "rm", "1", "weather", "2")
    assert questions == ["delete 2 conversations: Hi (3 messages), weather (2 messages)? it cannot be undone"]
    assert (code, out) == (0, "")
    assert err == ("deleted: Hi\ndeleted: weather\n" if yes else "nothing was deleted\n")
    assert len(library.list()) == (0 if yes else 2)


def test_where_nobody_can_be_asked_nothing_is_deleted(type_line, library):
    code, out, err = type_line("sessions", "rm", "weather")
    assert (code, out) == (1, "")
    assert "there is nobody to ask: delete weather (2 messages)? it cannot be undone" in err
    assert "`qcli sessions rm weather --yes` deletes without asking" in err
    assert len(library.list()) == 2


def test_a_question_names_the_first_of_many(type_line, library):
    for i in range(9):
        with library.create({"model": "storyteller"}, f"n{i}") as log:
            log.append(Message(1, None, "user", "Hi"))
    err = type_line("sessions", "rm", *map(str, range(1, 11)))[2]
    assert "delete 10 conversations: " in err
    assert err.count("message") == 8
    assert ", 2 more? it cannot be undone" in err


def test_one_that_is_open_elsewhere(type_line, library):
    with library.open(library.last()):
        for line in (["rm", "1", "--yes"], ["rename", "1", "new"]):
            code, out, err = type_line("sessions", *line)
            assert (code, out) == (2, "")
            assert err == "error: Hi: another qcli has it open\nhint: leave that one first\n"
        assert type_line("sessions", "show", "1")[0] == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["lst"], "did you mean list?"),
        (["delete", "1"], "there are list, show, rename, rm, export"),
        (["rm"], "rm cannot have 0 names"),
        (["rename", "1"], "type `qcli sessions rename NAME NEW`"),
        (["show", "1", "2"], "show cannot have 2 names"),
        (["list", "1"], "list cannot have 1 name"),
        (["rm", "1", "--json"], "--json is not for rm"),
        (["rm", "1", "--force"], "--force is only for use with export and -o FILE"),
        (["show", "--yes"], "--yes is not for show"),
        (["show", "-o", "x"], "--output is not for show"),
        (["show", "3"], "there is no conversation 3, there are 2"),
        (["show", "wether"], "did you mean weather?"),
        (["rename", "1", "weather"], "a conversation is called 'weather' already"),
        (["rename", "1", "a/b"], "cannot be the name"),
        (["export", "-o", "none/x"], "there is no folder none"),
        (["export", "-o", "."], "is not an ordinary file"),
    ],
)
def test_what_cannot_be_meant(refused, library, line, said):
    refused(["sessions", *line], 1 if "-o" in line and "show" not in line else 2, said)
