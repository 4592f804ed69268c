"""Plans: sums one can check by hand, rehearsals that run the model's own kernels, headers read from a server in pieces."""

from __future__ import annotations

import json
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import reference_models
from gguf_maker import STRING, File, key, tensor, write
from places import DATA

from qcli import catalog, hub
from qcli.errors import ModelFileError, ModelNotFoundError, QcliError, UsageError
from qcli.forecast import outlook, rehearsal, twin
from qcli.forecast.outlook import foresee, hit_rate
from qcli.forecast.twin import Pool, Twin
from qcli.gguf.file import GGUFFile
from qcli.host.memory import resident
from qcli.runtime.engine import Engine, model_of
from qcli.streaming import budget, usage_file
from qcli.streaming.slots import HALF_LIFE

MODEL = DATA / "qwen3next.gguf"
ARCHITECTURES = reference_models.NAMES


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Rehearse for a moment only."""
    monkeypatch.setattr(rehearsal, "_SECONDS", 0.01)
    monkeypatch.setattr(usage_file, "load", lambda _path: {})


@pytest.fixture
def too_small(monkeypatch):
    """Nothing fits into memory as a whole."""
    monkeypatch.setattr(budget, "fits", lambda *_: False)


def test_what_a_pool_hands_out_lies_inside_and_comes_round_again():
    pool = Pool("Q4_K", 10 * 576)
    taken = [pool.take(500) for _ in range(12)]
    begins = [piece.ctypes.data for piece in taken]
    assert len(set(begins)) == 10
    assert begins[:2] == begins[10:]
    addresses = pool.addresses(25, 1000)  # two of its grains each
    assert len(set(addresses.tolist())) == 5
    assert min(begins) <= addresses.min()
    assert addresses.max() + 1000 <= min(begins) + pool.n_bytes


def test_a_twin_takes_little_memory_and_large_models_share_it(monkeypatch):
    file = GGUFFile.open(MODEL)
    whole = sum(t.n_bytes for t in file.tensors.values())
    assert Twin(file).n_bytes < 2 * whole
    monkeypatch.setattr(twin, "_POOL", 1 << 14)
    small = Twin(file)
    assert small.n_bytes < whole
    for name, tensor_ in small.file.tensors.items():
        assert tensor_.data.shape == file.tensors[name].data.shape


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_has_a_twin_whose_logits_are_numbers(name, tmp_path):
    copied = Twin(GGUFFile.open(reference_models.read(name).write(tmp_path / "model.gguf")))
    model, state = model_of(copied.file, 64, "f16")
    for layer in twin.layers_of(model, state.batch):
        copied.settle(layer)
    engine = Engine(model, state, 2, 64)
    assert all(np.isfinite(engine.step(id)).all() for id in range(3))
    engine.close()


def test_a_model_that_fits_is_said_to_be_resident():
    file = GGUFFile.open(MODEL)
    found = foresee(file, threads=1, ctx=64)
    assert (found.mode, found.threads, found.ctx, found.kv_type) == ("resident", 1, 64, "f16")
    assert found.weights.dense + found.weights.experts == sum(t.n_bytes for t in file.tensors.values())
    assert found.weights.experts == sum(t.n_bytes for t in file.tensors.values() if "_exps." in t.name)
    assert found.memory.needed < found.memory.ram
    assert found.speed.prompt_tokens == 64
    assert found.speed.decode_tok_per_s > 0
    assert found.speed.prefill_tok_per_s > 0
    engine = Engine.load(file, threads=1, ctx=64)
    assert found.weights.per_token == engine.weight_bytes_per_step()
    assert found.memory.state == engine.state.n_bytes
    engine.close()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_model_that_does_not_fit_is_rehearsed_with_reads(too_small, name, tmp_path):
    file = GGUFFile.open(reference_models.read(name).write(tmp_path / "model.gguf"))
    found = foresee(file, threads=2, ctx=64, ram=resident() + 10**9)
    if not found.weights.experts:
        assert found.mode == "resident"
        return
    assert found.mode == "streamed"
    assert found.streaming.slots == found.streaming.held  # there is room; it is only not allowed to stay mapped
    assert found.streaming.hit_rate == 1
    assert found.streaming.bytes_per_token == 0
    assert found.streaming.disk_bytes_per_s > 0


def test_slots_are_those_that_the_engine_gets(monkeypatch, too_small):
    """Within what the kernels, loaded by one of them first, take."""
    file = GGUFFile.open(MODEL)
    monkeypatch.setattr("qcli.streaming.prefill_loads.STAGED", 1)
    monkeypatch.setattr(usage_file, "save", lambda *_: None)
    asked, decide = [], budget.share

    def share(supply, state, plans, ram, used):
        asked.append((supply.needs(4) - supply.needs(3), supply.chosen, state.n_bytes, sum(p.n_bytes for p in plans)))
        return decide(supply, state, plans, ram, used)

    monkeypatch.setattr(budget, "share", share)
    foresee(file, threads=2, ctx=256, ram=resident() + 10**9)
    Engine.load(file, threads=2, ctx=256, ram=resident() + 10**9).close()
    assert asked[0] == asked[1]


def test_misses_are_read_and_counted(monkeypatch, too_small):
    monkeypatch.setattr(outlook, "hit_rate", lambda *_: 0.25)
    noted = []
    monkeypatch.setattr(outlook, "step_seconds", lambda engine: noted.append(engine) or rehearsal.step_seconds(engine))
    found = foresee(GGUFFile.open(MODEL), threads=2, ctx=64, ram=resident() + 10**9)
    traffic = noted[0].traffic
    assert 0.05 < traffic.hit_rate < 0.5
    supply = noted[0].supply
    whole = sum(layer.expert_bytes for layer in supply.layers.values()) * supply.chosen
    assert found.streaming.bytes_per_token == pytest.approx(0.75 * whole)
    assert supply.bytes_per_prompt(10_000) == pytest.approx(
        sum(layer.expert_bytes * layer.count for layer in supply.layers.values()), rel=1e-3
    )


def test_too_little_memory_is_said_with_what_it_takes():
    found = foresee(GGUFFile.open(MODEL), threads=1, ctx=64, ram=10**7)
    assert found.mode == "too large"
    assert found.speed is None
    assert found.memory.needed > resident() // 2


def test_a_small_model_is_asked_for_what_it_takes_in_memory():
    """Staging experts takes more than the whole of this one."""
    file = GGUFFile.open(MODEL)
    least = foresee(file, threads=1, ctx=64, ram=10**7).memory.needed
    assert foresee(file, threads=1, ctx=64, ram=least + (32 << 20)).mode == "resident"
    with pytest.raises(QcliError) as refused:
        Engine.load(file, threads=1, ctx=64, ram=10**7)
    found = re.search(r"--ram ([\d.]+)GB", refused.value.hint)
    assert found
    assert float(found[1]) * 1e9 == pytest.approx(least, abs=150e6)
    engine = Engine.load(file, threads=1, ctx=64, ram=int(float(found[1]) * 1e9) + (32 << 20))
    assert engine.supply is None
    engine.close()


def test_hit_rates():
    assert hit_rate(None, 8, 8) == 1
    assert hit_rate(None, 8, 4) == 0.5
    assert hit_rate(np.zeros(8, np.float32), 8, 4) == hit_rate(None, 8, 4)
    assert hit_rate(np.ones(7, np.float32), 8, 4) == hit_rate(None, 8, 4)  # another model's
    dice = np.random.default_rng(0).poisson(3, 512).astype(np.float32)
    assert hit_rate(dice, 512, 256) == pytest.approx(hit_rate(None, 512, 256), abs=0.05)
    few = np.zeros(512, np.float32)
    few[:100] = HALF_LIFE / 100
    assert hit_rate(few, 512, 100) > 0.95
    assert hit_rate(few, 512, 50) == pytest.approx(0.5, abs=0.03)


def test_records_that_were_not_replayed_take_what_others_took():
    records = np.zeros((6, 26), np.int64)
    records[:, 0] = [1, 2, 1, 2, 1, 3]
    parts = ["a", "a", "a", "a", "b", "a"]
    took = np.array([1.0, 5.0, 3.0])
    assert rehearsal._extrapolated(records, parts, took) == 9 + 5  # the last two are like none


class Hub(BaseHTTPRequestHandler):
    """Files of a folder, by parts, as huggingface.co gives them."""

    folder: Path
    asked: list[tuple[str, str]]
    whole = False

    def do_GET(self):
        self.asked.append((self.path, self.headers["Range"]))
        path = self.folder / self.path.split("/resolve/main/")[-1]
        if "private" in self.path:
            return self.send_error(401)
        if "broken" in self.path:
            return self.send_error(503)
        if not path.is_file():
            return self.send_error(404)
        data = path.read_bytes()
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        part = data if self.whole else data[first : last + 1]
        self.send_response(200 if self.whole else 206)
        if not self.whole:
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)
        return None

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A hub on this machine, with a folder of files; nothing is in the cache of downloads."""
    handler = type("Handler", (Hub,), {"folder": tmp_path / "there", "asked": []})
    (tmp_path / "there").mkdir()
    (tmp_path / "cache").mkdir()
    there = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=there.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{there.server_port}/")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(hub, "_SCRATCH", 4 << 20)
    yield handler
    there.shutdown()
    there.server_close()
    thread.join()


