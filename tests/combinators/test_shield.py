"""shield: cancelled in place of what it waits for; the same on asyncio's own function."""

import asyncio
import contextvars
import gc
import inspect
import sys

import pytest
from conftest import primitive, turns

shield = primitive("shield")


def test_result_of_a_coroutine(run, shield):
    async def body():
        return await shield(turns(2, "result"))

    assert run(body()) == "result"


def test_result_of_a_future(run, loop, shield, make_future):
    async def body():
        inner = make_future()
        outer = shield(inner)
        assert outer is not inner
        loop.call_soon(inner.set_result, 1)
        return await outer

    assert run(body()) == 1


def test_exception_passes(run, loop, shield, make_future):
    async def body():
        inner = make_future()
        loop.call_soon(inner.set_exception, ValueError("inside"))
        with pytest.raises(ValueError, match="inside"):
            await shield(inner)

    run(body())


def test_one_that_is_done_is_returned(run, shield, make_future):
    async def body():
        inner = make_future()
        inner.set_result(1)
        assert shield(inner) is inner

    run(body())


def test_cancelled_inner_cancels_the_outer(run, loop, shield, make_future):
    async def body():
        inner = make_future()
        outer = shield(inner)
        inner.cancel("not passed on")
        with pytest.raises(asyncio.CancelledError) as caught:
            await outer
        assert outer.cancelled()
        return caught.value.args

    assert run(body()) == ()


def test_cancelled_outer_leaves_the_inner(run, shield, make_future):
    async def body():
        inner = make_future()
        outer = shield(inner)
        assert inner._callbacks
        outer.cancel()
        await turns(1)
        assert not inner._callbacks
        assert not inner.done()
        inner.set_result(1)
        with pytest.raises(asyncio.CancelledError):
            await outer
        return await inner

    assert run(body()) == 1


def test_other_callbacks_stay_when_the_outer_is_cancelled(run, loop, shield, make_future):
    seen = []

    async def body():
        inner = make_future()
        inner.add_done_callback(lambda fut: seen.append(1))
        outer = shield(inner)
        inner.add_done_callback(lambda fut: seen.append(2))
        outer.cancel()
        await turns(1)
        assert len(inner._callbacks) == 2
        inner.set_result(None)
        await turns(2)

    run(body())
    assert seen == [1, 2]


def test_cancelled_waiter_leaves_the_task(run, shield):
    async def body():
        inner = asyncio.ensure_future(turns(5, "ended"))

        async def waiter():
            await shield(inner)

        task = asyncio.ensure_future(waiter())
        await turns(2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await inner

    assert run(body()) == "ended"


def test_both_done_in_the_same_turn(run, shield, make_future, logs):
    async def body():
        inner = make_future()
        outer = shield(inner)
        inner.set_exception(ValueError("nobody waits"))
        outer.cancel()
        await turns(2)
        assert outer.cancelled()
        assert inner.done()

    run(body())
    gc.collect()
    # What is said of the exception differs between versions.
    said = [record.getMessage() for record in logs.take()]
    assert len(said) <= 1
    assert all("never retrieved" in text or "shielded" in text for text in said)


def test_outer_that_somebody_has_set(run, loop, shield, make_future, reports):
    async def body():
        inner = make_future()
        outer = shield(inner)
        outer.set_result("early")
        inner.set_result("late")
        await turns(3)
        return await outer

    assert run(body()) == "early"
    (report,) = reports.take()
    assert type(report["exception"]) is asyncio.InvalidStateError
    report.clear()


def test_callbacks_run_in_order_and_context(run, loop, shield):
    var = contextvars.ContextVar("var", default="none")
    seen = []

    async def body():
        inner = loop.create_future()
        var.set("set")
        outer = shield(inner)
        outer.add_done_callback(lambda fut: seen.append((var.get(), asyncio.current_task())))
        inner.set_result(1)
        await turns(1)
        assert outer.done()
        assert seen == []
        await turns(1)

    run(body())
    assert seen == [("set", None)]


def test_wrong_arguments(run, shield):
    async def body():
        with pytest.raises(TypeError, match="An asyncio.Future, a coroutine or an awaitable"):
            shield(1)
        with pytest.raises(TypeError, match="missing 1 required positional argument"):
            shield()
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            shield(1, loop=None)

    run(body())


def test_argument_by_name(run, shield):
    async def body():
        return await shield(arg=turns(1, "named"))

    assert run(body()) == "named"


def test_without_a_loop(shield):
    asyncio.set_event_loop(None)
    coro = turns(1)
    with pytest.raises(RuntimeError):
        shield(coro)
    coro.close()


@pytest.mark.parametrize("debug", [False, True])
def test_debug_mode(loop, run, shield, debug):
    loop.set_debug(debug)

    async def body():
        return await shield(turns(2, 1))

    assert run(body()) == 1


def test_on_a_loop_that_is_not_ours(shield):
    async def body():
        return await shield(turns(2, 1))

    loop = asyncio.SelectorEventLoop()
    assert loop.run_until_complete(body()) == 1
    loop.close()


def test_forgotten_shields_are_collected(run, loop, shield):
    async def body():
        inner = loop.create_future()
        shield(inner)
        del inner
        gc.collect()

    run(body())


@pytest.mark.skipif(sys.version_info < (3, 14), reason="the call graph came with 3.14")
def test_call_graph(loop, run, shield):
    async def body():
        me = asyncio.current_task()
        first, second = loop.create_future(), loop.create_future()
        outer = shield(first)
        assert first._asyncio_awaited_by == {me}
        first.set_result(1)
        await outer
        assert first._asyncio_awaited_by is None
        outer = shield(second)
        outer.cancel()
        await turns(1)
        assert second._asyncio_awaited_by is None

    run(body())


def test_it_is_a_function_to_who_asks(shield):
    assert inspect.signature(shield) == inspect.signature(asyncio.shield)
    assert not inspect.iscoroutinefunction(shield)
