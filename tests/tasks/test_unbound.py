"""Methods of asyncio's own types, called by name: `asyncio.Future.set_result(our_future, v)`.

Libraries do this to pass by a subclass's override, or to end a task from outside.
"""

import _asyncio
import asyncio
import contextlib
import contextvars
import gc
import io
import sys

import pytest

before_3_15 = pytest.mark.skipif(sys.version_info >= (3, 15), reason="a second __init__ is refused")

ENDS = {
    "set_result": (lambda fut: _asyncio.Future.set_result(fut, 7), 7),
    "set_exception": (lambda fut: _asyncio.Future.set_exception(fut, KeyError(7)), KeyError),
    "cancel": (lambda fut: _asyncio.Future.cancel(fut, "why"), asyncio.CancelledError),
}


@pytest.fixture(params=list(ENDS))
def end(request):
    return ENDS[request.param]


async def outcome(fut):
    try:
        return await fut
    except BaseException as exc:
        return type(exc)


def test_whoever_waits_for_a_future_wakes(impl, loop, run, start, end):
    ends, expected = end
    fut = impl.Future(loop=loop)
    waiter = start(outcome(fut))
    ends(fut)
    assert run(waiter) == expected


def test_whoever_waits_for_a_task_wakes(impl, loop, run, start, turn, reports, end):
    ends, expected = end
    inner = loop.create_future()

    async def body():
        await inner

    task = start(body())
    waiter = start(outcome(task))
    ends(task)
    assert run(waiter) == expected
    assert task not in asyncio.all_tasks(loop)
    inner.set_result(None)
    turn()
    (report,) = reports.take()
    assert "already done: <Task " in str(report["exception"])
    assert task not in asyncio.all_tasks(loop)


def test_whoever_waits_wakes_in_debug_mode(impl, loop, run, start, end):
    ends, expected = end
    loop.set_debug(True)
    fut = impl.Future(loop=loop)
    waiter = start(outcome(fut))
    ends(fut)
    assert run(waiter) == expected


def test_debug_mode_that_begins_while_somebody_waits(impl, loop, run, start, end):
    ends, expected = end
    fut = impl.Future(loop=loop)
    waiter = start(outcome(fut))
    loop.set_debug(True)
    ends(fut)
    assert run(waiter) == expected


def test_all_that_wait_wake_in_their_order(impl, loop, run, start, end):
    ends, _ = end
    fut = impl.Future(loop=loop)
    order = []

    async def waits(n):
        await outcome(fut)
        order.append(n)

    waiters = [start(waits(n)) for n in range(3)]
    fut.add_done_callback(lambda fut: order.append("callback"))
    ends(fut)
    run(asyncio.wait(waiters))
    assert order == [0, 1, 2, "callback"]


def test_who_waits_goes_on_in_its_context(impl, loop, run, start, end):
    ends, _ = end
    var = contextvars.ContextVar("var", default="outside")
    fut = impl.Future(loop=loop)

    async def waits():
        var.set("inside")
        await outcome(fut)
        return var.get()

    waiter = start(waits())
    contextvars.copy_context().run(ends, fut)
    assert run(waiter) == "inside"


@pytest.mark.parametrize("how", ["wait_for", "shield", "gather", "wait", "group", "timeout"])
def test_who_waits_by_a_function_of_asyncio(impl, loop, run, start, end, how):
    ends, expected = end
    fut = impl.Future(loop=loop)

    async def in_group():
        async with asyncio.TaskGroup() as group:
            task = group.create_task(outcome(fut))
        return task.result()

    async def waits():
        if how == "wait_for":
            return await outcome(asyncio.wait_for(fut, 10))
        if how == "shield":
            return await outcome(asyncio.shield(fut))
        if how == "gather":
            return (await outcome(asyncio.gather(outcome(fut))))[0]
        if how == "wait":
            done, _ = await asyncio.wait([fut])
            return await outcome(done.pop())
        if how == "group":
            return await in_group()
        async with asyncio.timeout(10):
            return await outcome(fut)

    waiter = start(waits())
    ends(fut)
    assert run(waiter) == expected


@pytest.mark.parametrize("when", ["before", "while"])
def test_on_a_loop_whose_call_soon_was_replaced(impl, loop, run, start, end, when):
    ends, expected = end
    calls = []
    original = loop.call_soon

    def call_soon(callback, *args, context=None):
        calls.append(callback)
        return original(callback, *args, context=context)

    if when == "before":
        loop.call_soon = call_soon
    fut = impl.Future(loop=loop)
    waiter = start(outcome(fut))
    loop.call_soon = call_soon
    calls.clear()
    ends(fut)
    assert len(calls) == 1
    assert run(waiter) == expected
    del loop.call_soon


