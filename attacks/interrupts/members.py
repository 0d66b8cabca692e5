"""What is at work while signal handlers raise, and what each promises.

Callbacks are C wherever they can be (`list.append`, `bytearray.extend`): no handler can raise in
them, so nothing of theirs may be lost or come twice. Where the program's own Python code is hit,
what had started counts as done: the handler says in which frame it raises.
"""

from __future__ import annotations

import asyncio
import contextlib
import linecache
import os
import random
import signal
import socket
import ssl
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .ride import Ride

CERTS = Path(__file__).resolve().parents[2] / "tests" / "certs"
PATTERN = random.Random(7).randbytes(1_000_003)


class Member:
    codes: frozenset[CodeType] = frozenset()  # its Python code that the loop calls
    late: frozenset[CodeType] = frozenset()  # of that: what it raises others end before

    def __init__(self, ride: Ride) -> None:
        self.ride = ride
        self.loop = ride.loop
        self.random = random.Random(f"{ride.plan['seed']}-{type(self).__name__}")
        self.hits = 0
        self.number = 0

    def next(self) -> int:
        self.number += 1
        return self.number

    def open(self) -> None:
        """Before the first signal."""

    def push(self) -> None:
        """Between two rides: more to do."""

    def hit(self, frame: FrameType, exc: BaseException) -> None:
        """The handler raises while this frame, one of `codes`, is on the stack."""

    def stop(self) -> None:
        """No signal comes any more."""

    def nudge(self) -> None:
        """Something of the program was hit, and does not go on."""

    def done(self) -> bool:
        return True

    def faults(self) -> list[str]:
        return []

    def close(self) -> None:
        pass


class Calls(Member):
    """call_soon(), call_later(), done callbacks, cancelled ones: each once, in order."""

    def __init__(self, ride: Ride) -> None:
        super().__init__(ride)
        self.expected: set[int] = set()
        self.called: list[int] = []
        self.aborted: set[int] = set()
        self.orders: list[list[int]] = []
        self.futures: dict[asyncio.Future[int], int] = {}
        self.told: list[asyncio.Future[int]] = []

    def call(self, number: int) -> None:
        self.called.append(number)

    codes = frozenset({call.__code__})

    def hit(self, frame: FrameType, exc: BaseException) -> None:
        number = frame.f_locals["number"]
        if number not in self.called[-8:]:
            self.aborted.add(number)

    def push(self) -> None:
        loop, soon, timers = self.loop, [], []
        for _ in range(self.random.randrange(12)):
            number = self.next()
            call = self.random.choice((self.called.append, self.called.append, self.call))
            kind = self.random.randrange(5)
            if kind < 2:
                loop.call_soon(call, number)
                soon.append(number)
            elif kind < 4:
                when = loop.time() + self.random.random() * 0.004
                loop.call_at(when, call, number)
                timers.append((when, number))
            else:
                when = self.random.choice((0.0, 0.002))
                loop.call_soon(loop.call_later(when, self.called.append, -number).cancel)
                continue
            self.expected.add(number)
        self.orders += [soon, [number for _, number in sorted(timers)]]
        for _ in range(self.random.randrange(4)):
            future = loop.create_future()
            future.add_done_callback(self.told.append)
            self.futures[future] = number = self.next()
            if number % 3:
                loop.call_soon(future.set_result, number)
            else:
                loop.call_later(self.random.random() * 0.002, future.cancel)

    def done(self) -> bool:
        calls = len(self.called) + len(self.aborted) >= len(self.expected)
        return calls and len(self.told) >= len(self.futures)

    def faults(self) -> list[str]:
        found = []
        times = Counter([*self.called, *self.aborted])
        twice = [number for number, n in times.items() if n > 1]
        if twice:
            found.append(f"called twice: {twice[:5]}")
        if self.expected - times.keys():
            found.append(f"never called: {len(self.expected - times.keys())} of {len(times)}")
        if any(number < 0 and -number for number in times):
            # A timer that was due at once may go before the call that cancels it.
            late = [number for number in times if number < 0]
            if len(late) > len(self.expected):
                found.append(f"cancelled, and called: {late[:5]}")
        place = {number: at for at, number in enumerate(self.called)}
        for order in self.orders:
            at = [place[number] for number in order if number in place]
            if at != sorted(at):
                found.append(f"in another order: {order}")
                break
        if Counter(self.told) != Counter(self.futures.keys()):
            found.append(f"futures: {len(self.told)} told of {len(self.futures)}")
        for future in self.told:
            number = self.futures[future]
            if future.cancelled() if number % 3 else not future.cancelled():
                found.append(f"a future ended as {future!r}")
                break
        return found


