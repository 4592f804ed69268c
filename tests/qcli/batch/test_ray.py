"""Batches on a cluster, and rows of Ray Data, where a few lines stand in for Ray: tests/fuzz/fuzz_ray.py has Ray itself."""

from __future__ import annotations

import json
import pickle
import sys
from datetime import datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qcli.batch import by_ray, worker
from qcli.batch.source import Row
from qcli.batch.worker import Setup, Worker
from qcli.catalog.entry import Entry
from qcli.errors import ModelFileError, ModelNotFoundError, QcliError, UsageError
from qcli.ray import COLUMNS, Predictor, plain

LINES = [
    {"custom_id": "fox", "prompt": "Tell me about a fox."},
    {"prompt": "Hi", "max_tokens": 4},
    {"custom_id": "chat", "body": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}},
    {"custom_id": "wrong", "prompt": " "},
    {"custom_id": "odd", "prompt": 3},
    {"custom_id": 3, "prompt": "Hi"},
]


class RayError(Exception):
    pass


class Dataset:
    """Rows in blocks; those of the second come first, and the last one comes twice."""

    def __init__(self, cluster, blocks):
        self._cluster, self._blocks = cluster, blocks

    def map_batches(self, kind, *, fn_constructor_kwargs, **how):
        self._cluster.told.append(how)
        given = pickle.loads(pickle.dumps(fn_constructor_kwargs))
        made = kind(**given)
        self._cluster.made.append(made)
        blocks = [made({"row": np.array([row["row"] for row in block], object)}) for block in self._blocks]
        return Dataset(self._cluster, [[{"result": text} for text in block["result"]] for block in blocks])

    def iter_rows(self):
        if self._cluster.fails:
            raise self._cluster.fails
        for block in [*self._blocks[1:], *self._blocks[:1], *self._blocks[:1]]:
            yield from block


@pytest.fixture
def cluster(monkeypatch):
    """Stands in for Ray: one process, two machines of 4 and 2 processors."""
    cluster: Any = SimpleNamespace(told=[], made=[], fails=None, assigned={"CPU": 2.0}, at=[])
    context = SimpleNamespace(
        enable_progress_bars=True, print_on_execution_start=True, execution_options=SimpleNamespace(preserve_order=False)
    )  # fmt: skip

    def from_items(items, override_num_blocks):
        size = -(-len(items) // override_num_blocks)
        return Dataset(cluster, [items[i : i + size] for i in range(0, len(items), size)])

    def init(address, **how):
        if address == "nowhere:1":
            raise ConnectionError("nobody answers")
        cluster.at.append(address)

    fake: Any = SimpleNamespace(
        init=init,
        shutdown=lambda: cluster.at.append("ended"),
        nodes=lambda: [
            {"Alive": True, "Resources": {"CPU": 4.0}},
            {"Alive": True, "Resources": {"CPU": 2.0}},
            {"Alive": False, "Resources": {"CPU": 9.0}},
            {"Alive": True, "Resources": {}},
        ],
        get_runtime_context=lambda: SimpleNamespace(get_assigned_resources=lambda: cluster.assigned),
        exceptions=SimpleNamespace(RayError=RayError),
        data=SimpleNamespace(
            from_items=from_items,
            DataContext=SimpleNamespace(get_current=lambda: context),
            ActorPoolStrategy=lambda **sizes: sizes,
        ),
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setitem(sys.modules, "ray.data", fake.data)
    monkeypatch.setattr("qcli.commands.batch.find_spec", lambda name: name)
    cluster.context = context
    yield cluster
    for one in cluster.made:
        one._worker.close()


@pytest.fixture
def files(tmp_path):
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))

    def run(type_line, name, *more):
        line = [
            "batch",
            str(tmp_path / "in.jsonl"),
            "-o",
            str(tmp_path / name),
            "-n",
            "8",
            "-t",
            "2",
            "--parallel",
            "2",
        ]
        code, _, told = type_line(*line, *more)
        found = [json.loads(text) for text in (tmp_path / name).read_text("utf-8").splitlines()]
        assert len({one["custom_id"] for one in found}) == len(found)
        for one in found:
            if "response" in one:
                one["response"]["body"].pop("created")
        return code, told, {one["custom_id"]: one for one in found}

    return run


@pytest.fixture
def line(tmp_path_factory):
    """A command line for one question."""
    folder = tmp_path_factory.mktemp("asked")
    (folder / "in.jsonl").write_text('{"prompt": "a"}\n')
    return ["batch", str(folder / "in.jsonl"), "-o", str(folder / "out.jsonl")]


def test_a_cluster_gives_what_this_process_gives(type_line, cluster, files):
    code, _, expected = files(type_line, "here.jsonl", "--choice", "red", "--choice", "blue")
    code_there, told, found = files(type_line, "there.jsonl", "--ray", "local", "--choice", "red", "--choice", "blue")
    assert (code, code_there) == (1, 1)
    assert found == expected
    assert found["fox"]["text"] in ("red", "blue")
    assert "3 answered · 3 errors" in told
    assert cluster.at == ["local", "ended"]
    (how,) = cluster.told
    assert (how["num_cpus"], how["compute"], how["memory"]) == (2, {"min_size": 1, "max_size": 3}, None)
    assert not (cluster.context.enable_progress_bars)
    assert not (cluster.context.execution_options.preserve_order)


def test_what_is_there_is_not_asked_again_and_order_is_kept(type_line, cluster, files):
    files(type_line, "out.jsonl", "--ray", "auto", "--ordered", "--ram", "2GB")
    assert cluster.context.execution_options.preserve_order
    assert cluster.told[0]["memory"] == 2 * 10**9
    code, told, _ = files(type_line, "out.jsonl", "--ray", "auto")
    assert (code, len(cluster.told)) == (1, 1)
    assert "has a result of each" in told


