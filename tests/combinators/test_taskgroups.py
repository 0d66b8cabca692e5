"""TaskGroup: tasks that end together; the same on asyncio's own."""

import asyncio
import contextvars
import gc
import inspect
import sys
import weakref
from asyncio import taskgroups

import pytest
from conftest import primitive

pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")

var = contextvars.ContextVar("var", default="unset")

CANCELS = hasattr(taskgroups.TaskGroup, "cancel")
# What 3.13 and later get right: cancel counts, and coroutines that are refused are closed.
EXACT = sys.version_info >= (3, 13)


TaskGroup = primitive("TaskGroup")


LOOPS = ["own", "stock", "debug", "factory", "overridden"]


@pytest.fixture(params=[*LOOPS, "eager"] if sys.version_info >= (3, 12) else LOOPS)
def any_loop(request, impl):
    """Runs a coroutine on loops that make tasks in different ways."""
    kind = request.param
    loop = asyncio.SelectorEventLoop() if kind == "stock" else impl.new_event_loop()
    loop.set_debug(kind == "debug")
    loop.slow_callback_duration = 3600  # nothing is to be logged on a slow machine
    if kind == "factory":
        loop.set_task_factory(lambda loop, coro, **kw: impl.Task(coro, loop=loop, **kw))
    elif kind == "eager":
        loop.set_task_factory(asyncio.eager_task_factory)
    elif kind == "overridden":
        create = loop.create_task
        loop.create_task = lambda *args, **kwargs: create(*args, **kwargs)
        loop.call_soon = lambda *args, _soon=loop.call_soon, **kwargs: _soon(*args, **kwargs)
    yield loop.run_until_complete
    for name in ("create_task", "call_soon"):
        vars(loop).pop(name, None)
    loop.set_task_factory(None)
    loop.close()
    asyncio.set_event_loop(None)


async def forever():
    await asyncio.get_running_loop().create_future()


async def value(result, turns=1):
    for _ in range(turns):
        await asyncio.sleep(0)
    return result


async def fail(exc, turns=1):
    await value(None, turns)
    raise exc


# ---- all goes well ----


@pytest.mark.parametrize("turns", [0, 1, 3])
@pytest.mark.parametrize("n", [0, 1, 2, 100])
def test_all_tasks_are_done_afterwards(any_loop, TaskGroup, n, turns):
    async def body():
        async with TaskGroup() as group:
            made = [group.create_task(value(i, turns)) for i in range(n)]
            assert group._entered and not group._exiting
        assert [task.result() for task in made] == list(range(n))
        assert group._exiting and not group._aborting
        assert group._tasks == set()
        assert group._on_completed_fut is None

    any_loop(body())


def test_tasks_are_held_until_they_are_done(any_loop, TaskGroup):
    async def body():
        async with TaskGroup() as group:
            assert group._parent_task is asyncio.current_task()
            assert group._loop is asyncio.get_running_loop()
            future = asyncio.get_running_loop().create_future()

            async def wait():
                await future

            first, second = group.create_task(wait()), group.create_task(value(1, 0))
            assert type(group._tasks) is set
            assert group._tasks - {second} == {first}
            await second
            await asyncio.sleep(0)
            assert group._tasks == {first}
            assert "tasks=1" in repr(group)
            future.set_result(None)

    any_loop(body())


def test_tasks_that_make_tasks(any_loop, TaskGroup):
    made = []

    async def body():
        async with TaskGroup() as group:

            async def spawn(depth):
                made.append(depth)
                await asyncio.sleep(0)
                if depth < 5:
                    group.create_task(spawn(depth + 1))

            group.create_task(spawn(0))

    any_loop(body())
    assert made == [0, 1, 2, 3, 4, 5]


def test_one_group_in_another(any_loop, TaskGroup):
    async def body():
        async with TaskGroup() as outer:
            task = outer.create_task(value(1, 5))
            async with TaskGroup() as inner:
                inner.create_task(value(2))
            assert not task.done()
        assert task.done()

    any_loop(body())


