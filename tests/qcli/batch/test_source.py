"""Files of questions, read line by line."""

from __future__ import annotations

import json
import os

import pytest

from qcli.batch.source import Source
from qcli.errors import ModelNotFoundError, UsageError
from qcli.protocol import body


@pytest.fixture
def source(tmp_path):
    def make(text: str | bytes, name: str = "in.jsonl", template: str | None = None) -> Source:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return Source(path, template)

    return make


def said(source):
    return [(row.id, row.problem.message if row.problem else row.values) for row in source]


def test_a_line_is_an_object_and_named_by_its_custom_id_or_its_number(source):
    read = source('\ufeff{"prompt": "a"}\r\n\n  \n{"custom_id": "x", "messages": []}')
    assert said(read) == [("line-1", {"prompt": "a"}), ("x", {"custom_id": "x", "messages": []})]
    assert list(read.digests()) == ["line-1", "x"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("[1]", "the line is not a JSON object"),
        ('{"prompt": "a"', "the line is not JSON: line 1, column 15"),
        ('{"a": NaN}', "NaN is no number of JSON"),
        ('{"a": 1e999}', "1e999 is no number of ordinary size"),
        ("[" * 100_000, "the line is more than 64 levels deep"),
        ('{"a": ' * 70 + "1" + "}" * 70, "the line is more than 64 levels deep"),
        ('{"a": ' + "1" * 5000 + "}", "the line is not JSON: a number of 5,000 digits"),
        ('{"a": "\\ud800"}', "the line holds U+D800, which is no character"),
        ('{"custom_id": 7}', "custom_id cannot be 7"),
        ('{"custom_id": ""}', "custom_id cannot be ''"),
        (b"\xff\xfe", "the line is not UTF-8: byte 0"),
    ],
)
def test_a_bad_line_is_a_row_of_its_own(source, line, why):
    text = line if isinstance(line, bytes) else line.encode()
    first, second = said(source(text + b'\n{"prompt": "b"}\n'))
    assert first[0] == "line-1"
    assert why in first[1]
    assert second == ("line-2", {"prompt": "b"})


def test_a_line_that_is_too_long_is_not_kept_in_memory(source, monkeypatch):
    monkeypatch.setattr(body, "MOST_BYTES", 100)
    monkeypatch.setattr("qcli.batch.source.MOST_BYTES", 100)
    long = json.dumps({"prompt": "x" * 1000})
    first, second = said(source(f'{long}\n{{"prompt": "b"}}\n'))
    assert "is larger than" in first[1]
    assert second == ("line-2", {"prompt": "b"})


def test_what_a_row_is_does_not_depend_on_where_it_stands(source):
    lines = ['{"prompt": "a"}', '{"prompt": "b"}', '{"prompt": "a"}', '{"custom_id": "x", "prompt": "a"}']
    identities = [row.identity for row in source("\n".join(lines))]
    assert len(set(identities)) == 4
    assert identities[3] == "x"
    assert {row.identity for row in source("\n".join(reversed(lines)))} == set(identities)


def test_rows_of_a_table_fill_the_template(source):
    table = 'custom_id,text\nx,"two\nlines, {quoted}"\n,plain\n\none,two,three\n'
    read = source(table, "t.csv", "Say {{it}}: {text}!")
    assert said(read) == [
        ("x", {"custom_id": "x", "prompt": "Say {it}: two\nlines, {quoted}!"}),
        ("row-2", {"prompt": "Say {it}: plain!"}),
        ("row-4", "the row has 3 cells, and the table 2 columns"),
    ]
    assert said(source("a\tb\n1\t2\n", "t.tsv", "{b}{a}")) == [("row-1", {"prompt": "21"})]


def test_files_that_cannot_be_meant(source, tmp_path):
    with pytest.raises(ModelNotFoundError, match="no such file"):
        Source(tmp_path / "nowhere.jsonl")
    for text, name, template, why in [
        ("a\n1\n", "t.csv", None, "needs a --template"),
        ("", "in.jsonl", "{a}", "--template is for a table"),
        ("a\n1\n", "t.csv", "{b}", "has no column 'b'"),
        ("a\n1\n", "t.csv", "{a} {", "a { stands alone"),
        ('a\n"1\n', "t.csv", "{a}", "unexpected end of data"),
        ("\n\n", "in.jsonl", None, "is empty"),
        ("a\n", "t.csv", "{a}", "has no rows"),
        ("a;b\n1;2\n", "t.csv", "{a}", "has no column 'a'"),
        ("a,b\n1,2\n", "t.csv", "{{a}}", "--template names no column"),
        ("", "t.csv", "a", "--template names no column"),
        ("a,b,a\n1,2,3\n", "t.csv", "{a}", "two columns are called 'a'"),
        ("custom_id,b,custom_id\n1,2,3\n", "t.csv", "{b}", "two columns are called 'custom_id'"),
        ("a\ncafé\n".encode("latin-1"), "t.csv", "{a}", "is not text in UTF-8"),
        ("a\n1\n".encode("utf-16"), "t.csv", "{a}", "is not text in UTF-8"),
        ('{"custom_id": "x"}\n\n{"custom_id": "x"}', "in.jsonl", None, "line 1 and line 3 are both called x"),
        ('{}\n{"custom_id": "line-1"}', "in.jsonl", None, "line 1 and line 2 are both called line-1"),
        ("custom_id,b\nx,1\nx,2\n", "t.csv", "{b}", "row 1 and row 2 are both called x"),
    ]:
        with pytest.raises(UsageError, match=why):
            source(text, name, template).digests()


def test_hints_of_tables_say_what_to_type(source):
    for text, hint in [
        ("a; b\n1;2\n", "put commas between columns in place of ';'; with tabs, call it .tsv"),
        ("a, b\n1, 2\n", "there are {a}, { b}"),
        ("", "its first line has to name them"),
    ]:
        with pytest.raises(UsageError) as caught:
            source(text, "t.csv", "{b}").digests()
        assert caught.value.hint == hint


def test_columns_that_are_not_asked_about_may_have_one_name(source):
    assert said(source("b,b,a,\n1,2,3,\n", "t.csv", "{a}")) == [("row-1", {"prompt": "3"})]
    assert said(source("a,b\n1\n", "t.csv", "{a}")) == [("row-1", "the row has 1 cell, and the table 2 columns")]


def test_what_is_no_file_says_what_it_is(tmp_path):
    with pytest.raises(UsageError, match=": is a folder"):
        Source(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="not a file, and is read twice"):
        Source(tmp_path / "pipe")
