"""What a chat can be asked for without leaving it: settings, another model, files, the clipboard, help, completion."""

from __future__ import annotations

import json
from typing import ClassVar
from unittest.mock import Mock

import pytest

from qcli import line_input
from qcli.commands import chat_files, file_texts, listing
from qcli.commands.chat_commands import COMMANDS, completions, parsed, quoted
from qcli.commands.chat_settings import SETTINGS
from qcli.errors import UsageError
from qcli.runtime.engine import Engine
from qcli.runtime.sampling import OPTIONS
from qcli.sessions.library import Library
from qcli.terminal import clipboard
from qcli.text.code_blocks import code_blocks

SAT = "A cat sat.\n"


@pytest.fixture
def type_turns(type_line, telling, monkeypatch, tmp_path):
    """Type lines in a chat in a terminal, in an empty folder; stdout and the lines of stderr after the two of the greeting."""
    monkeypatch.setattr("qcli.commands.chat.is_interactive", lambda: True)
    monkeypatch.setattr(line_input, "is_interactive", lambda: False)
    monkeypatch.chdir(tmp_path)

    def run(*lines, options=()):
        code, out, err = type_line("chat", *options, piped="".join(line + "\n" for line in lines))
        assert code == 0
        return out, [line for line in err.splitlines() if line][2:]

    return run


@pytest.fixture
def copied(monkeypatch):
    """The texts that are put into the clipboard."""
    texts = []
    monkeypatch.setattr(clipboard, "copy", lambda text: texts.append(text) or True)
    return texts


def asked():
    """What the user says in the last conversation."""
    library = Library()
    return [message.text for message in library.read(library.last()).branch() if message.role == "user"]


# --- words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("/UNDO 2", ("undo", "2")),
        ("/reg", ("regenerate", "")),
        ("/re", ("re", "")),
        ("/?", ("help", "")),
        ("/bye", ("exit", "")),
        ("/read  a b\n", ("read", "a b")),
        ("/sytem Be brief.", ("sytem", "Be brief.")),
        ("/set-temp 1", ("set-temp", "1")),
        ("/no/such path", ("", "")),
        ("hello", ("", "")),
    ],
)
def test_what_is_meant(typed, meant):
    assert parsed(typed) == meant


def test_every_other_word_belongs_to_one_command():
    words = [word for name, command in COMMANDS.items() for word in (name, *command.also)]
    assert len(words) == len(set(words))


def test_a_beginning_that_two_commands_share(type_turns):
    assert type_turns("/re")[1][0] == "error: /re can be /redo or /regenerate or /read or /resume"


def test_three_quotes_make_a_message_of_anything(type_turns):
    assert (quoted('"""a\nb"""'), quoted('"""\n/help\n"""'), quoted('""""""'), quoted('"""a')) == (
        *("a\nb", "/help"),
        *(None, None),
    )
    assert type_turns('"""/help"""')[0] == SAT
    assert asked() == ["/help"]


@pytest.mark.parametrize(("text", "open"), [('"""', True), ('"""a\nb', True), ('"""a"""', False), ('a"""', False)])
def test_enter_goes_on_with_a_message_whose_quotes_are_open(text, open):
    assert line_input._quote_is_open(text) is open


def test_help_tells_of_every_command_and_of_one(type_turns):
    _, said = type_turns("/help")
    assert {line.split()[0] for line in said} >= {f"/{name}" for name in COMMANDS}
    assert type_turns("/help /exit")[1][1] == "also typed as  /quit, /bye, /q"
    assert "did you mean /save?" in type_turns("/help savve")[1][1]


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_lists_fit_the_terminal(columns, monkeypatch, capsys):
    monkeypatch.setattr("qcli.console.stderr_columns", lambda: columns)
    listing.tell([("/short", "word " * 30), ("/longer [N]", "a word")])
    said = capsys.readouterr().err
    assert said.split().count("word") == 31
    assert max(map(len, said.splitlines())) < columns


# --- settings ------------------------------------------------------------------------------------------------------


