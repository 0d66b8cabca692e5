"""What programs put in the place of asyncio's own: monitors' Handle._run, frozen clocks."""

import asyncio
import functools
import threading
import time
import types
from asyncio import events

import pytest


async def nothing():
    pass


# ---- Handle._run, which monitors replace to see what runs and how long it takes ----


@pytest.fixture
def monitor(monkeypatch):
    """Begins to note what Handle._run is called with."""
    seen = []

    def begin(cls=events.Handle):
        original = cls._run

        @functools.wraps(original)
        def run(handle):
            seen.append(handle)
            return original(handle)

        monkeypatch.setattr(cls, "_run", run)
        return seen

    yield begin
    seen.clear()


def test_all_that_runs_is_seen(loop, run, monitor):
    seen = monitor()
    called = []

    async def main():
        await asyncio.sleep(0)
        loop.call_soon(called.append, 1)
        loop.call_later(0.0001, called.append, 2)
        fut = loop.create_future()
        fut.add_done_callback(called.append)
        loop.call_soon_threadsafe(fut.set_result, 3)
        await fut
        await asyncio.sleep(0.001)
        return 7

    task = loop.create_task(main())
    assert run(task) == 7
    assert called[0] == 1 and called[-1] == 2
    assert all(isinstance(handle, asyncio.Handle) for handle in seen)
    steps = [h for h in seen if getattr(h._callback, "__self__", None) is task]
    assert len(steps) == 4
    assert sum(isinstance(handle, asyncio.TimerHandle) for handle in seen) == 2
    assert sum(handle._callback == called.append for handle in seen) == 3
    called.clear()


def test_a_monitor_that_begins_and_ends_while_the_loop_runs(loop, run, monitor, monkeypatch):
    async def main():
        await asyncio.sleep(0)
        seen = monitor()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        counted = len(seen)
        assert counted >= 1
        monkeypatch.undo()
        await asyncio.sleep(0)
        counted = len(seen)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(seen) == counted

    run(main())


def test_a_monitor_of_timers(loop, run, monitor):
    seen = monitor(asyncio.TimerHandle)
    run(asyncio.sleep(0.0001))
    assert [type(handle).__name__ for handle in seen] == ["TimerHandle"]


def test_a_monitor_in_debug_mode(loop, run, monitor):
    seen = monitor()
    loop.set_debug(True)
    run(nothing())
    assert seen


def test_a_cancelled_handle_is_not_seen(loop, turn, monitor):
    seen = monitor()
    loop.call_soon(print).cancel()
    loop.call_later(0, print).cancel()
    turn(2)
    assert seen == []


def test_what_a_monitor_raises_ends_the_run(loop, turn, monkeypatch):
    def run(handle):
        raise KeyError("monitor")

    monkeypatch.setattr(events.Handle, "_run", run)
    loop.call_soon(print)
    with pytest.raises(KeyError, match="monitor"):
        turn()
    monkeypatch.undo()
    turn()


def test_errors_and_current_task_under_a_monitor(loop, run, monitor, reports):
    monitor()

    async def main():
        me = asyncio.current_task()
        seen = []
        loop.call_soon(lambda: seen.append(asyncio.current_task()))
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)
        assert asyncio.current_task() is me
        assert seen == [None]

    run(main())
    (report,) = reports.take()
    assert isinstance(report["exception"], ZeroDivisionError)


