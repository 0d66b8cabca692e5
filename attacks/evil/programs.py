"""The programs: for each room of src/ what it makes, which evil code is then given to."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

from . import connections
from .objects import Evil, World

Maker = Callable[[World], list[Callable[[], Any]]]


def handles(world: World) -> list[Callable[[], Any]]:
    loop = world.loop

    class Handle(asyncio.Handle):
        def _run(self) -> None:
            world.act()
            super()._run()

        def __del__(self) -> None:
            world.act()

    return [
        lambda: loop.call_soon(world.callback(), Evil(world)),
        lambda: loop.call_soon(Evil(world), context=None),
        lambda: loop.call_later(world.rng.choice((0, 0.001, 100)), world.callback(), Evil(world)),
        lambda: loop.call_at(loop.time(), Evil(world), *world.arguments()),
        lambda: loop.call_at(world.value(), world.callback()),
        lambda: loop.call_soon_threadsafe(world.callback(), *world.arguments()),
        lambda: asyncio.Handle(world.callback(), (Evil(world),), loop),
        lambda: asyncio.TimerHandle(world.value(), world.callback(), (), loop),
        lambda: Handle(world.value(), world.value(), world.value()),
        lambda: loop._ready,
        lambda: loop._scheduled,
    ]


def tasks(world: World) -> list[Callable[[], Any]]:
    loop = world.loop

    class Future(asyncio.Future):  # type: ignore[type-arg]
        def add_done_callback(self, *args: Any, **kwargs: Any) -> None:
            world.act()
            super().add_done_callback(*args, **kwargs)

        def __del__(self) -> None:
            world.act()

    class Task(asyncio.Task):  # type: ignore[type-arg]
        def cancel(self, *args: Any) -> bool:
            world.act()
            return super().cancel(*args)

        def _make_cancelled_error(self) -> asyncio.CancelledError:
            world.act()
            return super()._make_cancelled_error()  # type: ignore[misc, no-any-return]

    def done() -> Any:
        fut = loop.create_future()
        fut.add_done_callback(Evil(world))
        fut.add_done_callback(world.callback())
        return fut

    def failed() -> Any:
        fut = done()
        fut.set_exception(ValueError(Evil(world)))
        return fut

    def iterating() -> Any:
        made = iter(done())
        next(made)
        return made

    return [
        loop.create_future,
        done,
        failed,
        iterating,
        lambda: Future(loop=loop),
        lambda: Task(world.coroutine(), loop=loop),
        lambda: asyncio.Future(loop=world.value()),
        lambda: asyncio.Task(Evil(world), loop=loop),
        lambda: asyncio.Task(world.coroutine(), loop=loop, name=world.value()),
        lambda: loop.create_task(world.coroutine()),
        lambda: loop.create_task(world.waits(world.subject())),
        lambda: asyncio.ensure_future(world.value(), loop=loop),
        lambda: asyncio.Future.__new__(asyncio.Future),
        lambda: asyncio.Task.__new__(asyncio.Task),
    ]


def loop(world: World) -> list[Callable[[], Any]]:
    made = world.loop

    def watched() -> Any:
        one, other = socket.socketpair()
        one.setblocking(False)
        other.setblocking(False)
        made.add_reader(one, world.callback(), Evil(world))
        made.add_writer(other, Evil(world))
        return one

    def handler() -> Any:
        made.set_exception_handler(world.value())
        made.call_soon(world.raises)

    def debug() -> Any:
        made.set_debug(not made.get_debug())
        made.slow_callback_duration = world.value()

    def factory() -> Any:
        made.set_task_factory(world.value())

    return [
        lambda: made,
        lambda: made._ready,
        lambda: made._selector,
        lambda: made._scheduled,
        lambda: type(made)(),
        watched,
        watched,
        handler,
        debug,
        factory,
        lambda: made.call_soon(world.callback()),
        lambda: made.call_later(0, world.raises),
        lambda: made.add_signal_handler(10, world.callback()),
        lambda: made.shutdown_asyncgens(),
        lambda: made.create_task(world.coroutine()),
    ]


def coro(world: World) -> list[Callable[[], Any]]:
    made = world.loop

    def begun(make: Callable[[], Any]) -> Callable[[], Any]:
        def begin() -> Any:
            coroutine = make()
            coroutine.send(None)
            return coroutine

        return begin

    lock, queue = asyncio.Lock(), asyncio.Queue[Any](1)
    makers: list[Callable[[], Any]] = [
        lambda: asyncio.sleep(world.rng.choice((0, 0.001)), Evil(world)),
        lambda: asyncio.wait_for(world.value(), world.rng.choice((0, 0.001, None))),
        lambda: asyncio.wait([world.subject()], timeout=0.001),
        lock.acquire,
        queue.get,
        lambda: queue.put(Evil(world)),
        asyncio.Event().wait,
        lambda: made.sock_recv(world.value(), 5),
    ]
    return makers + [begun(make) for make in makers] + [made.create_future]


def sync(world: World) -> list[Callable[[], Any]]:
    def waited(cls: Any, name: str) -> Callable[[], Any]:
        def make() -> Any:
            obj = cls()
            world.keep(world.loop.create_task(getattr(obj, name)()))
            world.keep(world.loop.create_task(getattr(obj, name)()))
            return obj

        return make

    classes: list[Any] = [asyncio.Lock, asyncio.Event, asyncio.Semaphore, asyncio.Condition]
    classes += [asyncio.BoundedSemaphore, asyncio.Queue, asyncio.PriorityQueue, asyncio.LifoQueue]
    return [
        *classes,
        waited(asyncio.Lock, "acquire"),
        waited(asyncio.Event, "wait"),
        waited(asyncio.Semaphore, "acquire"),
        waited(asyncio.Condition, "acquire"),
        waited(asyncio.Queue, "get"),
        waited(asyncio.Queue, "join"),
        lambda: asyncio.Condition(world.value()),
        lambda: asyncio.Semaphore(world.value()),
        lambda: asyncio.Queue(world.value()),
        lambda: type("Queue", (asyncio.Queue,), {"_put": world.callback(), "_get": Evil(world)})(),
        lambda: world.loop.create_task(world.coroutine()),
    ]


def combinators(world: World) -> list[Callable[[], Any]]:
    made = world.loop

    def in_task(make: Callable[[], Any]) -> Callable[[], Any]:
        async def play() -> Any:
            return await make()

        return lambda: made.create_task(play())

    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            world.keep(tasks)
            world.keep(tasks.create_task(world.coroutine()))
            world.keep(tasks.create_task(world.waits(world.value())))
            world.act()

    async def timeout() -> None:
        async with asyncio.timeout(world.rng.choice((0, 0.001, None, 10))) as limit:
            world.keep(limit)
            await world.value()

    async def completed() -> None:
        for future in asyncio.as_completed([world.subject(), made.create_future()], timeout=0.001):
            world.keep(future)
            await future

    return [
        in_task(group),
        in_task(timeout),
        in_task(completed),
        in_task(lambda: asyncio.wait_for(world.value(), 0.001)),
        in_task(lambda: asyncio.wait([world.subject(), made.create_future()], timeout=0.001)),
        in_task(lambda: asyncio.sleep(0.001, Evil(world))),
        in_task(lambda: asyncio.gather(world.subject(), made.create_future())),
        in_task(lambda: asyncio.shield(world.subject())),
        lambda: asyncio.gather(made.create_future(), world.value(), return_exceptions=True),
        lambda: asyncio.shield(made.create_future()),
        lambda: asyncio.as_completed([made.create_future(), world.value()]),
        lambda: asyncio.TaskGroup(),
        lambda: asyncio.timeout(world.value()),
        lambda: asyncio.wait(world.value(), timeout=world.value()),
        made.create_future,
        lambda: made.create_task(world.coroutine()),
    ]


class Protocol(asyncio.Protocol):
    """Its callbacks are evil."""

    def __init__(self, world: World) -> None:
        self.world = world

    def _act(self, *args: Any) -> Any:
        self.world.act()

    def connection_made(self, transport: Any) -> None:
        self.world.keep(transport)
        self.world.act()

    data_received = eof_received = connection_lost = _act  # type: ignore[assignment]
    pause_writing = resume_writing = _act
    datagram_received = error_received = _act
    pipe_data_received = pipe_connection_lost = process_exited = _act


class Buffered(asyncio.BufferedProtocol):
    def __init__(self, world: World) -> None:
        self.world = world

    def connection_made(self, transport: Any) -> None:
        self.world.keep(transport)
        self.world.act()

    def get_buffer(self, hint: int) -> Any:
        self.world.act()
        return self.world.rng.choice((bytearray(8), bytearray(8), self.world.value()))

    def _act(self, *args: Any) -> Any:
        self.world.act()

    buffer_updated = eof_received = connection_lost = _act  # type: ignore[assignment]
    pause_writing = resume_writing = _act


class Socket(socket.socket):
    """Its methods are evil."""

    world: World

    def fileno(self) -> int:
        self.world.act()
        return super().fileno()

    def __del__(self) -> None:
        self.world.act()


def protocol(world: World) -> Any:
    kind = world.rng.randrange(5)
    if kind == 4:
        return world.value()
    return Buffered(world) if kind == 3 else Protocol(world)


def pair(world: World, kind: int = socket.SOCK_STREAM) -> tuple[Any, Any]:
    one, other = socket.socketpair(socket.AF_UNIX, kind)
    if world.rng.random() < 0.3:
        evil = Socket(fileno=one.detach())
        evil.world = world
        one = evil
    one.setblocking(False)
    other.setblocking(False)
    world.keep(other)
    other.send(b"evil")
    return one, other


def begun(world: World, coroutine: Any) -> Any:
    task = world.loop.create_task(coroutine)
    for _ in range(3):
        world.loop.call_soon(world.loop.stop)
        world.loop.run_forever()
    return task.result()[0] if task.done() else task


def io(world: World) -> list[Callable[[], Any]]:
    made = world.loop

    def stream() -> Any:
        one, _ = pair(world)
        return begun(world, made.create_connection(lambda: protocol(world), sock=one))

    def datagram() -> Any:
        one, _ = pair(world, socket.SOCK_DGRAM)
        return begun(world, made.create_datagram_endpoint(lambda: protocol(world), sock=one))

    def pipe_in() -> Any:
        read, write = os.pipe()
        os.write(write, b"evil")
        world.keep(os.fdopen(write, "wb", 0))
        return begun(
            world, made.connect_read_pipe(lambda: protocol(world), os.fdopen(read, "rb", 0))
        )

    def pipe_out() -> Any:
        read, write = os.pipe()
        world.keep(os.fdopen(read, "rb", 0))
        return begun(
            world, made.connect_write_pipe(lambda: protocol(world), os.fdopen(write, "wb", 0))
        )

    def server() -> Any:
        listening = socket.create_server(("127.0.0.1", 0))
        task = made.create_task(made.create_server(lambda: protocol(world), sock=listening))
        for _ in range(3):
            made.call_soon(made.stop)
            made.run_forever()
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(listening.getsockname())
        world.keep(client)
        return task.result()

    def sock(name: str, *args: Any) -> Callable[[], Any]:
        def make() -> Any:
            given = [arg() if callable(arg) else arg for arg in args]
            return made.create_task(getattr(made, name)(pair(world)[0], *given))

        return make

    return [
        stream,
        stream,
        datagram,
        pipe_in,
        pipe_out,
        server,
        sock("sock_recv", 5),
        sock("sock_recv_into", world.value),
        sock("sock_recvfrom", 5),
        sock("sock_sendall", world.value),
        sock("sock_sendto", b"evil", world.value),
        sock("sock_connect", world.value),
        sock("sock_accept"),
        lambda: pair(world)[0],
    ]


def streams(world: World) -> list[Callable[[], Any]]:
    made = world.loop

    def connection() -> Any:
        one, _ = pair(world)
        reader, writer = begun_pair(asyncio.open_connection(sock=one))
        world.keep(reader)
        return writer

    def begun_pair(coroutine: Any) -> Any:
        task = made.create_task(coroutine)
        for _ in range(3):
            made.call_soon(made.stop)
            made.run_forever()
        return task.result()

    def reader() -> Any:
        obj = asyncio.StreamReader(limit=world.rng.choice((1, 4, 100)), loop=made)
        obj.feed_data(b"evil\n")
        return obj

    def reading(name: str, *args: Any) -> Callable[[], Any]:
        return lambda: made.create_task(getattr(reader(), name)(*args))

    return [
        connection,
        connection,
        reader,
        reading("read", 10),
        reading("readline"),
        reading("readexactly", 10),
        reading("readuntil", b"\r\n"),
        lambda: asyncio.StreamReaderProtocol(reader(), world.callback(), loop=made),
        lambda: asyncio.StreamReaderProtocol(world.value(), loop=made),
        lambda: asyncio.StreamWriter(world.value(), world.value(), world.value(), made),
        lambda: asyncio.StreamReader(loop=world.value()),
    ]


def tls(world: World) -> list[Callable[[], Any]]:
    from .scenes import secure

    if not world.directed:
        secure.begin(world)
    return [lambda: secure.alike(world)]


def imports(world: World) -> list[Callable[[], Any]]:
    return [world.loop.create_future, lambda: world.loop.create_task(world.coroutine())]


PROGRAMS: dict[str, Maker] = {
    maker.__name__: maker
    for maker in (handles, tasks, loop, coro, sync, combinators, io, streams, tls, imports)
}
PROGRAMS["transports"] = connections.directed(connections.IO)
PROGRAMS["readers"] = connections.directed(connections.STREAMS)
