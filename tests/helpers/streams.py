"""What the tests of transports, servers and connections share: a protocol that takes notes."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest


class Notes:
    """Notes what is called in `events`: (method, arguments...), the transport left out.

    `on(name, function)` has `function(protocol, *arguments)` called from that callback as well,
    after it was noted; what it returns is returned to the transport.
    """

    def __init__(self, **hooks: Callable[..., Any]) -> None:
        self.events: list[tuple] = []
        self.hooks = hooks
        self.transport: Any = None
        self.data = b""

    def on(self, name: str, hook: Callable[..., Any]) -> None:
        self.hooks[name] = hook

    def note(self, name: str, *args: Any) -> Any:
        self.events.append((name, *args))
        hook = self.hooks.get(name)
        return hook(self, *args) if hook is not None else None

    def names(self) -> list[str]:
        """The names of what was called, `data_received` several times in a row being one."""
        names: list[str] = []
        for name, *_ in self.events:
            if not (names and names[-1] == name == "data_received"):
                names.append(name)
        return names

    def count(self, name: str) -> int:
        return sum(event[0] == name for event in self.events)

    @property
    def lost(self) -> Any:
        """The argument of connection_lost(); LookupError if it was not called."""
        (exc,) = [event[1] for event in self.events if event[0] == "connection_lost"] or [...]
        if exc is ...:
            raise LookupError("connection_lost() was not called")
        return exc

    @property
    def is_lost(self) -> bool:
        return self.count("connection_lost") > 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.note("connection_made")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.note("connection_lost", exc)

    def pause_writing(self) -> None:
        self.note("pause_writing")

    def resume_writing(self) -> None:
        self.note("resume_writing")

    def eof_received(self) -> Any:
        return self.note("eof_received")


class Recorder(Notes, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.data += data
        self.note("data_received", data)


class BufferedRecorder(Notes, asyncio.BufferedProtocol):
    """Receives into `buffer`; what came is in `data` and in the notes of buffer_updated."""

    def __init__(self, size: int = 65536, **hooks: Callable[..., Any]) -> None:
        super().__init__(**hooks)
        self.buffer = bytearray(size)

    def get_buffer(self, sizehint: int) -> Any:
        hook = self.hooks.get("get_buffer")
        return self.buffer if hook is None else hook(self, sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self.buffer[:nbytes]
        self.note("buffer_updated", nbytes)


BUFFER = 65536  # what the sockets of a pair are told to buffer
MUCH = b"0123456789abcdef" * 65536  # 1 MiB: never fits there


def make_pair(kind: str) -> tuple[socket.socket, socket.socket]:
    """Two connected stream sockets with small buffers: ours, non-blocking, and the peer's."""
    if kind == "unix":
        ours, peer = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            peer, _ = listener.accept()
    for sock in (ours, peer):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        sock.setblocking(False)
    return ours, peer


def send_all(
    sock: socket.socket, data: bytes, proto: Notes, until: Callable[[Callable[[], bool]], None]
) -> None:
    """Send from a non-blocking socket; until() goes on while `proto` has not received."""
    left = memoryview(data)
    while left:
        try:
            left = left[sock.send(left) :]
        except BlockingIOError:
            size = len(proto.data)
            until(lambda size=size: len(proto.data) > size)


def receive(sock: socket.socket, step: Callable[[], None], size: int | None = None) -> bytes:
    """Read from a non-blocking socket until `size` bytes or the end came; step() goes on."""
    data = bytearray()
    while size is None or len(data) < size:
        try:
            piece = sock.recv(65536 if size is None else size - len(data))
        except BlockingIOError:
            step()
            continue
        if not piece:
            break
        data += piece
    return bytes(data)


def needs(transport: object, version: tuple[int, int], fault: str) -> None:
    """Skip the test for a transport of asyncio's own, before the version that mended it."""
    if type(transport).__module__.startswith("asyncio.") and sys.version_info < version:
        pytest.skip(f"asyncio before {version[0]}.{version[1]} {fault}")