# ---- the clock ----


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is told otherwise, in the place of time.monotonic."""

    class Clock:
        now = 1000.0

        def __call__(self):
            return self.now

        def begin(self):
            monkeypatch.setattr(time, "monotonic", self)

    return Clock()


def test_the_loop_shows_the_replaced_clock(loop, clock, monkeypatch):
    assert abs(loop.time() - time.monotonic()) < 5
    clock.begin()
    assert loop.time() == 1000.0
    assert loop.call_later(5, print).when() == 1005.0
    assert loop._scheduled[0].when() == 1005.0
    clock.now = 2000.0
    assert loop.time() == 2000.0
    monkeypatch.undo()
    assert loop.time() != 2000.0 and abs(loop.time() - time.monotonic()) < 5
    loop._scheduled[0].cancel()


def test_timers_are_due_by_the_replaced_clock(loop, turn, clock):
    clock.begin()
    seen = []
    loop.call_later(3600, seen.append, "hour")
    loop.call_later(60, seen.append, "minute")
    turn()
    assert seen == []
    clock.now += 61
    turn(2)
    assert seen == ["minute"]
    clock.now += 3600
    turn(2)
    assert seen == ["minute", "hour"]


def test_sleep_and_timeouts_by_the_replaced_clock(loop, run, clock):
    clock.begin()

    async def ticks():
        for _ in range(20):
            clock.now += 100
            await asyncio.sleep(0)

    async def main():
        ticking = asyncio.create_task(ticks())
        await asyncio.sleep(500)
        assert loop.time() >= 1500
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(500):
                await loop.create_future()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.create_future(), 500)
        await ticking

    run(main())


def test_the_clock_is_replaced_and_put_back_while_a_task_runs(loop, run, clock, monkeypatch):
    async def main():
        before = loop.time()
        clock.begin()
        deadline = asyncio.timeout(10).when()
        assert deadline == 1010.0
        handle = loop.call_later(10, print)
        assert handle.when() == 1010.0
        handle.cancel()
        monkeypatch.undo()
        assert before <= loop.time() <= time.monotonic()
        await asyncio.sleep(0.0001)

    run(main())


def test_a_time_of_the_class_goes_before(impl, clock):
    class Loop(impl.EventLoop):
        def time(self):
            return 5.0

    loop = Loop()
    clock.begin()
    assert loop.time() == 5.0
    assert loop.call_later(1, print).when() == 6.0
    loop.close()


def test_a_clock_that_raises(loop, turn, monkeypatch):
    def broken():
        raise OSError("no clock")

    monkeypatch.setattr(time, "monotonic", broken)
    with pytest.raises(OSError, match="no clock"):
        loop.call_later(1, print)
    monkeypatch.undo()
    turn()


def test_other_names_in_the_module_time_do_no_harm(loop, monkeypatch):
    threads = threading.enumerate()
    for n in range(200):
        monkeypatch.setattr(time, f"name_{n}", n, raising=False)
        assert abs(loop.time() - time.monotonic()) < 5
    monkeypatch.undo()
    assert abs(loop.time() - time.monotonic()) < 5
    assert threading.enumerate() == threads


# ---- create_task(), into whose function tracers put other code ----


def wrapped(function, wrapper):
    """Code for the function that calls `wrapper(original, args, kwargs)`, as ddtrace makes it."""
    original = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__
    )
    original.__kwdefaults__ = function.__kwdefaults__

    def around(*args, **kwargs):
        wrapper = "the wrapper"
        return wrapper(args, kwargs)

    def call(args, kwargs):
        return wrapper(original, args, kwargs)

    code = around.__code__
    return code.replace(
        co_consts=tuple(call if each == "the wrapper" else each for each in code.co_consts),
        co_name=function.__code__.co_name,
        co_qualname=function.__code__.co_qualname,
    )


@pytest.fixture
def traced(monkeypatch):
    """Wraps the code of asyncio's create_task(), and notes the names of what it gets."""
    function = asyncio.BaseEventLoop.create_task
    seen = []

    def call(original, args, kwargs):
        seen.append(args[1].__name__)
        return original(*args, **kwargs)

    def begin():
        monkeypatch.setattr(function, "__code__", wrapped(function, call))
        return seen

    yield begin


def test_code_that_a_tracer_puts_into_create_task_is_called(loop, run, traced, monkeypatch):
    async def one():
        return 1

    async def two():
        return 2

    async def main():
        before = loop.create_task(one())
        seen = traced()
        tasks = [
            loop.create_task(one(), name="a name"),
            asyncio.create_task(two()),
            asyncio.ensure_future(one()),
        ]
        assert await asyncio.gather(*tasks, two()) == [1, 2, 1, 2]
        assert tasks[0].get_name() == "a name"
        async with asyncio.TaskGroup() as group:
            group.create_task(one())
        monkeypatch.undo()
        assert await loop.create_task(two()) == 2
        assert await before == 1
        return seen

    assert run(main()) == ["one", "two", "one", "two", "one"]


def test_a_tracer_that_raises(loop, run, monkeypatch):
    async def one():
        pass

    def call(original, args, kwargs):
        raise LookupError("no task")

    async def main():
        coro = one()
        function = asyncio.BaseEventLoop.create_task
        monkeypatch.setattr(function, "__code__", wrapped(function, call))
        with pytest.raises(LookupError, match="no task"):
            loop.create_task(coro)
        monkeypatch.undo()
        await loop.create_task(coro)

    run(main())


def test_the_class_of_tasks_is_found_whatever_else_becomes_of_its_module(loop, run, monkeypatch):
    async def nothing():
        pass

    async def made():
        task = loop.create_task(nothing())
        await task
        return type(task)

    usual = run(made())
    names = vars(asyncio.tasks)

    class Sub(asyncio.Task):
        pass

    for n in range(300):  # its table of names is made anew, and again
        monkeypatch.setattr(asyncio.tasks, f"name_{n}", n, raising=False)
        assert run(made()) is usual
    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.tasks, "Task", Sub)
            coro = made()
            task = loop.create_task(coro)
            assert type(task) is Sub
            assert run(task) is Sub
        assert run(made()) is usual
    with monkeypatch.context() as patch:
        patch.delattr(asyncio.tasks, "Task")
        coro = nothing()
        with pytest.raises(AttributeError, match="no attribute 'Task'"):
            loop.create_task(coro)
        coro.close()
    assert run(made()) is usual
    assert names is vars(asyncio.tasks)
