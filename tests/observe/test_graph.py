"""Who waits for whom: snapshots of tasks, ctask's and asyncio's own."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import threading
import time

import pytest

import ctask
from ctask.observe import graph

pytestmark = pytest.mark.ctask_only


def info(task, **kwargs):
    """What a snapshot from another thread says of a task."""
    taken = []
    loop = task.get_loop()
    thread = threading.Thread(target=lambda: taken.append(graph.snapshot(loop, **kwargs)))
    thread.start()
    thread.join()
    (found,) = taken[0].loops
    return next(one for one in found.tasks if one.id == graph.task_id(task))


async def see(ns, *coros, turns=3):
    """What is seen of tasks of these coroutines; the tasks are cancelled then."""
    tasks = [asyncio.ensure_future(coro) for coro in coros]
    for _ in range(turns):
        await asyncio.sleep(0)
    try:
        return [info(task) for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def outer(inner):
    await middle(inner)


async def middle(inner):
    await inner


def test_the_chain_of_coroutines_down_to_the_timer(ns):
    (one,) = ns.run(see(ns, outer(ns.sleep(50))))
    assert one.coroutine == "outer"
    assert [frame.name for frame in one.frames] == ["outer", "middle", "sleep"]
    assert one.frames[0].file == __file__
    lines = middle.__code__.co_firstlineno
    assert one.frames[1].line == lines + 1
    assert (one.state, one.waits_for.kind) == ("waiting", "timer")
    assert 40 < one.waits_for.due <= 50


def test_through_generators_and_asynchronous_generators(ns):
    class Awaitable:
        def __await__(self):
            yield from ns.sleep(50).__await__()

    async def items():
        await Awaitable()
        yield

    async def consume():
        async for _ in items():
            pass

    (one,) = ns.run(see(ns, consume()))
    names = [frame.name.rpartition(".")[2] for frame in one.frames]
    assert names == ["consume", "items", "__await__", "sleep"]
    assert one.waits_for.kind == "timer"


def primitives(ns):
    async def in_it(manager):
        async with manager:
            pass

    async def wait(condition):
        async with condition:
            await condition.wait()

    queue, full, unfinished = ns.Queue(), ns.Queue(2), ns.Queue()
    full.put_nowait(1)
    full.put_nowait(2)
    unfinished.put_nowait(1)
    return {
        "Queue.get(), 0 in it": ("queue", queue.get()),
        "Queue.put(), 2 of 2 in it": ("queue", full.put(3)),
        "Queue.join(), 1 in it": ("queue", unfinished.join()),
        "Event": ("event", ns.Event().wait()),
        "Semaphore": ("semaphore", in_it(ns.Semaphore(0))),
        "Condition": ("condition", wait(ns.Condition())),
        "Barrier of 2": ("barrier", ns.Barrier(2).wait()),
        "a thread of an executor": ("thread", asyncio.to_thread(EVENT.wait)),
    }


EVENT = threading.Event()


def test_what_is_waited_for(ns):
    async def main():
        wanted = primitives(ns)
        try:
            return wanted, await see(ns, *(outer(coro) for _, coro in wanted.values()))
        finally:
            EVENT.set()

    EVENT.clear()
    wanted, seen = ns.run(main())
    for (what, (kind, _)), one in zip(wanted.items(), seen, strict=True):
        assert (one.waits_for.kind, one.waits_for.what) == (kind, what)
        assert one.awaits == ()


def test_the_holder_of_a_lock(ns):
    async def main():
        lock = ns.Lock()

        async def hold(seconds):
            async with lock:
                await ns.sleep(seconds)

        return await see(ns, hold(50), hold(0), lock.acquire())

    holder, second, third = ns.run(main())
    assert holder.awaits == ()
    for one in second, third:
        assert one.waits_for.kind == "lock"
        assert one.awaits == (holder.id,)


def test_the_places_of_a_semaphore(ns):
    async def main():
        places = ns.Semaphore(2)

        async def hold():
            async with places:
                await ns.sleep(50)

        return await see(ns, hold(), hold(), hold())

    first, second, third = ns.run(main())
    assert set(third.awaits) == {first.id, second.id}
    assert not third.needs_all


def test_a_condition_that_waits_for_its_lock_again(ns):
    async def main():
        condition = ns.Condition()

        async def wait():
            async with condition:
                await condition.wait()

        async def notify():
            async with condition:
                condition.notify()
                await ns.sleep(50)

        return await see(ns, wait(), notify(), turns=6)

    waiter, notifier = ns.run(main())
    assert waiter.waits_for.kind == "lock"
    assert waiter.awaits == (notifier.id,)


def combinations(ns):
    async def first(tasks):
        await ns.wait(tasks, return_when="FIRST_COMPLETED")

    async def completed(tasks):
        for one in ns.as_completed(tasks):
            await one

    async def gather(tasks):
        await ns.gather(ns.gather(*tasks[:1]), *tasks[1:])

    async def group(tasks):
        async with ns.TaskGroup() as group:
            for task in tasks:
                group.create_task(outer(task))

    async def shield(tasks):
        await ns.shield(tasks[0])

    async def one(tasks):
        await tasks[1]

    return first, completed, gather, group, shield, one


@pytest.mark.parametrize("index", range(6))
def test_tasks_that_wait_for_tasks(ns, index):
    async def main():
        tasks = [asyncio.ensure_future(ns.sleep(50)) for _ in range(2)]
        await ns.sleep(0)
        wait = combinations(ns)[index]
        try:
            ((seen),) = await see(ns, wait(tasks))
            return wait.__name__, seen, [graph.task_id(task) for task in tasks]
        finally:
            for task in tasks:
                task.cancel()
            await ns.wait(tasks)

    name, seen, (first, second) = ns.run(main())
    if name == "group":
        assert len(seen.awaits) == 2
        assert not {first, second} & set(seen.awaits)
    else:
        wanted = {"shield": {first}, "one": {second}}.get(name, {first, second})
        assert set(seen.awaits) == wanted
    kinds = {"first": "some", "completed": "next", "group": "group", "one": "task"}
    assert seen.waits_for.kind == kinds.get(name, "all")
    assert seen.needs_all == (name not in ("first", "completed"))


def test_the_group_of_a_task_whose_parent_is_still_in_it(ns):
    async def main():
        async def parent():
            async with ns.TaskGroup() as group:
                children.append(group.create_task(ns.sleep(50)))
                await ns.sleep(60)

        children = []
        task = asyncio.ensure_future(parent())
        await ns.sleep(0)
        await ns.sleep(0)
        try:
            return info(task).id, info(children[0])
        finally:
            task.cancel()
            await ns.wait([task])

    parent, child = ns.run(main())
    assert child.group == parent


@pytest.mark.parametrize("way", ["timeout", "wait_for"])
def test_the_timeout_that_ends_a_wait(ns, way):
    async def waits():
        if way == "wait_for":
            await ns.wait_for(asyncio.Event().wait(), 50)
        else:
            async with ns.timeout(70), ns.timeout(50), ns.timeout(60):
                await ns.sleep(100)

    (one,) = ns.run(see(ns, waits()))
    if way == "wait_for" and ns is not ctask and sys.version_info < (3, 12):
        assert 40 < one.timeout <= 50  # there a timer, and not a Timeout
    assert 40 < one.timeout <= 50


def test_a_stream_a_server_and_a_socket(ns):
    async def main():
        async def silent(reader, writer):
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        other = await asyncio.start_server(silent, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        port = server.sockets[0].getsockname()[1]
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            loop = asyncio.get_running_loop()
            return port, await see(
                ns, outer(reader.readline()), other.serve_forever(), loop.sock_recv(ours, 10)
            )
        finally:
            ours.close()
            theirs.close()
            writer.close()
            server.close()
            await ns.sleep(0.01)

    port, (stream, server, sock) = ns.run(main())
    assert stream.waits_for.kind == "stream"
    assert stream.waits_for.what.startswith("StreamReader.read")
    assert stream.waits_for.what.endswith(f", 127.0.0.1:{port}")
    assert (server.waits_for.kind, server.waits_for.what) == ("server", "Server.serve_forever()")
    assert sock.waits_for.kind == "socket"
    assert sock.waits_for.what.startswith("sock_recv() of descriptor ")


def test_states(ns):
    async def main():
        async def turns():
            while True:
                await ns.sleep(0)

        async def once():
            await ns.sleep(0)

        async def look():
            return info(asyncio.current_task())

        ready = asyncio.ensure_future(turns())
        await ns.sleep(0)
        new = asyncio.ensure_future(once())
        try:
            return info(ready), info(new), await asyncio.ensure_future(look())
        finally:
            ready.cancel()
            await ns.wait([ready, new])

    ready, new, running = ns.run(main())
    assert ready.state == "ready"
    assert new.state == "new"
    assert running.state == "running"
    assert ready.waits_for is new.waits_for is running.waits_for is None


def test_since_when_it_waits():
    async def main():
        task = asyncio.ensure_future(ctask.sleep(50))
        end = time.monotonic() + 0.1
        while time.monotonic() < end:
            await asyncio.sleep(0.01)
        try:
            return info(task).since
        finally:
            task.cancel()
            await ctask.wait([task])

    assert 0.05 < ctask.run(main()) < 60


def test_a_loop_that_is_busy_says_with_what_and_one_that_waits_does_not(ns):
    seen = []
    blocked, done = threading.Event(), threading.Event()

    def block():
        blocked.set()
        done.wait()

    def look(loop):
        deadline = time.monotonic() + 60
        while graph.snapshot(loop).loops[0].state != "idle" and time.monotonic() < deadline:
            time.sleep(0.001)
        seen.append(graph.snapshot(loop).loops[0])
        loop.call_soon_threadsafe(block)
        blocked.wait()
        seen.append(graph.snapshot(loop).loops[0])
        done.set()

    async def main():
        thread = threading.Thread(target=look, args=[asyncio.get_running_loop()])
        thread.start()
        while thread.is_alive():
            await ns.sleep(0.2)
        thread.join()

    ns.run(main())
    idle, busy = seen
    assert (idle.state, idle.stack, idle.thread) == ("idle", (), "MainThread")
    assert busy.state == "busy"
    assert "block" in [frame.name.rpartition(".")[2] for frame in busy.stack]


def test_all_loops_of_the_process(ns):
    async def main(then=None):
        loops.append(id(asyncio.get_running_loop()))
        if then is not None:
            await asyncio.to_thread(then)
        else:
            seen.append(graph.snapshot())

    loops, seen = [], []
    ns.run(main(lambda: ctask.run(main())))
    assert seen[0].pid == os.getpid()
    assert {one.id for one in seen[0].loops} == set(loops)
    assert len(loops) == 2
    outer = next(one for one in seen[0].loops if one.id == loops[0])
    assert (outer.thread, len(outer.tasks)) == ("MainThread", 1)


def test_a_loop_that_does_not_run(loop, run):
    task = loop.create_task(ctask.sleep(0))
    (seen,) = graph.snapshot(loop).loops
    run(task)
    assert (seen.state, seen.thread, len(seen.tasks)) == ("stopped", None, 1)


def test_no_more_tasks_than_were_asked_for():
    async def main():
        tasks = [asyncio.ensure_future(ctask.sleep(50)) for _ in range(10)]
        await ctask.sleep(0)
        (seen,) = graph.snapshot(asyncio.get_running_loop(), max_tasks=4).loops
        for task in tasks:
            task.cancel()
        await ctask.wait(tasks)
        return len(seen.tasks), seen.left_out

    assert ctask.run(main()) == (4, 7)


def test_no_code_of_the_program_is_called():
    called = []

    class Evil(asyncio.Queue):
        def __repr__(self):
            called.append("repr")
            raise SystemExit

        def __getattribute__(self, name):
            if not ready:
                called.append(name)
            return super().__getattribute__(name)

        def __eq__(self, other):
            called.append("eq")

        __hash__ = None

    class EvilTask(ctask.Task):
        def get_name(self):
            called.append("get_name")

    ready = [True]

    async def get(queue, evil):
        await queue.get()

    async def main():
        queue = Evil()
        task = EvilTask(get(queue, queue), loop=asyncio.get_running_loop())
        task.set_name("x" * 10_000)
        await ctask.sleep(0)
        ready.clear()
        seen = info(task)
        ready.append(True)
        task.cancel()
        await ctask.wait([task])
        return seen

    seen = ctask.run(main())
    assert called == []
    assert seen.waits_for.kind == "queue"
    assert len(seen.name) == 200


def test_nothing_is_kept(ns):
    async def main():
        class Thing:
            pass

        async def hold():
            thing = Thing()
            await ns.sleep(50)
            return thing

        await see(ns, hold())
        gc.collect()
        return [obj for obj in gc.get_objects() if type(obj) is Thing]

    assert ns.run(main()) == []


@pytest.mark.parametrize("debug", [False, True])
def test_where_a_task_was_created_is_known_in_debug_mode(debug):
    async def main():
        task = asyncio.create_task(asyncio.sleep(50))  # here
        try:
            return info(task).created
        finally:
            task.cancel()
            await asyncio.wait([task])

    created = ctask.run(main(), debug=debug)
    if debug:
        line = main.__code__.co_firstlineno + 1
        assert (created.name, created.file, created.line) == ("main", __file__, line)
    else:
        assert created is None


@pytest.mark.parametrize("when", ["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"])
def test_wait_is_for_all_or_for_some(ns, when):
    async def main():
        tasks = [asyncio.ensure_future(ns.sleep(50)) for _ in range(2)]
        try:
            ((seen),) = await see(ns, ns.wait(tasks, return_when=when))
            return seen
        finally:
            for task in tasks:
                task.cancel()
            await ns.wait(tasks)

    seen = ns.run(main())
    assert (seen.waits_for.what, len(seen.awaits)) == ("wait()", 2)
    assert (seen.waits_for.kind, seen.needs_all) == (
        ("all", True) if when == "ALL_COMPLETED" else ("some", False)
    )


def test_a_loop_that_does_not_run_is_found_by_its_tasks(loop):
    assert graph.snapshot().loops == ()
    task = loop.create_task(outer(ctask.sleep(50)))
    loop.run_until_complete(ctask.sleep(0))
    (found,) = graph.snapshot().loops
    assert (found.id, found.state, found.thread) == (id(loop), "stopped", None)
    assert [one.coroutine for one in found.tasks] == ["outer"]
    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))
    assert graph.snapshot().loops == ()
