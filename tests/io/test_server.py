"""Servers: accepting, serving, closing; what happens when accepting fails."""

import asyncio
import contextlib
import contextvars
import errno
import gc
import os
import pathlib
import resource
import socket
import struct
import sys
import warnings

import pytest
from conftest import STOCK
from helpers.streams import MUCH, BufferedRecorder, Recorder, receive

VAR: contextvars.ContextVar = contextvars.ContextVar("VAR", default="default")
V312 = pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 and later")
V313 = pytest.mark.skipif(sys.version_info < (3, 13), reason="Python 3.13 and later")


@pytest.fixture(params=["tcp", "unix"])
def listen(request, loop, run, settle, tmp_path):
    """listen(factory, **options) -> a server of `loop`; listen.dial() -> a client's socket.

    The clients' sockets are non-blocking.  Servers and connections are closed at the end.
    """
    servers, clients, protocols = [], [], []

    def listen(factory=Recorder, **options):
        def noting():
            proto = factory()
            protocols.append(proto)
            return proto

        if request.param == "tcp":
            server = run(loop.create_server(noting, "127.0.0.1", 0, **options))
            listen.address = server.sockets[0].getsockname()
        else:
            listen.address = str(tmp_path / "socket")
            server = run(loop.create_unix_server(noting, listen.address, **options))
        servers.append(server)
        return server

    def dial():
        family = socket.AF_INET if request.param == "tcp" else socket.AF_UNIX
        sock = socket.socket(family)
        clients.append(sock)
        sock.connect(listen.address)
        sock.setblocking(False)
        return sock

    listen.dial = dial
    listen.kind = request.param
    listen.protocols = protocols
    yield listen
    for sock in clients:
        sock.close()
    for server in servers:
        server.close()
    settle()
    for proto in protocols:
        if proto.transport is not None and proto.transport.get_protocol() is not None:
            proto.transport.abort()
    settle()


@contextlib.contextmanager
def no_descriptors():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
        with pytest.raises(OSError):
            while True:
                held.append(os.dup(0))
        yield
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# ---- accepting ----


def test_connection_of_a_server(listen, until, turn):
    calls = []

    def factory(*args, **kwargs):
        calls.append((args, kwargs))
        return Recorder()

    server = listen(factory)
    assert calls == []
    client = listen.dial()
    until(lambda: listen.protocols and listen.protocols[0].transport)
    (proto,) = listen.protocols
    assert calls == [((), {})]
    transport = proto.transport
    assert transport.get_protocol() is proto
    assert transport.get_extra_info("sockname") == listen.address
    assert transport.get_extra_info("peername") == client.getsockname()
    assert isinstance(transport, asyncio.Transport)
    client.send(b"question")
    until(lambda: proto.data)
    transport.write(b"answer")
    assert receive(client, turn, 6) == b"answer"
    client.close()
    until(lambda: proto.is_lost)
    assert proto.events == [
        ("connection_made",),
        ("data_received", b"question"),
        ("eof_received",),
        ("connection_lost", None),
    ]
    assert server.is_serving()


def test_accepted_tcp_connection_has_no_delay(listen, until):
    listen()
    listen.dial()
    until(lambda: listen.protocols and listen.protocols[0].transport)
    sock = listen.protocols[0].transport.get_extra_info("socket")
    if listen.kind == "tcp":
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    assert sock.gettimeout() == 0
    assert not os.get_inheritable(sock.fileno())


def test_buffered_protocol_of_a_server(listen, until):
    listen(BufferedRecorder)
    client = listen.dial()
    client.send(b"x")
    until(lambda: listen.protocols and listen.protocols[0].data)
    assert listen.protocols[0].data == b"x"


def test_client_that_is_gone_already(listen, until):
    listen()
    client = listen.dial()
    client.send(b"x")
    client.close()
    until(lambda: listen.protocols and listen.protocols[0].is_lost)
    assert listen.protocols[0].events == [
        ("connection_made",),
        ("data_received", b"x"),
        ("eof_received",),
        ("connection_lost", None),
    ]


