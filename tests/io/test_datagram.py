"""Datagram endpoints: what the protocol is told, what sendto() does, closing, flow control."""

import asyncio
import contextvars
import errno
import gc
import logging
import os
import socket
import sys
import warnings

import pytest

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="default")
HEADER = 8 if sys.version_info >= (3, 13) else 0  # what asyncio adds to a datagram that waits


class Recorder(asyncio.DatagramProtocol):
    """Notes what it is told, as (name, arguments...)."""

    def __init__(self):
        self.calls = []
        self.contexts = []

    def note(self, *call):
        self.calls.append(call)
        self.contexts.append(VAR.get())

    def take(self):
        calls = self.calls[:]
        self.calls.clear()
        return calls

    def connection_made(self, transport):
        self.transport = transport
        self.note("made")

    def datagram_received(self, data, addr):
        self.note("received", data, addr)

    def error_received(self, exc):
        self.note("error", type(exc), exc.errno)

    def connection_lost(self, exc):
        self.note("lost", exc)

    def pause_writing(self):
        self.note("pause")

    def resume_writing(self):
        self.note("resume")


@pytest.fixture
def until(loop):
    """Runs the loop until a condition holds."""

    def until(condition):
        async def wait():
            while not condition():
                await asyncio.sleep(0)

        loop.run_until_complete(wait())

    return until


@pytest.fixture
def open_endpoint(loop):
    """Opens endpoints of a protocol, and closes them at the end."""
    opened = []

    def open_endpoint(proto, **kwargs):
        transport, same = loop.run_until_complete(
            loop.create_datagram_endpoint(lambda: proto, **kwargs)
        )
        assert same is proto and transport is proto.transport
        opened.append(transport)
        return transport

    yield open_endpoint
    if not loop.is_closed():
        for transport in opened:
            if transport.get_protocol() is not None:  # not lost yet
                transport.abort()
        for _ in range(3):
            loop.run_until_complete(asyncio.sleep(0))


@pytest.fixture(params=["127.0.0.1", "::1"])
def host(request):
    return request.param


@pytest.fixture
def peer(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        sock.settimeout(10)
        yield sock


@pytest.fixture
def endpoint(open_endpoint, host):
    """A protocol with an endpoint of its own, not connected."""
    proto = Recorder()
    open_endpoint(proto, local_addr=(host, 0))
    proto.take()
    proto.addr = proto.transport.get_extra_info("sockname")
    return proto


@pytest.fixture
def narrow(loop, open_endpoint, tmp_path):
    """A protocol whose endpoint can send one datagram of 1000 bytes or a few, and who receives."""
    path = str(tmp_path / "receiver")
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with receiver:
        receiver.bind(path)
        receiver.setblocking(False)
        sender.connect(path)
        sender.setblocking(False)
        n = 0
        try:
            while True:
                sender.send(b"-")
                n += 1
        except BlockingIOError:
            pass
        proto = Recorder()
        open_endpoint(proto, sock=sender)
        proto.take()

        def drain():
            got = []
            try:
                while True:
                    got.append(receiver.recv(10_000))
            except BlockingIOError:
                return [data for data in got if data != b"-"]

        proto.drain = drain
        yield proto


# ---- the course of an endpoint


def test_type_and_extra_info(endpoint, host):
    transport = endpoint.transport
    assert isinstance(transport, asyncio.Transport)
    if sys.version_info >= (3, 12):
        assert isinstance(transport, asyncio.DatagramTransport)
    assert transport.get_extra_info("sockname")[0] == host
    assert transport.get_extra_info("peername") is None
    sock = transport.get_extra_info("socket")
    assert sock.type == socket.SOCK_DGRAM and sock.getsockname() == endpoint.addr
    assert transport.get_extra_info("nothing") is None
    assert transport.get_extra_info("nothing", 5) == 5
    assert transport.get_protocol() is endpoint
    assert transport.is_reading() and not transport.is_closing()
    assert transport.get_write_buffer_size() == 0


def test_echo(endpoint, peer, until):
    for data in (b"x", b"y" * 1400, b"z" * 60_000):
        peer.sendto(data, endpoint.addr)
        until(lambda: endpoint.calls)
        assert endpoint.take() == [("received", data, peer.getsockname())]
        assert endpoint.transport.sendto(data, peer.getsockname()) is None
        assert peer.recvfrom(65536) == (data, endpoint.addr)


def test_received_types(endpoint, peer, until):
    peer.sendto(b"x", endpoint.addr)
    until(lambda: endpoint.calls)
    [(_, data, addr)] = endpoint.take()
    assert type(data) is bytes and type(addr) is tuple
    assert [type(part) for part in addr] == [str] + [int] * (len(addr) - 1)


def test_senders_are_told_apart(endpoint, host, until):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    peers = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(5)]
    try:
        for sock in peers:
            sock.bind((host, 0))
        expected = []
        for i in range(10):
            for sock in peers[: 1 + i % 5]:
                sock.sendto(b"%d" % i, endpoint.addr)
                expected.append(("received", b"%d" % i, sock.getsockname()))
        until(lambda: len(endpoint.calls) == len(expected))
        assert endpoint.take() == expected
        for sock in peers:
            endpoint.transport.sendto(b"answer", sock.getsockname())
        for sock in peers:
            assert sock.recv(10) == b"answer"
    finally:
        for sock in peers:
            sock.close()