def tables_of(file: GGUFFile) -> list[tuple]:
    return [(t.name, t.type, t.shape, t.offset, t.path.name) for t in file.tensors.values()]


def test_only_the_header_is_read(server, tmp_path):
    model = shutil.copy(MODEL, server.folder / "model.gguf")
    with GGUFFile.open(model) as file, hub.header_of("some/repo:model.gguf") as found:
        assert found.name == "some/repo:model.gguf"
        with GGUFFile.open(found.path) as header:
            assert tables_of(header) == tables_of(file)
            assert header.metadata["general.architecture"] == "qwen3next"
    assert server.asked[0][0] == "/some/repo/resolve/main/model.gguf"
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("first", [5, 64, 1000])
def test_a_header_may_come_in_any_pieces(server, monkeypatch, first):
    monkeypatch.setattr(hub, "_FIRST", first)
    model = shutil.copy(MODEL, server.folder / "model.gguf")
    with GGUFFile.open(model) as file, hub.header_of("some/repo:model.gguf") as found:
        assert tables_of(GGUFFile.open(found.path)) == tables_of(file)
        begins = min(t.offset for t in file.tensors.values())
    assert len(server.asked) > 3
    last = max(int(asked.split("-")[1]) for _, asked in server.asked)
    assert begins <= last + 1 < 2 * max(begins, first) + first
    assert [asked.split("=")[1].split("-")[0] for _, asked in server.asked] == sorted(
        {asked.split("=")[1].split("-")[0] for _, asked in server.asked}, key=int
    )