@pytest.mark.parametrize("backlog", [300, 8, 1])
def test_many_at_once(listen, until, turn, backlog):
    server = listen(
        lambda: Recorder(data_received=lambda p, data: p.transport.write(data)), backlog=backlog
    )
    clients = []
    while len(clients) < 200:
        for _ in range(min(backlog, 200 - len(clients))):  # as many as the kernel holds for us
            clients.append(listen.dial())
        wanted = len(clients)
        until(lambda: len(listen.protocols) == wanted)
    for n, client in enumerate(clients):
        client.send(b"%03d" % n)
    for n, client in enumerate(clients):
        assert receive(client, turn, 3) == b"%03d" % n
    assert server.is_serving()


def test_connection_reset_before_it_is_accepted(listen, until):
    if listen.kind == "unix":
        pytest.skip("a Unix socket cannot be reset in the queue")
    listen()
    addresses = {}
    for n in range(10):
        client = listen.dial()
        addresses[client.getsockname()] = bad = n % 2
        if bad:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        else:
            client.send(b"x")
    until(lambda: sum(proto.data == b"x" for proto in listen.protocols) == 5)
    until(lambda: all(proto.is_lost or proto.data for proto in listen.protocols))
    for proto in listen.protocols:
        if not proto.data:
            assert proto.lost is None or isinstance(proto.lost, ConnectionResetError)
            assert proto.names()[0] == "connection_made"


def test_out_of_descriptors_while_accepting_and_after(listen, until, reports, monkeypatch):
    class Looker(Recorder):
        def __init__(self):
            super().__init__()
            self.context = VAR.get()

    monkeypatch.setattr(asyncio.constants, "ACCEPT_RETRY_DELAY", 0.01)
    token = VAR.set("server's")
    server = listen(Looker, backlog=2)
    VAR.reset(token)
    client = listen.dial()
    with no_descriptors():
        until(lambda: reports)
    assert listen.protocols == []
    client.send(b"x")
    until(lambda: listen.protocols and listen.protocols[0].data)
    for context in reports.take():
        assert set(context) == {"message", "exception", "socket"}
        assert context["message"] == "socket.accept() out of system resource"
        assert isinstance(context["exception"], OSError)
        assert context["exception"].errno == errno.EMFILE
        assert type(context["socket"]) is asyncio.trsock.TransportSocket
        assert context["socket"].getsockname() == listen.address
    assert server.is_serving()
    listen.dial().send(b"y")
    until(lambda: len(listen.protocols) == 2 and listen.protocols[1].data)
    assert [proto.context for proto in listen.protocols] == ["server's"] * 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_serving_goes_on_if_the_exception_handler_raises_at_a_shortage(
    listen, loop, until, error, monkeypatch
):
    def handler(loop, context):
        raise error

    monkeypatch.setattr(asyncio.constants, "ACCEPT_RETRY_DELAY", 0.01)
    listen()
    loop.set_exception_handler(handler)
    client = listen.dial()
    with no_descriptors(), pytest.raises(error):
        loop.run_forever()
    loop.set_exception_handler(None)
    client.send(b"x")
    until(lambda: listen.protocols and listen.protocols[0].data)


@pytest.mark.ctask_only
def test_the_exception_handler_may_close_the_server_at_a_shortage(listen, loop, until, settle):
    """asyncio's server then removes the reader of a closed socket, which is an error."""
    reports = []

    def handler(loop, context):
        reports.append(context["message"])
        server.close()

    server = listen()
    loop.set_exception_handler(handler)
    listen.dial()
    with no_descriptors():
        until(lambda: reports)
    settle()
    assert reports == ["socket.accept() out of system resource"]
    assert not server.is_serving()
    assert loop._scheduled == []


@pytest.mark.skipif(STOCK and sys.version_info < (3, 14), reason="asyncio 3.14 and later")
@pytest.mark.parametrize("backlog", [0, 1])
def test_a_small_backlog_accepts(listen, until, backlog):
    listen(backlog=backlog)
    for n in range(3):
        listen.dial().send(b"x")
        until(lambda n=n: len(listen.protocols) > n and listen.protocols[n].data)


@pytest.mark.ctask_only
def test_a_negative_backlog_accepts(listen, until):
    listen(backlog=-1)
    listen.dial().send(b"x")
    until(lambda: listen.protocols and listen.protocols[0].data)


