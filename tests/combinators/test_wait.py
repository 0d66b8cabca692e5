"""wait: until some of many futures are done; the same on asyncio's own function."""

import asyncio
import gc
import inspect
import sys
import unittest.mock

import pytest
from conftest import primitive, turns

MODES = [asyncio.ALL_COMPLETED, asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION]


wait = primitive("wait")


def running(n, x=None):
    return asyncio.ensure_future(turns(n, x))


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset, dict.fromkeys, iter])
def test_all_of_any_collection(run, wait, kind):
    async def body():
        tasks = [running(i) for i in range(12)]
        done, pending = await wait(kind(tasks))
        assert type(done) is set
        assert done == set(tasks)
        assert pending == set()
        assert all(task.done() for task in tasks)

    run(body())


@pytest.mark.parametrize("n", [2, 20])
def test_duplicates_count_once(run, wait, n):
    async def body():
        tasks = [running(1), running(2)]
        done, pending = await wait(tasks * n)
        return done == set(tasks), pending

    assert run(body()) == (True, set())


def test_futures_that_are_done_already_take_a_turn(run, loop, wait, make_future):
    seen = []

    async def body():
        futures = [make_future(), make_future()]
        for fut in futures:
            fut.set_result(1)
        loop.call_soon(seen.append, "turn")
        done, pending = await wait(futures)
        assert seen == ["turn"]
        return len(done), len(pending)

    assert run(body()) == (2, 0)


def test_first_completed(run, wait, make_future):
    async def body():
        first, second = make_future(), make_future()
        asyncio.get_running_loop().call_soon(first.set_result, 1)
        done, pending = await wait([first, second], return_when=asyncio.FIRST_COMPLETED)
        assert done == {first}
        assert pending == {second}
        assert first._callbacks is None or first._callbacks == []
        assert not second._callbacks
        second.cancel()

    run(body())


def test_those_that_end_in_the_same_turn_are_done(run, wait, make_future):
    async def body():
        futures = [make_future() for _ in range(3)]
        for fut in futures[:2]:
            asyncio.get_running_loop().call_soon(fut.set_result, 1)
        done, pending = await wait(futures, return_when=asyncio.FIRST_COMPLETED)
        assert done == set(futures[:2])
        futures[2].cancel()

    run(body())


def test_first_exception(run, wait, make_future):
    async def body():
        result, cancelled, failed, pending_one = (make_future() for _ in range(4))
        soon = asyncio.get_running_loop().call_soon
        soon(result.set_result, 1)
        soon(cancelled.cancel)
        waiting = asyncio.ensure_future(
            wait([result, cancelled, failed, pending_one], return_when=asyncio.FIRST_EXCEPTION)
        )
        await turns(4)
        assert not waiting.done()
        failed.set_exception(ValueError("first"))
        done, pending = await waiting
        assert done == {result, cancelled, failed}
        assert pending == {pending_one}
        pending_one.cancel()

    run(body())


def test_first_exception_without_one_waits_for_all(run, wait):
    async def body():
        tasks = [running(1), running(5)]
        done, pending = await wait(tasks, return_when="FIRST_EXCEPTION")
        return len(done), len(pending)

    assert run(body()) == (2, 0)


def test_exceptions_stay_where_they_are(run, wait, logs):
    async def fail():
        raise ValueError("lost")

    async def body():
        done, pending = await wait([asyncio.ensure_future(fail())])
        assert pending == set()

    run(body())
    gc.collect()
    assert any("never retrieved" in record.getMessage() for record in logs.take())


@pytest.mark.parametrize("timeout", [0, 0.001, 1])
def test_timeout_with_nothing_done(run, wait, make_future, timeout):
    async def body():
        fut = make_future()
        if timeout == 1:
            asyncio.get_running_loop().call_soon(fut.set_result, 1)
        done, pending = await wait([fut], timeout=timeout)
        assert (done, pending) == (({fut}, set()) if timeout == 1 else (set(), {fut}))
        assert not fut._callbacks
        fut.cancel()

    run(body())


def test_timer_is_cancelled_in_time(run, loop, wait):
    async def body():
        task = running(1)
        await wait([task], timeout=3600)
        assert all(timer.cancelled() for timer in loop._scheduled)

    run(body())


def test_timeout_none(run, wait):
    async def body():
        return await wait([running(1, "x")], timeout=None)

    done, _ = run(body())
    assert done.pop().result() == "x"


def test_wrong_timeout(run, wait):
    async def body():
        task = running(1)
        with pytest.raises(TypeError):
            await wait([task], timeout="soon")
        await task

    run(body())


def test_cancelled_wait_leaves_the_futures_alone(run, loop, wait, make_future):
    async def body():
        futures = [make_future(), make_future()]
        waiting = asyncio.ensure_future(wait(futures, timeout=3600))
        await turns(2)
        assert all(fut._callbacks for fut in futures)
        waiting.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await waiting
        assert all(timer.cancelled() for timer in loop._scheduled)
        assert not any(fut._callbacks for fut in futures)
        assert not any(fut.done() for fut in futures)

    run(body())


