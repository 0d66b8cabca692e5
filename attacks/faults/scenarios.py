"""What is attacked: small programs that use one part of asyncio each, from import to close.

A scenario returns the same value each time, and ends whatever fails: what it waits for comes, or
the other side of it has gone.  What it opens it closes: a descriptor that is left is not its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import os
import signal
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

CERTS = Path(__file__).resolve().parents[2] / "tests" / "certs"
HOST = "127.0.0.1"
LINES = b"".join(b"line %d\n" % n for n in range(50))
MUCH = bytes(range(256)) * 2048

Main = Callable[[], Coroutine[Any, Any, object]]
Whole = Callable[[], object]
scenarios: dict[str, Main] = {}
wholes: dict[str, Whole] = {}  # which make and close their loops themselves
heard: list[Callable[[Exception], object]] = []  # told what connections are lost with


def scenario(main: Main) -> Main:
    scenarios[main.__name__] = main
    return main


def whole(function: Whole) -> Whole:
    wholes[function.__name__] = function
    return function


def settle(future: asyncio.Future[Any], value: object) -> None:
    """Of a callback: the loop runs on after a call that failed, and the task may have ended."""
    if not future.done():
        future.set_result(value)


# ---- loops ----


@whole
def import_() -> object:
    if "ctask" in sys.modules:
        sys.modules["ctask"].uninstall()
    for name in [name for name in sys.modules if name.partition(".")[0] == "ctask"]:
        del sys.modules[name]
    import ctask

    return ctask.run(ctask.sleep(0, "slept"))


@whole
def loop_made_and_closed() -> object:
    loop = asyncio.new_event_loop()
    try:
        loop.call_soon(loop.stop)
        loop.run_forever()
        return loop.is_running(), loop.is_closed()
    finally:
        loop.close()


@whole
def run() -> object:
    async def main() -> int:
        await asyncio.sleep(0.001)
        return 7

    return asyncio.run(main())


@whole
def run_in_debug_mode() -> object:
    async def main() -> int:
        asyncio.get_running_loop().call_soon(int)
        await asyncio.sleep(0.001)
        return 7

    return asyncio.run(main(), debug=True)


@whole
def runner() -> object:
    with asyncio.Runner() as runner:
        first = runner.run(asyncio.sleep(0, 1))
        loop = runner.get_loop()
        return first, runner.run(asyncio.sleep(0.001, 2)), loop.is_closed()


@whole
def run_cancels_what_is_left() -> object:
    ended, tasks = [], []

    async def left() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(1)

    async def main() -> None:
        tasks.append(asyncio.create_task(left()))
        await asyncio.sleep(0)

    asyncio.run(main())
    return ended


@whole
def install() -> object:
    if "ctask" not in sys.modules:
        return None
    import ctask

    ctask.uninstall()
    before = asyncio.Task
    ctask.install()
    return asyncio.run(asyncio.sleep(0, before is not asyncio.Task))


@scenario
async def call_soon_threadsafe() -> object:
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def tell() -> None:
        try:
            loop.call_soon_threadsafe(settle, future, 3)
        except BaseException as error:
            loop.call_soon_threadsafe(future.set_exception, error)

    thread = threading.Thread(target=tell)
    thread.start()
    try:
        return await future
    finally:
        thread.join()


# ---- tasks, futures, handles ----


@scenario
async def tasks() -> object:
    async def body(n: int) -> int:
        await asyncio.sleep(0)
        return n

    made = [asyncio.create_task(body(n), name=f"task {n}") for n in range(20)]
    return [await task for task in made]


@scenario
async def tasks_cancelled() -> object:
    async def body() -> str:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return "cancelled"
        return ""

    made = [asyncio.create_task(body()) for n in range(5)]
    await asyncio.sleep(0)
    for task in made:
        task.cancel("enough")
    return [await task for task in made]


@scenario
async def tasks_that_raise() -> object:
    async def body() -> None:
        await asyncio.sleep(0)
        raise ValueError("asked for")

    async def waits() -> str:
        try:
            await asyncio.create_task(body())
        except ValueError as error:
            return str(error)
        return ""

    return [await waits() for n in range(3)]


@scenario
async def tasks_eager() -> object:
    if sys.version_info < (3, 12):
        return None

    async def body(n: int) -> int:
        if n % 2:
            await asyncio.sleep(0)
        return n

    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    try:
        made = [asyncio.create_task(body(n)) for n in range(6)]
        return [await task for task in made]
    finally:
        loop.set_task_factory(None)


@scenario
async def tasks_in_contexts() -> object:
    variable = contextvars.ContextVar("variable", default=0)

    async def body(n: int) -> int:
        variable.set(n)
        await asyncio.sleep(0)
        return variable.get()

    context = contextvars.copy_context()
    made = [asyncio.get_running_loop().create_task(body(n), context=context) for n in (1, 2)]
    made.append(asyncio.create_task(body(3)))
    return [await task for task in made], len(asyncio.all_tasks()), variable.get()


@scenario
async def futures() -> object:
    loop = asyncio.get_running_loop()
    told: list[object] = []
    future = loop.create_future()
    callbacks = [functools.partial(lambda n, done: told.append(n), n) for n in range(5)]
    for callback in callbacks:
        future.add_done_callback(callback)
    future.remove_done_callback(callbacks[2])
    waiters = [asyncio.ensure_future(asyncio.shield(future)) for n in range(3)]
    loop.call_soon(settle, future, "value")
    return [await future, *[await waiter for waiter in waiters], *told, repr(future)[-18:]]


@scenario
async def handles() -> object:
    loop = asyncio.get_running_loop()
    told: list[int] = []
    made = [loop.call_soon(told.append, n) for n in range(10)]
    made[3].cancel()
    for n in range(10):
        loop.call_soon(told.append, n, context=contextvars.copy_context())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return told


@scenario
async def timers() -> object:
    loop = asyncio.get_running_loop()
    told: list[int] = []
    end = loop.create_future()
    now = loop.time()
    made = [loop.call_at(now + n / 10000, told.append, n) for n in range(40)]
    for timer in made[::3]:
        timer.cancel()
    far = [loop.call_later(1000, int) for n in range(200)]
    for timer in far:
        timer.cancel()
    loop.call_at(now + 0.005, settle, end, None)
    await end
    return told


# ---- combinators ----


@scenario
async def gather() -> object:
    async def body(n: int) -> int:
        await asyncio.sleep(0)
        if n == 3:
            raise ValueError(n)
        return n

    results = await asyncio.gather(*map(body, range(5)), return_exceptions=True)
    return list(map(repr, results)), await asyncio.gather(body(1), body(2))


@scenario
async def wait() -> object:
    futures = [asyncio.ensure_future(asyncio.sleep(n / 2000, n)) for n in range(4)]
    done, pending = await asyncio.wait(futures, timeout=5)
    again = [asyncio.ensure_future(asyncio.sleep(n * 50, n)) for n in range(3)]
    first, rest = await asyncio.wait(again, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    return sorted(future.result() for future in done), len(pending), len(first) > 0


@scenario
async def wait_for() -> object:
    future = asyncio.get_running_loop().create_future()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(future, 0.001)
    return await asyncio.wait_for(asyncio.sleep(0, 5), 5), future.cancelled()


@scenario
async def timeout() -> object:
    told = []
    for delay in (0.001, 100):
        try:
            async with asyncio.timeout(delay) as scope:
                await asyncio.sleep(0.003)
        except TimeoutError:
            told.append(delay)
        told.append(scope.expired())
    return told


@scenario
async def as_completed() -> object:
    futures = [asyncio.sleep(n / 2000, n) for n in range(5)]
    return [await future for future in asyncio.as_completed(futures, timeout=5)]


@scenario
async def task_group() -> object:
    told: list[int] = []

    async def body(n: int) -> None:
        await asyncio.sleep(0)
        told.append(n)

    async with asyncio.TaskGroup() as group:
        for n in range(5):
            group.create_task(body(n))
    return told


@scenario
async def task_group_that_fails() -> object:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError

    told = 0
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(1000))
            group.create_task(fails())
    except* ValueError as error:
        told = len(error.exceptions)
    return told


@scenario
async def shield() -> object:
    inner = asyncio.ensure_future(asyncio.sleep(0.002, "inner"))
    outer = asyncio.shield(inner)
    asyncio.get_running_loop().call_soon(outer.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await outer
    return await inner


# ---- primitives ----


@scenario
async def locks() -> object:
    lock, told = asyncio.Lock(), []

    async def body(n: int) -> None:
        async with lock:
            told.append(n)
            await asyncio.sleep(0)

    await asyncio.gather(*map(body, range(5)))
    return told, lock.locked()


@scenario
async def semaphores() -> object:
    semaphore, told = asyncio.BoundedSemaphore(2), []

    async def body(n: int) -> None:
        async with semaphore:
            told.append(n)
            await asyncio.sleep(0)

    await asyncio.gather(*map(body, range(6)))
    return told, semaphore.locked()


@scenario
async def events() -> object:
    event = asyncio.Event()
    waiters = [asyncio.ensure_future(event.wait()) for n in range(4)]
    await asyncio.sleep(0)
    event.set()
    return [await waiter for waiter in waiters]


@scenario
async def conditions() -> object:
    condition, told = asyncio.Condition(), [0]

    async def waits() -> bool:
        async with condition:
            return await condition.wait_for(lambda: told[0] > 2)

    async def tells() -> None:
        for _ in range(3):
            async with condition:
                told[0] += 1
                condition.notify_all()
            await asyncio.sleep(0)

    return await asyncio.gather(waits(), waits(), tells())


@scenario
async def barriers() -> object:
    barrier = asyncio.Barrier(3)
    return sorted(await asyncio.gather(*(barrier.wait() for n in range(3))))


@scenario
async def queues() -> object:
    told = []
    for kind in (asyncio.Queue, asyncio.LifoQueue, asyncio.PriorityQueue):
        queue: asyncio.Queue[int] = kind(2)

        async def puts(queue: asyncio.Queue[int] = queue) -> None:
            for n in range(6):
                await queue.put(n)

        async def gets(queue: asyncio.Queue[int] = queue) -> list[int]:
            taken = []
            for _ in range(6):
                taken.append(await queue.get())
                queue.task_done()
            return taken

        told.append(sorted((await asyncio.gather(puts(), gets()))[1]))
        await queue.join()
    return told


@scenario
async def async_generators() -> object:
    ended = []

    async def counts() -> AsyncIterator[int]:
        try:
            for n in range(10):
                yield n
                await asyncio.sleep(0)
        finally:
            ended.append(1)

    taken = []
    numbers = counts()
    async for n in numbers:
        taken.append(n)
        if n == 3:
            break
    del numbers
    kept = counts()
    taken.append(await anext(kept))
    await asyncio.get_running_loop().shutdown_asyncgens()
    return taken


# ---- threads and processes ----


@scenario
async def executor() -> object:
    loop = asyncio.get_running_loop()
    return [await loop.run_in_executor(None, pow, 2, 5), await asyncio.to_thread(pow, 2, 6)]


@scenario
async def names_looked_up() -> object:
    loop = asyncio.get_running_loop()
    numbers = await loop.getaddrinfo(HOST, 80, type=socket.SOCK_STREAM)
    name = await loop.getaddrinfo("localhost", 80, family=socket.AF_INET, type=socket.SOCK_STREAM)
    return (
        numbers,
        name,
        await loop.getnameinfo((HOST, 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV),
    )


@scenario
async def subprocess() -> object:
    process = await asyncio.create_subprocess_exec(
        "/bin/cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        out, _ = await process.communicate(LINES)
        return out == LINES, process.returncode
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@scenario
async def subprocess_shell() -> object:
    process = await asyncio.create_subprocess_shell("exit 3")
    return await process.wait()


# ---- signals ----


@scenario
async def signals() -> object:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, settle, future, "told")
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        return await future, loop.remove_signal_handler(signal.SIGUSR1)
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)


# ---- readiness ----


@contextlib.contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        other.setblocking(False)
        yield one, other


@scenario
async def add_reader() -> object:
    loop = asyncio.get_running_loop()
    with pair() as (one, other):
        future = loop.create_future()

        def readable() -> None:
            loop.remove_reader(one)
            future.set_result(one.recv(100))

        loop.add_reader(one, readable)
        try:
            other.send(b"told")
            return await future
        finally:
            loop.remove_reader(one)


@scenario
async def add_writer() -> object:
    loop = asyncio.get_running_loop()
    with pair() as (one, _):
        future = loop.create_future()

        def writable() -> None:
            if not future.done():
                future.set_result(True)

        try:
            loop.add_reader(one, int)
            loop.add_writer(one, writable)
            loop.remove_reader(one)
            return await future, loop.remove_writer(one)
        finally:
            loop.remove_reader(one)
            loop.remove_writer(one)


@scenario
async def many_readers() -> object:
    loop = asyncio.get_running_loop()
    told: set[int] = set()
    with contextlib.ExitStack() as stack:
        pairs = [stack.enter_context(pair()) for n in range(40)]
        end = loop.create_future()

        def readable(n: int) -> None:
            loop.remove_reader(pairs[n][0])
            told.add(n)
            if len(told) == len(pairs):
                end.set_result(None)

        try:
            for n, (one, other) in enumerate(pairs):
                loop.add_reader(one, readable, n)
                other.send(b"x")
            await end
        finally:
            for one, _ in pairs:
                loop.remove_reader(one)
    return len(told)


# ---- sockets ----


async def both(*bodies: Awaitable[Any]) -> list[Any]:
    """All to the end, or none: the first that fails cancels the others, which are waited for."""
    tasks = [asyncio.ensure_future(body) for body in bodies]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@scenario
async def sock_stream() -> object:
    loop = asyncio.get_running_loop()

    async def receives(sock: socket.socket) -> bytes:
        got = bytearray()
        while len(got) < len(MUCH):
            data = await loop.sock_recv(sock, 100000)
            if not data:
                break
            got += data
        return bytes(got)

    with pair() as (one, other):
        _, got = await both(loop.sock_sendall(one, MUCH), receives(other))
        await loop.sock_sendall(other, b"back")
        buffer = bytearray(10)
        size = await loop.sock_recv_into(one, buffer)
        while size < 4:
            size += await loop.sock_recv_into(one, memoryview(buffer)[size:])
        return got == MUCH, bytes(buffer)


@scenario
async def sock_accept_and_connect() -> object:
    loop = asyncio.get_running_loop()
    with socket.socket() as listener, socket.socket() as client:
        listener.setblocking(False)
        client.setblocking(False)
        listener.bind((HOST, 0))
        listener.listen()
        (server, address), _ = await both(
            loop.sock_accept(listener), loop.sock_connect(client, listener.getsockname())
        )
        with server:
            await loop.sock_sendall(client, b"hello")
            return await loop.sock_recv(server, 1), address[0]


@scenario
async def sock_datagrams() -> object:
    loop = asyncio.get_running_loop()
    kind = socket.AF_INET, socket.SOCK_DGRAM
    with socket.socket(*kind) as one, socket.socket(*kind) as other:
        for sock in one, other:
            sock.setblocking(False)
            sock.bind((HOST, 0))
        sent = await loop.sock_sendto(one, b"hello", other.getsockname())
        data, _ = await loop.sock_recvfrom(other, 100)
        await loop.sock_sendto(other, b"back", one.getsockname())
        buffer = bytearray(10)
        size, _ = await loop.sock_recvfrom_into(one, buffer)
        return sent, data, size, bytes(buffer)


@scenario
async def sock_sendfile() -> object:
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryFile() as file, pair() as (one, other):
        file.write(LINES)
        file.seek(0)
        sent = await loop.sock_sendfile(one, file)
        one.close()
        got = b""
        while data := await loop.sock_recv(other, 1000):
            got += data
        return sent, got == LINES


# ---- transports ----


class Hears:
    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            for tell in heard:
                tell(exc)


class Echo(Hears, asyncio.Protocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Collects(Hears, asyncio.Protocol):
    """Notes what comes, until the connection is lost."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.writable = asyncio.Event()
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self.got += data

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.writable.set()
        if not self.end.done():
            self.end.set_result(None)


