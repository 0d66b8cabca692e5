"""StreamReader: read(), readexactly(), readuntil(), readline(), and what makes them coroutines."""

from __future__ import annotations

import asyncio
import collections.abc
import gc
import inspect
import sys
import warnings
import weakref
from unittest import mock

import pytest


class Transport:
    """Keeps account of what a reader asks of it."""

    def __init__(self):
        self.calls = []

    def pause_reading(self):
        self.calls.append("pause")

    def resume_reading(self):
        self.calls.append("resume")


@pytest.fixture
def make(impl, loop):
    def make(*chunks, eof=False, limit=2**16):
        reader = impl.StreamReader(limit=limit, loop=loop)
        for chunk in chunks:
            reader.feed_data(chunk)
        if eof:
            reader.feed_eof()
        return reader

    return make


def failure(run, coro):
    with pytest.raises(Exception) as caught:
        run(coro)
    return caught.value


# ---- read() ----


def test_read_takes_what_is_there(make, run):
    reader = make(b"some ", b"bytes")
    assert run(reader.read(4)) == b"some"
    assert run(reader.read(100)) == b" bytes"
    assert reader._buffer == b""


def test_read_waits_for_data(make, run, start):
    reader = make()
    task = start(reader.read(10))
    reader.feed_data(b"abc")
    assert run(task) == b"abc"


def test_read_waits_for_eof(make, run, start):
    reader = make()
    task = start(reader.read(10))
    reader.feed_eof()
    assert run(task) == b""
    assert run(reader.read(10)) == b""


def test_read_of_nothing_is_empty(make, run):
    reader = make(b"abc")
    assert run(reader.read(0)) == b""
    assert run(reader.read(3)) == b"abc"


@pytest.mark.parametrize("args", [(), (-1,), (-5,)])
def test_read_until_eof(make, run, start, args):
    reader = make(b"one ")
    task = start(reader.read(*args))
    reader.feed_data(b"two ")
    reader.feed_data(b"three")
    reader.feed_eof()
    assert run(task) == b"one two three"


def test_read_until_eof_of_more_than_the_limit(make, run, start):
    reader = make(limit=3)
    transport = Transport()
    reader.set_transport(transport)
    task = start(reader.read())
    for _ in range(5):
        reader.feed_data(b"0123456789")
    reader.feed_eof()
    assert run(task) == b"0123456789" * 5
    assert transport.calls == ["pause", "resume"]


def test_read_by_keyword(make, run):
    reader = make()
    reader.feed_data(data=b"abc")
    assert run(reader.read(n=2)) == b"ab"


def test_read_of_a_wrong_type_fails_when_awaited(make, run):
    reader = make(b"abc")
    for n in ("1", None):
        coro = reader.read(n)
        assert type(failure(run, coro)) is TypeError
    assert run(reader.read(3)) == b"abc"


def test_read_of_more_than_fits_an_index(make, run):
    assert run(make(b"abc").read(2**200)) == b"abc"


def test_read_with_wrong_arguments_fails_when_called(make):
    with pytest.raises(TypeError):
        make().read(1, 2)
    with pytest.raises(TypeError):
        make().readexactly()
    with pytest.raises(TypeError):
        make().readline(1)


def test_what_was_fed_is_not_what_is_changed_later(make, run):
    data = bytearray(b"abc")
    reader = make(data)
    data[0] = 0
    first = b"first"
    reader.feed_data(first)
    reader.feed_data(b"more")
    assert run(reader.read(100)) == b"abcfirstmore"
    assert first == b"first"


def test_single_bytes(make, run):
    reader = make()
    for _ in range(3):
        reader.feed_data(b"a")
        reader.feed_data(b"b")
        assert run(reader.read(1)) == b"a"
        assert run(reader.read(5)) == b"b"
    reader.feed_data(b"x")
    assert run(reader.read(1)) == b"x"


@pytest.mark.parametrize("data", [bytearray(b"ab"), memoryview(b"ab"), [97, 98]])
def test_feed_of_other_types(make, run, data):
    reader = make(data)
    assert run(reader.read(2)) == b"ab"


def test_feed_of_nothing_wakes_nobody(make, turn, run, start):
    reader = make()
    task = start(reader.read(1))
    reader.feed_data(b"")
    turn(2)
    assert not task.done()
    reader.feed_data(b"x")
    assert run(task) == b"x"


