"""What a watch tells of what grows: what is ready in the loop, and queues."""

from __future__ import annotations

import asyncio
import logging
import queue

import pytest

import ctask
from ctask.observe import growth
from ctask.observe.growth import EVERY, LEAST, LOOKS, SEARCHES, Growth

pytestmark = pytest.mark.ctask_only


@pytest.fixture
def memory(monkeypatch):
    """The process has as much more at each look as is said here."""
    size = {"more": 0, "now": 0}

    def resident():
        size["now"] += size["more"]
        return size["now"]

    monkeypatch.setattr(growth, "resident", resident)
    return size


def looks(loop, steps, *, every=EVERY):
    """What is told at each look; before each of them a step is done."""
    seen, told = Growth(), []
    for n, step in enumerate(steps):
        step()
        told.append(seen.look(loop, 1000 + n * every))
    return told


def test_what_is_ready_and_grows_for_a_minute(loop, memory):
    def more():
        for _ in range(LEAST):
            loop.call_soon(int)

    told = looks(loop, [more] * (2 * LOOKS + 3))
    assert [bool(reports) for reports in told].index(True) == LOOKS - 1
    (report,) = told[LOOKS - 1]
    assert report.what == "ready"
    assert report.lengths == tuple(LEAST * n for n in range(1, LOOKS + 1))
    assert report.seconds == 60
    assert str(report) == (
        "what is ready grows, for 60 s: 100, 200, 300, 400, 500, 600, 700 callbacks and steps"
    )
    # And again after another minute.
    assert [n for n, reports in enumerate(told) if reports] == [LOOKS - 1, 2 * LOOKS - 1]


def test_the_tasks_that_are_ready_are_named(loop, memory):
    async def waits():
        await asyncio.sleep(0)

    async def main():
        def more():
            tasks.extend(asyncio.ensure_future(waits()) for _ in range(LEAST))

        return looks(loop, [more] * LOOKS)[-1]

    tasks = []
    (report,) = loop.run_until_complete(main())
    loop.run_until_complete(asyncio.gather(*tasks))
    line = waits.__code__.co_firstlineno
    assert report.tasks == (f"700 in {waits.__qualname__}() at {__file__}:{line}",)
    assert str(report).endswith(f"steps\n  {report.tasks[0]}")


@pytest.mark.parametrize("lengths", [[10] * 9, [100, 200, 300, 200, 300, 400, 500, 600], range(9)])
def test_what_is_short_or_does_not_always_grow_is_not_told(loop, memory, lengths):
    given = iter(lengths)

    class Stand:
        def _ready_length(self):
            return next(given)

    assert looks(Stand(), [int] * len(lengths)) == [[]] * len(lengths)


def test_looks_far_apart_do_not_count(loop, memory):
    def more():
        for _ in range(LEAST):
            loop.call_soon(int)

    assert looks(loop, [more] * (2 * LOOKS), every=4 * EVERY) == [[]] * (2 * LOOKS)


@pytest.mark.parametrize("kind", [ctask.Queue, asyncio.Queue, ctask.PriorityQueue, "derived"])
def test_a_queue_that_grows_while_memory_does(loop, memory, kind, monkeypatch):
    if kind == "derived":
        kind = type("Mine", (asyncio.Queue,), {})
    monkeypatch.setattr(growth, "_SHARE", 0)
    memory["more"] = 1 << 20
    items = kind()

    def more():
        for n in range(LEAST):
            items.put_nowait(n)

    async def main():
        async def consumer():
            await asyncio.sleep(50)
            items.get_nowait()

        task = asyncio.create_task(consumer(), name="slow one")
        await asyncio.sleep(0)
        try:
            return looks(loop, [more] * (LOOKS + SEARCHES)), consumer
        finally:
            task.cancel()

    told, consumer = loop.run_until_complete(main())
    (n, report), *rest = [(n, reports[0]) for n, reports in enumerate(told) if reports]
    assert (n, rest) == (LOOKS - 1 + SEARCHES - 1, [])
    assert (report.what, report.name) == ("queue", kind.__name__)
    assert report.lengths == tuple(LEAST * n for n in range(LOOKS, LOOKS + SEARCHES))
    assert report.seconds == 20
    line = consumer.__code__.co_firstlineno + 1
    assert f"slow one, {consumer.__qualname__}() at {__file__}:{line}" in report.tasks
    assert str(report).startswith(f"a {kind.__name__} grows, for 20 s: 700, 800, 900 items\n")


