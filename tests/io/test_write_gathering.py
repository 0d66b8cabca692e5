"""Several write()s in one callback: each is the kernel's when it returns, whatever follows."""

import asyncio
import fcntl
import os
import socket
import struct
import subprocess
import tempfile

import pytest
from helpers.streams import BUFFER, MUCH, Recorder, receive


@pytest.fixture
def used_to_two(link, turn):
    """A connection whose protocol has answered a few times with two writes, and its peer.

    used_to_two(answer): from now on `answer(protocol)` is called for what is received.
    """

    def used_to_two(answer):
        proto = Recorder()
        proto.answer = lambda proto: (
            proto.transport.write(b"head "),
            proto.transport.write(b"body"),
        )
        proto.on("data_received", lambda proto, data: proto.answer(proto))
        transport, peer = link(proto)
        for _ in range(4):
            peer.send(b"x")
            assert receive(peer, turn, 9) == b"head body"
        proto.answer = answer
        proto.events.clear()
        peer.send(b"x")
        return proto, peer

    return used_to_two


def now(peer):
    """What the peer can read without waiting."""
    try:
        return peer.recv(BUFFER)
    except BlockingIOError:
        return b""


def write_twice(proto):
    proto.transport.write(b"a")
    proto.transport.write(b"b")


@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_all_of_a_callback_is_there_for_the_next_callback(loop, used_to_two, until, pieces):
    seen = []

    def answer(proto):
        for _ in range(pieces):
            proto.transport.write(b"x")
        loop.call_soon(lambda: seen.append(now(peer)))

    _, peer = used_to_two(answer)
    until(lambda: seen)
    assert seen == [b"x" * pieces]


@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_all_of_a_callback_is_there_for_callbacks_that_were_queued_before(
    loop, used_to_two, until, pieces
):
    seen = []

    def answer(proto):
        def write():
            for _ in range(pieces):
                proto.transport.write(b"x")

        loop.call_soon(write)
        loop.call_soon(lambda: seen.append(now(peer)))

    _, peer = used_to_two(answer)
    until(lambda: seen)
    assert seen == [b"x" * pieces]


def test_writes_of_a_callback_that_raises_arrive(used_to_two, until, reports):
    error = RuntimeError("after two writes")

    def answer(proto):
        write_twice(proto)
        raise error

    proto, peer = used_to_two(answer)
    until(lambda: proto.is_lost)
    assert proto.lost is error
    assert receive(peer, lambda: None) == b"ab"
    assert [report["exception"] for report in reports] == [error]
    reports.clear()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_writes_of_a_callback_that_ends_the_loop_have_left(used_to_two, until, error):
    def answer(proto):
        proto.answer = lambda proto: None
        proto.transport.write(b"a")
        raise error

    proto, peer = used_to_two(answer)
    with pytest.raises(error):
        until(lambda: False)
    assert now(peer) == b"a"


def test_writes_of_a_callback_that_stops_the_loop_have_left(loop, used_to_two):
    def answer(proto):
        proto.transport.write(b"a")
        loop.stop()

    _, peer = used_to_two(answer)
    loop.run_forever()
    assert now(peer) == b"a"


def test_writes_between_two_runs_of_the_loop_are_sent_at_once(used_to_two, until):
    proto, peer = used_to_two(lambda proto: None)
    until(lambda: proto.events)
    for _ in range(3):
        proto.transport.write(b"a")
        assert now(peer) == b"a"
        proto.transport.write(b"b")
        assert now(peer) == b"b"


@pytest.mark.parametrize(
    "step",
    [
        lambda t: t.abort(),
        lambda t: t.close(),
        lambda t: t.get_write_buffer_size(),
        lambda t: t.set_write_buffer_limits(0),
        lambda t: (t.abort(), t.get_write_buffer_size()),
        lambda t: (t.set_write_buffer_limits(0), t.write(b"lost")),
        lambda t: t.write(b"lost"),
        lambda t: t.write(MUCH),
        lambda t: t.write_eof(),
        lambda t: t.set_protocol(t.get_protocol()),
        lambda t: (t._make_empty_waiter(), t._reset_empty_waiter()),
        lambda t: t.pause_reading(),
        lambda t: t._force_close(None),
    ],
)
def test_write_write_close_and_another_call_lose_the_connection_in_a_later_turn(
    used_to_two, until, step
):
    def answer(proto):
        write_twice(proto)
        proto.transport.close()
        step(proto.transport)
        proto.note("end of data_received")

    proto, peer = used_to_two(answer)
    until(lambda: proto.is_lost)
    assert receive(peer, lambda: None) == b"ab"
    assert proto.names() == ["data_received", "end of data_received", "connection_lost"]
    assert proto.lost is None


