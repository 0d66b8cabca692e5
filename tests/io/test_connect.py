"""Making connections: addresses tried in turn, sockets given, what is refused, cancelling."""

import asyncio
import errno
import gc
import os
import pathlib
import socket
import sys
import warnings
from unittest import mock

import pytest
from helpers.streams import Recorder, make_pair, receive

V312 = pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 and later")
V313 = pytest.mark.skipif(sys.version_info < (3, 13), reason="Python 3.13 and later")


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def refused():
    """Addresses where nobody listens: bound, so that nobody else takes them."""
    socks = []
    for host in ("127.0.0.2", "127.0.0.3"):
        socks.append(socket.socket())
        socks[-1].bind((host, 0))
    yield [sock.getsockname() for sock in socks]
    for sock in socks:
        sock.close()


@pytest.fixture
def silent():
    """An address where a connection is neither accepted nor refused: the queue is full."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.4", 0))
        sock.listen(0)
        clients = []
        for _ in range(3):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(sock.getsockname())
            clients.append(client)
        yield sock.getsockname()
        for client in clients:
            client.close()


@pytest.fixture
def connect(loop, run, settle):
    """connect(factory, ...) is create_connection(); its transports are aborted at the end."""
    transports = []

    def connect(*args, how="create_connection", **options):
        transport, proto = run(getattr(loop, how)(*args, **options))
        transports.append(transport)
        return transport, proto

    yield connect
    for transport in transports:
        if transport.get_protocol() is not None:
            transport.abort()
    settle()


@pytest.fixture
def names(loop):
    """names(address, ...): what the loop's getaddrinfo() returns for every host name."""

    def names(*addresses):
        async def getaddrinfo(host, port, **options):
            calls.append((host, port))
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", a) for a in addresses]

        calls = []
        loop.getaddrinfo = getaddrinfo
        return calls

    yield names
    if "getaddrinfo" in vars(loop):
        del loop.getaddrinfo


# ---- what it returns ----


def test_returns_what_the_factory_made(connect, listener, until, turn):
    calls = []

    def factory(*args, **kwargs):
        calls.append((args, kwargs))
        return proto

    proto = Recorder()
    transport, returned = connect(factory, *listener.getsockname())
    assert returned is proto and calls == [((), {})]
    assert proto.events == [("connection_made",)]
    assert proto.transport is transport and transport.get_protocol() is proto
    peer, address = listener.accept()
    with peer:
        assert transport.get_extra_info("sockname") == address
        assert transport.get_extra_info("peername") == listener.getsockname()
        transport.write(b"question")
        assert receive(peer, turn, 8) == b"question"
        peer.send(b"answer")
        until(lambda: proto.data == b"answer")
    until(lambda: proto.is_lost)
    assert proto.events[-2:] == [("eof_received",), ("connection_lost", None)]


class Mute:
    """A protocol without connection_made()."""


@pytest.mark.parametrize("factory", [lambda: None, lambda: 5, Mute])
def test_who_is_no_protocol_gets_no_connection(loop, run, reports, listener, factory):
    """As a factory does whose author forgot to return what he made."""
    kind = type(factory()).__name__
    ours, peer = socket.socketpair()
    accepted, other = socket.socketpair()
    reader, writer = os.pipe()
    with peer, other, open(reader, "rb", 0) as rfile, open(writer, "wb", 0) as wfile:
        for connecting in (
            loop.create_connection(factory, *listener.getsockname()),
            loop.create_connection(factory, sock=ours),
            loop.connect_accepted_socket(factory, accepted),
            loop.create_datagram_endpoint(factory, local_addr=("127.0.0.1", 0)),
            loop.connect_read_pipe(factory, rfile),
            loop.connect_write_pipe(factory, wfile),
        ):
            message = f"'{kind}' object has no attribute 'connection_made'"
            with pytest.raises(AttributeError, match=message):
                run(connecting)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # the sockets wait for the collector
            del connecting, ours, accepted
            gc.collect()
    assert reports.take() == []


def test_port_can_be_text(connect, listener):
    host, port = listener.getsockname()
    transport, _ = connect(Recorder, host, str(port))
    assert transport.get_extra_info("peername") == (host, port)


def test_tcp_connection_has_no_delay_and_is_not_inherited(connect, listener):
    transport, _ = connect(Recorder, *listener.getsockname())
    sock = transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    assert sock.gettimeout() == 0
    assert not os.get_inheritable(sock.fileno())