def test_names_and_contexts(any_loop, TaskGroup):
    async def get():
        return var.get()

    async def body():
        context = contextvars.copy_context()
        context.run(var.set, "given")
        var.set("here")
        async with TaskGroup() as group:
            first = group.create_task(get(), name="a name")
            second = group.create_task(get(), context=context)
            third = group.create_task(get(), name=None, context=None)
            if sys.version_info >= (3, 12):
                assert second.get_context() is context
        assert (first.get_name(), first.result()) == ("a name", "here")
        assert second.result() == "given"
        assert third.result() == "here"

    any_loop(body())


def test_other_arguments(loop, run, TaskGroup):
    async def body():
        async with TaskGroup() as group:
            task = group.create_task(coro=value(3))
            assert await task == 3
            for args, kwargs in (((), {}), ((value(1), 2), {}), ((value(1),), {"what": 1})):
                with pytest.raises(TypeError):
                    group.create_task(*args, **kwargs)
            with pytest.raises(TypeError, match="a coroutine was expected, got 5"):
                group.create_task(5)
            if sys.version_info >= (3, 14):
                task = group.create_task(value(4, 0), eager_start=True)
                assert task.done()
        assert group._tasks == set()

    run(body())


def test_the_constructor_takes_nothing(TaskGroup):
    with pytest.raises(TypeError, match="takes 1 positional argument but 2 were given"):
        TaskGroup(1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'loop'"):
        TaskGroup(loop=None)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="there is no call graph before")
def test_the_call_graph_knows_who_waits(any_loop, TaskGroup):
    async def body():
        async with TaskGroup() as group:
            tasks = [group.create_task(value(i, 2)) for i in range(3)]
            for task in tasks:
                assert set(task._asyncio_awaited_by) == {asyncio.current_task()}
        for task in tasks:
            assert task._asyncio_awaited_by is None

    any_loop(body())


# ---- errors ----


@pytest.mark.parametrize("turns", [0, 1, 3])
def test_one_that_fails_cancels_the_others(any_loop, TaskGroup, turns):
    async def body():
        exc = ValueError("bad")
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup() as group:
                others = [group.create_task(forever()) for _ in range(3)]
                group.create_task(fail(exc, turns))
        assert caught.value.message == "unhandled errors in a TaskGroup"
        assert caught.value.exceptions == (exc,)
        assert caught.value.__cause__ is None
        assert all(task.cancelled() for task in others)
        assert group._aborting
        if EXACT:
            assert asyncio.current_task().cancelling() == 0
        exc.__traceback__ = None

    any_loop(body())


def test_several_that_fail(any_loop, TaskGroup):
    async def body():
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup() as group:
                for i in range(3):
                    group.create_task(fail(KeyError(i)))
        assert sorted(exc.args for exc in caught.value.exceptions) == [(0,), (1,), (2,)]

    any_loop(body())


def test_the_body_is_cancelled_when_a_task_fails(any_loop, TaskGroup):
    async def body():
        with pytest.raises(ExceptionGroup):
            async with TaskGroup() as group:
                group.create_task(fail(KeyError()))
                with pytest.raises(asyncio.CancelledError) as caught:
                    await forever()
                raise caught.value
        assert asyncio.current_task().cancelling() == 0
        await asyncio.sleep(0)

    any_loop(body())


@pytest.mark.parametrize("turns", [0, 2])
def test_a_body_that_fails_cancels_the_tasks(any_loop, TaskGroup, turns):
    async def body():
        exc = KeyError("k")
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup() as group:
                task = group.create_task(forever())
                await value(None, turns)
                raise exc
        assert caught.value.exceptions == (exc,)
        assert task.cancelled()
        exc.__traceback__ = None

    any_loop(body())


@pytest.mark.parametrize("cls", [SystemExit, KeyboardInterrupt])
def test_exceptions_that_end_programs_pass(any_loop, TaskGroup, cls):
    async def body():
        with pytest.raises(cls):
            async with TaskGroup() as group:
                task = group.create_task(forever())
                raise cls
        assert task.cancelled()
        # The newer releases of 3.13 let go of it.
        assert type(group._base_error) is cls or sys.version_info >= (3, 13)
        group._base_error = group._errors = None

    any_loop(body())


