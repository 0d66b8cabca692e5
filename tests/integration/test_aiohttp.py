"""aiohttp: its server and its client on one loop, and its server under load."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import urllib.request

import aiohttp
import pytest
from aiohttp import web
from support import FACTORY, LOOP_TYPE, PROGRAMS


@contextlib.asynccontextmanager
async def serving(*routes, tls=None, path=None, **options):
    """A server with these routes; gives the URL that it is found at."""
    app = web.Application(client_max_size=2**26)
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, **options)
    await runner.setup()
    try:
        if path:
            site = web.UnixSite(runner, path)
        else:
            site = web.TCPSite(runner, "localhost", 0, ssl_context=tls)
        await site.start()
        port = 0 if path else runner.addresses[0][1]
        yield f"{'https' if tls else 'http'}://localhost:{port}"
    finally:
        await runner.cleanup()


async def echo(request):
    return web.Response(body=await request.read())


async def method(request):
    return web.json_response([request.method, dict(request.query)])


async def digest(request):
    """The hash of the request's body, which is read as it comes."""
    hashed = hashlib.sha256()
    async for chunk in request.content.iter_any():
        hashed.update(chunk)
    return web.Response(text=hashed.hexdigest())


def test_methods(run):
    async def main():
        async with (
            serving(web.route("*", "/", method)) as url,
            aiohttp.ClientSession(url) as session,
        ):
            for name in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
                async with session.request(name, "/", params={"a": "b"}) as response:
                    assert await response.json() == [name, {"a": "b"}]

    run(main())


@pytest.fixture(params=["tcp", "tls"])
def contexts(request):
    """The server's and the client's; for TCP there is none."""
    if request.param == "tcp":
        return None, None
    certificates = request.getfixturevalue("certificates")
    return certificates.for_server(), certificates.for_client()


def connector(context):
    return aiohttp.TCPConnector(ssl=context if context is not None else True)


# aiohttp's, of the clients' own code
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
def test_large_bodies(run, contexts):
    tls, trusted = contexts
    body = os.urandom(10_000_000)

    async def main():
        async with (
            serving(web.post("/", echo), web.post("/digest", digest), tls=tls) as url,
            aiohttp.ClientSession(url, connector=connector(trusted)) as session,
        ):
            async with session.post("/", data=body) as response:
                assert await response.read() == body

            async def pieces():
                for start in range(0, len(body), 70_001):
                    yield body[start : start + 70_001]

            async with session.post("/digest", data=pieces()) as response:
                assert await response.text() == hashlib.sha256(body).hexdigest()

    run(main())


def test_many_requests_at_once(run, contexts):
    tls, trusted = contexts

    async def main():
        async with (
            serving(web.post("/", echo), tls=tls) as url,
            aiohttp.ClientSession(url, connector=connector(trusted)) as session,
        ):

            async def ask(i):
                body = b"%d" % i * (1 + i * 10)
                async with session.post("/", data=body) as response:
                    return await response.read() == body

            assert all(await asyncio.gather(*map(ask, range(300))))

    run(main())


def test_connections_are_used_again(run, contexts):
    tls, trusted = contexts
    peers = set()

    async def peer(request):
        peers.add(request.transport.get_extra_info("peername")[1])
        return web.Response()

    async def main():
        async with (
            serving(web.get("/", peer), tls=tls) as url,
            aiohttp.ClientSession(url, connector=connector(trusted)) as session,
        ):
            for _ in range(20):
                async with session.get("/") as response:
                    await response.read()

    run(main())
    assert len(peers) == 1


def test_a_file(run, contexts, directory):
    """TCP sends it with sendfile(2), TLS cannot."""
    tls, trusted = contexts
    content = os.urandom(5_000_000)
    path = directory / "file"
    path.write_bytes(content)

    async def file(request):
        return web.FileResponse(path)

    async def main():
        async with (
            serving(web.get("/", file), tls=tls) as url,
            aiohttp.ClientSession(url, connector=connector(trusted)) as session,
        ):
            async with session.get("/") as response:
                assert await response.read() == content
            async with session.get("/", headers={"Range": "bytes=1000-2999"}) as response:
                assert response.status == 206
                assert await response.read() == content[1000:3000]

    run(main())


