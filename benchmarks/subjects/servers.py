"""The servers of the network benchmarks: ordinary asyncio programs that send back what they get.

They use asyncio's public API only, and none knows on which loop it runs. Nothing here measures.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from .. import contenders, native

BACKLOG = 1024
BLOCK = 64 * 1024  # of sock_recv, StreamReader.read and buffers, where the program chooses
HEAD = 128  # bytes in the first piece, where an answer has two
ROOM = 4 * 1024 * 1024  # for the datagrams that wait; the kernel may grant less

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Place:
    """Where a server listens, and what its connections are."""

    link: str  # "tcp", "unix", "tls" or "udp"
    path: str = ""  # of the Unix socket
    certificate: str = ""  # PEM, with the key

    def tls(self) -> ssl.SSLContext | None:
        if self.link != "tls":
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        return context

    def socket(self) -> socket.socket:
        """A listening socket, for servers that do without loop.create_server."""
        if self.link == "unix":
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(self.path)
        elif self.link == "udp":
            listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
            listener.bind(("127.0.0.1", 0))
        else:
            listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        if self.link != "udp":
            listener.listen(BACKLOG)
        return listener


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class TwoPieces(Echo):
    def data_received(self, data: bytes) -> None:
        self.transport.write(data[:HEAD])
        self.transport.write(data[HEAD:])


class Buffered(asyncio.BufferedProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = bytearray(BLOCK)
        self.view = memoryview(self.buffer)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        # A copy: the transport may keep what it cannot send, and the buffer is used again.
        self.transport.write(bytes(self.view[:nbytes]))


class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


async def read_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(BLOCK):
        writer.write(data)
        await writer.drain()
    writer.close()


async def lines_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()


async def two_pieces_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(BLOCK):
        writer.write(data[:HEAD])
        writer.write(data[HEAD:])
        await writer.drain()
    writer.close()


async def sock_echo(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with connection:
        while data := await loop.sock_recv(connection, BLOCK):
            await loop.sock_sendall(connection, data)


async def sock_into_echo(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    buffer = memoryview(bytearray(BLOCK))
    with connection:
        while count := await loop.sock_recv_into(connection, buffer):
            await loop.sock_sendall(connection, buffer[:count])


Server = Callable[[Place], Awaitable[Any]]  # gives its listening socket


def protocol_server(factory: Callable[[], asyncio.BaseProtocol]) -> Server:
    async def serve(place: Place) -> Any:
        loop = asyncio.get_running_loop()
        if place.link == "unix":
            server = await loop.create_unix_server(factory, place.path, backlog=BACKLOG)
        else:
            server = await loop.create_server(
                factory, "127.0.0.1", 0, ssl=place.tls(), backlog=BACKLOG
            )
        return keep(server, server.sockets[0])

    return serve


def stream_server(
    echo: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> Server:
    async def serve(place: Place) -> Any:
        if place.link == "unix":
            server = await asyncio.start_unix_server(echo, place.path, backlog=BACKLOG)
        else:
            server = await asyncio.start_server(
                echo, "127.0.0.1", 0, ssl=place.tls(), backlog=BACKLOG
            )
        return keep(server, server.sockets[0])

    return serve


def sock_server(echo: Callable[[socket.socket], Any]) -> Server:
    async def serve(place: Place) -> Any:
        loop = asyncio.get_running_loop()
        listener = place.socket()
        tasks: set[asyncio.Task[None]] = set()

        async def accept() -> None:
            while True:
                connection, _ = await loop.sock_accept(listener)
                if place.link == "tcp":
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                task = loop.create_task(echo(connection))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

        tasks.add(loop.create_task(accept()))
        return listener

    return serve


async def datagram_server(place: Place) -> Any:
    listener = place.socket()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Datagrams, sock=listener)
    return keep(transport, listener)


kept: list[object] = []


def keep(server: object, listener: Any) -> Any:
    """Hold what nobody else does, until the process ends."""
    kept.append(server)
    return listener


SERVERS: dict[str, Server] = {
    "protocol": protocol_server(Echo),
    "buffered": protocol_server(Buffered),
    "two_pieces": protocol_server(TwoPieces),
    "streams": stream_server(read_echo),
    "lines": stream_server(lines_echo),
    "streams_two_pieces": stream_server(two_pieces_echo),
    "sock": sock_server(sock_echo),
    "sock_into": sock_server(sock_into_echo),
    "datagrams": datagram_server,
}


def port_of(listener: Any, place: Place) -> int:
    return 0 if place.link == "unix" else int(listener.getsockname()[1])


def prepare() -> None:
    """For a server's process: all the descriptors it may have, and an end with its parent's."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("the benchmark is gone")


async def serve(program: str, place: Place, say: Callable[[dict[str, Any]], None]) -> None:
    """Run this server until the process is killed. Tells the port, or why it cannot."""

    try:
        listener = await SERVERS[program](place)
    except Exception as error:
        say({"unable": contenders.described(error)})
        return
    say({"pid": os.getpid(), "port": port_of(listener, place), **contenders.identify()})
    await asyncio.Event().wait()


def serve_limit(program: str, place: Place, say: Callable[[dict[str, Any]], None]) -> None:
    """The same with the smallest loop in C that calls a Protocol."""
    module = native.extension("echo_protocol")
    listener = place.socket()
    port = port_of(listener, place)
    say({"pid": os.getpid(), "port": port, "loop": "echo_protocol.c", "task": "-"})
    module.run(TwoPieces if program == "two_pieces" else Echo, listener.fileno())