def test_ipv6(connect):
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with listener:
        transport, _ = connect(Recorder, "::1", listener.getsockname()[1])
        assert transport.get_extra_info("peername") == listener.getsockname()


def test_many_at_once(loop, run, listener, until):
    async def main():
        made = await asyncio.gather(
            *(loop.create_connection(Recorder, *listener.getsockname()) for _ in range(50))
        )
        for transport, _ in made:
            transport.close()
        return [proto for _, proto in made]

    protos = run(main())
    until(lambda: all(proto.is_lost for proto in protos))
    assert {tuple(proto.names()) for proto in protos} == {("connection_made", "connection_lost")}


# ---- several addresses, and none that answers ----


def test_refused(loop, run, refused):
    with pytest.raises(ConnectionRefusedError) as caught:
        run(loop.create_connection(Recorder, *refused[0]))
    assert caught.value.errno == errno.ECONNREFUSED
    assert caught.value.strerror == f"Connect call failed {refused[0]}"


def test_next_address_is_tried(connect, names, refused, listener):
    calls = names(*refused, listener.getsockname())
    transport, proto = connect(Recorder, "example.invalid", 80)
    assert calls == [("example.invalid", 80)]
    assert transport.get_extra_info("peername") == listener.getsockname()
    assert proto.events == [("connection_made",)]


def test_all_refused(loop, run, names, refused):
    names(*refused)
    with pytest.raises(OSError) as caught:
        run(loop.create_connection(Recorder, "example.invalid", 80))
    assert type(caught.value) is OSError and caught.value.errno is None
    failed = [f"[Errno 111] Connect call failed {address}" for address in refused]
    assert str(caught.value) == "Multiple exceptions: " + ", ".join(failed)


def test_all_refused_alike(loop, run, names, refused):
    names(refused[0], refused[0])
    with pytest.raises(ConnectionRefusedError) as caught:
        run(loop.create_connection(Recorder, "example.invalid", 80))
    assert str(caught.value) == f"[Errno 111] Connect call failed {refused[0]}"


@V312
def test_all_errors(loop, run, names, refused):
    names(*refused)
    with pytest.raises(ExceptionGroup, match="create_connection failed") as caught:
        run(loop.create_connection(Recorder, "example.invalid", 80, all_errors=True))
    assert [type(exc) for exc in caught.value.exceptions] == [ConnectionRefusedError] * 2
    assert [str(a) in str(e) for a, e in zip(refused, caught.value.exceptions)] == [True] * 2


def test_no_address(loop, run, names):
    names()
    with pytest.raises(OSError, match=r"^getaddrinfo\(\) returned empty list$"):
        run(loop.create_connection(Recorder, "example.invalid", 80))


def test_lookup_that_fails(loop, run):
    async def getaddrinfo(host, port, **options):
        raise socket.gaierror(socket.EAI_NONAME, "nobody")

    loop.getaddrinfo = getaddrinfo
    try:
        with pytest.raises(socket.gaierror, match="nobody"):
            run(loop.create_connection(Recorder, "example.invalid", 80))
    finally:
        del loop.getaddrinfo


def test_happy_eyeballs_pass_over_an_address_that_is_silent(connect, names, silent, listener):
    names(silent, listener.getsockname())
    transport, _ = connect(Recorder, "example.invalid", 80, happy_eyeballs_delay=0.01)
    assert transport.get_extra_info("peername") == listener.getsockname()


def test_happy_eyeballs_pass_over_an_address_that_refuses(connect, names, refused, listener):
    names(refused[0], listener.getsockname())
    transport, _ = connect(Recorder, "example.invalid", 80, happy_eyeballs_delay=1000)
    assert transport.get_extra_info("peername") == listener.getsockname()


def test_happy_eyeballs_when_all_refuse(loop, run, names, refused):
    names(*refused)
    with pytest.raises(OSError, match="Multiple exceptions: "):
        run(loop.create_connection(Recorder, "example.invalid", 80, happy_eyeballs_delay=0.01))


def test_interleave_is_accepted(connect, names, listener):
    names(listener.getsockname())
    connect(Recorder, "example.invalid", 80, interleave=2)


# ---- cancelling ----


def test_cancelled_while_connecting(loop, run, silent, settle):
    made = []
    task = loop.create_task(loop.create_connection(lambda: made.append(1), *silent))
    settle()
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        run(task)
    assert made == []