def test_errors_of_accept_that_is_patched_while_serving(listen, until, reports, monkeypatch):
    def accept(sock):
        if errors:
            raise errors.pop()
        return original(sock)

    original = socket.socket.accept
    errors = [PermissionError(errno.EPERM, "denied"), ConnectionAbortedError(), BlockingIOError()]
    listen()
    listen.dial().send(b"x")
    until(lambda: listen.protocols and listen.protocols[0].data)
    monkeypatch.setattr(socket.socket, "accept", accept)
    listen.dial().send(b"y")
    until(lambda: len(listen.protocols) == 2 and listen.protocols[1].data)
    assert errors == []
    (context,) = reports.take()
    assert type(context["exception"]) is PermissionError
    assert context["message"].startswith("Exception in callback ")
    monkeypatch.undo()
    listen.dial().send(b"z")
    until(lambda: len(listen.protocols) == 3 and listen.protocols[2].data)


@pytest.mark.ctask_only
def test_a_server_that_has_another_loop(listen, loop):
    server = listen()
    acceptor, _ = loop._selector.get_key(server.sockets[0]).data
    server.get_loop = object
    with pytest.raises(TypeError, match="the server's loop is none of ctask's"):
        acceptor._read_ready()
    del server.get_loop


def test_a_listening_socket_that_is_closed_behind_the_server_accepts_from_no_other(
    loop, run, until, settle, reports
):
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    protocols = []
    server = run(loop.create_server(lambda: protocols.append(Recorder()), sock=listener))
    fd = listener.fileno()
    duplicate = os.dup(fd)
    listener.close()
    with socket.create_server(("127.0.0.1", 0)) as made:
        if made.fileno() == fd:
            other = made
        else:
            other = socket.socket(fileno=os.dup2(made.fileno(), fd))
        with other, socket.socket() as first, socket.socket() as second:
            other.setblocking(False)
            first.connect(other.getsockname())
            settle()
            second.connect(address)
            until(lambda: reports)
            assert protocols == []
            conn, peer = other.accept()
            conn.close()
            assert peer == first.getsockname()
            os.close(duplicate)
    settle()
    assert {type(context["exception"]) for context in reports.take()} == {OSError}
    with contextlib.suppress(ValueError):  # as asyncio, of which the reader has no descriptor
        server.close()


# ---- a factory or a protocol that fails ----


class Oops(Exception):
    pass


@pytest.mark.parametrize("debug", [False, True])
def test_factory_that_raises_costs_its_connection_only(
    listen, loop, settle, turn, until, reports, debug
):
    def factory():
        if len(made) == 1:
            made.append("bad")
            raise Oops("oops")
        made.append("good")
        return Recorder()

    made = []
    loop.set_debug(debug)
    listen(factory)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the socket may wait for the collector
        first, second = listen.dial(), listen.dial()
        until(lambda: len(made) == 2)
        settle()
        contexts = reports.take()
        for context in contexts:
            assert set(context) == {"message", "exception"}
            assert context["message"] == "Error on transport creation for incoming connection"
            assert type(context["exception"]) is Oops
        assert len(contexts) == debug
        context = None
        del contexts
        gc.collect()
    third = listen.dial()
    third.send(b"x")
    until(lambda: len(listen.protocols) == 2 and listen.protocols[1].data)
    assert listen.protocols[1].data == b"x"
    assert receive(second, turn) == b""  # closed
    with pytest.raises(BlockingIOError):
        first.recv(1)  # open


