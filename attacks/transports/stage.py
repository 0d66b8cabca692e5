"""Runs a program on a loop, and writes down what happened."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import gc
import io
import itertools
import logging
import os
import pickle
import re
import signal
import socket
import ssl
import threading
import time
import types
import unittest.mock
import warnings
import weakref
from collections.abc import Callable
from typing import Any

from .peer import Checked, DatagramPeer, Layer, Peer, client_context, pattern, server_context
from .program import DATAGRAMS, MADE, PIPES, SOCKS, Conn, Program, Step

ENDS = (KeyboardInterrupt, SystemExit)
MUCH = 500  # lines
Log = dict[str, list[str]]
_numbers = itertools.count()


@functools.cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Client's and server's."""
    return client_context(), server_context()


def named(error: BaseException) -> str:
    """An exception without what differs from run to run."""
    if isinstance(error, ssl.SSLError):
        return f"{type(error).__name__}({error.reason})"
    if isinstance(error, OSError) and error.errno:
        return f"{type(error).__name__}({errno.errorcode[error.errno]})"
    text = re.sub(r"<.*>|0x[0-9a-f]+|fd[ =]\d+", "...", str(error))
    return f"{type(error).__name__}({text})"


def made(name: str) -> BaseException:
    """The exception that a callback raises."""
    if name == "OSError":
        return OSError(errno.EIO, "raised")
    if name == "ConnectionResetError":
        return ConnectionResetError(errno.ECONNRESET, "raised")
    if name == "CancelledError":
        return asyncio.CancelledError("raised")
    kinds: dict[str, type[BaseException]] = {kind.__name__: kind for kind in (ValueError, *ENDS)}
    return kinds[name]("raised")


class Listener:
    """What protocols share: each call is written down, and the steps that wait for it are taken."""

    def __init__(self, actor: Actor, tag: str) -> None:
        self.actor, self.tag = actor, tag

    def connection_made(self, transport: Any) -> None:
        """Of asyncio.BaseProtocol, as those below."""
        self.actor.transport = transport
        self.actor.event("made", self.tag)

    def connection_lost(self, exc: BaseException | None) -> None:
        """It ends."""
        self.actor.event("lost", f"{self.tag}{None if exc is None else named(exc)}")

    def pause_writing(self) -> None:
        """Too much waits."""
        self.actor.event("pause", self.tag)

    def resume_writing(self) -> None:
        """Less waits."""
        self.actor.event("resume", self.tag)

    def eof_received(self) -> bool:
        """No more to read."""
        self.actor.event("eof", self.tag)
        return self.actor.conn.keep_open


class Plain(Listener, asyncio.Protocol):
    """With data_received()."""

    def data_received(self, data: bytes) -> None:
        """Bytes."""
        self.actor.data(data)


class Buffered(Listener, asyncio.BufferedProtocol):
    """With a buffer of its own."""

    def get_buffer(self, sizehint: int) -> memoryview:
        """Room."""
        self.room = bytearray(self.actor.conn.buffer)
        return memoryview(self.room)

    def buffer_updated(self, nbytes: int) -> None:
        """It is filled."""
        self.actor.data(memoryview(self.room)[:nbytes])


class Datagrams(Listener, asyncio.DatagramProtocol):
    """Of a datagram endpoint."""

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """One datagram."""
        checked = self.actor.received
        right = data == pattern(checked.count, len(data))
        checked.count += len(data)
        self.actor.event("data", f"{len(data)}" if right else f"{len(data)} wrong")

    def error_received(self, exc: BaseException) -> None:
        """An error."""
        self.actor.event("error", named(exc))