def test_many_at_once_come_in_order(endpoint, peer, until):
    sent = []
    for round in range(10):
        for i in range(50):
            data = b"%d-%d" % (round, i) * (1 + i)
            peer.sendto(data, endpoint.addr)
            sent.append(data)
        until(lambda: len(endpoint.calls) == len(sent))
    assert [data for _, data, _ in endpoint.take()] == sent


def test_one_datagram_a_turn_for_each_endpoint(loop, open_endpoint, host, peer, turn):
    protos = Recorder(), Recorder()
    for proto in protos:
        open_endpoint(proto, local_addr=(host, 0))
        proto.take()
    for i in range(40):
        for proto in protos:
            peer.sendto(b"%d" % i, proto.transport.get_extra_info("sockname"))
    for i in range(40):
        counts = [len(proto.calls) for proto in protos]
        assert counts == [i] * 2
        turn()
    assert [len(proto.calls) for proto in protos] == [40] * 2


@pytest.mark.parametrize("kind", [bytearray, memoryview, lambda data: memoryview(data)[:]])
def test_sendto_takes_buffers(endpoint, peer, kind):
    endpoint.transport.sendto(kind(b"data"), peer.getsockname())
    assert peer.recv(10) == b"data"


def test_empty_datagrams(endpoint, peer, until):
    peer.sendto(b"", endpoint.addr)
    until(lambda: endpoint.calls)
    assert endpoint.take() == [("received", b"", peer.getsockname())]
    endpoint.transport.sendto(b"", peer.getsockname())
    endpoint.transport.sendto(b"next", peer.getsockname())
    if sys.version_info >= (3, 13):
        assert peer.recv(10) == b""
    assert peer.recv(10) == b"next"