@pytest.mark.parametrize("debug", [False, True])
def test_factory_that_returns_no_protocol_ends_the_connection(loop, run, turn, reports, debug):
    server = run(loop.create_server(lambda: None, "127.0.0.1", 0))
    loop.set_debug(debug)
    with socket.create_connection(server.sockets[0].getsockname()) as client:
        client.setblocking(False)
        assert receive(client, turn) == b""
    server.close()
    contexts = reports.take()
    assert len(contexts) == debug
    for context in contexts:
        assert context["message"] == "Error on transport creation for incoming connection"
        assert "no attribute 'connection_made'" in str(context["exception"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_exit_in_the_factory_comes_out_of_the_loop(listen, loop, until, reports, error):
    def factory():
        if not seen:
            seen.append(1)
            raise error
        return Recorder()

    seen = []
    listen(factory)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        listen.dial()
        with pytest.raises(error):
            loop.run_forever()
        assert not asyncio.all_tasks(loop)
        gc.collect()
        assert {type(context["exception"]) for context in reports.take()} <= {error}
        gc.collect()
    listen.dial().send(b"x")
    until(lambda: listen.protocols and listen.protocols[0].data)


def detach_raises(monkeypatch, server, error):
    def detach(*args):
        asyncio.Server._detach(server, *args)
        raise error

    monkeypatch.setattr(server, "_detach", detach)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_exit_while_the_server_is_told_of_a_lost_connection_comes_out_of_the_loop(
    listen, loop, until, monkeypatch, error
):
    detach_raises(monkeypatch, listen(), error)
    client = listen.dial()
    until(lambda: listen.protocols and listen.protocols[0].transport)
    client.close()
    loop.call_later(10, loop.stop)
    with pytest.raises(error):
        loop.run_forever()
    monkeypatch.undo()
    listen.dial().send(b"x")
    until(lambda: len(listen.protocols) == 2 and listen.protocols[1].data)


def test_error_while_the_server_is_told_of_a_lost_connection_is_reported(
    listen, until, reports, monkeypatch
):
    error = ValueError()
    detach_raises(monkeypatch, listen(), error)
    client = listen.dial()
    until(lambda: listen.protocols and listen.protocols[0].transport)
    client.close()
    until(lambda: reports)
    (context,) = reports.take()
    assert context["exception"] is error
    assert context["message"].startswith("Exception in callback ")
    monkeypatch.undo()


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit])
def test_other_exceptions_of_a_factory_end_nothing_else(listen, until, turn, reports, error):
    def factory():
        if not seen:
            seen.append(1)
            raise error
        return Recorder()

    seen = []
    listen(factory)
    first, second = listen.dial(), listen.dial()
    second.send(b"x")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        until(lambda: listen.protocols and listen.protocols[0].data)
        gc.collect()
    assert receive(first, turn) == b""


def test_factory_that_raises_is_reported_once_debug_mode_is_on(listen, loop, until, reports):
    def factory():
        raise Oops("oops")

    listen(factory)
    loop.set_debug(True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the socket may wait for the collector
        listen.dial()
        until(lambda: reports)
        loop.set_debug(False)
        (context,) = reports.take()
        assert set(context) == {"message", "exception"}
        assert context["message"] == "Error on transport creation for incoming connection"
        assert type(context["exception"]) is Oops
        context = None
        gc.collect()


def test_subclass_may_replace_a_step_of_accepting(impl, run):
    made = []

    class Loop(impl.EventLoop):
        def _make_socket_transport(self, sock, protocol, *args, **kwargs):
            made.append(protocol)
            return super()._make_socket_transport(sock, protocol, *args, **kwargs)

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Recorder, "127.0.0.1", 0)
        transport, _ = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
        while len(made) < 2:
            await asyncio.sleep(0.001)
        for protocol in made:
            protocol.transport.abort()
        server.close()
        await asyncio.sleep(0.001)

    loop = Loop()
    loop.run_until_complete(main())
    loop.close()


def test_exception_in_connection_made_is_reported(listen, until, reports):
    def made(proto):
        raise Oops("oops")

    listen(lambda: Recorder(connection_made=made))
    client = listen.dial()
    until(lambda: reports)
    (context,) = reports.take()
    assert set(context) == {"message", "exception", "handle"}
    assert context["message"].startswith("Exception in callback ")
    client.send(b"x")
    until(lambda: listen.protocols[0].data)


# ---- serving ----


def test_server_tells(listen, loop):
    server = listen()
    assert isinstance(server, asyncio.AbstractServer)
    assert isinstance(server, asyncio.Server)
    assert server.get_loop() is loop
    assert server.is_serving() is True
    (sock,) = server.sockets
    assert type(server.sockets) is tuple
    assert type(sock) is asyncio.trsock.TransportSocket
    assert sock.getsockname() == listen.address
    assert repr(server) == f"<Server sockets={server.sockets!r}>"
    server.close()
    assert server.is_serving() is False
    assert server.sockets == ()
    assert sock.fileno() == -1
    assert repr(server) == "<Server sockets=()>"


def test_start_serving_false(listen, run, until):
    server = listen(start_serving=False)
    assert server.is_serving() is False
    with pytest.raises(ConnectionRefusedError):
        listen.dial()
    assert run(server.start_serving()) is None
    assert server.is_serving() is True
    run(server.start_serving())
    listen.dial()
    until(lambda: listen.protocols)


