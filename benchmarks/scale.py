"""Cost per operation as the number of what is pending grows: `python -m benchmarks --scale`.

A kind makes `count` of a thing, all of them alive at once, does with each what one does, and
lets go of them; one operation is one of them from start to end. That is repeated until there are
about 100 000 operations. CPU time is measured twice, with the cyclic collector on and off: the
difference is the collector's own, which walks whatever is alive. Every figure comes from processes
of its own. Instructions and misses of a cache of 2 MiB are callgrind's, with the collector off, up
to 100 000 at once: a million would take it hours.

Several loops, each in a thread of its own, take the same steps that one takes; each thread's tasks
count what they did, and each loop calls into its neighbour's.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from . import contenders, instructions, progress, report
from .core import nothing

Say = Callable[[dict[str, Any]], None]
Do = Callable[[int, int], Awaitable[None]]

KINDS: dict[str, tuple[str, Do]] = {}
COUNTS = (10, 1000, 100_000, 1_000_000)
OPERATIONS = 100_000  # or one time `count`
ROUNDS = 3
STEPS = 10  # of each task
COUNTED_OPERATIONS = 2000  # under callgrind
L2 = "--LL=2097152,16,64"
THREADS = (1, 2, 4)


def kind(title: str) -> Callable[[Do], Do]:
    def register(do: Do) -> Do:
        KINDS[do.__name__] = (title, do)
        return do

    return register


def scattered(count: int) -> Iterator[int]:
    """Numbers below 2 ** 20 in no order. Not a shuffled list: its integers' own places in memory
    would cost more than a timer.
    """
    number = 0
    for _ in range(count):
        number = (number * 1664525 + 1013904223) & 0xFFFFF
        yield number


@kind("task: create, wait, wake, end")
async def tasks(count: int, times: int) -> None:
    """A task that waits for a future of its own, which is then set."""
    loop = asyncio.get_running_loop()

    async def wait(future: asyncio.Future[None]) -> None:
        await future

    for _ in range(times):
        futures = [loop.create_future() for _ in range(count)]
        waiting = [loop.create_task(wait(future)) for future in futures]
        await asyncio.sleep(0)
        for future in futures:
            future.set_result(None)
        await waiting[-1]
        await asyncio.sleep(0)


@kind("task: 10 steps")
async def steps(count: int, times: int) -> None:
    """10 times `await asyncio.sleep(0)` in each of the tasks."""

    async def sleeper() -> None:
        for _ in range(STEPS * times):
            await asyncio.sleep(0)

    loop = asyncio.get_running_loop()
    if times:
        await [loop.create_task(sleeper()) for _ in range(count)][-1]


@kind("timer: set, fire")
async def fired(count: int, times: int) -> None:
    """`call_at` with times in no order; all are due when the loop looks."""
    loop = asyncio.get_running_loop()
    for _ in range(times):
        now = loop.time() - 1
        for number in scattered(count):
            loop.call_at(now + number * 1e-9, nothing)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


@kind("timer: set, cancel")
async def cancelled(count: int, times: int) -> None:
    """`call_later` with times in no order; cancelled in the order in which they were set."""
    loop = asyncio.get_running_loop()
    for _ in range(times):
        handles = [loop.call_later(3600 + number, nothing) for number in scattered(count)]
        for handle in handles:
            handle.cancel()
        await asyncio.sleep(0)


@kind("callback: schedule, run")
async def callbacks(count: int, times: int) -> None:
    """`call_soon`, run at the next turn."""
    loop = asyncio.get_running_loop()
    for _ in range(times):
        for _ in range(count):
            loop.call_soon(nothing)
        await asyncio.sleep(0)


@kind("queue item: put, get")
async def items(count: int, times: int) -> None:
    """`put_nowait` and then `get_nowait` of an unbounded queue."""
    queue: asyncio.Queue[None] = asyncio.Queue()
    for _ in range(times):
        for _ in range(count):
            queue.put_nowait(None)
        for _ in range(count):
            queue.get_nowait()


# ---- in the worker ----


def repeats(count: int, operations: int) -> int:
    return max(1, operations // count)


async def timed(name: str, count: int, collect: bool, say: Say) -> None:
    """Tell the CPU seconds of one operation."""
    do = KINDS[name][1]
    await do(min(count, 1000), 3)
    gc.collect()
    if not collect:
        gc.disable()
    times = repeats(count, OPERATIONS)
    before = time.process_time()
    await do(count, times)
    spent = time.process_time() - before
    say({"value": spent / (count * times), **contenders.identify()})
    sys.stdout.flush()
    os._exit(0)  # nothing of it needs to be taken apart


async def counted(name: str, count: int, times: int, say: Say) -> None:
    say({"pid": os.getpid(), **contenders.identify()})
    do = KINDS[name][1]
    await do(10, 3)
    gc.collect()
    gc.freeze()
    gc.disable()
    await do(count, times)


def count_forked(run: contenders.RunMain, name: str, count: int, say: Say) -> None:
    """Under callgrind: nothing, and so many operations, in forked processes."""
    times = repeats(count, COUNTED_OPERATIONS)

    def job(times: int) -> None:
        run(counted(name, count, times, say))

    instructions.fork([partial(job, 0), partial(job, times)])


ROUND_TRIPS = 40_000  # of all loops together


async def one_loop(number: int, trips: int, loops: list[Any], calls: list[Any]) -> int:
    """Steps, hand-overs between tasks and a call into the next loop for every 100; returns how many
    items arrived in order.
    """
    queue: asyncio.Queue[tuple[int, int]] = asyncio.Queue(10)
    loop = asyncio.get_running_loop()
    called = 0
    all_called = loop.create_future()

    def call(target: int) -> None:
        nonlocal called
        assert target == number
        assert asyncio.get_running_loop() is loop
        called += 1
        if called == trips // 100:
            all_called.set_result(None)

    calls[number] = call
    loops[number] = loop
    while None in loops or None in calls:
        await asyncio.sleep(0.001)

    neighbour = (number + 1) % len(loops)

    async def producer() -> None:
        for i in range(trips):
            await queue.put((number, i))
            if i % 100 == 99:
                loops[neighbour].call_soon_threadsafe(calls[neighbour], neighbour)

    task = loop.create_task(producer())
    right = 0
    for i in range(trips):
        right += await queue.get() == (number, i)
        await asyncio.sleep(0)
    await task
    await all_called
    return right


def run_threads(run: contenders.RunMain, count: int, say: Say) -> None:
    """Tell the CPU and the real seconds of one round trip with so many loops."""
    trips = ROUND_TRIPS // count
    loops: list[Any] = [None] * count
    calls: list[Any] = [None] * count
    arrived = [0] * count
    identity: dict[str, str] = {}

    async def main(number: int) -> None:
        identity.update(contenders.identify())
        arrived[number] = await one_loop(number, trips, loops, calls)
        # Its neighbour may still call it.
        ended.release()
        while not all_ended.is_set():
            await asyncio.sleep(0.001)

    ended = threading.Semaphore(0)
    all_ended = threading.Event()
    threads = [threading.Thread(target=lambda i=i: run(main(i))) for i in range(count)]
    cpu, real = time.process_time(), time.perf_counter()
    for thread in threads:
        thread.start()
    for _ in threads:
        ended.acquire()
    spent = time.process_time() - cpu, time.perf_counter() - real
    all_ended.set()
    for thread in threads:
        thread.join()
    if arrived != [trips] * count:
        raise RuntimeError(f"of {trips} items there arrived in order: {arrived}")
    say({"cpu": spent[0] / ROUND_TRIPS, "real": spent[1] / ROUND_TRIPS, **identity})


# ---- the measurement ----


def answer_of(found: dict[str, Any], name: str, *arguments: str, **options: Any) -> list[Any]:
    """A worker's answers, from a process of its own. Raises Absent."""
    worker = contenders.start([*arguments], PYTHONHASHSEED="0", **options)
    output, _ = worker.communicate()
    if worker.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: ended with status {worker.returncode}")
    hello, *answers = map(json.loads, output.splitlines())
    if "absent" in hello:
        raise contenders.Absent(hello["absent"])
    found["contenders"][name] = contenders.proof(name, hello, answers[0])
    return answers