def test_set_shows_all_changes_one_and_goes_back(type_turns):
    _, said = type_turns("/set")
    assert {line.split()[0] for line in said[:-2]} == {*SETTINGS} >= {*OPTIONS}
    _, said = type_turns(
        "/set temp", "/set temp 0.25", "/set parameter top-k=7", "/set temperature", "/set temp default"
    )
    assert [line.split("  ")[0] for line in said] == [
        *("temperature 0.7", "temperature is now 0.25", "top_k is now 7"),
        *("temperature 0.25", "temperature is now 0.7"),
    ]


def test_what_is_set_is_how_answers_are_drawn_here_and_in_the_next_conversation(type_turns):
    out, _ = type_turns("/set max_tokens 2", "Hi", "/set seed 3", "/clear", "Ho", options=["--temperature", "0.5"])
    assert out == "A cat\n" * 2
    library = Library()
    drawn = library.read(library.last()).branch()[-1].sampling
    assert {name: drawn[name] for name in ("temperature", "seed", "max_tokens")} == {
        "temperature": 0.5,
        "seed": 3,
        "max_tokens": 2,
    }


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("temperature warm", "temperature cannot be warm"),
        ("temperature -1", "temperature cannot be -1"),
        ("temperature 1 2", "temperature takes one value"),
        ("max_tokens 0", "max_tokens cannot be 0"),
        ("seed 1.5", "seed cannot be 1.5"),
        ("stats loud", "stats cannot be loud"),
        ("tempreature 1", "there is no setting 'tempreature'"),
        ("top 1", "there is no setting 'top'"),
    ],
)
def test_what_cannot_be_set(type_turns, typed, told):
    _, said = type_turns(f"/set {typed}")
    assert said[0].startswith(f"error: {told}")
    assert said[1].startswith("hint: ")


def test_figures_after_answers_are_chosen(type_turns):
    _, said = type_turns("Hi", "/set stats short", "Hi", "/set stats long", "Hi", "/set stats off", "Hi")
    assert [line for line in said if "tok/s" in line] == [said[1], said[3]]
    assert "context 1" in said[1]
    assert "first token after" in said[3]


# --- another model -------------------------------------------------------------------------------------------------


def test_another_model_goes_on_with_the_conversation(type_turns, storyteller, tmp_path, telling, storyteller_tokenizer):
    (tmp_path / "other.gguf").write_bytes(storyteller.read_bytes())
    _, said = type_turns("Hi", "/model other.gguf", "Ho", "/model", "/model ./other.gguf", "/model storyteller")
    assert said[0].startswith("other goes on · 18 tokens read in ")
    assert said[1] == "other · other.gguf"
    assert said[2] == "other is already the model"
    assert said[3].startswith("storyteller goes on · ")
    assert Library().last().model == "other"
    assert "Hi<|im_end|>" in storyteller_tokenizer.decode(telling.ids, special=True)


def test_a_model_that_cannot_be_had_leaves_the_one_there_is(type_turns, tmp_path, monkeypatch, storyteller):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    (tmp_path / "large.gguf").write_bytes(storyteller.read_bytes())
    usual = Engine.load

    def load(file, **given):
        if file.path.name == "large.gguf":
            raise UsageError("too large", "take another")
        return usual(file, **given)

    monkeypatch.setattr(Engine, "load", load)
    out, said = type_turns("Hi", "/model nobody", "/model bad.gguf", "/model large.gguf", "/model", "Ho")
    assert out == SAT * 2
    assert [line for line in said if line.startswith("error")][2] == "error: too large"
    assert said[-1].startswith("storyteller · ")


# --- files ---------------------------------------------------------------------------------------------------------


def test_files_stand_fenced_before_the_message(type_turns, tmp_path):
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "b c.txt").write_text("two\n")
    _, said = type_turns("/read a.txt 'b c.txt'", "Why?", 'What of @a.txt, and @"b c.txt"?', "mail @joe or x@a.txt")
    assert said[0].startswith("a.txt · 4 B · ")
    assert said[2] == "the next message is about them"
    files = "a.txt:\n```\none\n```\n\nb c.txt:\n```\ntwo\n```\n\n"
    assert asked() == [
        files + "Why?",
        files + 'What of a.txt, and "b c.txt"?',
        "mail @joe or x@a.txt",
    ]


