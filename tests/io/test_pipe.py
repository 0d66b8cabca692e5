"""Transports over pipes, terminals and sockets as files."""

import asyncio
import contextlib
import contextvars
import errno
import fcntl
import gc
import logging
import os
import socket
import tty
import warnings
import weakref

import pytest


class Recorder(asyncio.Protocol):
    """Writes down its callbacks; `lost` is done with connection_lost()'s argument."""

    def __init__(self, loop):
        self.calls = []
        self.lost = loop.create_future()
        self.changed = asyncio.Event()
        self.paused = False

    def note(self, *call):
        self.calls.append(call)
        self.changed.set()

    async def until(self, condition):
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    @property
    def data(self):
        return b"".join(call[1] for call in self.calls if call[0] == "data")

    def connection_made(self, transport):
        self.transport = transport
        self.note("made")

    def data_received(self, data):
        assert type(data) is bytes
        self.note("data", data)

    def eof_received(self):
        self.note("eof")

    def pause_writing(self):
        self.paused = True
        self.note("pause")

    def resume_writing(self):
        self.paused = False
        self.note("resume")

    def connection_lost(self, exc):
        self.note("lost", exc)
        self.lost.set_result(exc)
        del self.transport


@pytest.fixture
def pipe():
    """Both ends of a pipe as files; the test closes them, or gives them to transports that do."""
    reading, writing = os.pipe()
    ends = open(reading, "rb", 0), open(writing, "wb", 0)
    yield ends
    for end in ends:
        end.close()


def capacity(file):
    return fcntl.fcntl(file, fcntl.F_GETPIPE_SZ)


async def reader(loop, file):
    return await loop.connect_read_pipe(lambda: Recorder(loop), file)


async def writer(loop, file):
    return await loop.connect_write_pipe(lambda: Recorder(loop), file)


# --- reading


def test_one_piece_a_turn_for_each_reader(loop, run, turn):
    ends = [os.pipe() for _ in range(2)]
    protocols = [run(reader(loop, open(reading, "rb", 0)))[1] for reading, _ in ends]
    for _, writing in ends:
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 20)
        assert os.write(writing, bytes(1 << 20)) == 1 << 20
    for i in range(4):
        assert [len(protocol.calls) for protocol in protocols] == [1 + i] * 2
        turn()
    for _, writing in ends:
        os.close(writing)
    for protocol in protocols:
        assert run(protocol.lost) is None
        assert len(protocol.data) == 1 << 20


def test_callbacks_of_a_reader(loop, run, pipe):
    ours, theirs = pipe

    async def main():
        transport, protocol = await reader(loop, ours)
        assert isinstance(transport, asyncio.ReadTransport)
        assert not isinstance(transport, asyncio.WriteTransport)
        assert protocol.calls == [("made",)]
        assert protocol.transport is transport
        assert transport.get_protocol() is protocol
        assert transport.get_extra_info("pipe") is ours
        assert transport.get_extra_info("other", 1) == 1
        assert transport.is_reading() is True
        assert transport.is_closing() is False
        assert os.get_blocking(ours.fileno()) is False
        theirs.write(b"one")
        await protocol.until(lambda: protocol.data == b"one")
        theirs.write(b"two")
        await protocol.until(lambda: protocol.data == b"onetwo")
        theirs.close()
        assert await protocol.lost is None
        assert protocol.calls[-2:] == [("eof",), ("lost", None)]
        assert len(protocol.calls) == 5
        assert transport.is_closing() is True
        assert transport.is_reading() is False
        await asyncio.sleep(0)
        assert ours.closed

    run(main())


def test_close_of_a_reader(loop, run, pipe):
    ours, theirs = pipe

    async def main():
        transport, protocol = await reader(loop, ours)
        theirs.write(b"never read")
        transport.close()
        transport.close()
        assert transport.is_closing()
        assert protocol.calls == [("made",)]
        assert not ours.closed
        assert await protocol.lost is None
        assert protocol.calls == [("made",), ("lost", None)]
        await asyncio.sleep(0)
        assert ours.closed
        transport.close()
        transport.pause_reading()
        transport.resume_reading()
        assert transport.get_protocol() is None

    run(main())


def test_pause_and_resume_reading(loop, run, pipe):
    ours, theirs = pipe

    async def main():
        transport, protocol = await reader(loop, ours)
        transport.pause_reading()
        transport.pause_reading()
        assert transport.is_reading() is False
        theirs.write(b"x")
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        assert protocol.data == b""
        transport.resume_reading()
        transport.resume_reading()
        assert transport.is_reading() is True
        await protocol.until(lambda: protocol.data == b"x")
        transport.close()
        await protocol.lost

    run(main())


