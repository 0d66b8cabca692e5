"""Eager starts: what the first step sees of its creator, and what is left when one fails."""

import asyncio
import contextlib
import contextvars
import gc
import sys
import threading

import pytest

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")


async def returns(value):
    return value


@pytest.fixture
def start_eagerly(impl, loop):
    return lambda coro, **kwargs: impl.Task(coro, loop=loop, eager_start=True, **kwargs)


@pytest.mark.ctask_only  # asyncio's sees its creator's
def test_an_exception_that_the_creator_handles_is_not_seen(run, start_eagerly):
    async def asks():
        return sys.exception()

    async def reraises():
        raise

    async def raises():
        raise ValueError("own")

    async def main():
        tasks = []
        for coro in (asks, reraises, raises):
            try:
                raise ConnectionError("creator's")
            except ConnectionError as exc:
                tasks.append(start_eagerly(coro()))
                assert sys.exception() is exc
        assert tasks[0].result() is None
        with pytest.raises(RuntimeError, match="^No active exception to reraise$"):
            await tasks[1]
        with pytest.raises(ValueError, match="own") as caught:
            await tasks[2]
        assert caught.value.__context__ is None

    run(main())


@pytest.mark.ctask_only
def test_each_of_several_nested_starts_has_only_its_own_exception(run, start_eagerly):
    seen = []

    async def nested(depth):
        seen.append(sys.exception())
        try:
            raise KeyError(depth)
        except KeyError as exc:
            if depth:
                start_eagerly(nested(depth - 1))
            assert sys.exception() is exc
            await asyncio.sleep(0)
            assert sys.exception() is exc
        seen.append(sys.exception())

    async def main():
        task = start_eagerly(nested(3))
        await task
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)

    run(main())
    assert seen == [None] * 8


@pytest.mark.ctask_only  # asyncio's loop hangs afterwards
@pytest.mark.parametrize("how", ["no context", "entered"])
def test_a_context_that_cannot_be_entered_is_refused(impl, loop, run, start_eagerly, how):
    context = contextvars.copy_context()

    def start():
        coro = returns(1)
        kind = TypeError if how == "no context" else RuntimeError
        with pytest.raises(kind):
            start_eagerly(coro, context=2.5 if how == "no context" else context)
        coro.close()

    async def main():
        me = asyncio.current_task()
        context.run(start)
        assert asyncio.current_task() is me
        assert asyncio.all_tasks() == {me}
        await asyncio.sleep(0)
        assert asyncio.current_task() is me
        assert start_eagerly(returns(1)).result() == 1

    run(main())
    gc.collect()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_exit_in_an_eager_start_leaves_all_as_it_was(run, start_eagerly, logs, reports, kind):
    var = contextvars.ContextVar("var", default="creator's")

    async def body():
        var.set("task's")
        raise kind

    async def main():
        me = asyncio.current_task()
        with pytest.raises(kind):
            start_eagerly(body())
        assert asyncio.current_task() is me
        assert asyncio.all_tasks() == {me}
        assert var.get() == "creator's"
        await asyncio.sleep(0)
        assert asyncio.current_task() is me

    run(main())
    gc.collect()
    assert [r["message"] for r in reports.take()] == ["Task exception was never retrieved"]


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="refused from 3.14 on")
@pytest.mark.ctask_only  # asyncio's takes the loop's current task away from a step that runs
def test_start_in_another_thread_leaves_the_loops_current_task_alone(loop, run, start_eagerly):
    seen = []

    async def body(started, may_end):
        started.set()
        may_end.wait()
        return threading.get_ident()

    async def main():
        me = asyncio.current_task()
        started, may_end = threading.Event(), threading.Event()

        def starts():
            seen.append(start_eagerly(body(started, may_end)).result())

        thread = threading.Thread(target=starts)
        thread.start()
        started.wait()
        assert asyncio.current_task() is me
        await asyncio.sleep(0)
        assert asyncio.current_task() is me
        may_end.set()
        thread.join()
        assert seen == [thread.ident]
        assert asyncio.current_task() is me
        await asyncio.sleep(0)
        assert asyncio.current_task() is me

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 14), reason="not refused up to 3.13")
def test_start_in_another_thread_is_refused(loop, run, start_eagerly, logs):
    refused = []

    def starts():
        coro = returns(1)
        with pytest.raises(RuntimeError) as caught:
            start_eagerly(coro)
        coro.close()
        refused.append(str(caught.value))

    async def main():
        thread = threading.Thread(target=starts)
        thread.start()
        thread.join()
        assert len(refused) == 1 and refused[0].endswith("is not the running loop")
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())
    gc.collect()
    (record,) = logs.take()
    assert record.getMessage().startswith("Task was destroyed but it is pending!")


def test_the_context_is_left_though_the_task_cannot_be(loop, run, start_eagerly):
    var = contextvars.ContextVar("var", default="outside")

    async def leaves():
        var.set("inside")
        asyncio._set_running_loop(None)

    async def main():
        current = asyncio.current_task()
        with contextlib.suppress(RuntimeError):  # from 3.14 on: the loop does not run any more
            start_eagerly(leaves())
        asyncio._set_running_loop(loop)
        asyncio.tasks._swap_current_task(loop, current)
        return var.get()

    assert run(main()) == "outside"
