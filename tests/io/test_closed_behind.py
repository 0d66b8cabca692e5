"""Transports whose socket or file was closed, detached or made blocking behind their back."""

import asyncio
import errno
import os
import socket

import pytest
from helpers.streams import MUCH, Recorder, make_pair, receive


def close(sock):
    sock.close()


def detach(sock):
    os.close(sock.detach())


def tail(sock):
    """What can be read without waiting."""
    try:
        return sock.recv(65536)
    except BlockingIOError:
        return b""


@pytest.fixture
def open_stream(loop, run):
    """open_stream() -> (transport, protocol, our socket, the peer's)."""
    made = []

    def open_stream(kind="unix"):
        ours, peer = make_pair(kind)
        proto = Recorder()
        transport, _ = run(loop.create_connection(lambda: proto, sock=ours))
        made.append((transport, peer))
        return transport, proto, ours, peer

    yield open_stream
    for transport, peer in made:
        transport.abort()
        peer.close()
    for _ in range(3):
        run(asyncio.sleep(0))


@pytest.fixture
def taken(open_stream, turn):
    """A stream whose socket was closed, and another that has its number since.

    taken(make) -> (transport, protocol, what make() returned); make() opens the new one.
    """

    def taken(make, how=close):
        transport, proto, ours, _ = open_stream()
        fd = ours.fileno()
        how(ours)
        new = make(fd)
        return transport, proto, new

    return taken


def at(fd, opened):
    """Have a socket of the number `fd`, which is free."""
    if opened.fileno() != fd:
        os.dup2(opened.fileno(), fd, inheritable=False)
        opened.close()
        opened = socket.socket(fileno=fd)
        opened.setblocking(False)
    return opened


# ---- the transport's own end ----


@pytest.mark.parametrize("how", [close, detach])
@pytest.mark.parametrize(
    "write",
    [
        lambda t: t.write(b"x"),
        lambda t: t.write(bytearray(b"x")),
        lambda t: t.writelines([b"x", b"y"]),
    ],
)
def test_the_next_write_loses_the_connection(open_stream, until, how, write):
    transport, proto, ours, _ = open_stream()
    how(ours)
    write(transport)
    until(lambda: proto.is_lost)
    assert proto.lost.errno == errno.EBADF
    assert proto.names() == ["connection_made", "connection_lost"]


class Dying(bytes):
    """What the transport lets go of once it was sent; then its `died` is called."""

    def __del__(self):
        self.died()


@pytest.mark.ctask_only  # asyncio stumbles over its own selector
def test_what_was_sent_closes_the_socket_and_the_rest_goes_to_nobody_else(open_stream, until):
    transport, proto, ours, peer = open_stream()
    fd = ours.fileno()
    other, others_peer = make_pair("unix")
    made = []

    def close_and_open():
        ours.close()
        made.append(at(fd, other))

    while not transport.get_write_buffer_size():
        transport.write(MUCH)
    dying = Dying(b"dying")
    dying.died = close_and_open
    transport.write(dying)
    del dying
    for _ in range(300):  # more than one call of the kernel takes
        transport.write(b"not yours")
    peer.setblocking(False)
    until(lambda: (tail(peer) and False) or proto.is_lost)
    assert tail(others_peer) == b""
    assert proto.lost.errno == errno.EBADF
    for sock in made[0], others_peer:
        sock.close()


@pytest.mark.parametrize("how", [close, detach])
@pytest.mark.parametrize("end", ["close", "abort"])
def test_close_and_abort_end_it_without_an_error(open_stream, until, how, end):
    transport, proto, ours, _ = open_stream()
    how(ours)
    getattr(transport, end)()
    until(lambda: proto.is_lost)
    assert proto.lost is None


@pytest.mark.ctask_only  # asyncio says the same, and takes the transport for open from then on
def test_the_loop_hears_that_the_socket_cannot_be_closed(open_stream, until, reports):
    transport, proto, ours, _ = open_stream()
    os.close(ours.fileno())
    transport.abort()
    until(lambda: proto.is_lost)
    assert ours.fileno() == -1
    (report,) = reports.take()
    assert "_call_connection_lost" in report["message"]
    assert report["exception"].errno == errno.EBADF


