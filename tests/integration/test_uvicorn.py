"""uvicorn, with `--loop ctask:new_event_loop`, serves an ASGI application."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import ssl

import pytest
from support import FACTORY, LOOP_TYPE

CHUNK = bytes(range(256)) * 256


@pytest.fixture
def uvicorn(python):
    """Starts uvicorn; returns its process and its port."""

    def uvicorn(*options, factory=FACTORY):
        server = python(
            *("-m", "uvicorn", "asgi_app:app", "--loop", factory, "--port", "0", *options),
            *("--no-access-log", "--no-use-colors"),
        )
        port = int(server.expect(r"running on https?://127.0.0.1:(\d+)")[1])
        return server, port

    return uvicorn


def get(connection: http.client.HTTPConnection, path: str, method="GET", body=None) -> bytes:
    connection.request(method, path, body)
    response = connection.getresponse()
    text = response.read()
    assert response.status == 200, text
    return text


@pytest.fixture
def connect():
    opened = []

    def connect(port: int, context: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
        if context is None:
            opened.append(http.client.HTTPConnection("localhost", port, timeout=30))
        else:
            opened.append(
                http.client.HTTPSConnection("localhost", port, timeout=30, context=context)
            )
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


def assert_clean_end(server) -> None:
    assert server.stop() == -signal.SIGTERM  # uvicorn passes the signal on when it has ended
    assert "lifespan: shutdown\n" in server.lines, server.text
    assert any("Finished server process" in line for line in server.lines), server.text
    for bad in ("Traceback", "never retrieved", "destroyed but it is pending", "Warning"):
        assert bad not in server.text, server.text


@pytest.mark.parametrize("http_parser", ["httptools", "h11"])
def test_under_load(uvicorn, connect, wrk, http_parser):
    server, port = uvicorn("--http", http_parser)
    connection = connect(port)
    assert json.loads(get(connection, "/about"))["loop"] == LOOP_TYPE
    wrk(f"http://127.0.0.1:{port}/", connections=64, seconds=2)
    assert get(connection, "/") == b"hello"  # the connection of before
    assert_clean_end(server)


def test_under_load_with_tls(uvicorn, connect, wrk, certificates):
    server, port = uvicorn("--ssl-keyfile", certificates.key, "--ssl-certfile", certificates.chain)
    connection = connect(port, certificates.for_client())
    assert json.loads(get(connection, "/about"))["loop"] == LOOP_TYPE
    wrk(f"https://127.0.0.1:{port}/", seconds=2)
    body = os.urandom(3_000_000)
    expected = f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()
    assert get(connection, "/digest", "POST", body) == expected
    assert get(connection, "/stream?50") == CHUNK * 50
    connection.close()
    assert_clean_end(server)


def test_its_lifespan_runs_on_the_loop(uvicorn):
    server, _ = uvicorn()
    assert f"lifespan: {LOOP_TYPE}\n" in server.lines
    assert_clean_end(server)


def test_large_bodies_in_both_directions(uvicorn, connect):
    server, port = uvicorn()
    connection = connect(port)
    body = os.urandom(20_000_000)
    expected = f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()
    assert get(connection, "/digest", "POST", body) == expected
    assert get(connection, "/digest", "POST", iter([b"in ", b"chunks"])).startswith(b"9 ")
    assert get(connection, "/stream?200") == CHUNK * 200
    connection.close()
    assert_clean_end(server)


def test_a_slow_client_holds_the_application_back(uvicorn, connect):
    server, port = uvicorn()
    chunks = 1000  # 64 MB, more than the kernel's buffers of a connection
    slow, other = connect(port), connect(port)
    slow.request("GET", f"/stream?{chunks}")
    response = slow.getresponse()
    read = response.read(len(CHUNK))
    # Each of these is a turn of the server's loop in which it would have gone on.
    sent = [json.loads(get(other, "/about"))["sent"] for _ in range(200)]
    assert sent[-1] < chunks // 2
    read += response.read()
    assert read == CHUNK * chunks
    assert json.loads(get(other, "/about"))["sent"] == chunks
    slow.close()
    other.close()
    assert_clean_end(server)


def test_a_client_that_goes_away_is_noticed(uvicorn, connect):
    server, port = uvicorn()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /hang HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert get(connect(port), "/gone") == b"gone"
    assert_clean_end(server)


def test_pipelined_requests_are_answered_in_order(uvicorn):
    server, port = uvicorn()
    request = "GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    paths = ["/", "/missing"] * 50
    last = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall("".join([*map(request.format, paths), last]).encode())
        with client.makefile("rb") as answers:
            text = answers.read()
    words = [word.split(b"\r\n\r\n")[-1] for word in text.split(b"HTTP/1.1 ")[1:]]
    assert words == [b"hello", b"no such path"] * 50 + [b"hello"]
    assert_clean_end(server)


def test_an_idle_connection_is_closed(uvicorn):
    server, port = uvicorn("--timeout-keep-alive", "1")
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with client.makefile("rb") as answer:
            assert answer.read().endswith(b"hello")  # up to the end that the server makes
    assert_clean_end(server)


@pytest.mark.parametrize("implementation", ["websockets-sansio", "wsproto"])
def test_websocket(uvicorn, implementation):
    from websockets.sync.client import connect

    server, port = uvicorn("--ws", implementation, "--ws-max-size", "8000000")
    large = os.urandom(4_000_000)
    with connect(f"ws://127.0.0.1:{port}/", max_size=None) as client:
        client.send("which")
        assert client.recv(30) == LOOP_TYPE
        for message in ["text", b"bytes", "", large]:
            client.send(message)
        assert [client.recv(30) for _ in range(4)] == ["text", b"bytes", "", large]
        assert client.ping().wait(30)
    server.expect("websocket: closed with 1000")
    assert_clean_end(server)


def test_unix_socket(python, directory):
    path = str(directory / "uvicorn")
    server = python(
        *("-m", "uvicorn", "asgi_app:app", "--loop", FACTORY, "--uds", path, "--no-access-log")
    )
    server.expect("running on unix socket")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(path)
        client.sendall(b"GET /about HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        with client.makefile("rb") as answer:
            assert LOOP_TYPE.encode() in answer.read()
    assert_clean_end(server)


def test_several_workers_and_one_that_dies(uvicorn, connect):
    server, port = uvicorn("--workers", "2")
    seen: dict[int, str] = {}
    for _ in range(2):
        server.expect("Application startup complete")

    def ask() -> dict:
        connection = connect(port)  # a new one each time: any worker may take it
        answer = json.loads(get(connection, "/about"))
        connection.close()
        seen[answer["pid"]] = answer["loop"]
        return answer

    while len(seen) < 2:
        ask()
    dead = min(seen)
    os.kill(dead, signal.SIGKILL)
    server.expect("Application startup complete")
    while len(seen) < 3:
        ask()
    assert set(seen.values()) == {LOOP_TYPE}
    assert server.stop() in (0, -signal.SIGTERM)
    assert "Traceback" not in server.text, server.text