def test_a_model_that_is_not_here_is_planned_with_another_file_s_disk(server, too_small, monkeypatch):
    shutil.copy(MODEL, server.folder / "model.gguf")
    monkeypatch.setattr(outlook, "hit_rate", lambda *_: 0.5)
    with hub.header_of("some/repo:model.gguf") as found, GGUFFile.open(found.path) as file:
        seen = foresee(file, threads=2, ctx=64, ram=resident() + 10**9, disk=found.disk)
        assert found.disk.stat().st_size == 4 << 20
    assert seen.mode == "streamed"
    assert seen.streaming.disk_bytes_per_s > 0
    assert not found.disk.exists()


def test_every_part_of_a_split_model_is_asked_for(server):
    from gguf_maker import U16

    for i in range(3):
        keys = [key("general.architecture", STRING, "llama"), key("split.no", U16, i), key("split.count", U16, 3)]
        content = File(keys, [tensor(f"t{i}.weight", (32,))], bytes(128))
        write(server.folder / f"big-0000{i + 1}-of-00003.gguf", content)
    with hub.header_of("a/b:big-00001-of-00003.gguf") as found, GGUFFile.open(found.path) as file:
        assert list(file.tensors) == ["t0.weight", "t1.weight", "t2.weight"]
    (server.folder / "big-00003-of-00003.gguf").unlink()
    with (
        pytest.raises(ModelNotFoundError, match=r"big-00003-of-00003.gguf: no such file"),
        hub.header_of("a/b:big-00001-of-00003.gguf"),
    ):
        pass


