"""A repository with several models: what is listed and recommended, what a person answers, and what a script gets."""

from __future__ import annotations

import json

import pytest
from gguf_maker import small_model

from qcli.bench.shapes import find_shape
from qcli.catalog.entries import load_catalog
from qcli.commands import prospect_table
from qcli.errors import QcliError
from qcli.forecast import glance, repository
from qcli.forecast.known_shape import header_of_shape
from qcli.forecast.prospect import Prospect
from qcli.forecast.survey import Survey
from qcli.hub.repo_files import RepoFile, variants

REPO = "some/Model-GGUF"
FOUND = [
    Prospect("Q4_K_M", 10**6, 4.9, "in memory", tok_per_s=31.2),
    Prospect("UD-Q6_K_XL", 1.4 * 10**6, 6.7, "streamed", tok_per_s=4.06, estimated=True),
    Prospect("Q8_0", 2 * 10**6, 8.5, "too large"),
]
CHOICE = Survey(FOUND, (0, "the best that stays in memory"), 10**9)


@pytest.fixture
def three(hub):
    """Two quantizations more in the repository."""
    data = hub.repos[REPO]["Model-Q4_K_M.gguf"]
    hub.repos[REPO] |= {"Model-UD-Q6_K_XL.gguf": data + b"q6", "Model-Q8_0.gguf": data + b"more", "mmproj.gguf": data}
    return hub


@pytest.fixture
def told(monkeypatch) -> list[bool]:
    """In place of rehearsals a known result; whether speeds were asked for."""
    asked: list[bool] = []

    def survey_repository(listing, found, options=None, speeds=True, progress=None):
        asked.append(speeds)
        return CHOICE, ""

    monkeypatch.setattr(repository, "survey_repository", survey_repository)
    return asked


@pytest.fixture
def person(monkeypatch) -> list[str]:
    """A person at the terminal, who gives these answers; None at the end of the input."""
    answers: list[str] = []
    monkeypatch.setattr("qcli.line_input.is_interactive", lambda: True)
    monkeypatch.setattr("qcli.line_input.asked", lambda _: answers.pop(0) if answers else None)
    return answers


@pytest.mark.parametrize(
    ("answers", "taken"),
    [
        *(
            ([""], "Q4_K_M"),
            (["3"], "Q8_0"),
            (["q8_0"], "Q8_0"),
            (["Q6_K_XL"], "UD-Q6_K_XL"),
            (["9", "2"], "UD-Q6_K_XL"),
        ),
        *((["²", "8"], ""), (["q"], ""), ([], ""), (["nonsense", "x", "y"], "")),
    ],
)
def test_a_person_takes_one_or_leaves(three, told, person, type_line, answers, taken):
    person += answers
    code, out, err = type_line("pull", REPO)
    assert told == [True]
    if taken:
        assert (code, out.rpartition("/")[2]) == (0, f"Model-{taken}.gguf\n")
        assert f"-m {REPO}:{taken}`" in err
    else:
        assert (code, out, three.sent) == (2, "", 0)
        assert "no version was chosen" in err


def test_a_script_gets_the_list_at_once(three, told, type_line):
    code, out, err = type_line("pull", REPO)
    assert (code, out, told, three.sent) == (2, "", [False], 0)
    assert err.splitlines() == [
        "      quant       size  bits  fit        tok/s",
        "*  1  Q4_K_M      1 MB   4.9  in memory     31",
        "   2  UD-Q6_K_XL  1 MB   6.7  streamed    ~4.1",
        "   3  Q8_0        2 MB   8.5  too large",
        "",
        "* Q4_K_M: the best that stays in memory",
        f"error: {REPO}: has 3 versions",
        f"hint: name one, as in `qcli pull {REPO}:Q4_K_M`; `qcli plan {REPO}` tells speeds, too",
    ]


def test_a_repository_is_planned(three, told, type_line):
    code, out, err = type_line("plan", REPO.upper().replace("SOME", "some").replace("MODEL", "Model"))
    assert (code, err, told) == (0, "", [True])
    assert out.startswith(f"{REPO}\n      quant")
    assert out.endswith(f"* Q4_K_M: the best that stays in memory\n`qcli pull {REPO}:Q4_K_M` downloads it\n")
    found = json.loads(type_line("plan", REPO, "--json")[1])
    assert (found["model"], found["recommended"], found["remark"]) == (REPO, "Q4_K_M", None)
    assert [one["file"] for one in found["models"]] == [f"Model-{q}.gguf" for q in ("Q4_K_M", "UD-Q6_K_XL", "Q8_0")]
    assert found["models"][1]["tok_per_s"] == 4.06
    assert found["models"][2]["tok_per_s"] is None