def test_a_cancelled_task_is_no_error(any_loop, TaskGroup):
    async def body():
        async with TaskGroup() as group:
            task = group.create_task(forever())
            other = group.create_task(value(1, 3))
            await asyncio.sleep(0)
            task.cancel()
        assert task.cancelled() and other.result() == 1
        assert not group._aborting

    any_loop(body())


# ---- cancellation from outside ----


@pytest.mark.parametrize("in_body", [True, False])
def test_a_cancellation_from_outside_ends_all(any_loop, TaskGroup, in_body):
    tasks = []

    async def parent():
        async with TaskGroup() as group:
            tasks.extend(group.create_task(forever()) for _ in range(3))
            if in_body:
                await forever()

    async def body():
        task = asyncio.create_task(parent())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel("outside")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1
        assert all(child.cancelled() for child in tasks)

    any_loop(body())


def test_a_second_cancellation_while_it_waits(any_loop, TaskGroup):
    order = []

    async def slow():
        try:
            await forever()
        finally:
            await value(None, 5)
            order.append("cleaned")

    async def parent():
        async with TaskGroup() as group:
            group.create_task(slow())

    async def body():
        task = asyncio.create_task(parent())
        for _ in range(3):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert order == ["cleaned"]

    any_loop(body())


def test_a_cancellation_and_an_error(any_loop, TaskGroup):
    async def stubborn():
        try:
            await forever()
        finally:
            raise KeyError("stubborn")

    async def parent():
        async with TaskGroup() as group:
            group.create_task(stubborn())

    async def body():
        task = asyncio.create_task(parent())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(ExceptionGroup) as caught:
            await task
        assert type(caught.value.exceptions[0]) is KeyError
        assert task.cancelling() == 1

    any_loop(body())


def test_a_cancellation_after_an_error(any_loop, TaskGroup):
    async def slow():
        try:
            await forever()
        finally:
            await value(None, 5)

    async def parent():
        async with TaskGroup() as group:
            group.create_task(slow())
            group.create_task(fail(KeyError(), 2))

    async def body():
        task = asyncio.create_task(parent())
        await value(None, 5)
        task.cancel()
        with pytest.raises((ExceptionGroup, asyncio.CancelledError)) as caught:
            await task
        assert type(caught.value) is ExceptionGroup

    any_loop(body())


@pytest.mark.skipif(not CANCELS, reason="cancel() is new in 3.15")
@pytest.mark.parametrize("when", ["before", "inside", "waiting", "after"])
def test_cancel(any_loop, TaskGroup, when):
    async def body():
        group = TaskGroup()
        tasks = []
        if when == "before":
            group.cancel()
            assert group._cancel_on_enter
        async with group:
            if when != "before":
                tasks.append(group.create_task(value(1) if when == "after" else forever()))
            if when == "inside":
                group.cancel()
            if when == "waiting":
                asyncio.get_running_loop().call_soon(group.cancel)
            await asyncio.sleep(0)
        if when == "after":
            group.cancel()
        assert all(task.cancelled() == (when != "after") for task in tasks)
        assert asyncio.current_task().cancelling() == 0
        await asyncio.sleep(0)

    any_loop(body())


@pytest.mark.skipif(not CANCELS, reason="cancel() is new in 3.15")
def test_cancel_and_a_cancellation_from_outside(any_loop, TaskGroup):
    groups = []

    async def slow():
        try:
            await forever()
        finally:
            await value(None, 4)

    async def parent():
        async with TaskGroup() as group:
            groups.append(group)
            group.create_task(slow())

    async def body():
        task = asyncio.create_task(parent())
        await value(None, 2)
        groups[0].cancel()
        await value(None, 2)
        task.cancel("outside")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1

    any_loop(body())


# ---- wrong use ----


def test_it_is_entered_once(any_loop, TaskGroup):
    async def body():
        async with TaskGroup() as group:
            with pytest.raises(RuntimeError, match="TaskGroup <TaskGroup entered> has already"):
                async with group:
                    pass

    any_loop(body())


