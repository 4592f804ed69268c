"""A user's TOML: one key changes, all else stays; what is wrong is told with file and line."""

from __future__ import annotations

import os
import tomllib

import pytest

from qcli.errors import QcliError, UsageError
from qcli.host.toml_files import TomlFile, changed, with_table, without_table


@pytest.mark.parametrize(
    ("before", "key", "literal", "after"),
    [
        ("", "a", "1", "a = 1\n"),
        ("# mine\nb = 2\n", "a", "1", "# mine\nb = 2\na = 1\n"),
        ("b = 2", "a", "1", "b = 2\na = 1\n"),
        ("a = 1  # so\nb = 2\n", "a", "3", "a = 3  # so\nb = 2\n"),
        ('a = "x # y"  # so\n', "a", '"z"', 'a = "z"  # so\n'),
        ("a = 1\r\nb = 2\r\n", "a", "3", "a = 3\r\nb = 2\r\n"),
        ("\ufeffa = 1\n", "a", "3", "\ufeffa = 3\n"),
        ("b = 2\n\n# of t\n[t]\na = 1\n", "a", "3", "b = 2\n\na = 3\n# of t\n[t]\na = 1\n"),
        ("[t]\na = 1\n", "a", "3", "a = 3\n[t]\na = 1\n"),
        ("[t]\na = 1\n\n[u]\n", "a", None, "[t]\na = 1\n\n[u]\n"),
        ("a = [\n  1,\n  2,\n]\nb = 2\n", "a", "3", "a = 3\nb = 2\n"),
        ("a = 1\nb = 2  # so\n", "a", None, "b = 2  # so\n"),
        ("a = [\n 1]\nb = 2\n", "a", None, "b = 2\n"),
        ('b = """\na = 1\n"""\na = 2\n', "a", "3", 'b = """\na = 1\n"""\na = 3\n'),
        ('b = """\n[t]\n"""\n', "a", "3", 'a = 3\nb = """\n[t]\n"""\n'),
        ('"a" = 1\n', "a", "3", "a = 3\n"),
        ("a = 1\n", "a", "1", "a = 1\n"),
    ],
)
def test_one_key_changes_and_all_else_stays(before, key, literal, after):
    assert changed(before, key, literal) == after
    tomllib.loads(after.removeprefix("\ufeff"))


def test_a_key_that_no_line_begins_with_is_left_to_an_editor():
    with pytest.raises(UsageError, match="editor"):
        changed("a.b = 1\n", "a", "3")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"b = 2\na 1\n", "line 2: cannot be read: a 1"),
        (b'a = "x', "line 1"),
        (b"b = 2\n\na = \xff\n", "line 3: is not text in UTF-8"),
        (b"a = " + b"[" * 100_000, "cannot be read"),
        (b"a = " + b"9" * 9_000, "cannot be read"),
        (b"#" * (1 << 20) + b"\n", "too large"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(tmp_path, data, said):
    path = tmp_path / "config.toml"
    path.write_bytes(data)
    with pytest.raises(UsageError) as refused:
        TomlFile.read(path)
    assert refused.value.message.startswith(str(path))
    assert said in refused.value.message
    assert len(refused.value.message) < 400 + len(str(path))


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(QcliError, match="is not a file"):
        TomlFile.read(tmp_path)


def test_lines_of_keys(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text('a = 1\n[t]\nb = 2\n["u v"]\na = 3\n', "utf-8")
    file = TomlFile.read(path)
    assert [file.line_of("a"), file.line_of("b", "t"), file.line_of("a", "u v")] == [1, 3, 5]
    assert [file.line_of("b"), file.line_of("z", "t")] == [None, 2]


@pytest.mark.skipif(os.name == "nt", reason="links and modes of POSIX")
def test_a_link_stays_one_and_the_mode_is_kept(tmp_path):
    real, link = tmp_path / "real.toml", tmp_path / "config.toml"
    real.write_text("b = 2\n", "utf-8")
    real.chmod(0o600)
    link.symlink_to(real)
    TomlFile.read(link).write("a", "1")
    assert link.is_symlink()
    assert real.read_text("utf-8") == "b = 2\na = 1\n"
    assert real.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.toml", "real.toml"]


@pytest.mark.parametrize("before", ["", "a = 1", "# said\r\n[x]\r\ny = 1\r\n\r\n", "\ufeff[x]\ny = 1\n"])
@pytest.mark.parametrize("name", ["plain", "with:colon", 'with "quotes"', "ü"])
def test_a_table_is_added_at_the_end_and_taken_out_again(before, name):
    after = with_table(before, name, "path", '"p"')
    assert after.startswith(before)
    assert tomllib.loads(after.removeprefix("\ufeff"))[name] == {"path": "p"}
    assert after.count("\r\n") == (after.count("\n") if "\r\n" in before else 0)
    if '"' not in name:
        assert without_table(after, name).strip() == before.strip()
    with pytest.raises(UsageError, match="is in the file already"):
        with_table(after, name, "path", '"p"')


@pytest.mark.parametrize(
    "text", ["x = { path = 'p' }", "x.path = 'p'", "[x]\na = 1\n[x.y]\nb = 1", "t = '''\n[x]\n'''"]
)
def test_a_table_that_is_written_otherwise_is_left_to_an_editor(text):
    with pytest.raises(UsageError, match="x stands in the file in a way"):
        without_table(text, "x")