class Threadsafe(Member):
    """call_soon_threadsafe() by a thread: each once, in order."""

    def open(self) -> None:
        self.seen: list[int] = []
        self.sent = 0
        self.ended = False
        self.thread = threading.Thread(target=self.send, daemon=True)
        self.thread.start()

    def send(self) -> None:
        dice = random.Random(self.random.random())
        while not self.ended:
            time.sleep(dice.random() * 0.001)
            for _ in range(dice.randrange(4)):
                self.loop.call_soon_threadsafe(self.seen.append, self.sent)
                self.sent += 1

    def stop(self) -> None:
        self.ended = True
        self.thread.join()

    def done(self) -> bool:
        return len(self.seen) >= self.sent

    def faults(self) -> list[str]:
        if self.seen == list(range(self.sent)):
            return []
        missing = set(range(self.sent)) - set(self.seen)
        return [f"{len(missing)} of {self.sent} were never called, or the order is another"]


class Signals(Member):
    """loop.add_signal_handler(): each signal is told."""

    def open(self) -> None:
        self.seen: list[int] = []
        self.lost = self.sent = 0
        self.ended = False
        self.loop.add_signal_handler(signal.SIGUSR1, self.seen.append, 1)
        self.thread = threading.Thread(target=self.send, daemon=True)
        self.thread.start()

    def send(self) -> None:
        while not self.ended:
            before = len(self.seen)
            self.sent += 1
            os.kill(os.getpid(), signal.SIGUSR1)
            end = time.monotonic() + 1
            while len(self.seen) == before and time.monotonic() < end:
                time.sleep(0.0005)
            self.lost += len(self.seen) == before

    def stop(self) -> None:
        self.ended = True

    def done(self) -> bool:
        return not self.thread.is_alive()

    def faults(self) -> list[str]:
        # Python code of asyncio's, inherited: what it has read is lost with it.
        python = ("_read_from_self", "_process_self_data", "_handle_signal")
        inherited = sum(n for at, n in self.ride.places.items() if at.endswith(python))
        if self.lost > inherited:
            return [f"{self.lost} of {self.sent} were not told of"]
        return []

    def close(self) -> None:
        self.loop.remove_signal_handler(signal.SIGUSR1)


class Tasks(Member):
    """Tasks, gather(), wait_for(), nested coroutines: who was not hit has its result."""

    def open(self) -> None:
        self.tasks: dict[asyncio.Future[Any], Any] = {}
        self.ended: list[asyncio.Future[Any]] = []
        self.lost: list[str] = []

    async def deep(self, number: int) -> int:
        await asyncio.sleep(self.random.random() * 0.002)
        await asyncio.sleep(0)
        return await asyncio.create_task(asyncio.sleep(0, number))

    async def group(self, number: int) -> int:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(asyncio.sleep(self.random.random() * 0.002))
        return number

    async def gather(self, number: int) -> list[int]:
        wait = self.random.random() * 0.002
        return await asyncio.gather(*(asyncio.sleep(n * wait, number) for n in range(3)))

    codes = frozenset({deep.__code__, group.__code__, gather.__code__})
    late = frozenset({group.__code__})

    def make(self, number: int) -> tuple[Any, Any]:
        wait = self.random.random() * 0.003
        kind = self.random.randrange(6)
        if kind == 0:
            return asyncio.sleep(wait, number), number
        if kind == 1:
            return asyncio.wait_for(asyncio.sleep(wait, number), 60), number
        if kind == 2:
            return self.deep(number), number
        if kind == 3:
            return self.group(number), number
        if kind == 4:
            return self.gather(number), [number] * 3
        return self.together(number), [number] * 3

    def together(self, number: int) -> Any:
        tasks = [self.loop.create_task(asyncio.sleep(0.001 * n, number)) for n in range(3)]
        for task in tasks:
            self.tasks[task] = number
            task.add_done_callback(self.ended.append)
        return asyncio.gather(*tasks)

    def push(self) -> None:
        for _ in range(self.random.randrange(6)):
            what, result = self.make(self.next())
            future = asyncio.ensure_future(what, loop=self.loop)
            future.add_done_callback(self.ended.append)
            self.tasks[future] = result

    def done(self) -> bool:
        return all(future.done() for future in self.tasks)

    def faults(self) -> list[str]:
        found = []
        wrong = Counter[str]()
        # Out of a coroutine, gather() is asyncio's Python code.
        gathering = sum(n for at, n in self.ride.places.items() if at.endswith(":_done_callback"))
        for future, result in self.tasks.items():
            if not future.done() and isinstance(result, list) and gathering:
                gathering -= 1
            elif not future.done():
                wrong[f"are stuck: {future!r}" + self.excuse(future)] += 1
            elif future.cancelled():
                wrong["are cancelled" + self.excuse(future)] += 1
            elif future.exception() is not None:
                if future.exception() not in self.ride.raised and not self.excuse(future):
                    wrong[f"ended with {future.exception()!r}"] += 1
            elif future.result() != result:
                wrong[f"have another result, {future.result()!r} for {result!r}"] += 1
        found += [f"{n} {what}" for what, n in wrong.items() if not what.endswith("(hit)")]
        if Counter(self.ended) != Counter(f for f in self.tasks if f.done()):
            found.append("done callbacks were not called once")
        return found

    def excuse(self, future: Any) -> str:
        return " (hit)" if future in self.ride.hit_tasks else ""

    def close(self) -> None:
        for future in self.tasks:
            future.cancel()


