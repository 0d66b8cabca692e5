"""BufferedProtocol: data is received into a buffer of the protocol's own."""

import socket

import pytest
from helpers.streams import MUCH, BufferedRecorder, Recorder, receive, send_all


def test_callbacks_of_a_whole_connection(link, until):
    hints = []
    proto = BufferedRecorder()
    proto.on("get_buffer", lambda p, hint: hints.append(hint) or p.buffer)
    transport, peer = link(proto)
    peer.send(b"one")
    until(lambda: proto.data == b"one")
    peer.send(b"three")
    until(lambda: proto.data == b"onethree")
    peer.close()
    until(lambda: proto.is_lost)
    assert proto.events == [
        ("connection_made",),
        ("buffer_updated", 3),
        ("buffer_updated", 5),
        ("eof_received",),
        ("connection_lost", None),
    ]
    assert set(hints) == {-1} and len(hints) >= 2


@pytest.mark.parametrize("size", [1, 7, 65536])
def test_small_buffer_gets_the_data_in_pieces(link, until, size):
    proto = BufferedRecorder(size)
    _, peer = link(proto)
    data = bytes(range(250))
    peer.send(data)
    until(lambda: len(proto.data) >= len(data))
    assert proto.data == data
    assert {name for name, *_ in proto.events[1:]} == {"buffer_updated"}
    assert max(n for _, n in proto.events[1:]) == min(size, len(data))


def test_much_comes_in_order_and_complete(link, until):
    proto = BufferedRecorder(5000)
    _, peer = link(proto)
    send_all(peer, MUCH, proto, until)
    peer.close()
    until(lambda: proto.is_lost)
    assert proto.data == MUCH


def test_part_of_a_buffer_can_be_given(link, until):
    proto = BufferedRecorder()
    proto.on("get_buffer", lambda p, hint: memoryview(p.buffer)[10:20])
    proto.buffer_updated = lambda n: seen.append(bytes(proto.buffer[:25]))
    seen = []
    _, peer = link(proto)
    peer.send(b"0123456789abc")
    until(lambda: len(seen) == 2)
    assert seen[0] == bytes(10) + b"0123456789" + bytes(5)
    assert seen[1] == bytes(10) + b"abc3456789" + bytes(5)


def test_buffer_is_let_go_before_buffer_updated(link, until):
    def updated(proto, nbytes):
        del proto.buffer[:nbytes]  # BufferError while somebody holds it
        proto.buffer += bytes(nbytes + 1)

    proto = BufferedRecorder(10, buffer_updated=updated)
    _, peer = link(proto)
    for _ in range(3):
        done = len(proto.data)
        peer.send(b"x" * 10)
        until(lambda: len(proto.data) == done + 10)
    proto.buffer.clear()
    proto.buffer += bytes(10)


class Oops(Exception):
    pass


def fail_with(result):
    def get_buffer(proto, hint):
        if isinstance(result, type):
            raise result("oops")
        return result

    return get_buffer


@pytest.mark.parametrize(
    "result, message, error",
    [
        (Oops, "Fatal error: protocol.get_buffer() call failed.", Oops),
        (bytearray(), "Fatal error: protocol.get_buffer() call failed.", RuntimeError),
        (None, "Fatal error: protocol.get_buffer() call failed.", TypeError),
        (b"read-only", "Fatal read error on socket transport", TypeError),
        ([1, 2], "Fatal read error on socket transport", TypeError),
    ],
    ids=["raises", "empty", "none", "read-only", "no buffer"],
)
def test_bad_get_buffer_is_fatal(link, until, reports, result, message, error):
    proto = BufferedRecorder(get_buffer=fail_with(result))
    transport, peer = link(proto)
    peer.send(b"x")
    until(lambda: proto.is_lost)
    (context,) = reports.take()
    assert set(context) == {"message", "exception", "transport", "protocol"}
    assert context["message"] == message
    assert context["transport"] is transport and context["protocol"] is proto
    assert proto.lost is context["exception"] and type(proto.lost) is error
    assert proto.names() == ["connection_made", "connection_lost"]
    if error is RuntimeError:
        assert str(proto.lost) == "get_buffer() returned an empty buffer"


