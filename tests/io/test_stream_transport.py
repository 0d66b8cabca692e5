"""Stream transports: the order of the protocol's callbacks, closing, errors, what they tell."""

import asyncio
import contextlib
import contextvars
import errno
import fcntl
import gc
import hashlib
import os
import random
import socket
import struct
import sys
import unittest.mock
import warnings
import weakref

import pytest
from helpers.streams import MUCH, BufferedRecorder, Recorder, make_pair, needs, receive, send_all


def reset(sock):
    """Close so that the other side gets ECONNRESET."""
    if sock.family == socket.AF_UNIX:
        assert sock.recv(1, socket.MSG_PEEK)  # to close with data unread is to reset
    else:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def collect():
    """The messages of the ResourceWarnings that a garbage collection gives."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gc.collect()
    assert {w.category for w in caught} <= {ResourceWarning}
    return [str(w.message) for w in caught]


# ---- order and arguments of the callbacks ----


def test_callbacks_of_a_whole_connection(link, until):
    proto = Recorder()
    transport, peer = link(proto)
    assert proto.events == [("connection_made",)]
    assert proto.transport is transport
    peer.send(b"one")
    until(lambda: proto.data == b"one")
    peer.send(b"two")
    until(lambda: proto.data == b"onetwo")
    assert proto.events[1:] == [("data_received", b"one"), ("data_received", b"two")]
    assert {type(data) for _, data in proto.events[1:]} == {bytes}
    peer.close()
    until(lambda: proto.is_lost)
    assert proto.events[3:] == [("eof_received",), ("connection_lost", None)]


def test_data_that_is_there_already_comes_after_connection_made(loop, run, until):
    ours, peer = make_pair("unix")
    peer.send(b"early")
    peer.close()
    proto = Recorder()
    run(loop.create_connection(lambda: proto, sock=ours))
    until(lambda: proto.is_lost)
    assert proto.events == [
        ("connection_made",),
        ("data_received", b"early"),
        ("eof_received",),
        ("connection_lost", None),
    ]


def test_data_received_while_data_keeps_coming_is_in_order_and_complete(link, until):
    proto = Recorder()
    _, peer = link(proto)
    send_all(peer, MUCH, proto, until)
    peer.close()
    until(lambda: proto.is_lost)
    assert proto.data == MUCH
    assert proto.names() == ["connection_made", "data_received", "eof_received", "connection_lost"]


def test_callbacks_are_looked_up_when_they_are_called(link, until):
    proto = Recorder()
    _, peer = link(proto)
    seen = []
    proto.data_received = seen.append
    peer.send(b"a")
    until(lambda: seen)
    assert seen == [b"a"]
    del proto.data_received
    peer.send(b"b")
    until(lambda: proto.data)
    assert proto.data == b"b"
    proto.connection_lost = lambda exc: seen.append(exc)
    peer.close()
    until(lambda: len(seen) == 2)
    assert seen == [b"a", None]


def test_protocol_that_derives_from_nothing(link, until):
    class Duck:
        def __init__(self):
            self.seen = []

        def __getattr__(self, name):
            if name not in ("connection_made", "data_received", "eof_received", "connection_lost"):
                raise AttributeError(name)
            return lambda *args: self.seen.append(name)

    proto = Duck()
    _, peer = link(proto)
    peer.send(b"x")
    until(lambda: "data_received" in proto.seen)
    peer.close()
    until(lambda: "connection_lost" in proto.seen)
    assert proto.seen == ["connection_made", "data_received", "eof_received", "connection_lost"]


def test_mock_protocol(link, until, settle):
    proto = unittest.mock.Mock(spec=asyncio.Protocol)
    transport, peer = link(proto)
    proto.connection_made.assert_called_once_with(transport)
    peer.send(b"x")
    until(lambda: proto.data_received.called)
    proto.data_received.assert_called_once_with(b"x")
    peer.shutdown(socket.SHUT_WR)
    until(lambda: proto.eof_received.called)
    settle()
    proto.eof_received.assert_called_once_with()
    assert not proto.connection_lost.called  # a Mock is true: the connection stays open
    transport.close()
    until(lambda: proto.connection_lost.called)
    proto.connection_lost.assert_called_once_with(None)


def test_set_protocol_takes_over_at_once(link, until):
    first, second = Recorder(), Recorder()
    transport, peer = link(first)
    assert transport.get_protocol() is first
    first.on("data_received", lambda p, data: transport.set_protocol(second))
    peer.send(b"1")
    until(lambda: first.data)
    assert transport.get_protocol() is second
    peer.send(b"2")
    until(lambda: second.data)
    peer.close()
    until(lambda: second.is_lost)
    assert first.events == [("connection_made",), ("data_received", b"1")]
    assert second.events == [("data_received", b"2"), ("eof_received",), ("connection_lost", None)]


def test_set_protocol_in_connection_made(link, until):
    second = Recorder()
    first = Recorder(connection_made=lambda p: p.transport.set_protocol(second))
    transport, peer = link(first)
    peer.send(b"x")
    until(lambda: second.data)
    transport.close()
    until(lambda: second.is_lost)
    assert first.events == [("connection_made",)]


def test_each_of_two_transports_gets_its_own(loop, link, until):
    a, b = Recorder(), Recorder()
    _, peer_a = link(a)
    _, peer_b = link(b)
    peer_a.send(b"a")
    peer_b.send(b"b")
    until(lambda: a.data and b.data)
    assert (a.data, b.data) == (b"a", b"b")


# ---- the end of the stream ----


@pytest.mark.parametrize("answer", [None, False, 0, ""])
def test_eof_received_false_closes(link, until, answer):
    proto = Recorder(eof_received=lambda p: answer)
    transport, peer = link(proto)
    peer.shutdown(socket.SHUT_WR)
    until(lambda: proto.events[-1] == ("eof_received",))
    assert transport.is_closing()
    until(lambda: proto.is_lost)
    assert proto.events[1:] == [("eof_received",), ("connection_lost", None)]


@pytest.mark.parametrize("answer", [True, 1, "keep"])
def test_eof_received_true_keeps_the_writing_half(link, until, settle, turn, answer):
    proto = Recorder(eof_received=lambda p: answer)
    transport, peer = link(proto)
    peer.shutdown(socket.SHUT_WR)
    until(lambda: proto.events[-1] == ("eof_received",))
    settle()
    assert not transport.is_closing()
    transport.write(MUCH)
    assert receive(peer, turn, len(MUCH)) == MUCH
    assert proto.names()[:2] == ["connection_made", "eof_received"]
    assert proto.count("eof_received") == 1 and not proto.is_lost
    transport.close()
    until(lambda: proto.is_lost)
    assert proto.lost is None
    assert receive(peer, turn) == b""


@pytest.mark.ctask_only(reason="asyncio does not give its hooks back after nested runs")
def test_what_was_written_is_sent_before_a_nested_run_of_the_loop_waits(loop, link, turn):
    """As nest_asyncio nests them: the callback that wrote has not ended yet."""
    transport, peer = link(Recorder())
    unsent = []

    def ask():
        if peer.family != socket.AF_UNIX:
            waiting = fcntl.ioctl(transport.get_extra_info("socket").fileno(), 0x894B, bytes(4))
            unsent.append(waiting)  # SIOCOUTQNSD

    def look():
        loop.stop()
        ask()

    try:
        ask()
    except OSError:  # as in qemu's user emulation
        pytest.skip("nobody tells what is not sent yet")
    unsent.clear()

    def write_and_run():
        transport.write(b"request")
        loop._thread_id = None
        set_running_loop(None)
        loop.call_later(0.001, look)
        loop.run_forever()
        loop.call_soon(loop.stop)

    def set_running_loop(loop):
        asyncio._set_running_loop(loop)
        if "ctask" in type(loop or transport).__module__:
            sys.modules["ctask._ctask"]._set_running_loop(loop)

    for _ in range(3):
        loop.call_soon(lambda: [transport.write(b"x") for _ in range(3)])
        turn()
    loop.call_soon(write_and_run)
    loop.run_forever()
    assert unsent in ([], [bytes(4)])


def test_connection_lost_comes_after_what_was_scheduled_before_it(loop, link, until, turn):
    """Also where the kernel told of reading and of writing in one iteration."""
    events = []

    class Aborting(Recorder):
        def data_received(self, data):
            super().data_received(data)
            loop.call_soon(events.append, "scheduled before")
            self.transport.abort()
            events.append("aborted")

        def connection_lost(self, exc):
            super().connection_lost(exc)
            events.append("lost")

    proto = Aborting()
    transport, peer = link(proto)
    transport.write(4 * MUCH)
    assert transport.get_write_buffer_size() > 0
    turn()
    with contextlib.suppress(BlockingIOError):
        while peer.recv(65536):
            pass
    peer.send(b"x")
    until(lambda: proto.is_lost)
    assert events == ["aborted", "scheduled before", "lost"]


def test_who_resumes_reading_after_the_end_hears_of_it_again(link, until, settle):
    proto = Recorder(eof_received=lambda proto: True)
    transport, peer = link(proto)
    peer.shutdown(socket.SHUT_WR)
    until(lambda: proto.count("eof_received"))
    settle()
    assert proto.count("eof_received") == 1
    transport.pause_reading()
    transport.resume_reading()
    until(lambda: proto.count("eof_received") == 2)
    settle()
    assert proto.count("eof_received") == 2


def test_eof_flushes_what_is_pending_before_the_connection_is_lost(link, until, turn):
    proto = Recorder()
    transport, peer = link(proto)
    transport.write(MUCH)
    peer.shutdown(socket.SHUT_WR)
    until(lambda: proto.count("eof_received"))
    assert receive(peer, turn) == MUCH
    until(lambda: proto.is_lost)
    assert proto.lost is None


def test_write_in_eof_received_is_sent(link, until, turn):
    proto = Recorder(eof_received=lambda p: p.transport.write(b"good bye"))
    _, peer = link(proto)
    peer.shutdown(socket.SHUT_WR)
    assert receive(peer, turn) == b"good bye"
    until(lambda: proto.is_lost)


def test_write_eof_ends_the_peers_stream_and_reading_goes_on(link, until, turn):
    proto = Recorder()
    transport, peer = link(proto)
    assert transport.can_write_eof() is True
    transport.write(b"last words")
    assert transport.write_eof() is None
    transport.write_eof()  # harmless
    assert receive(peer, turn) == b"last words"
    peer.send(b"answer")
    until(lambda: proto.data == b"answer")
    assert not transport.is_closing()
    peer.close()
    until(lambda: proto.is_lost)
    assert proto.lost is None


def test_write_eof_waits_for_what_is_pending(link, turn):
    proto = Recorder()
    transport, peer = link(proto)
    transport.write(MUCH)
    assert transport.get_write_buffer_size() > 0
    transport.write_eof()
    assert receive(peer, turn) == MUCH
    assert not proto.is_lost


def test_write_eof_then_close(link, until, turn):
    proto = Recorder()
    transport, peer = link(proto)
    transport.write(MUCH)
    transport.write_eof()
    transport.close()
    assert receive(peer, turn) == MUCH
    until(lambda: proto.is_lost)
    assert proto.lost is None


def test_write_after_write_eof_is_refused(link):
    transport, _ = link(Recorder())
    transport.write_eof()
    for data in (b"x", b""):
        with pytest.raises(RuntimeError, match=r"Cannot call write\(\) after write_eof\(\)"):
            transport.write(data)
    with pytest.raises(RuntimeError, match="after write_eof"):
        transport.writelines([b"x"])


def test_write_eof_of_a_closed_transport_is_harmless(link, until):
    proto = Recorder()
    transport, _ = link(proto)
    transport.close()
    transport.write_eof()
    until(lambda: proto.is_lost)
    transport.write_eof()
    assert proto.lost is None


# ---- close and abort ----


def test_close_loses_the_connection_in_a_later_iteration(link, turn, settle):
    proto = Recorder()
    transport, peer = link(proto)
    assert transport.is_closing() is False
    assert transport.close() is None
    assert transport.is_closing() is True
    assert not proto.is_lost
    turn()
    assert proto.lost is None
    transport.close()
    transport.abort()
    settle()
    assert proto.events == [("connection_made",), ("connection_lost", None)]
    assert receive(peer, turn) == b""


def test_close_twice_loses_the_connection_once(link, settle):
    proto = Recorder()
    transport, _ = link(proto)
    transport.close()
    transport.close()
    settle()
    assert proto.events == [("connection_made",), ("connection_lost", None)]


def test_close_flushes_what_is_pending(link, until, settle, turn):
    proto = Recorder()
    transport, peer = link(proto)
    transport.write(MUCH)
    transport.close()
    settle()
    assert transport.is_closing() and not proto.is_lost
    assert receive(peer, turn) == MUCH
    until(lambda: proto.is_lost)
    assert proto.lost is None


def test_no_data_is_received_after_close(link, until, settle):
    proto = Recorder()
    transport, peer = link(proto)
    peer.send(b"unread")
    transport.close()
    settle()
    assert proto.events == [("connection_made",), ("connection_lost", None)]


def test_no_data_is_received_after_close_in_data_received(link, until, settle):
    proto = Recorder(data_received=lambda p, data: p.transport.close())
    transport, peer = link(proto)
    peer.send(b"x")
    until(lambda: proto.data)
    try:
        peer.send(b"y")
    except BrokenPipeError:
        pass
    settle()
    assert proto.events == [
        ("connection_made",),
        ("data_received", b"x"),
        ("connection_lost", None),
    ]


def test_abort_drops_what_is_pending(link, until, settle, turn):
    proto = Recorder()
    transport, peer = link(proto)
    transport.write(MUCH)
    assert transport.get_write_buffer_size() > 0
    assert transport.abort() is None
    assert transport.is_closing()
    assert transport.get_write_buffer_size() == 0
    assert not proto.is_lost
    settle()
    assert proto.names()[-1] == "connection_lost" and proto.lost is None
    sent = receive(peer, turn)
    assert len(sent) < len(MUCH) and MUCH.startswith(sent)


def test_abort_after_close_with_data_pending(link, settle):
    proto = Recorder()
    transport, _ = link(proto)
    transport.write(MUCH)
    transport.close()
    settle()
    assert not proto.is_lost
    transport.abort()
    transport.abort()
    settle()
    assert proto.count("connection_lost") == 1 and proto.lost is None


def test_abort_after_what_was_pending_is_flushed_is_harmless(link, until, settle, turn):
    proto = Recorder()
    transport, peer = link(proto)
    needs(transport, (3, 14), "raises AttributeError")
    transport.write(MUCH)
    transport.close()
    assert receive(peer, turn) == MUCH
    until(lambda: proto.is_lost)
    transport.abort()
    settle()
    assert proto.count("connection_lost") == 1


@pytest.mark.parametrize("how", ["close", "abort"])
def test_closing_in_connection_made(link, settle, turn, how):
    proto = Recorder(connection_made=lambda p: getattr(p.transport, how)())
    transport, peer = link(proto)
    try:
        peer.send(b"never read")
    except BrokenPipeError:
        pass
    settle()
    assert transport.is_closing()
    assert proto.events == [("connection_made",), ("connection_lost", None)]


def test_write_and_close_in_connection_made(link, until, turn):
    def made(proto):
        proto.transport.write(MUCH)
        proto.transport.close()

    proto = Recorder(connection_made=made)
    _, peer = link(proto)
    assert receive(peer, turn) == MUCH
    until(lambda: proto.is_lost)
    assert proto.lost is None


def test_socket_is_open_in_connection_lost_and_closed_after(link, until):
    fds = []

    def lost(proto, exc):
        sock = proto.transport.get_extra_info("socket")
        fds.append(sock.fileno())
        os.fstat(sock.fileno())

    proto = Recorder(connection_lost=lost)
    transport, peer = link(proto)
    fd = transport.get_extra_info("socket").fileno()
    transport.close()
    until(lambda: proto.is_lost)
    assert fds == [fd]
    assert transport.get_extra_info("socket").fileno() == -1
    with pytest.raises(OSError):
        os.fstat(fd)


def test_what_a_server_raises_at_the_end_keeps_the_context_it_had(loop, turn, reports):
    class Fails(asyncio.Protocol):
        def connection_lost(self, exc):
            raise ValueError

    class Server:
        def _attach(self, transport=None):
            pass

        def _detach(self, transport=None):
            try:
                raise IndexError
            except IndexError:
                raise KeyError from None

    mine, theirs = make_pair("unix")
    transport = loop._make_socket_transport(mine, Fails(), server=Server())
    turn()
    transport.abort()
    turn(2)
    theirs.close()
    story = [reports.take()[0]["exception"]]
    while story[-1].__context__ is not None:
        story.append(story[-1].__context__)
    assert [type(exc) for exc in story] == [KeyError, IndexError, ValueError]


def test_lost_transport_answers(link, until, settle):
    proto = Recorder()
    transport, _ = link(proto)
    transport.close()
    until(lambda: proto.is_lost)
    assert transport.is_closing() is True
    assert transport.is_reading() is False
    assert transport.get_write_buffer_size() == 0
    assert transport.get_protocol() is None
    transport.pause_reading()
    transport.resume_reading()
    transport.close()
    transport.abort()
    transport.write_eof()
    settle()
    assert proto.count("connection_lost") == 1


def test_lost_transport_lets_go_of_the_protocol(link, turn, until):
    lost = []
    proto = Recorder(connection_lost=lambda p, exc: lost.append(exc))
    ref = weakref.ref(proto)
    transport, _ = link(proto)
    proto.transport = None
    del proto
    assert ref() is not None
    transport.close()
    until(lambda: lost)
    turn()
    assert ref() is None


def test_transport_is_collected_after_it_was_lost(loop, run, settle):
    ours, peer = make_pair("unix")
    transport, proto = run(loop.create_connection(Recorder, sock=ours))
    transport.write(MUCH)
    transport.close()
    transport.abort()
    settle()
    peer.close()
    refs = weakref.ref(proto), weakref.ref(transport)
    del transport, proto
    gc.collect()
    assert [ref() for ref in refs] == [None, None]


def test_unclosed_transport_warns_and_closes_its_socket(loop, run):
    ours, peer = make_pair("unix")
    fd = ours.fileno()
    run(loop.create_connection(Recorder, sock=ours))
    del ours
    assert collect() == []  # the loop keeps what is open
    loop.close()
    (message,) = [m for m in collect() if m.startswith("unclosed transport <")]
    assert f" fd={fd}" in message
    with pytest.raises(OSError):
        os.fstat(fd)
    assert peer.recv(1) == b""
    peer.close()


def test_unclosed_transport_with_data_pending_warns(loop, run, until):
    ours, peer = make_pair("unix")
    transport, proto = run(loop.create_connection(Recorder, sock=ours))
    transport.write(MUCH)
    del ours, transport, proto
    loop.close()
    assert any(m.startswith("unclosed transport <") for m in collect())
    peer.close()


def test_closed_loop_leaves_a_transport_that_can_be_asked(loop, run):
    ours, peer = make_pair("unix")
    transport, proto = run(loop.create_connection(Recorder, sock=ours))
    loop.close()
    repr(transport)
    assert transport.is_closing() is False
    assert transport.get_extra_info("socket") is not None
    transport.pause_reading()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        transport.close()
    assert proto.events == [("connection_made",)]
    del ours, proto, transport
    assert any(m.startswith("unclosed transport <") for m in collect())
    peer.close()


def test_closed_loop_cannot_resume_reading(loop, run):
    ours, peer = make_pair("unix")
    transport, _ = run(loop.create_connection(Recorder, sock=ours))
    transport.pause_reading()
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        transport.resume_reading()
    del ours, transport, _
    assert any(m.startswith("unclosed transport <") for m in collect())
    peer.close()


# ---- writing after the end ----


def test_write_after_close_is_dropped_and_warned_of_from_the_fifth_on(link, settle, logs, turn):
    proto = Recorder()
    transport, peer = link(proto)
    transport.close()
    for _ in range(4):
        assert transport.write(b"dropped") is None
    assert logs == []
    transport.write(b"dropped")
    transport.write(b"dropped")
    assert [record.getMessage() for record in logs] == ["socket.send() raised exception."] * 2
    assert {record.levelname for record in logs.take()} == {"WARNING"}
    settle()
    assert proto.lost is None
    transport.write(b"dropped")
    assert len(logs.take()) == 1
    assert receive(peer, turn) == b""


def test_write_of_nothing_after_close_does_not_count(link, settle, logs):
    transport, _ = link(Recorder())
    transport.close()
    for _ in range(10):
        transport.write(b"")
    settle()
    assert logs == []


def test_write_while_closing_with_data_pending_is_sent(link, until, turn):
    proto = Recorder()
    transport, peer = link(proto)
    transport.write(MUCH)
    transport.close()
    transport.write(b"more")
    assert receive(peer, turn) == MUCH + b"more"
    until(lambda: proto.is_lost)


def test_write_after_abort_is_dropped(link, settle, turn):
    proto = Recorder()
    transport, peer = link(proto)
    transport.abort()
    transport.write(b"dropped")
    settle()
    assert receive(peer, turn) == b""
    assert proto.lost is None


# ---- broken connections ----


@pytest.mark.parametrize("debug", [False, True])
def test_a_reset_while_data_waits_is_told_in_the_iteration_after_it_is_seen(
    link, loop, turn, debug
):
    loop.set_debug(debug)
    calls = []
    proto = Recorder(connection_lost=lambda *_: calls.append("lost"))
    transport, peer = link(proto)
    transport.write(MUCH)
    turn(3)
    assert transport.get_write_buffer_size() > 0
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    loop.call_soon(loop.call_soon, calls.append, "called before")
    turn(8)
    assert calls == ["called before", "lost"]


def test_reset_by_the_peer_is_the_argument_of_connection_lost(link, until, reports):
    proto = Recorder()
    transport, peer = link(proto)
    transport.write(b"unread")
    reset(peer)
    until(lambda: proto.is_lost)
    assert isinstance(proto.lost, ConnectionResetError)
    assert proto.lost.errno == errno.ECONNRESET
    assert proto.names() == ["connection_made", "connection_lost"]
    assert transport.is_closing()


def test_write_to_a_peer_that_is_gone_raises_nothing(link, until, settle, reports):
    proto = Recorder(eof_received=lambda p: True)
    transport, peer = link(proto)
    peer.close()
    until(lambda: proto.count("eof_received"))
    while not transport.is_closing():
        assert transport.write(b"x") is None
        settle()
    until(lambda: proto.is_lost)
    assert isinstance(proto.lost, (BrokenPipeError, ConnectionResetError))
    assert proto.names() == ["connection_made", "eof_received", "connection_lost"]


def test_broken_pipe_in_write_is_told_in_a_later_iteration(loop, run, turn, reports):
    ours, peer = make_pair("unix")
    proto = Recorder()
    transport, _ = run(loop.create_connection(lambda: proto, sock=ours))
    peer.close()
    transport.write(b"x")
    assert transport.is_closing()
    assert not proto.is_lost
    turn(2)
    assert type(proto.lost) is BrokenPipeError and proto.lost.errno == errno.EPIPE
    assert proto.names() == ["connection_made", "connection_lost"]


def test_peer_that_goes_while_data_is_pending(link, until, reports):
    proto = Recorder()
    transport, peer = link(proto)
    transport.pause_reading()
    transport.write(MUCH)
    peer.close()
    until(lambda: proto.is_lost)
    assert isinstance(proto.lost, (BrokenPipeError, ConnectionResetError))
    assert transport.get_write_buffer_size() == 0


def test_peer_that_goes_while_closing_with_data_pending(link, until, reports):
    proto = Recorder()
    transport, peer = link(proto)
    transport.write(MUCH)
    transport.close()
    peer.close()
    until(lambda: proto.is_lost)
    assert isinstance(proto.lost, (BrokenPipeError, ConnectionResetError))
    assert proto.count("connection_lost") == 1


# ---- exceptions of the protocol ----


class Oops(Exception):
    pass


def oops(*args):
    raise Oops("oops")


def test_exception_in_connection_made_is_reported_and_the_connection_lives(
    loop, run, until, reports
):
    ours, peer = make_pair("unix")
    proto = Recorder(connection_made=oops)
    transport, _ = run(loop.create_connection(lambda: proto, sock=ours))
    (context,) = reports.take()
    assert set(context) == {"message", "exception", "handle"}
    assert context["message"].startswith("Exception in callback ")
    assert type(context["exception"]) is Oops
    peer.send(b"x")
    until(lambda: proto.data)
    transport.close()
    until(lambda: proto.is_lost)
    peer.close()


@pytest.mark.parametrize("error", [Oops, asyncio.CancelledError, GeneratorExit])
def test_exception_in_data_received_is_fatal(link, until, reports, error):
    def fail(proto, data):
        raise error("oops")

    proto = Recorder(data_received=fail)
    transport, peer = link(proto)
    transport.write(MUCH)
    peer.send(b"x")
    until(lambda: reports)
    assert transport.is_closing() and transport.get_write_buffer_size() == 0
    until(lambda: proto.is_lost)
    (context,) = reports.take()
    assert set(context) == {"message", "exception", "transport", "protocol"}
    assert context["message"] == "Fatal error: protocol.data_received() call failed."
    assert type(context["exception"]) is error
    assert context["transport"] is transport
    assert context["protocol"] is proto
    assert proto.lost is context["exception"]
    assert proto.names() == ["connection_made", *proto.names()[1:-1], "connection_lost"]


def test_exception_handler_is_called_while_the_protocols_exception_is_handled(link, until, loop):
    handled = []
    loop.set_exception_handler(
        lambda loop, context: handled.append((sys.exc_info()[1], context["exception"]))
    )

    def fail(proto, data):
        raise Oops("oops")

    proto = Recorder(data_received=fail)
    _, peer = link(proto)
    peer.send(b"x")
    until(lambda: proto.is_lost)
    ((exc, told),) = handled
    assert exc is told and type(exc) is Oops


def test_oserror_in_data_received_is_fatal_and_not_reported(link, until, reports):
    def fail(proto, data):
        raise OSError(5, "oops")

    proto = Recorder(data_received=fail)
    _, peer = link(proto)
    peer.send(b"x")
    until(lambda: proto.is_lost)
    assert type(proto.lost) is OSError and proto.lost.errno == 5


def test_exception_in_eof_received_is_fatal(link, until, reports):
    proto = Recorder(eof_received=oops)
    transport, peer = link(proto)
    peer.shutdown(socket.SHUT_WR)
    until(lambda: proto.is_lost)
    (context,) = reports.take()
    assert set(context) == {"message", "exception", "transport", "protocol"}
    assert context["message"] == "Fatal error: protocol.eof_received() call failed."
    assert context["transport"] is transport and context["protocol"] is proto
    assert proto.lost is context["exception"] and type(proto.lost) is Oops


def test_exception_in_connection_lost_is_reported_and_the_socket_closed(link, until, reports):
    proto = Recorder(connection_lost=oops)
    transport, peer = link(proto)
    transport.close()
    until(lambda: reports)
    (context,) = reports.take()
    assert set(context) == {"message", "exception", "handle"}
    assert context["message"].startswith("Exception in callback ")
    assert type(context["exception"]) is Oops
    assert transport.get_extra_info("socket").fileno() == -1
    assert transport.get_protocol() is None


def test_protocol_without_data_received_is_a_fatal_error(link, until, reports):
    class Half:
        lost = None

        def connection_made(self, transport):
            pass

        def connection_lost(self, exc):
            self.lost = exc

    proto = Half()
    _, peer = link(proto)
    peer.send(b"x")
    until(lambda: proto.lost)
    (context,) = reports.take()
    assert context["message"] == "Fatal error: protocol.data_received() call failed."
    assert type(proto.lost) is AttributeError


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_exit_in_data_received_leaves_the_loop_and_the_connection(link, loop, until, error):
    def leave(proto, data):
        proto.hooks.clear()
        raise error

    proto = Recorder(data_received=leave)
    transport, peer = link(proto)
    peer.send(b"1")
    with pytest.raises(error):
        loop.run_forever()
    assert proto.data == b"1" and not transport.is_closing()
    peer.send(b"2")
    until(lambda: proto.data == b"12")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_exit_in_connection_lost_leaves_the_loop_while_somebody_waits_for_an_empty_buffer(
    link, loop, error
):
    class Leaves(Recorder):
        def connection_lost(self, exc):
            super().connection_lost(exc)
            raise error

    proto = Leaves()
    transport, _ = link(proto)
    waiter = transport._make_empty_waiter()
    transport.abort()
    with pytest.raises(error):
        loop.run_forever()
    assert proto.is_lost and waiter.done()


def test_default_handler_logs_transport_and_protocol(link, until, logs):
    class Named(Recorder):
        def __repr__(self):
            return "<the protocol>"

    proto = Named(data_received=oops)
    _, peer = link(proto)
    peer.send(b"x")
    until(lambda: proto.is_lost)
    (record,) = logs.take()
    lines = record.getMessage().splitlines()
    assert lines[0] == "Fatal error: protocol.data_received() call failed."
    assert "protocol: <the protocol>" in lines
    assert any(line.startswith("transport: <") and "fd=" in line for line in lines)
    assert record.exc_info[0] is Oops


# ---- pausing ----


def test_paused_transport_reads_nothing_and_loses_nothing(link, settle, until):
    proto = Recorder()
    transport, peer = link(proto)
    assert transport.is_reading() is True
    assert transport.pause_reading() is None
    assert transport.is_reading() is False
    peer.send(b"one")
    settle()
    assert proto.data == b""
    assert transport.resume_reading() is None
    assert transport.is_reading() is True
    until(lambda: proto.data == b"one")
    peer.send(b"two")
    until(lambda: proto.data == b"onetwo")


def test_paused_before_it_begins_is_not_watched(loop, settle, until):
    ours, peer = make_pair("unix")
    ours.setblocking(False)
    peer.send(b"one")
    proto = Recorder()
    transport = loop._make_socket_transport(ours, proto)
    transport.pause_reading()
    settle()
    assert proto.events == [("connection_made",)]
    with pytest.raises(KeyError):
        loop._selector.get_key(ours.fileno())
    transport.resume_reading()
    until(lambda: proto.data == b"one")
    transport.close()
    until(lambda: proto.is_lost)
    peer.close()


def test_pause_and_resume_are_idempotent(link, settle, until):
    proto = Recorder()
    transport, peer = link(proto)
    transport.resume_reading()
    transport.pause_reading()
    transport.pause_reading()
    peer.send(b"x")
    settle()
    assert proto.data == b""
    transport.resume_reading()
    transport.resume_reading()
    until(lambda: proto.data)
    assert proto.data == b"x"


def test_pause_in_connection_made(link, settle, until):
    proto = Recorder(connection_made=lambda p: p.transport.pause_reading())
    transport, peer = link(proto)
    assert not transport.is_reading()
    peer.send(b"x")
    settle()
    assert proto.data == b""
    transport.resume_reading()
    until(lambda: proto.data == b"x")


def test_pause_and_resume_in_connection_made(link, until):
    def made(proto):
        proto.transport.pause_reading()
        proto.transport.resume_reading()

    proto = Recorder(connection_made=made)
    transport, peer = link(proto)
    assert transport.is_reading()
    peer.send(b"x")
    until(lambda: proto.data == b"x")


def test_pause_in_data_received_holds_back_the_rest(link, settle, until):
    proto = Recorder(data_received=lambda p, data: p.transport.pause_reading())
    transport, peer = link(proto)
    peer.send(b"1")
    until(lambda: proto.data)
    peer.send(b"2")
    peer.shutdown(socket.SHUT_WR)
    settle()
    assert proto.events == [("connection_made",), ("data_received", b"1")]
    transport.resume_reading()
    until(lambda: proto.data == b"12")
    settle()
    assert proto.names() == ["connection_made", "data_received"]
    proto.hooks.clear()
    transport.resume_reading()
    until(lambda: proto.is_lost)
    assert proto.names() == ["connection_made", "data_received", "eof_received", "connection_lost"]


def test_end_of_stream_waits_while_paused(link, settle, until):
    proto = Recorder()
    transport, peer = link(proto)
    transport.pause_reading()
    peer.close()
    settle()
    assert proto.events == [("connection_made",)] and not transport.is_closing()
    transport.resume_reading()
    until(lambda: proto.is_lost)
    assert proto.events[1:] == [("eof_received",), ("connection_lost", None)]


def test_paused_transport_can_be_written_to_and_closed(link, until, turn):
    proto = Recorder()
    transport, peer = link(proto)
    transport.pause_reading()
    transport.write(MUCH)
    transport.close()
    transport.resume_reading()  # no more
    assert transport.is_reading() is False
    assert receive(peer, turn) == MUCH
    until(lambda: proto.is_lost)
    assert proto.lost is None


def test_closing_transport_does_not_read(link):
    transport, _ = link(Recorder())
    transport.write(MUCH)
    transport.close()
    assert transport.is_reading() is False
    transport.resume_reading()
    assert transport.is_reading() is False


# ---- what one callback does to another transport of the same iteration ----


@pytest.mark.parametrize("how", ["close", "abort", "pause_reading"])
def test_callback_that_stops_another_transport_whose_data_is_there(link, settle, how):
    protos = []

    def stop_the_other(proto, data):
        other = protos[1 - protos.index(proto)]
        getattr(other.transport, how)()

    peers = []
    for _ in range(2):
        protos.append(Recorder(data_received=stop_the_other))
        peers.append(link(protos[-1])[1])
    for peer in peers:
        peer.send(b"x")
    settle()
    assert sorted(proto.data for proto in protos) == [b"", b"x"]


def test_descriptor_of_a_closed_transport_is_used_again(loop, run, link, settle, until):
    first = Recorder()
    transport, peer = link(first)
    fd = transport.get_extra_info("socket").fileno()
    peer.send(b"for the first")
    transport.abort()
    until(lambda: first.is_lost)
    second = Recorder()
    held = []
    while not held or held[-1].fileno() != fd:  # the lowest free number comes soon
        held.append(socket.socket(socket.AF_UNIX))
    for sock in held:
        sock.close()
    ours, other_peer = make_pair("unix")
    if ours.fileno() != fd:
        other_peer, ours = ours, other_peer
    assert ours.fileno() == fd
    transport, _ = run(loop.create_connection(lambda: second, sock=ours))
    settle()
    other_peer.send(b"for the second")
    until(lambda: second.data)
    assert second.data == b"for the second" and first.data == b""
    transport.close()
    until(lambda: second.is_lost)
    other_peer.close()


# ---- what a transport tells ----


def test_extra_info(link, until):
    proto = Recorder()
    transport, peer = link(proto)
    sock = transport.get_extra_info("socket")
    names = {name: transport.get_extra_info(name) for name in ("sockname", "peername")}
    assert type(sock) is asyncio.trsock.TransportSocket
    assert names == {"sockname": sock.getsockname(), "peername": sock.getpeername()}
    assert names["peername"] == peer.getsockname()
    assert transport.get_extra_info("socket") is sock
    for name in ("sslcontext", "ssl_object", "peercert", "cipher", "compression", "pipe", "nope"):
        assert transport.get_extra_info(name) is None
        assert transport.get_extra_info(name, "default") == "default"
    assert transport.get_extra_info(name="nope", default=1) == 1
    transport.close()
    until(lambda: proto.is_lost)
    assert transport.get_extra_info("socket") is sock
    assert {name: transport.get_extra_info(name) for name in names} == names


def test_extra_socket_is_for_looking_and_for_options(link):
    transport, _ = link(Recorder())
    sock = transport.get_extra_info("socket")
    assert sock.fileno() >= 0
    assert sock.type == socket.SOCK_STREAM
    assert sock.family == (socket.AF_UNIX if link.kind == "unix" else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert sock.gettimeout() == 0
    with pytest.raises(ValueError, match="transport sockets cannot be blocking"):
        sock.setblocking(True)
    for name in ("recv", "send", "accept", "close"):
        assert not hasattr(sock, name)


def test_tcp_transport_sends_small_writes_at_once(loop, run, settle):
    ours, peer = make_pair("tcp")
    assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
    transport, _ = run(loop.create_connection(Recorder, sock=ours))
    sock = transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    transport.abort()
    settle()
    peer.close()


def test_types(link):
    transport, _ = link(Recorder())
    for base in ("BaseTransport", "ReadTransport", "WriteTransport", "Transport"):
        assert isinstance(transport, getattr(asyncio, base))
    assert not isinstance(transport, asyncio.DatagramTransport)
    assert not isinstance(transport, asyncio.SubprocessTransport)


def test_transport_takes_weak_references_and_attributes(link):
    transport, _ = link(Recorder())
    assert weakref.ref(transport)() is transport
    transport.mine = 1
    assert transport.mine == 1
    assert hash(transport) == hash(transport) and transport == transport


def test_repr(link, until):
    proto = Recorder()
    transport, peer = link(proto)
    fd = transport.get_extra_info("socket").fileno()
    name = type(transport).__name__
    assert repr(transport) == f"<{name} fd={fd} read=polling write=<idle, bufsize=0>>"
    transport.pause_reading()
    assert repr(transport) == f"<{name} fd={fd} read=idle write=<idle, bufsize=0>>"
    transport.write(MUCH)
    size = transport.get_write_buffer_size()
    assert repr(transport) == f"<{name} fd={fd} read=idle write=<polling, bufsize={size}>>"
    transport.close()
    assert repr(transport) == f"<{name} closing fd={fd} read=idle write=<polling, bufsize={size}>>"
    transport.abort()
    assert repr(transport) == f"<{name} closing fd={fd} read=idle write=<idle, bufsize=0>>"
    until(lambda: proto.is_lost)
    assert repr(transport) == f"<{name} closed fd={fd}>"


def test_repr_after_the_loop_was_closed(loop, run):
    ours, peer = make_pair("unix")
    transport = run(loop.create_connection(Recorder, sock=ours))[0]
    fd = ours.fileno()
    loop.close()
    assert repr(transport) == f"<{type(transport).__name__} fd={fd}>"
    del ours, transport
    assert collect()
    peer.close()


# ---- the descriptor belongs to the transport ----


def test_descriptor_cannot_be_watched_beside_the_transport(loop, link, until):
    proto = Recorder()
    transport, peer = link(proto)
    fd = transport.get_extra_info("socket").fileno()
    refused = pytest.raises(RuntimeError, match=f"File descriptor {fd} is used by transport <")
    with refused:
        loop.add_reader(fd, print)
    with refused:
        loop.add_writer(fd, print)
    with refused:
        loop.remove_reader(fd)
    with refused:
        loop.remove_writer(fd)
    peer.send(b"x")
    until(lambda: proto.data)


def test_descriptor_of_a_closing_transport_may_be_watched(loop, link, until):
    proto = Recorder()
    transport, peer = link(proto)
    fd = transport.get_extra_info("socket").fileno()
    transport.close()
    assert loop.remove_reader(fd) is False
    until(lambda: proto.is_lost)


def test_sock_methods_refuse_a_transports_socket(loop, run):
    ours, peer = make_pair("unix")
    proto = Recorder()
    transport, _ = run(loop.create_connection(lambda: proto, sock=ours))
    with pytest.raises(RuntimeError, match="is used by transport"):
        run(loop.sock_recv(ours, 10))
    transport.close()
    run(asyncio.sleep(0))
    peer.close()


# ---- context variables ----

VAR: contextvars.ContextVar = contextvars.ContextVar("VAR", default="default")


def test_callbacks_see_the_context_the_connection_was_made_in(loop, run, until):
    class Looker(Recorder):
        def note(self, name, *args):
            seen[name] = VAR.get()
            return super().note(name, *args)

    seen = {}
    ours, peer = make_pair("unix")

    async def connect():
        VAR.set("inside")
        return await loop.create_connection(Looker, sock=ours)

    _, proto = run(connect())
    assert VAR.get() == "default"
    peer.send(b"x")
    until(lambda: proto.data)
    peer.close()
    until(lambda: proto.is_lost)
    assert seen == dict.fromkeys(
        ["connection_made", "data_received", "eof_received", "connection_lost"], "inside"
    )


def test_value_set_in_data_received_is_there_at_the_next_and_nowhere_else(link, until):
    seen = []

    def look(proto, data):
        seen.append(VAR.get())
        VAR.set("changed")

    proto = Recorder(data_received=look)
    _, peer = link(proto)
    other = Recorder(data_received=lambda p, data: seen.append(VAR.get()))
    _, other_peer = link(other)
    for n in (1, 2):
        peer.send(b"x")
        until(lambda: len(seen) == n)
    assert seen == ["default", "changed"]
    other_peer.send(b"x")
    until(lambda: len(seen) == 3)
    assert seen[2] == "default" and VAR.get() == "default"


# ---- at length ----


@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
@pytest.mark.parametrize("debug", [False, True])
def test_much_in_pieces_of_any_size_through_two_transports(loop, run, kind, debug):
    loop.set_debug(debug)
    ours, peer = make_pair("tcp")
    rng = random.Random(1)
    pieces = [rng.randbytes(rng.choice((1, 7, 100, 5000, 70_000, 300_000))) for _ in range(200)]

    async def main():
        ended = loop.create_future()
        writable = asyncio.Event()
        writable.set()
        sender = Recorder(
            pause_writing=lambda p: writable.clear(), resume_writing=lambda p: writable.set()
        )
        receiver = kind(connection_lost=lambda p, exc: ended.set_result(exc))
        receiver.note = lambda name, *args: (
            Recorder.note(receiver, name)
            if not args
            else (ended.set_result(args[0]) if name == "connection_lost" else None)
        )
        write, _ = await loop.create_connection(lambda: sender, sock=ours)
        await loop.create_connection(lambda: receiver, sock=peer)
        digest = hashlib.sha256()
        for piece in pieces:
            await writable.wait()
            digest.update(piece)
            if rng.random() < 0.5:
                write.write(piece)
            else:
                cut = rng.randrange(len(piece) + 1)
                write.writelines([p for p in (piece[:cut], piece[cut:]) if p])
        write.close()
        assert await ended is None
        assert hashlib.sha256(receiver.data).digest() == digest.digest()
        return write

    write = run(main())
    run(asyncio.sleep(0))
    assert write.get_extra_info("socket").fileno() == -1


@pytest.mark.ctask_only  # where memory runs out is not the same in asyncio
@pytest.mark.parametrize("kind", ["stream", "datagram", "pipe"])
def test_who_waits_for_a_connection_is_told_without_memory(script, kind):
    pytest.importorskip("_testcapi")
    out = script(
        f"kind = {kind!r}",
        """
    import _testcapi
    import socket

    class Starves(asyncio.Protocol):
        def connection_made(self, transport):
            asyncio.get_running_loop().call_soon(_testcapi.remove_mem_hooks)
            _testcapi.set_nomemory(n, n + 1)

        connection_lost = datagram_received = error_received = lambda self, *args: None

    async def connect(one):
        loop = asyncio.get_running_loop()
        if kind == "stream":
            transport, _ = await loop.create_connection(Starves, sock=one)
        elif kind == "pipe":
            transport, _ = await loop.connect_write_pipe(Starves, one)
        else:
            transport, _ = await loop.create_datagram_endpoint(Starves, sock=one)
        transport.close()

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        one, other = socket.socketpair(
            type=socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM
        )
        one.setblocking(False)
        with one, other:
            task = asyncio.ensure_future(connect(one))
            await asyncio.wait([task], timeout=5)
            assert task.done(), n
            task.exception()
            await asyncio.sleep(0)

    warnings.simplefilter("ignore")
    for n in range(6):
        runner = impl.Runner()
        runner.run(main())
        runner.close()
    print("done")
    """,
    )
    assert out.out == "done\n"
