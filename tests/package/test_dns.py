"""getaddrinfo() and getnameinfo(): what goes to the executor, and what comes back."""

import asyncio
import concurrent.futures
import logging
import re
import socket

import pytest


class Counting(concurrent.futures.ThreadPoolExecutor):
    def __init__(self):
        super().__init__(1)
        self.calls = []

    def submit(self, fn, /, *args, **kwargs):
        self.calls.append((fn.__name__, args))
        return super().submit(fn, *args, **kwargs)


@pytest.fixture
def executor(loop):
    executor = Counting()
    loop.set_default_executor(executor)
    yield executor
    executor.shutdown()


NUMERIC = [
    ("127.0.0.1", 80),
    ("127.0.0.1", "80"),
    (b"127.0.0.1", b"80"),
    ("127.0.0.1", None),
    ("0.0.0.0", 0),
    ("::1", 443),
    ("::", "0"),
    ("::ffff:127.0.0.1", 1),
    ("fe80::1%lo", 1),
    (b"::1", None),
    (None, 80),
    (None, "80"),
]


@pytest.mark.parametrize("host, port", NUMERIC)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"type": socket.SOCK_STREAM},
        {"type": socket.SOCK_DGRAM, "proto": socket.IPPROTO_UDP},
        {"family": socket.AF_UNSPEC, "flags": socket.AI_PASSIVE},
        {"flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV},
    ],
)
def test_numeric_addresses_are_answered_as_by_socket(
    impl, run, loop, executor, host, port, arguments
):
    expected = socket.getaddrinfo(host, port, **arguments)
    result = run(loop.getaddrinfo(host, port, **arguments))
    assert result == expected
    assert [list(map(type, info)) for info in result] == [
        list(map(type, info)) for info in expected
    ]
    assert bool(executor.calls) == (impl.name == "asyncio")


@pytest.mark.parametrize(
    "host, port, arguments",
    [
        ("127.0.0.1", 80, {"family": socket.AF_INET6}),
        ("::1", 80, {"family": socket.AF_INET}),
        ("127.0.0.1", 80, {"type": 12345}),
        ("127.0.0.1", 1 << 80, {}),
        ("127.0.0.1", -1, {}),
        ("127.0.0.1", b"8\x000", {}),
        ("127.0.0.1", 8.5, {}),
        ("127.0.0.1", "80", {"flags": 1 << 40}),
        ("127.0.0.1", "no such service", {"type": socket.SOCK_STREAM}),
        (None, None, {}),
        (12, 80, {}),
        (b"\xff", 80, {}),
        ("127.0.0.1", "\u0661", {"flags": socket.AI_NUMERICSERV}),
        ("not.numeric", 80, {"flags": socket.AI_NUMERICHOST}),
        ("", 80, {"flags": socket.AI_NUMERICHOST}),
        ("::1%no-such-interface", 80, {"flags": socket.AI_NUMERICHOST}),
    ],
)
def test_errors_are_those_of_socket(run, loop, executor, host, port, arguments):
    def outcome(function):
        try:
            return function()
        except Exception as exc:
            return type(exc), str(exc), exc.args

    expected = outcome(lambda: socket.getaddrinfo(host, port, **arguments))
    assert outcome(lambda: run(loop.getaddrinfo(host, port, **arguments))) == expected


@pytest.mark.parametrize(
    "host, port", [("localhost", 80), (b"localhost", 80), ("127.0.0.1", "domain"), ("127.1", 80)]
)
def test_names_go_to_the_default_executor(run, loop, executor, host, port):
    expected = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    assert run(loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)) == expected
    assert executor.calls == [("getaddrinfo", (host, port, 0, socket.SOCK_STREAM, 0, 0))]


@pytest.mark.parametrize("address", [("127.0.0.1", 80), ("::1", 80, 0, 0)])
def test_getnameinfo(impl, run, loop, executor, address):
    numbers = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    assert run(loop.getnameinfo(address, numbers)) == (address[0], "80")
    assert bool(executor.calls) == (impl.name == "asyncio")
    executor.calls.clear()
    # A service's name is looked up.
    expected = socket.getnameinfo(address, socket.NI_NUMERICHOST)
    assert run(loop.getnameinfo(address, socket.NI_NUMERICHOST)) == expected
    assert executor.calls == [("getnameinfo", (address, socket.NI_NUMERICHOST))]


@pytest.mark.parametrize(
    "address", [None, (), ("localhost",), ("no.number", 1), ("127.0.0.1", "1")]
)
def test_errors_of_getnameinfo_are_those_of_socket(run, loop, executor, address):
    flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    with pytest.raises(Exception) as expected:
        socket.getnameinfo(address, flags)
    with pytest.raises(type(expected.value), match=f"^{re.escape(str(expected.value))}$"):
        run(loop.getnameinfo(address, flags))


@pytest.mark.parametrize("name", ["getaddrinfo", "getnameinfo"])
def test_closed_loop_refuses(loop, name):
    loop.close()
    arguments = {"getaddrinfo": ("127.0.0.1", 1), "getnameinfo": (("127.0.0.1", 1), 3)}[name]
    with pytest.raises(RuntimeError, match="^Event loop is closed$"):
        getattr(loop, name)(*arguments).send(None)


def test_replaced_function_of_socket_is_called_in_the_executor(run, loop, executor, monkeypatch):
    def resolver(*args):
        return args

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    assert run(loop.getaddrinfo("127.0.0.1", 80)) == ("127.0.0.1", 80, 0, 0, 0, 0)
    monkeypatch.setattr(socket, "getnameinfo", resolver)
    assert run(loop.getnameinfo(("127.0.0.1", 80), 3)) == (("127.0.0.1", 80), 3)
    assert executor.calls == [
        ("resolver", ("127.0.0.1", 80, 0, 0, 0, 0)),
        ("resolver", (("127.0.0.1", 80), 3)),
    ]


def test_replaced_method_is_what_create_connection_asks(run, loop):
    asked = []

    async def getaddrinfo(host, port, **arguments):
        asked.append((host, port, arguments))
        return socket.getaddrinfo("127.0.0.1", port, **arguments)

    async def main():
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        loop.getaddrinfo = getaddrinfo
        reader, writer = await asyncio.open_connection("no.such.name", port)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return port

    port = run(main())
    del loop.getaddrinfo
    ((host, asked_port, arguments),) = asked
    assert (host, asked_port) == ("no.such.name", port)
    assert arguments["type"] == socket.SOCK_STREAM


def test_debug_mode_logs_the_request(run, loop, executor, caplog):
    loop.set_debug(True)
    with caplog.at_level(logging.DEBUG, "asyncio"):
        run(loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM))
    messages = [record.getMessage() for record in caplog.records]
    start = "Get address info 127.0.0.1:80, type=<SocketKind.SOCK_STREAM: 1>"
    assert start in messages
    assert any(
        re.match(r"Getting address info 127\.0\.0\.1:80, .* took \d+\.\d+ms: ", m) for m in messages
    )