def test_websocket(run, contexts):
    tls, trusted = contexts
    large = os.urandom(3_000_000)
    closed = []

    async def talk(request):
        socket = web.WebSocketResponse(max_msg_size=2**23, heartbeat=20)
        await socket.prepare(request)
        async for message in socket:
            if message.type == aiohttp.WSMsgType.TEXT:
                await socket.send_str(message.data)
            else:
                await socket.send_bytes(message.data)
        closed.append(socket.close_code)
        return socket

    async def main():
        async with (
            serving(web.get("/", talk), tls=tls) as url,
            aiohttp.ClientSession(url, connector=connector(trusted)) as session,
            session.ws_connect("/", max_msg_size=2**23) as socket,
        ):
            for text in map(str, range(200)):
                await socket.send_str(text)
            await socket.send_bytes(large)
            assert [await socket.receive_str() for _ in range(200)] == [*map(str, range(200))]
            assert await socket.receive_bytes() == large
            await socket.close(code=4000)

    run(main())
    assert closed == [4000]


def test_a_certificate_that_is_not_trusted(run, certificates, logs):
    async def main():
        async with (
            serving(web.get("/", method), tls=certificates.for_server()) as url,
            aiohttp.ClientSession(url) as session,
        ):
            with pytest.raises(aiohttp.ClientConnectorCertificateError, match="VERIFY_FAILED"):
                await session.get("/")

    run(main())
    # In debug mode the server's loop tells of the connection that came to nothing.
    assert {entry.getMessage().splitlines()[0] for entry in logs.take()} <= {
        "Error on transport creation for incoming connection"
    }


def test_client_timeout_cancels_the_handler(run):
    async def main():
        begun, cancelled = asyncio.Event(), asyncio.Event()

        async def hang(request):
            begun.set()
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        timeout = aiohttp.ClientTimeout(total=0.2)
        async with (
            serving(web.get("/", hang), handler_cancellation=True) as url,
            aiohttp.ClientSession(url, timeout=timeout) as session,
        ):
            with pytest.raises(TimeoutError):
                await session.get("/")
            await begun.wait()
            await cancelled.wait()

    run(main())


def test_a_slow_reader_holds_the_handler_back(run, contexts):
    tls, trusted = contexts
    chunks, chunk, sent = 1000, bytes(65536), 0

    async def stream(request):
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(chunks):
            await response.write(chunk)
            sent += 1
        return response

    async def main():
        async with (
            serving(web.get("/", stream), web.get("/method", method), tls=tls) as url,
            aiohttp.ClientSession(url, connector=connector(trusted)) as session,
            session.get("/") as response,
        ):
            for _ in range(200):  # turns of the loop, for others meanwhile
                async with session.get("/method") as other:
                    await other.read()
            assert sent < chunks // 2
            assert len(await response.read()) == chunks * len(chunk)

    run(main())
    assert sent == chunks


def test_the_server_breaks_off(run):
    async def broken(request):
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"some")
        request.transport.abort()
        return response

    async def main():
        async with (
            serving(web.get("/", broken)) as url,
            aiohttp.ClientSession(url) as session,
        ):
            with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientOSError)):
                async with session.get("/") as response:
                    await response.read()

    run(main())


def test_nobody_listens(run):
    async def main():
        async with serving() as url:
            pass
        async with aiohttp.ClientSession(url) as session:
            with pytest.raises(aiohttp.ClientConnectorError) as caught:
                await session.get("/")
            assert isinstance(caught.value.os_error, ConnectionRefusedError)

    run(main())


def test_unix_socket(run, directory):
    path = str(directory / "aiohttp")

    async def main():
        async with (
            serving(web.post("/", echo), path=path),
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session,
            session.post("http://localhost/", data=b"x" * 1_000_000) as response,
        ):
            assert await response.read() == b"x" * 1_000_000

    run(main())


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_under_load(python, wrk, certificates, scheme):
    files = [certificates.chain, certificates.key] if scheme == "https" else []
    server = python(PROGRAMS / "aiohttp_app.py", FACTORY, *files)
    url = server.expect(r"(https?://127.0.0.1:\d+)")[1]
    context = certificates.for_client() if files else None
    with urllib.request.urlopen(f"{url}/about", context=context, timeout=30) as answer:
        assert json.load(answer) == {"loop": LOOP_TYPE}
    wrk(f"{url}/", connections=64, seconds=2)
    assert server.stop() == 0
    assert "cleaned up\n" in server.lines
    for bad in ("Traceback", "never retrieved", "destroyed but it is pending", "Warning"):
        assert bad not in server.text, server.text
