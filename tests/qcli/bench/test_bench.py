"""qcli bench: what it measures, that its figures agree with each other, and what it refuses; no speed is asserted."""

from __future__ import annotations

import json
from statistics import median

import pytest

from qcli.bench import bandwidth
from qcli.bench.cases import Case, combinations, context_of, numbers
from qcli.bench.estimate import whole_tok_per_s
from qcli.bench.measure import Result
from qcli.bench.rig import Profile, Rig, mean_expert_bytes
from qcli.bench.shapes import SHAPES
from qcli.errors import UsageError
from qcli.gguf.file import GGUFFile
from qcli.runtime.engine import Engine

FIELDS = ["test", "tok_per_s", "stdev", "gb_per_s", "roofline", "parts"]
PARTS = {"embedding", "norms", "linear attention", "attention", "router", "experts", "head", "sampling", "waiting"}


@pytest.fixture(autouse=True)
def _small_buffer(monkeypatch):
    monkeypatch.setattr(bandwidth, "MOST", 1 << 22)


@pytest.fixture(scope="module")
def file(storyteller):
    with GGUFFile.open(storyteller) as opened:
        yield opened


@pytest.fixture(scope="module")
def rig(file):
    rig = Rig(Engine.load(file, threads=1, ctx=128, chunk=32), file)
    yield rig
    rig.close()


def test_lists():
    assert numbers("-p", "64,512,64", 0) == [64, 512]
    assert numbers("-d", " 0 , 7 ", 0) == [0, 7]
    for wrong in ("", "x", "1,,2", "-1", "1.5", "99999999"):
        with pytest.raises(UsageError, match="-p cannot be"):
            numbers("-p", wrong, 0)


def test_every_combination_is_named_as_llama_bench_names_it():
    cases = combinations([64, 0], [8], [0, 4096], [1, 2], [512])
    named = [(case.name, case.threads) for case in cases]
    names = ["pp64", "tg8", "pp64 @ d4096", "tg8 @ d4096"]
    assert named == [(name, threads) for threads in (1, 2) for name in names]
    assert context_of(cases) == 4096 + 64


def test_json_has_an_object_for_each_test(type_line):
    code, out, err = type_line("bench", *"-p 24,16 -n 3 -d 0,20 -t 1,2 -b 16 -r 2 --json".split())
    assert (code, err) == (0, "")
    found = json.loads(out)
    names = ["pp24", "pp16", "tg3", "pp24 @ d20", "pp16 @ d20", "tg3 @ d20"]
    assert [(one["test"], one["threads"]) for one in found] == [(name, t) for t in (1, 2) for name in names]
    for one in found:
        assert list(one)[:6] == FIELDS
        assert set(one["parts"]) == PARTS
        assert (one["repetitions"], one["batch"], one["model"], one["layers"]) == (2, 16, "storyteller", 8)
        assert one["machine"].keys() == {"cpu", "target", "dot_unit", "cores", "bandwidth_gb_per_s"}


def test_keys_and_values_of_half_the_size(type_line):
    arguments = "-p 0 -n 2 -d 60 -t 1 -r 1".split()
    small, large = (
        json.loads(type_line("bench", *arguments, "--json", "--kv-type", kind)[1])[0] for kind in ("q8_0", "f16")
    )
    assert (small["kv_type"], large["kv_type"]) == ("q8_0", "f16")
    moved = [one["gb_per_s"] * one["seconds"] for one in (small, large)]
    assert moved[0] < moved[1]
    assert "q8_0 keys and values" in type_line("bench", *arguments, "--kv-type", "q8_0")[1].splitlines()[0]


def test_figures_agree(type_line):
    for one in json.loads(type_line("bench", *"-p 40 -n 6 -t 1 -r 1 --json".split())[1]):
        assert one["tok_per_s"] == pytest.approx(one["tokens"] / one["seconds"], rel=1e-3)
        assert 0 < sum(one["parts"].values()) <= one["seconds"] * 1.001  # Python between replays is no part
        assert one["gb_per_s"] == pytest.approx(one["roofline"] * one["machine"]["bandwidth_gb_per_s"], rel=0.01)
        assert min(one["gb_per_s"], one["roofline"], *one["parts"].values(), one["stdev"] + 1e-9) >= 0
        assert one["parts"]["experts"] > 0


def test_the_table_fits_a_terminal(type_line):
    code, out, _ = type_line("bench", *"-p 16 -n 2 -d 0,20 -t 1,2 -b 16,32 -r 1".split())
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert out.startswith("storyteller · qwen3next · 8 layers · 24 MB\n")
    assert "pp16 @ d20 t2 b32" in out
    assert out.count("sampling") == out.count("waiting") == 6  # blocks of parts, three cases each


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        ("-p 0 -n 0", "nothing to measure", 2),
        ("-p many", "-p cannot be 'many'", 2),
        ("-n 1,-1", "-n cannot be", 2),
        ("-d x", "-d cannot be 'x'", 2),
        ("-t 0", "-t cannot be '0'", 2),
        ("-b 0", "-b cannot be '0'", 2),
        ("-r 0", "--repetitions", 2),
        ("--kv-type f8", 'no --kv-type "f8"', 2),
        ("-p 2000 -d 49", "2,048 tokens of context, not 2,049", 2),
        ("--shape=", "no shape is called ''", 2),
        ("--shape no-such", "no shape is called 'no-such'", 2),
        ("--shape qwen3-next-80b-a3b --quant q1", "no quantization is called 'q1'", 2),
        ("--shape qwen3-next-80b-a3b --layers 49", "has 48 layers, not 49", 2),
        ("--shape qwen3-next-80b-a3b --layers 0", "--layers", 2),
        ("--shape qwen3-next-80b-a3b -m x.gguf", "--shape takes no model", 2),
        ("--shape qwen3-next-80b-a3b --peer", "--peer needs a file", 2),
        ("--layers 2", "go with --shape", 2),
        ("--quant q8_0", "go with --shape", 2),
        ("-m no-such.gguf", "no such file", 1),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_a_hint(type_line, arguments, said, code):
    got, out, err = type_line("bench", *arguments.split())
    assert (got, out) == (code, "")
    assert said in err
    assert err.count("\n") == 2
    assert "\nhint: " in err


