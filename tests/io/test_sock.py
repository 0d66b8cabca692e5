"""sock_recv, sock_sendall and their relatives: results, waiting, cancelling, errors."""

import asyncio
import collections.abc
import contextlib
import errno
import gc
import inspect
import os
import re
import socket
import ssl
import subprocess
import sys
import types
import warnings
import weakref
from unittest import mock

import pytest


@pytest.fixture
def listener():
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    with sock:
        yield sock


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6])
def udp(request):
    host = "127.0.0.1" if request.param == socket.AF_INET else "::1"
    a, b = (socket.socket(request.param, socket.SOCK_DGRAM) for _ in range(2))
    with a, b:
        for sock in (a, b):
            sock.bind((host, 0))
            sock.setblocking(False)
        yield a, b


def fill(sock: socket.socket) -> int:
    """Send until the socket's buffer is full."""
    n = 0
    try:
        while True:
            n += sock.send(b"f" * 65536)
    except BlockingIOError:
        return n


async def settle():
    """Give a task that was just made the time to wait."""
    for _ in range(3):
        await asyncio.sleep(0)


def steps(coro):
    """What a coroutine returns, which must not wait."""
    with pytest.raises(StopIteration) as info:
        coro.send(None)
    return info.value.value


# ---- what the methods return


METHODS = (
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_recvfrom_into",
    "sock_sendall",
    "sock_sendto",
    "sock_connect",
    "sock_accept",
)


def operations(loop, sock):
    """A coroutine of each operation, one after the other."""
    yield loop.sock_recv(sock, 1)
    yield loop.sock_recv_into(sock, bytearray(1))
    yield loop.sock_recvfrom(sock, 1)
    yield loop.sock_recvfrom_into(sock, bytearray(1))
    yield loop.sock_sendall(sock, b"x")
    yield loop.sock_sendto(sock, b"x", "/nowhere")
    yield loop.sock_connect(sock, ("127.0.0.1", 1))
    yield loop.sock_accept(sock)


def test_operations_are_coroutines(loop, pair):
    for coro in operations(loop, pair[0]):
        assert asyncio.iscoroutine(coro)
        assert inspect.iscoroutine(coro)
        assert inspect.isawaitable(coro)
        assert isinstance(coro, (types.CoroutineType, collections.abc.Coroutine))
        assert re.fullmatch(r"sock_\w+", coro.__name__)
        assert coro.__qualname__ == f"BaseSelectorEventLoop.{coro.__name__}"
        assert repr(coro).startswith(f"<coroutine object {coro.__qualname__} at 0x")
        assert coro.cr_code.co_name == coro.cr_frame.f_code.co_name == coro.__name__
        assert coro.cr_await is None
        assert inspect.getcoroutinestate(coro) == inspect.CORO_CREATED
        coro.close()
        assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED


def test_a_waiting_operation_shows_what_it_waits_for(loop, run, pair):
    a, _ = pair

    async def main():
        task = loop.create_task(loop.sock_recv(a, 1))
        await settle()
        coro = task.get_coro()
        assert inspect.getcoroutinestate(coro) == inspect.CORO_SUSPENDED
        assert coro.cr_await is not None
        assert [frame.f_code.co_name for frame in task.get_stack()] == ["sock_recv"]
        assert "coro=<BaseSelectorEventLoop.sock_recv() " in repr(task)
        task.cancel()
        await asyncio.wait([task])

    run(main())


@pytest.mark.parametrize("name", METHODS)
def test_the_methods_are_coroutine_functions(loop, name):
    method = getattr(loop, name)
    assert inspect.iscoroutinefunction(method)
    assert inspect.iscoroutinefunction(getattr(type(loop), name))
    stock = getattr(asyncio.SelectorEventLoop, name)
    assert inspect.signature(getattr(type(loop), name)) == inspect.signature(stock)
    assert method.__doc__ == stock.__doc__
    assert method.__name__ == name
    with mock.patch.object(loop, name) as mocked:
        assert isinstance(mocked, mock.AsyncMock)
    for spec in (type(loop), loop):
        assert isinstance(getattr(mock.create_autospec(spec), name), mock.AsyncMock)


def test_a_mocked_method_is_awaited(loop, run, pair):
    async def main():
        with mock.patch.object(loop, "sock_recv", return_value=b"mocked") as mocked:
            assert await loop.sock_recv(pair[0], 10) == b"mocked"
        mocked.assert_awaited_once_with(pair[0], 10)

    run(main())


def test_nothing_happens_before_it_is_awaited(loop, run, pair):
    a, b = pair
    b.send(b"data")
    coro = loop.sock_recv(a, 10)
    assert a.recv(2) == b"da"
    assert run(coro) == b"ta"


