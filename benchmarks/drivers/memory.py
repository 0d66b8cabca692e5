"""Bytes of memory per object: `python -m benchmarks --memory`.

The objects are pending tasks and futures, timers, ready callbacks, a queue's items, connections.
The resident set of a fresh process is read from the kernel before and after making 100 000 of
the objects, with its default allocators. That counts everything: objects, allocator overhead,
the loop's own tables. Before that, 10 000 are made, so that free memory left by start-up is used
up, and transparent huge pages are switched off for the process, so that the resident set grows
by 4 KiB pages. A debugging view of Python's allocator would miss memory that an extension takes
from malloc, or from an allocator of its own.

Of connections it is the server's resident set, which grows by 1000 of them, each after one request
of 1 KiB. A client in C has the other ends; 100 connections were made before.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .. import contenders, native
from ..drawing import progress
from ..subjects.core import nothing
from ..subjects.traffic import C_LIMIT, K, Scenario
from . import network

KINDS = {
    "task": "pending task",  # with its coroutine and the future of its own that it waits for
    "future": "pending future",
    "timer": "timer, handle kept",
    "dropped_timer": "timer, not kept",
    "callback": "ready callback, handle kept",
    "dropped_callback": "ready callback, not kept",
    "item": "queue item",  # the place of one: the item itself is None
}
CONNECTIONS = {
    scenario.name: scenario
    for scenario in (
        Scenario("tcp", "TCP connection, Protocol", "protocol", "tcp", (), "hold"),
        Scenario("tcp_streams", "TCP connection, streams", "streams", "tcp", (), "hold", limits=()),
        Scenario("tls", "TLS connection, Protocol", "protocol", "tls", (), "hold", limits=C_LIMIT),
        Scenario("tls_streams", "TLS connection, streams", "streams", "tls", (), "hold", limits=()),
    )
}
TITLES = KINDS | {name: scenario.title for name, scenario in CONNECTIONS.items()}
COUNT = 100_000
FILLING = 10_000
CONNECTION_COUNT = 1000
CONNECTION_FILLING = 100

PR_SET_THP_DISABLE = 41


def resident(pid: int | str = "self") -> int:
    """Bytes of a process's resident set, counted exactly (statm's figures may lag by some
    pages).
    """
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
    raise OSError(f"no Rss in /proc/{pid}/smaps_rollup")


def without_huge_pages() -> None:
    """For this process, and for those that it starts from now on."""
    ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)


async def wait(future: asyncio.Future[None]) -> None:
    await future


async def fill(kind: str, kept: list[object]) -> None:
    """Put a new object of this kind into each slot of `kept`. Tasks have reached their wait on
    return.
    """
    loop = asyncio.get_running_loop()
    if kind == "item":
        queue: asyncio.Queue[None] = asyncio.Queue()
        for _ in range(len(kept)):
            queue.put_nowait(None)
        kept[0] = queue
        return
    if kind == "callback":
        for i in range(len(kept)):
            kept[i] = loop.call_soon(nothing)
        return  # in the same turn: they stay ready
    if kind == "dropped_callback":
        for _ in range(len(kept)):
            loop.call_soon(nothing)
        return
    if kind == "dropped_timer":
        for i in range(len(kept)):
            loop.call_later(3600 + i, nothing)
        return
    for i in range(len(kept)):
        if kind == "future":
            kept[i] = loop.create_future()
        elif kind == "timer":
            kept[i] = loop.call_later(3600 + i, nothing)
        else:
            kept[i] = loop.create_task(wait(loop.create_future()))
            # Not all at once: the ready queue's peak must not look like the tasks' size.
            if i % 100 == 99:
                await asyncio.sleep(0)
    await asyncio.sleep(0)


async def measured(kind: str, count: int, say: Callable[[dict[str, Any]], None]) -> None:
    """Tell the bytes of one object, and end the process: nothing of it needs to be taken apart."""
    without_huge_pages()
    filling: list[object] = [None] * FILLING
    kept: list[object] = [None] * count
    await fill(kind, filling)
    gc.collect()
    before = resident()
    await fill(kind, kept)
    gc.collect()
    say({"bytes": (resident() - before) / count, **contenders.identify()})
    os._exit(0)


def of_objects(found: dict[str, Any], name: str, kind: str, quick: bool) -> float:
    """Bytes of one object, in a process of its own. Raises Absent."""
    count = COUNT // 5 if quick else COUNT
    worker = contenders.start(["memory", name, kind, str(count)], PYTHONHASHSEED="0")
    output, _ = worker.communicate()
    if worker.returncode:
        raise RuntimeError(f"{name}, {kind}: ended with status {worker.returncode}")
    hello, *answers = map(json.loads, output.splitlines())
    if "absent" in hello:
        raise contenders.Absent(hello["absent"])
    found["contenders"][name] = contenders.proof(name, hello, answers[0])
    return float(answers[0]["bytes"])


def of_connections(found: dict[str, Any], name: str, scenario: Scenario) -> float:
    """Bytes of one connection in a new server. Raises Absent, Unable."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(network.started(name, scenario, directory, {}))
        found["contenders"][name] = contenders.proof(name, server.answer, server.answer)
        before = 0
        for count in (CONNECTION_FILLING, CONNECTION_COUNT):
            before = resident(server.pid)
            stack.enter_context(network.held(scenario, (K, count), server))
        return (resident(server.pid) - before) / CONNECTION_COUNT


def measure(names: list[str], quick: bool) -> dict[str, Any]:
    """Run every contender once per kind."""
    found: dict[str, Any] = {
        "contenders": {},
        "absent": {},
        "failed": {},
        "values": {kind: {} for kind in TITLES},
    }
    without_huge_pages()
    for name in names:
        try:
            # The network's own contenders differ in connections only.
            for kind in TITLES if name in contenders.CONTENDERS else CONNECTIONS:
                if kind in CONNECTIONS and not network.able(found, [name], CONNECTIONS[kind]):
                    continue
                progress.show(f"{name}: {kind}")
                try:
                    if kind in KINDS:
                        value = of_objects(found, name, kind, quick)
                    else:
                        value = of_connections(found, name, CONNECTIONS[kind])
                except (network.Unable, native.NotBuilt) as unable:
                    found["failed"].setdefault(kind, {})[name] = str(unable)
                else:
                    found["values"][kind][name] = {"value": value}
        except contenders.Absent as absent:
            found["absent"][name] = str(absent)
    progress.show()
    return found