def test_abort_after_two_writes_does_not_take_them_back(used_to_two, until):
    def answer(proto):
        write_twice(proto)
        proto.transport.abort()
        proto.note("end of data_received")

    proto, peer = used_to_two(answer)
    until(lambda: proto.is_lost)
    assert receive(peer, lambda: None) == b"ab"
    assert proto.names() == ["data_received", "end of data_received", "connection_lost"]


def test_write_eof_after_one_write_sends_both(used_to_two, until):
    def answer(proto):
        proto.transport.write(b"a")
        proto.transport.write_eof()
        proto.note("done")

    proto, peer = used_to_two(answer)
    until(lambda: ("done",) in proto.events)
    assert receive(peer, lambda: None) == b"a"


def test_nothing_is_counted_as_waiting_until_the_kernel_is_full(used_to_two, until):
    sizes = []

    def answer(proto):
        for _ in range(3):
            proto.transport.write(b"x" * 100)
            sizes.append(proto.transport.get_write_buffer_size())

    proto, _ = used_to_two(answer)
    until(lambda: len(sizes) == 3)
    assert sizes == [0, 0, 0]


def test_pause_writing_is_called_by_the_write_that_fills_the_buffer(used_to_two, until, turn):
    def answer(proto):
        proto.transport.set_write_buffer_limits(0)
        proto.transport.write(b"x")
        proto.note("small")
        proto.transport.write(MUCH)
        proto.note("large")

    proto, peer = used_to_two(answer)
    until(lambda: ("large",) in proto.events)
    assert proto.names() == ["data_received", "small", "pause_writing", "large"]
    assert receive(peer, turn, 1 + len(MUCH)) == b"x" + MUCH
    until(lambda: proto.count("resume_writing"))


def test_a_write_that_fails_loses_the_connection_with_its_error(used_to_two, until):
    def answer(proto):
        peer.close()
        for _ in range(4):  # the first makes a TCP peer refuse
            proto.transport.write(b"x")
        proto.note("end of data_received")

    proto, peer = used_to_two(answer)
    until(lambda: proto.is_lost)
    assert isinstance(proto.lost, ConnectionError)
    assert proto.names() == ["data_received", "end of data_received", "connection_lost"]


def test_a_child_writes_behind_what_was_written(used_to_two, until):
    def answer(proto):
        write_twice(proto)
        out = proto.transport.get_extra_info("socket").fileno()
        subprocess.run(["echo", "c"], stdout=out, check=True)
        proto.note("done")

    proto, peer = used_to_two(answer)
    until(lambda: ("done",) in proto.events)
    assert now(peer) == b"abc\n"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # has threads
@pytest.mark.parametrize("pieces", [1, 2])
def test_a_process_that_exits_in_the_callback_has_sent_its_writes(loop, link, until, pieces):
    proto = Recorder()
    transport, peer = link(proto)
    for _ in range(3):
        loop.call_soon(lambda: [transport.write(b"x") for _ in range(2)])
        until(lambda: now(peer) == b"xx")
    pid = []

    def fork():
        pid.append(os.fork())
        if not pid[0]:
            for _ in range(pieces):
                transport.write(b"c")
            os._exit(0)

    loop.call_soon(fork)
    until(lambda: pid)
    os.waitpid(pid[0], 0)
    assert receive(peer, lambda: None, pieces) == b"c" * pieces


@pytest.fixture
def used_to_three(loop, link, until):
    """(transport, its socket, peer) of a connection whose callbacks write three times each."""
    transport, peer = link(Recorder())
    for _ in range(3):
        loop.call_soon(lambda: [transport.write(b"x") for _ in range(3)])
        until(lambda: now(peer) == b"xxx")
    return transport, transport.get_extra_info("socket")._sock, peer