def test_other_callbacks_stay(run, loop, wait, make_future):
    seen = []

    async def body():
        fut = make_future()
        fut.add_done_callback(seen.append)
        await wait([fut], timeout=0)
        fut.add_done_callback(seen.append)
        fut.set_result(1)
        await turns(2)
        return seen == [fut, fut]

    assert run(body())
    seen.clear()


@pytest.mark.parametrize("mode", MODES)
def test_nothing_to_wait_for(run, wait, mode):
    async def body():
        with pytest.raises(ValueError, match=r"Set of Tasks/Futures is empty"):
            await wait([], return_when=mode)

    run(body())


def test_wrong_return_when(run, wait):
    async def body():
        task = running(1)
        for wrong in ("SOME", 1, None):
            with pytest.raises(ValueError, match="Invalid return_when value"):
                await wait([task], return_when=wrong)
        await task

    run(body())


def test_coroutines_are_refused(run, wait):
    async def body():
        coro = turns(1)
        with pytest.raises(TypeError, match="coroutines is forbidden"):
            await wait([coro])
        with pytest.raises(TypeError, match="expect a list of futures, not coroutine"):
            await wait(coro)
        coro.close()

    run(body())


def test_a_future_is_refused(run, loop, wait):
    async def body():
        fut = loop.create_future()
        with pytest.raises(TypeError, match="expect a list of futures, not "):
            await wait(fut)

    run(body())


def test_what_is_no_future_is_refused(run, wait):
    async def body():
        with pytest.raises(AttributeError):
            await wait([1])
        with pytest.raises(TypeError, match="unhashable"):
            await wait([[]])

    run(body())


def test_look_alikes_of_futures(run, wait):
    async def body():
        mock = unittest.mock.Mock()
        mock.add_done_callback.side_effect = lambda callback: asyncio.get_running_loop().call_soon(
            callback, mock
        )
        mock.done.return_value = True
        done, pending = await wait([mock])
        assert done == {mock}
        mock.remove_done_callback.assert_called_once()

    run(body())


def test_mistakes_show_when_it_is_awaited(run, wait):
    async def body():
        coro = wait([])
        assert inspect.iscoroutine(coro)
        assert coro.__name__ == "wait"
        with pytest.raises(ValueError):
            await coro

    run(body())


def test_wrong_arguments(wait):
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        wait()
    with pytest.raises(TypeError, match="positional"):
        wait([], 1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'loop'"):
        wait([], loop=None)


def test_futures_of_another_loop(impl, run, wait):
    other = impl.new_event_loop()
    fut = impl.Future(loop=other)

    async def body():
        # Nobody checks: the callback goes to the other loop.
        done, pending = await wait([fut], timeout=0)
        assert pending == {fut}

    run(body())
    other.close()


@pytest.mark.parametrize("debug", [False, True])
def test_debug_mode(loop, run, wait, debug):
    loop.set_debug(debug)

    async def body():
        done, pending = await wait([running(1), running(2)], timeout=60)
        return len(done)

    assert run(body()) == 2


def test_on_a_loop_that_is_not_ours(wait):
    async def body():
        done, pending = await wait([running(1), running(2)], timeout=60)
        return len(done)

    loop = asyncio.SelectorEventLoop()
    assert loop.run_until_complete(body()) == 2
    loop.close()


def test_callbacks_look_like_asyncios(run, loop, wait):
    async def body():
        fut = loop.create_future()
        waiting = asyncio.ensure_future(wait([fut]))
        await turns(1)
        assert "cb=[_wait.<locals>._on_completion()" in repr(fut)
        fut.set_result(1)
        await waiting

    run(body())


def test_wait_that_is_closed_while_it_waits(run, loop, wait):
    async def body():
        fut = loop.create_future()
        coro = wait([fut])
        assert coro.send(None) is not None
        assert fut._callbacks
        coro.close()
        assert not fut._callbacks

    run(body())


def test_children_that_are_cancelled_by_the_caller(run, wait):
    async def body():
        tasks = [running(99) for _ in range(3)]
        await turns(2)
        for task in tasks:
            task.cancel()
        done, pending = await wait(tasks)
        assert all(task.cancelled() for task in done)
        return len(done), len(pending)

    assert run(body()) == (3, 0)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="the call graph came with 3.14")
def test_call_graph(loop, run, wait):
    async def body():
        first, second = loop.create_future(), loop.create_future()
        waiting = asyncio.ensure_future(wait([first, second], return_when="FIRST_COMPLETED"))
        await turns(1)
        assert first._asyncio_awaited_by == {waiting}
        first.set_result(1)
        await turns(1)
        assert first._asyncio_awaited_by is None
        await waiting
        assert second._asyncio_awaited_by is None

    run(body())


def test_it_is_a_coroutine_function(wait):
    assert inspect.iscoroutinefunction(wait)
    assert inspect.signature(wait) == inspect.signature(asyncio.wait)


def test_error_of_remove_done_callback_has_the_cancellation_for_context(loop, run, wait):
    class Stays(asyncio.Future):
        def remove_done_callback(self, fn):
            super().remove_done_callback(fn)
            raise LookupError

    async def body():
        task = asyncio.ensure_future(wait([Stays(loop=loop)]))
        await turns(1)
        task.cancel()
        with pytest.raises(LookupError) as caught:
            await task
        assert isinstance(caught.value.__context__, asyncio.CancelledError)

    run(body())