@pytest.mark.parametrize("name", ["a" * 300, "~nobody/x", "a\0b", "/", "no/such/a.txt", "angular/core"])
def test_what_is_no_name_of_a_file_stays_as_it_stands(name):
    assert file_texts.mentioned(f"see @{name} there") == (f"see @{name} there", [])
    assert parsed(f"/{name} there") != ("help", "")


def test_a_pattern_names_the_files_that_it_fits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.md", "a.md", "it's.txt"):
        (tmp_path / name).write_text("x")
    assert file_texts.typed_names("*.md *.no") == ["a.md", "b.md", "*.no"]
    assert file_texts.typed_names("it's.txt") == ["it's.txt"]
    assert file_texts.typed_names("isn't") == ["isn't"]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("/read", "/read needs the name of a file"),
        ("/read data", "data: is not a text file"),
        ("/read none.txt", "none.txt: no such file"),
        ("what is @notes.mdd", "@notes.mdd: no such file"),
        ("what is @folder", "@folder: is a folder"),
        ("what is @data", "data: is not a text file"),
    ],
)
def test_what_is_no_text_does_not_go_to_the_model(type_turns, tmp_path, typed, told):
    (tmp_path / "data").write_bytes(b"\x7fELF\0\0")
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "folder").mkdir()
    out, said = type_turns(typed)
    assert (out, said[0].startswith(f"error: {told}"), said[1][:6]) == ("", True, "hint: ")


def test_run_refuses_what_is_no_text(refused, tmp_path_factory):
    data = tmp_path_factory.mktemp("other") / "data"
    data.write_bytes(b"\0")
    refused(["run", "Hi", "-f", str(data)], 2, "is not a text file")


def test_what_is_piped_in_names_no_files(telling, type_line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("one\n")
    assert type_line("chat", "--save", piped="see @a.txt\n") == (0, SAT, "")
    assert asked() == ["see @a.txt"]


# --- answers elsewhere ---------------------------------------------------------------------------------------------


def test_copy(type_turns, copied):
    _, said = type_turns("/copy", "One", "/copy", "/copy 2", "/copy code", "Two", "/copy 2", "/copy x")
    assert copied == ["A cat sat."] * 2
    assert [line for line in said if line.startswith("error")] == [
        "error: there is no answer yet",
        "error: there is no answer 2, there are 1",
        "error: no answer has a block of code",
        "error: /copy takes a number of answers, not 'x'",
    ]
    assert said[2] == "copied: 10 characters, if your terminal allows it"


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("a\n```py\nx = 1\n```\nb\n~~~\n```\n~~~\n", ["x = 1\n", "```\n"]),
        ("- a\n  ````\n  if x:\n      y\n  ````\n", ["if x:\n    y\n"]),
        ("```sh\nls\n", ["ls\n"]),
        ("```not``` a fence", []),
    ],
)
def test_blocks_of_code(text, blocks):
    assert code_blocks(text) == blocks


def test_the_clipboard_is_asked_of_tmux_and_else_of_the_terminal(monkeypatch):
    said = []
    monkeypatch.setattr(clipboard, "_send", lambda codes: said.append(codes) or True)
    monkeypatch.setattr(clipboard, "_by_tmux", lambda text: said.append(text) or text == "in tmux")
    monkeypatch.setenv("TMUX", "socket")
    assert clipboard.copy("in tmux")
    assert clipboard.copy("é")
    monkeypatch.delenv("TMUX")
    assert clipboard.copy("é")
    assert said == ["in tmux", "é", *["\x1b]52;c;w6k=\x07"] * 2]


