"""What runs in a contender's process for `python -m benchmarks --programs`: servers and clients as
people write them, with libraries that people use.

None knows on which loop it runs. A server tells its port and serves until it is killed; a client
counts what it gets done within a window, and its CPU time (user and system, all threads).
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

Say = Callable[[dict[str, Any]], None]
Operation = Callable[[], Awaitable[int]]  # returns how many it was

HELLO = b"Hello, world!"
RAW_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n" + HELLO
kept: list[object] = []  # by nobody else, until the process ends


def certified(certificate: str) -> ssl.SSLContext | None:
    if not certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


# ---- servers ----


async def asgi_hello(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": HELLO})


def fastapi_hello() -> Any:
    import fastapi

    app = fastapi.FastAPI()

    @app.get("/")
    async def hello(name: str = "world") -> dict[str, str]:
        return {"hello": name}

    return app


async def serve_asgi(app: Any, certificate: str) -> int:
    import uvicorn

    options: dict[str, Any] = {"ssl_certfile": certificate} if certificate else {}
    config = uvicorn.Config(
        app, port=0, http="httptools", lifespan="off", access_log=False, log_config=None, **options
    )
    server = uvicorn.Server(config)
    kept.append(asyncio.ensure_future(server.serve()))
    while not server.started:
        await asyncio.sleep(0.01)
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


async def serve_uvicorn(certificate: str) -> int:
    return await serve_asgi(asgi_hello, certificate)


async def serve_fastapi(certificate: str) -> int:
    return await serve_asgi(fastapi_hello(), certificate)


async def serve_aiohttp(certificate: str) -> int:
    from aiohttp import web

    async def hello(request: Any) -> Any:
        return web.Response(body=HELLO, content_type="text/plain")

    app = web.Application()
    app.add_routes([web.get("/", hello)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certified(certificate)).start()
    kept.append(runner)
    port: int = runner.addresses[0][1]
    return port


class Raw(asyncio.Protocol):
    """The least that an HTTP client takes for a server: each of its requests comes whole."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(RAW_ANSWER * data.count(b"\r\n\r\n"))


async def serve_raw(certificate: str) -> int:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Raw, "127.0.0.1", 0, ssl=certified(certificate))
    kept.append(server)
    port: int = server.sockets[0].getsockname()[1]
    return port


SERVERS = {
    "uvicorn": serve_uvicorn,
    "fastapi": serve_fastapi,
    "aiohttp": serve_aiohttp,
    "raw": serve_raw,
}


# ---- clients ----


async def count(operation: Operation, tasks: int, warm_up: float, seconds: float) -> dict[str, Any]:
    """Repeat an operation in so many tasks; return what was done in the window after warm-up."""
    done, stopped = 0, False

    async def repeat() -> None:
        nonlocal done
        while not stopped:
            more = await operation()  # `done += await` would read `done` before it waits
            done += more

    running = [asyncio.ensure_future(repeat()) for _ in range(tasks)]
    await asyncio.sleep(warm_up)
    before = done, time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    after = done, time.process_time(), time.perf_counter()
    stopped = True
    await asyncio.gather(*running)
    requests, cpu, real = (b - a for a, b in zip(before, after, strict=True))
    return {"requests": requests, "server_cpu": cpu, "seconds": real}


async def use_asyncpg(place: str, warm_up: float, seconds: float) -> dict[str, Any]:
    import asyncpg

    async with asyncpg.create_pool(**json.loads(place), min_size=10, max_size=10) as pool:

        async def query() -> int:
            row = await pool.fetchrow("SELECT $1::int AS number, $2::text AS word", 42, "word")
            assert row["number"] == 42
            return 1

        return await count(query, 10, warm_up, seconds)


async def use_redis(place: str, warm_up: float, seconds: float) -> dict[str, Any]:
    import redis.asyncio

    async with redis.asyncio.from_url(place, max_connections=50) as client:
        await client.set("key", "value")

        async def get() -> int:
            assert await client.get("key") == b"value"
            return 1

        return await count(get, 50, warm_up, seconds)


async def use_aiohttp(place: str, warm_up: float, seconds: float) -> dict[str, Any]:
    import aiohttp

    async with aiohttp.ClientSession() as session:

        async def get() -> int:
            async with session.get(place) as response:
                assert await response.read() == HELLO
            return 1

        return await count(get, 32, warm_up, seconds)


async def use_dask(place: str, warm_up: float, seconds: float) -> dict[str, Any]:
    """Scheduler and client on one loop, a worker on the other core, the same for all."""
    import distributed

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    async with distributed.Scheduler(
        host="127.0.0.1", port=0, dashboard=False, dashboard_address=":0"
    ) as scheduler:
        worker = await asyncio.create_subprocess_exec(
            *place.split(),
            *(sys.executable, "-m", "distributed.cli.dask_worker", scheduler.address),
            *("--no-nanny", "--no-dashboard", "--nthreads", "2"),
            stderr=subprocess.DEVNULL,
        )
        async with distributed.Client(scheduler.address, asynchronous=True) as client:
            await client.wait_for_workers(1, timeout=30)

            async def compute() -> int:
                futures = client.map(abs, range(50), pure=False)
                assert (await client.gather(futures))[-1] == 49
                return len(futures)

            answer = await count(compute, 4, warm_up, seconds)
        worker.terminate()
        await worker.wait()
    return answer


CLIENTS = {
    "asyncpg": use_asyncpg,
    "redis": use_redis,
    "aiohttp_client": use_aiohttp,
    "dask": use_dask,
}


async def main(program: str, place: str, warm_up: float, seconds: float, say: Say) -> None:
    """Run one of them. A server's place is its certificate (a file's name, or empty), a client's
    where its server is.
    """
    from .. import contenders

    try:
        if program in SERVERS:
            port = await SERVERS[program](place)
            say({"port": port, **contenders.identify()})
            await asyncio.Event().wait()
        else:
            answer = await CLIENTS[program](place, warm_up, seconds)
            say({**answer, **contenders.identify()})
    except Exception as error:
        say({"unable": f"{type(error).__name__}: {error}".splitlines()[0][:200]})