def test_create_task_before_and_after(any_loop, TaskGroup):
    async def body():
        group = TaskGroup()
        coro = value(1)
        with pytest.raises(RuntimeError, match="TaskGroup <TaskGroup> has not been entered"):
            group.create_task(coro)
        if EXACT:
            assert inspect.getcoroutinestate(coro) == "CORO_CLOSED"
        async with group:
            pass
        with pytest.raises(RuntimeError, match="TaskGroup <TaskGroup entered> is finished"):
            group.create_task(value(1))
        with pytest.raises(ExceptionGroup):
            async with TaskGroup() as group:
                group.create_task(fail(KeyError(), 0))
                try:
                    await forever()
                finally:
                    with pytest.raises(RuntimeError, match="is shutting down"):
                        group.create_task(value(1))

    any_loop(body())


def test_a_task_is_needed(loop, turn, TaskGroup):
    seen = []

    def callback():
        with pytest.raises(RuntimeError, match="cannot determine the parent task"):
            TaskGroup().__aenter__().send(None)
        seen.append(True)

    loop.call_soon(callback)
    turn()
    assert seen
    with pytest.raises(RuntimeError, match="^no running event loop$"):
        TaskGroup().__aenter__().send(None)


def test_uninitialized_objects_do_not_crash(loop, run, TaskGroup):
    async def body():
        group = TaskGroup.__new__(TaskGroup)
        task = asyncio.current_task()
        for call in (
            lambda: group.create_task(value(1)),
            lambda: group._on_task_done(task),
            lambda: group._tasks,
        ):
            with pytest.raises((AttributeError, RuntimeError)):
                call()
        for enter in (group.__aenter__, lambda: group.__aexit__(None, None, None)):
            with pytest.raises((AttributeError, RuntimeError)):
                await enter()

    run(body())


# ---- shape ----


def test_it_is_asyncios_to_who_asks(TaskGroup):
    stock = taskgroups.TaskGroup
    assert issubclass(TaskGroup, stock)
    for name in ("__aenter__", "__aexit__"):
        assert inspect.iscoroutinefunction(getattr(TaskGroup, name))
    assert inspect.signature(TaskGroup.create_task) == inspect.signature(stock.create_task)
    assert repr(TaskGroup()) == "<TaskGroup>"


def test_attributes_can_be_written(loop, run, TaskGroup):
    async def body():
        group = TaskGroup()
        group.note = weakref.ref(group)
        for name in ("_entered", "_exiting", "_aborting", "_parent_cancel_requested"):
            assert getattr(group, name) is False
            setattr(group, name, True)
            assert getattr(group, name) is True
            setattr(group, name, False)
        async with group:
            task = group.create_task(forever())
            group._tasks = set()
        await value(None, 2)
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])

    run(body())


def test_abort_is_there_to_be_called(any_loop, TaskGroup):
    async def body():
        async with TaskGroup() as group:
            tasks = [group.create_task(forever()) for _ in range(3)]
            await asyncio.sleep(0)
            group._abort()
        assert all(task.cancelled() for task in tasks)

    any_loop(body())


def test_a_subclass_overrides_what_it_likes(any_loop, TaskGroup):
    calls = []

    class Mine(TaskGroup):
        def create_task(self, coro, **kwargs):
            calls.append("create")
            return super().create_task(coro, **kwargs)

        def _on_task_done(self, task):
            calls.append("done")
            super()._on_task_done(task)

        def _abort(self):
            calls.append("abort")
            super()._abort()

    async def body():
        async with Mine() as group:
            group.create_task(value(1))
            group.create_task(value(1, 2))
        assert calls == ["create", "create", "done", "done"]
        calls.clear()
        with pytest.raises(ExceptionGroup):
            async with Mine() as group:
                group.create_task(fail(KeyError()))
        assert calls == ["create", "done", "abort"]

    any_loop(body())


def test_a_method_replaced_on_the_instance(loop, run, TaskGroup):
    done = []

    async def body():
        group = TaskGroup()
        on_task_done = group._on_task_done
        group._on_task_done = lambda task: (done.append(task), on_task_done(task))
        async with group:
            task = group.create_task(value(1))
        assert done == [task]
        del group._on_task_done

    run(body())