def test_never_awaited_warns(loop, pair):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.sock_recv(pair[0], 10)
        gc.collect()
    assert [str(w.message) for w in caught] == [
        "coroutine 'BaseSelectorEventLoop.sock_recv' was never awaited"
    ]
    assert caught[0].category is RuntimeWarning


def test_arguments_are_checked_by_the_call(loop, pair):
    a, _ = pair
    with pytest.raises(TypeError, match=r"sock_recv\(\) missing 1 required positional"):
        loop.sock_recv(a)
    with pytest.raises(TypeError, match=r"sock_accept\(\) takes 2 positional arguments but 3"):
        loop.sock_accept(a, 1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'flags'"):
        loop.sock_recv(a, 1, flags=0)


def test_keywords(loop, run, pair):
    a, b = pair
    run(loop.sock_sendall(sock=b, data=b"abcdef"))
    assert run(loop.sock_recv(a, n=2)) == b"ab"
    assert run(loop.sock_recv(n=2, sock=a)) == b"cd"
    assert run(loop.sock_recvfrom(a, bufsize=2)) == (b"ef", None)


# ---- a coroutine driven by hand


def test_completes_without_a_turn_of_the_loop(loop, pair):
    a, b = pair
    assert steps(loop.sock_sendall(a, b"data")) is None
    assert steps(loop.sock_recv(b, 10)) == b"data"


def test_first_send_takes_none(loop, pair):
    coro = loop.sock_recv(pair[0], 1)
    with pytest.raises(TypeError, match="can't send non-None value to a just-started coroutine"):
        coro.send(1)
    coro.close()


def test_yields_a_future_and_insists_on_it(loop, pair):
    coro = loop.sock_recv(pair[0], 1)
    fut = coro.send(None)
    assert asyncio.isfuture(fut) and fut.get_loop() is loop and not fut.done()
    with pytest.raises(RuntimeError, match="await wasn't used with future"):
        coro.send(None)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coro.send(None)
    fut.cancel()


def test_ended_coroutine_cannot_be_reused(loop, pair):
    coro = loop.sock_sendall(pair[0], b"")
    steps(coro)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coro.send(None)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coro.throw(ValueError())
    coro.close()


def test_throw_and_close_end_it(loop, pair):
    a, _ = pair
    coro = loop.sock_recv(a, 1)
    with pytest.raises(ZeroDivisionError):
        coro.throw(ZeroDivisionError)
    with pytest.raises(RuntimeError):
        coro.send(None)
    coro = loop.sock_recv(a, 1)
    fut = coro.send(None)
    with pytest.raises(ZeroDivisionError):
        coro.throw(ZeroDivisionError("x"))
    fut.cancel()
    coro = loop.sock_recv(a, 1)
    fut = coro.send(None)
    coro.close()
    coro.close()
    fut.cancel()
    with pytest.raises(RuntimeError):
        coro.send(None)


def test_await_protocol_in_python(loop, run, pair):
    a, b = pair

    class Wrapped:
        def __await__(self):
            return (yield from loop.sock_recv(a, 10).__await__())

    async def main():
        task = loop.create_task(get())
        await settle()
        b.send(b"x")
        return await task

    async def get():
        return await Wrapped()

    assert run(main()) == b"x"


# ---- streams


@pytest.mark.parametrize("size", [1, 1000, 65536, 300_000])
def test_recv_waits_and_returns_what_is_there(loop, run, pair, size):
    a, b = pair

    async def main():
        task = loop.create_task(loop.sock_recv(a, size))
        await settle()
        assert not task.done()
        b.send(b"xyz")
        return await task

    data = run(main())
    assert type(data) is bytes and data == b"xyz"[:size]


def test_recv_end_of_stream(loop, run, pair):
    a, b = pair
    b.close()
    assert run(loop.sock_recv(a, 10)) == b""


def test_recv_nothing_is_wanted(loop, run, pair):
    a, b = pair
    assert run(loop.sock_recv(a, 0)) == b""
    assert run(loop.sock_recv_into(a, bytearray())) == 0


def test_recv_size_errors(loop, run, pair):
    a, _ = pair
    with pytest.raises(ValueError, match="negative buffersize in recv"):
        run(loop.sock_recv(a, -1))
    with pytest.raises(TypeError, match="'str' object cannot be interpreted as an integer"):
        run(loop.sock_recv(a, "1"))
    for size in (1 << 80, -(1 << 80)):
        with pytest.raises(OverflowError, match="too large to convert to C ssize_t"):
            run(loop.sock_recv(a, size))
    with pytest.raises(ValueError, match="negative buffersize in recvfrom"):
        run(loop.sock_recvfrom(a, -1))


def test_recv_size_by_index(loop, run, pair):
    a, b = pair

    class Two:
        def __index__(self):
            return 2

    b.send(b"abc")
    assert run(loop.sock_recv(a, Two())) == b"ab"


def test_recv_into(loop, run, pair):
    a, b = pair
    buf = bytearray(b"........")

    async def main():
        task = loop.create_task(loop.sock_recv_into(a, memoryview(buf)[2:6]))
        await settle()
        assert not task.done()
        b.send(b"abcdef")
        return await task

    assert run(main()) == 4
    assert buf == b"..abcd.."
    with pytest.raises(TypeError, match="read-write bytes-like object, not bytes"):
        run(loop.sock_recv_into(a, b"xx"))
    with pytest.raises(TypeError, match="read-write bytes-like object, not int"):
        run(loop.sock_recv_into(a, 5))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_sendall_waits_until_all_is_sent(loop, run, pair, kind):
    a, b = pair
    data = os.urandom(1 << 20)

    async def main():
        task = loop.create_task(loop.sock_sendall(a, kind(data)))
        await settle()
        assert not task.done()
        got = b""
        while len(got) < len(data):
            got += await loop.sock_recv(b, 100_000)
        assert await task is None
        return got

    assert run(main()) == data


def test_sendall_nothing(loop, run, pair):
    assert run(loop.sock_sendall(pair[0], b"")) is None


def test_sendall_holds_the_buffer_while_it_waits(loop, run, pair):
    a, b = pair
    data = bytearray(1 << 20)

    async def main():
        task = loop.create_task(loop.sock_sendall(a, data))
        await settle()
        with pytest.raises(BufferError):
            data.append(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task

    run(main())
    gc.collect()
    data.append(1)


@pytest.mark.ctask_only  # asyncio sends nothing again and again
@pytest.mark.skipif(sys.version_info < (3, 12), reason="no __buffer__()")
def test_sendall_of_what_becomes_shorter(loop, run, pair):
    class Shorter:
        def __buffer__(self, flags):
            return memoryview(bytes(sizes.pop(0)))

    a, b = pair
    sizes = [1 << 22, 10]

    async def main():
        task = loop.create_task(loop.sock_sendall(a, Shorter()))
        await settle()
        await loop.sock_recv(b, 1 << 22)
        with pytest.raises(BufferError, match="the data has become shorter while it was sent"):
            await task

    run(main())


def test_sendall_errors(loop, run, pair):
    a, b = pair
    with pytest.raises(TypeError, match="a bytes-like object is required, not 'str'"):
        run(loop.sock_sendall(a, "text"))
    b.close()
    with pytest.raises(BrokenPipeError):
        run(loop.sock_sendall(a, b"x"))


def test_sendall_peer_goes_while_it_waits(loop, run, pair):
    a, b = pair

    async def main():
        task = loop.create_task(loop.sock_sendall(a, bytes(1 << 20)))
        await settle()
        b.close()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            await task

    run(main())


def test_many_round_trips(loop, run, pair):
    a, b = pair

    async def echo():
        while data := await loop.sock_recv(b, 1000):
            await loop.sock_sendall(b, data)

    async def main():
        task = loop.create_task(echo())
        for i in range(200):
            await loop.sock_sendall(a, b"%d" % i)
            assert await loop.sock_recv(a, 100) == b"%d" % i
        a.shutdown(socket.SHUT_WR)
        await task

    run(main())


def test_both_directions_wait_at_once(loop, run, pair):
    a, b = pair
    data = bytes(1 << 20)

    async def main():
        reading = loop.create_task(loop.sock_recv(a, 10))
        writing = loop.create_task(loop.sock_sendall(a, data))
        await settle()
        await loop.sock_sendall(b, b"hello")
        assert await reading == b"hello"
        assert not writing.done()
        n = 0
        while n < len(data):
            n += len(await loop.sock_recv(b, 1 << 20))
        await writing

    run(main())


# ---- cancelling


def test_cancelled_recv_takes_nothing(loop, run, pair):
    a, b = pair

    async def main():
        for _ in range(3):
            task = loop.create_task(loop.sock_recv(a, 10))
            await settle()
            task.cancel("why")
            with pytest.raises(asyncio.CancelledError) as info:
                await task
            assert info.value.args == ("why",)
        b.send(b"data")
        assert loop.remove_reader(a) is False
        return await loop.sock_recv(a, 10)

    assert run(main()) == b"data"


@pytest.mark.ctask_only
def test_cancelled_when_data_is_there_leaves_it(loop, run, pair):
    # asyncio reads before the task is woken; what it read is lost then
    a, b = pair

    async def main():
        task = loop.create_task(loop.sock_recv(a, 10))
        await settle()
        b.send(b"data")
        loop.call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            while not task.done():
                await asyncio.sleep(0)
                task.cancel()
            await task
        return await loop.sock_recv(a, 10)

    assert run(main()) == b"data"


def test_cancelled_sendall_leaves_no_writer(loop, run, pair):
    a, b = pair

    async def main():
        task = loop.create_task(loop.sock_sendall(a, bytes(1 << 20)))
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert loop.remove_writer(a) is False

    run(main())


def test_wait_for_times_out_and_another_try_works(loop, run, pair):
    a, b = pair

    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop.sock_recv(a, 10), 0.001)
        with pytest.raises(asyncio.TimeoutError):
            async with asyncio.timeout(0.001):
                await loop.sock_recv(a, 10)
        b.send(b"late")
        return await asyncio.wait_for(loop.sock_recv(a, 10), 10)

    assert run(main()) == b"late"


def test_gather_and_ensure_future(loop, run, pair):
    a, b = pair

    async def main():
        both = asyncio.gather(loop.sock_recv(a, 10), loop.sock_recv(b, 10))
        fut = asyncio.ensure_future(loop.sock_sendall(a, b"to b"))
        await loop.sock_sendall(b, b"to a")
        await fut
        return await both

    assert run(main()) == [b"to a", b"to b"]


# ---- with readers and writers of the program's own


def test_reader_replaces_and_is_removed(loop, run, pair):
    a, b = pair
    seen = []

    async def main():
        b.send(b"1")
        assert await loop.sock_recv(a, 10) == b"1"
        task = loop.create_task(loop.sock_recv(a, 10))
        await settle()
        loop.add_reader(a, lambda: seen.append(a.recv(10)))
        b.send(b"2")
        while not seen:
            await asyncio.sleep(0)
        assert loop.remove_reader(a) is True
        assert loop.remove_reader(a) is False
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])
        b.send(b"3")
        return await loop.sock_recv(a, 10)

    assert run(main()) == b"3"
    assert seen == [b"2"]


