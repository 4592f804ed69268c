"""qcli run with answers of a form: what is printed when, and what of what was cut."""

from __future__ import annotations

import json

import pytest

AGE = '{"type":"integer","minimum":0,"maximum":99}'
CAT = f'{{"type":"object","properties":{{"age":{AGE}}},"required":["age"],"additionalProperties":false}}'
LONG = '{"type":"array","items":{"type":"string"},"minItems":50}'
ASKED = ["run", "Hi", "-t", "1", "--seed", "1"]


def test_an_answer_that_is_whole_is_printed(type_line):
    code, out, err = type_line(*ASKED, "--schema", CAT)
    assert code == 0
    assert 0 <= json.loads(out)["age"] <= 99
    assert out.endswith("}\n")
    assert err == ""


def test_one_of_some_choices_by_name_of_a_file_or_by_an_expression(type_line, tmp_path):
    assert type_line(*ASKED, "--choice", "yes", "--choice", "no")[1] in ("yes\n", "no\n")
    assert type_line(*ASKED, "--regex", "[ab]{3}")[1].strip("ab") == "\n"
    for name, text in (("a.lark", 'start: "a" "b"\n'), ("a.gbnf", 'root ::= "a" "b"\n')):
        (tmp_path / name).write_text(text)
        assert type_line(*ASKED, "--grammar", str(tmp_path / name))[1] == "ab\n"


def test_an_answer_that_was_cut_is_told_and_not_printed(type_line):
    line = [*ASKED, "--schema", LONG, "-n", "7"]
    code, out, err = type_line(*line)
    assert (code, out) == (1, "")
    assert "the answer is not complete: it stopped after 7 tokens" in err
    assert "--max-tokens" in err
    for more in (["--partial"], ["--stream"]):
        code, out, err = type_line(*line, *more)
        assert code == 1
        assert out.startswith("[")
        assert "not complete" in err
    assert type_line(*line, "--json")[:2] == (1, "")
    code, out, _ = type_line(*line, "--json", "--partial")
    told = json.loads(out)
    assert (code, told["fits"], told["value"]) == (1, False, None)


def test_json_has_the_value_and_the_log_probabilities(type_line):
    code, out, _ = type_line(*ASKED, "--schema", CAT, "--json", "--logprobs", "2")
    told = json.loads(out)
    assert code == 0
    assert told["value"] == json.loads(told["text"])
    assert told["fits"] is True
    assert "".join(entry["token"] for entry in told["logprobs"]) == told["text"]
    assert {len(entry["top_logprobs"]) for entry in told["logprobs"]} == {2}
    plain = json.loads(type_line(*ASKED, "-n", "2", "--json")[1])
    assert plain.keys().isdisjoint({"value", "fits", "logprobs"})


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (["--schema", '{"type":"strin"}'], 2, "at #: strin is none of the types"),
        (["--schema", "nowhere.json"], 1, "no such file"),
        (["--regex", "["], 2, "unclosed"),
        (["--choice", ""], 2, "cannot be empty"),
        (["--grammar", "nowhere.gbnf"], 1, "no such file"),
        (["--regex", "a", "--choice", "a"], 2, "cannot be used together"),
        (["--stream"], 2, "--stream needs --schema"),
        (["--partial"], 2, "--partial needs --schema"),
        (["--logprobs", "1"], 2, "--json"),
    ],
)
def test_what_is_wrong_is_told_before_a_model_is_loaded(refused, monkeypatch, line, code, said):
    monkeypatch.setattr("qcli.llm.LLM.__init__", None)
    refused(["run", "Hi", *line], code, said)
