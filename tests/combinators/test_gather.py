"""gather and ensure_future: one future for many; the same on asyncio's own functions."""

import asyncio
import contextvars
import gc
import inspect
import pickle
import sys
import unittest.mock
import weakref
from asyncio import tasks

import pytest
from conftest import primitive, turns

gather = primitive("gather")
ensure_future = primitive("ensure_future")


async def value(x):
    return x


async def fail(exc):
    raise exc


class Awaitable:
    def __init__(self, x):
        self.x = x

    def __await__(self):
        yield
        return self.x


class Equal(Awaitable):
    """Awaitables that are equal to each other."""

    def __eq__(self, other):
        return type(other) is Equal

    def __hash__(self):
        return 7


# ---- results ----


@pytest.mark.parametrize("n", [1, 2, 8, 9, 100])
def test_results_come_in_the_order_of_the_arguments(run, gather, n):
    async def body():
        return await gather(*[turns(n - i, i) for i in range(n)])

    assert run(body()) == list(range(n))


def test_nothing_to_gather_is_done_at_once(run, gather):
    async def body():
        fut = gather()
        assert fut.done()
        return await fut

    assert run(body()) == []


def test_futures_of_all_kinds(run, gather, make_future):
    async def body():
        first, second = make_future(), make_future()
        outer = gather(first, value(2), second, Awaitable(4))
        second.set_result(3)
        await turns(2)
        assert not outer.done()
        first.set_result(1)
        return await outer

    assert run(body()) == [1, 2, 3, 4]


@pytest.mark.parametrize("n", [3, 50])
def test_duplicates_run_once_and_count_each_time(run, gather, n):
    ran = []

    async def once():
        ran.append(1)
        return len(ran)

    async def body():
        coro = once()
        fut = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(fut.set_result, "future")
        outer = gather(*[coro, fut] * n)
        assert outer._children[0] is outer._children[2]
        return await outer

    assert run(body()) == [1, "future"] * n
    assert ran == [1]


def test_equal_arguments_are_one_as_in_a_dict(run, gather):
    async def body():
        return await gather(Equal(1), Awaitable(2), Equal(3))

    assert run(body()) == [1, 2, 1]


def test_futures_that_are_done_already(run, gather, make_future):
    async def body():
        first, second = make_future(), make_future()
        first.set_result(1)
        second.set_result(2)
        outer = gather(first, second)
        # From 3.12 on the whole is done at once.
        assert outer.done() == (sys.version_info >= (3, 12))
        return await outer

    assert run(body()) == [1, 2]


@pytest.mark.parametrize("return_exceptions", [False, True])
def test_done_and_failed_futures_among_others(run, gather, make_future, return_exceptions):
    exc = ValueError("done")

    async def body():
        failed = make_future()
        failed.set_exception(exc)
        outer = gather(value(1), failed, return_exceptions=return_exceptions)
        try:
            return await outer
        except ValueError as caught:
            await turns(2)
            return caught

    assert run(body()) == ([1, exc] if return_exceptions else exc)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_eager_tasks_end_before_gather_returns(loop, run, gather):
    loop.set_task_factory(asyncio.eager_task_factory)

    async def body():
        whole = gather(value(1), value(2))
        assert whole.done()
        part = gather(value(1), turns(1, 2))
        assert not part.done()
        return await whole, await part

    assert run(body()) == ([1, 2], [1, 2])


def test_callbacks_run_a_turn_after_the_children(loop, turn, gather):
    seen = []

    async def child():
        seen.append("child")

    def start():
        outer = gather(child())
        outer.add_done_callback(lambda fut: seen.append("outer"))
        loop.call_soon(seen.append, "behind the child")

    loop.call_soon(start)
    turn()
    assert seen == []
    turn()
    assert seen == ["child", "behind the child"]
    turn()  # the child's callback
    assert seen[2:] == []
    turn()
    assert seen[2:] == ["outer"]


def test_outer_callback_has_its_context_and_no_current_task(loop, run, gather):
    var = contextvars.ContextVar("var", default="none")
    seen = []

    async def child():
        var.set("child")

    async def body():
        var.set("body")
        outer = gather(child(), child())
        outer.add_done_callback(lambda fut: seen.append((var.get(), asyncio.current_task())))
        var.set("later")
        await outer
        await turns(1)

    run(body())
    assert seen == [("body", None)]


# ---- exceptions ----