class Locks(Member):
    """Workers with a Lock, a Semaphore and a Condition: nothing is held by the dead."""

    def open(self) -> None:
        self.locks: dict[str, Any] = {
            "lock": asyncio.Lock(),
            "semaphore": asyncio.Semaphore(1),
            "condition": asyncio.Condition(),
        }
        self.tasks: set[asyncio.Task[None]] = set()
        self.holders: dict[str, asyncio.Task[Any] | None] = {}
        self.inside: asyncio.Task[Any] | None = None
        self.kept: set[str] = set()
        self.wrong: list[str] = []

    async def work(self) -> None:
        for _ in range(4):
            for name, what in self.locks.items():
                async with what:
                    self.holders[name] = asyncio.current_task()
                    if name == "lock":
                        if self.inside is not None and not self.inside.done():
                            self.wrong.append("two hold the lock")
                        self.inside = self.holders[name]
                        await asyncio.sleep(0)
                        self.inside = None
                    elif name == "condition":
                        what.notify_all()
                        await asyncio.wait_for(asyncio.sleep(0), 60)
                    else:
                        await asyncio.sleep(self.random.random() * 0.0005)

    codes = frozenset({work.__code__})

    def hit(self, frame: FrameType, exc: BaseException) -> None:
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        if line.strip().startswith("async with"):
            # Between the end of the block and __aexit__(), the interpreter's own gap.
            self.kept.add(frame.f_locals["name"])

    def push(self) -> None:
        self.settle_tasks()
        while len(self.tasks) < 5:
            self.tasks.add(self.loop.create_task(self.work()))

    def settle_tasks(self) -> None:
        for task in [task for task in self.tasks if task.done()]:
            self.tasks.remove(task)
            if task.cancelled():
                self.wrong.append("a worker was cancelled")
            elif (exc := task.exception()) is not None and exc not in self.ride.raised:
                self.wrong.append(f"a worker ended with {exc!r}")
        for name in list(self.kept):
            holder = self.holders.get(name)
            if holder is not None and holder.done():
                self.kept.discard(name)
                if self.locks[name].locked():
                    self.locks[name].release()

    def done(self) -> bool:
        self.settle_tasks()
        return not self.tasks

    async def pass_on(self) -> None:
        """A wake-up may be lost with the one that was hit: the next release() wakes."""
        for what in self.locks.values():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2), what:
                    pass

    def nudge(self) -> None:
        self.ride.quietly(self.pass_on())

    def faults(self) -> list[str]:
        if self.tasks:
            self.wrong.append(f"{len(self.tasks)} workers are stuck: {list(self.tasks)[:2]}")
        for name, what in self.locks.items():
            if what.locked():
                self.wrong.append(f"the {name} is held by {self.holders.get(name)}")
        return list(dict.fromkeys(self.wrong))

    def close(self) -> None:
        for task in self.tasks:
            task.cancel()


