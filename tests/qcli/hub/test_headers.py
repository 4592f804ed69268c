"""Headers of models that are not here: read from a server in pieces, enough for a forecast."""

from __future__ import annotations

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from brief_forecast import be_brief
from gguf_maker import STRING, File, key, tensor, write
from places import DATA

from qcli.catalog.entries import load_catalog
from qcli.errors import ModelFileError, ModelNotFoundError, QcliError, UsageError
from qcli.forecast.forecast import forecast
from qcli.gguf.file import GGUFFile
from qcli.host.memory import process_memory
from qcli.hub import connection, headers
from qcli.streaming import budget

MODEL = DATA / "qwen3next.gguf"
COMMIT = 40 * "1"


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """Measure for a moment only."""
    be_brief(monkeypatch)


@pytest.fixture
def too_small(monkeypatch):
    """Nothing fits into memory as a whole."""
    monkeypatch.setattr(budget, "fits", lambda *_: False)


class Hub(BaseHTTPRequestHandler):
    """Files of a folder, by parts, as huggingface.co gives them."""

    folder: Path
    asked: list[tuple[str, str]]
    whole = False

    def do_GET(self):
        if "private" in self.path:
            return self.send_error(401)
        if "broken" in self.path:
            return self.send_error(503)
        if self.path.startswith("/api/models/"):
            return self.list_files()
        if "/resolve/" not in self.path:  # what a library asks besides
            return self.send_error(404)
        self.asked.append((self.path, self.headers["Range"]))
        path = self.folder / self.path.split(f"/resolve/{COMMIT}/")[-1]
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

    def list_files(self):
        files = [{"rfilename": path.name, "size": path.stat().st_size} for path in self.folder.iterdir()]
        repo = self.path.removeprefix("/api/models/").split("/revision/")[0]
        data = json.dumps({"id": repo, "sha": COMMIT, "siblings": files}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

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
    monkeypatch.setattr(headers, "_SCRATCH", 4 << 20)
    monkeypatch.setattr(connection, "_FIRST_PAUSE", 0)
    yield handler
    there.shutdown()
    there.server_close()
    thread.join()


def tables_of(file: GGUFFile) -> list[tuple]:
    return [(t.name, t.type, t.shape, t.offset, t.path.name) for t in file.tensors.values()]


def test_only_the_header_is_read(server, tmp_path):
    model = shutil.copy(MODEL, server.folder / "model.gguf")
    with GGUFFile.open(model) as file, headers.header_of("some/repo:model.gguf") as found:
        assert found.name == "some/repo:model.gguf"
        with GGUFFile.open(found.path) as header:
            assert tables_of(header) == tables_of(file)
            assert header.metadata["general.architecture"] == "qwen3next"
    assert server.asked[0][0] == f"/some/repo/resolve/{COMMIT}/model.gguf"
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("first", [5, 64, 1000])
def test_a_header_may_come_in_any_pieces(server, monkeypatch, first):
    monkeypatch.setattr(headers, "_FIRST", first)
    model = shutil.copy(MODEL, server.folder / "model.gguf")
    with GGUFFile.open(model) as file, headers.header_of("some/repo:model.gguf") as found:
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
    monkeypatch.setattr("qcli.forecast.forecast.hit_rate", lambda *_: 0.5)
    with headers.header_of("some/repo:model.gguf") as found, GGUFFile.open(found.path) as file:
        seen = forecast(file, threads=2, ctx=64, ram=process_memory() + 10**9, disk=found.disk)
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
    with headers.header_of("a/b:big-00001-of-00003.gguf") as found, GGUFFile.open(found.path) as file:
        assert list(file.tensors) == ["t0.weight", "t1.weight", "t2.weight"]
    (server.folder / "big-00003-of-00003.gguf").unlink()
    with (
        pytest.raises(ModelNotFoundError, match=r"1 file of 3 of big is not there"),
        headers.header_of("a/b:big-00001-of-00003.gguf"),
    ):
        pass


def test_a_name_of_the_catalog_and_a_file_that_was_downloaded(server, monkeypatch, tmp_path):
    entry = next(entry for entry in load_catalog().values() if entry.repo)
    shutil.copy(MODEL, server.folder / entry.file)
    with headers.header_of(entry.name.upper()) as found:
        assert found.name == entry.name
    assert server.asked[0][0] == f"/{entry.repo}/resolve/{COMMIT}/{entry.file}"
    snapshot = tmp_path / "cache" / "models--a--b" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    shutil.copy(MODEL, snapshot / "model.gguf")
    server.asked.clear()
    with headers.header_of("a/b:model.gguf") as found:
        assert (found.path, found.disk) == (snapshot / "model.gguf", None)
    with headers.header_of(str(MODEL)) as found:
        assert found.path == MODEL
    assert server.asked == []


@pytest.mark.parametrize(
    ("model", "kind", "said"),
    [
        ("a/b:none.gguf", ModelNotFoundError, "has no file none.gguf"),
        ("private/b:x.gguf", ModelNotFoundError, "asks for a login"),
        ("broken/b:x.gguf", QcliError, "answers 503"),
        ("a/b:page.gguf", ModelFileError, "is not a GGUF model file"),
        ("a/b:cut.gguf", ModelFileError, "cut.gguf"),
        ("a/b:x-00001-of-90000.gguf", ModelNotFoundError, "has no file"),
    ],
)
def test_what_a_server_may_answer(server, model, kind, said):
    (server.folder / "page.gguf").write_text("<html>" + 100 * "no ")
    (server.folder / "cut.gguf").write_bytes(MODEL.read_bytes()[:3000])
    with pytest.raises(kind, match=said) as caught, headers.header_of(model):
        pass
    assert caught.value.hint
    assert "/tmp" not in caught.value.message


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        *(("a/b", "a/b:UD-Q4_K_M"), ("hf:a/b:Q4_K_M", "a/b:UD-Q4_K_M"), ("qwen3.6", "Qwen3.6-35B-A3B:UD-Q4_K_M")),
        *((typed, typed) for typed in ("a/b:ud-q4_k_m", "A/B:MODEL-UD-Q4_K_M.GGUF", "hf.co/a/b/Model-UD-Q4_K_M.gguf")),
    ],
)
def test_a_model_is_asked_for_in_many_words_and_another_than_was_named_is_told(server, typed, name):
    shutil.copy(MODEL, server.folder / "Model-UD-Q4_K_M.gguf")
    (server.folder / "mmproj-Q4_K_M.gguf").write_bytes(b"GGUF")
    with headers.header_of(typed) as found:
        assert (found.name, found.path.name) == (name, "Model-UD-Q4_K_M.gguf")


def test_a_server_without_ranges_and_none_at_all(server, monkeypatch):
    shutil.copy(MODEL, server.folder / "model.gguf")
    monkeypatch.setattr(server, "whole", True)
    with pytest.raises(QcliError, match="does not give parts"), headers.header_of("a/b:model.gguf"):
        pass
    for name, value, said in (
        ("HF_ENDPOINT", "http://127.0.0.1:9", "cannot be fetched"),
        ("HF_ENDPOINT", "file:///etc", "HF_ENDPOINT is"),
        ("HF_HUB_OFFLINE", "1", "HF_HUB_OFFLINE is set"),
    ):
        monkeypatch.setenv(name, value)
        with pytest.raises(QcliError, match=said) as caught, headers.header_of("a/b:model.gguf"):
            pass
        assert caught.value.hint


def test_a_token_that_cannot_be_sent(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_\N{EURO SIGN}")
    with pytest.raises(UsageError, match="characters that none has"), headers.header_of("a/b:model.gguf"):
        pass
