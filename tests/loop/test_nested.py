"""Loops whose iterations other code runs: nested runs, as nest_asyncio makes them, and `_ready`.

The patches are those of nest_asyncio and its like, in words of our own: the class's run_forever(),
run_until_complete() and _run_once() are replaced while the loop runs, and take what is ready from
`_ready`, `_scheduled` and `_selector`.
"""

import asyncio
import contextlib
import gc
import heapq
import random
import socket
import sys
import threading
from asyncio import events

import pytest


def once(loop):
    """One iteration, on nothing but the attributes of asyncio's loop."""
    ready, timers = loop._ready, loop._scheduled
    while timers and timers[0]._cancelled:
        heapq.heappop(timers)
    if ready or loop._stopping:
        timeout = 0
    elif timers:
        timeout = min(max(0, timers[0]._when - loop.time()), 86400)
    else:
        timeout = None
    loop._process_events(loop._selector.select(timeout))
    end = loop.time() + loop._clock_resolution
    while timers and timers[0]._when < end:
        ready.append(heapq.heappop(timers))
    for _ in range(len(ready)):
        if not ready:
            break
        handle = ready.popleft()
        if handle._cancelled:
            continue
        if sys.version_info < (3, 14):
            task = asyncio.tasks._current_tasks.pop(loop, None)
        else:
            task = asyncio.tasks._swap_current_task(loop, None)
        try:
            handle._run()
        finally:
            if task is not None and sys.version_info < (3, 14):
                asyncio.tasks._current_tasks[loop] = task
            elif task is not None:
                asyncio.tasks._swap_current_task(loop, task)


@contextlib.contextmanager
def running(loop):
    loop._check_closed()
    before = loop._thread_id, events._get_running_loop()
    loop._thread_id = threading.get_ident()
    events._set_running_loop(loop)
    try:
        yield
    finally:
        loop._thread_id, outer = before
        events._set_running_loop(outer)


def run_forever(loop):
    with running(loop):
        while True:
            loop._run_once()
            if loop._stopping:
                break
    loop._stopping = False


def run_until_complete(loop, future):
    with running(loop):
        task = asyncio.ensure_future(future, loop=loop)
        if task is not future:
            task._log_destroy_pending = False
        while not task.done():
            loop._run_once()
            if loop._stopping:
                break
        if not task.done():
            raise RuntimeError("Event loop stopped before Future completed.")
        return task.result()


def apply(cls):
    cls.run_forever = run_forever
    cls.run_until_complete = run_until_complete
    cls._run_once = once
    cls._check_running = lambda loop: None


@pytest.fixture
def cls(impl):
    class Loop(impl.EventLoop):
        pass

    return Loop


@pytest.fixture(params=["before", "while it runs"])
def nested(request, cls):
    """Runs main() on a loop with these patches, made before it runs or while it does."""
    loop = cls()
    if request.param == "before":
        apply(cls)

    async def patched(main):
        apply(cls)
        return await main(loop)

    def run(main):
        return loop.run_until_complete(patched(main))

    yield run
    loop.close()


async def sleeps(seconds, value=None):
    await asyncio.sleep(seconds)
    return value


def test_an_iteration_that_is_replaced_while_the_loop_runs_is_the_next(cls):
    loop, seen = cls(), []

    def counted(loop):
        seen.append(len(loop._ready))
        once(loop)

    async def main():
        cls._run_once = counted
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return 7

    assert loop.run_until_complete(main()) == 7
    assert seen == [1, 1, 1]  # two steps, and what ends the run
    loop.close()


def test_a_run_inside_a_task(nested):
    async def main(loop):
        me = asyncio.current_task()
        assert loop.run_until_complete(sleeps(0.001, 7)) == 7
        assert asyncio.current_task() is me
        assert asyncio.get_running_loop() is loop and loop.is_running()
        await asyncio.sleep(0)
        assert asyncio.current_task() is me
        return await sleeps(0, 8)

    assert nested(main) == 8


def test_runs_inside_runs(nested):
    async def deep(loop, depth):
        await asyncio.sleep(0)
        me = asyncio.current_task()
        below = loop.run_until_complete(deep(loop, depth - 1)) if depth else 0
        assert asyncio.current_task() is me
        await asyncio.sleep(0.0001)
        return below + 1

    assert nested(lambda loop: deep(loop, 10)) == 11