def test_reader_goes_on_by_level_after_an_operation(loop, run, pair):
    a, b = pair
    calls = []

    async def main():
        task = loop.create_task(loop.sock_recv(a, 10))
        await settle()
        b.send(b"1")
        await task
        loop.add_reader(a, calls.append, None)
        b.send(b"2")
        while len(calls) < 3:  # nobody reads: called again and again
            await asyncio.sleep(0)
        loop.remove_reader(a)

    run(main())


def test_operation_beside_a_writer_of_the_program(loop, run, pair):
    a, b = pair
    calls = []

    async def main():
        loop.add_writer(a, calls.append, None)
        for i in range(3):
            task = loop.create_task(loop.sock_recv(a, 10))
            await settle()
            await asyncio.sleep(0.001)
            b.send(b"%d" % i)
            assert await task == b"%d" % i
        assert loop.remove_writer(a) is True
        n = len(calls)
        await settle()
        assert len(calls) == n

    run(main())
    assert calls


def test_a_socket_closed_as_its_future_is_made_has_no_other_file_watched(impl, pair):
    ours, theirs = pair
    number, other = ours.fileno(), os.dup(theirs.fileno())

    class Loop(impl.EventLoop):
        def create_future(self):
            ours.close()
            os.dup2(other, number)
            return super().create_future()

    loop = Loop()
    with pytest.raises((OSError, ValueError)):
        loop.sock_recv(ours, 5).send(None)
    assert not loop.remove_reader(number)
    loop.close()
    os.close(number)
    os.close(other)


