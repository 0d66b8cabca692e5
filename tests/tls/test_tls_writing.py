"""TLS: what write() was given is sent, whatever the callback that wrote does next."""

import asyncio
import contextlib
import socket

import pytest
from helpers.streams import Recorder
from helpers.tls_peer import Viewed, client_context, server_context


def one_two(transport):
    transport.write(b"one ")
    transport.write(b"two ")


def abort(transport):
    transport.abort()


def close(transport):
    transport.close()
    transport.write(b"three")


def force(transport):
    transport._force_close(OSError("forced"))


def fail(transport):
    raise RuntimeError("the callback fails")


ENDS = [abort, close, force, fail]


@pytest.fixture
def heard(until):
    """heard(peer) -> what has come, once the connection has ended."""

    def heard(peer):
        def over():
            with contextlib.suppress(OSError):
                peer.step()
                if peer.notified:
                    peer.unwrap()
            return peer.eof or peer.notified

        until(over)
        return peer.data

    return heard


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("where", ["data_received", "buffer_updated"])
def test_writes_of_the_callback_that_ends_the_connection(session, side, heard, reports, where, end):
    def hook(app, *args):
        one_two(app.transport)
        end(app.transport)

    kind = Recorder if where == "data_received" else Viewed
    app = kind(**{where: hook})
    s = session(side, app)
    for _ in range(3):
        s.peer.step()
    s.peer.tls.write(b"go")
    s.peer.send()
    assert heard(s.peer) == b"one two "
    assert len(reports.take()) == (end is fail)


@pytest.mark.parametrize("end", ENDS)
def test_writes_of_connection_made_that_ends_the_connection(begin, until, way, heard, reports, end):
    def hook(app):
        one_two(app.transport)
        end(app.transport)

    app = Recorder(connection_made=hook)
    task, peer = begin("server", app, server_context(way), client_context())
    until(lambda: (peer.step(), peer.shaken)[1])
    assert heard(peer) == b"one two "
    until(lambda: task.done() and app.is_lost)
    task.exception()
    assert len(reports.take()) == (end is fail)


@pytest.mark.parametrize("end", [abort, close, force])
@pytest.mark.parametrize("how", ["call_soon", "call_later", "between"])
def test_writes_outside_of_the_protocol(session, side, loop, heard, how, end):
    app = Recorder()
    s = session(side, app)

    def write():
        one_two(s.transport)
        end(s.transport)

    if how == "between":
        write()
    elif how == "call_soon":
        loop.call_soon(write)
    else:
        loop.call_later(0, write)
    assert heard(s.peer) == b"one two "


def test_writes_are_at_the_kernel_when_write_returns(session, side, turn):
    app = Recorder()
    s = session(side, app)
    for i in range(10):
        s.transport.write(b"%d" % i)
    s.transport.writelines([b"a", b"b"])
    assert s.transport.get_write_buffer_size() == 0
    s.peer.step()
    assert s.peer.data == b"0123456789ab"


@pytest.mark.parametrize("where", ["data_received", "call_soon"])
def test_what_pause_writing_writes_is_sent_in_its_place(session, side, steps, loop, turn, where):
    app = Recorder(pause_writing=lambda app: app.transport.write(b"paused "))
    app.on("resume_writing", lambda app: app.transport.write(b"resumed "))

    def write(app, *args):
        for _ in range(100):
            app.transport.write(b"x" * 20_000)

    if where == "data_received":
        app.on("data_received", write)
    s = session(side, app)
    s.transport.set_write_buffer_limits(high=70_000, low=0)
    if where == "data_received":
        s.peer.tls.write(b"go")
        s.peer.send()
        while not app.data:
            turn()
    else:
        loop.call_soon(write, app)
    steps(s.peer, lambda: s.peer.data.count(b"x") == 2_000_000 and b"resumed" in s.peer.data)
    assert app.count("pause_writing") == s.peer.data.count(b"paused ")
    assert app.count("resume_writing") == s.peer.data.count(b"resumed ")
    assert app.count("pause_writing") >= 1


def test_a_buffer_may_be_resized_by_who_is_called_in_between(session, side, steps):
    data = bytearray(b"x" * 1_000_000)
    app = Recorder(pause_writing=lambda app: data.clear())
    s = session(side, app)
    s.transport.set_write_buffer_limits(high=1)
    times = 0
    while data:
        s.transport.write(data)
        times += 1
    s.transport.write(b"y")
    steps(s.peer, lambda: s.peer.data.endswith(b"y"))
    assert s.peer.data == b"x" * 1_000_000 * times + b"y"


def test_what_a_child_writes_to_the_socket_comes_behind(session, side, steps, turn):
    """Whoever has the descriptor: nothing waits in this process."""
    app = Recorder()

    def hook(app, data):
        one_two(app.transport)
        sock = app.transport.get_extra_info("socket")
        with socket.socket(fileno=socket.dup(sock.fileno())) as other:
            other.send(b"plain")

    app.on("data_received", hook)
    s = session(side, app)
    s.peer.step()
    s.peer.tls.write(b"go")
    s.peer.send()
    while not app.data:
        turn()
    s.peer.sock.setblocking(True)
    raw = b""
    while not raw.endswith(b"plain"):
        raw += s.peer.sock.recv(65536)
    s.peer.sock.setblocking(False)
    s.peer.incoming.write(raw[: -len(b"plain")])
    assert s.peer.tls.read(4) + s.peer.tls.read(4) == b"one two "


# ---- sendfile() ----


def test_sendfile_without_falling_back_is_refused(session, side, loop, run, steps, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    s = session(side, Recorder())
    # Documented as SendfileNotAvailableError; asyncio raises the class which that derives from.
    documented = type(loop).__module__.startswith("ctask")
    error = asyncio.SendfileNotAvailableError if documented else RuntimeError
    with path.open("rb") as file, pytest.raises(error) as caught:
        run(loop.sendfile(s.transport, file, fallback=False))
    assert str(caught.value).startswith(
        "fallback is disabled and native sendfile is not supported for transport "
    )
    s.transport.write(b"after")
    steps(s.peer, lambda: s.peer.data == b"after")
    s.transport.close()
    with path.open("rb") as file, pytest.raises(RuntimeError, match="Transport is closing"):
        run(loop.sendfile(s.transport, file, fallback=False))