def test_other_tasks_go_on_meanwhile(nested):
    seen = []

    async def other():
        for n in range(3):
            await asyncio.sleep(0)
            seen.append(n)
        return "other"

    async def main(loop):
        task = loop.create_task(other())
        loop.run_until_complete(asyncio.wait([task]))
        assert seen == [0, 1, 2]
        fut = loop.create_future()
        loop.call_later(0.001, fut.set_result, 7)
        waiter = loop.create_task(asyncio.wait_for(fut, 10))
        assert loop.run_until_complete(waiter) == 7
        return await task

    assert nested(main) == "other"


def test_exceptions_come_out_of_the_nested_run(nested):
    async def fails():
        await asyncio.sleep(0)
        raise KeyError(7)

    async def main(loop):
        with pytest.raises(KeyError):
            loop.run_until_complete(fails())
        with pytest.raises(TimeoutError):
            loop.run_until_complete(asyncio.wait_for(sleeps(10), 0.001))
        task = loop.create_task(sleeps(10))
        loop.call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
        return await sleeps(0.001, 7)

    assert nested(main) == 7


def test_functions_of_asyncio_in_a_nested_run(nested):
    async def several():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(sleeps(0.001 * n, n)) for n in range(3)]
        async with asyncio.timeout(10):
            gathered = await asyncio.gather(*(sleeps(0, n) for n in range(3)))
        queue = asyncio.Queue(1)
        putting = asyncio.create_task(queue.put(7))
        got = await queue.get()
        await putting
        in_thread = await asyncio.get_running_loop().run_in_executor(None, int, "8")
        return [task.result() for task in tasks], gathered, got, in_thread

    async def main(loop):
        result = loop.run_until_complete(several())
        await loop.shutdown_default_executor()
        return result

    assert nested(main) == ([0, 1, 2], [0, 1, 2], 7, 8)


def test_timers_run_in_their_order(nested):
    seen = []

    async def main(loop):
        start = loop.time()
        for n in (5, 1, 4, 2, 3, 6, 0):
            loop.call_at(start + n * 1e-5, seen.append, n)
        loop.call_at(start + 1.5e-5, seen.append, "cancelled").cancel()
        loop.run_until_complete(sleeps(0.002))
        assert not loop._scheduled

    nested(main)
    assert seen == [0, 1, 2, 3, 4, 5, 6]


def test_connections_and_watched_descriptors(nested):
    async def main(loop):
        a, b = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=a)
        b.setblocking(False)
        b.send(b"one\n")
        assert loop.run_until_complete(reader.readline()) == b"one\n"
        writer.write(b"two\n")
        assert loop.run_until_complete(loop.sock_recv(b, 9)) == b"two\n"
        b.send(b"three\n")
        assert await reader.readline() == b"three\n"
        writer.close()
        loop.run_until_complete(writer.wait_closed())
        assert b.recv(1) == b""
        fut = loop.create_future()
        c, d = socket.socketpair()
        loop.add_reader(c, lambda: fut.done() or fut.set_result("readable"))
        d.send(b"x")
        assert loop.run_until_complete(fut) == "readable"
        assert loop.remove_reader(c)
        for sock in (b, c, d):
            sock.close()

    nested(main)


def test_a_thread_wakes_the_nested_run(nested):
    async def main(loop):
        fut = loop.create_future()
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(fut.set_result, 7))
        loop.call_later(0.001, thread.start)
        assert loop.run_until_complete(fut) == 7
        thread.join()

    nested(main)


def test_stop_ends_the_nested_run(nested):
    async def main(loop):
        loop.call_later(0.001, loop.stop)
        loop.run_forever()
        task = loop.create_task(sleeps(10))
        loop.call_soon(loop.stop)
        with pytest.raises(RuntimeError, match="stopped before Future completed"):
            loop.run_until_complete(task)
        loop._stopping = False
        task.cancel()
        await asyncio.wait([task])
        return 7

    assert nested(main) == 7


def test_several_loops(impl, cls):
    apply(cls)
    outer, inner = cls(), cls()

    async def main():
        assert asyncio.get_running_loop() is outer
        assert inner.run_until_complete(sleeps(0.001, 7)) == 7
        assert outer.run_until_complete(sleeps(0.001, 8)) == 8
        assert asyncio.get_running_loop() is outer
        return asyncio.current_task() is not None

    assert outer.run_until_complete(main())
    outer.close()
    inner.close()


