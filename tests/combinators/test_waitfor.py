"""wait_for(): one await with a limit; the same on asyncio's own."""

import asyncio
import gc
import inspect
import sys
from asyncio import tasks

import pytest
from conftest import primitive

pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")

# In 3.11 it runs a task of its own.
IN_PLACE = sys.version_info >= (3, 12)


wait_for = primitive("wait_for")


@pytest.fixture(params=["own", "stock", "debug"])
def any_loop(request, impl):
    loop = asyncio.SelectorEventLoop() if request.param == "stock" else impl.new_event_loop()
    loop.set_debug(request.param == "debug")
    loop.slow_callback_duration = 3600  # nothing is to be logged on a slow machine
    yield loop.run_until_complete
    loop.close()
    asyncio.set_event_loop(None)


async def forever():
    await asyncio.get_running_loop().create_future()


async def value(result, turns=0):
    for _ in range(turns):
        await asyncio.sleep(0)
    return result


class Awaitable:
    def __init__(self, coro):
        self.coro = coro

    def __await__(self):
        return self.coro.__await__()


KINDS = {
    "coroutine": value,
    "task": lambda *args: asyncio.ensure_future(value(*args)),
    "awaitable": lambda *args: Awaitable(value(*args)),
}


@pytest.mark.parametrize("limit", [60, 0.5, None, float("inf"), True, 10**6])
@pytest.mark.parametrize("turns", [0, 1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_result_in_time(any_loop, wait_for, kind, turns, limit):
    result = object()

    async def body():
        assert await wait_for(KINDS[kind](result, turns), limit) is result

    any_loop(body())


def test_a_future_that_a_callback_sets(any_loop, wait_for):
    async def body():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(future.set_result, "x")
        assert await wait_for(future, 60) == "x"
        assert await wait_for(future, timeout=60) == "x"
        assert await wait_for(fut=future, timeout=60) == "x"

    any_loop(body())


def test_the_timer_is_gone_afterwards(impl, loop, run, wait_for):
    def pending():
        return [timer for timer in loop._scheduled if not timer.cancelled()]

    async def body():
        assert await wait_for(value(1, 2), 60) == 1
        assert pending() == []
        with pytest.raises(KeyError):
            await wait_for(fail(KeyError("k")), 60)
        assert pending() == []

    run(body())


async def fail(exc):
    await asyncio.sleep(0)
    raise exc


def test_an_exception_in_time(any_loop, wait_for):
    async def body():
        exc = KeyError("k")
        with pytest.raises(KeyError) as caught:
            await wait_for(fail(exc), 60)
        assert caught.value is exc
        assert exc.__cause__ is None and exc.__context__ is None
        exc.__traceback__ = None

    any_loop(body())


@pytest.mark.parametrize("kind", ["coroutine", "future", "task", "awaitable"])
@pytest.mark.parametrize("limit", [0.001, 0, -1])
def test_too_late(any_loop, wait_for, kind, limit):
    async def body():
        made = {
            "coroutine": forever,
            "future": asyncio.get_running_loop().create_future,
            "task": lambda: asyncio.ensure_future(forever()),
            "awaitable": lambda: Awaitable(forever()),
        }[kind]()
        with pytest.raises(TimeoutError) as caught:
            await wait_for(made, limit)
        assert type(caught.value.__cause__) is asyncio.CancelledError
        assert type(caught.value.__context__) is asyncio.CancelledError
        assert asyncio.current_task().cancelling() == 0
        if kind in ("future", "task"):
            assert made.cancelled()

    any_loop(body())


def test_no_time_at_all_does_not_start_the_coroutine(any_loop, wait_for):
    started = []

    async def start():
        started.append(True)

    async def body():
        with pytest.raises(TimeoutError):
            await wait_for(start(), 0)
        done = asyncio.get_running_loop().create_future()
        done.set_result(5)
        assert await wait_for(done, 0) == 5
        assert await wait_for(done, -1) == 5

    any_loop(body())
    assert not started


def test_a_result_in_spite_of_the_cancellation(any_loop, wait_for):
    async def stubborn():
        try:
            await forever()
        except asyncio.CancelledError:
            return "done"

    async def body():
        assert await wait_for(stubborn(), 0.001) == "done"
        assert asyncio.current_task().cancelling() == 0

    any_loop(body())


def test_another_exception_after_the_cancellation(any_loop, wait_for):
    async def broken():
        try:
            await forever()
        finally:
            raise KeyError("k")

    async def body():
        with pytest.raises(KeyError) as caught:
            await wait_for(broken(), 0.001)
        context = caught.value.__context__
        if sys.version_info >= (3, 13):
            assert type(context) is TimeoutError
            assert type(context.__cause__) is asyncio.CancelledError
        else:
            assert type(context) is asyncio.CancelledError
        assert asyncio.current_task().cancelling() == 0

    any_loop(body())


def test_a_cancellation_from_outside(any_loop, wait_for):
    seen = []

    async def inner():
        try:
            await forever()
        except asyncio.CancelledError as exc:
            seen.append(exc.args)
            raise

    async def body():
        task = asyncio.ensure_future(wait_for(inner(), 60))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert len(seen) == 1

    any_loop(body())


@pytest.mark.skipif(not IN_PLACE, reason="3.11 runs a task of its own")
def test_it_awaits_in_the_same_task(any_loop, wait_for):
    async def body():
        async def inner():
            return asyncio.current_task()

        assert await wait_for(inner(), 60) is asyncio.current_task()

    any_loop(body())


@pytest.mark.skipif(not IN_PLACE, reason="3.11 needs no task")
def test_a_task_is_needed(loop, wait_for, turn):
    seen = []

    def callback():
        future = loop.create_future()
        for limit in (60, None):
            with pytest.raises(RuntimeError, match="^Timeout should be used inside a task$"):
                wait_for(future, limit).send(None)
        seen.append(True)

    loop.call_soon(callback)
    turn()
    assert seen


@pytest.mark.parametrize("what", [1, "x", None, [], iter([])])
def test_what_cannot_be_awaited(loop, run, wait_for, what):
    async def plain():
        return await what

    async def body():
        with pytest.raises(TypeError) as expected:
            await (plain() if IN_PLACE else asyncio.ensure_future(what))
        with pytest.raises(TypeError) as caught:
            await wait_for(what, 60)
        assert str(caught.value) == str(expected.value)

    run(body())


def test_a_timeout_that_is_no_number(loop, run, wait_for):
    async def body():
        with pytest.raises(TypeError, match="'<=' not supported"):
            await wait_for(value(1), "1")
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'timeout'"):
            wait_for(value(1))
        with pytest.raises(TypeError, match="unexpected keyword"):
            wait_for(value(1), 1, loop=None)
        with pytest.raises(OverflowError):
            await wait_for(value(1), 10**400)

    run(body())


@pytest.mark.skipif(not IN_PLACE, reason="3.11 would make a task of it")
def test_a_coroutine_that_another_awaits(loop, run, wait_for):
    async def body():
        coro = forever()
        coro.send(None)
        with pytest.raises(RuntimeError, match="being awaited already"):
            await wait_for(coro, 60)
        coro.close()

    run(body())


def test_a_coroutine_that_was_awaited(loop, run, wait_for):
    async def body():
        coro = value(1)
        await coro
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await wait_for(coro, 60)

    run(body())


def test_it_is_asyncios_to_who_asks(wait_for):
    assert inspect.iscoroutinefunction(wait_for)
    assert inspect.signature(wait_for) == inspect.signature(tasks.wait_for)
    coro = wait_for(value(1), 1)
    assert inspect.iscoroutine(coro)
    assert coro.__name__ == "wait_for"
    coro.close()


@pytest.mark.skipif(not IN_PLACE, reason="3.11 runs a task of its own")
def test_closed_while_it_waits(loop, run, wait_for):
    closed = []

    async def inner():
        try:
            await forever()
        except GeneratorExit:
            closed.append(True)
            raise

    async def body():
        coro = wait_for(inner(), 60)
        coro.send(None)
        coro.close()
        assert closed
        assert [timer for timer in loop._scheduled if not timer.cancelled()] == []
        coro = wait_for(inner(), 60)
        coro.send(None)
        del coro
        gc.collect()
        assert len(closed) == 2

    run(body())


def test_nested(any_loop, wait_for):
    async def body():
        assert await wait_for(wait_for(wait_for(value(1, 1), 60), 50), 40) == 1
        with pytest.raises(TimeoutError):
            await wait_for(wait_for(forever(), 60), 0.001)
        with pytest.raises(TimeoutError):
            await wait_for(wait_for(forever(), 0.001), 60)
        assert asyncio.current_task().cancelling() == 0

    any_loop(body())


def test_inside_timeout(any_loop, wait_for):
    async def body():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await wait_for(forever(), 60)
        assert asyncio.current_task().cancelling() == 0

    any_loop(body())


def test_the_future_of_another_kind(impl, loop, run, wait_for):
    """A future of asyncio's own, on our loop, and a subclass in Python."""

    class Mine(impl.Future):
        pass

    async def body():
        for cls in (asyncio.Future, impl.Future, Mine):
            future = cls(loop=loop)
            loop.call_soon(future.set_result, cls)
            assert await wait_for(future, 60) is cls

    run(body())


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="wait_for() without a timeout's `async with`"
)
def test_an_exception_at_the_end_keeps_the_context_it_had(loop, wait_for):
    class Task(asyncio.Task):
        def uncancel(self):
            try:
                raise IndexError
            except IndexError:
                raise KeyError from None

    async def body():
        try:
            await wait_for(forever(), 0.001)
        except KeyError as exc:
            return exc

    story = [loop.run_until_complete(Task(body(), loop=loop))]
    while story[-1].__context__ is not None:
        story.append(story[-1].__context__)
    assert [type(exc) for exc in story] == [KeyError, IndexError, asyncio.CancelledError]


def test_while_another_exception_is_handled(any_loop, wait_for):
    async def body():
        try:
            raise LookupError
        except LookupError:
            with pytest.raises(TimeoutError) as caught:
                await wait_for(forever(), 0.001)
        assert type(caught.value.__cause__) is asyncio.CancelledError
        if IN_PLACE:
            assert type(caught.value.__context__) is LookupError

    any_loop(body())
