"""asyncpg, on the PostgreSQL server of this run."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import io
import json
import os
import types

import asyncpg
import pytest
from support import free_port


@pytest.fixture(scope="module")
def server(postgresql, certificates):
    """Where PostgreSQL listens, as options of asyncpg.connect()."""
    common = {"port": postgresql.port, "user": "us", "database": "postgres", "timeout": 30}
    return types.SimpleNamespace(
        tcp={"host": "127.0.0.1", "ssl": False, **common},
        unix={"host": str(postgresql.home), **common},
        tls={"host": "localhost", "ssl": certificates.for_client(), **common},
    )


@pytest.fixture(params=["tcp", "unix", "tls"])
def where(request, server):
    return getattr(server, request.param)


@pytest.fixture
def connected(run, where):
    """Runs an async function with a connection."""

    def connected(function):
        async def main():
            connection = await asyncpg.connect(**where)
            try:
                return await function(connection)
            finally:
                await connection.close()

        return run(main())

    return connected


def test_values(connected):
    values = (1, "text", b"bytes", 1.5, decimal.Decimal("1.50"), datetime.date(2000, 1, 2), None)

    async def main(connection):
        kinds = "int, $2::text, $3::bytea, $4::float8, $5::numeric, $6::date, $7::int"
        assert tuple(await connection.fetchrow(f"SELECT $1::{kinds}", *values)) == values
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.fetch("SELECT 1/0")
        assert await connection.fetchval("SELECT 1") == 1

    connected(main)


def test_tls_is_in_use_where_it_was_asked_for(connected, where):
    async def main(connection):
        query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert await connection.fetchval(query) == bool(where.get("ssl"))

    connected(main)


def test_many_rows_through_a_cursor(connected):
    async def main(connection):
        async with connection.transaction():
            numbers = connection.cursor("SELECT generate_series(1, 20000)", prefetch=500)
            assert [row[0] async for row in numbers] == [*range(1, 20001)]

    connected(main)


def test_large_values(connected):
    value = os.urandom(10_000_000)

    async def main(connection):
        assert await connection.fetchval("SELECT $1::bytea", value) == value

    connected(main)


def test_copy_in_and_out(connected):
    async def main(connection):
        await connection.execute("CREATE TEMPORARY TABLE numbers (i int, t text)")
        records = [(i, str(i) * 100) for i in range(20000)]
        await connection.copy_records_to_table("numbers", records=records)
        out = io.BytesIO()
        await connection.copy_from_table("numbers", output=out)
        expected = "".join(f"{i}\t{t}\n" for i, t in records).encode()
        assert out.getvalue() == expected
        await connection.execute("DELETE FROM numbers")
        await connection.copy_to_table("numbers", source=io.BytesIO(expected))
        assert await connection.fetchval("SELECT count(*) FROM numbers") == len(records)

    connected(main)


def test_transactions(connected):
    async def main(connection):
        await connection.execute("CREATE TEMPORARY TABLE kept (i int)")
        async with connection.transaction():
            await connection.execute("INSERT INTO kept VALUES (1)")
            with pytest.raises(ZeroDivisionError):
                async with connection.transaction():
                    await connection.execute("INSERT INTO kept VALUES (2)")
                    raise ZeroDivisionError
        assert await connection.fetchval("SELECT array_agg(i) FROM kept") == [1]

    connected(main)


def test_a_query_that_is_cancelled_and_one_with_a_timeout(connected):
    async def main(connection):
        with pytest.raises(TimeoutError):
            await connection.fetch("SELECT pg_sleep(60)", timeout=0.1)
        asleep = asyncio.create_task(connection.fetch("SELECT pg_sleep(60)"))
        await asyncio.sleep(0)
        asleep.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asleep
        assert await connection.fetchval("SELECT 1") == 1

    connected(main)


def test_pool_with_more_tasks_than_connections(run, where):
    async def main():
        async with asyncpg.create_pool(**where, min_size=2, max_size=8) as pool:

            async def work(i):
                async with pool.acquire() as connection:
                    return await connection.fetchval("SELECT $1::int * 2", i)

            results = await asyncio.gather(*map(work, range(300)))
            assert results == [2 * i for i in range(300)]
            assert pool.get_size() <= 8

    run(main())


def test_notifications(run, where):
    async def main():
        received: asyncio.Queue[str] = asyncio.Queue()
        listener = await asyncpg.connect(**where)
        speaker = await asyncpg.connect(**where)
        await listener.add_listener("news", lambda *args: received.put_nowait(args[3]))
        for i in range(50):
            await speaker.execute(f"NOTIFY news, '{json.dumps({'number': i})}'")
        assert [json.loads(await received.get())["number"] for _ in range(50)] == [*range(50)]
        await listener.close()
        await speaker.close()

    run(main())


def test_connection_that_the_server_ends(run, where):
    async def main():
        victim = await asyncpg.connect(**where)
        killer = await asyncpg.connect(**where)
        ended = asyncio.get_running_loop().create_future()
        victim.add_termination_listener(ended.set_result)
        asleep = asyncio.create_task(victim.fetch("SELECT pg_sleep(60)"))
        # Between the statement's steps asyncpg takes the server's last word for its own mistake.
        query = "SELECT wait_event FROM pg_stat_activity WHERE pid = $1"
        while await killer.fetchval(query, victim.get_server_pid()) != "PgSleep":
            await asyncio.sleep(0.01)
        await killer.fetch("SELECT pg_terminate_backend($1)", victim.get_server_pid())
        with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError)):
            await asleep
        await ended
        assert victim.is_closed()
        await killer.close()

    run(main())


def test_a_certificate_that_is_not_trusted(run, server):
    import ssl

    async def main():
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncpg.connect(**{**server.tls, "ssl": ssl.create_default_context()})

    run(main())


def test_nobody_listens(run, server):
    async def main():
        with pytest.raises(ConnectionRefusedError):
            await asyncpg.connect(**{**server.tcp, "port": free_port()})

    run(main())
