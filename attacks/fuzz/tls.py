"""TLS: records as a peer sent them, or cut, changed, lost, doubled and made up on the way.

The peer is OpenSSL's, in memory, and so is the way: a transport in Python. asyncio's SSLProtocol
says what is right, as long as ctask does the same (docs/differences.md); and always only what was
sent comes out at the other end, in order.
"""

from __future__ import annotations

import _ssl
import asyncio
import contextlib
import ctypes
import ssl
from asyncio import sslproto
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctask
from ctask import _ctask

from .supply import Differs, Supply, same

CERTS = Path(__file__).parents[2] / "tests" / "certs"
STOCK: Any = sslproto.SSLProtocol
SIZES = (0, 1, 5, 100, 1000, 16384, 16385, 40000)


def told(error: BaseException | None) -> str:
    """The class, and OpenSSL's reason."""
    return f"{type(error).__name__} {getattr(error, 'reason', None)}"


def seeded(library: Any) -> Any:
    """OpenSSL's random bytes are those of wire.c; what is returned has to be kept."""
    function = ctypes.cast(library.fuzz_random, ctypes.c_void_p).value
    method = (ctypes.c_void_p * 6)(None, function, None, None, function, None)
    ctypes.PyDLL(_ssl.__file__).RAND_set_rand_method(method)
    return method


class Below:
    """The transport below: what is written to it is kept."""

    _start_tls_compatible = True

    def __init__(self, play: Play) -> None:
        self.play = play
        self.reading = True
        self.closing = False
        self.out = bytearray()

    def write(self, data: Any) -> None:
        if not self.closing:
            self.out += data

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def close(self) -> None:
        self._force_close(None)

    def abort(self) -> None:
        self._force_close(None)

    def _force_close(self, exc: BaseException | None) -> None:
        if not self.closing:
            self.closing = True
            self.play.loop.call_soon(self.play.tls.connection_lost, exc)

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_reading(self) -> bool:
        return self.reading

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_protocol(self, protocol: Any) -> None:
        self.play.tls = protocol

    def get_protocol(self) -> Any:
        return self.play.tls


class Application(asyncio.Protocol):
    def __init__(self, play: Play) -> None:
        self.play = play

    def connection_made(self, transport: Any) -> None:
        self.play.log.append("connection_made")

    def data_received(self, data: bytes) -> None:
        self.play.got += data

    def eof_received(self) -> bool | None:
        self.play.log.append(("eof_received", len(self.play.got)))
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.play.log.append(("connection_lost", told(exc), len(self.play.got)))


class Buffered(asyncio.BufferedProtocol, Application):
    def __init__(self, play: Play) -> None:
        super().__init__(play)
        self.buffer = bytearray(1 << 18)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self.buffer)  # of a bytearray asyncio fills a copy

    def buffer_updated(self, nbytes: int) -> None:
        self.play.got += self.buffer[:nbytes]