def test_export_writes_what_the_ending_says_and_never_over_a_file_unasked(type_turns, tmp_path, monkeypatch):
    answers = [False, True]
    monkeypatch.setattr(line_input, "agreed", lambda question: answers.pop(0))
    (tmp_path / "a.md").write_text("mine")
    _, said = type_turns("Hi", "/export a.md")
    assert (said[-1], (tmp_path / "a.md").read_text()) == ("nothing was written", "mine")
    type_turns("Hi", "/export a.md", "/export b.JSON")
    assert "A cat sat." in (tmp_path / "a.md").read_text()
    written = json.loads((tmp_path / "b.JSON").read_text())
    assert [message["text"] for message in written["messages"]] == ["Hi", "A cat sat."]
    assert (written["title"], written["branch"]) == ("Hi", [1, 2])


def test_export_in_a_pipe_replaces_nothing(telling, type_line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.md").write_text("mine")
    code, _, err = type_line("chat", piped="Hi\n/export a.md\n")
    assert (code, "already exists" in err, (tmp_path / "a.md").read_text()) == (1, True, "mine")


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("/export", "/export needs the name of a file"),
        ("/export a.html", "a.html: the name has no ending that says how"),
        ("/export no/a.md", "no/a.md: there is no folder no"),
    ],
)
def test_what_cannot_be_exported(type_turns, typed, told):
    assert type_turns("Hi", typed)[1][0].startswith(f"error: {told}")
    assert type_turns("/export a.md")[1][0] == "error: there is nothing to export yet"


def test_tokens_by_message(type_turns, telling):
    _, said = type_turns("/tokens", "Hello", "/tokens", options=["--system", "Rhyme."])
    assert said[0] == "error: there is no message yet"
    assert [line.split(maxsplit=1)[1] for line in said[2:5]] == [
        *("system: Rhyme.", "user: Hello", "assistant: A cat sat."),
    ]
    whole = int(said[5].split()[0])
    assert sum(int(line.split()[0]) for line in said[2:5]) < whole < 64
    assert said[5].endswith(f"{100 * whole / 256:.0f} % of the context of 256")


def test_tokens_of_what_is_no_longer_seen(type_turns):
    turns = [f"Tell me story number {i}, please." for i in range(12)]
    _, said = type_turns(*turns, "/tokens", options=["--ctx-full", "oldest"])
    assert sum("user, no longer seen: Tell" in line for line in said) > 2
    assert int(said[-1].split()[0]) < 256


# --- completion ----------------------------------------------------------------------------------------------------


class Here:
    """Of a chat what completion asks for."""

    options: ClassVar[dict] = {}
    stats, path, library = "short", None, Library
    llm = Mock(thinking=Mock(thinks=True, words=("off", "hide")))


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("/UN", ["/undo "]),
        ("/ex", ["/export ", "/exit"]),
        ("/set top", ["top_k", "top_p"]),
        ("/set stats l", ["stats long"]),
        ("/think h", ["hide"]),
        ("/help und", ["undo"]),
        ("/model story", ["storyteller"]),
        ("/copy ", ["code"]),
        ("/read a.txt s", ["a.txt sub/"]),
        ("/read b", ['"b c.txt"']),
        ('/read "b c', ['"b c.txt"']),
        ("/read sub/", ["sub/d"]),
        ("look at @a", ["@a.txt"]),
        ("look at @b", ['@"b c.txt"']),
        ("look at a", []),
        ("/undo 1", []),
    ],
)
def test_what_tab_offers(typed, offered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for name in ("a.txt", "b c.txt", "sub/d", ".hidden"):
        (tmp_path / name).write_text("x")
    found = list(completions(Here(), typed))
    assert [text for _, text, _ in found] == offered
    assert all(typed.endswith(replaced) for replaced, _, _ in found)


def test_tab_tells_what_each_command_does_and_shows_hidden_files_when_a_dot_is_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".hidden").write_text("x")
    assert [help for _, _, help in completions(Here(), "/")] == [command.help for command in COMMANDS.values()]
    assert (chat_files.paths(""), chat_files.paths(".h"), chat_files.paths("no/such/")) == ([], [".hidden"], [])