class CollectsIntoBuffer(Hears, asyncio.BufferedProtocol):
    def __init__(self) -> None:
        self.got, self.buffer = bytearray(), bytearray(1000)
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.got += self.buffer[:nbytes]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self.end.done():
            self.end.set_result(None)


@contextlib.asynccontextmanager
async def serving(server: asyncio.AbstractServer) -> AsyncIterator[Any]:
    try:
        yield server
    finally:
        server.close()
        if hasattr(server, "close_clients"):
            server.close_clients()


def context(server: bool) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    if server:
        made.load_cert_chain(CERTS / "server.pem")
    else:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


CONTEXTS = {server: context(server) for server in (True, False)}


async def echo(client: Any, transport: Any, size: int) -> object:
    """Write `size` bytes, and the end; what comes back until the connection is lost."""
    try:
        for begin in range(0, size, 50000):
            transport.write(MUCH[begin : min(begin + 50000, size)])
            await client.writable.wait() if hasattr(client, "writable") else None
        while len(client.got) < size and not client.end.done():
            await asyncio.sleep(0.001)
        transport.close()
        await client.end
        return bytes(client.got) == MUCH[:size]
    finally:
        transport.abort()


@scenario
async def transports_tcp() -> object:
    loop = asyncio.get_running_loop()
    async with serving(await loop.create_server(Echo, HOST, 0)) as server:
        address = server.sockets[0].getsockname()
        transport, client = await loop.create_connection(Collects, *address)
        peer = transport.get_extra_info("peername") == address
        return await echo(client, transport, 1000), peer


