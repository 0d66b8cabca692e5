"""A Dask cluster: a scheduler, two workers in processes of their own, a client in a third."""

from __future__ import annotations

import asyncio
import operator
import os
import re
import signal
import types

import dask
import distributed
import pytest
from support import LOOP_TYPE, PATIENCE, PROGRAMS

NODE = PROGRAMS / "dask_node.py"
OWN = ("--dashboard-address", ":0", "--host", "127.0.0.1")


@pytest.fixture(params=["tornado", "asyncio"])
def transport(request):
    """How distributed moves its data: over Tornado's streams, or asyncio's transports."""
    return request.param


@pytest.fixture(params=["tcp", "tls"])
def tls(request):
    """The options that say with which certificates, as a dictionary; empty for TCP."""
    if request.param == "tcp":
        return {}
    made = request.getfixturevalue("certificates")
    names = {"--tls-ca-file": made.authority, "--tls-cert": made.chain, "--tls-key": made.key}
    return {name: str(path) for name, path in names.items()}


@pytest.fixture
def cluster(python, transport, directory):
    """A scheduler and two workers; a nanny each if it is asked for."""

    def cluster(nanny=False, tls={}):
        settings = {
            "DASK_DISTRIBUTED__COMM__TCP__BACKEND": transport,
            "DASK_TEMPORARY_DIRECTORY": str(directory),
        }
        common = {"env": settings, "cwd": directory}
        own = [*OWN, *sum(tls.items(), ())]
        scheduler = python(
            *(NODE, "scheduler", *own, "--port", "0", *(["--protocol", "tls"] if tls else [])),
            **common,
        )
        address = scheduler.expect(r"Scheduler at: +(t\w+://\S+)")[1]
        kind = "--nanny" if nanny else "--no-nanny"
        workers = []
        for _ in range(2):
            worker = python(*(NODE, "worker", address, *own, kind, "--nthreads", "2"), **common)
            worker.expect("Registered to:|Start Nanny at:")
            workers.append(worker)
        return types.SimpleNamespace(address=address, scheduler=scheduler, workers=workers)

    return cluster


@pytest.fixture
def client(run, transport):
    """Runs an async function with a client, on the loop under test."""

    def client(cluster, function, tls={}):
        options = {"asynchronous": True, "timeout": PATIENCE}
        if tls:
            ca, cert, key = tls.values()
            options["security"] = distributed.Security(
                tls_ca_file=ca, tls_client_cert=cert, tls_client_key=key, require_encryption=True
            )

        async def main():
            with dask.config.set({"distributed.comm.tcp.backend": transport}):
                async with distributed.Client(cluster.address, **options) as client:
                    await client.wait_for_workers(2, timeout=PATIENCE)
                    return await function(client)

        return run(main())

    return client


async def loop_of_worker():
    kind = type(asyncio.get_running_loop())
    return f"{kind.__module__}.{kind.__qualname__}"


# A worker that is told to end while it waits for the answer to a heartbeat says so, on any loop:
# https://github.com/dask/distributed/issues/7192. The traceback ends where a line has a date.
HEARTBEAT = re.compile(
    r"^.* Failed to communicate with scheduler during heartbeat\.\n(?:(?!\d{4}-\d\d-\d\d ).*\n)*",
    re.MULTILINE,
)


def assert_ends(cluster):
    for process in (*cluster.workers, cluster.scheduler):
        assert process.stop() in (0, -signal.SIGTERM), process.text
        assert "Traceback (most" not in HEARTBEAT.sub("", process.text), process.text


def test_every_process_runs_on_the_loop(cluster, client):
    started = cluster(nanny=True)

    async def main(client):
        return [
            *(await client.run(loop_of_worker)).values(),
            *(await client.run(loop_of_worker, nanny=True)).values(),
            await client.run_on_scheduler(loop_of_worker),
        ]

    assert client(started, main) == [LOOP_TYPE] * 5
    assert_ends(started)


def test_a_graph_with_data_that_moves_between_the_workers(cluster, client, tls):
    started = cluster(tls=tls)
    assert started.address.startswith("tls:" if tls else "tcp:")

    async def main(client):
        parts = client.map(lambda i: bytes([i]) * 3_000_000, range(30))
        lengths = client.map(lambda a, b: len(a + b), parts, parts[1:] + parts[:1])
        assert await client.submit(sum, lengths) == 30 * 6_000_000
        assert (await parts[7])[:3] == b"\7\7\7"
        small = client.map(operator.add, range(500), range(500))
        assert sum(await client.gather(small)) == 2 * sum(range(500))
        failed = client.submit(operator.truediv, 1, 0)
        with pytest.raises(ZeroDivisionError):
            await failed

    client(started, main, tls)
    assert_ends(started)


def test_what_a_killed_worker_had_is_computed_again(cluster, client):
    started = cluster()

    async def main(client):
        pids = await client.run(os.getpid)
        futures = client.map(lambda i: b"x" * i, range(100))
        await distributed.wait(futures)
        assert all((await client.has_what()).values())  # both have some of them
        os.kill(min(pids.values()), signal.SIGKILL)
        assert await client.gather(client.map(len, futures)) == [*range(100)]
        assert len(await client.run(os.getpid)) == 1

    client(started, main)
    dead = [worker for worker in started.workers if worker.popen.poll() is not None]
    assert [worker.wait() for worker in dead] == [-signal.SIGKILL]


def test_a_nanny_starts_a_killed_worker_again(cluster, client):
    started = cluster(nanny=True)

    async def main(client):
        before = await client.run(os.getpid)
        os.kill(min(before.values()), signal.SIGKILL)
        while True:
            now = await client.run(os.getpid, on_error="ignore")
            if len(now) == 2 and set(now.values()) != set(before.values()):
                break
        assert set((await client.run(loop_of_worker)).values()) == {LOOP_TYPE}
        assert await client.submit(sum, [1, 2, 3]) == 6

    client(started, main)
