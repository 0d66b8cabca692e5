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

from .. import contenders, native
from .servers import Echo, keep

TASKS = 3  # of those that compute
BLOCK = 256 * 1024  # of an upload, for which there is work
BLOCK_WORK = 0.001
CONNECTIONS = 1000
TIMERS = 100_000
TIMER_PERIOD = 10.0  # seconds from one to the next, of each timer
CALLS_PAUSE = 0.001
WAITING = 1000  # calls from another thread that have not run
CHILDREN = 20  # so many are waited for, also where that takes thrice as long as the rest
UNANSWERED = 3  # what c/moments.c ends with

Say = Callable[[dict[str, Any]], None]
Delays = list[float]
Busy = list["asyncio.Future[Any]"]  # what a load consists of and must not end


def work(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


# ---- what it is busy with ----


async def compute(seconds: float) -> None:
    while True:
        work(seconds)
        await asyncio.sleep(0)


def start_tasks(seconds: float) -> Busy:
    return [asyncio.ensure_future(compute(seconds)) for _ in range(TASKS)]


class Upload(asyncio.Protocol):
    received = 0

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        while self.received >= BLOCK:
            self.received -= BLOCK
            work(BLOCK_WORK)


async def start_upload(beside: Beside) -> Busy:
    server = await asyncio.get_running_loop().create_server(Upload, "127.0.0.1", 0)
    port = keep(server, server.sockets[0].getsockname()[1])
    sender = await beside.start(native.program("moments.c"), "upload", port)
    return [asyncio.ensure_future(sender.wait())]


async def start_connections(beside: Beside) -> Busy:
    many = ("-c", CONNECTIONS, "-s", 1024, "-d", 1_000_000)
    client = await beside.start(native.program("client.c"), "-p", beside.port, *many)
    return [asyncio.ensure_future(client.wait())]


def start_timers() -> None:
    loop = asyncio.get_running_loop()
    fate = random.Random(1)

    def strike() -> None:
        loop.call_later(TIMER_PERIOD, strike)

    for _ in range(TIMERS):
        loop.call_later(fate.random() * TIMER_PERIOD, strike)


def start_calls(rate: float) -> None:
    """So many calls a second, or as many as the loop runs."""
    loop = asyncio.get_running_loop()
    called = 0

    def ran() -> None:
        nonlocal called
        called += 1

    def flood() -> None:
        made = 0
        begun = time.monotonic()
        while True:
            late = made < (time.monotonic() - begun) * rate
            if made - called > WAITING or not late:
                time.sleep(0 if late else CALLS_PAUSE)
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


def start_clients(places: dict[str, str]) -> Busy:
    clients = [ask_redis(places["redis"]), ask_postgres(places["postgres"])]
    return [asyncio.ensure_future(client) for client in clients]


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


async def start(load: str, beside: Beside, places: dict[str, str]) -> Busy:
    kind, _, argument = load.partition(":")
    if kind == "tasks":
        return start_tasks(float(argument))
    if kind == "upload":
        return await start_upload(beside)
    if kind == "connections":
        return await start_connections(beside)
    if kind == "clients":
        return start_clients(places)
    if kind == "timers":
        start_timers()
    elif kind == "calls":
        start_calls(float(argument))
    return []


def check(busy: Busy) -> None:
    """Raises what ended a load."""
    for ended in busy:
        if ended.done():
            raise RuntimeError(f"the load ended: {ended.result()}")


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


async def measure_timers(seconds: float, beside: Beside) -> tuple[Delays, int]:
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
    return delays, 0


async def measure_children(seconds: float, beside: Beside) -> tuple[Delays, int]:
    """From a child's end to the return of wait()."""
    delays: Delays = []
    program = native.program("moments.c")
    async with moments() as written:
        begun = time.monotonic()
        while (took := time.monotonic() - begun) < seconds or (
            len(delays) < CHILDREN and took < 3 * seconds
        ):
            process = await beside.start(program, "end", written.path)
            if await process.wait():
                raise RuntimeError(f"a child ended with status {process.returncode}")
            delays.append(written.since())
    return delays, 0


async def measure_signals(seconds: float, beside: Beside) -> tuple[Delays, int]:
    """From another process's kill() to the handler of add_signal_handler(). It ends with a
    signal that is lost.
    """
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
        status = await sender.wait()
        if status not in (0, UNANSWERED):
            raise RuntimeError(f"the sender of signals ended with status {status}")
        loop.remove_signal_handler(signal.SIGUSR1)
    return delays, int(status == UNANSWERED)


# Delays, and how many events were never told of.
MEASUREMENTS: dict[str, Callable[[float, Beside], Awaitable[tuple[Delays, int]]]] = {
    "timer": measure_timers,
    "child": measure_children,
    "signal": measure_signals,
}


async def serve(request: dict[str, Any], say: Say) -> None:
    """Echo on a port, under a load, until the process is killed. Tells the port, then of each
    measurement its delays or why there are none.
    """
    try:
        listener = await echo_server()
        port = listener.getsockname()[1]
        beside = Beside(request["prefix"], port)
        busy = await start(request["load"], beside, request["places"])
        await asyncio.sleep(request["warm_up"])
        check(busy)
    except Exception as error:
        say({"unable": contenders.described(error)})
        return
    say({"port": port, **contenders.identify()})
    for kind in request["measurements"]:
        try:
            delays, lost = await MEASUREMENTS[kind](request["seconds"], beside)
            check(busy)
        except Exception as error:
            say({"unable": contenders.described(error)})
        else:
            say({"delays": delays, "lost": lost})
    await asyncio.Event().wait()


async def echo_server() -> Any:
    server = await asyncio.get_running_loop().create_server(
        Echo, "127.0.0.1", 0, backlog=CONNECTIONS
    )
    return keep(server, server.sockets[0])