@scenario
async def transports_much() -> object:
    loop = asyncio.get_running_loop()
    async with serving(await loop.create_server(Echo, HOST, 0)) as server:
        transport, client = await loop.create_connection(Collects, *server.sockets[0].getsockname())
        return await echo(client, transport, len(MUCH))


@scenario
async def transports_buffered() -> object:
    loop = asyncio.get_running_loop()
    async with serving(await loop.create_server(Echo, HOST, 0)) as server:
        address = server.sockets[0].getsockname()
        transport, client = await loop.create_connection(CollectsIntoBuffer, *address)
        return await echo(client, transport, 3000)


@scenario
async def transports_unix() -> object:
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/s"
        async with serving(await loop.create_unix_server(Echo, path)):
            transport, client = await loop.create_unix_connection(Collects, path)
            return await echo(client, transport, 1000)


@scenario
async def transports_many_connections() -> object:
    loop = asyncio.get_running_loop()
    async with serving(await loop.create_server(Echo, HOST, 0)) as server:
        address = server.sockets[0].getsockname()

        async def one() -> object:
            transport, client = await loop.create_connection(Collects, *address)
            return await echo(client, transport, 10)

        return await both(*(one() for n in range(4)))


@scenario
async def transports_by_socket() -> object:
    loop = asyncio.get_running_loop()
    one, other = socket.socketpair()
    with one, other:
        first, _ = await loop.create_connection(Echo, sock=one)
        try:
            transport, client = await loop.create_connection(Collects, sock=other)
            transport.pause_reading()
            transport.set_write_buffer_limits(10, 5)
            transport.writelines([b"a", b"b" * 5, b"c"])
            transport.resume_reading()
            while len(client.got) < 7 and not client.end.done():
                await asyncio.sleep(0.001)
            transport.write_eof()
            await client.end
            return bytes(client.got)
        finally:
            first.abort()