def test_lines_that_cannot_be_meant(refused, cluster, line, monkeypatch):
    refused([*line, "--ray", "nowhere:1"], 1, "no cluster of Ray answers at nowhere:1: nobody answers")
    refused([*line, "--ray", "local", "-t", "9"], 2, "no machine of the cluster has 9 processors")
    refused([*line, "--pull"], 2, "--pull is for the machines of a cluster")
    refused([*line, "--ray", "local", "-m", "nowhere.gguf"], 1, "nowhere.gguf")
    monkeypatch.setattr("qcli.commands.batch.find_spec", lambda name: None)
    refused([*line, "--ray", "local"], 2, "--ray needs the package ray")


@pytest.mark.parametrize("how", ["cause", "__cause__", None])
def test_what_goes_wrong_in_a_worker_is_said_in_a_line(refused, cluster, line, how):
    cluster.fails = RayError("Traceback\n  in actor\nthe actor is dead")
    if how:
        setattr(cluster.fails, how, ModelFileError("m.gguf: is cut off", "get it again"))
    said = "m.gguf: is cut off" if how else "a worker of the cluster failed: the actor is dead"
    refused([*line, "--ray", "local"], 1, said)
    assert cluster.at[-1] == "ended"


def test_shares_of_machines():
    assert by_ray.shares([4.0, 2.0], 2) == (2, 3)
    assert by_ray.shares([8.0, 16.0, 0.5], None) == (8, 3)
    with pytest.raises(UsageError, match="no machine of the cluster has 5"):
        by_ray.shares([4.0, 4.0], 5)
    with pytest.raises(UsageError, match="no machine"):
        by_ray.shares([], None)


def test_a_predictor_takes_columns_and_adds_to_them(cluster):
    asked = Predictor(ctx=512, parallel=2, max_tokens=6, temperature=0, system="Be kind.")
    try:
        talk = np.array([{"role": "user", "content": "Hi", "name": None}], object)
        batch = {
            "prompt": np.array(["Once", None, " ", "Hi"], object),
            "messages": np.array([None, talk, None, None], object),
            "max_tokens": np.array([2.0, np.nan, np.nan, np.nan]),
            "kept": np.array([1, 2, 3, 4]),
            "custom_id": np.array(["a", "a", "b", "c"], object),
        }
        found = asked(batch)
    finally:
        asked._worker.close()
    assert [*found] == [*batch, *COLUMNS, "result"]
    assert found["kept"] is batch["kept"]
    assert list(found["new_tokens"]) == [2, 6, None, 6]
    assert found["text"][1] == found["text"][3]
    assert [bool(error) for error in found["error"]] == [False, False, True, False]
    assert json.loads(found["result"][0])["text"] == found["text"][0]
    assert asked({"prompt": np.array([], object)})["result"].size == 0


def test_columns_may_have_what_json_has_not(cluster):
    odd = [b"\xff", datetime(2026, 1, 2), timedelta(3), Decimal("1.5"), object()]
    batch = {"prompt": np.array(["Hi"] * 5, object), "other": np.array(odd, object)}
    asked = Predictor(ctx=512, parallel=2, max_tokens=6)
    try:
        found = asked(batch)
        assert list(found["error"]) == [None] * 5
        assert asked({**batch, "other": np.array([*odd[:4], object()], object)})["result"][4] == found["result"][4]
        assert list(asked({**batch, "custom_id": np.array([*"abcde"], object)})["error"]) == [None] * 5
        assert "prompt cannot be b" in asked({"prompt": np.array([b"Hi"], object)})["error"][0]
    finally:
        asked._worker.close()


def test_a_worker_has_the_threads_and_the_memory_that_were_assigned(cluster):
    from qcli.ray import with_resources

    cluster.assigned = {"CPU": 3.5, "memory": 5e9}
    assert with_resources(Setup()) == Setup(threads=3, ram=5 * 10**9)
    assert with_resources(Setup(threads=1, ram="2GB")) == Setup(threads=1, ram="2GB")
    cluster.assigned = {"CPU": 0.5}
    assert with_resources(Setup()) == Setup()


def test_values_of_columns():
    nested = np.array([{"a": np.int64(3), "b": None, "c": np.array([1.5])}], object)
    assert plain(nested) == [{"a": 3, "c": [1.5]}]
    assert plain((np.str_("x"), True, None)) == ["x", True, None]


def test_a_row_is_the_same_on_the_other_side():
    row = Row("a", "a 1", {"prompt": "é", "n": [1, None]})
    assert worker.unpacked(worker.packed(row)) == row


def test_a_model_that_is_nowhere_is_pulled_where_that_is_wanted(hub):
    [(repo, files)] = hub.repos.items()
    assert worker.pull(None) is None
    path = worker.pull(f"{repo}:Q4_K_M")
    assert path
    assert path.read_bytes() == files[path.name]
    assert worker.pull(f"{repo}:Q4_K_M") is None
    with pytest.raises(ModelNotFoundError):
        worker.pull("nobody has this")
    with pytest.raises(QcliError):
        Worker(Setup("nobody has this", pull=True), None).results([])


def test_a_model_of_the_list_is_checked_as_qcli_pull_checks_it(hub, monkeypatch):
    [(repo, files)] = hub.repos.items()
    hub.stores_elsewhere = False  # nobody there tells a checksum
    entry = Entry("some-model", repo=repo, file=next(iter(files)), sha256="0" * 64)
    monkeypatch.setattr("qcli.catalog.names.named", lambda model: entry)
    with pytest.raises(QcliError, match="its SHA-256 is"):
        worker.pull(f"{repo}:Q4_K_M")
