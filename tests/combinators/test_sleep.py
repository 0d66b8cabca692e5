"""sleep: one turn of the loop for 0, a timer for more; the same on asyncio's own sleep()."""

import asyncio
import gc
import inspect
import sys
import types
from asyncio import tasks

import pytest
from conftest import primitive

# What gives one turn and no timer.
NOTHING = [0, 0.0, -0.0, -1, -1e9, float("-inf"), False]
nan = float("nan")


sleep = primitive("sleep")


def timers(impl, loop):
    """The timers that are not cancelled; asyncio keeps cancelled ones until they are many."""
    scheduled = list(loop._scheduled)
    if impl.name == "asyncio":
        scheduled = [timer for timer in scheduled if not timer.cancelled()]
    return scheduled


@pytest.mark.parametrize("delay", NOTHING)
def test_no_delay_is_exactly_one_turn(impl, loop, turn, sleep, delay):
    seen = []

    async def body():
        seen.append("before")
        await sleep(delay)
        seen.append("after")

    task = loop.create_task(body())
    turn()
    assert seen == ["before"]
    assert timers(impl, loop) == []
    turn()
    assert seen == ["before", "after"]
    assert task.done()


def test_everything_else_that_is_ready_runs_once(loop, run, sleep):
    seen = []

    async def body(name):
        for n in range(3):
            seen.append((name, n))
            await sleep(0)

    async def main():
        await asyncio.gather(body("a"), body("b"))

    run(main())
    assert seen == [(name, n) for n in range(3) for name in "ab"]


def test_callbacks_scheduled_before_run_during_the_turn(loop, run, sleep):
    seen = []

    async def main():
        loop.call_soon(seen.append, 1)
        await sleep(0)
        assert seen == [1]
        loop.call_soon(loop.call_soon, seen.append, 2)
        await sleep(0)
        assert seen == [1]
        await sleep(0)
        assert seen == [1, 2]

    run(main())


def test_no_delay_driven_by_hand(sleep):
    thing = object()
    coro = sleep(0, thing)
    assert coro.send(None) is None
    with pytest.raises(StopIteration) as stop:
        coro.send(None)
    assert stop.value.value is thing
    coro = sleep(0)
    assert coro.send(None) is None
    with pytest.raises(LookupError):
        coro.throw(LookupError())
    coro = sleep(0)
    assert coro.send(None) is None
    coro.close()


@pytest.mark.parametrize("delay", [0, -1, 0.001])
@pytest.mark.parametrize("result", [None, 1, (), (1, 2), ValueError("x"), StopIteration(1)])
def test_result_is_passed_through(run, sleep, delay, result):
    assert run(sleep(delay, result)) is result
    assert run(sleep(delay, result=result)) is result
    assert run(sleep(delay=delay)) is None


def test_delay_is_waited_for(loop, run, sleep):
    start = loop.time()
    run(sleep(0.02))
    assert loop.time() - start >= 0.02 - 0.001


def test_delay_makes_one_timer(impl, loop, run, turn, sleep):
    start = loop.time()
    task = loop.create_task(sleep(1000))
    turn()
    (timer,) = timers(impl, loop)
    assert 999 < timer.when() - start < 1001
    turn()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        run(task)
    assert timers(impl, loop) == []
    assert timer.cancelled()


def test_not_a_number(impl, loop, run, sleep):
    if sys.version_info >= (3, 13) or impl.name == "ctask":
        with pytest.raises(ValueError, match=r"^Invalid delay: NaN \(not a number\)$"):
            run(sleep(nan))
    else:
        assert run(sleep(nan, 1)) == 1  # a timer that is due
    assert timers(impl, loop) == []


@pytest.mark.parametrize("delay", [None, "1", [], 1j])
def test_what_is_no_number_is_a_type_error(run, sleep, delay):
    with pytest.raises(TypeError):
        run(sleep(delay))


def test_arguments(sleep):
    for args in [(), (0, 1, 2)]:
        with pytest.raises(TypeError):
            sleep(*args)
    with pytest.raises(TypeError):
        sleep(0, loop=None)


@pytest.mark.parametrize("delay", [0, 1])
def test_cancellation(impl, loop, turn, sleep, delay):
    seen = []

    async def body():
        try:
            await sleep(delay)
            seen.append("slept")
        except asyncio.CancelledError as exc:
            seen.append(exc.args)
            raise
        finally:
            seen.append("finally")

    task = loop.create_task(body())
    turn()
    assert len(timers(impl, loop)) == delay
    assert task.cancel("why")
    turn(2)
    assert task.cancelled()
    assert seen == [("why",), "finally"]
    assert timers(impl, loop) == []