def test_feed_after_eof_is_refused(make):
    reader = make(eof=True)
    with pytest.raises(AssertionError, match="feed_data after feed_eof"):
        reader.feed_data(b"x")


# ---- the buffer ----


def test_many_sizes_of_pieces(make, run):
    reader = make(limit=10**6)
    expected = bytearray()
    out = bytearray()
    for i in range(600):
        piece = bytes([i % 251]) * (i * 37 % 113)
        reader.feed_data(piece)
        expected += piece
        if i % 3:
            out += run(reader.read(1 + i * 53 % 97))
    while len(out) < len(expected):
        out += run(reader.readexactly(min(100, len(expected) - len(out))))
    assert out == expected
    assert reader._buffer == b""


def test_large_pieces(make, run, start):
    reader = make(limit=2**22)
    block = bytes(range(256)) * 256
    task = start(reader.readexactly(10 * len(block) + 5))
    for _ in range(11):
        reader.feed_data(block)
    assert run(task) == block * 10 + block[:5]
    assert run(reader.read(2**22)) == block[5:]


@pytest.mark.parametrize("n", [5000, 9000, 70_000, 300_000, 1_500_000])
def test_most_of_what_is_there(make, run, start, n):
    reader = make(limit=2**22)
    block = bytes(range(251)) * (n // 250)
    first, second = block[: n // 2], block[n // 2 :]
    for _ in range(3):
        task = start(reader.readexactly(n))
        reader.feed_data(first)
        reader.feed_data(second)
        assert run(task) == block[:n]
        reader.feed_data(b"more")
        assert run(reader.read(2**22)) == block[n:] + b"more"
        reader.feed_data(bytearray(block))
        assert run(reader.read(n)) == block[:n]
        assert run(reader.read(2**22)) == block[n:]


def test_buffer_is_a_bytearray_that_may_be_changed(make, run):
    reader = make(b"abc", b"def")
    buffer = reader._buffer
    assert type(buffer) is bytearray and buffer == b"abcdef"
    assert reader._buffer is buffer
    del buffer[:2]
    reader.feed_data(b"gh")
    assert buffer == b"cdefgh"
    assert run(reader.read(3)) == b"cde"
    assert buffer == b"fgh"
    assert run(reader.readexactly(3)) == b"fgh"
    assert buffer == b"" and reader._buffer is buffer
    buffer.extend(b"line\nrest")
    assert run(reader.readline()) == b"line\n"
    reader._buffer = bytearray(b"new\n")
    assert run(reader.readuntil()) == b"new\n"


def test_buffer_that_cannot_be_resized(make, run):
    reader = make(b"abc")
    view = memoryview(reader._buffer)
    with pytest.raises(BufferError):
        reader.feed_data(b"def")
    view.release()
    reader.feed_data(b"def")
    assert run(reader.read(10)) == b"abcdef"


# ---- readexactly() ----


def test_readexactly(make, run, start):
    reader = make(b"abcdef")
    assert run(reader.readexactly(2)) == b"ab"
    assert run(reader.readexactly(0)) == b""
    task = start(reader.readexactly(6))
    reader.feed_data(b"g")
    reader.feed_data(b"hij")
    assert run(task) == b"cdefgh"
    assert reader._buffer == b"ij"


def test_readexactly_negative(make, run):
    exc = failure(run, make(b"abc").readexactly(-1))
    assert type(exc) is ValueError
    assert str(exc) == "readexactly size can not be less than zero"


def test_readexactly_at_eof(make, run, start):
    reader = make(b"abc")
    task = start(reader.readexactly(5))
    reader.feed_data(b"d")
    reader.feed_eof()
    exc = failure(run, task)
    assert type(exc) is asyncio.IncompleteReadError
    assert (exc.partial, exc.expected) == (b"abcd", 5)
    assert str(exc) == "4 bytes read on a total of 5 expected bytes"
    assert reader._buffer == b"" and reader.at_eof()


def test_readexactly_of_more_than_the_limit_resumes(make, run, start):
    reader = make(limit=4)
    transport = Transport()
    reader.set_transport(transport)
    reader.feed_data(b"0123456789")
    assert transport.calls == ["pause"]
    task = start(reader.readexactly(20))
    assert transport.calls == ["pause", "resume"]
    reader.feed_data(b"0123456789")
    assert run(task) == b"0123456789" * 2
    assert transport.calls[:3] == ["pause", "resume", "pause"]


# ---- readuntil() and readline() ----


def test_readline(make, run, start):
    reader = make(b"one\ntwo\nthr")
    assert run(reader.readline()) == b"one\n"
    assert run(reader.readline()) == b"two\n"
    task = start(reader.readline())
    reader.feed_data(b"ee\nfour")
    assert run(task) == b"three\n"
    reader.feed_eof()
    assert run(reader.readline()) == b"four"
    assert run(reader.readline()) == b""


def test_readuntil(make, run, start):
    reader = make(b"oneSEPtwoSE")
    assert run(reader.readuntil(b"SEP")) == b"oneSEP"
    task = start(reader.readuntil(b"SEP"))
    reader.feed_data(b"Pthree\nfour")
    assert run(task) == b"twoSEP"
    assert run(reader.readuntil()) == b"three\n"
    assert run(reader.readuntil(separator=b"u")) == b"fou"


def test_readuntil_at_eof(make, run):
    reader = make(b"abc", eof=True)
    exc = failure(run, reader.readuntil(b"\n"))
    assert type(exc) is asyncio.IncompleteReadError
    assert (exc.partial, exc.expected) == (b"abc", None)
    assert reader._buffer == b""


def test_readuntil_of_nothing(make, run):
    exc = failure(run, make(b"abc").readuntil(b""))
    assert type(exc) is ValueError
    assert str(exc) == "Separator should be at least one-byte string"


@pytest.mark.parametrize("separator", [bytearray(b"b"), memoryview(b"b")])
def test_readuntil_of_other_types(make, run, separator):
    assert run(make(b"abc").readuntil(separator)) == b"ab"


@pytest.mark.skipif(sys.version_info < (3, 13), reason="tuples are new in 3.13")
def test_readuntil_of_several(make, run, start):
    reader = make(b"one;two,three")
    assert run(reader.readuntil((b",", b";"))) == b"one;"
    assert run(reader.readuntil((b",", b";"))) == b"two,"
    task = start(reader.readuntil((b"xyz", b"\n")))
    reader.feed_data(b" x")
    reader.feed_data(b"yz")
    assert run(task) == b"three xyz"
    assert str(failure(run, reader.readuntil(()))) == (
        "Separator should contain at least one element"
    )


@pytest.mark.parametrize(
    "data, consumed, message",
    [
        (b"0123456789", 10, "Separator is not found, and chunk exceed the limit"),
        (b"0123456\n89", 7, "Separator is found, but chunk is longer than limit"),
    ],
)
def test_readuntil_over_the_limit_leaves_the_buffer(make, run, data, consumed, message):
    reader = make(data, limit=5)
    exc = failure(run, reader.readuntil())
    assert type(exc) is asyncio.LimitOverrunError
    assert (str(exc), exc.consumed) == (message, consumed)
    assert reader._buffer == data


def test_readline_over_the_limit_drops_the_line(make, run):
    reader = make(b"0123456\n89", limit=5)
    exc = failure(run, reader.readline())
    assert type(exc) is ValueError
    assert exc.args == ("Separator is found, but chunk is longer than limit",)
    assert type(exc.__context__) is asyncio.LimitOverrunError
    assert reader._buffer == b"89"


def test_readline_over_the_limit_drops_all_there_is(make, run, start):
    reader = make(limit=5)
    transport = Transport()
    reader.set_transport(transport)
    task = start(reader.readline())
    reader.feed_data(b"0123")
    reader.feed_data(b"456789abc")
    exc = failure(run, task)
    assert exc.args == ("Separator is not found, and chunk exceed the limit",)
    assert reader._buffer == b""
    assert transport.calls == ["pause", "resume"]


def test_a_line_of_just_the_limit(make, run):
    reader = make(b"01234\n", limit=5)
    assert run(reader.readline()) == b"01234\n"


def test_iteration_over_lines(make, run):
    reader = make(b"one\ntwo\n\nend", eof=True)

    async def lines():
        return [line async for line in reader]

    assert run(lines()) == [b"one\n", b"two\n", b"\n", b"end"]


def test_aiter_is_the_reader(make):
    reader = make()
    assert aiter(reader) is reader


# ---- flow control ----


def test_pauses_above_twice_the_limit_and_resumes_at_the_limit(make, run):
    reader = make(limit=5)
    transport = Transport()
    reader.set_transport(transport)
    reader.feed_data(b"0123456789")
    assert transport.calls == [] and not reader._paused
    reader.feed_data(b"a")
    reader.feed_data(b"b")
    assert transport.calls == ["pause"] and reader._paused
    assert run(reader.read(6)) == b"012345"
    assert transport.calls == ["pause"]
    assert run(reader.read(1)) == b"6"
    assert transport.calls == ["pause", "resume"] and not reader._paused


def test_a_transport_that_cannot_pause_is_forgotten(make, run):
    reader = make(limit=1)
    transport = mock.Mock()
    transport.pause_reading.side_effect = NotImplementedError
    reader.set_transport(transport)
    reader.feed_data(b"abcdef")
    reader.feed_data(b"ghi")
    assert transport.pause_reading.call_count == 1
    assert reader._transport is None
    assert run(reader.read(20)) == b"abcdefghi"


def test_a_transport_that_fails_to_pause(make, run):
    reader = make(limit=1)
    transport = mock.Mock()
    transport.pause_reading.side_effect = ZeroDivisionError
    reader.set_transport(transport)
    with pytest.raises(ZeroDivisionError):
        reader.feed_data(b"abcdef")
    assert not reader._paused
    assert run(reader.read(20)) == b"abcdef"


def test_a_second_transport_is_refused(make):
    reader = make()
    reader.set_transport(Transport())
    with pytest.raises(AssertionError, match="Transport already set"):
        reader.set_transport(Transport())


@pytest.mark.parametrize("limit", [2**100, 12.5])
def test_odd_limits(impl, loop, run, limit):
    reader = impl.StreamReader(limit=limit, loop=loop)
    reader.set_transport(Transport())
    reader.feed_data(b"abc\ndef")
    assert reader._limit == limit
    assert run(reader.readline()) == b"abc\n"
    assert run(reader.read(2)) == b"de"


@pytest.mark.parametrize("limit", [0, -1])
def test_no_limit_is_refused(impl, loop, limit):
    with pytest.raises(ValueError, match="Limit cannot be <= 0"):
        impl.StreamReader(limit=limit, loop=loop)


# ---- ends and exceptions ----


def test_at_eof(make, run):
    reader = make(b"abc")
    assert reader.at_eof() is False
    reader.feed_eof()
    assert reader.at_eof() is False
    run(reader.read())
    assert reader.at_eof() is True


@pytest.mark.parametrize(
    "method, args",
    [("read", (1,)), ("read", ()), ("readexactly", (5,)), ("readline", ()), ("readuntil", (b"x",))],
)
def test_an_exception_reaches_who_waits_and_who_comes_later(make, run, start, method, args):
    reader = make()
    task = start(getattr(reader, method)(*args))
    exc = ZeroDivisionError("lost")
    reader.set_exception(exc)
    assert reader.exception() is exc
    assert failure(run, task) is exc
    assert failure(run, getattr(reader, method)(*args)) is exc
    exc.__traceback__ = None


def test_data_before_an_exception_reaches_who_waits(make, run, start):
    reader = make()
    task = start(reader.read(5))
    reader.feed_data(b"abc")
    reader.set_exception(ZeroDivisionError())
    assert run(task) == b"abc"


@pytest.mark.parametrize("first", ["read", "readline", "readuntil"])
def test_a_second_reader_is_refused(make, run, start, first):
    reader = make()
    task = start(getattr(reader, first)())
    for method, args in (
        ("read", (1,)),
        ("read", ()),
        ("readexactly", (1,)),
        ("readuntil", ()),
        ("readline", ()),
    ):
        exc = failure(run, getattr(reader, method)(*args))
        name = "readuntil" if method == "readline" else method
        assert type(exc) is RuntimeError
        assert str(exc) == (
            f"{name}() called while another coroutine is already waiting for incoming data"
        )
    reader.feed_data(b"x\n")
    reader.feed_eof()
    assert run(task) == b"x\n"


@pytest.mark.parametrize("method, args", [("read", (5,)), ("readexactly", (5,)), ("readline", ())])
def test_cancelled_while_waiting_loses_nothing(make, run, start, turn, method, args):
    reader = make()
    task = start(getattr(reader, method)(*args))
    assert reader._waiter is not None
    task.cancel("enough")
    reader.feed_data(b"12345\n")
    with pytest.raises(asyncio.CancelledError):
        run(task)
    assert reader._waiter is None
    assert run(reader.readline()) == b"12345\n"


def test_timeout(make, run):
    reader = make()

    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.001)
        reader.feed_data(b"x")
        return await asyncio.wait_for(reader.read(1), 10)

    assert run(main()) == b"x"


def test_feed_eof_twice(make, run):
    reader = make(eof=True)
    reader.feed_eof()
    assert run(reader.read()) == b""


# ---- as coroutines ----


METHODS = [("read", (3,)), ("read", ()), ("readexactly", (3,)), ("readline", ()), ("readuntil", ())]


@pytest.mark.parametrize("method, args", METHODS)
def test_is_a_coroutine_to_all_who_ask(make, method, args):
    coro = getattr(make(b"abc\n", eof=True), method)(*args)
    assert asyncio.iscoroutine(coro)
    assert isinstance(coro, collections.abc.Coroutine)
    assert isinstance(coro, collections.abc.Awaitable)
    assert not isinstance(coro, collections.abc.Iterator)
    assert inspect.isawaitable(coro)
    assert coro.__name__ == method
    assert coro.__qualname__ == f"StreamReader.{method}"
    assert repr(coro).startswith(f"<coroutine object StreamReader.{method} at 0x")
    coro.close()


def test_methods_are_coroutine_functions(impl, make):
    reader = make()
    for name in ("read", "readexactly", "readline", "readuntil", "__anext__"):
        assert inspect.iscoroutinefunction(getattr(impl.StreamReader, name))
        assert inspect.iscoroutinefunction(getattr(reader, name))
    assert str(inspect.signature(impl.StreamReader.readexactly)) == "(self, n)"
    assert str(inspect.signature(reader.read)) == "(n=-1)"
    assert impl.StreamReader.read.__name__ == "read"
    assert impl.StreamReader.read.__doc__


def test_mocks_have_coroutine_methods(impl, run):
    reader = mock.create_autospec(impl.StreamReader)
    reader.read.return_value = b"mocked"
    assert run(reader.read(5)) == b"mocked"
    reader = mock.AsyncMock(spec=impl.StreamReader)
    reader.readline.return_value = b"line"
    assert isinstance(reader, impl.StreamReader)
    assert run(reader.readline()) == b"line"


def test_ends_without_suspending_if_the_data_is_there(make):
    reader = make(b"abc")
    coro = reader.read(2)
    with pytest.raises(StopIteration) as caught:
        coro.send(None)
    assert caught.value.value == b"ab"
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coro.send(None)


def test_nothing_happens_before_it_is_awaited(make, run):
    reader = make(b"abc")
    coro = reader.read(2)
    assert reader._buffer == b"abc"
    assert run(coro) == b"ab"


def test_send_before_the_start(make):
    coro = make(b"abc").read(2)
    with pytest.raises(TypeError, match="can't send non-None value to a just-started coroutine"):
        coro.send(1)
    coro.close()


def test_driven_by_hand(make):
    reader = make()
    coro = reader.read(5)
    waiter = coro.send(None)
    assert waiter is reader._waiter and waiter._asyncio_future_blocking
    reader.feed_data(b"abc")
    assert waiter.done() and reader._waiter is None
    with pytest.raises(StopIteration) as caught:
        coro.send(None)
    assert caught.value.value == b"abc"


def test_await_drives_it(make):
    reader = make(b"abc")
    iterator = reader.read(5).__await__()
    with pytest.raises(StopIteration) as caught:
        next(iterator)
    assert caught.value.value == b"abc"


def test_yield_from_await(make, run):
    class Line:
        def __init__(self, reader):
            self.reader = reader

        def __await__(self):
            line = yield from self.reader.readline().__await__()
            return line.strip()

    async def main():
        return await Line(make(b"abc \n"))

    assert run(main()) == b"abc"


def test_throw_before_the_start(make):
    coro = make(b"abc").read(5)
    with pytest.raises(ZeroDivisionError):
        coro.throw(ZeroDivisionError())
    with pytest.raises(RuntimeError):
        coro.send(None)


def test_throw_while_waiting(make):
    reader = make()
    coro = reader.read(5)
    coro.send(None)
    with pytest.raises(ZeroDivisionError):
        coro.throw(ZeroDivisionError("here"))
    assert reader._waiter is None


def test_close_while_waiting(make):
    reader = make()
    coro = reader.readline()
    coro.send(None)
    coro.close()
    assert reader._waiter is None
    coro.close()
    with pytest.raises(RuntimeError):
        coro.send(None)


def test_dropped_while_waiting(make):
    reader = make()
    coro = reader.readline()
    coro.send(None)
    del coro
    gc.collect()
    assert reader._waiter is None


@pytest.mark.parametrize("method, args", METHODS)
def test_warns_if_it_was_never_awaited(make, method, args):
    reader = make(b"abc")
    with pytest.warns(RuntimeWarning, match=f"coroutine 'StreamReader.{method}' was never awaited"):
        getattr(reader, method)(*args)
        gc.collect()


def test_closed_before_the_start_does_not_warn(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make().read().close()


def test_a_task_that_waits_is_collected_with_its_reader(impl, loop, turn, logs):
    reader = impl.StreamReader(loop=loop)
    reader.task = loop.create_task(reader.read(1))
    turn()
    del reader
    gc.collect()
    assert [record.getMessage().split("\n")[0] for record in logs.take()] == [
        "Task was destroyed but it is pending!"
    ]


# ---- the object ----


def test_is_asyncios(impl, make):
    reader = make()
    assert isinstance(reader, asyncio.StreamReader)
    assert issubclass(impl.StreamReader, asyncio.StreamReader)


def test_repr(make, run):
    reader = make(b"abc", limit=10)
    reader.set_transport("<transport>")
    assert repr(reader) == "<StreamReader 3 bytes limit=10 transport='<transport>'>"
    run(reader.read(3))
    reader.feed_eof()
    reader.set_exception(ValueError("x"))
    assert repr(reader) == (
        "<StreamReader eof limit=10 exception=ValueError('x') transport='<transport>'>"
    )


def test_source_traceback_in_debug_mode(impl, loop):
    assert impl.StreamReader(loop=loop)._source_traceback is None
    loop.set_debug(True)
    frame = impl.StreamReader(loop=loop)._source_traceback[-1]
    assert frame.filename == __file__
    assert frame.name == "test_source_traceback_in_debug_mode"


def test_without_init(impl):
    reader = impl.StreamReader.__new__(impl.StreamReader)
    for call in (
        lambda: reader.feed_data(b"abc"),
        lambda: reader.read(1).send(None),
        lambda: reader._loop,
        lambda: reader.set_transport(None),
        lambda: reader._maybe_resume_transport(),
    ):
        try:
            call()
        except (AttributeError, StopIteration):
            pass


@pytest.mark.parametrize(
    "name, after",
    [
        ("_waiter", None),
        ("_exception", None),
        ("_transport", None),
        ("_eof", False),
        ("_paused", False),
        ("_buffer", b""),
    ],
)
def test_what_was_set_before_init(impl, loop, name, after):
    reader = impl.StreamReader.__new__(impl.StreamReader)
    before = Transport() if after is None else True if after is False else bytearray(b"before")
    setattr(reader, name, before)
    ref = weakref.ref(before) if after is None else bool
    del before
    reader.__init__(loop=loop)
    assert getattr(reader, name) == after
    assert not ref()


@pytest.mark.parametrize(
    "name", ["_task", "_transport", "_client_connected_cb", "_stream_reader_wr", "_paused"]
)
def test_what_was_set_before_init_of_a_protocol(impl, loop, make, name):
    protocol = impl.StreamReaderProtocol.__new__(impl.StreamReaderProtocol)
    before = True if name == "_paused" else Transport()
    setattr(protocol, name, before)
    ref = bool if name == "_paused" else weakref.ref(before)
    del before
    reader = make()
    protocol.__init__(reader, loop=loop)
    assert not ref()
    assert protocol._stream_reader_wr() is reader
    assert not protocol._paused
    assert protocol._task is protocol._transport is protocol._client_connected_cb is None


def test_the_end_of_a_connection_is_asked_for_when_it_comes(impl, loop, make):
    reader = make()
    protocol = impl.StreamReaderProtocol(reader, loop=loop)
    waiters = []
    reader.feed_eof = lambda: waiters.append(protocol._get_close_waiter(None))
    protocol.connection_lost(None)
    assert waiters[0].done()
    del reader.feed_eof


@pytest.mark.ctask_only
def test_the_end_is_asked_for_while_its_future_is_made(impl, loop, make, monkeypatch):
    def create_future():
        if not asked:
            asked.append(None)
            asked[0] = protocol._closed
        return stock()

    reader = make()
    protocol = impl.StreamReaderProtocol(reader, loop=loop)
    stock, asked = loop.create_future, []
    with monkeypatch.context() as patch:
        patch.setattr(loop, "create_future", create_future)
        assert protocol._closed is asked[0] is protocol._closed


def test_attributes_may_be_patched_and_deleted(make, run):
    reader = make(b"abc")
    with mock.patch.object(reader, "_transport", "patched"):
        assert reader._transport == "patched"
    assert reader._transport is None
    del reader._loop
    with pytest.raises(AttributeError):
        reader._loop
    assert run(reader.read(5)) == b"abc"
    with pytest.raises(AttributeError):
        reader.read(5).send(None)


def test_a_subclass_that_overrides_methods_is_called(impl, loop, run):
    seen = []

    class Reader(impl.StreamReader):
        async def readuntil(self, separator=b"\n"):
            seen.append(separator)
            return await super().readuntil(separator)

        async def read(self, n=-1):
            seen.append(n)
            return await super().read(n)

        def _wakeup_waiter(self):
            seen.append("wake")
            super()._wakeup_waiter()

    reader = Reader(loop=loop, limit=100)
    reader.feed_data(b"one\ntwo")
    reader.feed_eof()
    assert run(reader.readline()) == b"one\n"
    assert run(reader.read()) == b"two"
    assert seen == ["wake", "wake", b"\n", -1, 100, 100]


def test_methods_replaced_on_the_instance_or_the_class_are_called(impl, make, run):
    reader = make(b"one\n")
    reader.readuntil = mock.AsyncMock(return_value=b"mocked")
    assert run(reader.readline()) == b"mocked"
    reader = make(b"one\n")
    with mock.patch.object(impl.StreamReader, "readuntil", mock.AsyncMock(return_value=b"again")):
        assert run(reader.readline()) == b"again"
    assert run(reader.readline()) == b"one\n"


def test_a_plain_subclass(impl, loop, run):
    class Reader(impl.StreamReader):
        pass

    reader = Reader(loop=loop)
    reader.extra = 1
    reader.feed_data(b"abc\n")
    assert run(reader.readline()) == b"abc\n"


@pytest.mark.ctask_only
def test_works_on_asyncios_own_loop(impl):
    async def main():
        reader = impl.StreamReader(loop=asyncio.get_running_loop())
        task = asyncio.create_task(reader.readexactly(4))
        await asyncio.sleep(0)
        reader.feed_data(b"ab")
        await asyncio.sleep(0)
        reader.feed_data(b"cd")
        return await task

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        assert runner.run(main()) == b"abcd"


def test_a_waiter_of_another_kind(make, loop):
    reader = make()
    reader._waiter = mock.Mock()
    reader._waiter.cancelled.return_value = False
    waiter = reader._waiter
    reader.feed_data(b"x")
    waiter.set_result.assert_called_once_with(None)
    assert reader._waiter is None


@pytest.mark.parametrize("name", ["LimitOverrunError", "IncompleteReadError"])
@pytest.mark.parametrize("method", ["readuntil", "readline", "readexactly"])
def test_a_class_of_errors_that_makes_something_else(script, name, method):
    script(
        f"""
        import asyncio, gc
        if not STOCK:
            impl.install()
        kind = getattr(asyncio, {name!r})
        kind.__new__ = lambda cls, *args: []
        loop = impl.new_event_loop()

        async def main():
            reader = asyncio.StreamReader(limit=2, loop=loop)
            reader.feed_data(b"evil")
            reader.feed_eof()
            try:
                await getattr(reader, {method!r})(*([9] if {method!r} == "readexactly" else []))
            except Exception as exc:
                assert not isinstance(exc, SystemError), repr(exc)
                try:
                    raise ValueError
                except ValueError as other:
                    other.__context__
                seen = exc
                while seen is not None:
                    assert isinstance(seen, BaseException)
                    seen = seen.__context__

        loop.run_until_complete(main())
        loop.close()
        """
    )