def test_first_exception_goes_to_the_caller_and_the_others_go_on(run, gather):
    async def body():
        other = asyncio.ensure_future(turns(5, "other"))
        with pytest.raises(ValueError, match="first"):
            await gather(turns(3), fail(ValueError("first")), other)
        assert not other.done()
        return await other

    assert run(body()) == "other"


def test_later_exceptions_count_as_retrieved(loop, run, gather, logs):
    async def late():
        await turns(2)
        raise KeyError("late")

    async def body():
        outer = gather(fail(ValueError("first")), late())
        with pytest.raises(ValueError):
            await outer
        await turns(4)

    run(body())
    gc.collect()
    assert logs == []


def test_exceptions_as_results(run, gather, make_future):
    exc = ValueError("a result")

    async def body():
        failed = make_future()
        outer = gather(fail(exc), value(1), failed, return_exceptions=True)
        failed.set_exception(exc)
        return await outer

    assert run(body()) == [exc, 1, exc]


@pytest.mark.parametrize("message", [None, "message"])
def test_cancelled_child_as_result(run, gather, make_future, message):
    async def body():
        child = make_future()
        outer = gather(child, value(1), return_exceptions=True)
        child.cancel(message)
        return await outer

    exc, one = run(body())
    assert type(exc) is asyncio.CancelledError
    assert exc.args == ("" if message is None else message,)
    assert one == 1


def test_cancelled_child_fails_the_whole_which_is_not_cancelled(run, gather, make_future):
    async def body():
        child, other = make_future(), make_future()
        outer = gather(child, other)
        child.cancel("message")
        with pytest.raises(asyncio.CancelledError) as caught:
            await outer
        assert not outer.cancelled()
        assert not other.cancelled()
        other.cancel()
        return caught.value

    assert run(body()).args == ("message",)


def test_base_exception_of_a_child(loop, gather):
    class Strange(BaseException):
        pass

    async def body():
        return await gather(fail(Strange("base")), value(1))

    with pytest.raises(Strange):
        loop.run_until_complete(body())


# ---- cancelling ----


def test_cancel_reaches_every_child(run, gather, make_future):
    async def body():
        futures = [make_future(), make_future()]
        waiting = [asyncio.ensure_future(turns(99)) for _ in range(2)]
        outer = gather(*futures, *waiting, turns(99))
        await turns(2)
        assert not outer._cancel_requested
        assert outer.cancel("why") is True
        assert outer._cancel_requested is True
        assert not outer.done()
        with pytest.raises(asyncio.CancelledError) as caught:
            await outer
        await turns(2)
        assert all(fut.cancelled() for fut in futures + waiting)
        assert outer.cancel() is False
        return caught.value

    assert run(body()).args == ("why",)


def test_cancel_with_exceptions_as_results_still_cancels(run, gather):
    async def body():
        outer = gather(turns(99), turns(99), return_exceptions=True)
        await turns(1)
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer

    run(body())


def test_cancel_when_all_children_are_done_does_nothing(run, gather):
    async def body():
        child = asyncio.ensure_future(value(1))
        outer = gather(child)
        while not child.done():
            await turns(1)
        if outer.done():
            outer = gather(asyncio.ensure_future(child))
        cancelled = outer.cancel()
        return cancelled, await outer

    assert run(body()) == (False, [1])


def test_cancelled_waiter_cancels_the_children(run, gather):
    async def body():
        children = [asyncio.ensure_future(turns(99)) for _ in range(3)]

        async def waiter():
            await gather(*children)

        task = asyncio.ensure_future(waiter())
        await turns(2)
        task.cancel("from above")
        with pytest.raises(asyncio.CancelledError):
            await task
        return [child.cancelled() for child in children]

    assert run(body()) == [True] * 3


def test_nested_gathers_are_cancelled_through(run, gather):
    async def body():
        leaf = asyncio.get_running_loop().create_future()
        outer = gather(gather(gather(leaf)), value(1))
        await turns(1)
        assert outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer
        return leaf.cancelled()

    assert run(body()) is True


def test_cancel_goes_to_what_children_has(run, gather):
    async def body():
        one = asyncio.get_running_loop().create_future()
        outer = gather(one)
        child = unittest.mock.Mock()
        child.cancel.return_value = True
        outer._children = [child]
        assert outer.cancel(msg="mock")
        child.cancel.assert_called_once_with(msg="mock")
        one.set_result(None)
        with pytest.raises(asyncio.CancelledError):
            await outer

    run(body())