class Actor:
    """Our end of a connection."""

    def __init__(self, stage: Stage, name: str, conn: Conn, steps: list[Step]) -> None:
        self.stage, self.name, self.conn = stage, name, conn
        self.log: list[str] = []
        self.steps = steps
        self.counts: dict[str, int] = {}
        self.received = Checked()
        self.logged = 0
        self.sent = 0
        self.transport: Any = None
        self.reader: Any = None
        self.writer: Any = None
        self.peer: Peer | None = None
        self.other: Actor | None = None
        self.address: Any = None
        self.tls = conn.kind.startswith("tls")
        self.fuzzy = conn.kind != "unix" and conn.kind not in PIPES
        self.lost = 0
        self.calls: set[str] = set()  # of the socket's own methods
        self.falls_back = 0  # sendfile()s that write as anybody does

    def protocol(self, api: str = "", tag: str = "") -> Any:
        """A new one."""
        if self.conn.kind in DATAGRAMS:
            return Datagrams(self, tag)
        return (Buffered if (api or self.conn.api) == "buffered" else Plain)(self, tag)

    def note(self, line: str) -> None:
        """Write down."""
        self.stage.ticks += 1
        if self.received.count != self.logged and self.conn.kind not in DATAGRAMS:
            self.logged = self.received.count
            self.log.append(f"data {self.received}")
        self.log.append(line)

    def event(self, name: str, about: str = "") -> None:
        """A callback was called."""
        self.note(f"{name} {about}".rstrip())
        self.lost += name == "lost"
        self.counts[name] = self.counts.get(name, 0) + 1
        self.react(name, self.counts[name])

    def data(self, data: bytes | memoryview) -> None:
        """Bytes came."""
        self.stage.ticks += 1
        self.received.add(data)
        if not data:
            self.note("no data")
        self.react("data", self.received.count)

    def react(self, name: str, count: int) -> None:
        """Take the steps that wait for it."""
        due = [step for step in self.steps if step.where == name and step.at <= count]
        for step in due:
            self.steps.remove(step)
        for step in due:
            self.stage.take(step)

    def peer_state(self) -> list[str]:
        """What the peer has seen: its end, its bytes."""
        if self.peer is None:
            return []
        if isinstance(self.peer, DatagramPeer):
            return ["peer", f"{self.peer.received.count}, {' '.join(self.peer.log)}"]
        return [f"peer's end: {self.peer.end}", f"{self.peer.received!r}"]

    # ---- what steps do ----

    def chunk(self, size: int, form: str) -> tuple[Any, Callable[[], None]]:
        """What is written next, in this form, and what happens to it afterwards."""
        data = pattern(self.sent, size)
        self.sent += size

        def nothing() -> None:
            pass

        if form in ("changed", "changed_view"):
            mutable = bytearray(data)

            def change() -> None:
                mutable[:] = bytes(len(mutable))

            return (mutable if form == "changed" else memoryview(mutable)), change
        if form == "strided":
            doubled = bytearray(2 * size)
            doubled[::2] = data
            return memoryview(bytes(doubled))[::2], nothing
        kinds: dict[str, Any] = {"bytes": bytes, "bytearray": bytearray, "memoryview": memoryview}
        return kinds[form](data), nothing

    def do(self, op: str, args: tuple[Any, ...]) -> Any:
        """One operation; what it returns is written down."""
        if op in ("raise", "signal", "child", "beside"):
            return getattr(self, f"do_{op}")(*args)
        if self.transport is None or (
            self.falls_back and op in ("write", "writelines", "write_eof", "sendfile")
        ):
            return "not now"
        return getattr(self, f"do_{op}")(*args)

    def do_write(self, size: int, form: str) -> None:
        before = self.sent
        data, change = self.chunk(size, form)
        try:
            (self.transport if self.writer is None else self.writer).write(data)
        except Exception:
            self.sent = before
            raise
        change()

    def do_writelines(self, sizes: tuple[int, ...], form: str) -> None:
        before = self.sent
        chunks = [self.chunk(size, form) for size in sizes if size]
        try:
            (self.transport if self.writer is None else self.writer).writelines(
                [chunk for chunk, _ in chunks]
            )
        except Exception:
            self.sent = before
            raise
        for _, change in chunks:
            change()

    def do_write_eof(self) -> Any:
        if self.transport.can_write_eof():
            return (self.transport if self.writer is None else self.writer).write_eof()
        return "cannot"

    def do_close(self) -> None:
        self.stage.closed_by_us.add(self.name)
        (self.transport if self.writer is None else self.writer).close()

    def do_abort(self) -> None:
        self.stage.closed_by_us.add(self.name)
        self.transport.abort()

    def do_pause(self) -> None:
        self.transport.pause_reading()

    def do_resume(self) -> None:
        self.transport.resume_reading()

    def do_is_reading(self) -> Any:
        return self.transport.is_reading()

    def do_is_closing(self) -> Any:
        return self.transport.is_closing()

    def do_size(self) -> Any:
        size = self.transport.get_write_buffer_size()
        if self.lost and self.conn.kind in DATAGRAMS:
            return "?"  # what asyncio could not send from connection_lost() waits for ever
        return "?" if self.tls else size > 0 if self.fuzzy else size

    def do_limits(self, high: int | None, low: int | None) -> Any:
        self.transport.set_write_buffer_limits(high, low)
        return self.transport.get_write_buffer_limits()

    def do_set_protocol(self, api: str) -> None:
        self.transport.set_protocol(self.protocol(api, "second "))

    def do_behind(self) -> Any:
        sock = self.transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return "no socket"
        sock._sock.close()
        return None

    def do_usurp(self) -> Any:
        """The same, and another file gets the number: it must be left alone."""
        sock = self.transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0 or self.stage.dies:
            return "no socket"
        fd = sock.fileno()
        sock._sock.close()
        self.stage.usurpers.append(Usurper(fd))
        return None

    def do_unblock(self) -> Any:
        """Somebody who shares the file has it block. (Not asyncio's, which would wait.)"""
        sock = self.transport.get_extra_info("socket")
        attacked = self.stage.is_attacked and not self.conn.subclass
        if sock is not None and sock.fileno() >= 0 and attacked:
            os.set_blocking(sock.fileno(), True)

    def do_beside(self, size: int) -> None:
        """In between, something is received from another socket."""
        self.stage.receive_beside(size)

    def do_child(self, size: int) -> Any:
        if self.transport is None or self.stage.dies:
            return "not connected"
        sock = self.transport.get_extra_info("socket")
        if (
            sock is None
            or sock.fileno() < 0
            or self.transport.get_write_buffer_size()
            or self.sent > 2000
        ):
            return "not now"
        pid = os.fork()
        if pid == 0:
            try:
                os.write(sock.fileno(), pattern(self.sent, size))
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        self.sent += size
        return None

    def do_raise(self, name: str) -> None:
        raise made(name)

    def do_signal(self, name: str) -> None:
        """A signal's handler raises, here."""

        def handler(number: int, frame: types.FrameType | None) -> None:
            raise made(name)

        before = signal.signal(signal.SIGUSR1, handler)
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
        finally:
            signal.signal(signal.SIGUSR1, before)

    def do_exit(self) -> None:
        self.stage.exit()

    def start(self, what: str, coro: Any) -> None:
        """In a task of its own, whose result is written down."""
        self.stage.start(self, what, coro)

    def do_sendfile(self, size: int, fallback: bool, real: bool) -> None:
        data = pattern(self.sent, size)
        self.sent += size
        file: Any = io.BytesIO(data)
        if real:
            file = os.fdopen(os.memfd_create("attack"), "r+b")
            file.write(data)
            file.flush()
            file.seek(0)
        self.stage.slow += 1
        falls_back = self.tls or not real
        self.falls_back += falls_back

        async def send() -> Any:
            with file:
                try:
                    return await self.stage.loop.sendfile(self.transport, file, fallback=fallback)
                finally:
                    self.stage.slow -= 1
                    self.falls_back -= falls_back

        self.start("sendfile", send())

    def do_start_tls(self, server_side: bool) -> Any:
        if self.tls or self.transport.is_closing() or self.peer is None or self.peer.layers:
            return "not now"
        if self.transport.get_write_buffer_size() or self.peer.received.count != self.sent:
            return "not now"
        if self.received.count != self.peer.sent or self.api_of_transport() is None:
            return "not now"
        self.stage.starts_tls.append((self, server_side))
        return None

    def api_of_transport(self) -> Any:
        return self.transport.get_protocol() if self.writer is None else None

    async def upgrade(self, server_side: bool) -> None:
        """start_tls(), with the peer's side of it."""
        ours, theirs = contexts()[:: 1 if not server_side else -1]
        assert self.peer is not None
        self.peer.layers.append(Layer(theirs, not server_side))
        self.peer.flush()
        self.tls = True
        transport = await self.stage.loop.start_tls(
            self.transport,
            self.protocol(),
            ours,
            server_side=server_side,
            server_hostname=None if server_side else "localhost",
        )
        if transport is not None:
            self.transport = transport
            transport.get_protocol()
        self.note("upgraded")

    def do_read(self, size: int) -> None:
        self.start("read", self.reading(self.reader.read(size)))

    def do_readexactly(self, size: int) -> None:
        self.start("readexactly", self.reading(self.reader.readexactly(size)))

    def do_readline(self) -> None:
        self.start("readline", self.reading(self.reader.readline()))

    async def reading(self, coro: Any) -> Any:
        try:
            data = await coro
        except asyncio.IncompleteReadError as error:
            self.received.add(error.partial)
            return f"incomplete {len(error.partial)}"
        self.received.add(data)
        return len(data) if len(data) < 4000 else "much"

    def do_drain(self) -> None:
        self.start("drain", self.writer.drain())

    def do_wait_closed(self) -> None:
        self.start("wait_closed", self.writer.wait_closed())

    def do_cancel(self) -> Any:
        tasks = [task for actor, _, task in self.stage.tasks if actor is self and not task.done()]
        return tasks[-1].cancel() if tasks else "none"

    def do_sendto(self, size: int, form: str) -> None:
        before = self.sent
        data, change = self.chunk(size, "bytes" if form == "strided" else form)
        try:
            self.transport.sendto(data, self.address)
        except Exception:
            self.sent = before
            raise
        change()

    def do_sendmany(self, count: int, size: int) -> None:
        for _ in range(count):
            self.do_sendto(size, "bytes")