def test_write_eof_is_refused(open_stream):
    transport, _, ours, _ = open_stream()
    ours.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        transport.write_eof()


@pytest.mark.ctask_only  # asyncio's selector has forgotten it, and the end of it is a KeyError
def test_the_next_read_loses_it_while_a_duplicate_is_open(open_stream, until):
    _, proto, ours, peer = open_stream()
    with ours.dup():
        ours.close()
        peer.send(b"x")
        until(lambda: proto.is_lost)
        assert proto.lost.errno == errno.EBADF
        assert proto.data == b""


# ---- whoever has the number next ----


def others(loop, run, kind):
    """Ways to use a new socket: make(fd) -> (its peer, what has come, how to send, the end)."""

    def transport(fd):
        opened, peer = make_pair("unix")
        proto = Recorder()
        new, _ = run(loop.create_connection(lambda: proto, sock=at(fd, opened)))
        return peer, lambda: proto.data, new.write, new.abort

    def reader(fd):
        opened, peer = make_pair("unix")
        sock = at(fd, opened)
        data = []
        loop.add_reader(sock, lambda: data.append(sock.recv(100)))

        def end():
            loop.remove_reader(sock)
            sock.close()

        return peer, lambda: b"".join(data), sock.send, end

    def operation(fd):
        opened, peer = make_pair("unix")
        sock = at(fd, opened)
        task = loop.create_task(loop.sock_recv(sock, 100))
        run(asyncio.sleep(0))
        return peer, lambda: task.result() if task.done() else b"", sock.send, sock.close

    def datagrams(fd):
        opened, peer = socket.socketpair(type=socket.SOCK_DGRAM)
        peer.setblocking(False)
        data = []

        class Protocol(asyncio.DatagramProtocol):
            def datagram_received(self, one, _):
                data.append(one)

        new, _ = run(loop.create_datagram_endpoint(Protocol, sock=at(fd, opened)))
        return peer, lambda: b"".join(data), new.sendto, new.abort

    return locals()[kind]


@pytest.mark.ctask_only  # asyncio refuses the number while the old transport lives
@pytest.mark.parametrize("kind", ["transport", "reader", "operation", "datagrams"])
@pytest.mark.parametrize(
    "do",
    [
        lambda t: t.write(b"SECRET"),
        lambda t: t.writelines([b"SECRET", b"SECRET"]),
        lambda t: t.write(MUCH),
        lambda t: t.abort(),
        lambda t: t.close(),
        lambda t: (t.pause_reading(), t.close()),
        lambda t: (t.write(b"SECRET"), t.abort()),
        lambda t: pytest.raises(OSError, t.write_eof),
        lambda t: t.get_extra_info("sockname"),
        lambda t: t._force_close(None),
        lambda t: (t._read_ready(), t._write_ready()),
        lambda t: t._call_connection_lost(None),
        lambda t: None,
    ],
)
def test_the_next_of_that_number_is_left_alone(loop, run, taken, turn, until, settle, kind, do):
    transport, proto, (peer, received, send, end) = taken(others(loop, run, kind))
    do(transport)
    settle()
    assert tail(peer) == b""
    assert proto.data == b""
    peer.send(b"for the new one")
    until(received)
    assert received() == b"for the new one"
    send(b"from the new one")
    assert receive(peer, turn, 16) == b"from the new one"
    transport.abort()
    end()
    peer.close()
    settle()


