"""find_deadlocks(): circles, locks that nobody releases, and what nobody else refers to."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest

import ctask

pytestmark = pytest.mark.ctask_only


async def transfer(ns, first, second):
    async with first:
        await ns.sleep(0)
        await ns.sleep(0)
        async with second:
            pass


async def take(lock):
    await lock.acquire()


def find(ns, *coros, names="", **kwargs):
    """The deadlocks of tasks of these coroutines, which have the given names."""

    async def main():
        tasks = [asyncio.ensure_future(coro) for coro in coros]
        for task, name in zip(tasks, names):
            task.set_name(name)
        for _ in range(8):
            await ns.sleep(0)
        found = []
        thread = threading.Thread(target=lambda: found.append(ctask.find_deadlocks(loop, **kwargs)))
        loop = asyncio.get_running_loop()
        thread.start()
        thread.join()
        for task in tasks:
            task.cancel()
        await ns.wait(tasks)
        return found[0]

    return ns.run(main())


def kinds(found):
    return [(one.kind, [task.name for task in one.tasks]) for one in found]


def test_two_tasks_that_want_each_others_lock(ns):
    a, b = ns.Lock(), ns.Lock()
    (one,) = find(ns, transfer(ns, a, b), transfer(ns, b, a), take(a), names="xyz")
    assert one.kind == "circle"
    assert {task.name for task in one.tasks} == {"x", "y"}
    assert [task.name for task in one.waiting] == ["z"]
    first, *lines = str(one).split("\n")
    assert first == "2 tasks wait for each other"
    line = transfer.__code__.co_firstlineno + 4
    assert f"  x (transfer(), {__file__}:{line}) waits for a Lock that y holds" in lines
    assert lines[-1] == "  because of that also: z"


def test_a_task_that_wants_the_lock_that_it_holds(ns):
    lock = ns.Lock()
    (one,) = find(ns, transfer(ns, lock, lock), names="x")
    assert kinds([one]) == [("circle", ["x"])]
    assert str(one).startswith("a task waits for itself\n")


def test_five_in_a_circle_and_two_circles(ns):
    locks = [ns.Lock() for _ in range(5)]
    others = [ns.Lock() for _ in range(2)]
    coros = [transfer(ns, locks[i], locks[(i + 1) % 5]) for i in range(5)]
    coros += [transfer(ns, others[i], others[1 - i]) for i in range(2)]
    found = find(ns, *coros, names="abcdefg")
    assert sorted(len(one.tasks) for one in found) == [2, 5]
    five = next(one for one in found if len(one.tasks) == 5)
    names = "".join(task.name for task in five.tasks)
    assert names in "abcdeabcde"  # each waits for the next


def test_through_gather_and_a_group(ns):
    a, b = ns.Lock(), ns.Lock()

    async def gather():
        async with a:
            await ns.gather(transfer(ns, b, a), ns.sleep(50))

    (one,) = find(ns, gather())
    assert one.kind == "circle"
    assert len(one.tasks) == 2


def test_what_ends_by_itself_is_none(ns):
    a, b = ns.Lock(), ns.Lock()

    async def with_timeout():
        async with b, ns.timeout(50):
            async with a:
                pass

    async def one_of_two(tasks):
        async with a:
            await ns.sleep(0)
            await ns.wait(tasks(), return_when="FIRST_COMPLETED")

    assert find(ns, transfer(ns, a, b), with_timeout()) == []

    def tasks():
        made = [asyncio.ensure_future(coro) for coro in (take(a), ns.sleep(0.05))]
        return made

    async def main():
        task = asyncio.ensure_future(one_of_two(tasks))
        for _ in range(5):
            await ns.sleep(0)
        found = ctask.find_deadlocks()
        await task
        await ns.sleep(0)
        return found

    a = ns.Lock()
    assert ns.run(main()) == []


def test_a_lock_whose_task_is_done():
    lock = ctask.Lock()
    (one,) = find(ctask, take(lock), take(lock), take(lock), names="xyz")
    assert kinds([one]) == [("lost lock", ["y", "z"])]
    assert "waits for a Lock that a task took that is done" in str(one)


def test_a_lock_that_nobody_waits_for_is_none():
    assert find(ctask, take(ctask.Lock())) == []


@pytest.mark.parametrize("what", ["future", "event", "queue", "condition"])
def test_what_nobody_else_refers_to(ns, what):
    async def alone():
        if what == "future":
            await asyncio.get_running_loop().create_future()
        elif what == "event":
            event = ns.Event()
            await event.wait()
        elif what == "queue":
            await ns.Queue().get()
        else:
            condition = ns.Condition()
            async with condition:
                await condition.wait()

    for _ in range(2):  # what the first call looked at is no referrer in the second
        (one,) = find(ns, alone(), names="x", unreachable=True)
        assert kinds([one]) == [("unreachable", ["x"])]
    assert find(ns, alone()) == []


def test_what_somebody_refers_to(ns):
    kept = []

    async def future():
        kept.append(asyncio.get_running_loop().create_future())
        await kept[0]

    async def timer():
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(50, future.set_result, None)
        await future

    async def of_a_frame():
        event = ns.Event()
        other = asyncio.ensure_future(set_later(event))
        try:
            await event.wait()
        finally:
            other.cancel()

    async def set_later(event):
        await ns.sleep(50)
        event.set()

    found = find(ns, future(), timer(), of_a_frame(), unreachable=True)
    kept.clear()
    assert found == []


def test_no_deadlock_in_a_busy_program(ns):
    async def main():
        locks = [ns.Lock() for _ in range(3)]
        done = False

        async def work(i):
            while not done:
                async with locks[i % 3]:
                    await ns.sleep(0)

        tasks = [asyncio.ensure_future(work(i)) for i in range(9)]
        looks = asyncio.get_running_loop().run_in_executor(None, look, asyncio.get_running_loop())
        found = await looks
        done = True
        await ns.gather(*tasks)
        return found

    def look(loop):
        return [one for _ in range(10) for one in ctask.find_deadlocks(loop, unreachable=True)]

    assert ns.run(main()) == []


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_an_eager_task_that_holds_a_lock_is_there():
    lock = ctask.Lock()

    async def main():
        loop = asyncio.get_running_loop()

        async def hold():
            await lock.acquire()
            await ctask.sleep(50)

        holder = ctask.Task(hold(), loop=loop, eager_start=True)
        waiter = asyncio.ensure_future(take(lock))
        await ctask.sleep(0)
        found = ctask.find_deadlocks()
        for task in holder, waiter:
            task.cancel()
        await ctask.wait([holder, waiter])
        return found

    assert ctask.run(main()) == []


@pytest.mark.parametrize("when", ["ALL_COMPLETED", "FIRST_COMPLETED"])
def test_wait_for_all_may_close_a_circle_and_wait_for_the_first_may_not(ns, when):
    async def main():
        lock = ns.Lock()

        async def wants():
            async with lock:
                pass

        async def holds():
            async with lock:
                stuck = asyncio.ensure_future(wants())
                ends = asyncio.ensure_future(ns.sleep(50))
                tasks.extend([stuck, ends])
                await ns.wait([stuck, ends], return_when=when)

        tasks = [asyncio.ensure_future(holds())]
        for _ in range(4):
            await ns.sleep(0)
        found = ctask.find_deadlocks()
        for task in tasks:
            task.cancel()
        await ns.wait(tasks)
        return found

    found = ns.run(main())
    assert [one.kind for one in found] == (["circle"] if when == "ALL_COMPLETED" else [])


# ---- at the end, in debug mode ----


async def in_a_circle():
    first, second = asyncio.Lock(), asyncio.Lock()

    async def both(one, other):
        async with one:
            await asyncio.sleep(0)
            async with other:
                pass

    tasks = [asyncio.create_task(both(*locks)) for locks in ((first, second), (second, first))]
    for _ in range(4):
        await asyncio.sleep(0)
    return tasks


async def with_a_lost_lock():
    lock = ctask.Lock()

    async def takes():
        await lock.acquire()

    async def wants():
        async with lock:
            pass

    await asyncio.create_task(takes())
    tasks = [asyncio.create_task(wants())]
    await asyncio.sleep(0)
    return tasks


async def with_a_future_of_nobodys():
    async def waits():
        await asyncio.get_running_loop().create_future()

    tasks = [asyncio.create_task(waits())]
    await asyncio.sleep(0)
    return tasks


STUCK = {
    in_a_circle: "2 tasks wait for each other",
    with_a_lost_lock: "a lock was not released by the task that took it",
    with_a_future_of_nobodys: "a task waits for what nobody else can reach",
}


@pytest.mark.parametrize("main", STUCK)
@pytest.mark.parametrize("run", [ctask.run, "asyncio"])
def test_what_is_stuck_at_the_end_is_told_in_debug_mode(main, run, logs):
    if run == "asyncio":

        def run(coro, *, debug):
            with asyncio.Runner(debug=debug, loop_factory=ctask.new_event_loop) as runner:
                return runner.run(coro)

    run(main(), debug=True)
    (text,) = [record.getMessage() for record in logs.take()]
    expected = f"the loop has stopped, and tasks are left that cannot go on: {STUCK[main]}\n"
    assert text.startswith(expected)
    assert f", {__file__}:" in text
    run(main(), debug=False)


def test_what_is_stuck_is_told_once(loop, logs):
    loop.set_debug(True)
    tasks = loop.run_until_complete(in_a_circle())
    for _ in range(3):
        loop.run_until_complete(asyncio.sleep(0))
    assert len(logs.take()) == 1
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.wait(tasks))


def test_a_reader_that_is_left_with_its_queue_is_not_told(logs):
    async def main():
        queue = asyncio.Queue()

        async def reads():
            await queue.get()

        tasks.append(asyncio.create_task(reads()))
        await asyncio.sleep(0)

    tasks = []
    ctask.run(main(), debug=True)
    assert tasks[0].cancelled()