def test_descriptor_number_is_used_again(loop, run):
    async def main():
        for i in range(5):
            a, b = socket.socketpair()
            with a, b:
                a.setblocking(False)
                b.setblocking(False)
                task = loop.create_task(loop.sock_recv(a, 10))
                await settle()
                await loop.sock_sendall(b, b"%d" % i)
                assert await task == b"%d" % i

    run(main())


def test_descriptor_moves_to_another_object(loop, run, pair):
    a, b = pair

    async def wait_and_send(sock, data):
        task = loop.create_task(loop.sock_recv(sock, 10))
        await settle()
        b.send(data)
        assert await task == data

    async def main():
        await wait_and_send(a, b"1")
        with socket.socket(fileno=a.detach()) as moved:
            moved.setblocking(False)
            await wait_and_send(moved, b"2")
            with moved.dup() as copy:
                copy.setblocking(False)
                await wait_and_send(copy, b"3")
            await wait_and_send(moved, b"4")

    run(main())


def test_stream_on_the_socket_of_operations(loop, run, pair):
    a, b = pair

    async def main():
        task = loop.create_task(loop.sock_recv(a, 10))
        await settle()
        b.send(b"1")
        await task
        reader, writer = await asyncio.open_connection(sock=a)
        b.send(b"line\n")
        assert await reader.readline() == b"line\n"
        with pytest.raises(RuntimeError, match=r"File descriptor \d+ is used by transport"):
            await loop.sock_recv(a, 10)
        writer.close()
        await writer.wait_closed()

    run(main())