def count(found: dict[str, Any], name: str, kind: str, things: int) -> dict[str, float]:
    """Instructions and cache misses of one operation. Raises Absent."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        prefix = [*instructions.valgrind(log), "--cache-sim=yes", L2]
        pids = [
            str(answer["pid"])
            for answer in answer_of(
                found, name, "scale-count", name, kind, str(things), prefix=prefix
            )
        ]
        events = collected(log.read_text())
    nothing_done, all_done = (events[pid] for pid in pids)
    operations = things * repeats(things, COUNTED_OPERATIONS)
    more = {event: (all_done[event] - nothing_done[event]) / operations for event in all_done}
    return {"instructions": more["Ir"], "misses": more["DLmr"] + more["DLmw"]}


def collected(log: str) -> dict[str, dict[str, int]]:
    """callgrind's events by process, from valgrind's log."""
    names: dict[str, list[str]] = {}
    found: dict[str, dict[str, int]] = {}
    for line in log.splitlines():
        pid, _, rest = line.strip("=").partition("== ")
        what, _, values = rest.partition(":")
        if what.strip() == "Events":
            names[pid] = values.split()
        elif what.strip() == "Collected":
            found[pid] = dict(zip(names[pid], map(int, values.split()), strict=True))
    return found


def measure(names: list[str], kinds: list[str], quick: bool) -> dict[str, Any]:
    """found["values"][kind][contender][str(count)] has seconds with the collector on ("value") and
    off ("without"), and where they were counted instructions and misses; found["threads"] the same
    of loops in threads.
    """
    found: dict[str, Any] = {"contenders": {}, "absent": {}, "threads": {}}
    found["titles"] = {name: KINDS[name][0] for name in kinds}
    found["values"] = {name: {} for name in kinds}
    counts = COUNTS[:-1] if quick else COUNTS
    for name in names:
        try:
            for kind in kinds:
                row = found["values"][kind].setdefault(name, {})
                for things in counts:
                    progress.show(f"{name}: {kind}, {things}")
                    row[str(things)] = measured(found, name, kind, things, quick)
            found["threads"][name] = of_threads(found, name, quick)
        except contenders.Absent as absent:
            found["absent"][name] = str(absent)
    progress.show()
    return found


def measured(
    found: dict[str, Any], name: str, kind: str, things: int, quick: bool
) -> dict[str, float]:
    """Raises Absent."""
    cell = {}
    for key, collect in (("value", "on"), ("without", "off")):
        rounds = [
            answer_of(found, name, "scale", name, kind, str(things), collect)[0]["value"]
            for _ in range(1 if quick else ROUNDS)
        ]
        cell[key] = statistics.median(rounds)
    if things < COUNTS[-1]:
        cell |= count(found, name, kind, things)
    return cell


def of_threads(found: dict[str, Any], name: str, quick: bool) -> dict[str, Any]:
    """Raises Absent."""
    cells = {}
    for loops in THREADS:
        progress.show(f"{name}: {loops} loops")
        rounds = [
            answer_of(found, name, "threads", name, str(loops))[0]
            for _ in range(1 if quick else ROUNDS)
        ]
        cells[str(loops)] = {
            key: statistics.median(each[key] for each in rounds) for key in ("cpu", "real")
        }
    return cells


# ---- the tables ----


def growth(cells: dict[str, Any], key: str) -> float | None:
    """From 1000 things to the most that were measured."""
    most = [things for things in cells if key in cells[things]]
    return cells[most[-1]][key] / cells["1000"][key] if "1000" in cells and most else None


def table(result: dict[str, Any], key: str, what: str, unit: float, form: str) -> str:
    counts = [
        str(things)
        for things in COUNTS
        if any(
            key in row.get(str(things), {})
            for cells in result["values"].values()
            for row in cells.values()
        )
    ]
    lines = [[what, "", *[f"{int(things):,}" for things in counts], "growth"]]
    for kind, row in result["values"].items():
        for name, cells in row.items():
            grown = growth(cells, key)
            lines.append(
                [
                    result["titles"][kind],
                    name,
                    *[format(cells[things][key] * unit, form) for things in counts],
                    f"{grown:.2f}" if grown else "-",
                ]
            )
    return report.aligned(lines)


def threads_table(result: dict[str, Any]) -> str:
    lines = [["Loops in threads: us per round trip", "", *map(str, THREADS)]]
    for name, cells in result["threads"].items():
        for key, what in (("cpu", "CPU"), ("real", "real")):
            values = [f"{cells[str(loops)][key] * 1e6:.2f}" for loops in THREADS]
            lines.append([name, what, *values])
    return report.aligned(lines)


def text(result: dict[str, Any]) -> str:
    """All tables; `growth` is from 1000 to the last column."""
    tables = [
        table(result, "value", "ns of CPU per operation", 1e9, ",.0f"),
        table(result, "without", "ns, collector off", 1e9, ",.0f"),
        table(result, "instructions", "instructions, collector off", 1, ",.0f"),
        table(result, "misses", "misses of 2 MiB of cache", 1, ".2f"),
        threads_table(result),
    ]
    return "\n\n".join(tables)