class Usurper:
    """The file that has got the number of a transport's socket."""

    def __init__(self, fd: int) -> None:
        near, far = socket.socketpair()
        if far.fileno() == fd:
            near, far = far, near
        self.fd, self.far = fd, far
        if near.fileno() == fd:
            near.detach()
        else:
            os.dup2(near.fileno(), fd)
            near.close()
        self.far.setblocking(False)
        self.far.send(b"?")
        self.file = os.fstat(fd)

    def broken(self) -> list[str]:
        """What was done to it."""
        with self.far:
            try:
                mine = os.path.samestat(os.fstat(self.fd), self.file)
            except OSError:
                mine = False
            if not mine:
                return ["BROKEN: another's file is closed"]
            near = socket.socket(fileno=self.fd)
            with near:
                near.setblocking(False)
                found = []
                with contextlib.suppress(BlockingIOError):
                    count = len(self.far.recv(1000))
                    found.append(f"BROKEN: another's file was written to: {count}")
                try:
                    unread = near.recv(10)
                except BlockingIOError:
                    unread = b""
                if unread != b"?":
                    found.append("BROKEN: another's file was read")
                return found


class Shouting(socket.socket):
    """A socket with methods of its own."""

    calls: set[str]

    def recv(self, *args: Any) -> bytes:
        """Of socket.socket, as those below."""
        self.calls.add("recv")
        return super().recv(*args)

    def recv_into(self, *args: Any) -> int:
        """Into a buffer."""
        self.calls.add("recv_into")
        return super().recv_into(*args)

    def send(self, *args: Any) -> int:
        """Some of it."""
        self.calls.add("send")
        return super().send(*args)


