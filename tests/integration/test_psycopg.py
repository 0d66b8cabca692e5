"""psycopg 3, its AsyncConnection and pool, on the PostgreSQL server of this run.

It drives libpq in the process: the loop does nothing but wait for its sockets (`add_reader`,
`add_writer`), a wait at a time.
"""

from __future__ import annotations

import asyncio
import os
import types
from contextlib import AsyncExitStack

import psycopg
import pytest
from psycopg import AsyncConnection, errors
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from support import PATIENCE, free_port


@pytest.fixture(scope="module")
def server(postgresql, certificates):
    """Where PostgreSQL listens, as options of AsyncConnection.connect()."""
    common = {"port": postgresql.port, "user": "us", "dbname": "postgres"}
    common |= {"connect_timeout": PATIENCE, "autocommit": True}
    verified = {"sslmode": "verify-full", "sslrootcert": str(certificates.authority)}
    return types.SimpleNamespace(
        tcp={"host": "127.0.0.1", "sslmode": "disable", **common},
        unix={"host": str(postgresql.home), **common},
        tls={"host": "localhost", **verified, **common},
    )


@pytest.fixture(params=["tcp", "unix", "tls"])
def where(request, server):
    return getattr(server, request.param)


@pytest.fixture
def connected(run, where):
    """Runs an async function with a connection."""

    def connected(function):
        async def main():
            async with await AsyncConnection.connect(**where) as connection:
                return await function(connection)

        return run(main())

    return connected


async def value_of(connection, query, parameters=None):
    cursor = await connection.execute(query, parameters)
    return (await cursor.fetchone())[0]


async def until_asleep(observer, pid):
    """Wait until that server process is in pg_sleep()."""
    query = "SELECT wait_event FROM pg_stat_activity WHERE pid = %s"
    while await value_of(observer, query, [pid]) != "PgSleep":
        await asyncio.sleep(0.01)


def test_values_and_an_error(connected, where):
    values = (1, "text", b"bytes", 1.5, None)

    async def main(connection):
        kinds = "%s::int, %s::text, %s::bytea, %s::float8, %s::int"
        cursor = await connection.execute(f"SELECT {kinds}", values, binary=True)
        assert await cursor.fetchone() == values
        with pytest.raises(errors.DivisionByZero):
            await connection.execute("SELECT 1/0")
        query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert await value_of(connection, query) == (where["host"] == "localhost")

    connected(main)


def test_server_side_cursors_taken_in_turns(connected):
    async def main(connection):
        async with connection.transaction():
            up = connection.cursor("up", scrollable=True)
            down = connection.cursor("down")
            up.itersize, down.itersize = 500, 70
            await up.execute("SELECT generate_series(1, 5000)")
            await down.execute("SELECT generate_series(5000, 1, -1)")
            # Not fetchone(), which asks the server for each row.
            falling = aiter(down)
            sums = [i + (await anext(falling))[0] async for (i,) in up]
            assert sums == [5001] * 5000
            await up.scroll(10, mode="absolute")
            assert await up.fetchmany(2) == [(11,), (12,)]
            await up.close()
            await down.close()

    connected(main)


def test_pipeline(connected):
    async def main(connection):
        await connection.execute("CREATE TEMPORARY TABLE numbers (i int UNIQUE, t text)")
        async with connection.pipeline():
            # More than the socket takes: psycopg has to read while it writes.
            cursors = [
                await connection.execute(
                    "INSERT INTO numbers VALUES (%s, %s) RETURNING i, t", [i, "x" * 2000]
                )
                for i in range(2000)
            ]
            rows = [await cursor.fetchone() for cursor in cursors]
        assert rows == [(i, "x" * 2000) for i in range(2000)]

        # What follows an error up to the end of the pipeline is taken back with it.
        with pytest.raises(errors.UniqueViolation):
            async with connection.pipeline():
                await connection.execute("INSERT INTO numbers VALUES (-1)")
                await connection.execute("INSERT INTO numbers VALUES (1)")
                await connection.execute("INSERT INTO numbers VALUES (-2)")
        assert await value_of(connection, "SELECT count(*) FROM numbers") == 2000

    connected(main)