def test_a_name_of_the_catalog_and_a_file_that_was_downloaded(server, monkeypatch, tmp_path):
    entry = next(entry for entry in catalog.load_catalog().values() if entry.repo)
    shutil.copy(MODEL, server.folder / entry.file)
    with hub.header_of(entry.name.upper()) as found:
        assert found.name == entry.name
    assert server.asked[0][0] == f"/{entry.repo}/resolve/main/{entry.file}"
    snapshot = tmp_path / "cache" / "models--a--b" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    shutil.copy(MODEL, snapshot / "model.gguf")
    server.asked.clear()
    with hub.header_of("a/b:model.gguf") as found:
        assert (found.path, found.disk) == (snapshot / "model.gguf", None)
    with hub.header_of(str(MODEL)) as found:
        assert found.path == MODEL
    assert server.asked == []


@pytest.mark.parametrize(
    ("model", "kind", "said"),
    [
        ("a/b:none.gguf", ModelNotFoundError, "no such file"),
        ("private/b:x.gguf", ModelNotFoundError, "asks for a login"),
        ("broken/b:x.gguf", QcliError, "answers 503"),
        ("a/b:page.gguf", ModelFileError, "is not a GGUF file"),
        ("a/b:cut.gguf", ModelFileError, "cut.gguf"),
        ("a/b:x-00001-of-90000.gguf", UsageError, "90000 parts"),
    ],
)
def test_what_a_server_may_answer(server, model, kind, said):
    (server.folder / "page.gguf").write_text("<html>" + 100 * "no ")
    (server.folder / "cut.gguf").write_bytes(MODEL.read_bytes()[:3000])
    with pytest.raises(kind, match=said) as caught, hub.header_of(model):
        pass
    assert caught.value.hint
    assert "/tmp" not in caught.value.message


def test_a_server_without_ranges_and_none_at_all(server, monkeypatch):
    shutil.copy(MODEL, server.folder / "model.gguf")
    monkeypatch.setattr(server, "whole", True)
    with pytest.raises(QcliError, match="does not give parts"), hub.header_of("a/b:model.gguf"):
        pass
    for name, value, said in (
        ("HF_ENDPOINT", "http://127.0.0.1:9", "cannot be read"),
        ("HF_ENDPOINT", "file:///etc", "HF_ENDPOINT is"),
        ("HF_HUB_OFFLINE", "1", "HF_HUB_OFFLINE is set"),
    ):
        monkeypatch.setenv(name, value)
        with pytest.raises(QcliError, match=said) as caught, hub.header_of("a/b:model.gguf"):
            pass
        assert caught.value.hint


def test_the_command_s_table_and_json(type_line, monkeypatch):
    code, out, _ = type_line("plan", str(MODEL), "--ctx", "64", "-t", "1")
    assert code == 0
    assert "resident: it needs" in out
    assert "\x1b" not in out
    assert all(len(line) <= 110 for line in out.splitlines())
    code, out, _ = type_line("plan", str(MODEL), "--ctx", "64", "-t", "1", "--ram", "10MB", "--json")
    found = json.loads(out)
    assert (code, found["mode"], found["speed"], found["memory"]["ram"]) == (0, "too large", None, 10**7)
    monkeypatch.setattr(budget, "fits", lambda *_: False)
    code, out, _ = type_line("plan", str(MODEL), "--ctx", "64", "-t", "1", "--ram", "9GB")
    assert "experts in each layer" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none"], "no model is called"),
        (["none.gguf"], "no such file"),
        ([str(MODEL), "--ram", "lots"], "not an amount"),
        ([str(MODEL), "--ctx", "99999999"], "was made for"),
        ([str(MODEL), "--kv-type", "f64"], "kv-type"),
        ([str(DATA / "README.md")], "not a GGUF file"),
    ],
)
def test_what_cannot_be_planned(type_line, arguments, said):
    code, out, err = type_line("plan", *arguments)
    assert code in (1, 2)
    assert out == ""
    assert said in err
    assert "hint:" in err
