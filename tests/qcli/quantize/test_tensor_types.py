"""The type that each tensor gets: by the mixes of llama.cpp, by the user's overrides, by the length of its rows."""

from __future__ import annotations

import json
import re
from itertools import groupby
from pathlib import Path

import pytest
from named_tensors import named
from places import DATA

from qcli.commands.quantize_report import replacements
from qcli.errors import UsageError
from qcli.gguf.file import GGUFFile
from qcli.gguf.types import BLOCKS
from qcli.quantize import job
from qcli.quantize.mixes import MIXES
from qcli.quantize.tensor_types import allows_quantization, choose_types

TINY = DATA / "qwen3next.gguf"


def llama(layers, n, ff, heads, keys, experts=0, tied=False, arch="llama") -> GGUFFile:
    """The tensors of a Llama, or a relative with experts."""
    shapes = {"token_embd.weight": (1024, n), "output_norm.weight": (n,)}
    shapes |= {} if tied else {"output.weight": (1024, n)}
    head = n // heads
    for i in range(layers):
        block = {"attn_norm": (n,), "ffn_norm": (n,), "attn_q": (n, n), "attn_k": (keys * head, n)}
        block |= {"attn_v": (keys * head, n), "attn_output": (n, n)}
        if experts:
            block |= {"ffn_gate_inp": (experts, n), "ffn_gate_exps": (experts, ff, n)}
            block |= {"ffn_up_exps": (experts, ff, n), "ffn_down_exps": (experts, n, ff)}
        else:
            block |= {"ffn_gate": (ff, n), "ffn_up": (ff, n), "ffn_down": (n, ff)}
        shapes |= {f"blk.{i}.{name}.weight": shape for name, shape in block.items()}
    numbers = {"block_count": layers, "attention.head_count": heads, "attention.head_count_kv": keys}
    numbers |= {"expert_count": experts} if experts else {}
    return named({"general.architecture": arch} | {f"{arch}.{k}": v for k, v in numbers.items()}, shapes)


@pytest.fixture(scope="module")
def shapes(storyteller):
    """Files by the names that mixes.jsonl has for them."""
    with GGUFFile.open(storyteller) as file:
        own = file
        yield {
            "storyteller": own,
            "storyteller guided": own,
            "mixtral": llama(32, 1024, 1792, 32, 8, experts=8),
            "l70": llama(80, 1024, 2048, 64, 8),
            "dense": llama(22, 1024, 2816, 16, 16, tied=True),
            "q3moe": llama(48, 2048, 768, 32, 4, experts=128, tied=True, arch="qwen3moe"),
            "odd": llama(12, 576, 1536, 9, 3),
        }


def runs(chosen: dict[str, str]) -> dict[str, str]:
    """Types of the tensors of one name, layer after layer, as runs: Q6_K*3 Q4_K*2."""
    found: dict[str, list[str]] = {}
    for name, kind in chosen.items():
        found.setdefault(re.sub(r"^blk\.\d+\.", "", name), []).append(kind)
    return {name: " ".join(f"{k}*{len(list(run))}" for k, run in groupby(kinds)) for name, kinds in found.items()}


@pytest.mark.parametrize("line", (DATA / "mixes.jsonl").read_text().splitlines(), ids=lambda line: line[1:32])
def test_the_types_are_those_of_llama_quantize(shapes, line):
    shape, mix, wanted = json.loads(line)
    chosen = choose_types(shapes[shape], MIXES[mix], (), importance="guided" in shape)
    matrices = {name: kind for name, kind in chosen.items() if allows_quantization(shapes[shape].tensors[name])}
    assert runs(matrices) == wanted


def test_the_embedded_model_has_the_types_of_its_mix(storyteller):
    with GGUFFile.open(storyteller) as file:
        assert choose_types(file, MIXES["Q4_K_M"]) == {t.name: t.type for t in file.tensors.values()}


@pytest.fixture
def tiny():
    with GGUFFile.open(TINY) as file:
        yield file


def test_the_user_decides_first(tiny):
    overrides = [job.override("ffn_down_exps=q8_0"), job.override(r"blk\.[01]\.ffn_down=F16")]
    chosen = choose_types(tiny, MIXES["Q4_0"], overrides)
    assert chosen["blk.0.ffn_down_exps.weight"] == "Q8_0"
    assert chosen["blk.0.ffn_down_shexp.weight"] == "F16"
    assert chosen["blk.2.ffn_down_shexp.weight"] == "Q4_0"


@pytest.mark.parametrize("given", ["Q8_0", "=Q8_0", "ffn=", "ffn=Q9", "(=Q8_0"])
def test_an_override_that_cannot_be_meant(given):
    with pytest.raises(UsageError):
        job.override(given)


def test_an_override_that_nothing_answers_to(tiny):
    with pytest.raises(UsageError, match="nowhere"):
        choose_types(tiny, MIXES["Q8_0"], [job.override("nowhere=Q8_0")])
    with pytest.raises(UsageError, match="attn_norm"):
        choose_types(tiny, MIXES["Q8_0"], [job.override("attn_norm=Q8_0")])


def test_a_type_that_does_not_fit_the_rows_is_replaced_and_told(shapes):
    file = shapes["odd"]  # rows of 576 and of 1536
    changes = job.make_job(file, Path("x"), "Q4_K_M").changes
    for change in changes:
        fits = change.tensor.shape[-1] % BLOCKS[change.wanted].columns == 0
        assert fits == (change.type == change.wanted), change.tensor.name
    lines = replacements(changes)
    assert {line.split(":")[0] for line in lines} == {"Q5_0 in place of Q4_K", "Q8_0 in place of Q6_K"}
    assert all("whose rows of 576 are no multiple of 256" in line for line in lines)
    counts = [int(line.split(": ")[1].split()[0]) for line in lines]
    assert sum(counts) == sum(change.type != change.wanted for change in changes)


def test_what_the_user_asks_for_is_told_too(tiny):
    changes = job.make_job(tiny, Path("x"), "Q8_0", overrides=[job.override("attn_q.weight=Q6_K")]).changes
    columns = tiny.tensors["blk.3.attn_q.weight"].shape[-1]
    (line,) = replacements(changes)
    assert line.startswith("Q8_0 in place of Q6_K: 1 matrix, such as blk.3.attn_q.weight")
    assert f"rows of {columns} " in line


def test_types_that_fit_are_told_in_no_line(tiny):
    assert replacements(job.make_job(tiny, Path("x"), "Q8_0").changes) == []


def test_the_lines_come_with_a_dry_run_and_not_with_json(type_line):
    line = ("quantize", str(TINY), "Q8_0", "--dry-run", "--tensor", "attn_q.weight=Q6_K")
    code, out, err = type_line(*line)
    assert code == 0
    assert "Q8_0 in place of Q6_K" in err
    code, out, err = type_line(*line, "--json")
    assert (code, err) == (0, "")
    told = next(t for t in json.loads(out)["tensors"] if t["name"] == "blk.3.attn_q.weight")
    assert (told["wanted"], told["to"]) == ("Q6_K", "Q8_0")
    assert type_line(*line, "--quiet")[2] == ""
