"""Bytes of memory per pending task, future and timer: `python -m benchmarks --memory`.

The resident set of a fresh process is read from the kernel before and after making 100 000 of
the objects, with its default allocators. That counts everything: objects, allocator overhead,
the loop's own tables. Before that, 10 000 are made, so that free memory left by start-up is used
up, and transparent huge pages are switched off for the process, so that the resident set grows
by 4 KiB pages. A debugging view of Python's allocator would miss memory that an extension takes
from malloc, or from an allocator of its own.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
from collections.abc import Callable
from typing import Any

from . import contenders, progress
from .core import nothing

KINDS = {
    "task": "pending task",  # with its coroutine and the future of its own that it waits for
    "future": "pending future",
    "timer": "timer, handle kept",
}
COUNT = 100_000
FILLING = 10_000

PR_SET_THP_DISABLE = 41


def resident() -> int:
    """Bytes of this process's resident set, counted exactly (statm's figures may lag by some
    pages).
    """
    with open("/proc/self/smaps_rollup") as file:
        for line in file:
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
    raise OSError("no Rss in /proc/self/smaps_rollup")


async def wait(future: asyncio.Future[None]) -> None:
    await future


async def fill(kind: str, kept: list[object]) -> None:
    """Put a new object of this kind into each slot of `kept`. Tasks have reached their wait on
    return.
    """
    loop = asyncio.get_running_loop()
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
    ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
    filling: list[object] = [None] * FILLING
    kept: list[object] = [None] * count
    await fill(kind, filling)
    gc.collect()
    before = resident()
    await fill(kind, kept)
    gc.collect()
    say({"bytes": (resident() - before) / count, **contenders.identify()})
    os._exit(0)


def measure(names: list[str], quick: bool) -> dict[str, Any]:
    """Run every contender once per kind."""
    found: dict[str, Any] = {"contenders": {}, "absent": {}, "values": {kind: {} for kind in KINDS}}
    count = COUNT // 5 if quick else COUNT
    for name in names:
        for kind in KINDS:
            progress.show(f"{name}: {kind}")
            worker = contenders.start(["memory", name, kind, str(count)], PYTHONHASHSEED="0")
            output, _ = worker.communicate()
            if worker.returncode:
                raise RuntimeError(f"{name}, {kind}: ended with status {worker.returncode}")
            hello, *answers = map(json.loads, output.splitlines())
            if "absent" in hello:
                found["absent"][name] = hello["absent"]
                break
            answer = answers[0]
            found["contenders"][name] = contenders.proof(name, hello, answer)
            found["values"][kind][name] = {"value": answer["bytes"]}
    progress.show()
    return found