def test_the_callback_can_be_removed(any_loop, TaskGroup):
    async def body():
        async with TaskGroup() as group:
            task = group.create_task(value(1))
            assert task.remove_done_callback(group._on_task_done) == 1
            await task
            await asyncio.sleep(0)
            assert group._tasks == {task}
            group._on_task_done(task)
            assert group._tasks == set()

    any_loop(body())


def test_more_callbacks_on_its_tasks(any_loop, TaskGroup):
    order = []

    async def body():
        async with TaskGroup() as group:
            task = group.create_task(value(1))
            task.add_done_callback(lambda task: order.append("callback"))
            waiter = group.create_task(wait(task))
            assert not waiter.done()
        assert sorted(order) == ["callback", "waiter"]

    async def wait(task):
        await task
        order.append("waiter")

    any_loop(body())


def test_a_group_that_was_left_is_let_go(loop, run, TaskGroup):
    """No cycle is left for the collector."""

    async def body():
        gc.disable()
        try:
            async with TaskGroup() as group:
                tasks = [weakref.ref(group.create_task(value(i))) for i in range(3)]
            ref = weakref.ref(group)
            del group
            assert ref() is None
            await asyncio.sleep(0)
            assert [task() for task in tasks] == [None] * 3
        finally:
            gc.enable()

    run(body())


def test_closed_while_it_waits(loop, run, TaskGroup):
    async def parent():
        async with TaskGroup() as group:
            group.create_task(forever())

    async def body():
        coro = parent()

        async def drive():
            coro.send(None)

        await asyncio.create_task(drive())
        coro.close()
        (task,) = asyncio.all_tasks() - {asyncio.current_task()}
        task.cancel()
        await asyncio.wait([task])

    run(body())


def test_the_exceptions_context_and_the_cancelled_error(loop, run, TaskGroup):
    """What comes out of a wait that was cancelled is the error that went in."""
    seen = []

    async def parent():
        try:
            async with TaskGroup() as group:
                group.create_task(forever())
        except asyncio.CancelledError as exc:
            seen.append((exc.args, type(exc.__context__)))
            raise

    async def body():
        task = asyncio.create_task(parent())
        await value(None, 2)
        task.cancel("why")
        with pytest.raises(asyncio.CancelledError):
            await task

    run(body())
    assert seen == [(("why",), type(None))]


def test_group_that_is_kept_keeps_no_values_of_its_context(run, TaskGroup):
    class Thing:
        pass

    async def body():
        group = TaskGroup()
        thing = Thing()
        token = var.set(thing)
        async with group:
            group.create_task(value(1))
        var.reset(token)
        seen = weakref.ref(thing)
        del thing, token
        await value(None)
        assert seen() is None

    run(body())


# ---- without memory ----


@pytest.mark.ctask_only  # asyncio's waits for ever
def test_a_group_that_cannot_grow_waits_for_its_task_all_the_same(script):
    pytest.importorskip("_testcapi")
    out = script("""
    import _testcapi
    import ctask

    async def noop():
        pass

    async def fails(at, n):
        async with ctask.TaskGroup() as group:
            for made in range(8):
                coro = noop()
                if made == at:
                    _testcapi.set_nomemory(n, n + 1)
                try:
                    group.create_task(coro)
                finally:
                    _testcapi.remove_mem_hooks()
                    coro = None

    async def main():
        for at in range(8):
            for n in range(8):
                task = asyncio.ensure_future(fails(at, n))
                for _ in range(5):
                    await asyncio.sleep(0)
                assert task.done(), (at, n)
                task.exception()

    warnings.simplefilter("ignore")
    ctask.run(main())
    print("done")
    """)
    assert out.out == "done\n"


def test_error_of_abort_has_the_cancellation_for_context(run, TaskGroup):
    class Fails(TaskGroup):
        def _abort(self):
            super()._abort()
            raise LookupError

    async def waits():
        async with Fails() as group:
            group.create_task(asyncio.sleep(100))

    async def main():
        task = asyncio.ensure_future(waits())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(LookupError) as caught:
            await task
        assert isinstance(caught.value.__context__, asyncio.CancelledError)
        await asyncio.sleep(0)

    run(main())
