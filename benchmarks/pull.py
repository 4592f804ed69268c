"""What a download by `qcli pull` takes beside a plain reader: both from a server on this machine, both with SHA-256.

    python benchmarks/pull.py [gigabytes [folder [turns]]]

The server makes its bytes in memory. The plain reader is one connection that is read into one buffer and hashed: 100 %, of
which a download is to reach 90. In the second row it writes them to a file, too, as a download has to. Each runs in a process
of its own, which tells the most memory that it had; in turns, and medians count: of seconds, and of what a download reaches
of the plain reader of the same turn. Files are written to the folder, the temporary one unless told: `pull` flushes them to
its disk, the plain reader does not.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from qcli.hub.api import Source
from qcli.hub.transfer import Transfer
from qcli.hub.transfer_part import Part

PIECE = 1 << 20
BLOCK = os.urandom(PIECE)


def serve(size: int) -> None:
    """Answer requests for ranges of a file of this size, until stdin is closed."""
    with socket.create_server(("127.0.0.1", 0)) as there:
        print(f"http://127.0.0.1:{there.getsockname()[1]}", flush=True)
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
        while True:
            connection, _ = there.accept()
            threading.Thread(target=answer, args=(connection, size), daemon=True).start()


def answer(connection: socket.socket, size: int) -> None:
    with connection, connection.makefile("rb") as lines, memoryview(BLOCK) as block:
        while request := lines.readline():
            first, last = 0, size - 1
            while (line := lines.readline()) != b"\r\n":
                if line.lower().startswith(b"range: bytes="):
                    first, last = map(int, line.split(b"=")[1].split(b"-"))
            told = f'Content-Length: {last - first + 1}\r\nContent-Range: bytes {first}-{last}/{size}\r\nETag: "of-it"'
            connection.sendall(f"HTTP/1.1 206 Partial Content\r\n{told}\r\n\r\n".encode())
            try:
                while first <= last and not request.startswith(b"HEAD"):
                    begin = first % PIECE
                    piece = block[begin : min(PIECE, begin + last - first + 1)]
                    connection.sendall(piece)
                    first += len(piece)
            except OSError:  # a lane whose rest another has taken over
                return


def plain(address: str, size: int, to: Path | None) -> None:
    """One connection, one buffer."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc)
    connection.request("GET", "/")
    response, checksum, room = connection.getresponse(), hashlib.sha256(), memoryview(bytearray(PIECE))
    with open(to or os.devnull, "wb", buffering=0) as file:
        while n := response.readinto(room):
            checksum.update(room[:n])
            if to:
                file.write(room[:n])
            size -= n
    assert size == 0


def pulled(address: str, size: int, to: Path) -> None:
    """As `qcli pull` fetches a file."""
    os.environ["HF_ENDPOINT"] = address
    part = Part(to, size, "of-it")
    Transfer("model.gguf", Source(f"{address}/", "", size, "of-it", None, None), part).run()
    part.move(to)


def measure(kind: str, address: str, size: int, folder: str) -> None:
    """Run one of them, and print its seconds and the most bytes of memory."""
    to = Path(folder) / "pulled"
    began = time.perf_counter()
    if kind == "pull":
        pulled(address, size, to)
    else:
        plain(address, size, to if kind == "plain, to a file" else None)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(time.perf_counter() - began, peak)
    to.unlink(missing_ok=True)


def main(gigabytes: float = 4, folder: str | None = None, turns: int = 7) -> None:
    size = int(gigabytes * 1e9)
    here = [sys.executable, __file__]
    server = subprocess.Popen([*here, "serve", str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout
    address = server.stdout.readline().strip()
    kinds = ("plain", "plain, to a file", "pull")
    told: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for _ in range(turns):
            for kind in kinds:
                out = subprocess.check_output([*here, "measure", kind, address, str(size), place], text=True)
                seconds, peak = map(float, out.split())
                told[kind].append((seconds, peak))
    server.kill()
    server.wait()
    for kind in kinds:
        seconds = median(seconds for seconds, _ in told[kind])
        shares = sorted(plain / it for (plain, _), (it, _) in zip(told["plain"], told[kind], strict=True))
        among = f"{median(shares):5.0%} ({shares[0]:.0%} to {shares[-1]:.0%})"
        peak = max(peak for _, peak in told[kind])
        print(f"{kind:18}{size / seconds / 1e6:8,.0f} MB/s  {among:22}  at most {peak / 1e6:4.0f} MB of memory")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", size]:
            serve(int(size))
        case ["measure", kind, address, size, folder]:
            measure(kind, address, int(size), folder)
        case given:
            main(*map(float, given[:1]), *given[1:2], *map(int, given[2:]))