def test_sendto_by_keyword_and_by_name(open_endpoint):
    proto = Recorder()
    transport = open_endpoint(proto, local_addr=("127.0.0.1", 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(10)
        transport.sendto(addr=sock.getsockname(), data=b"1")
        transport.sendto(b"2", addr=("localhost", sock.getsockname()[1]))
        assert sock.recv(10) == b"1"
        assert sock.recv(10) == b"2"


def test_sendto_arguments(endpoint):
    with pytest.raises(TypeError, match="data argument must be a bytes-like object, not 'str'"):
        endpoint.transport.sendto("text", ("127.0.0.1", 9))
    with pytest.raises(TypeError):
        endpoint.transport.sendto()
    with pytest.raises(TypeError):
        endpoint.transport.sendto(b"x", None, None)
    with pytest.raises(TypeError):
        endpoint.transport.sendto(b"x", port=5)
    assert endpoint.take() == []


def test_sendto_too_long(endpoint, peer):
    endpoint.transport.sendto(bytes(70_000), peer.getsockname())
    assert endpoint.take() == [("error", OSError, errno.EMSGSIZE)]
    endpoint.transport.sendto(b"next", peer.getsockname())
    assert peer.recv(10) == b"next"


def test_sendto_nowhere_is_fatal(endpoint, reports, until):
    endpoint.transport.sendto(b"x")
    until(lambda: endpoint.calls)
    [(name, exc)] = endpoint.take()
    assert name == "lost" and isinstance(exc, TypeError)
    [report] = reports.take()
    assert report["message"] == "Fatal write error on datagram transport"
    assert report["exception"] is exc
    assert report["transport"] is endpoint.transport
    assert report["protocol"] is endpoint
    exc.__traceback__ = None


# ---- connected


def test_connected(open_endpoint, peer, until):
    proto = Recorder()
    transport = open_endpoint(proto, remote_addr=peer.getsockname()[:2])
    assert transport.get_extra_info("peername") == peer.getsockname()
    transport.sendto(b"1")
    transport.sendto(b"2", None)
    transport.sendto(b"3", peer.getsockname())
    for expected in (b"1", b"2", b"3"):
        assert peer.recvfrom(10) == (expected, transport.get_extra_info("sockname"))
    with pytest.raises(ValueError) as info:
        transport.sendto(b"4", ("127.0.0.1", 9))
    assert str(info.value) == f"Invalid address: must be None or {peer.getsockname()}"
    peer.sendto(b"back", transport.get_extra_info("sockname"))
    until(lambda: len(proto.calls) > 1)
    assert proto.take() == [("made",), ("received", b"back", peer.getsockname())]


def test_errors_of_the_network_are_received(open_endpoint, peer, until):
    proto = Recorder()
    transport = open_endpoint(proto, remote_addr=peer.getsockname()[:2])
    proto.take()
    peer.close()
    transport.sendto(b"nobody there")
    until(lambda: proto.calls)
    assert proto.take() == [("error", ConnectionRefusedError, errno.ECONNREFUSED)]
    assert not transport.is_closing()


def test_broadcast_socket_goes_where_it_was_told(open_endpoint, loop):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(10)
        proto = Recorder()
        transport = open_endpoint(proto, remote_addr=peer.getsockname(), allow_broadcast=True)
        assert transport.get_extra_info("peername") is None
        transport.sendto(b"x")
        assert peer.recv(10) == b"x"


# ---- Unix sockets


def test_unix_endpoints(open_endpoint, tmp_path, until):
    one, two = Recorder(), Recorder()
    paths = [str(tmp_path / name) for name in "ab"]
    for proto, path in zip((one, two), paths, strict=True):
        open_endpoint(proto, local_addr=path, family=socket.AF_UNIX)
        assert proto.transport.get_extra_info("sockname") == path
        proto.take()
    one.transport.sendto(b"x" * 100_000, paths[1])
    until(lambda: two.calls)
    assert two.take() == [("received", b"x" * 100_000, paths[0])]
    two.transport.sendto(b"back", paths[0])
    until(lambda: one.calls)
    assert one.take() == [("received", b"back", paths[1])]


def test_unix_sender_without_a_name(open_endpoint, tmp_path, until):
    proto = Recorder()
    path = str(tmp_path / "a")
    open_endpoint(proto, local_addr=path, family=socket.AF_UNIX)
    proto.take()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"1", path)
        until(lambda: proto.calls)
        name = f"\0ctask-test-{os.getpid()}"
        sock.bind(name)
        sock.sendto(b"2", path)
        until(lambda: len(proto.calls) == 2)
        assert proto.take() == [("received", b"1", None), ("received", b"2", name.encode())]


# ---- what waits to be sent


def test_what_the_kernel_does_not_take_waits(narrow, until):
    transport = narrow.transport
    transport.sendto(b"1" * 1000)
    transport.sendto(bytearray(b"2" * 1000))
    assert transport.get_write_buffer_size() == 2 * (1000 + HEADER)
    assert "write=<polling, bufsize=" in repr(transport)
    got = narrow.drain()
    while len(got) < 2:
        until(lambda: True)
        got += narrow.drain()
    assert got == [b"1" * 1000, b"2" * 1000]


def test_what_waits_is_a_copy(narrow, until):
    data = bytearray(b"before")
    narrow.transport.sendto(data)
    narrow.transport.sendto(memoryview(data))
    data[:] = b"after!"
    data.append(1)
    got = []
    while len(got) < 2:
        got += narrow.drain()
        until(lambda: True)
    assert got == [b"before", b"before"]


def test_many_that_wait_go_in_order(narrow, until):
    expected = [b"%d" % i for i in range(100)]
    for data in expected:
        narrow.transport.sendto(data)
    got = []
    while len(got) < len(expected):
        got += narrow.drain()
        until(lambda: True)
    assert got == expected
    until(lambda: "write=<idle" in repr(narrow.transport))


def test_pause_and_resume_writing(narrow, until):
    transport = narrow.transport
    transport.set_write_buffer_limits(high=3000, low=1000)
    assert transport.get_write_buffer_limits() == (1000, 3000)
    for _ in range(2):
        transport.sendto(bytes(1000))
    assert narrow.take() == []
    transport.sendto(bytes(1000))
    transport.sendto(bytes(1000))
    assert narrow.take() == [("pause",)]
    got = []
    while len(got) < 4:
        got += narrow.drain()
        until(lambda: True)
    if HEADER == 0 or sys.version_info >= (3, 14):  # 3.13's count of the headers does not shrink
        until(lambda: narrow.calls)
        assert narrow.take() == [("resume",)]


def test_default_limits_and_wrong_ones(endpoint):
    transport = endpoint.transport
    assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
    with pytest.raises(ValueError):
        transport.set_write_buffer_limits(high=1, low=2)
    transport.set_write_buffer_limits(low=10)
    assert transport.get_write_buffer_limits() == (10, 40)


def test_close_sends_what_waits(narrow, until):
    for i in range(3):
        narrow.transport.sendto(b"%d" % i)
    narrow.transport.close()
    assert narrow.transport.is_closing()
    assert narrow.take() == []
    got = []
    while not narrow.calls:
        got += narrow.drain()
        until(lambda: True)
    got += narrow.drain()
    assert got == [b"0", b"1", b"2"]
    assert narrow.take() == [("lost", None)]


def test_abort_drops_what_waits(narrow, turn):
    narrow.transport.sendto(b"dropped")
    narrow.transport.abort()
    assert narrow.transport.get_write_buffer_size() in (0, 7 + HEADER)
    turn(2)
    assert narrow.take() == [("lost", None)]
    assert narrow.drain() == []


def test_receiver_goes_while_something_waits(narrow, loop, until, tmp_path):
    narrow.transport.sendto(b"1")
    os.unlink(narrow.transport.get_extra_info("peername"))
    narrow.drain.__closure__[0].cell_contents.close()
    until(lambda: narrow.calls)
    assert narrow.take() == [("error", ConnectionRefusedError, errno.ECONNREFUSED)]
    until(lambda: narrow.transport.get_write_buffer_size() in (0, HEADER))


# ---- closing


def test_close(endpoint, peer, turn):
    transport = endpoint.transport
    fd = transport.get_extra_info("socket").fileno()
    transport.close()
    transport.close()
    assert transport.is_closing() and not transport.is_reading()
    assert endpoint.take() == []
    assert repr(transport).startswith(f"<{type(transport).__name__} closing fd={fd} ")
    turn(2)
    assert endpoint.take() == [("lost", None)]
    assert repr(transport) == f"<{type(transport).__name__} closed fd={fd}>"
    assert transport.get_extra_info("sockname") == endpoint.addr
    with pytest.raises(OSError):
        os.fstat(fd)
    transport.close()
    transport.abort()
    turn(2)
    assert endpoint.take() == []


def test_repr(endpoint):
    transport = endpoint.transport
    fd = transport.get_extra_info("socket").fileno()
    name = type(transport).__name__
    assert repr(transport) == f"<{name} fd={fd} read=polling write=<idle, bufsize=0>>"


def test_nothing_is_received_after_close(endpoint, peer, turn):
    peer.sendto(b"1", endpoint.addr)
    endpoint.transport.close()
    turn(4)
    assert endpoint.take() == [("lost", None)]


def test_close_in_the_middle_of_a_burst(open_endpoint, host, peer, until):
    class Closes(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if data == b"39":
                self.transport.close()

    proto = Closes()
    transport = open_endpoint(proto, local_addr=(host, 0))
    proto.take()
    for i in range(60):
        peer.sendto(b"%d" % i, transport.get_extra_info("sockname"))
    until(lambda: proto.calls and proto.calls[-1][0] == "lost")
    assert [call[1] for call in proto.take()] == [b"%d" % i for i in range(40)] + [None]


def test_connected_endpoint_drops_what_is_sent_after_close(open_endpoint, peer, turn, logs):
    proto = Recorder()
    transport = open_endpoint(proto, remote_addr=peer.getsockname()[:2])
    transport.close()
    for _ in range(7):
        transport.sendto(b"x")
    turn(2)
    transport.sendto(b"y")
    assert proto.take() == [("made",), ("lost", None)]
    assert {record.getMessage() for record in logs.take()} == {"socket.send() raised exception."}
    peer.settimeout(0)
    with pytest.raises(BlockingIOError):
        peer.recv(10)


def test_close_before_the_beginning(loop, run, host, turn):
    proto = Recorder()

    class Closes(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.close()

    proto = Closes()
    transport, _ = run(loop.create_datagram_endpoint(lambda: proto, local_addr=(host, 0)))
    turn(2)
    assert proto.take() == [("made",), ("lost", None)]
    assert transport.is_closing()


def test_send_in_connection_made(loop, run, peer, host, open_endpoint):
    class Sends(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.sendto(b"hello", peer.getsockname())

    open_endpoint(Sends(), local_addr=(host, 0))
    assert peer.recv(10) == b"hello"


def test_unclosed_endpoint_warns(loop, run, host):
    transport, _ = run(loop.create_datagram_endpoint(Recorder, local_addr=(host, 0)))
    start = repr(transport).partition(" read=")[0]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.close()
        del transport, _
        gc.collect()
    messages = [str(w.message) for w in caught if w.category is ResourceWarning]
    assert any(m.startswith(f"unclosed transport {start}") for m in messages)


# ---- exceptions in the protocol


def test_exception_in_datagram_received_is_reported(open_endpoint, host, peer, until, reports):
    class Raises(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if data in (b"3", b"25", b"39"):
                raise ValueError(data)

    proto = Raises()
    transport = open_endpoint(proto, local_addr=(host, 0))
    proto.take()
    for i in range(40):
        peer.sendto(b"%d" % i, transport.get_extra_info("sockname"))
    until(lambda: len(proto.calls) == 40 and len(reports) == 3)
    assert [call[1] for call in proto.take()] == [b"%d" % i for i in range(40)]
    assert not transport.is_closing()
    for report, data in zip(reports.take(), (b"3", b"25", b"39"), strict=True):
        assert report["message"].startswith("Exception in callback ")
        assert "_read_ready" in report["message"]
        assert report["exception"].args == (data,)
        report["exception"].__traceback__ = None


def test_exception_in_error_received(open_endpoint, peer, until, reports):
    class Raises(Recorder):
        def error_received(self, exc):
            raise ZeroDivisionError

    proto = Raises()
    transport = open_endpoint(proto, remote_addr=peer.getsockname()[:2])
    peer.close()
    transport.sendto(b"x")
    until(lambda: reports)
    [report] = reports.take()
    assert type(report["exception"]) is ZeroDivisionError
    report["exception"].__traceback__ = None
    assert not transport.is_closing()
    with pytest.raises(ZeroDivisionError):
        transport.sendto(bytes(70_000))


def test_exception_in_connection_made(loop, run, host, reports, turn):
    class Raises(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise ZeroDivisionError

    proto = Raises()
    transport, _ = run(loop.create_datagram_endpoint(lambda: proto, local_addr=(host, 0)))
    [report] = reports.take()
    assert "connection_made" in report["message"]
    report["exception"].__traceback__ = None
    assert not transport.is_closing()
    transport.close()
    turn(2)
    assert proto.take() == [("made",), ("lost", None)]


def test_exception_in_connection_lost(loop, run, host, reports, turn):
    class Raises(Recorder):
        def connection_lost(self, exc):
            raise ZeroDivisionError

    proto = Raises()
    transport, _ = run(loop.create_datagram_endpoint(lambda: proto, local_addr=(host, 0)))
    fd = transport.get_extra_info("socket").fileno()
    transport.close()
    turn(2)
    [report] = reports.take()
    assert "_call_connection_lost" in report["message"]
    report["exception"].__traceback__ = None
    with pytest.raises(OSError):
        os.fstat(fd)


def test_exceptions_in_flow_control(open_endpoint, narrow, reports):
    class Raises(Recorder):
        def pause_writing(self):
            raise ZeroDivisionError

    proto = Raises()
    narrow.transport.set_protocol(proto)
    assert narrow.transport.get_protocol() is proto
    narrow.transport.set_write_buffer_limits(high=10)
    narrow.transport.sendto(bytes(100))
    [report] = reports.take()
    assert report["message"] == "protocol.pause_writing() failed"
    assert type(report["exception"]) is ZeroDivisionError
    report["exception"].__traceback__ = None


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interrupts_end_the_loop(loop, open_endpoint, host, peer, kind):
    class Raises(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if data == b"1":
                raise kind

    proto = Raises()
    transport = open_endpoint(proto, local_addr=(host, 0))
    proto.take()
    for i in range(3):
        peer.sendto(b"%d" % i, transport.get_extra_info("sockname"))
    with pytest.raises(kind):
        loop.run_forever()
    loop.run_until_complete(asyncio.sleep(0.001))
    assert [call[1] for call in proto.take()] == [b"0", b"1", b"2"]


# ---- pausing


def test_pause_and_resume_reading(endpoint, peer, until, turn):
    transport = endpoint.transport
    transport.pause_reading()
    transport.pause_reading()
    assert not transport.is_reading()
    peer.sendto(b"1", endpoint.addr)
    turn(3)
    assert endpoint.take() == []
    transport.resume_reading()
    transport.resume_reading()
    assert transport.is_reading()
    until(lambda: endpoint.calls)
    assert endpoint.take() == [("received", b"1", peer.getsockname())]


def test_pause_in_the_middle_of_a_burst(loop, open_endpoint, host, peer, until, turn):
    class Pauses(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if int(data) % 7 == 0:
                self.transport.pause_reading()

    proto = Pauses()
    transport = open_endpoint(proto, local_addr=(host, 0))
    proto.take()
    for i in range(60):
        peer.sendto(b"%d" % i, transport.get_extra_info("sockname"))
    got = []
    while len(got) < 60:
        until(lambda: not transport.is_reading() or len(got) + len(proto.calls) == 60)
        turn(3)
        if not transport.is_reading():
            got += [int(data) for _, data, _ in proto.take()]
            assert got == list(range(len(got))) and (got[-1] % 7 == 0 or len(got) == 60)
            transport.resume_reading()
        else:
            got += [int(data) for _, data, _ in proto.take()]
    assert got == list(range(60))


# ---- surroundings


def test_callbacks_see_the_context_of_the_beginning(loop, host, peer, until):
    proto = Recorder()

    async def main():
        VAR.set("mine")
        await loop.create_datagram_endpoint(lambda: proto, local_addr=(host, 0))

    loop.run_until_complete(main())
    peer.sendto(b"x", proto.transport.get_extra_info("sockname"))
    until(lambda: len(proto.calls) == 2)
    proto.transport.close()
    until(lambda: len(proto.calls) == 3)
    assert proto.contexts[:2] == ["mine", "mine"]


def test_debug_mode(loop, run, host, peer, until, caplog):
    loop.set_debug(True)
    caplog.set_level(logging.WARNING, "asyncio")
    proto = Recorder()
    run(loop.create_datagram_endpoint(lambda: proto, local_addr=(host, 0)))
    peer.sendto(b"x", proto.transport.get_extra_info("sockname"))
    until(lambda: len(proto.calls) == 2)
    proto.transport.sendto(b"y", peer.getsockname())
    assert peer.recv(10) == b"y"
    proto.transport.close()
    until(lambda: len(proto.calls) == 3)
    assert [call[0] for call in proto.take()] == ["made", "received", "lost"]


def test_endpoint_on_a_given_socket(loop, open_endpoint, until):
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with b:
        proto = Recorder()
        open_endpoint(proto, sock=a)
        b.send(b"x")
        until(lambda: len(proto.calls) == 2)
        assert [call[:2] for call in proto.take()] == [("made",), ("received", b"x")]


@pytest.mark.ctask_only
def test_send_to_a_peer_without_a_name(open_endpoint, until):
    # asyncio takes the empty name for none, and asks the socket to send to None
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with b:
        transport = open_endpoint(Recorder(), sock=a)
        assert transport.get_extra_info("peername") == ""
        expected = [b"%d" % i for i in range(1000)]
        for data in expected:  # more than the kernel takes
            transport.sendto(data)
        b.setblocking(False)
        got = []
        while len(got) < len(expected):
            try:
                got.append(b.recv(10))
            except BlockingIOError:
                until(lambda: True)
        assert got == expected


def test_descriptor_belongs_to_the_transport(loop, run, endpoint):
    fd = endpoint.transport.get_extra_info("socket").fileno()
    for method in (loop.add_reader, loop.add_writer):
        with pytest.raises(RuntimeError, match="is used by transport"):
            method(fd, print)
    for method in (loop.remove_reader, loop.remove_writer):
        with pytest.raises(RuntimeError, match="is used by transport"):
            method(fd)


def test_attributes_can_be_set(endpoint):
    endpoint.transport.mine = 5
    assert endpoint.transport.mine == 5


def test_a_hook_for_audits_sends_to_somebody_else(script):
    script(
        """
        import asyncio, socket, sys
        loop = impl.new_event_loop()
        one, other, mine = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(3))
        one.bind("one")
        other.bind("other")
        mine.setblocking(False)

        async def main():
            transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=mine)
            sent = []

            def hook(name, args):
                if name == "socket.sendto" and not sent:
                    sent.append(args)
                    transport.sendto(b"for the other", "other")

            sys.addaudithook(hook)
            transport.sendto(b"for the one", "one")
            one.settimeout(5)
            other.settimeout(5)
            assert one.recv(100) == b"for the one"
            assert other.recv(100) == b"for the other"
            transport.abort()
            await asyncio.sleep(0)

        loop.run_until_complete(main())
        loop.close()
        one.close()
        other.close()
        """
    )


def test_audit_events_of_sendto(script):
    result = script(
        """
        import socket
        events = []
        sys.addaudithook(lambda name, args: events.append(args[1:])
                         if name == "socket.sendto" else None)
        loop = impl.new_event_loop()
        transport, _ = loop.run_until_complete(loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)))
        transport.sendto(b"x", ("127.0.0.1", 9))
        assert events == [(("127.0.0.1", 9),)], events
        transport.close()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        print("ok")
        """
    )
    assert result.out == "ok\n"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_endpoint_is_whole_though_connection_made_ended_the_loop(loop, host, peer, until, kind):
    class Raises(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise kind

    proto = Raises()
    opening = loop.create_task(loop.create_datagram_endpoint(lambda: proto, local_addr=(host, 0)))
    with pytest.raises(kind):
        loop.run_forever()
    transport, _ = loop.run_until_complete(opening)
    peer.sendto(b"x", transport.get_extra_info("sockname"))
    until(lambda: len(proto.calls) == 2)
    assert proto.calls[1][:2] == ("received", b"x")
    transport.close()
    until(lambda: proto.calls[-1] == ("lost", None))