def test_exception_in_buffer_updated_is_fatal(link, until, reports):
    def fail(proto, nbytes):
        raise Oops("oops")

    proto = BufferedRecorder(buffer_updated=fail)
    transport, peer = link(proto)
    peer.send(b"x")
    until(lambda: proto.is_lost)
    (context,) = reports.take()
    assert context["message"] == "Fatal error: protocol.buffer_updated() call failed."
    assert set(context) == {"message", "exception", "transport", "protocol"}
    assert proto.lost is context["exception"] and type(proto.lost) is Oops


def test_exception_in_eof_received_is_fatal(link, until, reports):
    def fail(proto):
        raise Oops("oops")

    proto = BufferedRecorder(eof_received=fail)
    _, peer = link(proto)
    peer.close()
    until(lambda: proto.is_lost)
    (context,) = reports.take()
    assert context["message"] == "Fatal error: protocol.eof_received() call failed."
    assert proto.lost is context["exception"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["get_buffer", "buffer_updated"])
def test_exit_leaves_the_loop_and_the_connection(link, loop, until, error, where):
    def leave(proto, n):
        proto.hooks.clear()
        raise error

    proto = BufferedRecorder(**{where: leave})
    transport, peer = link(proto)
    peer.send(b"1")
    with pytest.raises(error):
        loop.run_forever()
    assert not transport.is_closing()
    peer.send(b"2")
    until(lambda: proto.data == b"12")


def test_eof_received_true_keeps_the_writing_half(link, until, settle, turn):
    proto = BufferedRecorder(eof_received=lambda p: True)
    transport, peer = link(proto)
    peer.shutdown(socket.SHUT_WR)
    until(lambda: proto.count("eof_received"))
    settle()
    assert not transport.is_closing()
    transport.write(b"x")
    assert receive(peer, turn, 1) == b"x"


def test_close_in_buffer_updated_ends_reading(link, settle, until):
    proto = BufferedRecorder(1, buffer_updated=lambda p, n: p.transport.close())
    _, peer = link(proto)
    peer.send(b"abc")
    until(lambda: proto.is_lost)
    settle()
    assert proto.data == b"a"
    assert proto.names() == ["connection_made", "buffer_updated", "connection_lost"]


def test_pause_in_buffer_updated_holds_back_the_rest(link, settle, until):
    proto = BufferedRecorder(1, buffer_updated=lambda p, n: p.transport.pause_reading())
    transport, peer = link(proto)
    peer.send(b"ab")
    until(lambda: proto.data)
    settle()
    assert proto.data == b"a"
    transport.resume_reading()
    until(lambda: proto.data == b"ab")
    peer.close()


@pytest.mark.parametrize(
    "first, second", [(Recorder, BufferedRecorder), (BufferedRecorder, Recorder)]
)
def test_set_protocol_changes_the_way_of_receiving(link, until, first, second):
    before, after, last = first(), second(), first()
    transport, peer = link(before)
    peer.send(b"1")
    until(lambda: before.data)
    transport.set_protocol(after)
    assert transport.get_protocol() is after
    peer.send(b"2")
    until(lambda: after.data)
    transport.set_protocol(last)
    peer.send(b"3")
    until(lambda: last.data)
    peer.close()
    until(lambda: last.is_lost)
    assert (before.data, after.data, last.data) == (b"1", b"2", b"3")
    assert before.count("connection_lost") == after.count("connection_lost") == 0


def test_set_protocol_to_a_buffered_one_in_data_received(link, until):
    second = BufferedRecorder(3)
    first = Recorder(data_received=lambda p, data: p.transport.set_protocol(second))
    _, peer = link(first)
    peer.send(b"start")
    until(lambda: first.data)
    peer.send(b"the rest")
    until(lambda: second.data == b"the rest")
    assert first.data == b"start"


def test_set_protocol_to_a_plain_one_in_buffer_updated(link, until):
    second = Recorder()
    first = BufferedRecorder(5, buffer_updated=lambda p, n: p.transport.set_protocol(second))
    _, peer = link(first)
    peer.send(b"startthe rest")
    until(lambda: second.data == b"the rest")
    assert first.data == b"start" and first.count("buffer_updated") == 1


def test_callbacks_are_looked_up_when_they_are_called(link, until):
    proto = BufferedRecorder()
    _, peer = link(proto)
    seen = []
    other = bytearray(5)
    proto.get_buffer = lambda hint: other
    proto.buffer_updated = seen.append
    peer.send(b"x")
    until(lambda: seen)
    assert seen == [1] and other == b"x\0\0\0\0"
