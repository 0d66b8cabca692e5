"""redis-py's asyncio client, on a Redis server of our own."""

from __future__ import annotations

import asyncio
import os
import types

import pytest
import redis.asyncio as redis
from redis.exceptions import ConnectionError, TimeoutError
from support import PATIENCE, Process, environment, find_program, free_port, unprivileged


@pytest.fixture(scope="module")
def server(public_directory, certificates):
    """Where a Redis listens, as addresses for redis.from_url()."""
    program = find_program("redis-server", "redis-server")
    port, tls_port = free_port(), free_port()
    path = public_directory / "redis"
    process = Process(
        [
            *(program, "--port", port, "--bind", "127.0.0.1", "--dir", "/", "--save", ""),
            *("--unixsocket", path, "--unixsocketperm", "777", "--databases", "1"),
            *("--tls-port", tls_port, "--tls-auth-clients", "no"),
            *("--tls-cert-file", certificates.chain, "--tls-key-file", certificates.key),
        ],
        env=environment(),
        **unprivileged("redis", public_directory),
    )
    try:
        process.expect("eady to accept connections (at|tls)")  # the last of these lines
        yield types.SimpleNamespace(
            tcp=f"redis://localhost:{port}",
            unix=f"unix://{path}",
            tls=f"rediss://localhost:{tls_port}?ssl_ca_certs={certificates.authority}",
        )
    finally:
        process.kill()


@pytest.fixture(params=["tcp", "unix", "tls"])
def url(request, server):
    return getattr(server, request.param)


def test_values_and_pipelines(run, url):
    async def main():
        async with redis.from_url(url, decode_responses=True) as client:
            await client.flushall()
            assert await client.set("key", "value")
            assert await client.get("key") == "value"
            assert await client.incrby("counter", 5) == 5
            async with client.pipeline(transaction=True) as pipe:
                for i in range(1000):
                    pipe.rpush("list", i)
                assert await pipe.execute() == [*range(1, 1001)]
            assert await client.lrange("list", 0, -1) == [*map(str, range(1000))]
            assert [key async for key in client.scan_iter("l*")] == ["list"]

    run(main())


def test_large_values(run, url):
    value = os.urandom(20_000_000)

    async def main():
        async with redis.from_url(url) as client:
            await client.set("large", value)
            assert await client.get("large") == value

    run(main())


def test_many_clients_at_once(run, url):
    async def main():
        # redis-py makes an SSLContext for each connection, 50 times as long as all others wait.
        patient = {"socket_connect_timeout": PATIENCE, "socket_timeout": PATIENCE}
        async with redis.from_url(url, max_connections=50, **patient) as client:
            await client.flushall()

            async def work(i):
                for _ in range(20):
                    await client.incr("counter")
                    await client.set(f"key {i}", b"x" * i)
                return len(await client.get(f"key {i}"))

            assert await asyncio.gather(*map(work, range(50))) == [*range(50)]
            assert await client.get("counter") == b"1000"

    run(main())


def test_publish_and_subscribe(run, url):
    async def main():
        async with redis.from_url(url) as client, client.pubsub() as subscription:
            await subscription.subscribe("channel")
            assert (await subscription.get_message(timeout=30))["type"] == "subscribe"

            async def publish():
                for i in range(100):
                    assert await client.publish("channel", str(i)) == 1

            publishing = asyncio.create_task(publish())
            received = []
            async for message in subscription.listen():
                received.append(int(message["data"]))
                if len(received) == 100:
                    break
            assert received == [*range(100)]
            await publishing
            assert await subscription.get_message(timeout=0.01) is None

    run(main())


def test_a_blocking_command_is_cancelled_and_the_client_goes_on(run, url):
    async def main():
        async with redis.from_url(url) as client:
            await client.flushall()
            waiting = asyncio.create_task(client.blpop(["queue"]))
            while not (await client.info("clients"))["blocked_clients"]:
                pass
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await client.rpush("queue", "later")
            assert await client.blpop(["queue"]) == (b"queue", b"later")

    run(main())


def test_socket_timeout(run, server):
    async def main():
        async with redis.from_url(server.tcp, socket_timeout=0.2, retry=None) as client:
            with pytest.raises(TimeoutError):
                await client.execute_command("BLPOP", "nothing", 0)

    run(main())


def test_connection_that_the_server_ends(run, server):
    async def main():
        async with (
            redis.from_url(server.tcp) as client,
            redis.from_url(server.tcp, retry=None) as victim,
        ):
            waiting = asyncio.create_task(victim.execute_command("BLPOP", "nothing", 0))
            while not (await client.info("clients"))["blocked_clients"]:
                pass
            assert await client.client_kill_filter(_type="normal", skipme=True) == 1
            with pytest.raises(ConnectionError):
                await waiting
            assert await victim.ping()

    run(main())


def test_nobody_listens(run):
    async def main():
        client = redis.from_url(f"redis://localhost:{free_port()}", retry=None)
        with pytest.raises(ConnectionError, match="111"):
            await client.ping()
        await client.aclose()

    run(main())