def outcome_on(loop, impl, ends):
    """What a task gets that waits, on a loop of its own, for a future that `ends` ends."""

    async def main():
        fut = impl.Future(loop=loop)
        waiter = impl.Task(outcome(fut), loop=loop)
        await asyncio.sleep(0)
        ends(fut)
        return await waiter

    with contextlib.closing(loop):
        return loop.run_until_complete(main())


def test_on_a_subclass_that_calls_back_otherwise(impl, end):
    ends, expected = end

    class Loop(impl.EventLoop):
        def call_soon(self, callback, *args, context=None):
            return super().call_soon(lambda: callback(*args), context=context)

    assert outcome_on(Loop(), impl, ends) == expected


def test_on_asyncios_own_loop(impl, end):
    ends, expected = end
    assert outcome_on(asyncio.SelectorEventLoop(), impl, ends) == expected


def test_ending_it_twice_is_refused(impl, loop):
    fut = impl.Future(loop=loop)
    _asyncio.Future.set_result(fut, 1)
    with pytest.raises(asyncio.InvalidStateError):
        _asyncio.Future.set_result(fut, 2)
    with pytest.raises(asyncio.InvalidStateError):
        fut.set_result(2)
    assert _asyncio.Future.cancel(fut) is False
    assert _asyncio.Future.result(fut) == fut.result() == 1


def test_on_a_closed_loop(impl, loop, run, turn, start, end):
    ends, _ = end
    fut = impl.Future(loop=loop)
    task = start(outcome(fut))
    loop.close()
    with pytest.raises(RuntimeError, match="^Event loop is closed$"):
        ends(fut)
    task._log_destroy_pending = False
    if fut._exception is not None:
        fut.exception()


def test_callbacks_are_added_and_removed(impl, loop, run, start):
    fut = impl.Future(loop=loop)
    waiter = start(outcome(fut))
    seen = []
    _asyncio.Future.add_done_callback(fut, seen.append)
    _asyncio.Future.add_done_callback(fut, seen.append)
    assert _asyncio.Future.remove_done_callback(fut, seen.append) == 2
    assert _asyncio.Future.remove_done_callback(fut, print) == 0
    _asyncio.Future.add_done_callback(fut, seen.append)
    fut.set_result(7)
    assert run(waiter) == 7
    assert seen == [fut]
    del seen[:]


def test_a_callback_that_was_added_first(impl, loop, run, start, end):
    ends, expected = end
    fut = impl.Future(loop=loop)
    seen = []
    _asyncio.Future.add_done_callback(fut, seen.append)
    waiter = start(outcome(fut))
    ends(fut)
    assert run(waiter) == expected
    assert seen == [fut]
    del seen[:]


def test_questions_to_a_future(impl, loop, run):
    fut = impl.Future(loop=loop)
    ask = _asyncio.Future
    assert not ask.done(fut) and not ask.cancelled(fut) and ask.get_loop(fut) is loop
    with pytest.raises(asyncio.InvalidStateError):
        ask.result(fut)
    with pytest.raises(asyncio.InvalidStateError):
        ask.exception(fut)
    assert repr(fut) == ask.__repr__(fut)
    fut.set_exception(KeyError(1))
    assert isinstance(ask.exception(fut), KeyError)
    with pytest.raises(KeyError):
        ask.result(fut)
    other = impl.Future(loop=loop)
    other.cancel("why")
    assert isinstance(ask._make_cancelled_error(other), asyncio.CancelledError)


def test_await_by_the_base(impl, loop, run, start):
    fut = impl.Future(loop=loop)

    class Awaits:
        def __await__(self):
            return _asyncio.Future.__await__(fut)

    async def waits():
        return await Awaits()

    waiter = start(waits())
    _asyncio.Future.set_result(fut, 7)
    assert run(waiter) == 7


@before_3_15
def test_init_by_the_base_starts_a_future_anew(impl, loop, run, start):
    fut = impl.Future(loop=loop)
    fut.set_result(1)
    _asyncio.Future.__init__(fut, loop=loop)
    waiter = start(outcome(fut))
    fut.set_result(2)
    assert run(waiter) == 2


def test_a_task_that_the_base_initialised(impl, loop, run):
    class Task(impl.Task):
        def __init__(self, coro, *, loop):
            _asyncio.Task.__init__(self, coro, loop=loop)

    async def body():
        await asyncio.sleep(0)
        return asyncio.current_task()

    async def main():
        task = Task(body(), loop=loop)
        assert task in asyncio.all_tasks(loop)
        assert await task is task
        assert task not in asyncio.all_tasks(loop)

    run(main())


