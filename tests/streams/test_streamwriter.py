"""StreamWriter and StreamReaderProtocol, and connections that use them."""

from __future__ import annotations

import asyncio
import collections.abc
import gc
import inspect
import socket
import sys
import warnings
from unittest import mock

import pytest


@pytest.fixture
def streams(impl, monkeypatch):
    """asyncio's own open_connection() and start_server() with the classes under test."""
    for module in (asyncio, asyncio.streams):
        for name in ("StreamReader", "StreamReaderProtocol", "StreamWriter"):
            monkeypatch.setattr(module, name, getattr(impl, name))
    return asyncio


@pytest.fixture
def make(impl, loop):
    """(transport, protocol, reader, writer) without a connection."""

    def make(transport=None):
        transport = transport or mock.Mock()
        transport.is_closing.return_value = False
        transport.get_extra_info.return_value = None
        reader = impl.StreamReader(loop=loop)
        protocol = impl.StreamReaderProtocol(reader, loop=loop)
        protocol.connection_made(transport)
        writer = impl.StreamWriter(transport, protocol, reader, loop)
        return transport, protocol, reader, writer

    return make


def end(transport, protocol):
    transport.is_closing.return_value = True
    protocol.connection_lost(None)


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


# ---- whole connections ----


async def echo_client(reader, writer):
    for piece in b"line\n", b"x" * 300_000:
        writer.write(piece)
        await writer.drain()
        assert await reader.readexactly(len(piece)) == piece


def connection(streams, run, client, handler=echo, **options):
    async def main():
        done = asyncio.get_running_loop().create_future()

        async def handle(reader, writer):
            try:
                await handler(reader, writer)
            finally:
                done.set_result(None)

        server = await streams.start_server(handle, "127.0.0.1", 0, **options)
        host, port = server.sockets[0].getsockname()
        reader, writer = await streams.open_connection(host, port, **options)
        try:
            return await client(reader, writer)
        finally:
            writer.close()
            await writer.wait_closed()
            await done
            server.close()
            await server.wait_closed()

    return run(main())


def test_echo(streams, impl, run):
    async def client(reader, writer):
        assert type(reader) is impl.StreamReader
        assert type(writer) is impl.StreamWriter
        assert type(writer._protocol) is impl.StreamReaderProtocol
        for i in range(1, 200, 7):
            line = b"x" * i + b"\n"
            writer.write(line)
            await writer.drain()
            assert await reader.readline() == line
        writer.writelines([b"one ", b"two"])
        assert await reader.readexactly(7) == b"one two"
        writer.write_eof()
        assert await reader.read() == b""
        assert reader.at_eof()

    connection(streams, run, client)