def test_what_was_downloaded_is_planned_where_the_source_cannot_be_asked(three, told, type_line, monkeypatch):
    seen = []

    def forecast(file, **_):
        seen.append(file.path.name)
        raise QcliError("enough")

    monkeypatch.setattr("qcli.forecast.forecast.forecast", forecast)
    for quant in ("Q4_K_M", "Q8_0"):
        assert type_line("pull", f"{REPO}:{quant}")[0] == 0
        assert type_line("plan", REPO)[1].startswith(f"{REPO}\n")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    type_line("plan", f"{REPO}:Q8_0")
    assert seen == ["Model-Q8_0.gguf"]
    assert "error" in type_line("plan", REPO)[2]


def test_one_header_is_fetched_and_no_more(three, type_line):
    code, _, err = type_line("pull", REPO)
    assert code == 2
    assert "Q8_0" in err
    assert "in memory" in err
    assert "tok/s" not in err
    assert {asked.path.rpartition("/")[2].partition("?")[0] for asked in three.requests("store")} == {
        "Model-Q4_K_M.gguf"
    }


def test_without_a_header_the_sizes_are_told(three, type_line):
    three.repos[REPO] = dict.fromkeys(three.repos[REPO], b"<html>")
    code, out, err = type_line("plan", REPO)
    assert code == 0
    assert "only sizes are known: " in err
    assert "is not a GGUF model file" in err
    assert "Q8_0" in out
    assert json.loads(type_line("plan", REPO, "--json")[1])["remark"].endswith("is not a GGUF model file")


def test_what_is_not_supported_and_what_is_too_much(three, type_line):
    strange = small_model()
    three.repos[REPO] = {f"M-{quant}.gguf": bytes(strange) for quant in ("Q4_K_M", "Q8_0")}
    code, out, err = type_line("plan", REPO)
    assert code == 0
    assert "qcli has no tiny models yet" in err
    assert out.endswith("\nnone of them runs here\n")
    three.repos[REPO] = {f"m{i}-Q4_0.gguf": b"" for i in range(201)}
    code, out, err = type_line("pull", REPO)
    assert (code, out) == (2, "")
    assert "has 201 models, too many to compare" in err


def test_options_that_no_file_can_have(three, type_line):
    for option, value, said in (("--ctx", "99999999", f"{REPO}: was made for"), ("--kv-type", "f64", "kv-type")):
        code, out, err = type_line("plan", REPO, option, value)
        assert (code != 0, out) == (True, "")
        assert said in err


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_lines_are_as_wide_as_the_terminal(columns):
    found = variants([RepoFile(f"Some-Long-Name-of-a-Model-{q}.gguf", 10**11) for q in ("Compact", "Q4_K_M", "Q8_0")])
    files = [Prospect(one.quant, 10**11, 4.9, "in memory", tok_per_s=0.41, estimated=True) for one in found]
    lines = prospect_table.lines(found, Survey(files, (1, "stays in memory, with little to spare"), 1), columns)
    assert max(map(len, lines)) < columns or columns == 20
    assert ("4.9" in lines[1]) == (columns > 40)
    assert lines[1].split()[0] == "1"
    assert lines[2].startswith("*")


def test_names_of_a_server_write_no_control_codes_and_nothing_that_runs_is_said():
    found = variants([RepoFile("Q4_0/m\x9b31m.gguf", 1), RepoFile("m-Q8_0.gguf", 2), RepoFile("m‮-Q4_0.gguf", 3)])
    files = [Prospect(one.quant, None, None, "cannot run") for one in found]
    text = "\n".join(prospect_table.lines(found, Survey(files, None, -5), 80))
    assert text.replace("\n", "").isprintable()
    assert text.endswith("none of them runs here")
    files[0] = Prospect("", None, None, "too large")
    assert prospect_table.lines(found, Survey(files, None, -5), 80)[-1].startswith("none of them runs here: 0 kB")


def test_offline_a_model_of_our_list_is_planned_by_its_shape(type_line, monkeypatch):
    seen = []

    def forecast(file, *, disk, **options):
        seen.append((file.tensors["blk.0.ffn_up_exps.weight"].type, disk.stat().st_size, options["ram"]))
        raise QcliError("enough")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("qcli.hub.headers._SCRATCH", 1 << 20)
    monkeypatch.setattr("qcli.forecast.forecast.forecast", forecast)
    code, _, err = type_line("plan", "qwen3-30b:q6_k", "--ram", "9GB")
    assert (code, seen) == (1, [("Q6_K", 1 << 20, 9 * 10**9)])
    assert "from what qcli knows of this model: HF_HUB_OFFLINE is set" in err
    for model in ("gpt-oss-20b", "qwen3-30b:q99", "a/b:Q4_0"):
        code, out, err = type_line("plan", model)
        assert (code, out) == (1, "")
        assert "HF_HUB_OFFLINE is set" in err


def test_every_shape_that_a_model_is_said_to_have_is_known():
    shapes = {entry.shape for entry in load_catalog().values() if entry.shape}
    assert {header_of_shape(find_shape(name)).metadata["general.architecture"] for name in shapes} == {
        "qwen3next",
        "qwen3moe",
        "gemma4",
        "kimi-linear",
        "nemotron_h_moe",
    }
    assert glance.amounts(header_of_shape(find_shape("qwen3-30b-a3b"))).used == 8 / 128
