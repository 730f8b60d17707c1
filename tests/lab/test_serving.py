"""The server on a real socket, in a process of its own: what it loads, whom it waits for, how it is started."""

import http.client
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from asking import make_run

from oneloop.cli.lab import LabFlags
from oneloop.cli.lab import main as lab_main
from oneloop.errors import ConfigError
from oneloop.lab.catalog import roots
from oneloop.lab.serve import listening

PROGRAM = """
import sys, threading
from oneloop.lab import serve
serve.SLOW = 1.0
from oneloop.cli.lab import main
try:
    main(sys.argv[1:])
finally:
    heavy = ("torch", "transformers", "matplotlib", "scipy")
    print("loaded:", " ".join(name for name in heavy if name in sys.modules), flush=True)
"""


class Server:
    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-c", PROGRAM, *arguments, "--no-browser"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        line = self.process.stdout.readline()
        found = re.search(r"http://([^/]+):(\d+)/(?:\?token=(\S+))?", line)
        assert found, line + self.process.stdout.read()
        self.host, self.port, self.token = found[1], int(found[2]), found[3]

    def get(self, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        for attempt in range(50):
            try:
                connection.request(method, path, headers=headers or {})
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
                assert attempt < 49
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, body

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def stop(self) -> str:
        self.process.send_signal(signal.SIGINT)  # as Ctrl-C does
        said, _ = self.process.communicate(timeout=20)
        return said


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    running = Server(str(make_run(tmp_path_factory.mktemp("served") / "run")))
    yield running
    running.stop()


def test_it_answers_on_this_machine_alone(server):
    assert server.host == "127.0.0.1" and server.token is None
    assert server.get("/api/runs")[0] == 200
    assert server.get("/api/runs", {"Host": "evil.example"})[0] == 403
    assert server.get("/api/runs", method="POST")[0] == 405


def test_two_hundred_slow_clients_hold_nobody_up_and_are_let_go(server):
    slow = [server.socket() for _ in range(200)]
    try:
        for one in slow:
            one.sendall(b"GET /api/runs HTTP/1.1\r\nHost: 127")
        assert server.get("/api/runs")[0] == 200
        for one in slow:
            with suppress(ConnectionResetError):  # a reset where the half head was never read
                assert one.recv(1) == b""  # closed by the server, after its second of patience
    finally:
        for one in slow:
            one.close()
    assert server.get("/api/runs/run")[0] == 200


def test_a_client_that_dribbles_is_let_go_too(server):
    with server.socket() as one:
        one.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(OSError):
            for _ in range(100):
                one.sendall(b"X: y\r\n")
                time.sleep(0.1)


def test_large_heads_and_bodies_end_early(server):
    with server.socket() as one:
        one.sendall(b"GET /api/runs HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 65536)
        assert one.recv(100).startswith(b"HTTP/1.1 400")
    host = f"127.0.0.1:{server.port}".encode()
    with server.socket() as one:
        one.sendall(b"GET /api/runs HTTP/1.1\r\nHost: " + host + b"\r\nContent-Length: 1073741824\r\n\r\n")
        sent = 0
        try:
            while sent < 2**30:
                sent += one.send(b"a" * 65536)
        except OSError:
            pass  # the server has hung up
        assert sent < 2**26
    for rubbish in (
        b"\x16\x03\x01\x02\x00",
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ):
        with server.socket() as one:
            one.sendall(rubbish)
            one.shutdown(socket.SHUT_WR)
            one.recv(1000)
    assert server.get("/api/runs")[0] == 200


def test_kept_connections_are_used_again(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    for _ in range(5):
        connection.request("GET", "/api/runs")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200 and not answer.will_close
    connection.close()


def test_many_at_once(server):
    codes: list[int] = []

    def ask() -> None:
        codes.extend(server.get(f"/api/runs/run/{path}")[0] for path in ("curves?names=reward", "rollouts", "health"))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [200] * 60


def test_another_address_asks_for_a_token_and_nothing_heavy_is_loaded(tmp_path):
    running = Server(str(make_run(tmp_path / "run")), "--host", "0.0.0.0")
    try:
        assert running.token and len(running.token) >= 32
        assert running.get("/api/runs")[0] == 401
        assert running.get("/api/runs", {"Authorization": f"Bearer {running.token}"})[0] == 200
        for path in ("", "/curves?names=reward", "/rollouts", "/health", "/memory"):
            assert running.get(f"/api/runs/run{path}", {"Authorization": f"Bearer {running.token}"})[0] == 200
        assert running.get("/api/code/clip", {"Authorization": f"Bearer {running.token}"})[0] == 200
    finally:
        said = running.stop()
    assert "loaded: \n" in said, said


def test_ports():
    with listening("127.0.0.1", None) as first, listening("127.0.0.1", None) as second:
        assert first.getsockname()[1] != second.getsockname()[1]
        with pytest.raises(ConfigError, match=f"{first.getsockname()[1]} cannot be listened on"):
            listening("127.0.0.1", first.getsockname()[1])
    with pytest.raises(ConfigError, match="cannot be listened on"):
        listening("203.0.113.77", 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "99999"], "is no port"),
        (["--token", "short"], "16 to 128"),
        (["--token", "a" * 15 + "?"], "16 to 128"),
        (["nowhere"], "nowhere does not exist"),
        (["--prot", "1"], "Did you mean --port"),
    ],
)
def test_bad_usage(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=words):
        lab_main(arguments)


def test_without_the_extra_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ConfigError, match=r'uvicorn.*pip install "oneloop\[lab\]"'):
        lab_main([])


def test_where_runs_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert roots([]) == [Path("runs")] and LabFlags().host == "127.0.0.1"
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file is no folder"):
        roots(["file"])