def test_a_task_by_itself_that_the_base_initialised(impl, loop, run):
    async def body():
        await asyncio.sleep(0)
        return 7

    async def main():
        task = impl.Task.__new__(impl.Task)
        _asyncio.Task.__init__(task, body(), loop=loop)
        waiter = loop.create_task(outcome(task))
        assert await task == 7
        assert await waiter == 7

    run(main())


def test_super_in_a_class_of_several_bases(impl, loop, run, start):
    class Mixin:
        def set_result(self, result):
            super().set_result(("mixed", result))

    class Mixed(Mixin, impl.Future):
        pass

    class Under(impl.Future):
        def set_result(self, result):
            _asyncio.Future.set_result(self, result)

    for cls, expected in ((Mixed, ("mixed", 7)), (Under, 7)):
        fut = cls(loop=loop)
        waiter = start(outcome(fut))
        fut.set_result(7)
        assert run(waiter) == expected


def test_a_task_is_cancelled(impl, loop, run, start):
    async def waits():
        await loop.create_future()

    task = start(waits())
    assert _asyncio.Task.cancel(task, "why") is True
    assert _asyncio.Task.cancelling(task) == 1
    assert _asyncio.Task.uncancel(task) == 0
    with pytest.raises(asyncio.CancelledError, match="why"):
        run(task)
    assert _asyncio.Task.cancel(task) is False


def test_a_task_refuses_results(impl, loop, run, start):
    fut = loop.create_future()
    task = start(outcome(fut))
    with pytest.raises(RuntimeError, match="Task does not support set_result operation"):
        _asyncio.Task.set_result(task, 1)
    with pytest.raises(RuntimeError, match="Task does not support set_exception operation"):
        _asyncio.Task.set_exception(task, KeyError())
    fut.set_result(7)
    assert run(task) == 7


def test_names_of_tasks(impl, loop, run):
    async def main():
        tasks = [loop.create_task(asyncio.sleep(0)) for _ in range(3)]
        names = [_asyncio.Task.get_name(task) for task in tasks]
        assert all(type(name) is str and name.startswith("Task-") for name in names)
        assert names == [task.get_name() for task in tasks]
        assert sorted(tasks, key=_asyncio.Task.get_name)
        _asyncio.Task.set_name(tasks[0], 12)
        assert tasks[0].get_name() == "12" and "name='12'" in repr(tasks[0])
        await asyncio.wait(tasks)

    run(main())


def test_questions_to_a_task(impl, loop, run, start):
    fut = loop.create_future()
    coro = outcome(fut)
    task = start(coro)
    ask = _asyncio.Task
    assert ask.get_coro(task) is coro
    assert [frame.f_code for frame in ask.get_stack(task)] == [outcome.__code__]
    text = io.StringIO()
    ask.print_stack(task, file=text)
    assert "await fut" in text.getvalue()
    assert ask.__repr__(task) == repr(task)
    fut.set_result(7)
    assert run(task) == 7


def test_attributes_are_the_same_by_the_base(impl, loop, run, start):
    fut = loop.create_future()
    task = start(outcome(fut))
    for cls, obj in ((_asyncio.Future, fut), (_asyncio.Task, task)):
        for name in dir(cls):
            descriptor = getattr(cls, name)
            if name == "_callbacks" or not hasattr(type(descriptor), "__set__"):
                continue
            assert descriptor.__get__(obj) == getattr(obj, name), name
    fut.set_result(7)
    assert run(task) == 7
    gc.collect()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="get_context() came with 3.12")
def test_contexts_of_tasks(impl, loop, run):
    var = contextvars.ContextVar("var", default="outside")

    class Sub(impl.Task):
        pass

    async def body(task_of):
        var.set("inside")
        await asyncio.sleep(0)
        return _asyncio.Task.get_context(task_of[0])

    async def main():
        for cls in (impl.Task, Sub, _asyncio.Task):
            holder = []
            task = cls(body(holder), loop=loop)
            holder.append(task)
            before = _asyncio.Task.get_context(task)
            assert type(before) is contextvars.Context and before is task.get_context()
            await asyncio.sleep(0)
            waiting = _asyncio.Task.get_context(task)
            assert waiting is before and waiting[var] == "inside"
            assert await task is before
            assert _asyncio.Task.get_context(task) is before
            del holder[:]

        tasks = [loop.create_task(asyncio.sleep(0)) for _ in range(3)]
        await asyncio.sleep(0)
        contexts = [*map(_asyncio.Task.get_context, tasks)]
        assert [type(context) for context in contexts] == [contextvars.Context] * 3
        assert contexts == [task.get_context() for task in tasks]
        await asyncio.wait(tasks)

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="get_context() came with 3.12")
def test_get_context_by_the_base_refuses_what_is_no_task():
    with pytest.raises(TypeError):
        _asyncio.Task.get_context(5)
    with pytest.raises(TypeError):
        _asyncio.Task.get_context()