@pytest.mark.parametrize("delay", [0, 1])
def test_cancellation_before_the_first_step(impl, loop, turn, sleep, delay):
    task = loop.create_task(sleep(delay))
    task.cancel()
    turn()
    assert task.cancelled()
    assert timers(impl, loop) == []


@pytest.mark.parametrize("delay", [0, 1])
def test_sleep_after_a_cancellation_that_was_caught(impl, loop, run, turn, sleep, delay):
    async def body():
        try:
            await sleep(delay)
        except asyncio.CancelledError:
            return await sleep(0, "again")

    task = loop.create_task(body())
    turn()
    task.cancel()
    assert run(task) == "again"
    assert timers(impl, loop) == []


def test_timeout_ends_it(impl, loop, run, sleep):
    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sleep(1000), 0.001)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await sleep(1000)

    run(main())
    assert timers(impl, loop) == []


@pytest.mark.parametrize("delay", [0, 1])
def test_closing_it_cancels_the_timer(impl, loop, run, sleep, delay):
    async def main():
        coro = sleep(delay)
        coro.send(None)
        assert len(timers(impl, loop)) == delay
        coro.close()
        assert timers(impl, loop) == []

    run(main())


def test_delay_needs_a_running_loop_and_no_delay_does_not(sleep):
    with pytest.raises(RuntimeError, match="no running event loop"):
        sleep(1).send(None)
    coro = sleep(0)
    coro.send(None)
    coro.close()


def test_is_a_coroutine_function(sleep):
    assert inspect.iscoroutinefunction(sleep)
    assert sleep.__name__ == "sleep"
    assert list(inspect.signature(sleep).parameters) == ["delay", "result"]
    assert inspect.signature(sleep).parameters["result"].default is None
    coro = sleep(0)
    assert inspect.iscoroutine(coro)
    assert isinstance(coro, types.CoroutineType)
    assert asyncio.iscoroutine(coro)
    coro.close()


@pytest.mark.parametrize("delay", [0, 1])
def test_never_awaited_is_a_warning(sleep, delay):
    with pytest.warns(RuntimeWarning, match="coroutine 'sleep' was never awaited"):
        sleep(delay)
        gc.collect()


@pytest.mark.ctask_only
def test_install_puts_it_in_asyncio_and_uninstall_takes_it_away(sleep):
    import ctask

    before = asyncio.sleep
    assert before is tasks.sleep and before is not sleep
    try:
        ctask.install()
        assert asyncio.sleep is tasks.sleep is sleep
        assert asyncio.run(asyncio.sleep(0, "result")) == "result"
    finally:
        ctask.uninstall()
    assert asyncio.sleep is tasks.sleep is before


@pytest.mark.parametrize("delay", [0, 0.001])
def test_can_be_awaited_once_only(run, sleep, delay):
    async def main():
        coro = sleep(delay)
        await coro
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await coro

    run(main())


@pytest.mark.parametrize("delay", [0, 60])
def test_closed_while_it_sleeps(impl, loop, run, sleep, delay):
    async def main():
        coro = sleep(delay)
        coro.send(None)
        assert inspect.getcoroutinestate(coro) == inspect.CORO_SUSPENDED
        coro.close()
        assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
        with pytest.raises(RuntimeError):
            coro.send(None)
        assert timers(impl, loop) == []

    run(main())


def test_let_go_while_it_sleeps(impl, loop, run, sleep):
    async def main():
        coro = sleep(60)
        coro.send(None)
        assert len(timers(impl, loop)) == 1
        del coro
        gc.collect()
        assert timers(impl, loop) == []

    run(main())


def test_can_be_pickled_by_name(sleep):
    import pickle

    assert pickle.loads(pickle.dumps(sleep)) is sleep


@pytest.mark.ctask_only
def test_is_part_of_the_package(sleep):
    import ctask

    assert "sleep" in ctask.__all__
    assert sleep.__module__.startswith("ctask")


def test_shows_where_it_sleeps(loop, run, sleep):
    async def main():
        coro = sleep(60)
        task = loop.create_task(coro)
        await asyncio.sleep(0)
        (frame,) = task.get_stack()
        assert frame.f_code is coro.cr_code
        assert frame.f_code.co_name == "sleep"
        assert "coro=<sleep() running at " in repr(task)
        assert coro.cr_await is not None
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert coro.cr_frame is None
        assert "coro=<sleep() done, defined at " in repr(task)

    run(main())