class Queues(Member):
    """Producers and consumers: what was put is got once, in order."""

    def open(self) -> None:
        self.queue: asyncio.Queue[tuple[int, int]] = asyncio.Queue(3)
        self.got: list[tuple[int, int]] = []
        self.begun: set[tuple[int, int]] = set()
        self.put: list[tuple[int, int]] = []
        self.producers: set[asyncio.Task[None]] = set()
        self.consumers: set[asyncio.Task[None]] = set()
        self.wrong: list[str] = []

    async def produce(self, number: int) -> None:
        for n in range(12):
            self.begun.add((number, n))
            await self.queue.put((number, n))
            self.put.append((number, n))

    async def consume(self) -> None:
        while True:
            self.got.append(await self.queue.get())

    codes = frozenset({produce.__code__, consume.__code__})

    def push(self) -> None:
        for tasks in (self.producers, self.consumers):
            for task in [task for task in tasks if task.done()]:
                tasks.remove(task)
                if task.cancelled():
                    self.wrong.append("a task was cancelled")
                elif (exc := task.exception()) is not None and exc not in self.ride.raised:
                    self.wrong.append(f"a task ended with {exc!r}")
        while len(self.producers) < 3:
            self.producers.add(self.loop.create_task(self.produce(self.next())))
        while len(self.consumers) < 2:
            self.consumers.add(self.loop.create_task(self.consume()))

    def done(self) -> bool:
        return all(task.done() for task in self.producers) and self.queue.empty()

    def nudge(self) -> None:
        self.consumers.add(self.loop.create_task(self.consume()))

    def stop(self) -> None:
        self.consumers.add(self.loop.create_task(self.consume()))

    def faults(self) -> list[str]:
        found = list(dict.fromkeys(self.wrong))
        if not self.done():
            found.append(f"stuck: {self.queue!r}")
        if len(set(self.got)) != len(self.got):
            found.append("got twice")
        lost = set(self.put) - set(self.got)
        if lost:
            found.append(f"{len(lost)} of {len(self.put)} items are lost")
        if set(self.got) - self.begun:
            found.append("got what was not put")
        latest: dict[int, int] = {}
        for number, n in self.got:
            if latest.get(number, -1) > n:
                found.append("got in another order")
                break
            latest[number] = n
        return found

    def close(self) -> None:
        for task in self.producers | self.consumers:
            task.cancel()


