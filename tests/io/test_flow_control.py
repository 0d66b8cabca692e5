"""Writing to stream transports: what is accepted, what is buffered, when the protocol is paused."""

import array
import asyncio
import sys

import pytest
from helpers.streams import MUCH, Recorder, make_pair, needs, receive

# ---- what can be written ----


@pytest.mark.parametrize(
    "data",
    [
        b"data",
        bytearray(b"data"),
        memoryview(b"data"),
        memoryview(b"xdatax")[1:5],
        memoryview(array.array("i", [1, 2, 3])),
        type("Bytes", (bytes,), {})(b"data"),
        type("ByteArray", (bytearray,), {})(b"data"),
    ],
    ids=["bytes", "bytearray", "memoryview", "slice", "ints", "subclass", "bytearray subclass"],
)
def test_write_takes_bytes_bytearray_and_memoryview(link, turn, data):
    transport, peer = link(Recorder())
    assert transport.write(data) is None
    assert transport.get_write_buffer_size() == 0  # sent at once
    wanted = bytes(data)
    assert receive(peer, turn, len(wanted)) == wanted


@pytest.mark.parametrize("data", ["text", 1, None, [b"x"], array.array("b", b"x")])
def test_write_refuses_anything_else(link, turn, data):
    transport, peer = link(Recorder())
    with pytest.raises(TypeError) as caught:
        transport.write(data)
    what = "a bytes-like object"
    if sys.version_info >= (3, 14):
        what = "a bytes, bytearray, or memoryview object"
    assert str(caught.value) == f"data argument must be {what}, not {type(data).__name__!r}"
    transport.write(b"x")
    assert receive(peer, turn, 1) == b"x"


def test_write_refuses_a_wrong_type_after_the_end_as_well(link, settle):
    transport, _ = link(Recorder())
    transport.close()
    for _ in range(2):
        with pytest.raises(TypeError):
            transport.write("text")
        settle()


def test_write_takes_one_argument(link, turn):
    transport, peer = link(Recorder())
    transport.write(data=b"x")
    assert receive(peer, turn, 1) == b"x"
    for args in ((), (b"x", b"y")):
        with pytest.raises(TypeError):
            transport.write(*args)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_writing_nothing_does_nothing(link, settle, kind):
    proto = Recorder()
    transport, peer = link(proto)
    transport.write(kind(b""))
    settle()
    assert transport.get_write_buffer_size() == 0
    assert not proto.count("pause_writing") and not transport.is_closing()
    with pytest.raises(BlockingIOError):
        peer.recv(1)


def test_write_buffers_what_the_socket_does_not_take(link, turn):
    transport, peer = link(Recorder())
    transport.write(MUCH)
    size = transport.get_write_buffer_size()
    assert 0 < size < len(MUCH)
    transport.write(b"x" * 100)
    assert transport.get_write_buffer_size() == size + 100
    assert receive(peer, turn, len(MUCH) + 100) == MUCH + b"x" * 100
    assert transport.get_write_buffer_size() == 0
    transport.write(b"y")
    assert transport.get_write_buffer_size() == 0
    assert receive(peer, turn, 1) == b"y"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_each_kind_is_sent_whole_when_buffered(link, turn, kind):
    transport, peer = link(Recorder())
    for _ in range(3):
        transport.write(kind(MUCH))
    assert receive(peer, turn, 3 * len(MUCH)) == 3 * MUCH


def test_many_small_writes_behind_a_large_one_keep_their_order(link, turn):
    transport, peer = link(Recorder())
    transport.write(MUCH)
    small = [b"%d," % n for n in range(5000)]  # more pieces than one sendmsg() takes
    for piece in small:
        transport.write(piece)
    wanted = MUCH + b"".join(small)
    assert receive(peer, turn, len(wanted)) == wanted
    assert transport.get_write_buffer_size() == 0


def test_write_in_data_received_is_an_echo(link, turn):
    proto = Recorder(data_received=lambda p, data: p.transport.write(data))
    _, peer = link(proto)
    for n in range(20):
        peer.send(b"%03d" % n)
        assert receive(peer, turn, 3) == b"%03d" % n


def test_write_in_connection_made_comes_first(link, turn):
    proto = Recorder(connection_made=lambda p: p.transport.write(b"hello "))
    transport, peer = link(proto)
    transport.write(b"world")
    assert receive(peer, turn, 11) == b"hello world"