def test_close_ends_accepting_and_leaves_connections(listen, until, settle, turn):
    server = listen()
    client = listen.dial()
    until(lambda: listen.protocols and listen.protocols[0].transport)
    waiting = listen.dial()  # in the queue, never accepted
    assert server.close() is None
    server.close()
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        listen.dial()
    settle()
    (proto,) = listen.protocols
    client.send(b"x")
    until(lambda: proto.data)
    proto.transport.write(b"y")
    assert receive(client, turn, 1) == b"y"
    with pytest.raises((ConnectionResetError, AssertionError)):
        assert receive(waiting, turn) != b""


@pytest.mark.parametrize("where", ["connection_made", "data_received"])
def test_close_the_server_in_a_callback(listen, until, settle, where):
    server = listen(lambda: Recorder(**{where: lambda p, *args: server.close()}))
    client = listen.dial()
    client.send(b"x")
    until(lambda: listen.protocols and listen.protocols[0].data)
    settle()
    assert not server.is_serving()
    client.close()
    until(lambda: listen.protocols[0].is_lost)


def test_close_while_connections_are_on_their_way(listen, settle):
    server = listen()
    for _ in range(5):
        listen.dial()
    server.close()
    settle()
    assert listen.protocols == []


@V312
def test_wait_closed_waits_for_the_last_connection(listen, loop, until, settle):
    server = listen()
    clients = [listen.dial(), listen.dial()]
    until(lambda: len(listen.protocols) == 2 and all(p.transport for p in listen.protocols))
    waiting = [loop.create_task(server.wait_closed()) for _ in range(2)]
    settle()
    assert not any(task.done() for task in waiting)
    server.close()
    settle()
    assert not any(task.done() for task in waiting)
    clients[0].close()
    until(lambda: listen.protocols[0].is_lost)
    settle()
    assert not any(task.done() for task in waiting)
    listen.protocols[1].transport.abort()
    until(lambda: all(task.done() for task in waiting))
    assert [task.result() for task in waiting] == [None, None]
    assert listen.protocols[1].is_lost


def test_wait_closed_of_a_closed_server_without_connections(listen, run, until):
    server = listen()
    listen.dial().close()
    until(lambda: listen.protocols and listen.protocols[0].is_lost)
    until(lambda: listen.protocols[0].transport.get_extra_info("socket").fileno() == -1)
    server.close()
    assert run(server.wait_closed()) is None
    run(server.wait_closed())


def test_async_with_closes(listen, run):
    server = listen()

    async def main():
        async with server as entered:
            assert entered is server
            assert server.is_serving()

    run(main())
    assert not server.is_serving() and server.sockets == ()


def test_serve_forever_until_cancelled(listen, loop, run, until):
    server = listen(start_serving=False)
    task = loop.create_task(server.serve_forever())
    until(server.is_serving)
    listen.dial().close()
    until(lambda: listen.protocols and listen.protocols[0].is_lost)
    with pytest.raises(RuntimeError, match=r"is already being awaited on serve_forever\(\)"):
        run(server.serve_forever())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        run(task)
    assert not server.is_serving()
    with pytest.raises(RuntimeError, match="is closed"):
        run(server.serve_forever())


def test_close_ends_serve_forever(listen, loop, run, until, settle):
    server = listen()
    task = loop.create_task(server.serve_forever())
    settle()
    server.close()
    with pytest.raises(asyncio.CancelledError):
        run(task)


@V313
def test_close_clients_flushes_and_abort_clients_does_not(listen, run, until, turn):
    server = listen(lambda: Recorder(connection_made=lambda p: p.transport.write(MUCH)))
    client = listen.dial()
    until(lambda: listen.protocols and listen.protocols[0].transport)
    server.close()
    assert server.close_clients() is None
    assert listen.protocols[0].transport.is_closing()
    assert receive(client, turn) == MUCH
    run(server.wait_closed())
    assert listen.protocols[0].lost is None

    more = 32 * MUCH  # than the kernel takes
    server = listen(lambda: Recorder(connection_made=lambda p: p.transport.write(more)))
    client = listen.dial()
    until(lambda: len(listen.protocols) == 2 and listen.protocols[1].transport)
    server.close()
    assert server.abort_clients() is None
    run(server.wait_closed())
    data = receive(client, turn)
    assert len(data) < len(more) and more.startswith(data)
    assert listen.protocols[1].lost is None