def test_copy_in_and_out(connected):
    lines = [f"{i}\t{str(i) * 40}\n".encode() for i in range(20000)]
    expected = b"".join(lines)
    assert len(expected) > 3_000_000

    async def main(connection):
        await connection.execute("CREATE TEMPORARY TABLE numbers (i int, t text)")
        cursor = connection.cursor()
        async with cursor.copy("COPY numbers FROM STDIN") as copy:
            for i in range(20000):
                await copy.write_row((i, str(i) * 40))
        async with cursor.copy("COPY numbers TO STDOUT") as copy:
            assert b"".join([bytes(block) async for block in copy]) == expected
        await connection.execute("TRUNCATE numbers")
        async with cursor.copy("COPY numbers FROM STDIN") as copy:
            await copy.write(expected)
        assert await value_of(connection, "SELECT count(*) FROM numbers") == 20000

        # What raises inside takes the copy back, or has the server end it and the rest thrown away.
        with pytest.raises(ZeroDivisionError):
            async with cursor.copy("COPY numbers FROM STDIN") as copy:
                await copy.write(expected[:100_000])
                raise ZeroDivisionError
        with pytest.raises(ZeroDivisionError):
            async with cursor.copy("COPY numbers TO STDOUT") as copy:
                assert bytes(await copy.read()) == lines[0]
                raise ZeroDivisionError
        assert await value_of(connection, "SELECT count(*) FROM numbers") == 20000

    connected(main)


def test_large_values(connected):
    value = os.urandom(5_000_000)

    async def main(connection):
        cursor = await connection.execute("SELECT %b::bytea", [value], binary=True)
        assert (await cursor.fetchone())[0] == value

    connected(main)


def test_notifications_to_several_connections(run, where):
    async def main():
        async with AsyncExitStack() as stack:

            async def connect():
                return await stack.enter_async_context(await AsyncConnection.connect(**where))

            listeners = [await connect() for _ in range(5)]
            speaker = await connect()
            for listener in listeners:
                await listener.execute("LISTEN news")

            async def listen(listener):
                return [note.payload async for note in listener.notifies(stop_after=100)]

            listening = [asyncio.create_task(listen(listener)) for listener in listeners]
            for i in range(100):
                await speaker.execute("SELECT pg_notify('news', %s)", [str(i)])
            expected = [*map(str, range(100))]
            assert await asyncio.gather(*listening) == [expected] * 5
            # A wait without news ends by its own timeout, and the connection goes on.
            assert [note async for note in listeners[0].notifies(timeout=0.05)] == []
            assert await value_of(listeners[0], "SELECT 1") == 1

    run(main())


def test_a_statement_that_is_cancelled_and_ones_with_a_timeout(run, where):
    async def main():
        async with (
            await AsyncConnection.connect(**where) as connection,
            await AsyncConnection.connect(**where) as observer,
        ):
            pid = connection.info.backend_pid
            asleep = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
            await until_asleep(observer, pid)
            asleep.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asleep
            assert await value_of(connection, "SELECT 1") == 1

            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await connection.execute("SELECT pg_sleep(60)")
            assert await value_of(connection, "SELECT 2") == 2

            await connection.execute("SET statement_timeout = 50")
            with pytest.raises(errors.QueryCanceled):
                await connection.execute("SELECT pg_sleep(60)")
            assert await value_of(connection, "SELECT pg_backend_pid()") == pid

    run(main())


def test_pool_with_more_tasks_than_connections(run, where):
    async def main():
        async with AsyncConnectionPool(kwargs=where, min_size=2, max_size=8, open=False) as pool:

            async def work(i):
                async with pool.connection(PATIENCE) as connection:
                    return await value_of(connection, "SELECT %s::int * 2", [i])

            results = await asyncio.gather(*map(work, range(300)))
            assert results == [2 * i for i in range(300)]
            assert pool.get_stats()["pool_size"] <= 8

    run(main())