def test_cancel_method_set_on_a_child_is_called(run, gather):
    async def body():
        child = asyncio.ensure_future(turns(3, "ended"))
        child.cancel = unittest.mock.Mock(return_value=False)
        outer = gather(child)
        assert outer.cancel(msg="mock") is False
        child.cancel.assert_called_once_with(msg="mock")
        result = await outer
        del child.cancel
        return result

    assert run(body()) == ["ended"]


# ---- arguments ----


def test_what_is_no_awaitable_is_refused_and_the_rest_runs_on(run, gather):
    ran = []

    async def child():
        ran.append(1)
        raise ValueError("nobody sees it")

    async def body():
        coro = child()
        with pytest.raises(TypeError, match="An asyncio.Future, a coroutine or an awaitable"):
            gather(coro, object())
        await turns(3)

    run(body())
    assert ran == [1]


def test_unhashable_argument(run, gather):
    async def body():
        with pytest.raises(TypeError, match="unhashable"):
            gather([])

    run(body())


def test_unknown_keyword(run, gather):
    async def body():
        with pytest.raises(TypeError, match="unexpected keyword argument 'timeout'"):
            gather(timeout=1)

    run(body())


def test_future_of_another_loop_is_refused(impl, run, gather):
    other = impl.new_event_loop()
    mine = impl.Future(loop=other)

    async def body():
        first = asyncio.get_running_loop().create_future()
        with pytest.raises(ValueError, match="belongs to a different loop"):
            gather(first, mine)
        first.cancel()

    run(body())
    other.close()


def test_futures_know_the_loop_when_none_runs(impl, loop, run, gather):
    futures = [impl.Future(loop=loop) for _ in range(2)]
    outer = gather(*futures)
    assert outer.get_loop() is loop
    for i, fut in enumerate(futures):
        fut.set_result(i)
    assert run(outer) == [0, 1]


def test_closed_loop_closes_the_coroutine(loop, run, gather):
    async def body():
        coro = value(1)
        with (
            unittest.mock.patch.object(
                type(loop), "create_task", side_effect=RuntimeError("closed")
            ),
            pytest.raises(RuntimeError, match="closed"),
        ):
            gather(coro)
        with pytest.raises(RuntimeError, match="cannot reuse"):
            coro.send(None)

    run(body())


def test_create_task_of_a_subclass_is_called(impl, gather):
    names = []

    class Loop(impl.EventLoop):
        def create_task(self, coro, **kwargs):
            names.append(coro.__name__)
            return super().create_task(coro, **kwargs)

    async def body():
        return await gather(value(1), turns(2, 2))

    loop = Loop()
    assert loop.run_until_complete(body()) == [1, 2]
    assert names == ["body", "value", "turns"]
    loop.close()


def test_create_task_set_on_the_loop_is_called(loop, run, gather):
    names = []

    async def body():
        create = loop.create_task
        loop.create_task = lambda coro: (names.append(coro.__name__), create(coro))[1]
        try:
            return await gather(value(1))
        finally:
            del loop.create_task

    assert run(body()) == [1]
    assert names == ["value"]


def test_task_factory_is_used(impl, loop, run, gather):
    made = []

    def factory(loop, coro, **kwargs):
        made.append(coro.__name__)
        return asyncio.Task(coro, loop=loop, **kwargs)

    async def body():
        loop.set_task_factory(factory)
        return await gather(value(1), value(2))

    assert run(body()) == [1, 2]
    assert made == ["value", "value"]


# ---- what it returns ----


def test_type_and_repr(run, impl, gather):
    async def body():
        outer = gather(turns(2))
        assert isinstance(outer, tasks._GatheringFuture)
        assert isinstance(outer, impl.Future)
        assert type(outer).__name__ == "_GatheringFuture"
        assert repr(outer) == "<_GatheringFuture pending>"
        with pytest.raises(AttributeError, match="^'_GatheringFuture' object has no attribute"):
            outer.get_name()
        assert "cb=[gather.<locals>._done_callback()" in repr(outer._children[0])
        assert len(outer._children) == 1
        await outer
        assert repr(outer) == "<_GatheringFuture finished result=[None]>"

    run(body())


def test_outer_takes_attributes_and_weak_references(run, gather):
    async def body():
        outer = gather(value(1))
        outer.mark = "mark"
        assert weakref.ref(outer)() is outer
        await outer
        return outer.mark

    assert run(body()) == "mark"


