"""TLS: the end of a connection, and callbacks that leave the loop."""

import socket
import ssl
import sys

import pytest
from helpers.streams import Recorder
from helpers.tls_peer import Viewed, contexts_for

INTERRUPTS = [KeyboardInterrupt, SystemExit]


class Small(Viewed):
    def __init__(self, **hooks):
        super().__init__(20_000, **hooks)


@pytest.fixture
def sending(session, side, turn):
    """sending(app, data, ending) -> a Session of an app that does not read, and whose peer has sent
    the data and then ended: with "goodbye" or without ("fin")."""

    def sending(app, data, ending=None):
        s = session(side, app, ssl_shutdown_timeout=60)
        s.transport.pause_reading()
        s.transport.set_read_buffer_limits(high=2_000_000)
        for start in range(0, len(data), 16_000):
            s.peer.tls.write(data[start : start + 16_000])
        if ending == "goodbye":
            with pytest.raises(ssl.SSLWantReadError):
                s.peer.tls.unwrap()
        s.peer.send()
        while s.peer.left:
            turn()
            s.peer.send()
        if ending:
            s.peer.sock.shutdown(socket.SHUT_WR)
        s.peer.stopped = True
        turn(200 if ending else 20)
        return s

    return sending


def text(size):
    return b"".join(b"%07d " % i for i in range(size // 8))


# ---- what came before the end ----


@pytest.mark.parametrize("ending", ["goodbye", "fin"])
@pytest.mark.parametrize("size", [8, 24_000, 800_000])
@pytest.mark.parametrize("kind", [Recorder, Small])
def test_a_reader_that_pauses_again_gets_all_that_came_before_the_end(
    sending, until, loop, kind, size, ending
):
    """asyncio gives a reader with a buffer of its own what fits in there, and then the end."""

    def again(app, *args):
        app.transport.pause_reading()
        loop.call_soon(app.transport.resume_reading)

    app = kind(data_received=again, buffer_updated=again)
    if kind is Small and size > 20_000 and not type(loop).__module__.startswith("ctask"):
        pytest.skip("asyncio loses it")
    s = sending(app, text(size), ending)
    s.transport.resume_reading()
    until(lambda: app.is_lost)
    assert app.data == text(size)
    assert app.names()[-2:] == ["eof_received", "connection_lost"] and app.lost is None


@pytest.mark.ctask_only  # asyncio: what was not read yet is lost
@pytest.mark.parametrize("ending", ["goodbye", "fin"])
@pytest.mark.parametrize("kind", [Recorder, Small])
def test_resumed_and_paused_at_once_after_the_end(sending, until, settle, kind, ending):
    app = kind()
    s = sending(app, text(100_000), ending)
    s.transport.resume_reading()
    s.transport.pause_reading()
    settle()
    assert app.data == b"" and not app.is_lost
    s.transport.resume_reading()
    until(lambda: app.is_lost)
    assert app.data == text(100_000) and app.lost is None


@pytest.mark.ctask_only  # asyncio: one call for all, whatever its size
def test_a_reader_is_called_once_a_turn(sending, until, turn):
    app = Recorder()
    s = sending(app, text(1_000_000))
    s.transport.resume_reading()
    calls = [0]
    while len(app.data) < 1_000_000:
        turn()
        calls.append(app.count("data_received"))
    assert all(b - a <= 1 for a, b in zip(calls, calls[1:], strict=False))
    assert app.data == text(1_000_000)


@pytest.mark.parametrize("kind", [Recorder, Small])
def test_close_while_there_is_more_to_read(sending, until, kind):
    close = lambda app, *args: app.transport.close()  # noqa: E731
    app = kind(data_received=close, buffer_updated=close)
    s = sending(app, text(800_000), "goodbye")
    s.transport.resume_reading()
    until(lambda: app.is_lost)
    assert text(800_000).startswith(app.data) and app.data


@pytest.mark.ctask_only  # asyncio: connection_lost() never comes
@pytest.mark.parametrize("ending", ["goodbye", "fin"])
@pytest.mark.parametrize("kind", [Recorder, Small])
def test_close_with_all_of_it_unread(sending, until, kind, ending):
    app = kind()
    s = sending(app, text(1000), ending)
    s.transport.close()
    until(lambda: app.is_lost)
    assert app.data == b"" and app.lost is None
    assert app.names() == ["connection_made", "eof_received", "connection_lost"]


# ---- KeyboardInterrupt and SystemExit ----


@pytest.fixture
def interrupted(turn):
    """interrupted(condition) runs the loop until it holds, -> how often the loop was left."""

    def interrupted(condition):
        times = 0
        while not condition():
            try:
                turn()
            except tuple(INTERRUPTS):
                times += 1
        return times

    return interrupted


def once(interrupt):
    left = [interrupt]

    def hook(app, *args):
        if left:
            raise left.pop()

    return hook


@pytest.mark.ctask_only  # asyncio: what had not been read stays where it is
@pytest.mark.parametrize("interrupt", INTERRUPTS)
@pytest.mark.parametrize("ending", [None, "goodbye", "fin"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [(Recorder, "data_received"), (Small, "buffer_updated"), (Recorder, "eof_received")],
)
def test_what_follows_an_interrupt_comes(sending, interrupted, interrupt, kind, name, ending):
    app = kind(**{name: once(interrupt)})
    s = sending(app, text(800_000), ending)
    s.transport.resume_reading()
    times = interrupted(lambda: app.is_lost if ending else len(app.data) == 800_000)
    assert times == (name != "eof_received" or ending is not None)
    assert app.data == text(800_000)
    if ending:
        assert app.lost is None and app.count("eof_received") == 1


@pytest.mark.ctask_only  # asyncio: the transport below stays paused
def test_an_interrupt_does_not_stop_the_transport_below(session, side, interrupted, turn):
    app = Recorder(data_received=once(KeyboardInterrupt))
    s = session(side, app)
    s.transport.pause_reading()
    s.peer.to_send = text(2_000_000)
    for _ in range(200):
        s.peer.step()
        turn()
    assert s.peer.left
    s.transport.resume_reading()
    assert interrupted(lambda: (s.peer.step(), len(app.data) == 2_000_000)[1]) == 1
    assert app.data == text(2_000_000)


@pytest.mark.ctask_only  # asyncio: it waits for ever
@pytest.mark.parametrize("interrupt", INTERRUPTS)
def test_an_interrupt_in_connection_made_keeps_nobody_waiting(
    begin, side, way, interrupted, interrupt
):
    app = Recorder(connection_made=once(interrupt))
    task, peer = begin(side, app, *contexts_for(side, way))
    peer.to_send = b"hello"
    done = lambda: task.done() and app.data == b"hello" and peer.shaken  # noqa: E731
    assert interrupted(lambda: (peer.step(), done())[1]) == 1
    transport, protocol = task.result()
    assert protocol is app
    transport.abort()


# ---- after close() ----


def alerted(peer):
    """The peer sends an alert, as it does when it gets what makes no sense."""
    peer.receive()
    peer.incoming.read()
    peer.incoming.write(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(ssl.SSLError):
        peer.tls.read()
    peer.send()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_an_alert_after_close_is_an_end(session, side, until, way, version):
    ours, theirs = contexts_for(side, way)
    ours.maximum_version = version
    app = Recorder()
    s = session(side, app, ours, theirs)
    s.transport.close()
    alerted(s.peer)
    until(lambda: app.is_lost)
    assert app.lost is None
    assert app.names() == ["connection_made", "eof_received", "connection_lost"]


@pytest.mark.parametrize("gone", ["module", "attribute"])
def test_an_alert_after_close_is_an_end_whatever_is_imported(
    session, side, until, monkeypatch, gone
):
    app = Recorder()
    s = session(side, app)
    s.transport.close()
    alerted(s.peer)
    s.peer.stopped = True
    if gone == "module":
        monkeypatch.setitem(sys.modules, "ssl", None)
    else:
        monkeypatch.delattr(ssl, "SSLZeroReturnError")
    until(lambda: app.is_lost)
    assert app.lost is None


@pytest.mark.parametrize(
    ("garbage", "reasons"),
    [
        (
            b"\x17\x03\x03\xff\xff" + bytes(70_000),
            ["PACKET_LENGTH_TOO_LONG", "ENCRYPTED_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"],
        ),
        (b"GET / HTTP/1.1\r\n\r\n", ["WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"]),
    ],
)
def test_what_makes_no_sense_after_close_is_reported(session, side, until, garbage, reasons):
    app = Recorder()
    s = session(side, app)
    s.transport.close()
    s.peer.stopped = True
    s.peer.sock.send(garbage)
    until(lambda: app.is_lost)
    assert isinstance(app.lost, ssl.SSLError)
    assert app.lost.reason in reasons


def test_after_the_end_nothing_counts_as_waiting(session, side, until):
    app = Recorder()
    s = session(side, app)
    while not s.transport.get_write_buffer_size():
        s.transport.write(b"x" * 1_000_000)
    s.transport.abort()
    until(lambda: app.is_lost)
    assert s.transport.get_write_buffer_size() == 0


# ---- flow control ----


@pytest.mark.ctask_only  # asyncio: pause_writing() at once, though nothing waits
@pytest.mark.parametrize("limit", [0, 1])
def test_with_lowest_limits_writing_is_paused_while_something_waits(session, side, steps, limit):
    app = Recorder()
    s = session(side, app)
    s.transport.set_write_buffer_limits(high=limit)
    s.transport.write(b"a word")
    assert app.names() == ["connection_made"]
    while not s.transport.get_write_buffer_size():
        s.transport.write(b"x" * 100_000)
    assert app.names() == ["connection_made", "pause_writing"]
    steps(s.peer, lambda: not s.transport.get_write_buffer_size())
    assert app.names() == ["connection_made", "pause_writing", "resume_writing"]


@pytest.mark.ctask_only  # asyncio: the peer waits for it until the reader reads
def test_a_client_that_does_not_read_ends_its_handshake(begin, until, way):
    app = Recorder(connection_made=lambda app: app.transport.pause_reading())
    task, peer = begin("client", app, *contexts_for("client", way))
    peer.to_send = b"hello"
    until(lambda: (peer.step(), task.done() and peer.shaken)[1])
    assert app.data == b""
    app.transport.resume_reading()
    until(lambda: (peer.step(), app.data == b"hello")[1])
    app.transport.abort()


@pytest.mark.parametrize("callback", ["data_received", "eof_received", "pause_writing"])
def test_the_exception_handler_is_called_while_the_exception_is_handled(
    session, steps, loop, callback
):
    handled = []
    loop.set_exception_handler(
        lambda loop, context: handled.append((sys.exc_info()[1], context["exception"]))
    )

    def fail(*args):
        raise LookupError(callback)

    proto = Recorder(**{callback: fail})
    link = session("client", proto)
    if callback == "data_received":
        link.peer.to_send = b"x"
    elif callback == "eof_received":
        link.peer.unwrap()
    else:
        link.transport.set_write_buffer_limits(high=1)
        while not handled:
            link.transport.write(b"x" * 100_000)
    steps(link.peer, lambda: handled)
    exc, told = handled[0]
    assert exc is told and told.args == (callback,)
