"""TLS: a connection that ends, well or not, leaves nothing to the collector."""

import asyncio
import gc
import socket
import ssl
import struct

import pytest
from helpers.tls_peer import PlainObject, client_context, server_context

pytestmark = pytest.mark.ctask_only  # up to 3.13 asyncio leaves cycles


@pytest.fixture(params=[False, True], ids=["", "debug"])
def servers(request, loop, run, way, caplog):
    """The addresses of a server that speaks TLS and of one that says nothing."""
    loop.set_debug(request.param)
    made = [
        run(loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=context))
        for context in (server_context(way), None)
    ]
    yield [server.sockets[0].getsockname() for server in made]
    for server in made:
        server.close()
        run(server.wait_closed())
    loop.set_debug(False)


class Case:
    def __init__(self, loop, servers, way):
        self.loop = loop
        self.tls, self.mute = servers
        self.trusting = client_context(way)
        self.suspicious = ssl.create_default_context()
        if way == "python":
            self.suspicious.sslobject_class = PlainObject

    async def _connect(self, address, context, **options):
        transport, _ = await self.loop.create_connection(
            asyncio.Protocol, *address, ssl=context, server_hostname="localhost", **options
        )
        transport.close()

    async def good(self):
        await self._connect(self.tls, self.trusting)

    async def streams(self):
        _, writer = await asyncio.open_connection(
            *self.tls, ssl=self.trusting, server_hostname="localhost"
        )
        writer.close()
        await writer.wait_closed()

    async def refused_by_us(self):
        with pytest.raises(ssl.SSLCertVerificationError):
            await self._connect(self.tls, self.suspicious)

    async def refused_in_start_tls(self):
        transport, protocol = await self.loop.create_connection(asyncio.Protocol, *self.tls)
        with pytest.raises(ssl.SSLCertVerificationError):
            await self.loop.start_tls(
                transport, protocol, self.suspicious, server_hostname="localhost"
            )

    async def too_slow(self):
        with pytest.raises(ConnectionAbortedError):
            await self._connect(self.mute, self.trusting, ssl_handshake_timeout=0.001)

    async def cancelled(self):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(self._connect(self.mute, self.trusting), 0.001)

    async def no_tls(self):
        with socket.socket() as sock:
            sock.setblocking(False)
            await self.loop.sock_connect(sock, self.tls)
            await self.loop.sock_sendall(sock, b"GET / HTTP/1.1\r\n\r\n")
            try:
                while await self.loop.sock_recv(sock, 100):
                    pass
            except ConnectionResetError:
                pass

    async def no_word(self):
        with socket.socket() as sock:
            sock.setblocking(False)
            await self.loop.sock_connect(sock, self.tls)

    async def reset(self):
        with socket.socket() as sock:
            sock.setblocking(False)
            await self.loop.sock_connect(sock, self.tls)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("name", [name for name in vars(Case) if name[0] != "_"])
def test_nothing_is_left_to_the_collector(loop, run, until, settle, servers, way, name, reports):
    case = Case(loop, servers, way)

    async def end():
        await getattr(case, name)()
        while len(asyncio.all_tasks(loop)) > 1:
            await asyncio.sleep(0)

    run(end())
    settle()
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            run(end())
            for _ in range(5):
                settle()
        assert gc.collect() == 0
    finally:
        gc.enable()
    reports.clear()
