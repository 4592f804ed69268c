"""What a shell is offered, and the scripts that make it ask."""

from __future__ import annotations

import foreign_models
import pytest

from qcli.cli import invoke
from qcli.commands import completion


@pytest.fixture
def offered(monkeypatch, capsys, data_folder, tmp_path):
    """What bash is offered for a line, typed in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def complete(line: str) -> list[str]:
        words = line.split(" ")
        monkeypatch.setenv("_QCLI_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        with pytest.raises(SystemExit) as left:
            invoke([])
        assert left.value.code == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out.split()

    return complete


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("qcli ch", ["chat"]),
        ("qcli run --temp", ["--temperature", "--temp"]),
        ("qcli run -m sto", ["storyteller"]),
        ("qcli run sto", ["storyteller"]),
        ("qcli chat qwen3-next-80b-a3b-t", ["qwen3-next-80b-a3b-thinking"]),
        ("qcli show no", []),
        ("qcli run -f no", []),
        ("qcli config s", ["show", "set"]),
        ("qcli config set temp", ["temperature"]),
    ],
)
def test_a_line_is_completed(offered, line, words):
    assert offered(line) == words


def test_files_that_are_models(offered, tmp_path):
    (tmp_path / "mine.gguf").touch()
    (tmp_path / "two words.gguf").touch()  # which bash would take for two
    assert offered("qcli run -m m") == ["mine.gguf"]
    assert offered("qcli run -m t") == []


def test_models_of_other_tools_but_none_with_a_colon(offered, data_folder):
    foreign_models.ollama(data_folder / "home" / ".ollama" / "models", "library/pubmed/7b", b"GGUF")
    foreign_models.put(data_folder / "home" / ".lmstudio" / "models" / "pub" / "r-GGUF" / "r.gguf", b"GGUF")
    assert offered("qcli run -m pub") == ["pub/r-GGUF"]
    assert offered("qcli rm pub") == ["pub/r-GGUF"]


def test_conversations(type_line, telling, offered):
    type_line("run", "Hi", "--name", "whales", "-q")
    type_line("run", "Hi", "--name", "two words", "-q")
    assert offered("qcli chat --resume wh") == ["whales"]
    assert offered("qcli sessions show ") == ["1", "whales"]


@pytest.mark.parametrize("text", ["wrong", "[x]"])
def test_a_wrong_file_of_the_user_is_no_concern_of_a_shell(offered, data_folder, text):
    (data_folder / "config").mkdir()
    (data_folder / "config" / "models.toml").write_text(text, "utf-8")
    assert offered("qcli run -m sto") == []


def test_descriptions_hold_nothing_that_a_shell_or_rich_obeys():
    assert completion._said('a "$(rm)" `b` [red]c[/] \x1b[31m') == "a rm b red c 31m"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_scripts(monkeypatch, capsys, shell):
    monkeypatch.setattr("shellingham.detect_shell", lambda *_: (shell, f"/bin/{shell}"))
    with pytest.raises(SystemExit) as left:
        invoke(["--show-completion"])
    assert left.value.code == 0
    assert f"_QCLI_COMPLETE=complete_{shell}" in capsys.readouterr().out