def shouting(sock: socket.socket) -> Shouting:
    """The same socket, of that class."""
    made = Shouting(fileno=sock.detach())
    made.calls = set()
    return made


class SocksActor(Actor):
    """Our end, a socket without a transport."""

    sock: Any = None

    def do(self, op: str, args: tuple[Any, ...]) -> Any:
        """One operation; reading is done by one at a time, and so is sending."""
        side = {"recv": "read", "recv_into": "read", "watch": "read", "sendall": "write"}.get(op)
        if side in self.busy:
            return "not now"
        return getattr(self, f"do_{op}")(*args)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.busy: set[str] = set()

    def begin(self, side: str, what: str, coro: Any) -> None:
        """A task."""

        async def run() -> Any:
            try:
                return await coro
            finally:
                self.busy.discard(side)

        self.busy.add(side)
        self.start(what, run())

    def told(self, size: int) -> Any:
        """How much came; TCP brings it in pieces."""
        return size if not self.fuzzy or size < 2 else "some"

    def do_recv(self, size: int) -> None:
        async def receive() -> Any:
            data = await self.stage.loop.sock_recv(self.sock, size)
            self.received.add(data)
            return self.told(len(data))

        self.begin("read", "recv", receive())

    def do_recv_into(self, size: int) -> None:
        async def receive() -> Any:
            buffer = bytearray(size)
            count = await self.stage.loop.sock_recv_into(self.sock, buffer)
            self.received.add(buffer[:count])
            return self.told(count)

        self.begin("read", "recv_into", receive())

    def do_sendall(self, size: int, form: str) -> None:
        data, _ = self.chunk(size, form)
        self.begin("write", "sendall", self.stage.loop.sock_sendall(self.sock, data))

    def do_watch(self) -> Any:
        def readable() -> None:
            try:
                data = self.sock.recv(1 << 16)
            except BlockingIOError:
                self.note("nothing to read")
                return
            except OSError as error:
                self.note(f"recv raises {named(error)}")
                data = b""
            self.stage.ticks += 1
            self.received.add(data)
            if not data:
                self.note("readable, the end")
                self.stage.loop.remove_reader(self.sock)

        self.stage.loop.add_reader(self.sock, readable)
        self.busy.add("read")

    def do_unwatch(self) -> Any:
        if "read" in self.busy and any(not task.done() for _, _, task in self.stage.tasks):
            return "not now"
        self.busy.discard("read")
        return self.stage.loop.remove_reader(self.sock)

    def do_watch_number(self, number: int) -> None:
        self.stage.loop.add_reader(number, print)

    def do_shut_sock(self) -> None:
        self.sock.close()

    def do_dup2(self) -> Any:
        """Another socket takes the place of this one, and its peer that of the other end."""
        assert self.peer is not None
        self.peer.drain()
        through = self.peer.received.count == self.sent and self.received.count == self.peer.sent
        if self.busy or self.sock.fileno() < 0 or not through or not self.peer.open:
            return "not now"
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        os.dup2(ours.fileno(), self.sock.fileno())
        ours.close()
        before, self.peer = self.peer, Peer(theirs.fileno(), theirs)
        self.peer.sent, self.peer.received = before.sent, before.received
        before.close()
        return None

    def do_unblock(self) -> None:
        if self.sock.fileno() >= 0 and self.stage.is_attacked:
            os.set_blocking(self.sock.fileno(), True)

    def release(self) -> None:
        """The end."""
        if "read" in self.busy:
            with contextlib.suppress(ValueError):
                self.stage.loop.remove_reader(self.sock)
        self.sock.close()


