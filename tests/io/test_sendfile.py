"""sendfile() and sock_sendfile(): what is sent, where the file stands after, who may interfere."""

import asyncio
import io
import os
import socket
import sys
import threading

import pytest
from helpers.streams import MUCH, Recorder, make_pair, receive

CONTENT = bytes(range(256)) * 16


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with open(path, "rb") as file:
        yield file


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(MUCH * 4)
    with open(path, "rb") as file:
        yield file


@pytest.fixture
def executor(loop, run):
    """For tests that fall back to reading the file in the executor."""
    yield
    run(loop.shutdown_default_executor())


def ended(task, until):
    until(task.done)
    return task.result()


@pytest.mark.parametrize(
    "options, start, end",
    [
        ({}, 0, 4096),
        ({"offset": 100}, 100, 4096),
        ({"count": 50}, 0, 50),
        ({"offset": 7, "count": 9}, 7, 16),
        ({"offset": 4000, "count": 500}, 4000, 4096),
        ({"offset": 0, "count": None}, 0, 4096),
    ],
)
def test_sends_what_is_asked_for(link, loop, run, turn, file, options, start, end):
    proto = Recorder()
    transport, peer = link(proto)
    assert run(loop.sendfile(transport, file, **options)) == end - start
    assert file.tell() == end
    transport.write(b"after")
    assert receive(peer, turn, end - start + 5) == CONTENT[start:end] + b"after"
    assert transport.is_reading() and not transport.is_closing()
    assert transport.get_protocol() is proto
    assert proto.events == [("connection_made",)]


@pytest.mark.ctask_only
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_does_not_wait_for_room_though_somebody_has_the_file_block(
    link, loop, run, turn, large, when
):
    transport, peer = link(Recorder())
    fd = transport.get_extra_info("socket").fileno()
    if when == "before":
        os.set_blocking(fd, True)
    task = loop.create_task(loop.sendfile(transport, large))
    rescue = threading.Timer(30, peer.shutdown, [socket.SHUT_RDWR])  # who waits is let go
    rescue.start()
    try:
        turn(5)
        if when == "meanwhile":
            os.set_blocking(fd, True)
            received = peer.recv(1 << 16)
            turn(5)
        else:
            received = b""
        assert not task.done()
    finally:
        rescue.cancel()
        rescue.join()
    received += receive(peer, turn, len(MUCH) * 4 - len(received))
    assert received == MUCH * 4
    assert run(task) == len(MUCH) * 4


def test_nothing_to_send(link, loop, run, file, tmp_path):
    transport, _ = link(Recorder())
    assert run(loop.sendfile(transport, file, 4096)) == 0
    assert run(loop.sendfile(transport, file, 5000)) == 0
    (tmp_path / "empty").touch()
    with open(tmp_path / "empty", "rb") as empty:
        assert run(loop.sendfile(transport, empty)) == 0


def test_much_to_a_slow_peer(link, loop, turn, until, large):
    proto = Recorder()
    transport, peer = link(proto)
    task = loop.create_task(loop.sendfile(transport, large))
    assert receive(peer, turn, 4 * len(MUCH)) == 4 * MUCH
    assert ended(task, until) == 4 * len(MUCH)
    assert large.tell() == 4 * len(MUCH)
    assert proto.events == [("connection_made",)]


def test_what_is_pending_goes_first(link, loop, turn, until, file):
    transport, peer = link(Recorder())
    transport.write(MUCH)
    assert transport.get_write_buffer_size()
    task = loop.create_task(loop.sendfile(transport, file))
    assert receive(peer, turn, len(MUCH) + 4096) == MUCH + CONTENT
    assert ended(task, until) == 4096


def test_one_after_the_other(link, loop, turn, until, large, file):
    transport, peer = link(Recorder())

    async def main():
        for _ in range(2):
            await loop.sendfile(transport, large)
            transport.write(b"-")
            await loop.sendfile(transport, file)

    task = loop.create_task(main())
    wanted = (4 * MUCH + b"-" + CONTENT) * 2
    assert receive(peer, turn, len(wanted)) == wanted
    ended(task, until)


def test_writing_meanwhile_is_refused(link, loop, turn, until, large):
    transport, peer = link(Recorder())
    task = loop.create_task(loop.sendfile(transport, large))
    turn(3)
    assert not task.done()
    with pytest.raises(RuntimeError, match="^unable to write; sendfile is in progress$"):
        transport.write(b"x")
    if sys.version_info >= (3, 12):  # 3.11 calls write()
        with pytest.raises(RuntimeError, match="^unable to writelines; sendfile is in progress$"):
            transport.writelines([b"x"])
    assert receive(peer, turn, 4 * len(MUCH)) == 4 * MUCH
    ended(task, until)
    transport.write(b"x")
    assert receive(peer, turn, 1) == b"x"


def test_reading_is_put_off_and_nothing_lost(link, loop, turn, until, settle, large):
    proto = Recorder()
    transport, peer = link(proto)
    task = loop.create_task(loop.sendfile(transport, large))
    turn(3)
    peer.send(b"meanwhile")
    settle()
    assert proto.data == b""
    assert receive(peer, turn, 4 * len(MUCH)) == 4 * MUCH
    ended(task, until)
    assert transport.is_reading()
    until(lambda: proto.data == b"meanwhile")


def test_paused_transport_stays_paused(link, loop, run, turn, settle, file):
    proto = Recorder()
    transport, peer = link(proto)
    transport.pause_reading()
    run(loop.sendfile(transport, file))
    assert not transport.is_reading()
    peer.send(b"x")
    settle()
    assert proto.data == b""
    transport.resume_reading()
    settle()
    assert proto.data == b"x"
    assert receive(peer, turn, 4096) == CONTENT


