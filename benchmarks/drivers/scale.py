"""Cost per operation as the number of what is pending grows: `python -m benchmarks --scale`.

A kind makes `count` of a thing, all of them alive at once, does with each what one does, and
lets go of them; one operation is one of them from start to end. The first time with so many, when
the process grows, stands apart; then that is repeated for a tenth of a second. CPU time, in user
space and in the kernel, is measured with the cyclic collector off, and once more with it on: the
difference is the collector's own, which walks whatever is alive. A round takes each kind with each
count on all contenders in turn, each time in a process of its own, so that whatever else the
machine does meets all of them alike; figures are medians of the rounds. With the collector on there
is one round only, which takes longer than two of the others.

Instructions and misses of a cache of 2 MiB are callgrind's, with the collector off and up to 10 000
at once, which is already beyond that cache.

Several loops, each in a thread of its own, take the same steps that one takes; each thread's tasks
count what they did, and each loop calls into its neighbour's.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

from .. import contenders
from ..drawing import progress, report
from ..subjects.core import nothing
from . import instructions

Say = Callable[[dict[str, Any]], None]
Do = Callable[[int, int], Awaitable[None]]

KINDS: dict[str, tuple[str, Do]] = {}
COUNTS = (10, 1000, 100_000, 1_000_000)
QUICK_COUNTS = (1000, 1_000_000)
ROUNDS = 3
SECONDS = 0.1  # of CPU time, or one time `count`
STEPS = 4  # of each task
COUNTED = (1000, 10_000)  # at once, under callgrind
COUNTED_OPERATIONS = 2000  # or one time as many as at once
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


@kind("task: create, 4 steps, end")
async def steps(count: int, times: int) -> None:
    """4 times `await asyncio.sleep(0)` in each of the tasks."""

    async def sleeper() -> None:
        for _ in range(STEPS):
            await asyncio.sleep(0)

    loop = asyncio.get_running_loop()
    for _ in range(times):
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
    """Tell one operation's CPU seconds, in user space and in the kernel, and its page faults; and
    all of its seconds when there were never as many.
    """
    do = KINDS[name][1]
    await do(min(count, 1000), 3)
    gc.collect()
    if not collect:
        gc.disable()
    start = time.process_time()
    await do(count, 1)
    first = (time.process_time() - start) / count
    times, operations = repeats(count, 1000), 0
    before = getrusage(RUSAGE_SELF)
    user = kernel = 0.0
    while user + kernel < SECONDS:
        await do(count, times)
        operations += count * times
        after = getrusage(RUSAGE_SELF)
        user, kernel = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    faults = after.ru_minflt - before.ru_minflt
    found = {"value": user + kernel, "user": user, "kernel": kernel, "faults": faults}
    found = {key: each / operations for key, each in found.items()}
    say({**found, "first": first, **contenders.identify()})
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


def count_forked(run: contenders.RunMain, jobs: list[str], say: Say) -> None:
    """Under callgrind, in forked processes: for each KIND:COUNT nothing, and so many operations."""

    def job(name: str, count: int, times: int) -> None:
        run(counted(name, count, times, say))

    instructions.fork(
        [
            partial(job, name, int(count), times)
            for name, count in (each.split(":") for each in jobs)
            for times in (0, repeats(int(count), COUNTED_OPERATIONS))
        ]
    )


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


def answers_of(
    found: dict[str, Any], name: str, arguments: list[str], worker: subprocess.Popen[str]
) -> list[Any]:
    """A worker's answers to these arguments; none if the contender is absent, which is noted."""
    output, _ = worker.communicate()
    if worker.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: ended with status {worker.returncode}")
    hello, *answers = map(json.loads, output.splitlines())
    if "absent" in hello:
        found["absent"][name] = hello["absent"]
        return []
    found["contenders"][name] = contenders.proof(name, hello, answers[0])
    return answers


def run(
    found: dict[str, Any], names: list[str], cells: dict[str, dict[str, Any]], *arguments: str
) -> None:
    """Measure the same on these contenders in turn, adding to what `cells[name]` has of it."""
    for name in names:
        if name in found["absent"]:
            continue
        mode, *more = arguments
        words = [mode, name, *more]
        progress.show(" ".join(words))
        for answer in answers_of(found, name, words, contenders.start(words, PYTHONHASHSEED="0")):
            if mode == "scale" and more[-1] == "on":
                answer = {"collected": answer["value"]}
            for key, value in answer.items():
                if isinstance(value, float):
                    cells.setdefault(name, {}).setdefault(key, []).append(value)