class Echo:
    """A thread's server that sends back what it gets."""

    def __init__(self, family: int, context: ssl.SSLContext | None = None) -> None:
        self.context = context
        self.folder = tempfile.TemporaryDirectory()
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        where: Any = ("127.0.0.1", 0) if family == socket.AF_INET else self.folder.name + "/echo"
        self.listener.bind(where)
        self.listener.listen(100)
        self.address: Any = self.listener.getsockname()
        self.threads = [threading.Thread(target=self.accept, daemon=True)]
        self.threads[0].start()

    def accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.threads.append(threading.Thread(target=self.serve, args=(sock,), daemon=True))
            self.threads[-1].start()

    def serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(sock.close)
            if self.context is not None:
                sock = self.context.wrap_socket(sock, server_side=True)
                stack.callback(sock.close)
            while data := sock.recv(65536):
                sock.sendall(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(5)
        self.folder.cleanup()


def pattern(at: int, size: int) -> bytes:
    at %= len(PATTERN)
    return (PATTERN + PATTERN[:size])[at : at + size]


class Plain(asyncio.Protocol):
    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.lost: list[BaseException | None] = []
        self.pauses: list[int] = []
        self.sent = 0
        self.doomed = False
        self.connection_lost = self.lost.append  # type: ignore[assignment, method-assign]
        self.pause_writing = partial(self.pauses.append, 1)  # type: ignore[method-assign]
        self.resume_writing = partial(self.pauses.append, -1)  # type: ignore[method-assign]

    def data_received(self, data: bytes) -> None:
        self.chunks.append(data)


class Pure(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.data_received = self.chunks.append  # type: ignore[assignment, method-assign]


class Connections(Member):
    """What a transport took comes back in order; a protocol in C, and one in Python."""

    codes = frozenset({Plain.data_received.__code__})
    family = socket.AF_INET
    tls = False

    def open(self) -> None:
        server = client = None
        if self.tls:
            server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.load_cert_chain(CERTS / "server.pem")
            client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            client.check_hostname = False
            client.verify_mode = ssl.CERT_NONE
        self.echo = Echo(self.family, server)
        self.context = client
        self.connections: list[tuple[Any, Plain]] = []
        self.wrong: list[str] = []
        for make in (Pure, Plain):
            self.connect(make)

    def connect(self, make: Callable[[], Plain]) -> None:
        async def connect() -> tuple[Any, Plain]:
            if self.family == socket.AF_INET:
                return await self.loop.create_connection(make, *self.echo.address, ssl=self.context)
            return await self.loop.create_unix_connection(make, self.echo.address)

        self.connections.append(self.ride.quietly(connect()))

    def hit(self, frame: FrameType, exc: BaseException) -> None:
        protocol, data = frame.f_locals["self"], frame.f_locals["data"]
        if all(protocol is not mine for _, mine in self.connections):
            return
        if not (protocol.chunks and protocol.chunks[-1] is data):
            protocol.chunks.append(data)  # it has started
        if isinstance(exc, Exception):
            protocol.doomed = True  # asyncio ends the connection

    def push(self) -> None:
        for transport, protocol in self.connections:
            if protocol.doomed and protocol.lost:
                self.check(protocol)
                self.connections.remove((transport, protocol))
                self.connect(Plain)
                break
            if sum(protocol.pauses) <= 0 and not transport.is_closing():
                size = self.random.choice((1, 1000, 20000, 200000))
                transport.write(pattern(protocol.sent, size))
                protocol.sent += size

    def done(self) -> bool:
        return all(
            protocol.lost or sum(map(len, protocol.chunks)) >= protocol.sent
            for _, protocol in self.connections
        )

    def check(self, protocol: Plain) -> None:
        got = b"".join(protocol.chunks)
        name = type(protocol).__name__
        right = b"".join(pattern(at, 50000) for at in range(0, protocol.sent, 50000))
        if not right.startswith(got):
            at = next((n for n, one in enumerate(got) if one != right[n : n + 1][0]), len(right))
            self.wrong.append(f"{name}: wrong from byte {at} of {len(got)}")
        elif protocol.doomed:
            if len(protocol.lost) != 1:
                self.wrong.append(f"{name}: connection_lost() called {len(protocol.lost)} times")
        elif protocol.lost:
            self.wrong.append(f"{name}: lost the connection: {protocol.lost}")
        elif len(got) < protocol.sent:
            self.wrong.append(f"{name}: stuck, {len(got)} of {protocol.sent} came")
        elif sum(protocol.pauses):
            self.wrong.append(f"{name}: paused for ever")

    def faults(self) -> list[str]:
        for _, protocol in self.connections:
            self.check(protocol)
        return list(dict.fromkeys(self.wrong))

    def close(self) -> None:
        for transport, _ in self.connections:
            transport.abort()
        self.ride.quietly(asyncio.sleep(0.01))
        self.echo.close()
        self.connections.clear()


class Unix(Connections):
    family = socket.AF_UNIX


class Tls(Connections):
    tls = True


class Socks(Member):
    """sock_sendall() and sock_recv() as tasks: no byte is lost between them."""

    def open(self) -> None:
        self.echo = Echo(socket.AF_INET)
        self.got, self.sent = bytearray(), 0
        self.sending: asyncio.Future[Any] | None = None
        self.receiving: asyncio.Future[Any] | None = None
        self.wrong: list[str] = []
        self.void = self.stopped = False
        self.connect()

    def connect(self) -> None:
        self.sock = socket.create_connection(self.echo.address)
        self.sock.setblocking(False)

    def send(self, data: bytes) -> Any:
        return self.loop.sock_sendall(self.sock, data)

    def recv(self, size: int) -> Any:
        return self.loop.sock_recv(self.sock, size)

    def ended(self, future: asyncio.Future[Any] | None, what: str) -> Any:
        if future is None or not future.done():
            return None
        if future.cancelled():
            self.wrong.append(f"{what} was cancelled")
        elif future.exception() is None:
            return future.result()
        elif future not in self.ride.hit_tasks:
            self.wrong.append(f"{what} raised {future.exception()!r}")
        self.void = True
        return None

    def push(self) -> None:
        if self.void:
            return
        data = self.ended(self.receiving, "recv")
        if data is not None:
            self.got += data
        if self.receiving is None or self.receiving.done():
            size = self.random.choice((1, 3000, 65536))
            self.receiving = asyncio.ensure_future(self.recv(size), loop=self.loop)
        self.ended(self.sending, "send")
        if self.stopped or self.void or self.sent - len(self.got) > 100000:
            return
        if self.sending is None or self.sending.done():
            size = self.random.choice((1, 1000, 50000))
            data = pattern(self.sent, size)
            self.sending = asyncio.ensure_future(self.send(data), loop=self.loop)
            self.sent += size

    def stop(self) -> None:
        self.stopped = True

    def done(self) -> bool:
        self.push()
        return self.void or len(self.got) >= self.sent

    def faults(self) -> list[str]:
        right = b"".join(pattern(at, 50000) for at in range(0, self.sent, 50000))
        if not right.startswith(bytes(self.got)):
            self.wrong.append("wrong bytes")
        elif not self.void and len(self.got) < self.sent:
            what = f"{self.receiving!r}, {self.sending!r}"
            self.wrong.append(f"stuck, {len(self.got)} of {self.sent} came: {what}")
        return list(dict.fromkeys(self.wrong))

    def shut(self) -> None:
        self.sock.close()

    def close(self) -> None:
        for future in (self.receiving, self.sending):
            if future is not None and not future.done():
                future.cancel()
                self.ride.quietly(asyncio.wait([future]))
        self.shut()
        self.ride.quietly(asyncio.sleep(0.01))
        self.echo.close()


class Streams(Socks):
    """The same with StreamReader.read() and drain()."""

    def connect(self) -> None:
        made = self.ride.quietly(asyncio.open_connection(*self.echo.address))
        self.reader: asyncio.StreamReader = made[0]
        self.writer: asyncio.StreamWriter = made[1]

    def send(self, data: bytes) -> Any:
        self.writer.write(data)
        return self.writer.drain()

    def recv(self, size: int) -> Any:
        return self.reader.read(size)

    def shut(self) -> None:
        self.writer.transport.abort()


class Echoing(asyncio.Protocol):
    def __init__(self) -> None:
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.transport is not None:  # connection_made() was hit
            self.transport.write(data)

    def eof_received(self) -> None:
        pass

    def connection_lost(self, exc: BaseException | None) -> None:
        self.transport = None


class Server(Member):
    """A server of our loop, and a thread that connects again and again."""

    codes = frozenset(
        getattr(Echoing, name).__code__
        for name in (
            "__init__",
            "connection_made",
            "data_received",
            "eof_received",
            "connection_lost",
        )
    )

    def open(self) -> None:
        self.server = self.ride.quietly(self.loop.create_server(Echoing, "127.0.0.1", 0))
        self.address = self.server.sockets[0].getsockname()
        self.ended = False
        self.served = 0
        self.failed: list[str] = []
        self.thread = threading.Thread(target=self.visit, daemon=True)
        self.thread.start()

    def visit(self) -> None:
        dice = random.Random(self.random.random())
        while not self.ended:
            data = pattern(dice.randrange(1000), dice.choice((1, 1000, 100000)))
            got = bytearray()
            try:
                with socket.create_connection(self.address, timeout=5) as sock:
                    sock.sendall(data)
                    sock.shutdown(socket.SHUT_WR)
                    while more := sock.recv(65536):
                        got += more
            except OSError as exc:
                self.failed.append(repr(exc))
                continue
            self.served += 1
            if got != data:
                self.failed.append(f"{len(got)} of {len(data)} bytes came back")

    def stop(self) -> None:
        self.ended = True

    def done(self) -> bool:
        return not self.thread.is_alive()

    def faults(self) -> list[str]:
        if len(self.failed) > self.hits:
            return [f"{len(self.failed)} visits failed, {self.hits} were hit: {self.failed[:3]}"]
        if not self.served:
            return ["nobody was served"]
        return []

    def close(self) -> None:
        self.server.close()
        self.ride.quietly(self.server.wait_closed())


MEMBERS: dict[str, type[Member]] = {
    one.__name__.lower(): one
    for one in (
        Calls,
        Threadsafe,
        Signals,
        Tasks,
        Locks,
        Queues,
        Connections,
        Unix,
        Tls,
        Socks,
        Streams,
        Server,
    )
}