def test_cancelled(link, loop, run, turn, until, large):
    transport, peer = link(Recorder())
    task = loop.create_task(loop.sendfile(transport, large))
    turn(3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        run(task)
    assert transport.is_reading()
    transport.write(b"after")
    transport.close()
    data = receive(peer, turn)
    assert data.endswith(b"after") and MUCH.startswith(data[:-5][: len(MUCH)])


def test_peer_that_goes_meanwhile(link, loop, turn, until, large):
    proto = Recorder()
    transport, peer = link(proto)
    task = loop.create_task(loop.sendfile(transport, large))
    turn(3)
    receive(peer, turn, 1000)
    peer.close()
    until(task.done)
    assert isinstance(task.exception(), ConnectionError)
    transport.abort()
    until(lambda: proto.is_lost)


def test_closing_transport_is_refused(link, loop, run, file):
    transport, _ = link(Recorder())
    transport.close()
    with pytest.raises(RuntimeError, match="^Transport is closing$"):
        run(loop.sendfile(transport, file))


class Falling:
    """A file without a descriptor."""

    def __init__(self, data):
        self.file = io.BytesIO(data)
        self.readinto = self.file.readinto
        self.seek = self.file.seek
        self.tell = self.file.tell


@pytest.mark.parametrize("kind", [io.BytesIO, Falling])
def test_falls_back_for_what_is_no_real_file(link, loop, turn, until, executor, kind):
    proto = Recorder()
    transport, peer = link(proto)
    transport.set_write_buffer_limits(high=1000)
    file = kind(MUCH)
    task = loop.create_task(loop.sendfile(transport, file, 16, len(MUCH) - 32))
    assert receive(peer, turn, len(MUCH) - 32) == MUCH[16:-16]
    assert ended(task, until) == len(MUCH) - 32
    assert file.tell() == len(MUCH) - 16
    assert transport.get_protocol() is proto and transport.is_reading()
    assert proto.count("pause_writing") == proto.count("resume_writing") == 0


def test_falling_back_can_be_forbidden(link, loop, run):
    transport, _ = link(Recorder())
    with pytest.raises(asyncio.SendfileNotAvailableError, match="not a regular file"):
        run(loop.sendfile(transport, io.BytesIO(b"x"), fallback=False))
    assert issubclass(asyncio.SendfileNotAvailableError, RuntimeError)


def test_peer_that_goes_while_falling_back(link, loop, turn, until, executor):
    proto = Recorder()
    transport, peer = link(proto)
    task = loop.create_task(loop.sendfile(transport, io.BytesIO(16 * MUCH)))
    receive(peer, turn, 1000)
    peer.close()
    until(task.done)
    assert isinstance(task.exception(), ConnectionError)
    until(lambda: proto.is_lost)
    assert transport.get_extra_info("socket").fileno() == -1


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"count": 0}, ValueError, r"^count must be a positive integer \(got 0\)$"),
        ({"count": -1}, ValueError, r"^count must be a positive integer \(got -1\)$"),
        ({"count": 1.5}, TypeError, r"^count must be a positive integer \(got 1.5\)$"),
        ({"offset": -1}, ValueError, r"^offset must be a non-negative integer \(got -1\)$"),
        ({"offset": 1.5}, TypeError, r"^offset must be a non-negative integer \(got 1.5\)$"),
    ],
)
@pytest.mark.parametrize("how", ["sendfile", "sock_sendfile"])
def test_impossible_numbers_are_refused(loop, run, settle, file, how, options, error, message):
    ours, peer = make_pair("unix")
    target = ours
    if how == "sendfile":
        target, _ = run(loop.create_connection(Recorder, sock=ours))
    with pytest.raises(error, match=message):
        run(getattr(loop, how)(target, file, **options))
    target.close()
    settle()
    peer.close()


def test_text_file_is_refused(link, loop, run, file):
    transport, _ = link(Recorder())
    with open(file.name) as text, pytest.raises(ValueError, match="opened in binary mode"):
        run(loop.sendfile(transport, text))


def test_transport_of_another_kind_is_refused(loop, run, settle, file):
    read, write = os.pipe()
    transport, _ = run(loop.connect_read_pipe(asyncio.Protocol, os.fdopen(read, "rb")))
    transport.is_closing()
    with pytest.raises(RuntimeError, match="sendfile is not supported for transport"):
        run(loop.sendfile(transport, file))
    transport.close()
    settle()
    os.close(write)


# ---- sock_sendfile ----


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_sock_sendfile(loop, turn, until, large, kind):
    ours, peer = make_pair(kind)
    with ours, peer:
        task = loop.create_task(loop.sock_sendfile(ours, large, 100, 3 * len(MUCH)))
        data = receive(peer, turn, 3 * len(MUCH))
        assert data == (4 * MUCH)[100 : 3 * len(MUCH) + 100]
        assert ended(task, until) == 3 * len(MUCH)
        assert large.tell() == 3 * len(MUCH) + 100


def test_sock_sendfile_falls_back(loop, turn, until, executor):
    ours, peer = make_pair("tcp")
    with ours, peer:
        task = loop.create_task(loop.sock_sendfile(ours, io.BytesIO(MUCH), 10))
        assert receive(peer, turn, len(MUCH) - 10) == MUCH[10:]
        assert ended(task, until) == len(MUCH) - 10


def test_sock_sendfile_cancelled(loop, run, turn, large):
    ours, peer = make_pair("tcp")
    with ours, peer:
        task = loop.create_task(loop.sock_sendfile(ours, large))
        turn(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            run(task)
        assert loop.remove_writer(ours) is False


def test_sock_sendfile_refuses_datagrams(loop, run, file):
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        with pytest.raises(ValueError, match="only SOCK_STREAM type sockets are supported"):
            run(loop.sock_sendfile(sock, file))