def test_cancelled_while_racing(loop, run, names, silent, settle):
    names(silent, silent)
    task = loop.create_task(
        loop.create_connection(Recorder, "example.invalid", 80, happy_eyeballs_delay=0.001)
    )
    settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        run(task)
    settle()  # 3.11 leaves tasks of its own that end by and by


def test_cancelled_when_connection_made_is_due(loop, run, settle, until):
    ours, peer = make_pair("unix")
    proto = Recorder()
    task = loop.create_task(loop.create_connection(lambda: proto, sock=ours))
    proto.on("connection_made", lambda p: task.cancel())
    with pytest.raises(asyncio.CancelledError):
        run(task)
    until(lambda: proto.is_lost)
    assert proto.events == [("connection_made",), ("connection_lost", None)]
    peer.close()


# ---- local addresses ----


def test_local_addr(connect, listener):
    transport, _ = connect(Recorder, *listener.getsockname(), local_addr=("127.0.0.9", 0))
    assert transport.get_extra_info("sockname")[0] == "127.0.0.9"
    assert listener.accept()[0].close() is None


def test_local_addr_that_is_taken(loop, run, listener, refused):
    with pytest.raises(OSError) as caught:
        run(loop.create_connection(Recorder, *listener.getsockname(), local_addr=refused[0]))
    assert caught.value.errno == errno.EADDRINUSE
    start = f"error while attempting to bind on address {refused[0]!r}: "
    assert caught.value.strerror.startswith(start)


@V312
def test_local_addr_of_another_family(loop, run, listener):
    with pytest.raises(OSError, match="no matching local address with family="):
        run(loop.create_connection(Recorder, *listener.getsockname(), local_addr=("::1", 0)))


# ---- sockets given ----


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_socket_given_becomes_non_blocking(connect, kind, turn):
    ours, peer = make_pair(kind)
    ours.setblocking(True)
    transport, proto = connect(Recorder, sock=ours)
    assert ours.gettimeout() == 0
    assert transport.get_extra_info("socket").fileno() == ours.fileno()
    transport.write(b"x")
    assert receive(peer, turn, 1) == b"x"
    peer.close()


@V313
def test_socket_that_has_a_transport_is_refused(loop, run, connect):
    ours, peer = make_pair("unix")
    transport, proto = connect(Recorder, sock=ours)
    with pytest.raises(RuntimeError, match="is used by transport"):
        run(loop.create_connection(Recorder, sock=ours))
    if sys.version_info < (3, 15):  # later it takes the socket with it
        assert not transport.is_closing() and proto.events == [("connection_made",)]
    peer.close()


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_connect_accepted_socket(connect, until, turn, kind):
    ours, peer = make_pair(kind)
    transport, proto = connect(Recorder, ours, how="connect_accepted_socket")
    assert proto.events == [("connection_made",)]
    peer.send(b"x")
    until(lambda: proto.data)
    transport.write(b"y")
    assert receive(peer, turn, 1) == b"y"
    peer.close()
    until(lambda: proto.is_lost)


def test_factory_that_raises(loop, run):
    class Oops(Exception):
        pass

    def factory():
        raise Oops

    for how in ("create_connection", "connect_accepted_socket"):
        ours, peer = make_pair("unix")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # the socket is closed from 3.15 on
            with pytest.raises(Oops):
                run(getattr(loop, how)(factory, sock=ours))
            del ours
            gc.collect()
        assert peer.recv(1) == b""
        peer.close()


def test_impossible_connections_are_refused(loop, run):
    with socket.socket() as sock, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        for args, error, message in [
            ({}, ValueError, "^host and port was not specified and no sock specified$"),
            (
                {"host": "127.0.0.1", "sock": sock},
                ValueError,
                "^host/port and sock can not be specified at the same time$",
            ),
            ({"sock": datagrams}, ValueError, "^A Stream Socket was expected, got <socket"),
            ({"server_hostname": "x"}, ValueError, "server_hostname is only meaningful with ssl"),
            ({"ssl": True, "sock": sock}, ValueError, "You must set server_hostname"),
            ({"ssl_handshake_timeout": 1}, ValueError, "ssl_handshake_timeout is only meaningful"),
            ({"ssl_shutdown_timeout": 1}, ValueError, "ssl_shutdown_timeout is only meaningful"),
        ]:
            with pytest.raises(error, match=message):
                run(loop.create_connection(Recorder, **args))
        for args, error, message in [
            ({"sock": datagrams}, ValueError, "^A Stream Socket was expected, got <socket"),
            (
                {"sock": sock, "ssl_handshake_timeout": 1},
                ValueError,
                "ssl_handshake_timeout is only meaningful",
            ),
            (
                {"sock": sock, "ssl_shutdown_timeout": 1},
                ValueError,
                "ssl_shutdown_timeout is only meaningful",
            ),
        ]:
            with pytest.raises(error, match=message):
                run(loop.connect_accepted_socket(Recorder, **args))