def test_much_data_both_ways(streams, run):
    total = 3_000_000
    block = bytes(range(250)) * 400

    async def client(reader, writer):
        async def send():
            for _ in range(total // len(block)):
                writer.write(block)
                await writer.drain()
            writer.write_eof()

        sender = asyncio.create_task(send())
        got = await reader.read()
        await sender
        return got

    assert connection(streams, run, client, limit=5000) == block * (total // len(block))


def test_much_data_in_exact_pieces(streams, run):
    async def serve(reader, writer):
        for n in (1, 10, 1000, 100_000, 1_000_000):
            assert await reader.readexactly(n) == b"x" * n
        writer.write(b"done")
        writer.close()
        await writer.wait_closed()

    async def client(reader, writer):
        writer.write(b"x" * 1_111_011)
        await writer.drain()
        return await reader.read()

    assert connection(streams, run, client, serve) == b"done"


def test_unix_connection(streams, run, tmp_path):
    async def main():
        server = await streams.start_unix_server(echo, tmp_path / "socket")
        reader, writer = await streams.open_unix_connection(tmp_path / "socket")
        writer.write(b"abc")
        assert await reader.read(10) == b"abc"
        writer.close()
        await writer.wait_closed()
        server.close()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

    run(main())


def test_lines_of_a_connection(streams, run):
    async def serve(reader, writer):
        writer.write(b"".join(b"%d\n" % i for i in range(10000)))
        writer.close()
        await writer.wait_closed()

    async def client(reader, writer):
        return [int(line) async for line in reader]

    assert connection(streams, run, client, serve) == list(range(10000))


def test_connection_reset(streams, run):
    async def serve(reader, writer):
        await reader.read(1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.close()
        await writer.wait_closed()

    async def client(reader, writer):
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        with pytest.raises(ConnectionResetError):
            await writer.drain()
        with pytest.raises(ConnectionResetError):
            await writer.wait_closed()
        writer.close()
        writer.wait_closed = mock.AsyncMock()

    connection(streams, run, client, serve)


def test_plain_function_as_callback(streams, run, turn):
    async def main():
        made = asyncio.get_running_loop().create_future()
        server = await streams.start_server(lambda *pair: made.set_result(pair), "127.0.0.1", 0)
        reader, writer = await streams.open_connection(*server.sockets[0].getsockname())
        other_reader, other_writer = await made
        other_writer.write(b"abc")
        assert await reader.read(10) == b"abc"
        for w in (other_writer, writer):
            w.close()
            await w.wait_closed()
        server.close()

    run(main())


def test_exception_in_the_callback_is_reported(streams, run, reports):
    async def serve(reader, writer):
        raise ZeroDivisionError("served")

    async def client(reader, writer):
        assert await reader.read() == b""

    connection(streams, run, client, serve)
    (report,) = reports.take()
    assert report["message"] == "Unhandled exception in client_connected_cb"
    assert str(report["exception"]) == "served"
    assert "transport" in report
    report["exception"].__traceback__ = None


def test_the_reader_may_be_dropped(streams, run):
    async def client(reader, writer):
        writer._reader = None
        del reader
        gc.collect()
        writer.write(b"x" * 100)
        await writer.drain()

    async def serve(reader, writer):
        writer.write(b"abc")
        assert await reader.readexactly(100)
        writer.close()
        await writer.wait_closed()

    async def nobody_reads(reader, writer):
        await client(reader, writer)

    connection(streams, run, nobody_reads, serve)


# ---- write() and its relatives ----


def test_calls_go_to_the_transport(make):
    transport, protocol, reader, writer = make()
    assert writer.transport is transport
    assert writer.write(b"abc") is None
    writer.write(data=b"def")
    with pytest.raises(TypeError):
        writer.write()
    with pytest.raises(TypeError):
        writer.write(b"a", data=b"b")
    with pytest.raises(TypeError):
        writer.write(bytes=b"abc")
    writer.writelines([b"a"])
    writer.write_eof()
    writer.can_write_eof()
    writer.get_extra_info("name", 5)
    assert writer.is_closing() is False
    writer.close()
    assert transport.mock_calls[1:] == [
        mock.call.write(b"abc"),
        mock.call.write(b"def"),
        mock.call.writelines([b"a"]),
        mock.call.write_eof(),
        mock.call.can_write_eof(),
        mock.call.get_extra_info("name", 5),
        mock.call.is_closing(),
        mock.call.close(),
    ]
    end(transport, protocol)


def test_an_error_of_the_transport(make):
    transport, protocol, reader, writer = make()
    transport.write.side_effect = ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        writer.write(b"abc")
    end(transport, protocol)


def test_reader_of_another_kind_is_refused(impl, loop, unraisable):
    with pytest.raises(AssertionError):
        impl.StreamWriter(mock.Mock(), None, "reader", loop)
    transport = mock.Mock()
    for reader in (None, mock.Mock(spec=impl.StreamReader), asyncio.StreamReader(loop=loop)):
        writer = impl.StreamWriter(transport, None, reader, loop)
        assert writer._reader is reader
    with pytest.raises(TypeError):
        impl.StreamWriter(transport)
    gc.collect()
    assert all(kind is AttributeError for kind, _ in unraisable.take())  # its __del__


def test_complete_fut(make):
    transport, protocol, reader, writer = make()
    assert writer._complete_fut.done()
    assert writer._complete_fut is writer._complete_fut
    end(transport, protocol)


def test_repr(make):
    transport, protocol, reader, writer = make()
    assert repr(writer) == f"<StreamWriter transport={transport!r} reader={reader!r}>"
    end(transport, protocol)


# ---- drain() ----


def test_drain_ends_at_once_if_there_is_room(make):
    transport, protocol, reader, writer = make()
    coro = writer.drain()
    with pytest.raises(StopIteration) as caught:
        coro.send(None)
    assert caught.value.value is None
    end(transport, protocol)


def test_drain_waits_while_the_transport_is_full(make, loop, run, turn):
    transport, protocol, reader, writer = make()
    protocol.pause_writing()
    tasks = [loop.create_task(writer.drain()) for _ in range(3)]
    turn()
    assert not any(task.done() for task in tasks)
    tasks[1].cancel()
    turn(2)
    assert tasks[1].cancelled()
    protocol.resume_writing()
    assert run(asyncio.gather(tasks[0], tasks[2])) == [None, None]
    assert not protocol._drain_waiters
    end(transport, protocol)


@pytest.mark.parametrize("kind", [None, ZeroDivisionError])
def test_drain_hears_of_the_end(make, loop, run, turn, kind):
    exc = kind and kind()
    transport, protocol, reader, writer = make()
    protocol.pause_writing()
    task = loop.create_task(writer.drain())
    turn()
    protocol.connection_lost(exc)
    if exc is None:
        run(task)
    else:
        with pytest.raises(ZeroDivisionError):
            run(task)
    transport.is_closing.return_value = True
    with pytest.raises(ConnectionResetError if exc is None else ZeroDivisionError):
        run(writer.drain())
    if exc is not None:
        exc.__traceback__ = None


def test_drain_after_the_end(make, run):
    transport, protocol, reader, writer = make()
    end(transport, protocol)
    with pytest.raises(ConnectionResetError, match="Connection lost"):
        run(writer.drain())


def test_drain_of_a_closing_transport_gives_a_turn(make, loop, run):
    transport, protocol, reader, writer = make()
    transport.is_closing.return_value = True
    loop.call_soon(protocol.connection_lost, None)
    with pytest.raises(ConnectionResetError, match="Connection lost"):
        run(writer.drain())


def test_drain_raises_the_readers_exception(make, run):
    transport, protocol, reader, writer = make()
    reader.set_exception(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        run(writer.drain())
    end(transport, protocol)


def test_drain_with_another_protocol(impl, loop, run):
    transport = mock.Mock()
    transport.is_closing.return_value = False
    protocol = mock.Mock()
    protocol._drain_helper = mock.AsyncMock(return_value=5)
    writer = impl.StreamWriter(transport, protocol, None, loop)
    assert run(writer.drain()) is None
    protocol._drain_helper.assert_awaited_once_with()
    transport.is_closing.return_value = True


def test_drain_is_a_coroutine(impl, make):
    transport, protocol, reader, writer = make()
    coro = writer.drain()
    assert asyncio.iscoroutine(coro)
    assert isinstance(coro, collections.abc.Coroutine)
    assert coro.__qualname__ == "StreamWriter.drain"
    coro.close()
    assert inspect.iscoroutinefunction(impl.StreamWriter.drain)
    with pytest.warns(RuntimeWarning, match="coroutine 'StreamWriter.drain' was never awaited"):
        writer.drain()
        gc.collect()
    with pytest.raises(TypeError):
        writer.drain(1)
    end(transport, protocol)


def test_drain_by_throw(make):
    transport, protocol, reader, writer = make()
    protocol.pause_writing()
    coro = writer.drain()
    coro.send(None)
    with pytest.raises(ZeroDivisionError):
        coro.throw(ZeroDivisionError())
    assert not protocol._drain_waiters
    coro = writer.drain()
    coro.send(None)
    coro.close()
    assert not protocol._drain_waiters
    end(transport, protocol)


# ---- the protocol ----


def test_protocol_attributes(impl, loop):
    reader = impl.StreamReader(loop=loop)
    protocol = impl.StreamReaderProtocol(reader, loop=loop)
    assert isinstance(protocol, asyncio.StreamReaderProtocol)
    assert isinstance(protocol, asyncio.Protocol)
    assert protocol._stream_reader is reader
    assert protocol._stream_reader_wr() is reader
    assert protocol._loop is loop
    assert protocol._transport is None
    assert protocol._task is None
    assert protocol._client_connected_cb is None
    assert protocol._source_traceback is None
    for name in ("_paused", "_connection_lost", "_reject_connection", "_over_ssl"):
        assert getattr(protocol, name) is False
    assert not hasattr(protocol, "_strong_reader")
    assert len(protocol._drain_waiters) == 0
    assert not protocol._closed.done()
    assert protocol._closed is protocol._closed
    assert protocol._get_close_waiter(None) is protocol._closed


def test_protocol_keeps_no_reader(impl, loop):
    reader = impl.StreamReader(loop=loop)
    protocol = impl.StreamReaderProtocol(reader, loop=loop)
    protocol.data_received(b"abc")
    assert reader._buffer == b"abc"
    del reader
    gc.collect()
    assert protocol._stream_reader is None
    protocol.data_received(b"abc")
    protocol.eof_received()
    protocol.connection_lost(None)


def test_protocol_without_a_reader(impl, loop):
    protocol = impl.StreamReaderProtocol(None, loop=loop)
    assert protocol._stream_reader is None
    protocol.data_received(b"abc")
    protocol.connection_lost(None)


def test_protocol_feeds_a_reader_of_another_kind(impl, loop):
    class Reader(impl.StreamReader):
        def feed_data(self, data):
            fed.append(data)

    fed = []
    for reader in (Reader(loop=loop), mock.Mock(spec=impl.StreamReader, _source_traceback=None)):
        protocol = impl.StreamReaderProtocol(reader, loop=loop)
        protocol.data_received(b"abc")
    assert fed == [b"abc"]
    reader.feed_data.assert_called_once_with(b"abc")


def test_eof_is_kept_open_unless_tls(make):
    transport, protocol, reader, writer = make()
    assert protocol.eof_received() is True
    assert reader._eof
    protocol._over_ssl = True
    assert protocol.eof_received() is False
    end(transport, protocol)


def test_wait_closed(make, run):
    transport, protocol, reader, writer = make()
    protocol.connection_lost(ZeroDivisionError())
    transport.is_closing.return_value = True
    with pytest.raises(ZeroDivisionError):
        run(writer.wait_closed())


def test_wait_closed_after_an_ordinary_end(make, loop, run):
    transport, protocol, reader, writer = make()
    task = loop.create_task(writer.wait_closed())
    other, *_ = make(), None
    for tp, pr, rd, wr in ((transport, protocol, reader, writer), other):
        tp.is_closing.return_value = True
        assert pr.connection_lost(exc=None) is None
        assert rd.at_eof()
        assert pr._closed.done() and pr._closed is pr._closed
        assert pr._transport is None and pr._task is None and pr._stream_reader is None
        assert run(wr.wait_closed()) is None
    assert run(task) is None
    with pytest.raises(TypeError):
        protocol.connection_lost()
    with pytest.raises(TypeError):
        protocol.connection_lost(None, None)


def test_wait_closed_asks_the_protocol(impl, make, run):
    transport, protocol, reader, writer = make()
    assert inspect.iscoroutinefunction(writer.wait_closed)
    protocol._get_close_waiter = mock.Mock(return_value=asyncio.sleep(0, "slept"))
    protocol.connection_lost(None)
    transport.is_closing.return_value = True
    assert run(writer.wait_closed()) is None
    protocol._get_close_waiter.assert_called_once_with(writer)
    with pytest.raises(TypeError):
        writer.wait_closed(1)


def test_wait_closed_may_be_cancelled(make, loop, turn):
    transport, protocol, reader, writer = make()
    task = loop.create_task(writer.wait_closed())
    turn()
    task.cancel()
    turn(2)
    assert task.cancelled()
    assert protocol._closed.cancelled()
    end(transport, protocol)


def test_connection_lost_twice(make, run):
    transport, protocol, reader, writer = make()
    transport.is_closing.return_value = True
    protocol.connection_lost(None)
    protocol.connection_lost(None)
    assert run(writer.wait_closed()) is None


def test_feed_eof_of_a_reader_of_another_kind(impl, loop):
    class Reader(impl.StreamReader):
        def feed_eof(self):
            seen.append("eof")
            super().feed_eof()

    seen = []
    reader = Reader(loop=loop)
    protocol = impl.StreamReaderProtocol(reader, loop=loop)
    protocol.eof_received()
    protocol.connection_lost(None)
    assert seen == ["eof", "eof"] and reader.at_eof()


def test_exception_that_nobody_waits_for_is_not_reported(make, logs):
    transport, protocol, reader, writer = make()
    transport.is_closing.return_value = True
    protocol.connection_lost(ZeroDivisionError())
    del protocol, reader, writer
    transport.reset_mock()
    gc.collect()
    assert logs == []


def test_subclass_of_the_protocol_is_called(impl, loop, run):
    class Protocol(impl.StreamReaderProtocol):
        def data_received(self, data):
            super().data_received(data.upper())

    async def main():
        reader = impl.StreamReader(loop=loop)
        a, b = socket.socketpair()
        with b:
            transport, protocol = await loop.create_connection(
                lambda: Protocol(reader, loop=loop), sock=a
            )
            b.send(b"abc")
            assert await reader.read(5) == b"ABC"
            protocol.data_received = lambda data: reader.feed_data(b"replaced")
            b.send(b"abc")
            assert await reader.read(20) == b"replaced"
        transport.close()
        await protocol._get_close_waiter(None)

    run(main())


def test_method_replaced_while_connected(impl, loop, run):
    async def main():
        reader = impl.StreamReader(loop=loop)
        a, b = socket.socketpair()
        with b:
            transport, protocol = await loop.create_connection(
                lambda: impl.StreamReaderProtocol(reader, loop=loop), sock=a
            )
            b.send(b"abc")
            assert await reader.read(5) == b"abc"
            with mock.patch.object(
                impl.StreamReader, "feed_data", lambda self, data: self._buffer.extend(b"other")
            ):
                b.send(b"abc")
                while not reader._buffer:
                    await asyncio.sleep(0)
            assert await reader.read(20) == b"other"
        transport.close()
        await protocol._get_close_waiter(None)

    run(main())


def test_reader_that_fails_ends_the_connection(impl, loop, run, reports):
    async def main():
        reader = impl.StreamReader(loop=loop)
        a, b = socket.socketpair()
        with b:
            transport, protocol = await loop.create_connection(
                lambda: impl.StreamReaderProtocol(reader, loop=loop), sock=a
            )
            reader.feed_eof()
            b.send(b"abc")
            with pytest.raises(AssertionError):
                await protocol._get_close_waiter(None)

    run(main())
    (report,) = reports.take()
    assert report["message"] == "Fatal error: protocol.data_received() call failed."
    assert str(report["exception"]) == "feed_data after feed_eof"
    report["exception"].__traceback__ = None


# ---- what nobody closed ----

warns = pytest.mark.skipif(
    not hasattr(asyncio.StreamWriter, "__del__"), reason="this release does not warn"
)


@warns
def test_unclosed_writer_warns_and_is_closed(make):
    transport, protocol, reader, writer = make()
    with pytest.warns(ResourceWarning, match="unclosed <StreamWriter"):
        del writer
        gc.collect()
    transport.close.assert_called_once_with()
    end(transport, protocol)


@warns
def test_unclosed_writer_of_a_closed_loop(make, loop):
    transport, protocol, reader, writer = make()
    loop.close()
    with pytest.warns(ResourceWarning, match="loop is closed"):
        del writer
        gc.collect()


def test_without_init(impl):
    writer = impl.StreamWriter.__new__(impl.StreamWriter)
    protocol = impl.StreamReaderProtocol.__new__(impl.StreamReaderProtocol)
    for call in (
        lambda: writer.write(b"abc"),
        lambda: writer.drain().send(None),
        lambda: writer.close(),
        lambda: writer._complete_fut,
        lambda: protocol.data_received(b"abc"),
        lambda: protocol._closed,
        lambda: protocol._drain_waiters,
    ):
        with pytest.raises(AttributeError):
            call()
    writer._transport = mock.Mock()  # for its __del__


# ---- TLS and mixtures ----


@pytest.mark.ctask_only
@pytest.mark.parametrize("stock", ["StreamReader", "StreamReaderProtocol", "StreamWriter"])
def test_mixtures_with_asyncios_own(streams, run, monkeypatch, stock):
    monkeypatch.undo()
    own = {
        name: getattr(__import__("ctask"), name)
        for name in ("StreamReader", "StreamReaderProtocol", "StreamWriter")
        if name != stock
    }
    for name, cls in own.items():
        monkeypatch.setattr(asyncio.streams, name, cls)

    connection(streams, run, echo_client)


@pytest.mark.ctask_only
def test_on_asyncios_own_loop(streams):
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        connection(streams, runner.run, echo_client)


def test_debug_mode(streams, loop, run):
    loop.set_debug(True)

    async def client(reader, writer):
        writer.write(b"line\n")
        await writer.drain()
        assert await reader.readline() == b"line\n"

    connection(streams, run, client)


def test_streams_of_a_subprocess(streams, run):
    async def main():
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "print(input()[::-1])", stdin=-1, stdout=-1
        )
        out, _ = await process.communicate(b"abc\n")
        return out

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop(None)
    assert run(main()) == b"cba\n"


def test_a_lost_connection_that_the_collector_finds_is_not_reported(impl, loop, reports):
    """Whatever was made after whatever else, and in which generation it is."""
    gc.collect()
    protocol = impl.StreamReaderProtocol(impl.StreamReader(loop=loop), loop=loop)
    protocol.circle = protocol
    gc.collect(0)
    protocol.connection_lost(ConnectionResetError())
    del protocol
    gc.collect()
    assert reports == []