def test_tasks_in_python(nested):
    """nest_asyncio has asyncio's own Python classes made from then on."""

    async def main(loop):
        made = []

        def factory(loop, coro, **kwargs):
            made.append(asyncio.tasks._PyTask(coro, loop=loop, **kwargs))
            return made[-1]

        if sys.version_info >= (3, 14):
            return 7
        loop.set_task_factory(factory)
        assert loop.run_until_complete(asyncio.gather(sleeps(0, 1), sleeps(0.001, 2))) == [1, 2]
        assert len(made) == 2
        del made[:]
        loop.set_task_factory(None)
        return await sleeps(0.001, 7)

    assert nested(main) == 7


def test_asyncios_own_iteration_runs_ours(impl, loop):
    """asyncio.BaseEventLoop._run_once(loop), whose attributes are read each time."""
    seen = []
    start = loop.time()
    for n in (3, 1, 2):
        loop.call_at(start + n * 1e-5, seen.append, n)
    task = loop.create_task(sleeps(0.0005, 7))
    loop.call_soon(seen.append, 0)
    with running(loop):
        while not task.done():
            asyncio.BaseEventLoop._run_once(loop)
    assert seen == [0, 1, 2, 3] and task.result() == 7


# ---- loop._ready ----


def test_ready_is_a_queue_that_can_be_changed(loop, turn):
    seen = []
    handles = [loop.call_soon(seen.append, n) for n in range(5)]
    ready = loop._ready
    assert len(ready) == 5 and ready and list(ready) == handles
    assert ready[0] is handles[0] and ready[-1] is handles[4] and handles[2] in ready
    assert ready.popleft() is handles[0]
    assert ready.pop() is handles[4]
    ready.remove(handles[2])
    ready.appendleft(handles[4])
    ready.append(handles[0])
    ready.extendleft([handles[2]])
    assert list(ready) == [handles[n] for n in (2, 4, 1, 3, 0)]
    ready.rotate(1)
    assert list(ready) == [handles[n] for n in (0, 2, 4, 1, 3)]
    ready.insert(1, handles[0])
    del ready[1]
    turn()
    assert seen == [0, 2, 4, 1, 3]
    assert not loop._ready and len(loop._ready) == 0
    with pytest.raises(IndexError, match="pop from an empty deque"):
        loop._ready.popleft()
    with pytest.raises(IndexError, match="deque index out of range"):
        loop._ready[0]
    del seen[:]


def test_handles_are_taken_from_any_place(loop, turn):
    order, seen = random.Random(7), []
    handles = [loop.call_soon(seen.append, n) for n in range(60)]  # round the ring's end, too
    loop._ready.rotate(7)
    handles = handles[-7:] + handles[:-7]
    while handles:
        place = order.randrange(len(handles))
        taken = loop._ready[place]
        del loop._ready[place]
        assert taken is handles.pop(place)
        assert list(loop._ready) == handles
    turn()
    assert seen == []


def test_what_is_cleared_never_runs(loop, turn):
    seen = []
    for n in range(100):
        loop.call_soon(seen.append, n)
    loop._ready.clear()
    loop.call_soon(seen.append, "after")
    turn()
    assert seen == ["after"]


def test_a_step_that_is_cancelled_in_the_queue_is_not_made(loop, turn):
    started = []

    async def body():
        started.append(1)

    task = loop.create_task(body())
    (handle,) = loop._ready
    assert handle in loop._ready
    handle.cancel()
    turn()
    assert started == [] and not task.done()
    task._log_destroy_pending = False
    task.get_coro().close()
    gc.collect()


def test_a_timer_that_is_put_in_the_queue_runs_once(loop, turn):
    seen = []
    timers = [loop.call_later(3600, seen.append, n) for n in range(3)]
    middle = loop._scheduled[1]
    assert middle is timers[1]
    if hasattr(loop, "_ready_put"):
        loop._ready.append(middle)
    else:
        loop._scheduled.remove(middle)
        loop._ready.append(middle)
    turn()
    assert seen == [1]
    assert len(loop._scheduled) == 2
    for timer in timers:
        timer.cancel()


def test_scheduled_is_a_heap(loop):
    timers = [loop.call_later(3600 + (n * 7919) % 1000, int) for n in range(1000)]
    listed = list(loop._scheduled)
    assert [heapq.heappop(listed).when() for _ in range(1000)] == sorted(t.when() for t in timers)
    for timer in timers:
        timer.cancel()