# ---- sockets that are closed


def test_closed_socket(loop, run, pair):
    a, _ = pair
    a.close()
    for coro in (
        loop.sock_recv(a, 1),
        loop.sock_recv_into(a, bytearray(1)),
        loop.sock_recvfrom(a, 1),
        loop.sock_recvfrom_into(a, bytearray(1)),
        loop.sock_sendall(a, b"x"),
        loop.sock_sendto(a, b"x", "/nowhere"),
        loop.sock_accept(a),
    ):
        with pytest.raises(OSError) as info:
            run(coro)
        assert (info.value.errno, info.value.strerror) == (errno.EBADF, "Bad file descriptor")


def test_closed_loop(loop, pair):
    a, b = pair
    loop.close()
    coro = loop.sock_recv(a, 10)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        coro.send(None)
    b.send(b"x")
    assert steps(loop.sock_recv(a, 10)) == b"x"


@pytest.mark.parametrize("other_use", [False, True])
def test_close_while_an_operation_waits_is_seen_by_the_peer(loop, run, pair, other_use):
    a, b = pair

    async def main():
        if other_use:  # the loop has seen the socket before
            b.send(b"x")
            await loop.sock_recv(a, 10)
            reading = loop.create_task(loop.sock_recv(a, 10))
            await settle()
            b.send(b"y")
            assert await reading == b"y"
        task = loop.create_task(loop.sock_recv(a, 10))
        await settle()
        a.close()
        assert a.fileno() == -1
        assert await loop.sock_recv(b, 10) == b""
        await settle()
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(main())


def test_close_while_sendall_waits_is_seen_by_the_peer(loop, run, pair):
    a, b = pair

    async def main():
        task = loop.create_task(loop.sock_sendall(a, bytes(1 << 22)))
        await settle()
        a.close()
        while await loop.sock_recv(b, 1 << 18):
            pass
        await settle()
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])

    run(main())


@pytest.mark.parametrize("operation", ["recv", "sendall"])
def test_an_operation_never_touches_who_gets_the_number_of_its_closed_socket(
    loop, run, pair, operation
):
    a, b = pair
    fd = a.fileno()

    async def main():
        if operation == "recv":
            coro = loop.sock_recv(a, 10)
        else:
            coro = loop.sock_sendall(a, b"s" * (1 << 22))
        task = loop.create_task(coro)
        await settle()
        a.close()
        with pair_with_number(fd) as (ours, theirs):
            theirs.send(b"for another")
            reading = loop.create_task(loop.sock_recv(ours, 20))
            assert await reading == b"for another"
            theirs.send(b"again")
            await asyncio.sleep(0.001)
            await settle()
            assert ours.recv(20) == b"again"
            with pytest.raises(BlockingIOError):
                theirs.recv(1)
            task.cancel()
            await asyncio.wait([task])
            reading = loop.create_task(loop.sock_recv(ours, 20))
            await settle()
            theirs.send(b"more")
            assert await reading == b"more"

    run(main())


@contextlib.contextmanager
def pair_with_number(fd):
    """A pair of sockets, of which the first has the descriptor `fd`, which is free."""
    made = socket.socketpair()
    first, second = made if made[0].fileno() == fd else made[::-1]
    if first.fileno() != fd:
        os.dup2(first.fileno(), fd)
        first.close()
        first = socket.socket(fileno=fd)
    with first, second:
        first.setblocking(False)
        second.setblocking(False)
        yield first, second


def test_closing_the_loop_lets_go_of_the_socket(loop, run, pair):
    a, _ = pair

    async def main():
        return loop.create_task(loop.sock_recv(a, 10)), await settle()

    task, _ = run(main())
    loop.close()
    a.close()
    assert a.fileno() == -1
    task._log_destroy_pending = False


def test_closed_listener_is_closed_at_once(loop, run, listener):
    addr = listener.getsockname()

    async def main():
        task = loop.create_task(loop.sock_accept(listener))
        await settle()
        listener.close()
        assert listener.fileno() == -1
        with socket.create_server(addr):
            pass
        task.cancel()
        await asyncio.wait([task])

    run(main())


