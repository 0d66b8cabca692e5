"""What a build with CTASK_PGO=1 learns from: `python -m benchmarks.train`, started by setup.py.

The core's scenarios and queues that nobody waits for, then the servers of the network's with
clients beside them on the same loop. How much is done never depends on the clock. Nothing is
measured here.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import ssl
import tempfile
from pathlib import Path
from typing import Any

from . import contenders
from .paths import ROOT
from .subjects import servers
from .subjects.core import SCENARIOS

CERTS = ROOT / "tests" / "certs"
LIMIT = 300  # seconds; a loop that hangs ends the build by SIGALRM

TIMES = 4  # as many operations as one count of instructions has
ITEMS = 1000  # in a queue
CLIENTS = 20
# The requests on each connection. The largest fits in what the kernel takes in, so that neither end
# waits for the other to read.
LINE = b"x" * 999 + b"\n"
REQUESTS = [LINE[-100:], LINE, LINE, LINE, 20 * LINE, 100 * LINE] * 8

PROGRAMS = {
    "tcp": ("protocol", "buffered", "two_pieces", "streams", "lines", "sock", "sock_into"),
    "unix": ("protocol", "streams"),
    "tls": ("protocol", "buffered", "streams"),
}


async def core() -> None:
    for scenario in SCENARIOS.values():
        await scenario.run(TIMES * scenario.small)


async def queues() -> None:
    for kind in (asyncio.Queue, asyncio.LifoQueue, asyncio.PriorityQueue):
        queue: asyncio.Queue[int] = kind()
        for _ in range(TIMES):
            for item in range(ITEMS):
                queue.put_nowait(item)
            for _ in range(ITEMS):
                queue.get_nowait()


async def stream_client(address: dict[str, Any], path: str) -> None:
    if path:
        reader, writer = await asyncio.open_unix_connection(path)
    else:
        reader, writer = await asyncio.open_connection(**address)
    for request in REQUESTS:
        writer.write(request)
        await writer.drain()
        await reader.readexactly(len(request))
    writer.close()
    await writer.wait_closed()


class Client(asyncio.Protocol):
    """The same below streams."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.done = asyncio.get_running_loop().create_future()
        self.requests = iter(REQUESTS)
        self.ask()

    def ask(self) -> None:
        request = next(self.requests, b"")
        self.left = len(request)
        if request:
            self.transport.write(request)
        else:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        self.left -= len(data)
        if not self.left:
            self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self.done.set_result(None)


async def protocol_client(address: dict[str, Any], path: str) -> None:
    loop = asyncio.get_running_loop()
    if path:
        _, protocol = await loop.create_unix_connection(Client, path)
    else:
        _, protocol = await loop.create_connection(Client, **address)
    await protocol.done


async def sock_client(address: dict[str, Any], path: str) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, (address["host"], address["port"]))
        for request in REQUESTS:
            sending = loop.create_task(loop.sock_sendall(connection, request))
            left = len(request)
            while left:
                left -= len(await loop.sock_recv(connection, 65536))
            await sending


async def network(folder: Path) -> None:
    trust = ssl.create_default_context(cafile=CERTS / "ca.pem")
    for link, programs in PROGRAMS.items():
        for program in programs:
            path = str(folder / program) if link == "unix" else ""
            place = servers.Place(link, path, str(CERTS / "server.pem"))
            listener = await servers.SERVERS[program](place)
            address: dict[str, Any] = {
                "host": "localhost" if link == "tls" else "127.0.0.1",
                "port": servers.port_of(listener, place),
                "ssl": trust if link == "tls" else None,
            }
            clients = [stream_client, protocol_client]
            if program.startswith("sock"):
                clients.append(sock_client)
            for client in clients:
                await asyncio.gather(*(client(address, path) for _ in range(CLIENTS)))


class Answers(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.left = 500
        self.done = asyncio.get_running_loop().create_future()
        self.transport.sendto(b"x" * 1024)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.left -= 1
        if self.left:
            self.transport.sendto(data)
        else:
            self.transport.close()
            self.done.set_result(None)


async def datagrams() -> None:
    place = servers.Place("udp")
    port = servers.port_of(await servers.SERVERS["datagrams"](place), place)
    loop = asyncio.get_running_loop()
    address = ("127.0.0.1", port)
    _, client = await loop.create_datagram_endpoint(Answers, remote_addr=address)
    await client.done


async def processes() -> None:
    pipe = asyncio.subprocess.PIPE
    for _ in range(20):
        process = await asyncio.create_subprocess_exec("cat", stdin=pipe, stdout=pipe)
        await process.communicate(b"x" * 1024)


async def main() -> None:
    await queues()
    with tempfile.TemporaryDirectory() as folder:
        await network(Path(folder))
    await datagrams()
    await processes()


if __name__ == "__main__":
    signal.alarm(LIMIT)
    run, _ = contenders.runner("ctask")
    run(core())
    run(main())
    gc.collect()
