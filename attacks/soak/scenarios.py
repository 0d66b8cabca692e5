"""What runs for long. `--count 100` is the short form, 10000 the long one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
import ssl
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

CERTS = Path(__file__).resolve().parents[2] / "tests" / "certs"
SCENARIOS: dict[str, type[Scenario]] = {}
NONE: tuple[ssl.SSLContext | None, ssl.SSLContext | None] = (None, None)
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: no port is left in TIME_WAIT

# Connects as often as it is told, sends, receives and closes.
PEER = """
import socket, sys
address, held = ("127.0.0.1", int(sys.argv[1])), []
for line in sys.stdin:
    what, _, number = line.strip().partition(" ")
    if what == "open":
        for _ in range(int(number)):
            held.append(socket.create_connection(address))
    elif what == "echo":
        for sock in held:
            sock.sendall(b"0123456789")
        for sock in held:
            got = b""
            while len(got) < 10:
                got += sock.recv(10 - len(got)) or sys.exit("closed")
    elif what == "close":
        for sock in held:
            sock.close()
        held.clear()
    print("done", flush=True)
"""


class Scenario:
    """`each` of `unit`s are done for each of `--count`, in so many parts."""

    each: ClassVar[float] = 1
    unit: ClassVar[str] = "operations"
    least: ClassVar[int] = 1  # in a part

    def __init__(self, count: int, parts: int) -> None:
        self.size = max(self.least, round(self.each * count / parts))  # of a part
        self.parts = parts

    def __init_subclass__(cls) -> None:
        if cls.__doc__ is not None:
            SCENARIOS[cls.__name__.lower()] = cls

    def describe(self) -> str:
        return f"{self.size * self.parts} {self.unit}"

    async def open(self) -> None:
        pass

    async def part(self, number: int) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        pass


# connections


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTS / "server.pem")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return server, client


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


class Serving(Scenario):
    """An echo server, perhaps with TLS, and visits to it."""

    tls: ClassVar[bool] = False
    options: ClassVar[dict[str, Any]] = {}

    async def open(self) -> None:
        server, self.client = contexts() if self.tls else NONE
        self.server = await asyncio.start_server(
            echo, "127.0.0.1", 0, ssl=server, backlog=1000, **self.options
        )
        self.address = self.server.sockets[0].getsockname()
        self.peer: asyncio.subprocess.Process | None = None

    async def visit(self, data: bytes = b"question") -> None:
        reader, writer = await asyncio.open_connection(*self.address, ssl=self.client)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.write(data)
        got = await reader.readexactly(len(data))
        assert got == data, "other bytes came back"
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def tell(self, what: str) -> None:
        """The peer, a process of its own, does something."""
        if self.peer is None:
            self.peer = await asyncio.create_subprocess_exec(
                *(sys.executable, "-S", "-c", PEER, str(self.address[1])),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        assert self.peer.stdin is not None and self.peer.stdout is not None
        self.peer.stdin.write(what.encode() + b"\n")
        answer = await self.peer.stdout.readline()
        assert answer == b"done\n", "the peer was not served"

    async def close(self) -> None:
        if self.peer is not None:
            assert self.peer.stdin is not None
            self.peer.stdin.close()
            await self.peer.wait()
        self.server.close()


del SCENARIOS["serving"]


class Open(Serving):
    """So many connections at once, from another process; each part is an echo on all."""

    unit = "connections at once"

    def __init__(self, count: int, parts: int) -> None:
        super().__init__(count, parts)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.size = min(max(count, 20), hard - 100, 25000)

    def describe(self) -> str:
        return f"{self.size} {self.unit}"

    async def open(self) -> None:
        await super().open()
        left = self.size
        while left > 0:
            await self.tell(f"open {min(left, 500)}")
            left -= 500

    async def part(self, number: int) -> None:
        await self.tell("echo")


class Churn(Serving):
    """Connections are opened and closed."""

    each = 100
    unit = "connections"

    async def part(self, number: int) -> None:
        left = self.size
        while left > 0:
            await asyncio.gather(*(self.visit() for _ in range(min(left, 20))))
            left -= 20


def in_memory() -> float:
    """MiB of the process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Bodies(Scenario):
    """Large bodies, held at once; each leaves something small. When they go, their memory does."""

    each = 12
    unit = "bodies of 1 MB"
    least = 60
    at_once: ClassVar[int] = 600
    kept: ClassVar[float] = 35  # MiB that may stay
    patience: ClassVar[float] = 10  # seconds: to give back much takes long, and is not done often

    async def open(self) -> None:
        self.bodies: list[bytes] = []
        self.records: list[bytearray] = []
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.address = self.server.sockets[0].getsockname()
        await self.visit()
        self.bodies.clear()
        self.before = in_memory()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = await reader.readexactly(1_000_000)
        self.records.append(bytearray(700))
        self.bodies.append(body)
        writer.close()

    async def visit(self) -> None:
        reader, writer = await asyncio.open_connection(*self.address)
        writer.write(bytes(1_000_000))
        await reader.read()
        writer.close()

    async def part(self, number: int) -> None:
        self.records.clear()
        for at in range(self.size):
            await self.visit()
            if at % self.at_once == self.at_once - 1:
                self.bodies.clear()
        self.bodies.clear()
        end = time.monotonic() + self.patience
        while True:
            await asyncio.sleep(0.7)  # what is given back is given back while the loop sleeps
            stays = in_memory() - self.before
            if stays < self.kept:
                return
            assert time.monotonic() < end, f"{stays:.0f} MiB stay of {self.size} MB"

    async def close(self) -> None:
        self.server.close()


