"""TLS: close() of a connection that has stopped reading."""

import socket
import ssl
import struct

import pytest
from helpers.streams import Recorder

SIZES = [0, 1, 1000, 100_000, 1_000_000]


@pytest.fixture
def unread(session, steps, turn, side):
    """unread(size) -> (protocol, Session) of a connection that has stopped reading after a word,
    and that the peer has sent so many bytes since."""

    def unread(size):
        app = Recorder()
        s = session(side, app, ssl_shutdown_timeout=600)  # more than a test may take
        s.peer.to_send = b"word"
        steps(s.peer, lambda: app.data)
        s.transport.pause_reading()
        s.peer.to_send = b"x" * size
        for _ in range(40):
            s.peer.step()
            turn()
        return app, s

    return unread


def answering(s):
    """The peer goes on reading and sending; it says goodbye when it has heard ours."""
    try:
        s.peer.step()
        if s.peer.notified and not s.peer.left:
            s.peer.unwrap()
            s.peer.sock.shutdown(socket.SHUT_WR)
            s.peer.stopped = True
    except (ssl.SSLError, OSError):
        s.peer.stopped = True


@pytest.mark.parametrize("size", SIZES)
def test_a_peer_that_answers(unread, until, size):
    app, s = unread(size)
    s.transport.close()
    until(lambda: (answering(s), app.is_lost)[1])
    assert app.data == b"word"
    if size == 0:
        assert app.lost is None


@pytest.mark.ctask_only  # asyncio: APPLICATION_DATA_AFTER_CLOSE_NOTIFY
@pytest.mark.parametrize("size", SIZES)
def test_what_was_not_read_is_dropped(unread, until, size):
    app, s = unread(size)
    s.transport.close()
    until(lambda: (answering(s), app.is_lost)[1])
    assert app.lost is None
    assert app.names() == ["connection_made", "data_received", "eof_received", "connection_lost"]


@pytest.mark.ctask_only  # asyncio: connection_lost() never comes
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("size", SIZES)
def test_a_peer_that_ends_the_connection_without_a_word(unread, until, settle, size, when):
    app, s = unread(size)
    if when == "after":
        s.transport.close()
    s.peer.sock.shutdown(socket.SHUT_WR)
    settle()
    s.transport.close()
    until(lambda: app.is_lost)
    assert app.lost is None and app.data == b"word"


@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_a_peer_that_resets_the_connection(unread, until, settle, size):
    app, s = unread(size)
    linger = struct.pack("ii", 1, 0)
    s.peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    s.peer.sock.close()
    settle()
    s.transport.close()
    until(lambda: app.is_lost)
    assert isinstance(app.lost, OSError) and app.data == b"word"