@scenario
async def transports_aborted() -> object:
    loop = asyncio.get_running_loop()
    async with serving(await loop.create_server(Echo, HOST, 0)) as server:
        transport, client = await loop.create_connection(Collects, *server.sockets[0].getsockname())
        transport.write(b"x")
        transport.abort()
        await client.end
        return transport.is_closing()


@scenario
async def transports_accepted_elsewhere() -> object:
    loop = asyncio.get_running_loop()
    with socket.create_server((HOST, 0)) as listener:
        listener.setblocking(False)
        transport, client = await loop.create_connection(Collects, *listener.getsockname())
        try:
            sock, _ = listener.accept()
            with sock:
                accepted, _ = await loop.connect_accepted_socket(Echo, sock)
                try:
                    return await echo(client, transport, 100)
                finally:
                    accepted.abort()
        finally:
            transport.abort()


@scenario
async def transports_tls() -> object:
    loop = asyncio.get_running_loop()
    made = await loop.create_server(Echo, HOST, 0, ssl=CONTEXTS[True], ssl_handshake_timeout=3)
    async with serving(made) as server:
        address = server.sockets[0].getsockname()
        transport, client = await loop.create_connection(
            Collects,
            *address,
            ssl=CONTEXTS[False],
            server_hostname="localhost",
            ssl_handshake_timeout=3,
        )
        cipher = transport.get_extra_info("cipher") is not None
        return await echo(client, transport, 100000), cipher


