"""The file of results: whole lines, whatever ended the one that wrote them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qcli.batch.results import Results
from qcli.errors import OutputError, UsageError

FIRST = {"custom_id": "a", "text": "é", "request_id": "req_1f", "error": None}
SECOND = {"custom_id": "b", "response": {"request_id": "req_2e"}, "error": "no"}


def test_results_are_there_again(tmp_path):
    path = tmp_path / "out.jsonl"
    with Results(path) as results:
        assert not path.exists()
        results.add(FIRST)
        results.add(SECOND)
        assert (results.done, results.errors) == ({"a": "1f", "b": "2e"}, 1)
        with pytest.raises(UsageError, match="another qcli has it open"):
            Results(path)
    assert path.read_text("utf-8").splitlines()[0] == '{"custom_id":"a","text":"é","request_id":"req_1f","error":null}'
    with Results(path) as results:
        assert (results.done, results.errors) == ({"a": "1f", "b": "2e"}, 1)


def test_a_line_that_was_cut_anywhere_is_written_anew(tmp_path):
    path = tmp_path / "out.jsonl"
    with Results(path) as results:
        results.add(FIRST)
        whole = path.stat().st_size
        results.add(SECOND)
    data = path.read_bytes()
    for end in range(whole, len(data)):
        path.write_bytes(data[:end])
        with Results(path) as results:
            assert results.done == {"a": "1f"}
            assert path.read_bytes() == data[:end]  # until something is added
            results.add(SECOND)
        assert path.read_bytes() == data


@pytest.mark.parametrize("text", ["hello", "hello\n", '{"custom_id": 3}\n', '{"prompt": "a"}\n', "[" * 100_000 + "\n"])
def test_a_file_of_something_else_is_left_alone(tmp_path, text):
    path = tmp_path / "out.jsonl"
    path.write_text(text)
    with pytest.raises(OutputError, match="line 1 is no result of `qcli batch`"):
        Results(path)
    assert path.read_text() == text


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(OutputError, match="there is no folder"):
        Results(tmp_path / "a" / "out.jsonl")


def test_two_that_begin_at_once_do_not_mix(tmp_path):
    with Results(tmp_path / "out.jsonl") as first, Results(tmp_path / "out.jsonl") as second:
        first.add({"custom_id": "a", "error": None})
        with pytest.raises(OutputError, match="another program made it meanwhile"):
            second.add({"custom_id": "a", "error": None})
        first.add({"custom_id": "b", "error": None})
    with Results(tmp_path / "out.jsonl") as results:
        assert results.done.keys() == {"a", "b"}


def test_a_link_to_nothing_is_not_written_through(tmp_path):
    try:
        (tmp_path / "out.jsonl").symlink_to(tmp_path / "nowhere")
    except OSError:
        pytest.skip("links cannot be made here")
    with Results(tmp_path / "out.jsonl") as results, pytest.raises(OutputError, match="a link to a file that is not"):
        results.add(FIRST)


def test_what_is_no_file_is_left_as_it_is(tmp_path):
    for path, why in [(tmp_path, "is a folder"), (Path(os.devnull), "is not a file")]:
        with pytest.raises(OutputError, match=why) as caught:
            Results(path)
        assert caught.value.hint.startswith("name a file")


def test_results_of_other_questions_are_not_taken_for_those_of_these(tmp_path):
    with Results(tmp_path / "out.jsonl") as results:
        results.add(FIRST)
        results.add(SECOND)
        results.add({"custom_id": "of another program", "response": None, "error": {}})
        results.check({"a": "1f", "b": "2e", "c": "3d"})
        with pytest.raises(OutputError, match="its result of b is not known to answer what is asked now"):
            results.check({"a": "1f", "b": "1f"})
        with pytest.raises(OutputError, match=r"program is not known .* now, nor 1 other") as caught:
            results.check({"of another program": "4c", "c": "3d", "a": "2e"})
        assert "give -o another name" in caught.value.hint