class Logged(logging.Handler):
    """asyncio's warnings and errors."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(logging.WARNING)
        self.stage = stage

    def emit(self, record: logging.LogRecord) -> None:
        """One of them."""
        message = record.getMessage()
        if not message.startswith("Executing"):
            self.stage.note(f"logged {message.splitlines()[0][:40]}")


class Stage:
    """A loop, the connections of a program, and the logs."""

    def __init__(self, program: Program, make_loop: Callable[[], Any], debug: bool) -> None:
        self.program = program
        self.log: list[str] = []
        self.ticks = 0
        self.slow = 0
        self.dies = any(step.op == "exit" for step in program.steps)
        self.closed_by_us: set[str] = set()
        self.starts_tls: list[tuple[Actor, bool]] = []
        self.tasks: list[tuple[Actor, str, Any]] = []
        self.loop = make_loop()
        self.loop.set_debug(debug)
        self.loop.slow_callback_duration = 1e9
        self.loop.set_exception_handler(self.handler)
        self.is_attacked = "ctask" in type(self.loop).__module__
        self.usurpers: list[Usurper] = []
        self.beside: list[socket.socket] = []
        self.pipe = -1
        self.actors = [
            (SocksActor if conn.kind in SOCKS else Actor)(
                self, "ab"[i], conn, [s for s in program.steps if s.conn == i and s.where in LATER]
            )
            for i, conn in enumerate(program.conns)
        ]
        self.all = list(self.actors)

    def note(self, line: str) -> None:
        """Of no connection."""
        self.ticks += 1
        if len(self.log) < MUCH:
            self.log.append(line)

    def handler(self, loop: Any, context: dict[str, Any]) -> None:
        """The loop's exception handler."""
        error = context.get("exception")
        message = re.sub(r"(callback|handle) .*", r"\1", context["message"])
        self.note(f"reported {message}: {None if error is None else named(error)}")

    def receive_beside(self, size: int) -> None:
        """From a socket that has so much, without waiting."""
        if not self.beside:
            self.beside = list(socket.socketpair())
            self.beside[0].setblocking(False)
        self.beside[1].send(b"Z" * size)
        coro = self.loop.sock_recv(self.beside[0], size)
        try:
            coro.send(None)
        except StopIteration as error:
            if error.value != b"Z" * size:
                self.note("other bytes came beside")
        else:
            self.note("nothing came beside")
            coro.close()

    def exit(self) -> None:
        """The process ends here."""
        with os.fdopen(self.pipe, "wb") as file:
            pickle.dump([(actor.log, actor.peer_state()) for actor in self.all], file)
        os._exit(7)

    # ---- running ----

    def spin(self) -> None:
        """One iteration."""
        self.loop.call_soon(self.loop.stop)
        try:
            self.loop.run_forever()
        except ENDS as error:
            self.note(f"raised {named(error)}")
        for peer in self.peers():
            before = peer.ticks
            peer.flush()
            self.ticks += peer.ticks != before

    def peers(self) -> list[Peer]:
        """Of all connections."""
        return [actor.peer for actor in self.all if actor.peer is not None]

    def settle(self) -> None:
        """Run until nothing happens."""
        idle = 0
        until = time.monotonic() + 10
        while idle < (3 if not self.slow else 60) or (self.loading() and time.monotonic() < until):
            before = self.ticks
            self.spin()
            if len(self.log) >= MUCH:
                return  # busy: asyncio, after KeyboardInterrupt in resume_writing()
            idle = 0 if self.ticks != before else idle + 1
            if self.slow and idle > 3:
                time.sleep(0.0003)

    def loading(self) -> bool:
        """Whether the pool of threads works."""
        pool = getattr(self.loop, "_default_executor", None)
        return pool is not None and pool._work_queue.qsize() > 0

    def start(self, actor: Actor, what: str, coro: Any) -> None:
        """A task."""

        async def run() -> None:
            try:
                result = await coro
            except asyncio.CancelledError:
                actor.note(f"{what}: cancelled")
                raise
            except Exception as error:
                actor.note(f"{what}: {named(error)}")
            else:
                actor.note(f"{what}: {result}")

        self.tasks.append((actor, what, self.loop.create_task(run())))

    def complete(self, coro: Any) -> Any:
        """Run a coroutine to its end, or until nothing happens."""
        task = self.loop.create_task(coro)
        for _ in range(200):
            if task.done():
                break
            self.spin()
        if not task.done():
            self.settle()
        if not task.done():
            task.cancel()
            self.settle()
            self.note("hangs")
            return None
        if task.cancelled():
            self.note("cancelled")
            return None
        if task.exception() is not None:
            self.note(f"failed {named(task.exception())}")
            return None
        return task.result()

    def take(self, step: Step) -> None:
        """Do what a step of our end says, here."""
        actor = self.actors[step.conn]
        try:
            result = actor.do(step.op, step.args)
        except (*ENDS, asyncio.CancelledError) as error:
            actor.note(f"{step.op} raises {named(error)}")
            raise
        except Exception as error:
            actor.note(f"{step.op} raises {named(error)}")
            if step.op in ("raise", "signal"):
                raise
        else:
            if result is not None:
                actor.note(f"{step.op} -> {result}")

    def run_step(self, step: Step) -> None:
        """From where it says."""
        actor = self.actors[step.conn]
        if step.where == "peer":
            if actor.peer is None or (
                actor.tls and step.op == "send" and self.closed_by_us & {actor.name}
            ):
                return
            if actor.tls or step.op == "drain":
                self.settle()
            got = getattr(actor.peer, step.op)(*step.args)
            if step.op == "take" and not actor.tls:
                actor.note(f"peer takes {got if not actor.fuzzy or got < 2000 else 'much'}")
            if step.op == "drain":
                self.drain(actor)
        elif step.where == "out":
            try:
                self.take(step)
            except ENDS as error:
                self.note(f"raised {named(error)}")
        elif step.where == "soon":
            self.loop.call_soon(self.take, step)
        elif step.where == "task":

            async def act() -> None:
                self.take(step)

            self.start(actor, "task", act())
        elif step.where == "poll":
            self.interrupt()
        if step.settle or actor.tls:
            self.settle()
        while self.starts_tls:
            self.settle()
            upgraded, server_side = self.starts_tls.pop()
            if not upgraded.transport.is_closing():
                self.complete(upgraded.upgrade(server_side))

    def interrupt(self) -> None:
        """A signal while the loop waits."""

        def handler(number: int, frame: types.FrameType | None) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGUSR1, handler)
        main = threading.main_thread().ident
        assert main is not None
        thread = threading.Timer(0.003, signal.pthread_kill, (main, signal.SIGUSR1))
        try:
            thread.start()
            self.loop.run_forever()
        except KeyboardInterrupt:
            self.note("interrupted")
        thread.join()
        signal.signal(signal.SIGUSR1, before)

    def drain(self, actor: Actor) -> None:
        """The peer reads all there is."""
        assert actor.peer is not None
        before = -1
        while actor.peer.ticks != before:
            before = actor.peer.ticks
            self.settle()
            actor.peer.drain()
        actor.note(f"peer has {actor.peer.received} {actor.peer.end}".rstrip())

    def drain_all(self) -> None:
        """All peers read."""
        for actor in self.all:
            if actor.peer is not None and actor.peer.open:
                self.drain(actor)

    def attempt(self, actor: Actor, method: str) -> None:
        """Call a method of a transport, which may be of no use."""
        try:
            getattr(actor.transport, method)()
        except (RuntimeError, AttributeError):
            pass
        except Exception as error:
            actor.note(f"{method} raises {named(error)}")

    # ---- the whole ----

    def run(self) -> Log:
        """Everything."""
        handler = Logged(self)
        logger = logging.getLogger("asyncio")
        handlers, logger.handlers = logger.handlers, [handler]
        level, logger.propagate = logger.level, False
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("ignore", RuntimeWarning)
                warnings.simplefilter("always", ResourceWarning)
                self.act()
            for warning in caught:
                if issubclass(warning.category, ResourceWarning):
                    self.note("warned " + re.sub("<.*>", "...", str(warning.message))[:60])
        finally:
            logger.handlers = handlers
            logger.setLevel(level)
            logger.propagate = True
        log = {actor.name: [*actor.log, *actor.peer_state()] for actor in self.all}
        return {"loop": self.log, **log}

    def act(self) -> None:
        """Sockets, connections, steps, the end."""
        opened = [open_sockets(self, actor) for actor in self.actors]
        if self.dies:
            self.act_in_child(opened)
            return
        for connect in opened:
            connect()
        for step in self.program.steps:
            if step.where not in LATER:
                self.run_step(step)
        self.finish()

    def act_in_child(self, opened: list[Callable[[], None]]) -> None:
        """In a process that will end in the middle."""
        reading, self.pipe = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(reading)
                for connect in opened:
                    connect()
                for step in self.program.steps:
                    if step.where not in LATER:
                        self.run_step(step)
                status = 3
                for actor in self.all:
                    actor.note("alive")
                self.exit()
            finally:
                os._exit(status)
        os.close(self.pipe)
        with os.fdopen(reading, "rb") as file:
            told = file.read()
        _, status = os.waitpid(pid, 0)
        self.note(f"process ended with {os.waitstatus_to_exitcode(status)}")
        for connect in opened:
            connect.__self__.release()  # type: ignore[attr-defined]
        if told:
            for actor, (log, state) in zip(self.all, pickle.loads(told), strict=False):
                actor.log = [*log, *state[:1]]
                if actor.peer is not None and state:
                    actor.peer.received.count = int(state[1].split(",")[0])
        for actor in self.all:
            if actor.peer is not None:
                if not actor.tls:
                    actor.peer.drain()
                actor.peer.close()
                if actor.tls:
                    actor.peer = None
        self.loop.close()

    def finish(self) -> None:
        """Let all end, and see what is left."""
        self.settle()
        for actor in self.all:
            actor.steps.clear()
        self.drain_all()
        for actor in self.all:
            self.attempt(actor, "resume_reading")
        self.settle()
        for actor in self.all:
            if actor.transport is not None and not actor.transport.is_closing():
                actor.note("open at the end")
                self.attempt(actor, "close")
        self.settle()
        self.drain_all()
        for actor in self.all:
            if actor.transport is not None and not actor.lost and actor.writer is None:
                actor.note("not lost after close()")
            if not actor.lost:
                self.attempt(actor, "close" if actor.conn.kind == "read_pipe" else "abort")
        self.settle()
        for actor in self.all:
            if actor.peer is not None:
                actor.peer.close()
        self.settle()
        for actor, what, task in self.tasks:
            if not task.done():
                actor.note(f"{what} never ends")
                task.cancel()
        self.settle()
        for actor in self.all:
            if isinstance(actor, SocksActor):
                actor.release()
            actor.note(f"lost {actor.lost} times")
            if actor.reader is not None and actor.reader.exception() is not None:
                actor.note(f"reader has {named(actor.reader.exception())}")
            if actor.conn.subclass:
                actor.note(f"methods called: {sorted(actor.calls)}")
        for usurper in self.usurpers:
            self.log += usurper.broken()
        for sock in self.beside:
            sock.close()
        left = asyncio.all_tasks(self.loop)
        if left:
            self.note(f"{len(left)} tasks left")
            for task in left:
                task.cancel()
            self.settle()
        held = [weakref.ref(actor.transport) for actor in self.all if actor.transport is not None]
        pool = getattr(self.loop, "_default_executor", None)
        if pool is not None:
            pool.shutdown(wait=True)
        self.loop.close()
        for actor in self.all:
            actor.transport = actor.reader = actor.writer = None
        self.tasks.clear()
        self.held = held