@V313
def test_close_clients_of_none(listen):
    server = listen()
    server.close_clients()
    server.abort_clients()
    assert server.is_serving()
    server.close()
    server.close_clients()
    server.abort_clients()


# ---- context ----


def test_each_connection_has_a_copy_of_the_servers_context(listen, loop, run, until):
    class Looker(Recorder):
        def __init__(self):
            super().__init__()
            self.seen = [VAR.get()]
            VAR.set("changed in the factory")

        def note(self, name, *args):
            self.seen.append(VAR.get())

    token = VAR.set("server's")
    try:
        listen(Looker)
    finally:
        VAR.reset(token)
    for n in range(2):
        client = listen.dial()
        client.send(b"x")
        until(lambda: len(listen.protocols) == n + 1 and listen.protocols[n].data)
        client.close()
        until(lambda: listen.protocols[n].transport.get_protocol() is None)
        # connection_made, data_received, eof_received, connection_lost
        assert listen.protocols[n].seen == ["server's"] + ["changed in the factory"] * 4
    assert VAR.get() == "default"


# ---- options and errors of create_server ----


def option(server, level, name):
    return server.sockets[0].getsockopt(level, name)


def test_backlog_is_given_to_the_kernel(loop, run):
    for backlog in (100, 7):
        server = run(loop.create_server(Recorder, "127.0.0.1", 0, backlog=backlog))
        info = server.sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 40)
        assert struct.unpack_from("I", info, 28)[0] == backlog
        server.close()


def test_address_and_port_can_be_reused(loop, run):
    server = run(loop.create_server(Recorder, "127.0.0.1", 0))
    assert option(server, socket.SOL_SOCKET, socket.SO_REUSEADDR)
    assert not option(server, socket.SOL_SOCKET, socket.SO_REUSEPORT)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(OSError) as caught:
        run(loop.create_server(Recorder, "127.0.0.1", port))
    assert caught.value.errno == errno.EADDRINUSE
    start = f"error while attempting to bind on address ('127.0.0.1', {port}): "
    assert caught.value.strerror.startswith(start)
    server.close()
    server = run(loop.create_server(Recorder, "127.0.0.1", 0, reuse_port=True, reuse_address=False))
    assert not option(server, socket.SOL_SOCKET, socket.SO_REUSEADDR)
    assert option(server, socket.SOL_SOCKET, socket.SO_REUSEPORT)
    port = server.sockets[0].getsockname()[1]
    other = run(loop.create_server(Recorder, "127.0.0.1", port, reuse_port=True))
    server.close()
    other.close()


@V313
def test_keep_alive(loop, run):
    server = run(loop.create_server(Recorder, "127.0.0.1", 0, keep_alive=True))
    assert option(server, socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    server.close()


def test_several_hosts(loop, run, until):
    protos = []

    def factory():
        protos.append(Recorder())
        return protos[-1]

    server = run(loop.create_server(factory, ["127.0.0.1", "127.0.0.2"], 0))
    assert {sock.getsockname()[0] for sock in server.sockets} == {"127.0.0.1", "127.0.0.2"}
    for sock in server.sockets:
        with socket.create_connection(sock.getsockname()):
            pass
    until(lambda: len(protos) == 2 and all(proto.is_lost for proto in protos))
    server.close()
    run(server.wait_closed())


@pytest.mark.parametrize("host", [None, ""])
def test_all_interfaces(loop, run, until, host):
    proto = Recorder()
    server = run(loop.create_server(lambda: proto, host, 0, family=socket.AF_INET))
    name = server.sockets[0].getsockname()
    assert name[0] == "0.0.0.0"
    with socket.create_connection(("127.0.0.1", name[1])):
        pass
    until(lambda: proto.is_lost)
    server.close()
    run(loop.shutdown_default_executor())  # which looked None up


def test_socket_of_ones_own(loop, run, until):
    proto = Recorder()
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    server = run(loop.create_server(lambda: proto, sock=sock))
    assert sock.gettimeout() == 0
    with socket.create_connection(sock.getsockname()) as client:
        client.send(b"x")
        until(lambda: proto.data)
    until(lambda: proto.is_lost)
    server.close()
    assert sock.fileno() == -1


def test_impossible_servers_are_refused(loop, run):
    with socket.socket() as sock, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        for args, error, message in [
            ({}, ValueError, "Neither host/port nor sock were specified"),
            ({"host": "127.0.0.1", "sock": sock}, ValueError, "can not be specified at the same"),
            ({"sock": datagrams}, ValueError, "A Stream Socket was expected, got "),
            ({"port": 0, "ssl": True}, TypeError, "ssl argument must be an SSLContext or None"),
            ({"port": 0, "ssl_handshake_timeout": 1}, ValueError, "only meaningful with ssl"),
            ({"port": 0, "ssl_shutdown_timeout": 1}, ValueError, "only meaningful with ssl"),
        ]:
            with pytest.raises(error, match=message):
                run(loop.create_server(Recorder, **args))


# ---- Unix sockets ----


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "s")