def count(found: dict[str, Any], names: list[str], kinds: list[str]) -> None:
    """Instructions and cache misses of one operation. All contenders run at once: what is counted
    does not depend on what else the machine does.
    """
    jobs = [f"{kind}:{things}" for kind in kinds for things in COUNTED]
    progress.show("instructions")
    with tempfile.TemporaryDirectory() as folder:
        workers = {}
        for name in names:
            prefix = [*instructions.valgrind(Path(folder, name)), "--cache-sim=yes", L2]
            words = ["scale-count", name, *jobs]
            workers[name] = contenders.start(words, prefix=prefix, PYTHONHASHSEED="0")
        for name, worker in workers.items():
            pids = [str(answer["pid"]) for answer in answers_of(found, name, jobs, worker)]
            events = collected(Path(folder, name).read_text())
            for job, nothing_done, all_done in zip(jobs, pids[::2], pids[1::2], strict=False):
                kind, things = job.split(":")
                operations = int(things) * repeats(int(things), COUNTED_OPERATIONS)
                more = {
                    event: (events[all_done][event] - events[nothing_done][event]) / operations
                    for event in events[all_done]
                }
                found["values"][kind].setdefault(name, {}).setdefault(things, {}).update(
                    instructions=more["Ir"], misses=more["DLmr"] + more["DLmw"]
                )


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
    """found["values"][kind][contender][count] has, per operation, with the collector off seconds
    ("value", of which "user" and "kernel", and those of the "first" time) and page "faults";
    seconds with it on ("collected"); and what was counted, "instructions" and "misses".
    found["threads"][contender][loops] has the "cpu" and "real" seconds of a round trip.
    """
    found: dict[str, Any] = {"contenders": {}, "absent": {}}
    found["titles"] = {name: KINDS[name][0] for name in kinds}
    rounds: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for number in range(1 if quick else ROUNDS):
        for kind in kinds:
            for things in QUICK_COUNTS if quick else COUNTS:
                cells = rounds.setdefault((kind, things), {})
                run(found, names, cells, "scale", kind, str(things), "off")
                if not quick and number == 0:
                    run(found, names, cells, "scale", kind, str(things), "on")
        for loops in THREADS:
            run(found, names, rounds.setdefault(("", loops), {}), "threads", str(loops))
    found["threads"] = {}
    found["values"] = {kind: {} for kind in kinds}
    for (kind, things), cells in rounds.items():
        rows = found["values"][kind] if kind else found["threads"]
        for name, values in cells.items():
            rows.setdefault(name, {})[str(things)] = {
                key: statistics.median(each) for key, each in values.items()
            }
    if not quick and shutil.which("valgrind"):
        count(found, [name for name in names if name not in found["absent"]], kinds)
    progress.show()
    return found


# ---- the tables ----


def growth(cells: dict[str, Any], key: str) -> float | None:
    """From 1000 things to the most that were measured; None where 1000 cost nothing."""
    most = max((int(things) for things in cells if key in cells[things]), default=0)
    fewer = cells.get("1000", {}).get(key)
    return cells[str(most)][key] / fewer if fewer else None


def table(
    result: dict[str, Any], key: str, what: str, unit: float, form: str, grows: bool = True
) -> str:
    """Empty without figures. What is next to nothing at 1000 cannot be said to grow."""
    rows = [
        (result["titles"][kind], name, cells)
        for kind, row in result["values"].items()
        for name, cells in row.items()
    ]
    counts = sorted({int(n) for _, _, cells in rows for n in cells if key in cells[n]})
    lines = [[what, "", *[f"{things:,}" for things in counts], *["growth"] * grows]]
    for title, name, cells in rows:
        known = [cells.get(str(things), {}) for things in counts]
        grown = growth(cells, key)
        lines.append(
            [
                title,
                name,
                *[format(cell[key] * unit, form) if key in cell else "-" for cell in known],
                *[f"{grown:.2f}" if grown else "-"] * grows,
            ]
        )
    return report.aligned(lines) if counts else ""


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
        table(result, "value", "ns of CPU, collector off", 1e9, ",.0f"),
        table(result, "user", "of it in user space", 1e9, ",.0f"),
        table(result, "kernel", "of it in the kernel", 1e9, ",.0f", grows=False),
        table(result, "first", "ns of CPU the first time", 1e9, ",.0f", grows=False),
        table(result, "faults", "page faults per 1000", 1000, ",.1f", grows=False),
        table(result, "collected", "ns of CPU, collector on", 1e9, ",.0f"),
        table(result, "instructions", "instructions, collector off", 1, ",.0f"),
        table(result, "misses", "misses of 2 MiB of cache", 1, ".2f"),
        threads_table(result),
    ]
    return "\n\n".join(filter(None, tables))