class Unsent(Scenario):
    """Much is written to a peer that does not read and goes: so does its memory."""

    each = 12
    unit = "MB that nobody reads"
    least = 60
    kept: ClassVar[float] = 35

    async def open(self) -> None:
        self.transports: list[Any] = []
        self.before = in_memory()

    async def part(self, number: int) -> None:
        ours, theirs = socket.socketpair()
        ended = asyncio.Event()

        class Protocol(asyncio.Protocol):
            def connection_lost(self, exc: Exception | None) -> None:
                ended.set()

        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(Protocol, sock=ours)
        self.transports.append(transport)
        for _ in range(self.size):
            transport.write(bytes(1_000_000))
        theirs.close()
        await ended.wait()
        await asyncio.sleep(0.3)
        stays = in_memory() - self.before
        assert stays < self.kept, f"{stays:.0f} MiB stay of {self.size} MB"


class TlsChurn(Churn):
    """The same with handshakes."""

    each = 5
    tls = True


class Tcp(Scenario):
    """Bytes go through a connection."""

    each = 10
    unit = "MB"
    tls: ClassVar[bool] = False

    async def open(self) -> None:
        self.got, self.expected = 0, 0
        self.came = asyncio.Event()
        server, client = contexts() if self.tls else NONE
        scenario = self

        class Sink(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                scenario.got += len(data)
                if scenario.got >= scenario.expected:
                    scenario.came.set()

        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(Sink, "127.0.0.1", 0, ssl=server)
        address = self.server.sockets[0].getsockname()
        _, self.writer = await asyncio.open_connection(*address, ssl=client)

    async def part(self, number: int) -> None:
        self.came.clear()
        self.expected += self.size * 1_000_000
        block = bytes(250_000)
        for _ in range(self.size * 4):
            self.writer.write(block)
            await self.writer.drain()
        await self.came.wait()
        assert self.got == self.expected, f"{self.got} of {self.expected} bytes came"

    async def close(self) -> None:
        self.writer.transport.abort()
        self.server.close()


class Tls(Tcp):
    """The same with TLS."""

    each = 1
    tls = True


# primitives


class Primitive(Scenario):
    """`operate(n)`: n operations."""

    each = 1000

    async def part(self, number: int) -> None:
        await self.operate(self.size)

    async def operate(self, n: int) -> None:
        raise NotImplementedError


del SCENARIOS["primitive"]


class Calls(Primitive):
    """call_soon() and call_soon_threadsafe()"""

    async def operate(self, n: int) -> None:
        loop = asyncio.get_running_loop()
        called: list[int] = []
        for _ in range(n // 10 or 1):
            for _ in range(5):
                loop.call_soon(called.append, 1)
                loop.call_soon_threadsafe(called.append, 1)
            await asyncio.sleep(0)
        assert len(called) == 10 * (n // 10 or 1), "not all were called"


class Timers(Primitive):
    """call_later(), half of them cancelled"""

    async def operate(self, n: int) -> None:
        loop = asyncio.get_running_loop()
        called: list[int] = []
        for _ in range(n // 100 or 1):
            for at in range(50):
                loop.call_later(at * 1e-6, called.append, 1)
                loop.call_later(at * 1e-6, called.append, 2).cancel()
            await asyncio.sleep(60e-6)
        await asyncio.sleep(0.001)
        assert called == [1] * (50 * (n // 100 or 1)), "not all timers struck"


class Tasks(Primitive):
    """create_task(), gather() and a TaskGroup"""

    each = 500

    async def operate(self, n: int) -> None:
        for _ in range(n // 10 or 1):
            await asyncio.gather(*(asyncio.sleep(0) for _ in range(5)))
            async with asyncio.TaskGroup() as group:
                for _ in range(5):
                    group.create_task(asyncio.sleep(0))


class Cancelled(Primitive):
    """tasks that are cancelled, timeouts that strike"""

    each = 300

    async def operate(self, n: int) -> None:
        for at in range(n):
            task = asyncio.ensure_future(asyncio.sleep(60))
            if at % 3 == 0:
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.sleep(60), 1e-6)


class Queues(Primitive):
    """put() and get() of a short queue"""

    async def operate(self, n: int) -> None:
        queue: asyncio.Queue[int] = asyncio.Queue(3)

        async def produce() -> None:
            for at in range(n):
                await queue.put(at)

        task = asyncio.create_task(produce())
        for at in range(n):
            assert await queue.get() == at, "another item came"
        await task


class Locks(Primitive):
    """Lock, Semaphore, Condition, Event, between four workers"""

    async def operate(self, n: int) -> None:
        locks = asyncio.Lock(), asyncio.Semaphore(2), asyncio.Condition()
        event = asyncio.Event()

        async def work() -> None:
            for _ in range(n // 16 or 1):
                for lock in locks:
                    async with lock:
                        await asyncio.sleep(0)
                event.set()
                await event.wait()
                event.clear()

        await asyncio.gather(*(work() for _ in range(4)))


class Executor(Primitive):
    """run_in_executor()"""

    each = 50

    async def operate(self, n: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(n // 10 or 1):
            done = await asyncio.gather(*(loop.run_in_executor(None, abs, -1) for _ in range(10)))
            assert done == [1] * 10, "another result"


class Watchers(Primitive):
    """add_reader(), remove_reader(), sock_recv() and sock_sendall()"""

    each = 100

    async def operate(self, n: int) -> None:
        loop = asyncio.get_running_loop()
        for at in range(n):
            if at % 50 == 0:
                one, other = socket.socketpair()
                one.setblocking(False)
                other.setblocking(False)
            await loop.sock_sendall(one, b"x")
            loop.add_reader(other, int)
            loop.remove_reader(other)
            assert await loop.sock_recv(other, 10) == b"x"
            if at % 50 == 49 or at == n - 1:
                one.close()
                other.close()


class Children(Scenario):
    """Processes are started and waited for."""

    each = 10
    unit = "children"

    async def child(self) -> None:
        process = await asyncio.create_subprocess_exec(
            "/bin/echo", "x", stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        assert (out, process.returncode) == (b"x\n", 0), "another end of a child"

    async def part(self, number: int) -> None:
        left = self.size
        while left > 0:
            await asyncio.gather(*(self.child() for _ in range(min(left, 5))))
            left -= 5


# servers in bad company


class Mixed(Serving):
    """A server with TLS, a Unix socket, a queue, timers and children, for so many seconds."""

    each = 0.04
    unit = "seconds"
    tls = True

    def __init__(self, count: int, parts: int) -> None:
        super().__init__(count, parts)
        self.seconds = self.each * count / parts
        self.served = 0

    def describe(self) -> str:
        return f"{self.seconds * self.parts:.0f} {self.unit}, {self.served} rounds"

    async def open(self) -> None:
        await super().open()
        self.folder = tempfile.TemporaryDirectory()
        self.path = self.folder.name + "/socket"
        self.unix = await asyncio.start_unix_server(echo, self.path)

    async def visit_unix(self) -> None:
        reader, writer = await asyncio.open_unix_connection(self.path)
        writer.write(b"question")
        assert await reader.readexactly(8) == b"question"
        writer.close()
        await writer.wait_closed()

    async def part(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self.seconds
        await Children.child(self)  # type: ignore[arg-type]
        while True:
            await asyncio.gather(
                self.visit(bytes(100_000)),
                *(self.visit_unix() for _ in range(5)),
                asyncio.wait_for(asyncio.to_thread(abs, -1), 30),
                asyncio.sleep(0.001),
            )
            self.served += 1
            if loop.time() > end:
                return

    async def close(self) -> None:
        self.unix.close()
        await super().close()
        self.folder.cleanup()


class HalfOpen(Serving):
    """Peers that begin a TLS handshake and say no more, while others are served."""

    each = 10
    unit = "handshakes"
    tls = True
    options: ClassVar[dict[str, Any]] = {"ssl_handshake_timeout": 0.2}

    async def part(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        socks = []
        for _ in range(self.size):
            sock = socket.socket()
            sock.setblocking(False)
            await loop.sock_connect(sock, self.address)
            await loop.sock_sendall(sock, b"\x16\x03\x01\x02")
            socks.append(sock)
        await self.visit()
        for sock in socks:
            with contextlib.suppress(OSError):
                assert await loop.sock_recv(sock, 100) == b"", "something was answered"
            sock.close()


class Flood(Serving):
    """More connections than descriptors; when they go, others are served."""

    each = 40
    unit = "connections, of which 30 have descriptors"
    least = 60

    async def open(self) -> None:
        await super().open()
        # What is told of it is many lines.
        logging.getLogger("asyncio").disabled = True
        asyncio.constants.ACCEPT_RETRY_DELAY = 0.02  # type: ignore[attr-defined]
        self.size = min(self.size, 900)
        await self.tell("close")
        self.used = len(os.listdir("/proc/self/fd"))

    def limit(self, more: int) -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(self.used + more, hard), hard))

    async def part(self, number: int) -> None:
        self.limit(30)
        await self.tell(f"open {self.size}")
        await asyncio.sleep(0.05)
        await self.tell("close")
        await self.tell("open 5")
        await self.tell("echo")
        await self.tell("close")
        self.limit(1000)  # for who looks
        while len(os.listdir("/proc/self/fd")) > self.used:
            await asyncio.sleep(0.01)


class Deaf(Serving):
    """A peer that is sent to and never reads: its writer waits, and others are served."""

    each = 0.4
    unit = "peers"

    async def part(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(self.size):
            sock = socket.socket()
            sock.setblocking(False)
            await loop.sock_connect(sock, self.address)
            block = bytes(1_000_000)
            # The server sends back until nothing fits, and then reads no more.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    while True:
                        await loop.sock_sendall(sock, block)
            await asyncio.gather(*(self.visit() for _ in range(20)))
            sock.close()