# ---- writelines ----


def test_writelines_sends_the_pieces_in_order(link, turn):
    transport, peer = link(Recorder())
    assert transport.writelines([b"a", bytearray(b"b"), memoryview(b"c")]) is None
    transport.writelines((b"d", b"e"))
    transport.writelines([])
    assert receive(peer, turn, 5) == b"abcde"
    assert transport.get_write_buffer_size() == 0


def test_writelines_takes_an_iterator(link, turn):
    transport, peer = link(Recorder())
    transport.writelines(b"%d" % n for n in range(10))
    assert receive(peer, turn, 10) == b"0123456789"


def test_writelines_of_more_pieces_than_the_kernel_takes(link, turn):
    transport, peer = link(Recorder())
    pieces = [b"%d," % n for n in range(5000)]
    transport.writelines(pieces)
    wanted = b"".join(pieces)
    assert receive(peer, turn, len(wanted)) == wanted
    assert transport.get_write_buffer_size() == 0


def test_writelines_of_large_pieces_behind_what_is_pending(link, turn):
    transport, peer = link(Recorder())
    transport.write(MUCH)
    transport.writelines([b"1" * 300_000, b"2", b"3" * 300_000])
    transport.write(b"end")
    wanted = MUCH + b"1" * 300_000 + b"2" + b"3" * 300_000 + b"end"
    assert receive(peer, turn, len(wanted)) == wanted


def test_writelines_passes_over_empty_pieces(link, turn):
    transport, peer = link(Recorder())
    needs(transport, (3, 14), "never gets rid of an empty piece")
    transport.writelines([b"", b"a", b"", b"b", b""])
    transport.writelines([b"", b""])
    assert transport.get_write_buffer_size() == 0
    transport.writelines([b"", MUCH, b""])
    assert receive(peer, turn, len(MUCH) + 2) == b"ab" + MUCH
    assert transport.get_write_buffer_size() == 0
    transport.close()
    assert receive(peer, turn) == b""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="is write(), which leaves it to the loop")
def test_writelines_sends_what_is_pending_if_it_can(link, turn):
    transport, peer = link(Recorder())
    transport.write(MUCH)
    pending = transport.get_write_buffer_size()
    data = b""
    while len(data) < len(MUCH) - pending:
        data += peer.recv(len(MUCH))
    transport.writelines([b"e", b"nd"])
    assert transport.get_write_buffer_size() < pending
    assert data + receive(peer, turn, len(MUCH) + 3 - len(data)) == MUCH + b"end"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="does not resume before")
@pytest.mark.parametrize("end", ["close", "abort"])
def test_resume_writing_ends_the_connection_while_lines_are_written(link, turn, settle, end):
    proto = Recorder(resume_writing=lambda p: getattr(p.transport, end)())
    transport, peer = link(proto)
    needs(transport, (3, 14), "loses the connection twice")
    transport.write(MUCH)
    transport.set_write_buffer_limits(high=3 * len(MUCH), low=2 * len(MUCH))
    data = peer.recv(len(MUCH))
    transport.writelines([b"end"])
    assert proto.names() == [
        "connection_made",
        "pause_writing",
        "resume_writing",
    ]
    data += receive(peer, turn)
    settle()
    assert data == MUCH + b"end" if end == "close" else len(data) < len(MUCH)
    assert proto.names()[3:] == ["connection_lost"]


def test_memory_in_pieces_ends_the_connection(link, turn, until, reports):
    """send() refuses it; so nothing of what is in the list with it is sent."""
    proto = Recorder()
    transport, peer = link(proto)
    needs(transport, (3, 12), "refuses it at the call")
    transport.writelines([b"a", memoryview(b"b-b-")[::2], b"c"])
    until(lambda: proto.is_lost)
    assert type(proto.lost) is BufferError
    (context,) = reports.take()
    assert context["message"] == "Fatal write error on socket transport"
    assert receive(peer, turn) == b""


def test_writelines_pauses_the_protocol(link, until, turn):
    proto = Recorder()
    transport, peer = link(proto)
    needs(transport, (3, 14), "does not pause")
    transport.writelines([MUCH, b"x"])
    assert proto.count("pause_writing") == 1
    assert receive(peer, turn, len(MUCH) + 1) == MUCH + b"x"
    assert proto.count("resume_writing") == 1