def test_an_expert_is_gate_up_and_down(file):
    one_layer = [file.tensors[f"blk.0.ffn_{name}_exps.weight"] for name in ("gate", "up", "down")]
    here = sum(tensor.n_bytes for tensor in one_layer) / one_layer[0].shape[0]
    assert mean_expert_bytes(file) == pytest.approx(here, rel=0.2)  # layers differ in the type of down


def test_a_prompt_that_meets_most_experts_reads_most_matrices_once_a_chunk(rig, file):
    small = ("norm", "conv1d", "ssm_a", "ssm_dt", "blk.8.", "token_embd", "output.weight")
    layers = sum(t.n_bytes for name, t in file.tensors.items() if not any(part in name for part in small))
    head = file.tensors["output.weight" if "output.weight" in file.tensors else "token_embd.weight"].n_bytes
    assert rig.engine.programs.head_bytes == head
    one, two = (rig.bytes_moved(Case("pp", tokens, 0, 1, 32)) for tokens in (32, 64))
    assert rig.engine.experts_total == 8 * 16
    assert 0.8 * layers + head < one < 1.01 * layers + head  # not every expert is met
    assert 0.8 * layers < two - one < 1.01 * layers


def test_decoding_reads_the_weights_of_a_step_and_the_state(rig):
    moved = rig.bytes_moved(Case("tg", 3, 0, 1, 32))
    state = rig.engine.state.bytes_per_step(1)
    assert moved == 3 * (rig.engine.weight_bytes_per_step() + state)
    deeper = rig.engine.state.bytes_per_step(101) - state
    assert deeper == 100 * 2 * 2 * 2 * 64 * 2  # positions x attention layers x (k, v) x heads x width x float16


def test_a_case_begins_with_the_same_state_every_time(rig):
    rig.engine.reset()
    rig.fill(20)
    for case in (Case("tg", 4, 20, 1, 32), Case("pp", 40, 20, 1, 32), Case("pp", 7, 0, 1, 32)):
        for _ in range(2):
            rig.run(case)
            assert rig.engine.position == case.depth + case.tokens


def test_parts_are_the_time_of_the_replays(rig):
    profile = rig.profile(Case("tg", 4, 0, 1, 32))
    assert set(profile.parts) == PARTS - {"waiting"}
    assert 0 < sum(work + wait for work, wait in profile.parts.values()) <= profile.seconds
    assert all(work > 0 for work, _ in profile.parts.values())
    with rig.engine.profile() as times:
        rig.engine.prefill([1, 2, 3])
    assert sum(work + wait for work, wait in times.by_part().values()) == pytest.approx(times.seconds)


def result_of(seconds: list[float], parts: dict[str, tuple[float, float]]) -> Result:
    return Result(Case("tg", 10, 0, 1, 512), 4e9, seconds, [2.0, 4.0, 3.0], Profile(2.0, parts), [8.0] * len(seconds))


def test_figures_of_a_result_made_by_hand():
    result = result_of([1.0, 4.0, 2.0], {"experts": (1.0, 0.5), "head": (0.4, 0.1)})
    assert (result.tok_per_s, result.gb_per_s, result.roofline) == (5.0, 2.0, 0.25)
    assert result.stdev == pytest.approx(3.8188, rel=1e-4)  # of 10, 2.5 and 5
    result.bandwidths = [8.0, 8.0, 16.0]  # of which 4, 1 and 2 GB/s were used
    assert (result.bandwidth, result.roofline) == (8.0, 0.125)
    assert result.parts() == {"experts": 1.0, "head": 0.4, "waiting": 0.6}
    assert result.peer_tok_per_s == 10 / median([2.0, 4.0, 3.0])
    assert result_of([4.0], {"experts": (1.0, 0.5)}).parts() == {"experts": 2.0, "waiting": 1.0}
    assert result_of([4.0], {}).stdev == 0


def test_an_estimate_repeats_each_kind_of_layer_and_the_head_once():
    shape = SHAPES["qwen3-next-80b-a3b"]
    parts = {"linear attention": (0.3, 0.0), "attention": (0.1, 0.0), "experts": (0.7, 0.1), "head": (0.5, 0.1)}
    result = result_of([2.0], parts)  # 0.2 of the 2 seconds are outside of the model
    assert whole_tok_per_s(shape, 4, result) == pytest.approx(10 / (0.2 + 12 * (0.3 + 0.1 + 0.8) + 0.6))
    assert whole_tok_per_s(shape, 6, result) == pytest.approx(10 / (0.2 + 36 / 5 * 0.3 + 12 * 0.1 + 8 * 0.8 + 0.6))
    assert whole_tok_per_s(shape, 48, result) == pytest.approx(5.0)
    assert whole_tok_per_s(shape, 3, result) is None