def dial(address):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(address)


@pytest.mark.parametrize("kind", [str, os.fsencode, pathlib.Path])
def test_unix_server_takes_paths(loop, run, until, path, kind):
    proto = Recorder()
    server = run(loop.create_unix_server(lambda: proto, kind(path)))
    assert server.sockets[0].getsockname() == path
    dial(path)
    until(lambda: proto.is_lost)
    assert proto.transport.get_extra_info("sockname") == path
    assert proto.transport.get_extra_info("peername") == ""
    server.close()
    run(server.wait_closed())


def test_unix_server_in_the_abstract_namespace(loop, run, until):
    proto = Recorder()
    name = f"\0ctask-test-{os.getpid()}"
    server = run(loop.create_unix_server(lambda: proto, name))
    dial(name)
    until(lambda: proto.is_lost)
    server.close()
    with pytest.raises(ConnectionRefusedError):
        dial(name)


def test_stale_socket_is_replaced_and_another_file_is_not(loop, run, path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
    server = run(loop.create_unix_server(Recorder, path))
    server.close()
    if os.path.exists(path):
        os.unlink(path)
    pathlib.Path(path).write_text("mine")
    with pytest.raises(OSError) as caught:
        run(loop.create_unix_server(Recorder, path))
    assert caught.value.errno == errno.EADDRINUSE
    assert f"Address {path!r} is already in use" in str(caught.value)
    assert pathlib.Path(path).read_text() == "mine"


@V313
def test_socket_file_is_removed_when_the_server_closes(loop, run, path):
    server = run(loop.create_unix_server(Recorder, path))
    assert os.path.exists(path)
    server.close()
    assert not os.path.exists(path)
    server = run(loop.create_unix_server(Recorder, path, cleanup_socket=False))
    server.close()
    assert os.path.exists(path)
    sock = socket.socket(socket.AF_UNIX)
    os.unlink(path)
    sock.bind(path)
    server = run(loop.create_unix_server(Recorder, sock=sock))
    server.close()
    assert not os.path.exists(path)


@V313
def test_socket_file_of_somebody_else_is_not_removed(loop, run, path):
    server = run(loop.create_unix_server(Recorder, path))
    os.rename(path, path + ".old")
    pathlib.Path(path).write_text("mine")
    server.close()
    assert pathlib.Path(path).read_text() == "mine"
    server = run(loop.create_unix_server(Recorder, path + ".2"))
    os.unlink(path + ".2")
    server.close()  # gone already


def test_impossible_unix_servers_are_refused(loop, run, path):
    with socket.socket(socket.AF_UNIX) as sock, socket.socket() as tcp:
        for args, error, message in [
            ({}, ValueError, "path was not specified, and no sock specified"),
            ({"path": path, "sock": sock}, ValueError, "can not be specified at the same time"),
            ({"sock": tcp}, ValueError, "A UNIX Domain Stream Socket was expected, got "),
            ({"path": path, "ssl": True}, TypeError, "ssl argument must be an SSLContext"),
            ({"path": path, "ssl_handshake_timeout": 1}, ValueError, "only meaningful with ssl"),
        ]:
            with pytest.raises(error, match=message):
                run(loop.create_unix_server(Recorder, **args))
    assert not os.path.exists(path)


# ---- streams ----


def test_start_server_serves_streams(loop, run):
    async def main():
        ended = asyncio.Event()

        async def serve(reader, writer):
            while line := await reader.readline():
                writer.write(line.upper())
                await writer.drain()
            writer.close()
            await writer.wait_closed()
            ended.set()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            for word in (b"one\n", b"two\n"):
                writer.write(word)
                assert await reader.readline() == word.upper()
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
            await ended.wait()

    run(main())
    run(asyncio.sleep(0))
