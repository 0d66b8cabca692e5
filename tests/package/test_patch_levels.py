"""What early releases of 3.11 to 3.13 have wrong in asyncio, and ctask has right on all of them."""

import asyncio
import gc
import io
import os
import socket
import sys
import types
import weakref

import pytest
from conftest import primitive

pytestmark = pytest.mark.ctask_only

Condition = primitive("Condition")
Semaphore = primitive("Semaphore")
TaskGroup = primitive("TaskGroup")
as_completed = primitive("as_completed")
sleep = primitive("sleep")
timeout_at = primitive("timeout_at")
eager = pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks start eagerly from 3.12 on")


class Cancellation(asyncio.CancelledError):
    pass


class Error(Exception):
    pass


async def fail(error=Error):
    raise error


def test_timeout_ends_what_a_class_of_cancelled_error_left(run, timeout_at):
    async def main():
        async with timeout_at(asyncio.get_running_loop().time()):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise Cancellation("mine") from None

    with pytest.raises(TimeoutError) as caught:
        run(main())
    assert type(caught.value.__cause__) is Cancellation


def test_group_takes_a_class_of_cancelled_error_for_a_cancellation(run, TaskGroup):
    async def main():
        async with TaskGroup():
            raise Cancellation

    with pytest.raises(Cancellation):
        run(main())


@pytest.mark.parametrize("where", ["body", "task"])
def test_what_a_group_raises_is_in_no_cycle(run, TaskGroup, where):
    async def enter():
        try:
            async with TaskGroup() as group:
                if where == "body":
                    raise Error
                group.create_task(fail())
        except ExceptionGroup as error:
            return weakref.ref(error.exceptions[0])

    async def main():
        error = await asyncio.create_task(enter())
        await asyncio.sleep(0)
        return error

    gc.disable()
    try:
        assert run(main())() is None
    finally:
        gc.enable()


@eager
def test_failure_in_an_eager_start_cancels_the_parent_within_the_group(loop, run, TaskGroup):
    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup() as group:
                group.create_task(fail())
                assert asyncio.current_task().cancelling() == 0
        await asyncio.sleep(0)  # is not cancelled
        return len(caught.value.exceptions)

    loop.set_task_factory(asyncio.eager_task_factory)
    assert run(main()) == 1


def test_notification_of_a_cancelled_waiter_goes_to_the_next(run, Condition):
    async def main():
        condition = Condition()
        notified = []

        async def wait(name):
            async with condition:
                await condition.wait()
                notified.append(name)

        tasks = [asyncio.ensure_future(wait(name)) for name in "ab"]
        await asyncio.sleep(0)
        async with condition:
            condition.notify()
            tasks[0].cancel()
        outcome = await asyncio.gather(*tasks, return_exceptions=True)
        return type(outcome[0]), notified

    assert run(main()) == (asyncio.CancelledError, ["b"])


def test_places_that_become_free_at_once_go_to_all_who_wait(run, Semaphore):
    async def main():
        semaphore = Semaphore(0)
        got = []

        async def take(name):
            await semaphore.acquire()
            got.append(name)

        tasks = [asyncio.ensure_future(take(name)) for name in "abc"]
        await asyncio.sleep(0)
        semaphore.release()
        tasks[0].cancel()
        semaphore.release()
        await asyncio.wait(tasks[1:])
        return got

    assert run(main()) == ["b", "c"]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="an iterator from 3.13 on")
def test_cancelled_anext_of_as_completed_takes_no_future_away(run, as_completed):
    async def main():
        fut = asyncio.get_running_loop().create_future()
        completed = as_completed([fut])
        first = asyncio.ensure_future(anext(completed))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        fut.set_result(None)
        return await anext(completed) is fut

    assert run(main())


def test_sleep_refuses_nan(run, sleep):
    with pytest.raises(ValueError, match="NaN"):
        run(sleep(float("nan")))


def test_reader_follows_start_tls(impl, loop):
    class Transport(asyncio.Transport):
        pass

    reader = impl.StreamReader(loop=loop)
    protocol = impl.StreamReaderProtocol(reader, loop=loop)
    protocol.connection_made(Transport())
    upgraded = Transport()
    if sys.version_info >= (3, 13):
        protocol._replace_transport(upgraded)
    else:
        protocol._replace_writer(types.SimpleNamespace(transport=upgraded))
    assert reader._transport is upgraded


@pytest.mark.parametrize("how", ["raises", "fails", "is cancelled"])
def test_connection_is_closed_when_who_was_called_for_it(impl, loop, run, how):
    reported = []
    loop.set_exception_handler(lambda _, context: reported.append(context))

    async def failing(reader, writer):
        await (asyncio.sleep(0) if how == "fails" else cancel())
        raise Error

    async def cancel():
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    def connected(reader, writer):
        if how == "raises":
            raise Error
        return failing(reader, writer)

    def factory():
        return impl.StreamReaderProtocol(impl.StreamReader(loop=loop), connected, loop=loop)

    async def main():
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.setblocking(False)
            _, protocol = await loop.connect_accepted_socket(factory, ours)
            data = await loop.sock_recv(theirs, 1)
            await asyncio.sleep(0)
            return data

    assert run(main()) == b""
    assert [(context["message"], type(context["exception"])) for context in reported] == (
        [] if how == "is cancelled" else [("Unhandled exception in client_connected_cb", Error)]
    )


def test_socket_is_closed_if_no_protocol_comes(loop, run):
    def factory():
        raise Error

    ours, theirs = socket.socketpair()
    with theirs:
        with pytest.raises(Error):
            run(loop.create_connection(factory, sock=ours))
        assert ours.fileno() == -1
        assert theirs.recv(1) == b""


def test_datagram_endpoint_takes_a_socket_that_is_neither_stream_nor_udp(loop, run):
    class Protocol(asyncio.DatagramProtocol):
        def __init__(self):
            self.received = loop.create_future()
            self.lost = loop.create_future()

        def datagram_received(self, data, addr):
            self.received.set_result(data)

        def connection_lost(self, exc):
            self.lost.set_result(exc)

    async def main():
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            transport, protocol = await loop.create_datagram_endpoint(Protocol, sock=ours)
            theirs.send(b"packet")
            data = await protocol.received
            transport.close()
            return data, await protocol.lost

    assert run(main()) == (b"packet", None)


@pytest.mark.parametrize("kind", ["socket", "transport"])
def test_file_is_sent_from_its_start_wherever_it_stands(loop, run, kind):
    file = io.BytesIO(b"0123456789")
    file.seek(5)

    async def main():
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        with theirs:
            if kind == "socket":
                with ours:
                    sent = await loop.sock_sendfile(ours, file)
            else:
                transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
                sent = await loop.sendfile(transport, file)
                transport.close()
            data = await loop.sock_recv(theirs, 100)
            await loop.shutdown_default_executor()
            return sent, data

    assert run(main()) == (10, b"0123456789")


def test_file_stands_at_the_offset_if_nothing_was_sent(loop, run, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)

    async def main(file):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours, theirs:
            return await loop.sock_sendfile(ours, file, 10)

    with open(path, "rb") as file:
        assert run(main(file)) == 0
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 10