def test_subclass_of_the_future(loop, run):
    class Gathering(tasks._GatheringFuture):
        def cancel(self, msg=None):
            return super().cancel(msg=f"{msg}!")

    async def body():
        child = loop.create_future()
        outer = Gathering([child], loop=loop)
        assert outer.cancel("msg") is True
        assert outer._cancel_requested
        with pytest.raises(asyncio.CancelledError) as caught:
            await child
        outer.set_result(None)
        return caught.value.args

    assert run(body()) == ("msg!",)


def test_never_retrieved_exception_is_reported(loop, run, gather, logs):
    async def body():
        outer = gather(fail(ValueError("lost")))
        await turns(3)
        assert outer.done()

    run(body())
    gc.collect()
    assert any("never retrieved" in r.getMessage() for r in logs.take())


def test_pending_children_that_nobody_has_are_collected_silently(loop, run, gather, logs):
    async def forever():
        await loop.create_future()

    async def body():
        gather(forever(), forever())
        await turns(2)

    run(body())
    gc.collect()
    assert logs == []


def test_gathered_children_keep_the_outer_alive(loop, run, gather):
    async def body():
        child = loop.create_future()
        ref = weakref.ref(gather(child))
        gc.collect()
        assert ref() is not None
        child.set_result(1)
        await turns(2)
        gc.collect()
        assert ref() is None

    run(body())


@pytest.mark.parametrize("debug", [False, True])
def test_debug_mode(loop, run, gather, debug):
    loop.set_debug(debug)

    async def body():
        outer = gather(value(1), turns(1, 2))
        assert bool(outer._source_traceback) == debug
        return await outer

    assert run(body()) == [1, 2]


def test_remove_done_callback_of_a_child(loop, run, gather):
    async def body():
        child = loop.create_future()
        outer = gather(child)
        ((callback, context),) = child._callbacks
        assert callable(callback)
        assert isinstance(context, contextvars.Context)
        assert callback.__qualname__ == "gather.<locals>._done_callback"
        assert child.remove_done_callback(callback) == 1
        child.set_result(1)
        await turns(2)
        assert not outer.done()
        callback(child)
        return await outer

    assert run(body()) == [1]


def test_callback_of_a_pending_child(loop, run, gather):
    async def body():
        child, other = loop.create_future(), loop.create_future()
        outer = gather(child)
        ((callback, _),) = child._callbacks
        with pytest.raises(asyncio.InvalidStateError):
            callback(other)
        child.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer

    run(body())


def test_children_on_a_loop_that_is_not_ours(gather):
    async def body():
        return await gather(value(1), turns(2, 2), Awaitable(3))

    loop = asyncio.SelectorEventLoop()
    assert loop.run_until_complete(body()) == [1, 2, 3]
    loop.close()


@pytest.mark.skipif(sys.version_info < (3, 14), reason="the call graph came with 3.14")
def test_call_graph(loop, run, gather):
    async def body():
        me = asyncio.current_task()
        child, other = loop.create_future(), loop.create_future()
        outer = gather(child, other)
        assert child._asyncio_awaited_by == {me}
        child.set_exception(ValueError("over"))
        with pytest.raises(ValueError):
            await outer
        assert child._asyncio_awaited_by is None
        assert other._asyncio_awaited_by is None
        other.cancel()

    run(body())


# ---- ensure_future ----


def test_ensure_future_makes_a_task_of_a_coroutine(run, impl, ensure_future):
    async def body():
        task = ensure_future(value(1))
        assert type(task) is impl.Task
        return await task

    assert run(body()) == 1


def test_ensure_future_returns_futures_as_they_are(loop, run, ensure_future, make_future):
    fut = make_future()
    assert ensure_future(fut) is fut
    assert ensure_future(fut, loop=loop) is fut
    assert ensure_future(fut, loop=None) is fut


def test_ensure_future_of_an_awaitable(run, ensure_future):
    async def body():
        return await ensure_future(Awaitable(5))

    assert run(body()) == 5


def test_ensure_future_on_a_loop_that_does_not_run(loop, run, ensure_future):
    task = ensure_future(value(1), loop=loop)
    assert run(task) == 1


def test_ensure_future_without_a_loop(ensure_future):
    asyncio.set_event_loop(None)
    coro = value(1)
    with pytest.raises(RuntimeError, match="There is no current event loop"):
        ensure_future(coro)
    coro.close()


@pytest.mark.parametrize("wrong", [1, None, "text", object()])
def test_ensure_future_refuses_what_is_no_awaitable(run, ensure_future, wrong):
    async def body():
        with pytest.raises(TypeError, match="An asyncio.Future, a coroutine or an awaitable"):
            ensure_future(wrong)

    run(body())