def test_a_queue_is_found_in_an_attribute_of_self(loop, memory, monkeypatch):
    class Worker:
        def __init__(self):
            self.items = ctask.Queue()

        async def work(self):
            await asyncio.sleep(50)

    monkeypatch.setattr(growth, "_SHARE", 0)
    memory["more"] = 1 << 20

    async def main():
        task = asyncio.create_task(worker.work(), name="the one")
        await asyncio.sleep(0)
        try:
            return looks(loop, [more] * (LOOKS + SEARCHES - 1))[-1]
        finally:
            task.cancel()

    def more():
        for n in range(LEAST):
            worker.items.put_nowait(n)

    worker = Worker()
    (report,) = loop.run_until_complete(main())
    assert [task.partition(",")[0] for task in report.tasks] == ["the one"]


def test_without_more_memory_nothing_is_searched(loop, memory, monkeypatch):
    monkeypatch.setattr(growth, "_queues", None)
    assert looks(loop, [int] * (2 * LOOKS)) == [[]] * (2 * LOOKS)


def test_a_search_that_took_long_is_not_soon_made_again(loop, memory, monkeypatch):
    memory["more"] = 1 << 20
    searches, times = [], iter(range(1000))
    monkeypatch.setattr(growth, "_queues", lambda: searches.append(1) or ())
    monkeypatch.setattr(growth, "clock", lambda: next(times))  # a second each
    looks(loop, [int] * 20)
    assert len(searches) == 1


def test_the_memory_of_the_process():
    before = growth.resident()
    much = bytearray(b"1" * (32 << 20))
    assert before > 1 << 20
    assert growth.resident() > before + (16 << 20)
    del much


def test_a_watch_tells_it(loop, monkeypatch, caplog):
    monkeypatch.setattr(growth, "EVERY", 0.1)
    told = queue.Queue()

    async def main():
        while told.empty():
            loop.call_soon(pass_on)
            await asyncio.sleep(0)

    def pass_on():
        if told.empty():
            loop.call_soon(pass_on)

    caplog.set_level(logging.CRITICAL, "ctask.watch")  # a turn may take long
    with ctask.watch(50, loop=loop, on_growth=told.put):
        loop.run_until_complete(main())
    report = told.get()
    assert isinstance(report, ctask.GrowthReport)
    assert report.what == "ready"
    assert list(report.lengths) == sorted(report.lengths)


def test_what_on_growth_raises_is_logged(loop, monkeypatch, caplog):
    monkeypatch.setattr(growth, "EVERY", 0.1)
    report = growth.GrowthReport("ready", "", (100, 200), 60.0, ())
    told = queue.Queue()

    def look(self, loop, now):
        told.put(now)
        return [report] if told.qsize() == 1 else []

    def fail(report):
        raise ValueError("on purpose")

    async def main():
        while told.qsize() < 3:  # it goes on
            await asyncio.sleep(0)

    monkeypatch.setattr(Growth, "look", look)
    with ctask.watch(50, loop=loop, on_growth=fail):
        loop.run_until_complete(main())
    texts = [r.getMessage() for r in caplog.records if r.name == "ctask.watch"]
    assert texts == [str(report), f"on_growth={fail!r} raised"]
    for record in caplog.records:
        record.exc_info = None  # or the loop is kept