def test_operation_keeps_no_reference_once_ended(loop, run):
    async def main():
        a, b = socket.socketpair()
        with a, b:
            a.setblocking(False)
            task = loop.create_task(loop.sock_recv(a, 10))
            await settle()
            b.send(b"x")
            await task
            return weakref.ref(a)

    ref = run(main())
    gc.collect()
    assert ref() is None


# ---- connecting


def test_connect_and_accept(loop, run, listener):
    async def main():
        accepting = loop.create_task(loop.sock_accept(listener))
        await settle()
        with socket.socket() as client:
            client.setblocking(False)
            assert await loop.sock_connect(client, listener.getsockname()) is None
            conn, addr = await accepting
            with conn:
                assert type(conn) is socket.socket
                assert conn.gettimeout() == 0.0
                assert not os.get_inheritable(conn.fileno())
                assert (conn.family, conn.type, conn.proto) == (
                    listener.family,
                    listener.type,
                    listener.proto,
                )
                assert addr == client.getsockname()
                await loop.sock_sendall(client, b"hi")
                assert await loop.sock_recv(conn, 10) == b"hi"

    run(main())


def test_accept_many(loop, run, listener):
    async def main():
        clients = [socket.socket() for _ in range(5)]
        for client in clients:
            client.setblocking(False)
            await loop.sock_connect(client, listener.getsockname())
        got = [await loop.sock_accept(listener) for _ in clients]
        assert sorted(addr for _, addr in got) == sorted(c.getsockname() for c in clients)
        for sock in [conn for conn, _ in got] + clients:
            sock.close()

    run(main())


def test_connect_refused(loop, run, listener):
    addr = listener.getsockname()
    listener.close()
    with socket.socket() as client:
        client.setblocking(False)
        with pytest.raises(ConnectionRefusedError) as info:
            run(loop.sock_connect(client, addr))
    assert info.value.errno == errno.ECONNREFUSED
    assert info.value.strerror == f"Connect call failed {addr}"


def test_connect_refused_v6(loop, run):
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
    with socket.socket(socket.AF_INET6) as client:
        client.setblocking(False)
        with pytest.raises(ConnectionRefusedError) as info:
            run(loop.sock_connect(client, ("::1", port)))
    assert info.value.strerror == f"Connect call failed {('::1', port, 0, 0)}"


def test_connect_by_name_asks_getaddrinfo(loop, run, listener, monkeypatch):
    host, port = listener.getsockname()
    asked = []

    async def getaddrinfo(*args, **kwargs):
        asked.append(args)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]

    loop.getaddrinfo = getaddrinfo

    async def main():
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, ("a.name", port))
            assert client.getpeername() == (host, port)

    run(main())
    assert asked == [("a.name", port)]


def test_connect_wrong_address(loop, run):
    with socket.socket() as client:
        client.setblocking(False)
        with pytest.raises(OSError):
            run(loop.sock_connect(client, ("127.0.0.1", "no such service")))
        with pytest.raises((TypeError, ValueError)):
            run(loop.sock_connect(client, 5))
        with pytest.raises(OverflowError):
            run(loop.sock_connect(client, ("127.0.0.1", 65536)))
    run(loop.shutdown_default_executor())