def test_reader_that_is_paused_when_it_begins(loop, run, pipe):
    ours, theirs = pipe

    class Paused(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    async def main():
        transport, protocol = await loop.connect_read_pipe(lambda: Paused(loop), ours)
        theirs.write(b"x")
        await asyncio.sleep(0.001)
        assert protocol.data == b""
        transport.resume_reading()
        await protocol.until(lambda: protocol.data == b"x")
        transport.close()
        await protocol.lost

    run(main())


def test_end_while_paused_waits_for_resume(loop, run, pipe):
    ours, theirs = pipe

    async def main():
        transport, protocol = await reader(loop, ours)
        transport.pause_reading()
        theirs.write(b"last")
        theirs.close()
        await asyncio.sleep(0.001)
        assert protocol.calls == [("made",)]
        transport.resume_reading()
        await protocol.lost
        assert protocol.calls == [("made",), ("data", b"last"), ("eof",), ("lost", None)]

    run(main())


def test_close_within_data_received(loop, run, pipe):
    ours, theirs = pipe

    class Closes(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.close()

    async def main():
        transport, protocol = await loop.connect_read_pipe(lambda: Closes(loop), ours)
        theirs.write(b"x")
        await protocol.lost
        assert protocol.calls == [("made",), ("data", b"x"), ("lost", None)]

    run(main())


def test_another_protocol(loop, run, pipe):
    ours, theirs = pipe

    async def main():
        transport, first = await reader(loop, ours)
        second = Recorder(loop)
        transport.set_protocol(second)
        assert transport.get_protocol() is second
        theirs.write(b"x")
        await second.until(lambda: second.data == b"x")
        theirs.close()
        await second.lost
        assert first.calls == [("made",)]
        del first.transport
        second.transport = None

    Recorder_lost = Recorder.connection_lost

    def lost(self, exc):
        self.transport = None
        Recorder_lost(self, exc)

    Recorder.connection_lost = lost
    try:
        run(main())
    finally:
        Recorder.connection_lost = Recorder_lost


def test_exceptions_of_a_readers_protocol(loop, run, reports, pipe):
    ours, theirs = pipe

    class Bad(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise ValueError("made")

        def data_received(self, data):
            super().data_received(data)
            raise ValueError("data")

        def eof_received(self):
            super().eof_received()
            raise ValueError("eof")

        def connection_lost(self, exc):
            super().connection_lost(exc)
            raise ValueError("lost")

    async def main():
        transport, protocol = await loop.connect_read_pipe(lambda: Bad(loop), ours)
        theirs.write(b"x")
        await protocol.until(lambda: protocol.data == b"x")
        theirs.close()
        await protocol.lost
        await asyncio.sleep(0)
        assert ours.closed
        assert [call[0] for call in protocol.calls] == ["made", "data", "eof", "lost"]

    run(main())
    seen = reports.take()
    assert [str(report["exception"]) for report in seen] == ["made", "data", "eof", "lost"]
    for report in seen:
        assert report["message"].startswith("Exception in callback ")
        assert isinstance(report["handle"], asyncio.Handle)
        report["exception"].__traceback__ = None
    assert "connection_made(" in seen[0]["message"]
    assert "_read_ready" in seen[1]["message"]
    assert "eof_received" in seen[2]["message"]
    assert "_call_connection_lost" in seen[3]["message"]


@pytest.mark.parametrize("name", ["data_received", "eof_received"])
def test_keyboard_interrupt_of_a_readers_protocol_ends_the_loop(loop, pipe, name):
    ours, theirs = pipe

    def interrupt(*args):
        raise KeyboardInterrupt

    async def main():
        transport, protocol = await reader(loop, ours)
        setattr(protocol, name, interrupt)
        return transport, protocol

    transport, protocol = loop.run_until_complete(main())
    theirs.write(b"x")
    theirs.close()
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    transport.close()
    loop.run_until_complete(protocol.lost)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_pipes_are_watched_though_connection_made_ended_the_loop(loop, run, pipe, kind):
    class Raises(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise kind

    ours, theirs = pipe
    protocols = []
    for connect, end in (loop.connect_read_pipe, ours), (loop.connect_write_pipe, theirs):
        connecting = loop.create_task(connect(lambda: Raises(loop), end))
        with pytest.raises(kind):
            loop.run_forever()
        protocols.append(run(connecting)[1])
    reading, writing = protocols
    writing.transport.write(b"x")
    run(reading.until(lambda: reading.data == b"x"))
    reading.transport.close()
    assert run(reading.lost) is None
    assert run(writing.lost) is None  # it sees that its reader is gone


def test_an_interrupted_end_comes_before_what_was_called_later(loop, run, pipe):
    ours, theirs = pipe
    _, protocol = run(reader(loop, ours))

    def interrupt():
        loop.call_soon(protocol.note, "later")
        raise KeyboardInterrupt

    protocol.eof_received = interrupt
    theirs.close()
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    run(protocol.lost)
    assert protocol.calls == [("made",), ("lost", None), ("later",)]


def test_writing_is_resumed_when_all_is_written(loop, run, turn, pipe):
    theirs, ours = pipe
    transport, protocol = run(writer(loop, ours))
    transport.write(bytes(capacity(theirs) * 3))
    assert protocol.calls == [("made",), ("pause",)]
    while transport.get_write_buffer_size():
        assert protocol.paused
        theirs.read(4096)
        turn()
    assert not protocol.paused
    transport.abort()
    run(protocol.lost)


def test_read_error(loop, run, reports, tmp_path, monkeypatch):
    ours, theirs = socket.socketpair()

    class Reset(Recorder):
        pass

    async def main():
        listener = socket.create_server(("127.0.0.1", 0))
        peer = socket.create_connection(listener.getsockname())
        sock, _ = listener.accept()
        listener.close()
        transport, protocol = await reader(loop, sock)
        # A reset instead of an end.
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        peer.close()
        exc = await protocol.lost
        assert isinstance(exc, ConnectionResetError)
        assert exc.errno == errno.ECONNRESET
        (report,) = reports.take()
        assert report["message"] == "Fatal read error on pipe transport"
        assert report["exception"] is exc
        assert report["transport"] is transport
        assert report["protocol"] is protocol
        protocol.calls.clear()
        exc.__traceback__ = None

    ours.close()
    theirs.close()
    run(main())


# --- writing


def test_callbacks_of_a_writer(loop, run, pipe):
    theirs, ours = pipe

    async def main():
        transport, protocol = await writer(loop, ours)
        assert isinstance(transport, asyncio.WriteTransport)
        assert protocol.calls == [("made",)]
        assert transport.get_extra_info("pipe") is ours
        assert transport.can_write_eof() is True
        assert transport.get_write_buffer_size() == 0
        assert transport.get_write_buffer_limits() == (16384, 65536)
        assert transport.write(b"bytes ") is None
        transport.write(bytearray(b"bytearray "))
        transport.write(memoryview(b"memoryview "))
        transport.write(memoryview(b"xxview ")[2:])
        transport.write(b"")
        transport.writelines([b"li", bytearray(b"nes")])
        assert theirs.read(100) == b"bytes bytearray memoryview view lines"
        transport.close()
        transport.close()
        assert transport.is_closing() is True
        assert protocol.calls == [("made",)]
        assert await protocol.lost is None
        await asyncio.sleep(0)
        assert ours.closed
        assert theirs.read() == b""
        assert transport.get_write_buffer_size() == 0

    run(main())


@pytest.mark.parametrize("data", ["str", 1, None, [b"x"], (1,)])
def test_what_a_writer_refuses(loop, run, pipe, data):
    theirs, ours = pipe

    async def main():
        transport, protocol = await writer(loop, ours)
        with pytest.raises(AssertionError) as caught:
            transport.write(data)
        assert str(caught.value).split("\n")[0] == repr(data)
        caught.value.__traceback__ = None
        transport.close()
        await protocol.lost

    run(main())


def test_flow_control(loop, run, pipe):
    theirs, ours = pipe
    size = capacity(ours)

    async def main():
        transport, protocol = await writer(loop, ours)
        transport.write(b"a" * size)
        assert transport.get_write_buffer_size() == 0
        changing = bytearray(b"b" * 1000)
        transport.write(changing)
        changing[:] = b"!" * 1000  # it was taken as it was
        assert transport.get_write_buffer_size() == 1000
        assert not protocol.paused
        transport.write(b"c" * 64536)
        assert transport.get_write_buffer_size() == 65536
        assert not protocol.paused
        transport.write(memoryview(b"d"))
        assert protocol.paused
        transport.write(b"e")
        assert protocol.calls == [("made",), ("pause",)]
        taken = bytearray()
        while transport.get_write_buffer_size():
            taken += theirs.read(size)
            await asyncio.sleep(0.0001)
        await protocol.until(lambda: not protocol.paused)
        assert protocol.calls == [("made",), ("pause",), ("resume",)]
        taken += theirs.read(size)
        assert taken == b"a" * size + b"b" * 1000 + b"c" * 64536 + b"de"
        transport.close()
        await protocol.lost

    run(main())


def test_limits(loop, run, pipe):
    theirs, ours = pipe

    async def main():
        transport, protocol = await writer(loop, ours)
        transport.set_write_buffer_limits(high=1000)
        assert transport.get_write_buffer_limits() == (250, 1000)
        transport.set_write_buffer_limits(low=1000)
        assert transport.get_write_buffer_limits() == (1000, 4000)
        transport.set_write_buffer_limits(0, 0)
        assert transport.get_write_buffer_limits() == (0, 0)
        with pytest.raises(ValueError, match=r"^high \(1\) must be >= low \(2\) must be >= 0$"):
            transport.set_write_buffer_limits(high=1, low=2)
        transport.write(bytes(capacity(ours) + 1))
        assert protocol.paused
        transport.set_write_buffer_limits()
        transport.abort()
        assert transport.get_write_buffer_size() == 0
        assert await protocol.lost is None

    run(main())


@pytest.mark.parametrize("end", ["close", "write_eof"])
def test_close_writes_what_waits(loop, run, pipe, end):
    theirs, ours = pipe
    size = capacity(ours)

    async def main():
        transport, protocol = await writer(loop, ours)
        transport.write(b"a" * (size + 5000))
        getattr(transport, end)()
        assert transport.is_closing()
        transport.write(b"dropped")
        assert transport.get_write_buffer_size() == 5000
        taken = bytearray(theirs.read(size))
        assert await protocol.lost is None
        taken += theirs.read(size)
        assert bytes(taken) == b"a" * (size + 5000)
        assert theirs.read(1) == b""

    run(main())


def test_abort_drops_what_waits(loop, run, pipe):
    theirs, ours = pipe
    size = capacity(ours)

    async def main():
        transport, protocol = await writer(loop, ours)
        transport.write(b"a" * (size + 5000))
        transport.close()
        transport.abort()
        assert transport.get_write_buffer_size() == 0
        assert await protocol.lost is None
        await asyncio.sleep(0)
        assert len(theirs.read(2 * size)) == size
        assert theirs.read(1) == b""
        assert [call[0] for call in protocol.calls] == ["made", "lost"]

    run(main())


def test_reader_that_hangs_up_is_noticed_at_once(loop, run, pipe):
    theirs, ours = pipe

    async def main():
        transport, protocol = await writer(loop, ours)
        theirs.close()
        assert await protocol.lost is None
        assert transport.is_closing()

    run(main())


def test_reader_that_hangs_up_while_something_waits(loop, run, pipe):
    theirs, ours = pipe

    async def main():
        transport, protocol = await writer(loop, ours)
        transport.write(bytes(capacity(ours) + 1))
        theirs.close()
        exc = await protocol.lost
        assert type(exc) is BrokenPipeError
        protocol.calls.clear()
        exc.__traceback__ = None

    run(main())


def test_write_to_a_broken_pipe(loop, run, reports, logs, pipe):
    theirs, ours = pipe

    async def main():
        transport, protocol = await writer(loop, ours)
        theirs.close()
        transport.write(b"x")
        for _ in range(6):
            transport.write(b"dropped")
        exc = await protocol.lost
        assert type(exc) is BrokenPipeError and exc.errno == errno.EPIPE
        transport.write(b"dropped")
        protocol.calls.clear()
        exc.__traceback__ = None

    run(main())
    messages = [record.getMessage() for record in logs.take()]
    assert messages == ["pipe closed by peer or os.write(pipe, data) raised exception."] * 3


def test_exceptions_of_a_writers_protocol(loop, run, reports, pipe):
    theirs, ours = pipe

    class Bad(Recorder):
        def pause_writing(self):
            super().pause_writing()
            raise ValueError("pause")

        def resume_writing(self):
            super().resume_writing()
            raise ValueError("resume")

    async def main():
        transport, protocol = await loop.connect_write_pipe(lambda: Bad(loop), ours)
        transport.set_write_buffer_limits(high=0)
        transport.write(bytes(capacity(ours) + 1))
        theirs.read(capacity(ours))
        await protocol.until(lambda: ("resume",) in protocol.calls)
        transport.close()
        await protocol.lost
        seen = reports.take()
        assert [report["message"] for report in seen] == [
            "protocol.pause_writing() failed",
            "protocol.resume_writing() failed",
        ]
        for report in seen:
            assert report["transport"] is transport
            assert report["protocol"] is protocol
            report["exception"].__traceback__ = None

    run(main())


def test_write_within_resume_writing(loop, run, pipe):
    theirs, ours = pipe
    size = capacity(ours)

    class Again(Recorder):
        def resume_writing(self):
            super().resume_writing()
            if self.again:
                self.again -= 1
                self.transport.write(bytes(size + 1))

    async def main():
        transport, protocol = await loop.connect_write_pipe(lambda: Again(loop), ours)
        protocol.again = 3
        transport.set_write_buffer_limits(high=0)
        transport.write(bytes(size + 1))
        transport.get_protocol()
        total = 0
        while total < 4 * (size + 1):
            total += len(theirs.read(size))
            await asyncio.sleep(0.0001)
        await protocol.until(lambda: not protocol.paused)
        transport.close()
        await protocol.lost
        assert [call[0] for call in protocol.calls] == ["made"] + ["pause", "resume"] * 4 + ["lost"]

    run(main())


def test_many_small_writes_to_a_full_pipe_keep_their_order(loop, run, pipe):
    theirs, ours = pipe
    size = capacity(ours)
    lines = [b"%d\n" % n for n in range(3000)]

    async def main():
        transport, protocol = await writer(loop, ours)
        transport.write(b"\n" * size)
        for line in lines:
            transport.write(line)
        transport.close()
        taken = bytearray()
        while not protocol.lost.done():
            taken += theirs.read(size)
            await asyncio.sleep(0.0001)
        taken += theirs.read(size)
        assert bytes(taken[size:]) == b"".join(lines)

    run(main())


# --- what they are made of


@pytest.mark.parametrize(
    "kind, message",
    [
        ("read", "Pipe transport is for pipes/sockets only."),
        ("write", "Pipe transport is only for pipes, sockets and character devices"),
    ],
)
def test_files_are_refused(loop, run, tmp_path, kind, message):
    path = tmp_path / "file"
    path.touch()

    async def main():
        with open(path, "r+b", 0) as file:
            connect = getattr(loop, f"connect_{kind}_pipe")
            with pytest.raises(ValueError, match=f"^{message}$"):
                await connect(lambda: Recorder(loop), file)
            assert not file.closed

    run(main())


@pytest.mark.parametrize("kind", ["read", "write"])
def test_things_that_are_no_files(impl, loop, run, unraisable, kind):
    class NoFile:
        def fileno(self):
            raise ValueError("no file")

    async def main():
        connect = getattr(loop, f"connect_{kind}_pipe")
        with pytest.raises(AttributeError, match="fileno"):
            await connect(lambda: Recorder(loop), object())
        with pytest.raises(ValueError, match="^no file$"):
            await connect(lambda: Recorder(loop), NoFile())

    run(main())
    if impl.name == "asyncio":  # the finalizers of its half-made transports fail
        gc.collect()
        unraisable.take()


def test_socket(loop, run):
    ours, theirs = socket.socketpair()

    async def main():
        transport, protocol = await writer(loop, ours)
        transport.write(b"x")
        assert theirs.recv(10) == b"x"
        # What comes from the other side is taken as its end.
        theirs.send(b"y")
        assert await protocol.lost is None

    run(main())
    theirs.close()


def test_terminal_opened_once_for_both_directions(impl, loop, run):
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(slave, False)
    reading, writing = open(master, "rb", 0), open(master, "wb", 0, closefd=False)

    async def main():
        write_transport, write_protocol = await writer(loop, writing)
        read_transport, read_protocol = await reader(loop, reading)
        os.write(slave, b"to us")
        await read_protocol.until(lambda: read_protocol.data == b"to us")
        # Fill it, so that the writer waits; reading goes on beside it.
        write_transport.write(b"x" * 200_000)
        assert write_transport.get_write_buffer_size() > 0
        os.write(slave, b"!")
        await read_protocol.until(lambda: read_protocol.data == b"to us!")
        taken = b""
        while len(taken) < 200_000:
            try:
                taken += os.read(slave, 4096)
            except BlockingIOError:
                await asyncio.sleep(0.0001)
        assert taken == b"x" * 200_000
        write_transport.close()
        await write_protocol.lost
        if impl.name == "asyncio":  # the writer's end has removed the reader as well
            read_transport.pause_reading()
            read_transport.resume_reading()
        os.write(slave, b"?")
        await read_protocol.until(lambda: read_protocol.data == b"to us!?")
        os.close(slave)
        # EIO: how a terminal says that its other side is gone.
        exc = await read_protocol.lost
        assert isinstance(exc, OSError) and exc.errno == errno.EIO
        read_protocol.calls.clear()
        exc.__traceback__ = None

    run(main())


def test_contexts(loop, run, pipe):
    ours, theirs = pipe
    var = contextvars.ContextVar("var", default="nothing")
    seen = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            seen.append(("made", var.get()))

        def data_received(self, data):
            seen.append(("data", var.get()))
            var.set("changed by data_received")

        def eof_received(self):
            seen.append(("eof", var.get()))

        def connection_lost(self, exc):
            lost.set_result(None)

    async def connect():
        var.set("of who connected")
        await loop.connect_read_pipe(Protocol, ours)

    async def main():
        await loop.create_task(connect())
        theirs.write(b"x")
        while len(seen) < 2:
            await asyncio.sleep(0)
        theirs.close()
        await lost

    lost = loop.create_future()
    run(main())
    assert seen[:2] == [("made", "of who connected"), ("data", "of who connected")]
    assert [call for call, _ in seen] == ["made", "data", "eof"]
    assert var.get() == "nothing"


def test_reprs(loop, run, pipe):
    def tail(transport):
        text = repr(transport)
        name = type(transport).__name__
        assert text.startswith(f"<{name} ") and text.endswith(">")
        return text[len(name) + 2 : -1]

    async def main():
        ours, theirs = pipe
        fd = ours.fileno()
        write_fd = theirs.fileno()
        transport, protocol = await reader(loop, ours)
        assert tail(transport) == f"fd={fd} polling"
        transport.pause_reading()
        assert tail(transport) == f"fd={fd} idle"
        transport.close()
        assert tail(transport) == f"closing fd={fd} idle"
        await protocol.lost
        await asyncio.sleep(0)
        assert tail(transport) == f"closed fd={fd} closed"

        reading, writing = os.pipe()
        with open(reading, "rb", 0) as reading:
            transport, protocol = await writer(loop, open(writing, "wb", 0))
            assert tail(transport) == f"fd={writing} idle bufsize=0"
            transport.write(bytes(capacity(writing) + 7))
            assert tail(transport) == f"fd={writing} polling bufsize=7"
            transport.close()
            assert tail(transport) == f"closing fd={writing} polling bufsize=7"
            transport.abort()
            await protocol.lost
            await asyncio.sleep(0)
            assert tail(transport) == f"closed fd={writing} closed"
        assert write_fd

    run(main())


def test_weak_references_and_attributes(loop, run, pipe):
    ours, theirs = pipe

    async def main():
        transport, protocol = await reader(loop, ours)
        transport.note = "mine"
        assert transport.__dict__["note"] == "mine"
        ref = weakref.ref(transport)
        assert ref() is transport
        transport.close()
        await protocol.lost
        del transport
        await asyncio.sleep(0)
        gc.collect()
        assert ref() is None

    run(main())


@pytest.mark.parametrize("kind", ["read", "write"])
def test_transport_that_nobody_closed(loop, run, pipe, kind):
    ours = pipe[kind == "write"]

    async def main():
        transport, protocol = await (reader if kind == "read" else writer)(loop, ours)
        if kind == "read":
            transport.pause_reading()  # the loop no longer holds it
        else:
            loop._remove_reader(ours.fileno())
        del protocol.transport
        fd = ours.fileno()
        with pytest.warns(ResourceWarning, match=f"^unclosed transport <.*Transport fd={fd} idle"):
            del transport, protocol
            await asyncio.sleep(0)
            gc.collect()
        assert ours.closed

    run(main())


def test_loop_that_is_closed_leaves_them_to_be_warned_about(impl, pipe):
    loop = impl.new_event_loop()

    async def main():
        await reader(loop, pipe[0])
        await writer(loop, pipe[1])

    loop.run_until_complete(main())
    loop.close()
    loop = None
    with pytest.warns(ResourceWarning) as caught:
        gc.collect()
    texts = sorted(str(w.message) for w in caught)
    assert len(texts) == 2
    assert all(text.startswith("unclosed transport <") for text in texts)
    assert pipe[0].closed and pipe[1].closed


def test_close_after_the_loop(impl, pipe):
    loop = impl.new_event_loop()

    async def main():
        return await reader(loop, pipe[0])

    transport, protocol = loop.run_until_complete(main())
    loop.close()
    loop = None
    with pytest.raises(RuntimeError, match="^Event loop is closed$"):
        transport.close()
    protocol.lost.cancel()
    del protocol.transport
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        del transport, protocol
        gc.collect()


def test_debug_mode_logs(loop, run, caplog, pipe):
    ours, theirs = pipe
    loop.set_debug(True)

    async def main():
        with caplog.at_level(logging.DEBUG, "asyncio"):
            transport, protocol = await reader(loop, ours)
            transport.pause_reading()
            transport.resume_reading()
            theirs.write(b"x")
            await protocol.until(lambda: protocol.data == b"x")
            theirs.close()
            await protocol.lost
            reading, writing = os.pipe()
            transport, protocol = await writer(loop, open(writing, "wb", 0))
            os.close(reading)
            transport.write(b"x")
            exc = await protocol.lost
            assert isinstance(exc, BrokenPipeError)
            exc.__traceback__ = None
            protocol.calls.clear()

    run(main())
    messages = [(record.levelname, record.getMessage()) for record in caplog.records]

    def logged(level, end):
        return any(name == level and text.endswith(end) for name, text in messages)

    assert logged("DEBUG", "pauses reading")
    assert logged("DEBUG", "resumes reading")
    assert logged("INFO", "was closed by peer")
    assert logged("DEBUG", ": Fatal write error on pipe transport")
    assert any(
        text.startswith(f"Read pipe {ours.fileno() if not ours.closed else ''}")
        for _, text in messages
    )
    for record in caplog.records:
        record.args = record.exc_info = None


def test_streams_over_pipes(loop, run, pipe):
    ours, theirs = pipe

    async def main():
        stream = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), ours)
        transport, protocol = await loop.connect_write_pipe(
            asyncio.streams.FlowControlMixin, theirs
        )
        out = asyncio.StreamWriter(transport, protocol, None, loop)
        data = bytes(range(256)) * 2000

        async def send():
            for start in range(0, len(data), 10_000):
                out.write(data[start : start + 10_000])
                await out.drain()
            out.close()

        sending = loop.create_task(send())
        assert await stream.read() == data
        await sending

    run(main())
    run(asyncio.sleep(0))


# --- misuse: whatever is called when, nothing crashes and the file is closed once


@pytest.mark.ctask_only
@pytest.mark.parametrize("kind", ["read", "write"])
@pytest.mark.parametrize("where", ["connection_made", "data_received", "resume_writing", "outside"])
@pytest.mark.parametrize(
    "what",
    [
        lambda t: t._call_connection_lost(None),
        lambda t: (t._read_ready(), t._write_ready()),
        lambda t: setattr(t, "_pipe", None),
        lambda t: (t.close(), t._call_connection_lost(OSError())),
        lambda t: (t.close(), t._read_ready(), t._write_ready(), t.close()),
        lambda t: t.set_protocol(None),
        lambda t: t._extra.clear(),
        lambda t: vars(t).clear(),
    ],
)
def test_calls_that_nobody_should_make(loop, run, pipe, reports, kind, where, what):
    reading, writing = pipe

    class Protocol(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            if where == "connection_made":
                what(transport)

        def data_received(self, data):
            super().data_received(data)
            if where == "data_received":
                what(self.transport)

        def resume_writing(self):
            super().resume_writing()
            if where == "resume_writing":
                what(self.transport)

        def connection_lost(self, exc):
            self.note("lost")
            if not self.lost.done():
                self.lost.set_result(None)

    async def main():
        if kind == "read":
            transport, protocol = await loop.connect_read_pipe(lambda: Protocol(loop), reading)
            with contextlib.suppress(BrokenPipeError):
                writing.write(b"x")
        else:
            transport, protocol = await loop.connect_write_pipe(lambda: Protocol(loop), writing)
            transport.set_write_buffer_limits(0)
            if not transport.is_closing() and not writing.closed:
                transport.write(bytes(capacity(writing) + 1))
            reading.read(capacity(reading))
        for _ in range(3):
            await asyncio.sleep(0.0005)
        if where == "outside":
            what(transport)
        repr(transport)
        await asyncio.sleep(0)
        transport.close()
        for _ in range(3):
            await asyncio.sleep(0)
        reading.close()
        writing.close()
        protocol.transport = None
        transport._pipe = None
        for _ in range(3):
            await asyncio.sleep(0.0005)
        repr(transport)
        transport.close()

    run(main())
    for report in reports.take():
        assert "NoneType" in str(report["exception"])  # of set_protocol(None)
        report["exception"].__traceback__ = None


@pytest.mark.ctask_only
def test_transports_are_made_by_the_loop_only(loop, run, pipe):
    async def main():
        transport, protocol = await reader(loop, pipe[0])
        with pytest.raises(TypeError, match="cannot create 'ctask.ReadPipeTransport' instances"):
            type(transport)()
        with pytest.raises(TypeError, match="not an acceptable base type"):
            type("Mine", (type(transport),), {})
        transport.close()
        await protocol.lost

    run(main())


# --- what others who have the file see


@pytest.fixture
def ends(pipe):
    """Both ends, and duplicates that stay with the test: what others have."""
    others = [os.dup(end.fileno()) for end in pipe]
    yield pipe, others
    for fd in others:
        os.close(fd)


async def some_turns():
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.ctask_only  # asyncio leaves them non-blocking
def test_files_block_again_when_their_transports_are_closed(loop, run, ends):
    (reading, writing), others = ends

    async def main():
        r, _ = await reader(loop, reading)
        w, _ = await writer(loop, writing)
        assert [os.get_blocking(fd) for fd in others] == [False] * 2
        w.write(b"x")
        w.close()
        r.close()
        await some_turns()
        assert [os.get_blocking(fd) for fd in others] == [True] * 2

    run(main())


def test_files_that_did_not_block_do_not_block_afterwards(loop, run, ends):
    (reading, _), (other, _) = ends
    os.set_blocking(other, False)

    async def main():
        transport, _ = await reader(loop, reading)
        transport.close()
        await some_turns()
        assert not os.get_blocking(other)

    run(main())


@pytest.mark.ctask_only
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_file_blocks_again_when_the_last_of_its_transports_is_closed(loop, run, order):
    # As stdin and stdout, which are one terminal.
    ours, theirs = socket.socketpair()
    with ours, theirs:
        files = [os.fdopen(os.dup(ours.fileno()), mode, 0) for mode in ("rb", "wb")]

        async def main():
            transports = [(await reader(loop, files[0]))[0], (await writer(loop, files[1]))[0]]
            transports[order[0]].close()
            await some_turns()
            assert not os.get_blocking(ours.fileno())
            transports[order[1]].close()
            await some_turns()
            assert os.get_blocking(ours.fileno())

        run(main())


@pytest.mark.ctask_only
def test_files_block_again_when_the_loop_is_closed(loop, run, ends):
    (reading, writing), others = ends

    async def main():
        return await reader(loop, reading), await writer(loop, writing)

    made = run(main())
    loop.close()
    assert [os.get_blocking(fd) for fd in others] == [True] * 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del made
        gc.collect()


@pytest.mark.ctask_only
def test_files_block_again_when_the_program_ends(script):
    script("""
    import os, subprocess
    if len(sys.argv) == 1:
        r, w = os.pipe()
        subprocess.run([sys.executable, *sys.orig_argv[1:], "child"], stdin=r, stdout=w, check=True)
        assert os.get_blocking(r) and os.get_blocking(w)
    else:
        async def main():
            loop = asyncio.get_running_loop()
            keep.append(await loop.connect_read_pipe(asyncio.Protocol, sys.stdin))
            keep.append(await loop.connect_write_pipe(asyncio.BaseProtocol, sys.stdout))
            assert not os.get_blocking(0) and not os.get_blocking(1)
            sys.exit(0)
        keep = sys.keep = []
        loop = impl.new_event_loop()
        loop.run_until_complete(main())
    """)


@pytest.mark.ctask_only
def test_file_closed_behind_its_transport_is_not_touched(loop, run, pipe):
    ours, _ = pipe
    theirs = os.pipe()

    async def main():
        transport, _ = await reader(loop, ours)
        number = ours.fileno()
        ours.close()
        os.dup2(theirs[0], number)
        os.set_blocking(number, False)
        transport.close()
        await some_turns()
        assert not os.get_blocking(number)
        for fd in (*theirs, number):
            os.close(fd)

    run(main())


@pytest.mark.ctask_only
def test_file_that_took_the_place_of_another_of_its_transports_is_not_touched(loop, run, ends):
    (_, writing), (_, other) = ends
    files = [os.fdopen(os.dup(other), "wb", 0) for _ in range(2)]

    async def main():
        loop.set_exception_handler(lambda loop, context: None)
        transports = [(await writer(loop, file))[0] for file in files]
        number = files[1].fileno()
        files[1].close()
        theirs = os.open(os.devnull, os.O_RDONLY)
        if theirs != number:
            os.dup2(theirs, number)
            os.close(theirs)
        transports[0].close()
        await some_turns()
        assert os.get_blocking(number)
        assert os.get_blocking(other)
        transports[1].close()
        await some_turns()
        os.close(number)

    run(main())


@pytest.mark.parametrize("how", ["closes", "aborts", "closes the loop", "ends"])
def test_forked_child_leaves_it_to_its_parent_whether_files_block(script, how):
    script(f"""
    import os
    warnings.simplefilter("ignore")
    r, w = os.pipe()
    other = os.dup(w)
    loop = impl.new_event_loop()
    async def start():
        return await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(w, "wb", 0))
    async def end(transport):
        transport.abort() if {how!r} == "aborts" else transport.close()
        for _ in range(5):
            await asyncio.sleep(0)
    transport, _ = loop.run_until_complete(start())
    pid = os.fork()
    if pid == 0:
        if {how!r} in ("closes", "aborts"):
            loop.run_until_complete(end(transport))
            os._exit(0)
        elif {how!r} == "closes the loop":
            loop.close()
            os._exit(0)
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert not os.get_blocking(other)
    loop.run_until_complete(end(transport))
    assert STOCK or os.get_blocking(other)
    loop.close()
    """)


@pytest.mark.ctask_only  # asyncio has no table that grows with the descriptor's number
def test_no_memory_to_watch_is_a_memory_error(memory_script):
    out = memory_script("""
    import resource
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    high = min(hard, 200000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (high, hard))
    told = []
    loop = impl.new_event_loop()
    loop.set_exception_handler(lambda loop, context: told.append(context["exception"]))
    reading, writing = os.pipe()
    file = open(os.dup2(reading, high - 1), "rb", 0)

    async def main():
        await asyncio.sleep(0)
        unlimited = resource.getrlimit(resource.RLIMIT_AS)
        with open("/proc/self/statm") as statm:
            size = int(statm.read().split()[0]) * os.sysconf("SC_PAGESIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + 500000, unlimited[1]))
        try:
            transport, _ = await asyncio.wait_for(loop.connect_read_pipe(asyncio.Protocol, file), 1)
            return transport
        except BaseException as error:
            told.append(error)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, unlimited)

    transport = loop.run_until_complete(main())
    if transport is not None:
        transport.close()
    loop.run_until_complete(asyncio.sleep(0))
    os.close(reading); os.close(writing); file.close()
    loop.close()
    print({type(error).__name__ for error in told})
    """)
    assert out.out == "{'MemoryError'}\n"
