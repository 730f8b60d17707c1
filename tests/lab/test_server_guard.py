"""Who may ask: hosts, origins, methods, tokens, and the headers of every answer."""

import random
from itertools import product
from pathlib import Path
from urllib.parse import quote

import pytest
from asking import DOOR, HOST, Lab, make_run

from oneloop.lab.guard import COOKIE, HEADERS, Door
from oneloop.lab.serve import door, is_loopback

GOOD_HOSTS = [HOST, "localhost:8765", "LOCALHOST:8765"]
BAD_HOSTS = [
    "evil.example", "evil.example:8765", "127.0.0.1", "127.0.0.1:80", "127.0.0.1:8765.evil.example", "127.0.0.1:87650",
    "localhost", "0.0.0.0:8765", "[::1]:8765", "127.1:8765", "2130706433:8765", "", " 127.0.0.1:8765",
    "127.0.0.1:8765,x", "user@127.0.0.1:8765",
]  # fmt: skip
GOOD_ORIGINS = [None, f"http://{HOST}", "http://localhost:8765"]
BAD_ORIGINS = [
    "null",
    "http://evil.example",
    f"https://{HOST}",
    "http://127.0.0.1",
    f"http://{HOST}/",
    HOST,
    "",
    "file://",
]
COMBINATIONS = [
    *((host, origin, 200) for host, origin in product(GOOD_HOSTS, GOOD_ORIGINS)),
    *((host, None, 403) for host in BAD_HOSTS),
    *((HOST, origin, 403) for origin in BAD_ORIGINS),
    *((host, f"http://{host}", 403) for host in BAD_HOSTS[:4]),
]
"""36: a page of another site under a name that now leads here sends its own name in both."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(make_run(tmp_path_factory.mktemp("guard") / "run"))


@pytest.mark.parametrize(("host", "origin", "status"), COMBINATIONS)
def test_host_and_origin(lab, host, origin, status):
    headers = [("host", host), *([] if origin is None else [("origin", origin)])]
    for path in ("/api/runs", "/", "/assets/app.js"):
        answer = lab.get(path, headers=headers)
        assert answer.status == status
        assert status == 200 or b"grpo" not in answer.body


def test_a_host_must_be_given_once(lab):
    assert lab.get("/api/runs", headers=[]).status == 403
    assert lab.get("/api/runs", headers=[("host", HOST), ("host", "evil.example")]).status == 403
    assert (
        lab.get("/api/runs", headers=[("host", HOST), ("origin", f"http://{HOST}"), ("origin", "null")]).status == 403
    )


@pytest.mark.parametrize(
    "path", ["/", "/api/runs", "/api/runs/run", "/api/nothing", "/assets/app.js", "/assets/none.js"]
)
def test_every_answer_has_the_headers(lab, path):
    for method, headers in (("GET", [("host", HOST)]), ("GET", [("host", "evil")]), ("POST", [("host", HOST)])):
        answer = lab.get(path, method=method, headers=headers)
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    policy = HEADERS["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert HEADERS["x-content-type-options"] == "nosniff" and HEADERS["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "X" * 999])
def test_nothing_but_reading(lab, method):
    answer = lab.get("/api/runs", method=method)
    assert answer.status == 405 and answer.headers["allow"] == "GET, HEAD"
    assert "only something to read" in answer.json()["error"]


def test_a_body_is_refused(lab):
    for header in (("content-length", "5"), ("content-length", "1073741824"), ("transfer-encoding", "chunked")):
        assert lab.get("/api/runs", headers=[("host", HOST), header]).status == 413
    assert lab.get("/api/runs", headers=[("host", HOST), ("content-length", "0")]).status == 200


def test_a_long_address_is_refused(lab):
    assert lab.get("/api/runs/" + "a" * 9000).status == 414
    assert lab.get("/api/runs?x=" + "a" * 9000).status == 414


TOKEN = "t0ken-" + "x" * 20


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    path = make_run(tmp_path_factory.mktemp("locked") / "run")
    return Lab(path, door=Door(DOOR.hosts, token=TOKEN))


def test_without_its_token_nothing_is_answered(locked):
    for path in ("/", "/api/runs", "/assets/app.js", "/api/runs?token=", f"/api/runs?token={TOKEN[:-1]}", "/?token=é"):
        assert locked.get(path).status == 401, path
    for header in (("authorization", "Bearer wrong"), ("authorization", TOKEN), ("cookie", f"{COOKIE}=wrong"),
                   ("cookie", f"other={TOKEN}"), ("cookie", "=;;\x80"), ("authorization", "Bearer é")):  # fmt: skip
        assert locked.get("/api/runs", headers=[("host", HOST), header]).status == 401, header


def test_a_token_opens_by_header_cookie_and_address(locked):
    for header in (("authorization", f"Bearer {TOKEN}"), ("cookie", f"a=b; {COOKIE}={TOKEN}")):
        assert locked.get("/api/runs", headers=[("host", HOST), header]).status == 200
    answer = locked.get(f"/run/x?step=3&token={TOKEN}")
    assert answer.status == 303 and answer.headers["location"] == "/run/x?step=3"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}={TOKEN};") and "HttpOnly" in cookie and "SameSite=Strict" in cookie
    # the right token does not open for another site's page
    assert locked.get(f"/?token={TOKEN}", headers=[("host", "evil.example")]).status == 403


def test_the_way_back_leads_nowhere_else(locked):
    for path in ("//evil.example/x", "/\\evil.example", "///evil.example"):
        place = locked.get(f"{path}?token={TOKEN}").headers["location"]
        assert place.startswith("/") and not place.startswith(("//", "/\\")), place


def test_which_addresses_a_server_goes_by():
    assert door("127.0.0.1", 8765, None).hosts == {"127.0.0.1:8765", "localhost:8765"}
    assert door("127.0.0.1", 80, None).hosts >= {"127.0.0.1", "localhost"}
    assert "[::1]:9" in door("::1", 9, None).hosts
    anywhere = door("0.0.0.0", 9000, TOKEN)
    anywhere.check("GET", {"host": ["192.168.1.7:9000"]})  # a bare address cannot be led elsewhere by a name server
    for host in ("evil.example:9000", "192.168.1.7:9001", "192.168.1.7", "[::1:9000", "1.2.3.4.5:9000"):
        with pytest.raises(Exception, match="does not go by that name"):
            anywhere.check("GET", {"host": [host]})
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "192.168.0.1", "box")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


PIECES = [
    "..", ".", "%2e%2e", "%252e%252e", "..%2f", "%2f", "\\", "%5c", "%00", "\x00", "．．", "‥", "/", "//", "etc",
    "passwd", "secret.txt", "link", "inside", "run.json", ".lock", "~", "a" * 300, "%ff", "\udcff",
    "é", "CON", "*", "?", "#",
    ";", "run", "rollouts", "step_000000.parquet", "file:", "%u002e", "0", "-1", "'", '"', "<script>",
    "${HOME}", "|", "\n",
]  # fmt: skip


def test_five_thousand_names_reach_nothing(tmp_path):
    root = tmp_path / "runs"
    run = make_run(root / "run", steps=1)
    secret = "CANARY-OUTSIDE"
    (tmp_path / "secret.txt").write_text(secret)
    (root / "secret.txt").write_text(secret)
    (root / "link").symlink_to(tmp_path)  # a folder that a name could lead out by
    (run / "inside").symlink_to(tmp_path / "secret.txt")
    lab, draw = Lab(root), random.Random(5)
    places = ["/api/runs/{}", "/api/runs/run/{}", "/api/runs/{}/rollouts", "/assets/{}", "/api/code/{}", "/{}",
              "/api/runs/run/rollouts/{}", "/api/compare?runs={}", "/api/runs/run/curves?names={}"]  # fmt: skip
    codes: dict[int, int] = {}
    for _ in range(5000):
        name = "".join(draw.choice(PIECES) + draw.choice(["", "/"]) for _ in range(draw.randint(1, 6)))
        if draw.random() < 0.3:
            name = quote(name, safe="", errors="surrogateescape")
        answer = lab.get(draw.choice(places).format(name))
        codes[answer.status] = codes.get(answer.status, 0) + 1
        assert answer.status in (200, 400, 404, 410, 414), (name, answer)
        assert secret.encode() not in answer.body and b"root:" not in answer.body
    assert codes[200] > 100 and codes[404] > 1000


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_no_request_changes_anything(tmp_path):
    run = make_run(tmp_path / "runs" / "run")
    before, lab = snapshot(tmp_path), Lab(tmp_path / "runs")
    for path in ("", "/curves?names=reward", "/metrics", "/events", "/evaluations", "/health", "/rollouts",
                 "/rollouts/0", "/prompt", "/ratios?tokens=1", "/tokens", "/pairs", "/memory"):  # fmt: skip
        for method in ("GET", "HEAD", "POST", "DELETE", "PUT"):
            lab.get(f"/api/runs/run{path}", method=method)
    for path in ("/api/runs", "/api/compare?runs=run,run", "/api/demo", "/api/code/clip", "/"):
        lab.get(path)
    assert snapshot(tmp_path) == before and run.exists()