@scenario
async def transports_start_tls() -> object:
    loop = asyncio.get_running_loop()
    one, other = socket.socketpair()
    with one, other:
        below, client = await loop.create_connection(Collects, sock=one)
        try:
            other_below, echoes = await loop.create_connection(Echo, sock=other)
            try:
                hers, his = await both(
                    loop.start_tls(
                        other_below,
                        echoes,
                        CONTEXTS[True],
                        server_side=True,
                        ssl_handshake_timeout=3,
                        ssl_shutdown_timeout=3,
                    ),
                    loop.start_tls(
                        below,
                        client,
                        CONTEXTS[False],
                        ssl_handshake_timeout=3,
                        ssl_shutdown_timeout=3,
                    ),
                )
                echoes.transport = hers
                return await echo(client, his, 5000)
            finally:
                other_below.abort()
        finally:
            below.abort()


@scenario
async def sendfile() -> object:
    loop = asyncio.get_running_loop()

    class Sends(Hears, asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.task = loop.create_task(self.send(transport))

        async def send(self, transport: Any) -> None:
            try:
                with tempfile.TemporaryFile() as file:
                    file.write(LINES)
                    file.seek(0)
                    transport.write(b"first ")
                    if not transport.is_closing():
                        await loop.sendfile(transport, file)
            finally:
                transport.close()

    made: list[Sends] = []

    def make() -> Sends:
        made.append(Sends())
        return made[-1]

    async with serving(await loop.create_server(make, HOST, 0)) as server:
        transport, client = await loop.create_connection(Collects, *server.sockets[0].getsockname())
        try:
            await client.end
            for sender in made:
                await sender.task
            return bytes(client.got) == b"first " + LINES
        finally:
            transport.abort()


# ---- streams ----


async def echo_lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def ask_lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> object:
    try:
        writer.write(LINES)
        await writer.drain()
        writer.write_eof() if writer.can_write_eof() else None
        got = [await reader.readline() for n in range(20)]
        got.append(await reader.readuntil(b"0\n"))
        got.append(await reader.readexactly(10))
        rest = len(LINES) - sum(map(len, got))
        while rest > 0:
            data = await reader.read(rest)
            if not data:
                break
            got.append(data)
            rest -= len(data)
        return b"".join(got) == LINES
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@scenario
async def streams_tcp() -> object:
    async with serving(await asyncio.start_server(echo_lines, HOST, 0)) as server:
        return await ask_lines(*await asyncio.open_connection(*server.sockets[0].getsockname()))


@scenario
async def streams_unix() -> object:
    with tempfile.TemporaryDirectory() as folder:
        async with serving(await asyncio.start_unix_server(echo_lines, f"{folder}/s")):
            return await ask_lines(*await asyncio.open_unix_connection(f"{folder}/s"))


@scenario
async def streams_tls() -> object:
    made = await asyncio.start_server(
        echo_lines, HOST, 0, ssl=CONTEXTS[True], ssl_handshake_timeout=3, ssl_shutdown_timeout=3
    )
    async with serving(made) as server:
        return await ask_lines(
            *await asyncio.open_connection(
                *server.sockets[0].getsockname(),
                ssl=CONTEXTS[False],
                ssl_handshake_timeout=3,
                ssl_shutdown_timeout=3,
            )
        )


@scenario
async def streams_without_a_peer() -> object:
    told: list[object] = []
    with socket.create_server((HOST, 0)) as listener:
        address = listener.getsockname()
    try:
        await asyncio.open_connection(*address)
    except ConnectionRefusedError:
        told.append("refused")
    reader = asyncio.StreamReader(limit=10)
    reader.feed_data(b"x" * 30)
    reader.feed_eof()
    try:
        await reader.readline()
    except ValueError:
        told.append("too long")
    return told, await reader.read()


# ---- datagrams and pipes ----


class Datagrams(Hears, asyncio.DatagramProtocol):
    def __init__(self, echoes: bool) -> None:
        self.echoes = echoes
        self.got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self.echoes:
            self.transport.sendto(data + b"!", addr)
        elif not self.got.done():
            self.got.set_result(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self.end.done():
            self.end.set_result(None)


async def ask_datagram(local: Any, **kind: Any) -> object:
    """A datagram that is lost is sent again."""
    loop = asyncio.get_running_loop()
    server, served = await loop.create_datagram_endpoint(lambda: Datagrams(True), local, **kind)
    try:
        name = server.get_extra_info("sockname")
        client, asks = await loop.create_datagram_endpoint(
            lambda: Datagrams(False),
            local if local is None else (HOST, 0),
            remote_addr=name,
            **kind,
        )
        try:
            for n in range(6):
                client.sendto(b"asked")
                client.sendto(b"asked", name) if n else None
                waiting: list[asyncio.Future[Any]] = [asks.got, asks.end, served.end]
                await asyncio.wait(waiting, timeout=0.05, return_when="FIRST_COMPLETED")
                if asks.got.done() or client.is_closing() or server.is_closing():
                    break
            client.close()
            await asks.end
            return asks.got.result() if asks.got.done() else None
        finally:
            client.abort()
    finally:
        server.abort()


@scenario
async def datagrams() -> object:
    return await ask_datagram((HOST, 0))


@scenario
async def pipes() -> object:
    loop = asyncio.get_running_loop()
    one, other = os.pipe()
    with open(one, "rb", 0) as reads, open(other, "wb", 0) as writes:
        reading, got = await loop.connect_read_pipe(Collects, reads)
        try:
            writing, _ = await loop.connect_write_pipe(Collects, writes)
            writing.write(LINES)
            writing.write(MUCH[:100000])
            writing.close()
            await got.end
            return bytes(got.got) == LINES + MUCH[:100000]
        finally:
            reading.close()


@scenario
async def pipes_that_block_for_others() -> object:
    """A regular file's descriptor is refused; a pipe whose other end goes is lost."""
    loop = asyncio.get_running_loop()
    told: list[object] = []
    with tempfile.TemporaryFile() as file:
        try:
            await loop.connect_read_pipe(Collects, file)
        except ValueError:
            told.append("refused")
    one, other = os.pipe()
    with open(one, "rb", 0) as reads, open(other, "wb", 0) as writes:
        transport, protocol = await loop.connect_write_pipe(Collects, writes)
        reads.close()
        await protocol.end
        told.append(transport.is_closing())
    return told