def test_writelines_after_close_is_dropped(link, settle, logs, turn):
    transport, peer = link(Recorder())
    needs(transport, (3, 14), "raises TypeError")
    transport.close()
    for _ in range(4):
        transport.writelines([b"dropped"])
    assert logs == []
    transport.writelines([b"dropped"])
    assert [record.getMessage() for record in logs.take()] == ["socket.send() raised exception."]
    assert receive(peer, turn) == b""


@pytest.mark.parametrize("data", [["text"], [1], 5])
def test_writelines_refuses_what_is_no_list_of_bytes(link, turn, data):
    transport, peer = link(Recorder())
    with pytest.raises(TypeError):
        transport.writelines(data)
    transport.write(b"x")
    assert receive(peer, turn, 1) == b"x"


# ---- the limits ----


def test_default_limits(link):
    transport, _ = link(Recorder())
    assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
    assert transport.get_write_buffer_size() == 0


@pytest.mark.parametrize(
    "limits, low, high",
    [
        ({}, 16384, 65536),
        ({"high": 1000}, 250, 1000),
        ({"high": 0}, 0, 0),
        ({"low": 1000}, 1000, 4000),
        ({"low": 0}, 0, 0),
        ({"low": 10, "high": 10}, 10, 10),
        ({"low": 0, "high": 7}, 0, 7),
        ({"high": 3}, 0, 3),
        ({"high": None, "low": None}, 16384, 65536),
        ({"high": 2**40}, 2**38, 2**40),
        ({"high": 1000.5}, 250, 1000),
        ({"high": float("inf"), "low": 0}, 0, sys.maxsize),
    ],
)
def test_set_write_buffer_limits(link, limits, low, high):
    transport, _ = link(Recorder())
    assert transport.set_write_buffer_limits(**limits) is None
    assert transport.get_write_buffer_limits() == (low, high)


def test_limits_by_position_are_high_then_low(link):
    transport, _ = link(Recorder())
    transport.set_write_buffer_limits(100, 50)
    assert transport.get_write_buffer_limits() == (50, 100)


@pytest.mark.parametrize("low, high", [(2, 1), (-1, 1), (0, -1), (-2, -1), (None, -5)])
def test_impossible_limits_are_refused(link, low, high):
    transport, _ = link(Recorder())
    transport.set_write_buffer_limits(high=100, low=50)
    with pytest.raises(ValueError, match=r"^high \(-?\d\) must be >= low \(-?\d\) must be >= 0$"):
        transport.set_write_buffer_limits(high=high, low=low)
    assert transport.get_write_buffer_limits() == (50, 100)


@pytest.mark.parametrize("limit", ["5", b"5", [5], object()])
def test_a_limit_is_a_number(link, limit):
    transport, _ = link(Recorder())
    for name in ("high", "low"):
        with pytest.raises(TypeError):
            transport.set_write_buffer_limits(**{name: limit})
    with pytest.raises(ValueError):
        transport.set_write_buffer_limits(high=float("nan"))
    assert transport.get_write_buffer_limits() == (16384, 65536)


def test_no_limit_is_above_infinity(link):
    proto = Recorder()
    transport, _ = link(proto)
    transport.set_write_buffer_limits(high=float("inf"), low=0)
    transport.write(MUCH)
    assert proto.count("pause_writing") == 0


# ---- pausing and resuming the protocol ----


def test_pause_and_resume_once_each(link, turn):
    proto = Recorder()
    transport, peer = link(proto)
    transport.write(MUCH)
    assert proto.events[1:] == [("pause_writing",)]  # from within write()
    transport.write(MUCH)
    assert proto.count("pause_writing") == 1
    assert receive(peer, turn, 2 * len(MUCH)) == 2 * MUCH
    assert proto.events[1:] == [("pause_writing",), ("resume_writing",)]
    transport.write(MUCH)
    assert proto.names()[1:] == ["pause_writing", "resume_writing", "pause_writing"]


def fill(transport):
    """Write until something is buffered; how much."""
    while not transport.get_write_buffer_size():
        transport.write(b"x" * 1024)
    return transport.get_write_buffer_size()


def test_pause_is_above_the_high_limit_not_at_it(link):
    proto = Recorder()
    transport, _ = link(proto)
    transport.set_write_buffer_limits(high=10_000)
    size = fill(transport)
    assert size < 10_000
    transport.write(b"x" * (10_000 - size))
    assert transport.get_write_buffer_size() == 10_000
    assert not proto.count("pause_writing")
    transport.write(b"x")
    assert proto.count("pause_writing") == 1