LATER = ("made", "data", "eof", "pause", "resume", "lost")


class Opener:
    """Sockets of a connection, which are there before its loop's end is made."""

    def __init__(self, stage: Stage, actor: Actor) -> None:
        self.stage, self.actor = stage, actor
        self.socks: list[Any] = []
        self.listener: socket.socket | None = None

    def release(self) -> None:
        """Close ours, in the process that does not use them."""
        for sock in self.socks:
            sock.close()

    def connect(self) -> None:
        """Make the transport."""
        stage, actor, loop = self.stage, self.actor, self.stage.loop
        conn = actor.conn
        if conn.subclass:
            self.socks[0] = shouting(self.socks[0])
            self.socks[0].setblocking(False)
            actor.calls = self.socks[0].calls
        if isinstance(actor, SocksActor):
            actor.sock = self.socks[0]
        elif conn.kind == "read_pipe":
            stage.complete(loop.connect_read_pipe(actor.protocol, self.socks[0]))
        elif conn.kind == "write_pipe":
            stage.complete(loop.connect_write_pipe(actor.protocol, self.socks[0]))
        elif conn.kind in DATAGRAMS:
            stage.complete(loop.create_datagram_endpoint(actor.protocol, sock=self.socks[0]))
        elif conn.kind == "pair":
            other = Actor(stage, actor.name * 2, conn, [])
            other.peer = None
            actor.other = other
            stage.all.append(other)
            for who, sock in zip((actor, other), self.socks, strict=True):
                stage.complete(loop.create_connection(who.protocol, sock=sock))
        else:
            real = socket.socket
            function = unittest.mock.patch("socket.socket", lambda *args, **how: real(*args, **how))
            with function if conn.replaced else contextlib.nullcontext():
                stage.complete(
                    self.serve() if conn.kind in ("server", "tlsserved") else self.join()
                )
        stage.settle()
        for _ in range({"tls": 1, "tls_server": 1, "tlstls": 2}.get(conn.kind, 0)):
            if actor.transport is not None and not actor.transport.is_closing():
                server_side = conn.kind == "tls_server"
                if conn.api == "streams":
                    stage.complete(self.upgrade_streams(server_side))
                else:
                    stage.complete(actor.upgrade(server_side))
                stage.settle()

    async def upgrade_streams(self, server_side: bool) -> None:
        """Streams have start_tls() of their own."""
        actor = self.actor
        ours, theirs = contexts()[:: 1 if not server_side else -1]
        assert actor.peer is not None
        actor.peer.layers.append(Layer(theirs, not server_side))
        actor.peer.flush()
        hostname = None if server_side else "localhost"
        if server_side:
            actor.writer._protocol._client_connected_cb = lambda reader, writer: (
                None
            )  # as a server's
        await actor.writer.start_tls(ours, server_hostname=hostname)
        actor.transport = actor.writer.transport
        actor.reader._transport = actor.transport  # as from 3.13.14 on

    async def join(self) -> None:
        """Ours is a client."""
        actor = self.actor
        tls = self.tls(server_side=False)
        if actor.conn.api == "streams":
            actor.reader, actor.writer = await asyncio.open_connection(
                sock=self.socks[0], limit=actor.conn.buffer, **tls
            )
            actor.transport = actor.writer.transport
        else:
            await self.stage.loop.create_connection(actor.protocol, sock=self.socks[0], **tls)

    def tls(self, server_side: bool) -> dict[str, Any]:
        """What to say for TLS from the start; the peer has its layer, and may have data."""
        actor = self.actor
        if actor.conn.kind not in MADE:
            return {}
        assert actor.peer is not None
        ours, theirs = contexts()[:: 1 if not server_side else -1]
        actor.peer.layers.append(Layer(theirs, not server_side))
        actor.peer.send(actor.conn.early)
        return {"ssl": ours} if server_side else {"ssl": ours, "server_hostname": "localhost"}

    async def serve(self) -> None:
        """Ours is what a server accepts."""
        actor = self.actor

        def connected(reader: Any, writer: Any) -> None:
            actor.reader, actor.writer, actor.transport = reader, writer, writer.transport

        tls = self.tls(server_side=True)
        if actor.conn.api == "streams":
            server = await asyncio.start_server(
                connected, sock=self.socks[0], limit=actor.conn.buffer, **tls
            )
        else:
            server = await self.stage.loop.create_server(actor.protocol, sock=self.socks[0], **tls)
        for _ in range(20):
            await asyncio.sleep(0)
            if actor.transport is not None:
                break
        server.close()


