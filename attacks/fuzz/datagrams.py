"""Datagram transports: what is sent, in batches where it has to wait, and what comes.

asyncio's transport says what is right. The kernel is wire.c, which takes datagrams, refuses them
and has errors, as the bytes of the case say; so does what it gives.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from asyncio import selector_events
from collections.abc import Callable
from typing import Any

import ctask

from .supply import Supply, raised, same
from .wire import Wire

ERRORS = [0, errno.EAGAIN, errno.EAGAIN, errno.ECONNREFUSED, errno.EMSGSIZE, errno.EINTR]
ERRORS += [errno.ENOBUFS, errno.EPERM]
ADDRESSES = [("127.0.0.1", 5000), ("127.0.0.1", 5001), ("10.0.0.1", 1), ("::1", 1)]
FATAL: list[Any] = [None, ("127.0.0.1", 70000), "name"]  # unless there is a peer
HEADER = 8 if sys.version_info >= (3, 13) else 0

Stock: Any = selector_events._SelectorDatagramTransport  # type: ignore[attr-defined]


class Mended(Stock):  # type: ignore[misc]
    """It takes off what it has counted for headers (docs/differences.md)."""

    @property
    def _buffer_size(self) -> int:
        return sum(len(data) + HEADER for data, _ in self._buffer)

    @_buffer_size.setter
    def _buffer_size(self, value: int) -> None:
        pass


class StockLoop(asyncio.SelectorEventLoop):
    def _make_datagram_transport(
        self, sock: Any, protocol: Any, address: Any = None, waiter: Any = None, extra: Any = None
    ) -> Any:
        return Mended(self, sock, protocol, address, waiter, extra)


class Protocol(asyncio.DatagramProtocol):
    """Tells of all that is called; an echo, if it is one."""

    def __init__(self, log: list[Any], kind: int) -> None:
        self.log, self.kind = log, kind
        self.lost = False
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.log.append("connection_made")
        if self.kind & 2:
            transport.sendto(b"hello", ("127.0.0.1", 7))

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.log.append(("datagram_received", data, addr))
        if self.kind & 1:
            self.transport.sendto(data, addr)
        if data == b"!":
            raise RuntimeError("told")

    def error_received(self, exc: Exception) -> None:
        self.log.append(("error_received", raised(exc, 0)))
        if self.kind & 4:
            self.transport.sendto(b"again", ("127.0.0.1", 7))

    def pause_writing(self) -> None:
        self.log.append("pause_writing")

    def resume_writing(self) -> None:
        self.log.append("resume_writing")
        if self.kind & 8:
            self.transport.sendto(b"more", ("127.0.0.1", 7))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.log.append(("connection_lost", raised(exc, 0)))


class Play:
    """One endpoint, and what becomes of it."""

    def __init__(self, loop: Any, wire: Wire, peer: socket.socket, supply: Supply) -> None:
        self.loop, self.wire, self.supply = loop, wire, supply
        self.log = wire.sent = []
        kind = supply.byte()
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.sock.bind(("127.0.0.1", 0))
        peer.sendto(b"", self.sock.getsockname())  # so that it is readable for ever
        self.fd = self.sock.fileno()
        address = None
        self.connected = kind & 5 == 1
        if kind & 1:
            self.sock.connect(peer.getsockname())
            address = peer.getsockname() if kind & 2 else None
        self.protocol = Protocol(self.log, kind >> 4)
        self.transport = loop._make_datagram_transport(self.sock, self.protocol, address)
        loop.set_exception_handler(self.report)
        self.steps: list[Callable[[], object]] = [
            self.sendto,
            self.sendto,
            self.sendto,
            self.send_many,
            self.outcome,
            self.outcome,
            self.receive,
            self.turn,
            self.turn,
            self.limits,
            self.look,
            lambda: self.transport.close() if supply.byte() > 127 else None,
            lambda: self.transport.abort() if supply.byte() > 191 else None,
        ]

    def report(self, loop: Any, context: dict[str, Any]) -> None:
        self.log.append((context["message"].split(" ")[0], raised(context.get("exception"), 0)))

    def sendto(self) -> None:
        byte = self.supply.byte()
        data = self.supply.take(byte & 7)
        kind = (bytes, bytes, bytearray, memoryview)[byte >> 3 & 3]
        seldom = self.supply.byte()
        address = FATAL[seldom % 3] if seldom > 230 else ADDRESSES[byte >> 6]
        self.transport.sendto(kind(data), None if self.connected else address)

    def send_many(self) -> None:
        """To one address, of growing sizes."""
        n, size, address = (
            self.supply.byte() % 40,
            self.supply.number(),
            self.supply.pick(ADDRESSES),
        )
        for i in range(0 if self.protocol.lost else n):
            to = None if self.connected else address
            self.transport.sendto(b"%c" % i * (size * i // 16), to)

    def outcome(self) -> None:
        byte = self.supply.byte()
        self.wire.outcomes += [0] * (byte >> 3) + [ERRORS[byte & 7]]

    def receive(self) -> None:
        byte = self.supply.byte()
        if byte > 200:
            self.wire.received.append(ERRORS[byte & 7] or errno.ECONNRESET)
            return
        address = b"\2\0\x13\x88\x7f\0\0" + bytes([byte & 3]) + bytes(8)
        self.wire.received.append((self.supply.take(byte >> 4), address))

    def limits(self) -> None:
        high = self.supply.byte() << (self.supply.byte() & 7)
        self.transport.set_write_buffer_limits(high or None)

    def look(self) -> None:
        self.log.append((self.transport.get_write_buffer_size(), self.transport.is_closing()))

    def turn(self) -> None:
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def play(self) -> list[Any]:
        for _ in range(2):
            self.turn()
        while self.supply and not self.protocol.lost:  # asyncio's fails then
            step = self.supply.byte() % len(self.steps)
            try:
                self.steps[step]()
            except Exception as error:
                self.log.append(raised(error, 0))
        for end in (self.turn, self.turn, self.transport.close, self.turn, self.turn):
            end()
        self.wire.outcomes = []
        for _ in range(4):
            self.turn()
        if not self.protocol.lost:
            self.transport.abort()
        self.turn()
        if not isinstance(self.loop, ctask.EventLoop):  # it may be watched though it is lost
            self.loop._remove_writer(self.fd)
            self.loop._remove_reader(self.fd)
        ends = [i for i, entry in enumerate(self.log) if entry[0] in ("connection_lost", "Fatal")]
        return self.log[: ends[0] + 1] if ends else self.log  # asyncio's fails afterwards


class Target:
    def __init__(self) -> None:
        self.loops = [ctask.new_event_loop(), StockLoop()]
        self.wire = Wire()
        self.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.peer.bind(("127.0.0.1", 0))

    def __call__(self, data: bytes) -> None:
        logs = []
        for loop in self.loops:
            wire = self.wire(None)
            play = Play(loop, wire, self.peer, Supply(data))
            wire.fd = play.fd
            with wire:
                logs.append(play.play())
            play.sock.close()
        same(logs[0], logs[1])