def test_resume_is_at_the_low_limit(link, turn):
    sizes = []
    proto = Recorder(resume_writing=lambda p: sizes.append(p.transport.get_write_buffer_size()))
    transport, peer = link(proto)
    transport.set_write_buffer_limits(high=400_000, low=200_000)
    transport.write(MUCH)
    while not sizes:
        before = transport.get_write_buffer_size()
        peer.recv(10_000)
        turn()
    assert sizes[0] <= 200_000 < before
    assert proto.names()[1:] == ["pause_writing", "resume_writing"]


def test_high_limit_of_zero_pauses_whenever_something_is_pending(link, turn):
    proto = Recorder()
    transport, peer = link(proto)
    transport.set_write_buffer_limits(high=0)
    transport.write(b"x")
    assert not proto.count("pause_writing")  # sent at once
    transport.write(MUCH)
    assert proto.count("pause_writing") == 1
    size = transport.get_write_buffer_size()
    while transport.get_write_buffer_size():
        assert not proto.count("resume_writing")
        peer.recv(10_000)
        turn()
    assert size > 0 and proto.count("resume_writing") == 1


def test_new_limits_count_for_what_is_pending(link):
    proto = Recorder()
    transport, _ = link(proto)
    size = fill(transport)
    assert not proto.count("pause_writing")
    transport.set_write_buffer_limits(high=size)
    assert not proto.count("pause_writing")
    transport.set_write_buffer_limits(high=size - 1)
    assert proto.count("pause_writing") == 1
    transport.set_write_buffer_limits(high=0)
    assert proto.count("pause_writing") == 1


def test_write_in_pause_writing_pauses_no_second_time(link, turn):
    proto = Recorder(pause_writing=lambda p: p.transport.write(MUCH))
    transport, peer = link(proto)
    transport.write(b"1" * len(MUCH))
    assert proto.count("pause_writing") == 1
    assert receive(peer, turn, 2 * len(MUCH)) == b"1" * len(MUCH) + MUCH
    assert proto.events[1:] == [("pause_writing",), ("resume_writing",)]


def test_write_in_resume_writing_may_pause_again(link, turn):
    left = [b"2" * len(MUCH), b"3" * len(MUCH)]

    def more(proto):
        if left:
            proto.transport.write(left.pop(0))

    proto = Recorder(resume_writing=more)
    transport, peer = link(proto)
    transport.write(b"1" * len(MUCH))
    data = receive(peer, turn, 3 * len(MUCH))
    assert data == b"".join(n * len(MUCH) for n in (b"1", b"2", b"3"))
    assert proto.names()[1:] == ["pause_writing", "resume_writing"] * 3


@pytest.mark.parametrize("how", ["close", "abort"])
def test_closing_in_pause_writing(link, settle, turn, how):
    proto = Recorder(pause_writing=lambda p: getattr(p.transport, how)())
    transport, peer = link(proto)
    transport.write(MUCH)
    assert transport.is_closing()
    data = receive(peer, turn)
    assert MUCH.startswith(data) and (how == "abort" or data == MUCH)
    settle()
    assert proto.lost is None
    assert proto.count("pause_writing") == 1
    assert proto.count("resume_writing") == (how == "close")


def test_closing_in_resume_writing(link, settle, turn):
    proto = Recorder(resume_writing=lambda p: p.transport.close())
    transport, peer = link(proto)
    needs(transport, (3, 14), "loses the connection twice")
    transport.write(MUCH)
    assert receive(peer, turn) == MUCH
    settle()
    assert proto.names() == [
        "connection_made",
        "pause_writing",
        "resume_writing",
        "connection_lost",
    ]
    assert proto.lost is None


def test_abort_in_resume_writing(link, settle, turn):
    proto = Recorder(resume_writing=lambda p: p.transport.abort())
    transport, peer = link(proto)
    needs(transport, (3, 14), "loses the connection twice")
    transport.write(MUCH)
    data = receive(peer, turn)
    assert MUCH.startswith(data)
    settle()
    assert proto.names()[-2:] == ["resume_writing", "connection_lost"] and proto.lost is None