def small(sock: socket.socket, conn: Conn) -> None:
    """Small buffers, so that it takes little to fill them."""
    if conn.small:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)


def listening() -> socket.socket:
    """A listening socket."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.listen()
    return sock


def open_sockets(stage: Stage, actor: Actor) -> Callable[[], None]:
    """Make a connection's sockets; what makes its transport."""
    opener = Opener(stage, actor)
    conn = actor.conn
    theirs: Any
    if conn.kind == "read_pipe":
        reading, writing = os.pipe()
        opener.socks = [os.fdopen(reading, "rb", 0)]
        actor.peer = Peer(writing, None)
    elif conn.kind == "write_pipe":
        reading, writing = os.pipe()
        opener.socks = [os.fdopen(writing, "wb", 0)]
        actor.peer = Peer(reading, None)
    elif conn.kind == "udp":
        ours, theirs = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
        for sock in (ours, theirs):
            sock.bind(("127.0.0.1", 0))
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        actor.address = theirs.getsockname()
        if conn.keep_open:
            ours.connect(actor.address)
        opener.socks = [ours]
        actor.peer = DatagramPeer(theirs, ours.getsockname())
    elif conn.kind == "unix_datagram":
        ours, theirs = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
        for sock in (ours, theirs):
            sock.bind(f"\0attack-{os.getpid()}-{next(_numbers)}")
        actor.address = theirs.getsockname()
        opener.socks = [ours]
        actor.peer = DatagramPeer(theirs, ours.getsockname())
    elif conn.kind in ("tcp", "server", "tcpsocks", "tlsserved"):
        listener = listening()
        small(listener, conn)
        theirs = socket.socket()
        theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        small(theirs, conn)
        theirs.connect(listener.getsockname())
        if conn.kind in ("server", "tlsserved"):
            listener.setblocking(False)
            opener.socks = [listener]
        else:
            ours, _ = listener.accept()
            listener.close()
            opener.socks = [ours]
        actor.peer = Peer(theirs.fileno(), theirs)
    else:
        ours, theirs = socket.socketpair()
        small(ours, conn)
        small(theirs, conn)
        opener.socks = [ours]
        if conn.kind == "pair":
            opener.socks.append(theirs)
        else:
            actor.peer = Peer(theirs.fileno(), theirs)
    for sock in opener.socks:
        if isinstance(sock, socket.socket):
            sock.setblocking(False)
    return opener.connect


def descriptors() -> set[str]:
    """What is open in this process."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(f"{name} {os.readlink('/proc/self/fd/' + name)}")
    return found


def perform(program: Program, make_loop: Callable[[], Any], *, debug: bool) -> Log:
    """Run a program, and see what it leaves."""
    before, threads = descriptors(), threading.active_count()
    stage = Stage(program, make_loop, debug)
    log = stage.run()
    held = getattr(stage, "held", [])
    del stage
    gc.collect()
    left = descriptors() - before
    if left:
        log["loop"].append(f"open: {len(left)} descriptors")
        for line in left:
            with contextlib.suppress(OSError):
                os.close(int(line.split()[0]))
    if threading.active_count() > threads:
        log["loop"].append("threads left")
    if any(ref() is not None for ref in held):
        log["loop"].append("a transport is held")
    return log