class Play:
    """One connection, its peer, and what is on the way between them."""

    def __init__(self, loop: Any, make: Any, contexts: Any, supply: Supply) -> None:
        self.loop, self.supply = loop, supply
        self.log: list[object] = []
        self.got, self.sent = bytearray(), bytearray()
        self.peer_got, self.peer_sent = bytearray(), bytearray()
        self.way = bytearray()  # from the peer to us
        self.last = b""
        self.exact = True  # asyncio does the same
        kind = supply.byte()
        server = bool(kind & 1)
        ours, theirs = contexts[kind >> 1 & 1][:: 1 if server else -1]
        loop.set_exception_handler(self.report)
        self.below: Any = Below(self)
        application: Any = Buffered(self) if kind & 4 else Application(self)
        name = None if server else "localhost"
        self.waiter = loop.create_future()
        self.tls = make(loop, application, ours, self.waiter, server, name)
        self.transport = self.tls._app_transport
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.peer = theirs.wrap_bio(
            self.incoming,
            self.outgoing,
            not server,
            server_hostname="localhost" if server else None,
        )
        self.peer_state = "handshake"
        self.tls.connection_made(self.below)
        self.transport = self.transport or self.tls._app_transport
        self.steps: list[Callable[[], object]] = [
            self.deliver_some,
            self.deliver_some,
            self.deliver,
            self.deliver,
            self.pump,
            self.shake_hands,
            self.shake_hands,
            lambda: self.harm(self.change),
            lambda: self.harm(self.drop),
            lambda: self.harm(self.insert),
            lambda: self.harm(self.double),
            self.peer_write,
            self.peer_write,
            self.peer_close,
            self.write,
            lambda: self.harm(self.change_ours),
            lambda: self.harm(self.end),
            lambda: self.harm(self.pause),
            lambda: self.harm(self.close),
        ]
        if kind & 8:
            self.shake_hands()

    def report(self, loop: Any, context: dict[str, Any]) -> None:
        self.log.append(("reported", told(context.get("exception"))))

    # ---- the way to us ----

    def feed(self, data: bytes) -> None:
        while data and self.below.reading and not self.below.closing:
            try:
                buffer = memoryview(self.tls.get_buffer(-1))
                n = min(len(buffer), len(data))
                buffer[:n] = data[:n]
                self.tls.buffer_updated(n)
            except Exception as error:  # a transport's protocol may not
                self.log.append(("raised", told(error)))
                self.below._force_close(error)
                return
            data = data[n:]
        self.way[:0] = data

    def deliver(self) -> None:
        data, self.way = bytes(self.way), bytearray()
        self.last = data
        self.feed(data)

    def deliver_some(self) -> None:
        n = self.supply.byte() if self.supply.byte() & 1 else self.supply.number()
        data = bytes(self.way[:n])
        del self.way[:n]
        self.last = data
        self.feed(data)

    def change(self) -> None:
        at, how = self.supply.number(), self.supply.byte()
        if self.way:
            self.way[at % len(self.way)] ^= how

    def drop(self) -> None:
        at, n = self.supply.number(), self.supply.byte()
        if self.way:
            at %= len(self.way)
            del self.way[at : at + n]

    def insert(self) -> None:
        """As it is, or as a record."""
        kind, data = self.supply.byte(), self.supply.take(self.supply.byte() & 63)
        at = 0 if kind & 1 else len(self.way)
        header = bytes([20 + (kind >> 1 & 7), 3, 3, 0, len(data)]) if kind & 0x10 else b""
        self.way[at:at] = header + data

    def double(self) -> None:
        self.way[:0] = self.last

    def end(self) -> None:
        if not self.below.closing and self.below.reading:
            try:
                stays = self.tls.eof_received()
            except Exception as error:
                self.log.append(("raised", told(error)))
                stays = False
            if not stays:
                self.below.close()

    # ---- the peer ----

    def pump(self) -> None:
        """What we sent reaches the peer, which answers."""
        data, self.below.out = bytes(self.below.out), bytearray()
        self.incoming.write(data)
        self.peer_turn()

    def change_ours(self) -> None:
        at, how = self.supply.number(), self.supply.byte()
        if self.below.out:
            self.below.out[at % len(self.below.out)] ^= how

    def peer_turn(self) -> None:
        try:
            if self.peer_state == "handshake":
                self.peer.do_handshake()
                self.peer_state = "open"
            while self.peer_state == "open":
                data = self.peer.read(1 << 16)
                if not data:
                    self.peer_state = "eof"
                self.peer_got += data
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            if self.peer_state in ("handshake", "open"):
                self.log.append(("peer", told(error)))
                self.peer_state = "failed"
        self.way += self.outgoing.read()

    def peer_write(self) -> None:
        size = self.supply.pick(SIZES)
        if self.peer_state == "open" and size:
            data = bytes(len(self.peer_sent) + i & 0xFF for i in range(size))
            try:
                self.peer_sent += data[: self.peer.write(data)]
            except ssl.SSLError as error:
                self.log.append(("peer", told(error)))
                self.peer_state = "failed"
            self.way += self.outgoing.read()

    def peer_close(self) -> None:
        if self.peer_state in ("open", "eof"):
            with contextlib.suppress(ssl.SSLError):
                self.peer.unwrap()
            self.way += self.outgoing.read()
            self.peer_state = "closed"

    def shake_hands(self) -> None:
        """Nothing happens to what is on the way."""
        for _ in range(4):
            self.pump()
            self.deliver()
            self.turn()

    # ---- we ----

    def write(self) -> None:
        size = self.supply.pick(SIZES)
        if self.waiter.done() and not self.waiter.cancelled() and not self.waiter.exception():
            data = bytes(len(self.sent) + i & 0xFF for i in range(size))
            self.sent += data
            self.transport.write(data)

    def pause(self) -> None:
        if self.waiter.done():
            self.exact = False  # what is delivered after the end
            if self.transport.is_reading():
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def close(self) -> None:
        self.exact = False  # what comes after it
        self.transport.close()

    def turn(self) -> None:
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def harm(self, how: Callable[[], object]) -> None:
        """Not too often, as little happens afterwards."""
        if self.supply.byte() > 160:
            how()

    def play(self) -> list[object]:
        logs: list[object] = []
        while self.supply:
            step = self.supply.byte() % len(self.steps)
            self.steps[step]()
            self.turn()
            if self.got != self.peer_sent[: len(self.got)]:
                raise Differs("what the peer has not sent came")
            if self.peer_got != self.sent[: len(self.peer_got)]:
                raise Differs("the peer got what was not sent")
            if self.exact:
                logs = [*self.log, len(self.got), len(self.peer_got), self.below.closing]
        self.below._force_close(None)
        for _ in range(3):
            self.turn()
        if self.waiter.done() and not self.waiter.cancelled():
            self.waiter.exception()
        return logs


class Target:
    def __init__(self) -> None:
        self.library = ctypes.PyDLL(None)
        self.method = seeded(self.library)
        self.loops = [ctask.new_event_loop(), asyncio.SelectorEventLoop()]
        self.contexts = [
            self.pair(version) for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2)
        ]

    def pair(self, version: ssl.TLSVersion) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(CERTS / "server.pem")
        client = ssl.create_default_context(cafile=str(CERTS / "ca.pem"))
        for context in (server, client):
            context.minimum_version = context.maximum_version = version
        return server, client

    def __call__(self, data: bytes) -> None:
        logs = []
        for loop, make in zip(self.loops, (_ctask.SSLProtocol, STOCK), strict=True):
            self.library.fuzz_seed(ctypes.c_uint64(1))
            logs.append(Play(loop, make, self.contexts, Supply(data)).play())
        same(logs[0], logs[1])