def test_closing_transport_still_resumes(link, until, turn):
    proto = Recorder()
    transport, peer = link(proto)
    transport.write(MUCH)
    transport.close()
    assert receive(peer, turn) == MUCH
    until(lambda: proto.is_lost)
    assert proto.names()[1:] == ["pause_writing", "resume_writing", "connection_lost"]


def test_lost_connection_does_not_resume(link, until):
    proto = Recorder()
    transport, peer = link(proto)
    transport.pause_reading()
    transport.write(MUCH)
    peer.close()
    until(lambda: proto.is_lost)
    assert proto.names()[1:] == ["pause_writing", "connection_lost"]


class Oops(Exception):
    pass


def oops(*args):
    raise Oops("oops")


@pytest.mark.parametrize("name", ["pause_writing", "resume_writing"])
def test_exception_in_them_is_reported_and_harmless(link, turn, reports, name):
    proto = Recorder(**{name: oops})
    transport, peer = link(proto)
    transport.write(MUCH)
    assert receive(peer, turn, len(MUCH)) == MUCH
    (context,) = reports.take()
    assert set(context) == {"message", "exception", "transport", "protocol"}
    assert context["message"] == f"protocol.{name}() failed"
    assert type(context["exception"]) is Oops
    assert context["transport"] is transport and context["protocol"] is proto
    assert proto.events[1:] == [("pause_writing",), ("resume_writing",)]
    transport.write(b"x")
    assert receive(peer, turn, 1) == b"x"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_exit_in_pause_writing_comes_out_of_write(link, turn, error):
    def leave(proto):
        raise error

    proto = Recorder(pause_writing=leave)
    transport, peer = link(proto)
    with pytest.raises(error):
        transport.write(MUCH)
    assert receive(peer, turn, len(MUCH)) == MUCH
    assert proto.count("resume_writing") == 1


def test_new_protocol_is_resumed(link, turn):
    first, second = Recorder(), Recorder()
    transport, peer = link(first)
    transport.write(MUCH)
    transport.set_protocol(second)
    assert receive(peer, turn, len(MUCH)) == MUCH
    assert first.events[1:] == [("pause_writing",)]
    assert second.events == [("resume_writing",)]


def test_slow_reader_holds_the_writer_back(loop, run):
    """StreamWriter.drain() waits, and a StreamReader that nobody reads pauses its transport."""
    ours, peer = make_pair("tcp")
    sizes, total = [], 64 * 65536

    async def write(writer):
        for _ in range(64):
            writer.write(b"x" * 65536)
            sizes.append(writer.transport.get_write_buffer_size())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main():
        reader, first = await asyncio.open_connection(sock=ours, limit=10_000)
        _, second = await asyncio.open_connection(sock=peer)
        writing = loop.create_task(write(second))
        while reader._transport.is_reading():
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not writing.done() and len(reader._buffer) <= 20_000 + 256 * 1024
        n = 0
        while data := await reader.read(5000):
            n += len(data)
        assert n == total and max(sizes) <= 65536 + 65536
        await writing
        first.close()
        await first.wait_closed()

    run(main())


def test_socket_that_takes_no_more_is_polled_only_while_something_is_pending(link, turn):
    transport, peer = link(Recorder())
    transport.write(b"x")
    assert "write=<idle" in repr(transport)
    transport.write(MUCH)
    assert "write=<polling" in repr(transport)
    receive(peer, turn, len(MUCH) + 1)
    turn()
    assert "write=<idle" in repr(transport)


@pytest.mark.parametrize(
    "size, count",
    [(100_000, 1500), pytest.param(150, 300_000, marks=pytest.mark.ctask_only)],
)
def test_the_memory_of_what_waited_goes_back_when_the_connection_is_dropped(
    memory_script, size, count
):
    memory_script(
        f"""
        import socket

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                made.set_result(transport)

            def connection_lost(self, exc):
                lost.set_result(exc)

        async def main():
            global made, lost
            loop = asyncio.get_running_loop()
            made, lost = loop.create_future(), loop.create_future()
            server = await loop.create_server(Protocol, "127.0.0.1", 0)
            client = socket.create_connection(server.sockets[0].getsockname())
            client.send(b"read something first")
            transport = await made
            before = resident()
            for i in range({count}):
                transport.write(b"%{size}d" % i)
            top = resident()
            client.close()
            await lost
            after = resident()
            assert top - before > 30 << 20, (before, top)
            assert after - before < 8 << 20, (before, top, after)
            server.close()

        impl.run(main())
        """
    )