def test_ensure_future_with_another_loop(impl, loop, ensure_future):
    other = impl.new_event_loop()
    with pytest.raises(ValueError, match="belongs to a different loop"):
        ensure_future(impl.Future(loop=loop), loop=other)
    other.close()


def test_ensure_future_wrong_arguments(ensure_future):
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        ensure_future()
    with pytest.raises(TypeError, match="positional"):
        ensure_future(1, 2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'name'"):
        ensure_future(1, name=2)


# ---- Task.cancel ----


@pytest.mark.parametrize("how", [lambda t: t.cancel("m"), lambda t: t.cancel(msg="m")])
def test_cancel_message_arrives(loop, run, how):
    async def body():
        task = asyncio.ensure_future(turns(99))
        await turns(1)
        assert how(task) is True
        assert task.cancelling() == 1
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert task.cancel() is False
        return caught.value.args

    assert run(body()) == ("m",)


def test_cancel_wrong_arguments(run):
    async def body():
        task = asyncio.ensure_future(value(1))
        for arguments in ({"why": 1}, {"msg": 1, "more": 2}):
            with pytest.raises(TypeError):
                task.cancel(**arguments)
        with pytest.raises(TypeError):
            task.cancel(1, 2)
        assert task.cancelling() == 0
        return await task

    assert run(body()) == 1


def test_cancel_calls_the_method_of_a_foreign_waiter(loop, run):
    class Waiter(asyncio.Future):
        def cancel(self, msg=None):
            self.message = msg
            return super().cancel(msg=msg)

    async def body():
        fut = Waiter(loop=loop)

        async def wait():
            await fut

        task = asyncio.ensure_future(wait())
        await turns(1)
        task.cancel("told")
        with pytest.raises(asyncio.CancelledError):
            await task
        return fut.message

    assert run(body()) == "told"


def test_cancel_through_a_chain_too_deep_for_the_stack_is_an_error(loop, run):
    async def body():
        bottom = loop.create_future()

        async def wait(fut):
            await fut

        tail = bottom
        chain = []
        for _ in range(3 * 200_000 // 100):
            tail = asyncio.ensure_future(wait(tail))
            chain.append(tail)
        await turns(2)
        try:
            tail.cancel()
        except RecursionError:
            pass
        bottom.cancel()
        results = await asyncio.gather(*chain, return_exceptions=True)
        assert {type(result) for result in results} == {asyncio.CancelledError}

    run(body())


# ---- they pass for asyncio's ----


def test_they_are_functions_to_who_asks(gather, ensure_future):
    assert inspect.signature(gather) == inspect.signature(asyncio.gather)
    assert not inspect.iscoroutinefunction(gather)
    assert gather.__name__ == "gather"
    assert ensure_future.__name__ == "ensure_future"
    assert gather.__doc__


def test_they_can_be_pickled(gather, ensure_future):
    assert pickle.loads(pickle.dumps(gather)) is gather
    assert pickle.loads(pickle.dumps(ensure_future)) is ensure_future


# ---- without memory ----


@pytest.mark.ctask_only  # asyncio's never ends
def test_no_memory_for_the_results_ends_it(script):
    pytest.importorskip("_testcapi")
    out = script("""
    import _testcapi

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: None)
        for n in range(12):
            futures = [loop.create_future() for _ in range(12)]
            outer = impl_gather(*futures, return_exceptions=True)
            loop.call_soon(_testcapi.set_nomemory, n, n + 1)
            for future in futures:
                future.set_result(1)
            loop.call_soon(_testcapi.remove_mem_hooks)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            _testcapi.remove_mem_hooks()
            assert outer.done(), n
            assert outer.exception() is None or type(outer.exception()) is MemoryError

    import ctask
    impl_gather = ctask.gather
    ctask.run(main())
    print("done")
    """)
    assert out.out == "done\n"


def test_a_child_is_done_that_cannot_be_asked_after_one_that_failed(stands):
    stands("""
class Odd(impl.Future):
    def cancelled(self):
        raise LookupError

async def main():
    failed, odd = loop.create_future(), Odd(loop=loop)
    failed.set_exception(ValueError())
    odd.set_result(None)
    try:
        await impl.gather(failed, odd)
    except LookupError:
        return "raised"
    except ValueError:  # up to 3.11 it is asked later
        return "failed"

assert loop.run_until_complete(main()) == ("raised" if sys.version_info >= (3, 12) else "failed")
gc.collect()
""")