def test_connect_unix(loop, run, tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        server.setblocking(False)
        client.setblocking(False)
        run(loop.sock_connect(client, path))
        conn, addr = run(loop.sock_accept(server))
        with conn:
            assert addr == ""
        with socket.socket(socket.AF_UNIX) as other:
            other.setblocking(False)
            with pytest.raises(FileNotFoundError):
                run(loop.sock_connect(other, path + "x"))


def test_cancelled_connect(loop, run, listener):
    # a full backlog keeps further connections waiting
    listener.listen(0)
    with socket.create_connection(listener.getsockname()), socket.socket() as client:
        client.setblocking(False)

        async def main():
            task = loop.create_task(loop.sock_connect(client, listener.getsockname()))
            await settle()
            if not task.done():
                task.cancel()
            await asyncio.wait([task])
            assert loop.remove_writer(client) is False

        run(main())


# ---- datagrams


def test_recvfrom_and_sendto(loop, run, udp):
    a, b = udp

    async def main():
        task = loop.create_task(loop.sock_recvfrom(b, 100))
        await settle()
        assert not task.done()
        assert await loop.sock_sendto(a, b"one", b.getsockname()) == 3
        assert await task == (b"one", a.getsockname())
        assert await loop.sock_sendto(a, b"", b.getsockname()[:2]) == 0
        assert await loop.sock_recvfrom(b, 100) == (b"", a.getsockname())
        buf = bytearray(10)
        task = loop.create_task(loop.sock_recvfrom_into(b, buf))
        await settle()
        await loop.sock_sendto(a, bytearray(b"three"), b.getsockname())
        assert await task == (5, a.getsockname())
        assert buf == b"three\0\0\0\0\0"
        await loop.sock_sendto(a, memoryview(b"four"), b.getsockname())
        assert await loop.sock_recvfrom_into(b, buf, 2) == (2, a.getsockname())
        assert buf == b"foree\0\0\0\0\0"

    run(main())


def test_recvfrom_into_errors(loop, run, udp):
    a, _ = udp
    with pytest.raises(ValueError, match="nbytes is greater than the length of the buffer"):
        run(loop.sock_recvfrom_into(a, bytearray(5), 6))
    with pytest.raises(ValueError, match="negative buffersize"):
        run(loop.sock_recvfrom_into(a, bytearray(5), -1))
    with pytest.raises(TypeError, match="not bytes"):
        run(loop.sock_recvfrom_into(a, b"12345"))


def test_recvfrom_into_goes_by_the_length_of_the_buffer(loop, run, pair):
    a, b = pair
    for buffer in (memoryview(bytearray(8)).cast("B", (2, 4)), memoryview(bytearray(8)).cast("I")):
        b.send(b"abcd")
        assert run(loop.sock_recvfrom_into(a, buffer)) == (2, None)
        assert a.recv(10) == b"cd"


def test_sendto_errors(loop, run, udp):
    a, _ = udp
    host = a.getsockname()[0]
    with pytest.raises(TypeError):
        run(loop.sock_sendto(a, "text", (host, 9)))
    with pytest.raises(OverflowError, match=r"port must be 0-65535"):
        run(loop.sock_sendto(a, b"x", (host, 70000)))
    with pytest.raises(TypeError):
        run(loop.sock_sendto(a, b"x", host))
    with pytest.raises(OSError) as info:
        run(loop.sock_sendto(a, bytes(70000), (host, 9)))
    assert info.value.errno == errno.EMSGSIZE


def test_sendto_by_name(loop, run):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        assert run(loop.sock_sendto(sock, b"x", ("localhost", sock.getsockname()[1]))) == 1
        assert run(loop.sock_recv(sock, 5)) == b"x"


@pytest.mark.parametrize("name", ["path", "abstract", "none"])
def test_unix_datagrams(loop, run, tmp_path, name):
    path = str(tmp_path / "b")
    bound = {"path": str(tmp_path / "a"), "abstract": f"\0ctask-{os.getpid()}", "none": None}[name]
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as a,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as b,
    ):
        if bound is not None:
            a.bind(bound)
        b.bind(path)
        a.setblocking(False)
        b.setblocking(False)
        run(loop.sock_sendto(a, b"data", path))
        run(loop.sock_sendto(a, b"again", os.fsencode(path)))
        sender = bound.encode() if name == "abstract" else bound
        assert run(loop.sock_recvfrom(b, 100)) == (b"data", sender)
        assert run(loop.sock_recvfrom(b, 100)) == (b"again", sender)


def test_sendto_waits_for_room(loop, run, tmp_path):
    path = str(tmp_path / "b")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as a,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as b,
    ):
        b.bind(path)
        a.connect(path)
        a.setblocking(False)
        b.setblocking(False)
        sent = 0
        try:
            while True:
                a.send(b"x")
                sent += 1
        except BlockingIOError:
            pass

        async def main():
            task = loop.create_task(loop.sock_sendto(a, b"last", path))
            await settle()
            await asyncio.sleep(0.001)
            assert not task.done()
            for _ in range(sent):
                assert await loop.sock_recv(b, 10) == b"x"
            assert await task == 4
            assert await loop.sock_recv(b, 10) == b"last"

        run(main())


# ---- sockets of other kinds


def test_debug_mode_refuses_a_blocking_socket(loop, run, pair):
    pair[0].settimeout(1)
    loop.set_debug(True)
    for coro in operations(loop, pair[0]):
        with pytest.raises(ValueError, match="the socket must be non-blocking"):
            run(coro)


def test_debug_mode(loop, run, pair):
    a, b = pair
    loop.set_debug(True)

    async def main():
        task = loop.create_task(loop.sock_recv(a, 10))
        await settle()
        await loop.sock_sendall(b, b"x")
        return await task

    assert run(main()) == b"x"


