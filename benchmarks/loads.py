"""What a loop is busy with while its delays are measured (latency.py), and the measurements in its
process: an ordinary asyncio program.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import random
import signal
import struct
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from . import contenders, native
from .servers import Echo, keep

TASKS = 3  # of those that compute
BLOCK = 256 * 1024  # of an upload, for which there is work
BLOCK_WORK = 0.001
CONNECTIONS = 1000
TIMERS = 100_000
TIMER_PERIOD = 10.0  # seconds from one to the next, of each timer
WAITING = 1000  # calls from another thread that have not run

Say = Callable[[dict[str, Any]], None]
Delays = list[float]


def work(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


# ---- what it is busy with ----


async def compute(seconds: float) -> None:
    while True:
        work(seconds)
        await asyncio.sleep(0)


def start_tasks(seconds: float) -> None:
    for _ in range(TASKS):
        keep(asyncio.ensure_future(compute(seconds)), None)


class Upload(asyncio.Protocol):
    received = 0

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        while self.received >= BLOCK:
            self.received -= BLOCK
            work(BLOCK_WORK)


async def start_upload(beside: Beside) -> None:
    server = await asyncio.get_running_loop().create_server(Upload, "127.0.0.1", 0)
    keep(server, None)
    await beside.start(native.program("moments.c"), "upload", server.sockets[0].getsockname()[1])


async def start_connections(beside: Beside) -> None:
    many = ("-c", CONNECTIONS, "-s", 1024, "-d", 1_000_000)
    await beside.start(native.program("client.c"), "-p", beside.port, *many)


def start_timers() -> None:
    loop = asyncio.get_running_loop()
    fate = random.Random(1)

    def strike() -> None:
        loop.call_later(TIMER_PERIOD, strike)

    for _ in range(TIMERS):
        loop.call_later(fate.random() * TIMER_PERIOD, strike)


def start_calls() -> None:
    loop = asyncio.get_running_loop()
    called = 0

    def ran() -> None:
        nonlocal called
        called += 1

    def flood() -> None:
        made = 0
        while True:
            if made - called > WAITING:
                time.sleep(0)
                continue
            loop.call_soon_threadsafe(ran)
            made += 1

    threading.Thread(target=flood, daemon=True).start()


async def ask_redis(place: str) -> None:
    import redis.asyncio

    async with redis.asyncio.from_url(place) as client:
        while True:
            await client.set("key", "value")
            await client.get("key")


async def ask_postgres(place: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(**json.loads(place))
    while True:
        await connection.fetch("select generate_series(1, 10)")


async def start_clients(places: dict[str, str]) -> None:
    clients = [ask_redis(places["redis"]), ask_postgres(places["postgres"])]
    tasks = [keep(None, asyncio.ensure_future(client)) for client in clients]
    done, _ = await asyncio.wait(tasks, timeout=0.3)
    for task in done:
        task.result()  # it cannot be asked: say why


class Beside:
    """Processes on the other core, which end with this one."""

    def __init__(self, prefix: list[str], port: int) -> None:
        self.prefix = prefix
        self.port = port

    async def start(self, *command: Any) -> asyncio.subprocess.Process:
        words = [*self.prefix, *map(str, command)]
        process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.DEVNULL)
        keep(process, None)
        return process


async def start(load: str, beside: Beside, places: dict[str, str]) -> None:
    kind, _, argument = load.partition(":")
    if kind == "tasks":
        start_tasks(float(argument))
    elif kind == "upload":
        await start_upload(beside)
    elif kind == "connections":
        await start_connections(beside)
    elif kind == "timers":
        start_timers()
    elif kind == "calls":
        start_calls()
    elif kind == "clients":
        await start_clients(places)


# ---- what is measured here ----


class Moments:
    """The file in which c/moments.c writes when something happened."""

    def __init__(self, path: str) -> None:
        self.path = path
        with open(path, "r+b") as file:
            file.truncate(mmap.PAGESIZE)
            self.words = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def since(self) -> float:
        now = time.monotonic_ns()
        (moment,) = struct.unpack_from("Q", self.words)
        return (now - int(moment)) / 1e9

    def answer(self) -> None:
        self.words[8:16] = self.words[:8]


@asynccontextmanager
async def moments() -> AsyncIterator[Moments]:
    with tempfile.NamedTemporaryFile() as file:
        yield Moments(file.name)


async def measure_timers(seconds: float, beside: Beside) -> Delays:
    """How late call_later() fires."""
    loop = asyncio.get_running_loop()
    fate = random.Random(2)
    delays: Delays = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        fired = loop.create_future()
        wait = 0.001 + fate.random() * 0.003
        due = time.monotonic() + wait
        loop.call_later(wait, lambda f=fired: f.set_result(time.monotonic()))
        delays.append(max(0.0, await fired - due))
    return delays


async def measure_children(seconds: float, beside: Beside) -> Delays:
    """From a child's end to the return of wait()."""
    delays: Delays = []
    program = native.program("moments.c")
    async with moments() as written:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            process = await beside.start(program, "end", written.path)
            if await process.wait():
                raise RuntimeError(f"a child ended with status {process.returncode}")
            delays.append(written.since())
    return delays


async def measure_signals(seconds: float, beside: Beside) -> Delays:
    """From another process's kill() to the handler of add_signal_handler()."""
    loop = asyncio.get_running_loop()
    delays: Delays = []
    async with moments() as written:

        def handle() -> None:
            delays.append(written.since())
            written.answer()

        loop.add_signal_handler(signal.SIGUSR1, handle)
        numbers = (os.getpid(), int(signal.SIGUSR1), seconds)
        program = native.program("moments.c")
        sender = await beside.start(program, "signal", written.path, *numbers)
        if await sender.wait():
            raise RuntimeError("a signal was not handled")
        loop.remove_signal_handler(signal.SIGUSR1)
    return delays


MEASUREMENTS: dict[str, Callable[[float, Beside], Awaitable[Delays]]] = {
    "timer": measure_timers,
    "child": measure_children,
    "signal": measure_signals,
}


async def serve(request: dict[str, Any], say: Say) -> None:
    """Echo on a port, under a load, until the process is killed. Tells the delays of what is
    measured here, and the port; or why it cannot.
    """
    try:
        listener = await echo_server()
        port = listener.getsockname()[1]
        beside = Beside(request["prefix"], port)
        await start(request["load"], beside, request["places"])
        await asyncio.sleep(request["warm_up"])
        delays = {
            kind: await MEASUREMENTS[kind](request["seconds"], beside)
            for kind in request["measurements"]
        }
    except Exception as error:
        say({"unable": contenders.described(error)})
        return
    say({"port": port, "delays": delays, **contenders.identify()})
    await asyncio.Event().wait()


async def echo_server() -> Any:
    server = await asyncio.get_running_loop().create_server(
        Echo, "127.0.0.1", 0, backlog=CONNECTIONS
    )
    return keep(server, server.sockets[0])