def test_waiting_for_the_pool_is_in_order_and_can_be_given_up(run, server):
    async def main():
        options = {"kwargs": server.tcp, "min_size": 1, "max_size": 1, "open": False}
        async with AsyncConnectionPool(**options) as pool:
            served = []

            async def work(i):
                async with pool.connection(PATIENCE) as connection:
                    served.append(await value_of(connection, "SELECT %s::int", [i]))

            async with pool.connection(PATIENCE):
                working = [asyncio.create_task(work(i)) for i in range(20)]
                with pytest.raises(PoolTimeout):
                    async with pool.connection(0.05):
                        pass
                for task in working[::5]:
                    task.cancel()
            done = await asyncio.gather(*working, return_exceptions=True)
            assert [type(done[i]) for i in range(0, 20, 5)] == [asyncio.CancelledError] * 4
            assert served == [i for i in range(20) if i % 5]

    run(main())


def test_a_connection_that_the_server_ends_while_tasks_wait(run, where):
    async def main():
        async with (
            await AsyncConnection.connect(**where) as victim,
            await AsyncConnection.connect(**where) as killer,
        ):
            pid = victim.info.backend_pid
            asleep = asyncio.create_task(victim.execute("SELECT pg_sleep(60)"))
            await until_asleep(killer, pid)
            # These wait for the connection, which is one task's at a time.
            waiting = [asyncio.create_task(victim.execute("SELECT 1")) for _ in range(5)]
            await asyncio.sleep(0)
            assert await value_of(killer, "SELECT pg_terminate_backend(%s)", [pid])
            with pytest.raises(errors.AdminShutdown):
                await asleep
            for task in waiting:
                with pytest.raises(psycopg.OperationalError):
                    await task
            assert victim.closed
            assert await value_of(killer, "SELECT 1") == 1

    run(main())


def test_the_pool_replaces_a_connection_that_the_server_ends(run, server, caplog):
    async def main():
        options = {"kwargs": server.tcp, "min_size": 1, "max_size": 1, "open": False}
        async with (
            AsyncConnectionPool(**options) as pool,
            await AsyncConnection.connect(**server.tcp) as killer,
        ):

            async def work():
                async with pool.connection(PATIENCE) as connection:
                    return await value_of(connection, "SELECT pg_backend_pid()")

            with pytest.raises(errors.AdminShutdown):
                async with pool.connection(PATIENCE) as connection:
                    pid = connection.info.backend_pid
                    working = [asyncio.create_task(work()) for _ in range(10)]
                    asleep = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
                    await until_asleep(killer, pid)
                    await value_of(killer, "SELECT pg_terminate_backend(%s)", [pid])
                    await asleep
            (served_by,) = {*await asyncio.gather(*working)}
            assert served_by != pid

    run(main())


def test_fifty_connections_are_served_alike(run, where):
    rounds = 20

    async def main():
        async with AsyncExitStack() as stack:

            async def connect():
                return await stack.enter_async_context(await AsyncConnection.connect(**where))

            connections = await asyncio.gather(*(connect() for _ in range(50)))
            done = [0] * 50

            async def work(i):
                while sum(done) < 50 * rounds:
                    assert await value_of(connections[i], "SELECT %s::int", [i]) == i
                    done[i] += 1

            await asyncio.gather(*map(work, range(50)))
            # The server's processes have the machine's other work beside them.
            assert min(done) >= rounds / 4

    run(main())


def test_nobody_listens(run, server):
    async def main():
        with pytest.raises(psycopg.OperationalError, match="refused"):
            await AsyncConnection.connect(**{**server.tcp, "port": free_port()})

    run(main())


def test_a_certificate_that_is_not_trusted(run, server, certificates):
    async def main():
        wrong = {**server.tls, "host": "127.0.0.2", "hostaddr": "127.0.0.1"}
        with pytest.raises(psycopg.OperationalError, match="certificate"):
            await AsyncConnection.connect(**wrong)

    run(main())
