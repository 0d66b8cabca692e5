"""The other end of a connection: a socket, pipe or TLS session that the test drives."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import ssl
import struct
from pathlib import Path
from typing import Any

CERTS = Path(__file__).parents[2] / "tests" / "certs"
PERIOD = 1_000_003
PATTERN = random.Random("pattern").randbytes(PERIOD) * 2


def pattern(offset: int, size: int) -> bytes:
    """What is at this place of each direction of each connection."""
    offset %= PERIOD
    if size <= PERIOD:
        return PATTERN[offset : offset + size]
    return b"".join(pattern(offset + at, min(PERIOD, size - at)) for at in range(0, size, PERIOD))


class Checked:
    """Bytes that come in: how many, and whether they are those that were sent."""

    def __init__(self) -> None:
        self.count = 0
        self.wrong: int | None = None

    def add(self, data: bytes | bytearray | memoryview) -> None:
        """The next bytes."""
        if self.wrong is None and bytes(data) != pattern(self.count, len(data)):
            expected = pattern(self.count, len(data))
            self.wrong = self.count + next(i for i, byte in enumerate(data) if byte != expected[i])
        self.count += len(data)

    def __repr__(self) -> str:
        return f"{self.count}" if self.wrong is None else f"{self.count}, wrong from {self.wrong}"


def server_context() -> ssl.SSLContext:
    """As asyncio's side would have it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTS / "server.pem")
    return context


def client_context() -> ssl.SSLContext:
    """For the other side."""
    return ssl.create_default_context(cafile=str(CERTS / "ca.pem"))


class Layer:
    """A TLS session over memory."""

    def __init__(self, context: ssl.SSLContext, server_side: bool) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        hostname = None if server_side else "localhost"
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_side=server_side, server_hostname=hostname
        )
        self.begun = self.shaken = self.ended = False
        self.waiting = b""

    def send(self, data: bytes) -> bytes:
        """Encrypt."""
        self.waiting += data
        if self.shaken and self.waiting:
            try:
                self.tls.write(self.waiting)
                self.waiting = b""
            except ssl.SSLError:
                pass
        return self.outgoing.read()

    def receive(self, data: bytes) -> tuple[bytes, bytes]:
        """Decrypt: what came, and what has to be sent."""
        if data:
            self.incoming.write(data)
        try:
            if not self.shaken:
                self.tls.do_handshake()
                self.shaken = True
        except OSError:  # SSLError, and BlockingIOError after the end
            return b"", self.outgoing.read()
        pieces = []
        while not self.ended:
            try:
                piece = self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError:
                self.ended = True
                break
            if not piece:
                self.ended = True
                break
            pieces.append(piece)
        return b"".join(pieces), self.send(b"")

    def begin(self) -> bytes:
        """What a client says first."""
        begun, self.begun = self.begun, True
        return b"" if begun else self.receive(b"")[1]

    def notify(self) -> bytes:
        """Say goodbye."""
        with contextlib.suppress(ssl.SSLError, ValueError):
            self.tls.unwrap()
        return self.outgoing.read()


class Peer:
    """The other end of a stream."""

    def __init__(self, fd: int, sock: socket.socket | None) -> None:
        self.fd, self.sock = fd, sock
        os.set_blocking(fd, False)
        self.layers: list[Layer] = []
        self.received = Checked()
        self.sent = 0
        self.waiting = b""  # what the kernel has not taken
        self.end = ""
        self.open = True
        self.shut_when_sent = self.was_urgent = False
        self.ticks = 0

    def raw_send(self, data: bytes) -> None:
        """Without the layers."""
        self.waiting += data
        while self.waiting and self.open:
            try:
                n = os.write(self.fd, self.waiting)
            except BlockingIOError:
                return
            except OSError:
                self.waiting = b""
                return
            self.ticks += 1
            self.waiting = self.waiting[n:]
        if self.shut_when_sent and self.open and self.sock is not None:
            self.shut_when_sent = False
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)

    def out(self, data: bytes, upto: int) -> None:
        """Send through the lowest `upto` layers."""
        for layer in reversed(self.layers[:upto]):
            data = layer.send(data)
        if data:
            self.raw_send(data)

    def send(self, size: int) -> None:
        """The next bytes."""
        if self.open and not self.shut_when_sent:
            self.out(pattern(self.sent, size), len(self.layers))
            self.sent += size

    def urgent(self, before: int, after: int) -> None:
        """A byte of urgent data between others, of which it is none; a second would let it in."""
        if self.open and not self.waiting and not self.shut_when_sent and not self.was_urgent:
            assert self.sock is not None
            self.was_urgent = True
            self.send(before)
            if not self.waiting:
                with contextlib.suppress(OSError):
                    self.sock.send(b"!", socket.MSG_OOB)
            self.send(after)

    def flush(self) -> None:
        """Send what waits, and answer what TLS asks for."""
        if self.open:
            self.raw_send(b"")
            if self.layers and not self.layers[-1].shaken:
                self.out(self.layers[-1].begin(), len(self.layers) - 1)
                self.take(1 << 16)

    def take(self, size: int) -> int:
        """Read once; how many bytes came."""
        if not self.open or self.end:
            return 0
        before = self.received.count
        try:
            data = os.read(self.fd, size)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno != errno.EBADF:
                self.end = errno.errorcode[error.errno or 0]
                self.ticks += 1
            return 0
        self.ticks += 1
        if not data:
            self.end = "EOF"
        for i, layer in enumerate(self.layers):
            data, answer = layer.receive(data)
            if answer:
                self.out(answer, i)
        self.received.add(data)
        return self.received.count - before

    def drain(self) -> None:
        """Read what is there."""
        before = -1
        while self.ticks != before and not self.end:
            before = self.ticks
            self.take(1 << 18)

    def shut(self) -> None:
        """End our direction."""
        if self.open and not self.shut_when_sent:
            for i in reversed(range(len(self.layers))):
                self.out(self.layers[i].notify(), i)
            self.shut_when_sent = True
            self.raw_send(b"")

    def close(self) -> None:
        """End both."""
        if self.open:
            self.open = False
            self.waiting = b""
            if self.sock is None:
                os.close(self.fd)
            else:
                self.sock.close()

    def reset(self) -> None:
        """End by a reset, where there is such a thing."""
        if self.open and self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


class DatagramPeer(Peer):
    """The other end of a datagram endpoint."""

    def __init__(self, sock: socket.socket, ours: Any) -> None:
        super().__init__(sock.fileno(), sock)
        self.ours = ours
        self.log: list[str] = []

    def send(self, size: int) -> None:
        """A datagram."""
        if self.open and self.sock is not None:
            try:
                self.sock.sendto(pattern(self.sent, size), self.ours)
                self.sent += size
            except OSError:
                pass

    def take(self, size: int) -> int:
        """Receive so many."""
        got = 0
        while got < size and self.open and self.sock is not None:
            try:
                data = self.sock.recv(1 << 16)
            except OSError:
                break
            self.ticks += 1
            got += 1
            self.log.append(
                f"{len(data)}" if data == pattern(self.received.count, len(data)) else "wrong"
            )
            self.received.count += len(data)
        return got

    def drain(self) -> None:
        """Receive all."""
        self.take(1 << 20)
