"""qcli serve, as a process and as a line that cannot be meant."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest


def test_lines_that_cannot_be_meant(refused, monkeypatch):
    refused(["serve", "--port", "70000"], 2, "--port needs 65535 or less")
    refused(["serve", "-m", "nowhere.gguf"], 1, "nowhere.gguf")
    refused(["serve", "nowhere.gguf"], 1, "nowhere.gguf")
    refused(["serve", "a", "-m", "b"], 2, "two models are named")
    refused(["serve", "--host", "no.such.host.invalid"], 1, "--host no.such.host.invalid")
    refused(["serve", "--max-gap", "0"], 2, "--max-gap cannot be 0")
    refused(["serve", "--api-key", ""], 2, "--api-key is empty")
    monkeypatch.setattr("qcli.commands.serve.find_spec", lambda name: None if name == "uvicorn" else name)
    refused(["serve"], 2, "the server needs uvicorn")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_a_server_from_its_start_to_its_end(tmp_path):
    environment = {**os.environ, "QCLI_API_KEY": "secret"}
    line = [sys.executable, "-m", "qcli", "serve", "--port", "0", "-t", "1"]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path)
    try:
        assert process.stderr
        told = process.stderr.readline()
        port = re.search(r"storyteller is served at http://127\.0\.0\.1:(\d+)/v1", told)
        assert port, told
        connection = http.client.HTTPConnection("127.0.0.1", int(port[1]), timeout=30)
        body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True, "stop_loops": False, "temperature": 3}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"authorization": "Bearer secret"})
        answer = connection.getresponse()
        assert answer.status == 200
        answer.readline()
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert answer.read().endswith(b"data: [DONE]\n\n")  # it was finished
        connection.close()
        assert process.wait(10) == 0
        assert time.monotonic() - began < 10
        rest = process.stderr.read()
        assert "ending: what is being answered has 30 s" in rest
        assert "Traceback" not in rest
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