@pytest.mark.parametrize("cls", [asyncio.BaseTransport, asyncio.Transport])
def test_a_patched_base_of_transports_answers_for_them(connect, cls):
    here, there = socket.socketpair()
    with there:
        transport, _ = connect(Recorder, sock=here)
        with mock.patch.object(cls, "get_extra_info", return_value=("sock", 1)) as patched:
            assert transport.get_extra_info("sockname", default=2) == ("sock", 1)
        patched.assert_called_once_with("sockname", default=2)
        with mock.patch.object(cls, "get_extra_info", lambda self, name: (self, name)):
            assert transport.get_extra_info("peername") == (transport, "peername")
        assert transport.get_extra_info("sockname") == ""


# ---- Unix sockets ----


@pytest.mark.parametrize("kind", [str, os.fsencode, pathlib.Path])
def test_unix_connection_takes_paths(connect, tmp_path, kind, turn):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        transport, proto = connect(Recorder, kind(path), how="create_unix_connection")
        assert proto.events == [("connection_made",)]
        assert transport.get_extra_info("peername") == path
        assert transport.get_extra_info("sockname") == ""
        peer, _ = listener.accept()
    with peer:
        transport.write(b"x")
        assert receive(peer, turn, 1) == b"x"


def test_unix_connection_in_the_abstract_namespace(connect):
    name = f"\0ctask-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        transport, _ = connect(Recorder, name, how="create_unix_connection")
        assert transport.get_extra_info("peername") == name.encode()


def test_unix_connection_to_nobody(loop, run, tmp_path):
    path = str(tmp_path / "s")
    with pytest.raises(FileNotFoundError):
        run(loop.create_unix_connection(Recorder, path))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
    with pytest.raises(ConnectionRefusedError):
        run(loop.create_unix_connection(Recorder, path))
    with pytest.raises(OSError, match="too long"):
        run(loop.create_unix_connection(Recorder, "x" * 200))


def test_unix_connection_of_a_given_socket(connect, turn):
    ours, peer = make_pair("unix")
    transport, _ = connect(Recorder, sock=ours, how="create_unix_connection")
    transport.write(b"x")
    assert receive(peer, turn, 1) == b"x"
    peer.close()


def test_impossible_unix_connections_are_refused(loop, run):
    with socket.socket(socket.AF_UNIX) as sock, socket.socket() as tcp:
        for args, message in [
            ({}, "^no path and sock were specified$"),
            ({"path": "x", "sock": sock}, "^path and sock can not be specified at the same time$"),
            ({"sock": tcp}, "^A UNIX Domain Stream Socket was expected, got <socket"),
            ({"path": "x", "server_hostname": "x"}, "server_hostname is only meaningful with ssl"),
            ({"path": "x", "ssl": True}, "you have to pass server_hostname when using ssl"),
            ({"path": "x", "ssl_handshake_timeout": 1}, "ssl_handshake_timeout is only meaningful"),
        ]:
            with pytest.raises(ValueError, match=message):
                run(loop.create_unix_connection(Recorder, **args))


def test_the_methods_of_a_mock_socket_are_called(loop, run, until):
    # It passes for a socket: isinstance() asks its __class__.
    ours, peer = socket.socketpair()
    received = []

    class Receiver(asyncio.Protocol):
        def data_received(self, data):
            received.append(data)

        def connection_lost(self, exc):
            received.append(exc)

    sock = mock.MagicMock(spec=socket.socket, type=socket.SOCK_STREAM, family=socket.AF_INET)
    sock.fileno.return_value = ours.fileno()
    sock.recv.side_effect = [b"mocked", b""]
    with ours, peer:
        run(loop.create_connection(Receiver, sock=sock))
        peer.send(b"real")
        until(lambda: None in received)
    assert received == [b"mocked", None]
    sock.close.assert_called_once()