def test_ssl_sockets_are_refused(loop, run):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.socket() as plain:
        with context.wrap_socket(plain, do_handshake_on_connect=False) as sock:
            for coro in (
                loop.sock_recv(sock, 1),
                loop.sock_sendall(sock, b""),
                loop.sock_accept(sock),
                loop.sock_connect(sock, ("127.0.0.1", 1)),
            ):
                with pytest.raises(TypeError, match="Socket cannot be of type SSLSocket"):
                    run(coro)


def test_subclass_methods_are_called(loop, run, pair):
    class Socket(socket.socket):
        def recv(self, n):
            return super().recv(n).upper()

    a, b = pair
    with Socket(fileno=a.detach()) as a:
        a.setblocking(False)

        async def main():
            task = loop.create_task(loop.sock_recv(a, 10))
            await settle()
            b.send(b"abc")
            return await task

        assert run(main()) == b"ABC"


def test_patched_methods_are_called(loop, run, pair, monkeypatch):
    a, b = pair
    b.send(b"abc")
    assert run(loop.sock_recv(a, 1)) == b"a"
    monkeypatch.setattr(socket.socket, "recv", lambda self, n: b"patched", raising=False)
    assert run(loop.sock_recv(a, 1)) == b"patched"
    monkeypatch.undo()
    assert run(loop.sock_recv(a, 1)) == b"b"


def test_objects_that_are_no_sockets(loop, run):
    with pytest.raises(AttributeError):
        run(loop.sock_recv(object(), 1))
    with pytest.raises(AttributeError):
        run(loop.sock_recv(5, 1))


def test_audit_events(script):
    result = script(
        """
        import socket
        events = []
        sys.addaudithook(lambda name, args: events.append((name, args[1:]))
                         if name in ("socket.connect", "socket.sendto") else None)
        loop = impl.new_event_loop()
        server = socket.create_server(("127.0.0.1", 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client = socket.socket()
        client.setblocking(False)
        udp.setblocking(False)
        addr = server.getsockname()
        loop.run_until_complete(loop.sock_connect(client, addr))
        loop.run_until_complete(loop.sock_sendto(udp, b"", addr))
        assert events == [("socket.connect", (addr,)), ("socket.sendto", (addr,))], events
        loop.close()
        print("ok")
        """
    )
    assert result.out == "ok\n"


def test_interpreter_ends_while_operations_wait(script):
    result = script(
        """
        import socket
        loop = impl.new_event_loop()
        a, b = socket.socketpair()
        a.setblocking(False)
        task = loop.create_task(loop.sock_recv(a, 10))
        task._log_destroy_pending = False
        loop.call_soon(loop.call_soon, loop.stop)
        loop.run_forever()
        print("ok")
        """
    )
    assert result.out == "ok\n"


@pytest.mark.ctask_only
def test_a_round_trip_takes_five_system_calls(tmp_path):
    try:
        subprocess.run(["strace", "-o", os.devnull, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("strace is not there or may not be used")
    source = tmp_path / "echo.py"
    source.write_text(
        """
import asyncio, os, socket, threading, ctask
a, b = socket.socketpair()
a.setblocking(False)
def client():
    for _ in range(500):
        b.sendall(b"x"); b.recv(10)
    b.close()
async def main():
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(a, 1000):
        await loop.sock_sendall(a, data)
if os.fork() == 0:
    a.close(); client(); os._exit(0)
b.close()
ctask.run(main())
os.wait()
"""
    )
    log = tmp_path / "log"
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p))
    subprocess.run(
        ["strace", "-e", "trace=network,epoll_ctl,epoll_wait,epoll_pwait,epoll_pwait2",
         "-o", str(log), sys.executable, str(source)], check=True, env=env, timeout=100,
    )  # fmt: skip
    calls = re.findall(r"^(\w+)\(", log.read_text(), re.M)
    # Receive, send, receive in vain, ask, wait.
    assert 1000 <= len(calls) <= 2600
    assert calls.count("epoll_ctl") < 510


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_who_comes_before_the_transport_has_begun_is_refused(loop, kind):
    ours, peer = socket.socketpair(socket.AF_UNIX, kind)
    ours.setblocking(False)
    refused = []

    async def main():
        receiving = loop.create_task(loop.sock_recv(ours, 1))
        if kind == socket.SOCK_STREAM:
            opening = loop.create_connection(asyncio.Protocol, sock=ours)
        else:
            opening = loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=ours)
        opening = asyncio.ensure_future(opening)
        await asyncio.sleep(0)
        for method in loop.add_reader, loop.remove_reader:
            try:
                method(ours, *([print] if method == loop.add_reader else []))
            except RuntimeError as exc:
                refused.append(str(exc))
        transport, _ = await opening
        receiving.cancel()
        transport.abort()
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    peer.close()
    assert len(refused) == 2 and all("is used by transport" in text for text in refused)
