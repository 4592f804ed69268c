"""qcli batch, from a file to a file."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from qcli import LLM
from qcli.batch.job import Job
from qcli.batch.question import Defaults
from qcli.batch.results import Results
from qcli.batch.source import Source
from qcli.errors import QcliError
from qcli.runtime.stats import Stats
from qcli.serving.answers import Done, Failed
from qcli.serving.several_at_a_time import SeveralAtATime

CITY = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}
CHAT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 6}
LINES = [
    {"prompt": "Tell me a story."},
    {"custom_id": "chat", "method": "POST", "url": "/v1/chat/completions", "body": CHAT},
    {"custom_id": "text", "body": {"prompt": "Once upon a time", "max_tokens": 4, "logprobs": 1}},
    {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3, "temperature": 0},
    {"custom_id": "response", "url": "/v1/responses", "body": {"input": "Hi", "max_output_tokens": 3}},
    {"custom_id": "message", "url": "/v1/messages", "body": {**CHAT, "max_tokens": 3}},
    {"custom_id": "no message", "url": "/v1/messages", "body": {}},
    {"custom_id": "form", "prompt": "A city?", "max_tokens": 40, "response_format": {"type": "json_schema",
     "json_schema": {"name": "city", "schema": CITY}}},
    {"custom_id": "tool", "body": {**CHAT, "n": 99}},
    {"custom_id": "two", "body": {**CHAT, "n": 2}},
    {"custom_id": "plain two", "prompt": "Hi", "n": 2},
    {"custom_id": "method", "method": "GET", "body": CHAT},
    {"custom_id": "url", "url": "/v1/embeddings", "body": CHAT},
    {"custom_id": "both", "prompt": "a", **CHAT},
    {"custom_id": "long", "prompt": "word " * 3000},
    {"custom_id": "empty", "prompt": " "},
]  # fmt: skip


@pytest.fixture(scope="module")
def answers():
    def load(_, progress):
        return LLM(threads=2, ctx=2048, keep="shared", progress=progress)

    answers = SeveralAtATime(load)
    answers.start()
    yield answers
    answers.close()


@pytest.fixture
def ran(answers, tmp_path):
    """Runs lines, and gives their results by their ids."""

    def run(lines, name="out.jsonl", system="You are kind.", ordered=False, **options):
        source = tmp_path / "in.jsonl"
        source.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
        with Results(tmp_path / name) as results:
            given: Any = {"max_tokens": 12, **options}
            job = Job(answers, "storyteller", results, Defaults(given, system), ordered=ordered)
            job.run(Source(source), lambda summary: None)
        written = [json.loads(line) for line in (tmp_path / name).read_text("utf-8").splitlines()]
        assert len({result["custom_id"] for result in written}) == len(written)
        return {result["custom_id"]: result for result in written}

    return run


def texts(results):
    return {id: result.get("text") or result["response"]["body"]["choices"][0] for id, result in results.items()}


def test_every_line_has_a_result(ran):
    found = ran([*LINES, "nonsense"])
    assert found["line-1"]["finish_reason"] == "length"
    assert found["line-1"]["new_tokens"] == 12
    chat = found["chat"]["response"]
    assert chat["status_code"] == 200
    assert chat["body"]["choices"][0]["message"]["content"]
    assert chat["body"]["model"] == "storyteller"
    text = found["text"]["response"]["body"]["choices"][0]
    assert len(text["logprobs"]["tokens"]) == 4
    assert "".join(text["logprobs"]["tokens"]) == text["text"]
    assert found["line-4"]["new_tokens"] == 3
    two = found["two"]["response"]["body"]
    assert [choice["index"] for choice in two["choices"]] == [0, 1]
    assert two["choices"][0]["message"] != two["choices"][1]["message"]
    assert two["usage"]["completion_tokens"] == 12
    assert found["plain two"]["error"].startswith("n cannot be more than 1 here")
    assert found["form"]["value"]["city"] in ("Rome", "Oslo")
    response, message = (found[id]["response"]["body"] for id in ("response", "message"))
    assert response["output"][0]["content"][0]["text"]
    assert message["content"][0]["text"]
    assert found["no message"]["response"]["body"]["type"] == "error"
    for id, status, why in [
        ("tool", 400, "n cannot be 99"),
        ("method", 400, "method cannot be 'GET'"),
        ("url", 400, "url cannot be '/v1/embeddings'"),
    ]:
        assert found[id]["response"]["status_code"] == status
        assert why in found[id]["error"]["message"]
        assert found[id]["response"]["body"]["error"]["message"] == found[id]["error"]["message"]
    for id, why in [
        ("both", "has both prompt and messages"),
        ("long", "the context holds 2,048"),
        ("empty", "nothing to answer"),
        ("line-17", "is not JSON"),
    ]:
        assert why in found[id]["error"]


def test_the_same_texts_in_any_order_and_however_often_it_was_stopped(ran, tmp_path):
    lines = [{"custom_id": f"q{n}", "prompt": f"Tell me about {n} cats.", "temperature": 1.5} for n in range(8)]
    lines += [{"prompt": "Tell me a story.", "temperature": 2}] * 2 + [
        {"body": {"prompt": text}} for text in ("Once", "Once upon a")
    ]
    first = ran(lines)
    assert first["line-9"]["text"] != first["line-10"]["text"]
    random.Random(3).shuffle(lines)
    other = ran(lines, "other.jsonl")
    assert sorted(map(str, texts(first).values())) == sorted(map(str, texts(other).values()))
    assert {id: other[id]["text"] for id in other if id[0] == "q"} == {
        id: first[id]["text"] for id in first if id[0] == "q"
    }
    whole = (tmp_path / "other.jsonl").read_bytes()
    (tmp_path / "cut.jsonl").write_bytes(whole[: 2 * len(whole) // 3])
    assert texts(ran(lines, "cut.jsonl")) == texts(other)


def test_results_in_the_order_of_the_lines(ran, tmp_path):
    """Whatever is answered first, and after a stop, too."""
    lines = [{"custom_id": f"q{n}", "prompt": f"{n} cats?", "max_tokens": 25 - 3 * n} for n in range(8)]
    lines.insert(3, {"custom_id": "wrong", "prompt": 3})
    wanted = [line["custom_id"] for line in lines]
    assert list(ran(lines, temperature=0)) != wanted
    found = ran(lines, "ordered.jsonl", ordered=True, temperature=0)
    assert list(found) == wanted
    whole = (tmp_path / "ordered.jsonl").read_bytes()
    (tmp_path / "cut.jsonl").write_bytes(whole[: len(whole) // 2])
    assert ran(lines, "cut.jsonl", ordered=True, temperature=0) == found
    assert (tmp_path / "cut.jsonl").read_bytes() == whole


def test_not_too_many_results_wait_for_one(tmp_path, monkeypatch):
    monkeypatch.setattr("qcli.batch.job._HELD", 5)
    asked, most = [], []

    class FirstLast:
        """Answers all but the first question at once, and that one when some wait for it."""

        def submit(self, question, tell):
            asked.append(tell)
            if len(asked) > 1:
                tell(Done(Stats(finish_reason="stop")))
            most.append(len(job._held))
            if len(asked) == 6:
                asked[0](Done(Stats(finish_reason="stop")))
            return self

        def cancel(self):
            pass

    source = tmp_path / "in.jsonl"
    source.write_text("".join(f'{{"custom_id": "{n}", "prompt": "a"}}\n' for n in range(20)))
    with Results(tmp_path / "out.jsonl") as results:
        job = Job(FirstLast(), "m", results, Defaults({}), ordered=True)
        job.run(Source(source), lambda summary: None)
    written = [json.loads(line)["custom_id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert written == [str(n) for n in range(20)]
    assert max(most) <= 5


def test_options_hold_for_lines_that_say_nothing(ran, answers):
    found = ran([LINES[0], LINES[3], LINES[4]], temperature=0, constraint=None)
    assert [found[id]["new_tokens"] for id in ("line-1", "line-2")] == [12, 3]


def test_what_is_no_fault_of_a_line_ends_the_run(tmp_path):
    class Broken:
        def submit(self, question, tell):
            tell(Failed(QcliError("the disk is gone")))
            return self

        def cancel(self):
            pass

    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "a"}\n')
    with Results(tmp_path / "out.jsonl") as results, pytest.raises(QcliError, match="the disk is gone"):
        Job(Broken(), "m", results, Defaults({})).run(Source(source), lambda summary: None)
    assert not (tmp_path / "out.jsonl").exists()


def test_the_command(type_line, telling, tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "Hi"}\n{"prompt": 3}\n')
    code, said, told = type_line("batch", str(source), "-o", str(out))
    assert (code, said) == (1, "")
    assert f"1 answered · 1 error (see {out})" in told
    results = {row["custom_id"]: row for row in map(json.loads, out.read_text("utf-8").splitlines())}
    assert results["line-1"]["text"] == "A cat sat."
    assert "prompt cannot be 3" in results["line-2"]["error"]
    before = out.read_bytes()
    assert type_line("batch", str(source), "-o", str(out)) == (
        1, "", f"{out} has a result of each of 2 lines already\n"
    )  # fmt: skip
    assert out.read_bytes() == before
    source.write_text('{"prompt": "Hi"}\n{"prompt": 3}\n{"custom_id": "more", "prompt": "Hi"}\n')
    assert type_line("batch", str(source), "-o", str(out), "-q", "--ordered") == (1, "", "")
    assert out.read_bytes().startswith(before)


@pytest.mark.parametrize(
    "line",
    [
        {"prompt": "Hi"},
        {"custom_id": "a", "prompt": "Hi"},
        {"body": {"prompt": "Hi", "max_tokens": 3}},
        {"custom_id": "a", "body": {"n": 99}},
        {"prompt": 3},
    ],
)
def test_a_file_of_answers_to_other_questions_is_left_alone(type_line, telling, tmp_path, line):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps(line))
    type_line("batch", str(source), "-o", str(out))
    before = out.read_bytes()
    source.write_text(json.dumps(dict(reversed(line.items())), indent=None, separators=(" ,", " :")))
    assert "has a result of each of 1 line already" in type_line("batch", str(source), "-o", str(out))[2]
    source.write_text(json.dumps({**line, "max_tokens": 5}) + '\n{"prompt": "more"}\n')
    code, _, told = type_line("batch", str(source), "-o", str(out))
    assert code == 1
    assert f"{out}: its result of {line.get('custom_id', 'line-1')} is not known to answer what is asked now" in told
    assert out.read_bytes() == before


def test_another_template_is_another_question(type_line, telling, tmp_path):
    (tmp_path / "in.csv").write_text("text\ngood\n")
    command = ["batch", str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.jsonl"), "--template"]
    assert type_line(*command, "{text}?")[0] == 0
    (tmp_path / "in.csv").write_text("text\ngood\nbad\n")
    assert "1 answered" in type_line(*command, "{text}?")[2]
    assert "has a result of each of 2 lines already" in type_line(*command, "{text}?")[2]
    code, _, told = type_line(*command, "{text}!")
    assert code == 1
    assert "its result of row-1 is not known to answer what is asked now, nor 1 other" in told


def test_a_pipe_is_told_how_far_it_is(type_line, telling, tmp_path, monkeypatch):
    monkeypatch.setattr("qcli.commands.batch._OFTEN", 0.0)
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    line = ["batch", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl")]
    first, second, figures = type_line(*line)[2].splitlines()
    assert first.startswith("1 of 2 lines · ")
    assert "tok/s · about " in first
    assert second.endswith("about 0.00 s left")
    assert figures.startswith("2 answered")


def test_a_stop_keeps_what_is_there(type_line, telling, tmp_path, monkeypatch):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    add = Results.add

    def stop(self, result):
        add(self, result)
        raise KeyboardInterrupt

    monkeypatch.setattr(Results, "add", stop)
    code, _, told = type_line("batch", str(source), "-o", str(out))
    assert code == 130
    assert "stopped after" in told
    assert len(out.read_text().splitlines()) == 1
    monkeypatch.setattr(Results, "add", add)
    assert type_line("batch", str(source), "-o", str(out))[0] == 0
    assert len(out.read_text().splitlines()) == 2


def test_lines_that_cannot_be_meant(refused):
    refused(["batch", "nowhere.jsonl", "-o", "out.jsonl"], 1, "nowhere.jsonl: no such file")
    refused(["batch", "nowhere.jsonl", "-o", "-"], 2, "there is no file for the answers")
    refused(["batch"], 2, "there is no file of questions")
    refused(["batch", "", "-o", "out.jsonl"], 2, "IN takes the name of a file, and it is empty")
    refused(["batch", "nowhere.jsonl"], 2, "there is no file for the answers")


def test_the_source_is_not_written_to(type_line, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "a"}\n')
    code, _, told = type_line("batch", str(source), "-o", str(source))
    assert code == 1
    assert "is read by this command" in told


def test_a_message_of_the_system_is_read_once(answers, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(json.dumps({"prompt": f"Tell me of {n} cats."}) for n in range(4)))
    with Results(tmp_path / "out.jsonl") as results:
        given: Any = {"max_tokens": 3}
        job = Job(answers, "storyteller", results, Defaults(given, "You are a kind old teller of stories. " * 9))
        job.run(Source(source), lambda summary: None)
    assert 0.6 < job.summary.cached_tokens / job.summary.prompt_tokens < 0.75
    assert answers._llm._cache.store is None


def test_what_is_kept_is_gone_on_from_only_where_the_line_would_be_cut(answers, ran):
    """The mark behind a message of the system is where the prompt parts from one that asks "."."""
    more = {"max_tokens": 8, "logprobs": True, "top_logprobs": 9, "temperature": 2}
    lines = [{"custom_id": text, "prompt": text, **more} for text in ("Hi", ". Hi", ".", "..", "A")]
    system = "You are a kind old teller of stories. " * 9
    kept = answers._llm._cache.kept
    alone: dict[str, Any] = {}
    for line in lines:
        kept.clear()
        alone |= ran([line], f"{line['custom_id']}.jsonl", system)
        assert len(kept.checkpoints) == 1
    assert ran(lines, "all.jsonl", system) == alone
    assert ran(lines[::-1], "back.jsonl", system) == alone
    assert len({c.position for c in kept.checkpoints}) > 1