def test_a_write_arrives_though_its_socket_is_closed_with_unread_input(loop, turn, used_to_three):
    transport, sock, peer = used_to_three
    transport.pause_reading()
    peer.send(b"unread")
    loop.call_soon(lambda: (transport.write(b"a"), transport.write(b"b"), sock.close()))
    assert receive(peer, turn, 2) == b"ab"


def unsent(fd):
    """The bytes of a TCP connection that the kernel waits with."""
    return struct.unpack("i", fcntl.ioctl(fd, 0x894B, bytes(4)))[0]  # SIOCOUTQNSD


@pytest.mark.parametrize("link", ["tcp"], indirect=True)
def test_a_write_leaves_though_its_socket_is_detached(loop, turn, used_to_three):
    transport, sock, _ = used_to_three
    fds = []
    loop.call_soon(lambda: (transport.write(b"a"), fds.append(sock.detach())))
    turn()
    assert unsent(fds[0]) == 0
    os.close(fds[0])


@pytest.mark.parametrize("link", ["tcp"], indirect=True)
def test_a_write_leaves_when_the_socket_is_asked_for(loop, turn, used_to_three):
    transport, sock, _ = used_to_three
    seen = []

    def ask():
        transport.write(b"a")
        seen.append(unsent(transport.get_extra_info("socket").fileno()))
        transport.write(b"b")

    loop.call_soon(ask)
    turn()
    assert seen == [0] and unsent(sock.fileno()) == 0


@pytest.mark.parametrize("size", [11, 5_000_000])
def test_sendfile_after_a_write_of_a_connection_used_to_two(loop, link, start, until, size, turn):
    proto = Recorder()
    transport, peer = link(proto)
    with tempfile.TemporaryFile() as file:
        file.write(b"f" * size)
        file.flush()

        async def serve():
            for _ in range(3):
                transport.write(b"head ")
                transport.write(b"body")
                await asyncio.sleep(0)
            transport.write(b"head ")
            return await loop.sendfile(transport, file, 0, size)

        task = loop.create_task(serve())
        expected = b"head body" * 3 + b"head " + b"f" * size
        assert receive(peer, turn, len(expected)) == expected
        until(task.done)
        assert task.result() == size


def test_writelines_counts_as_one_write(loop, used_to_two, until):
    seen = []

    def answer(proto):
        proto.transport.writelines([b"a", b"b", b"c"])
        loop.call_soon(lambda: seen.append(now(peer)))

    _, peer = used_to_two(answer)
    until(lambda: seen)
    assert seen == [b"abc"]


def segments(sock):
    """How many TCP segments with data a socket has received (tcpi_data_segs_in of TCP_INFO)."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    return int.from_bytes(info[152:156], "little")


@pytest.mark.ctask_only
@pytest.mark.parametrize("link", ["tcp"], indirect=True)
def test_head_and_body_are_one_segment_once_it_is_a_habit(loop, link, until, turn):
    proto = Recorder()
    transport, peer = link(proto)

    def answered(*pieces):
        before = segments(peer)
        loop.call_soon(lambda: [transport.write(piece) for piece in pieces])
        size = sum(map(len, pieces))
        assert receive(peer, turn, size) == b"".join(pieces)
        return segments(peer) - before

    assert [answered(b"head", b"body") for _ in range(5)] == [2, 2, 1, 1, 1]
    assert answered(b"all") == 1
    assert answered(b"head", b"body") == 2  # the habit is over


def test_nothing_of_a_large_write_is_held_back(loop, used_to_two, until):
    seen = []

    def answer(proto):
        proto.transport.write(bytes(20_000))
        seen.append(len(now(peer)))
        proto.transport.write(b"end")

    _, peer = used_to_two(answer)
    until(lambda: seen)
    assert seen == [20_000]


@pytest.mark.ctask_only
@pytest.mark.parametrize("link", ["tcp"], indirect=True)
def test_a_program_that_corks_the_connection_keeps_it_corked(loop, link, until, turn):
    proto = Recorder()
    transport, peer = link(proto)
    sock = transport.get_extra_info("socket")
    for _ in range(3):
        loop.call_soon(lambda: [transport.write(b"x") for _ in range(2)])
        until(lambda: now(peer) == b"xx")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    loop.call_soon(transport.write, b"x")
    turn()
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK) == 1
    assert now(peer) == b""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    assert now(peer) == b"x"