@pytest.mark.ctask_only
def test_resume_reading_does_not_read_what_belongs_to_the_next(
    loop, run, open_stream, until, settle
):
    transport, proto, ours, _ = open_stream()
    transport.pause_reading()
    settle()
    fd = ours.fileno()
    ours.close()
    peer, received, _, end = others(loop, run, "transport")(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        transport.resume_reading()
    peer.send(b"x")
    until(received)
    assert proto.data == b""
    transport.abort()
    end()
    peer.close()
    settle()


@pytest.mark.ctask_only
def test_a_server_that_accepts_the_number_keeps_the_connection(
    loop, run, open_stream, until, turn, settle
):
    made = []

    def factory():
        made.append(Recorder())
        return made[-1]

    server = run(loop.create_server(factory, "127.0.0.1", 0))
    transport, proto, ours, _ = open_stream()
    client = socket.socket()
    fd = ours.fileno()
    ours.close()
    client.connect(server.sockets[0].getsockname())
    until(lambda: made and made[0].transport)
    assert made[0].transport._sock_fd == fd
    client.setblocking(False)
    transport.write(b"SECRET")
    until(lambda: proto.is_lost)
    assert proto.lost.errno == errno.EBADF
    client.send(b"hi")
    until(lambda: made[0].data == b"hi")
    made[0].transport.write(b"answer")
    assert receive(client, turn, 6) == b"answer"
    client.close()
    until(lambda: made[0].is_lost)
    server.close()
    settle()


# ---- pipes ----


@pytest.fixture
def open_pipe(loop, run):
    made = []

    def open_pipe(side):
        reading, writing = (
            open(fd, mode, 0) for fd, mode in zip(os.pipe(), ("rb", "wb"), strict=True)
        )
        made.append((reading, writing))
        proto = Recorder()
        connect, file = (
            (loop.connect_read_pipe, reading)
            if side == "read"
            else (loop.connect_write_pipe, writing)
        )
        transport, _ = run(connect(lambda: proto, file))
        made[-1] += (transport,)
        return transport, proto, reading, writing

    yield open_pipe
    for reading, writing, transport in made:
        transport.close()
        run(asyncio.sleep(0))
        run(asyncio.sleep(0))
        reading.close()
        writing.close()


@pytest.mark.ctask_only  # asyncio goes by the number
def test_a_write_pipe_does_not_write_to_the_next_of_its_number(open_pipe, until):
    transport, proto, reading, writing = open_pipe("write")
    fd = writing.fileno()
    writing.close()
    ours, peer = make_pair("unix")
    ours = at(fd, ours)
    transport.write(b"SECRET")
    until(lambda: proto.is_lost)
    assert tail(peer) == b""
    assert proto.lost is None or proto.lost.errno == errno.EBADF
    assert ours.send(b"x") == 1
    ours.close()
    peer.close()


def test_a_pipe_whose_file_object_let_go_of_the_descriptor_goes_on(loop, run, until):
    reading, writing = os.pipe()
    file = open(reading, "rb", 0, closefd=False)  # noqa: SIM115
    proto = Recorder()
    transport, _ = run(loop.connect_read_pipe(lambda: proto, file))
    file.close()
    os.write(writing, b"x")
    until(lambda: proto.data)
    assert proto.data == b"x"
    os.close(writing)
    until(lambda: proto.is_lost)
    os.close(reading)


# ---- somebody who shares the file makes it a blocking one ----


def make_blocking(fd):
    """As a child does that has a duplicate."""
    duplicate = os.dup(fd)
    os.set_blocking(duplicate, True)
    os.close(duplicate)


@pytest.mark.ctask_only  # asyncio's send() waits
@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_stream_that_was_made_blocking_does_not_wait(open_stream, turn, until, kind):
    transport, proto, ours, peer = open_stream(kind)
    make_blocking(ours.fileno())
    transport.write(MUCH)
    transport.writelines([MUCH, b"end"])
    transport._read_ready()
    assert receive(peer, turn, 2 * len(MUCH) + 3) == MUCH + MUCH + b"end"
    peer.send(b"x" * 1000)
    until(lambda: len(proto.data) == 1000)


@pytest.mark.ctask_only
def test_a_write_pipe_that_was_made_blocking_does_not_wait(open_pipe, turn):
    transport, _, reading, writing = open_pipe("write")
    make_blocking(writing.fileno())
    os.set_blocking(reading.fileno(), False)
    transport.write(MUCH)
    transport.write(b"end")
    got = b""
    while len(got) < len(MUCH) + 3:
        got += reading.read(65536) or b""
        turn()
    assert got == MUCH + b"end"


@pytest.mark.ctask_only
def test_a_read_pipe_that_was_made_blocking_does_not_wait(open_pipe, until):
    transport, proto, reading, writing = open_pipe("read")
    make_blocking(reading.fileno())
    transport._read_ready()
    writing.write(b"x")
    until(lambda: proto.data)
    transport._read_ready()
    assert proto.data == b"x"
