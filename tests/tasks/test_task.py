"""Task: creation, steps, cancellation, names, reprs, eager start and the call graph."""

import asyncio
import contextvars
import gc
import io
import re
import sys
import types
import weakref

import pytest

HERE = __file__
eager = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
graph = pytest.mark.skipif(sys.version_info < (3, 14), reason="call graphs came with 3.14")


def done_callback(task):
    pass


async def nothing():
    pass


async def returns(value):
    return value


async def raises(exc):
    raise exc


async def waits(fut):
    return await fut


def line_of(func):
    return func.__code__.co_firstlineno


# --- Creation


def test_create_task_makes_one_of_the_implementation(impl, loop, run):
    task = loop.create_task(returns(3))
    assert type(task) is impl.Task
    assert isinstance(task, asyncio.Task) and isinstance(task, asyncio.Future)
    assert isinstance(task, impl.Future)
    assert issubclass(impl.Task, asyncio.Task)
    assert task.get_loop() is loop
    assert not task.done()
    assert run(task) == 3
    assert task.result() == 3


def test_class_getitem_gives_an_alias(impl):
    alias = impl.Task[int]
    assert isinstance(alias, types.GenericAlias)
    assert alias.__origin__ is impl.Task


def test_constructor_schedules_the_first_step(impl, loop, turn):
    seen = []

    async def body():
        seen.append("ran")

    task = impl.Task(body(), loop=loop)
    assert seen == []
    turn()
    assert seen == ["ran"]
    assert task.done()


@pytest.mark.parametrize("bad", [123, None, "x", len, returns, object()])
def test_what_is_not_a_coroutine_is_refused(impl, loop, bad):
    with pytest.raises(TypeError, match=rf"^a coroutine was expected, got {re.escape(repr(bad))}$"):
        impl.Task(bad, loop=loop)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="accepted before 3.12")
def test_generators_are_refused(impl, loop):
    def gen():
        yield

    with pytest.raises(TypeError, match="^a coroutine was expected, got <generator object"):
        impl.Task(gen(), loop=loop)


def test_async_generators_are_refused(impl, loop):
    async def agen():
        yield

    with pytest.raises(TypeError, match="^a coroutine was expected, got <async_generator object"):
        impl.Task(agen(), loop=loop)


def test_futures_are_refused(impl, loop):
    with pytest.raises(TypeError, match="^a coroutine was expected, got <Future pending>$"):
        impl.Task(loop.create_future(), loop=loop)


def test_everything_but_the_coroutine_is_keyword_only(impl, loop):
    coro = nothing()
    with pytest.raises(TypeError):
        impl.Task(coro, loop)
    coro.close()


def test_coroutine_that_is_not_native_works(impl, loop, run):
    import collections.abc

    class Coro(collections.abc.Coroutine):
        def __init__(self):
            self.sent = []

        def send(self, value):
            self.sent.append(value)
            if len(self.sent) == 3:
                raise StopIteration("result")

        def throw(self, *exc):
            raise exc[0]

        def __await__(self):
            yield from ()

    coro = Coro()
    assert run(impl.Task(coro, loop=loop)) == "result"
    assert coro.sent == [None, None, None]


@pytest.mark.parametrize("value", [None, (), (1,), (1, 2), StopIteration(3), ValueError("v")])
def test_any_value_can_be_returned(loop, run, value):
    assert run(loop.create_task(returns(value))) is value


def test_steps_alternate_in_order_of_creation(loop, run):
    seen = []

    async def worker(name):
        for n in range(3):
            seen.append(f"{name}{n}")
            await asyncio.sleep(0)

    async def main():
        await asyncio.gather(*(loop.create_task(worker(name)) for name in "abc"))

    run(main())
    assert seen == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]


def test_tasks_and_call_soon_share_one_order(loop, turn):
    seen = []

    async def body(n):
        seen.append(n)

    loop.call_soon(seen.append, 1)
    a = loop.create_task(body(2))
    loop.call_soon(seen.append, 3)
    b = loop.create_task(body(4))
    loop.call_soon(seen.append, 5)
    turn()
    assert seen == [1, 2, 3, 4, 5]
    assert a.done() and b.done()


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="refused from 3.15 on")
def test_init_of_a_live_task_starts_over(loop, run):
    task = loop.create_task(returns(1))
    run(task)
    task.__init__(returns(2), loop=loop)
    assert run(task) == 2


def test_set_result_and_set_exception_are_refused(loop, run):
    task = loop.create_task(nothing())
    with pytest.raises(RuntimeError, match="^Task does not support set_result operation$"):
        task.set_result(1)
    with pytest.raises(RuntimeError, match="^Task does not support set_exception operation$"):
        task.set_exception(ValueError())
    run(task)


# --- Names, coroutine, context


def test_default_names_count_up(loop, run):
    tasks = [loop.create_task(nothing()) for _ in range(3)]
    names = [task.get_name() for task in tasks]
    assert all(re.fullmatch(r"Task-\d+", name) for name in names)
    first = int(names[0][5:])
    assert names == [f"Task-{first + n}" for n in range(3)]
    run(asyncio.wait(tasks))


def test_default_name_is_the_same_at_each_look(loop, run):
    a, b = loop.create_task(nothing()), loop.create_task(nothing())
    name = b.get_name()
    a.get_name()
    assert b.get_name() == name
    run(asyncio.wait([a, b]))


def test_names_are_made_strings(impl, loop, run):
    task = impl.Task(nothing(), loop=loop, name=123)
    assert task.get_name() == "123"
    task.set_name(["x"])
    assert task.get_name() == "['x']"
    task.set_name("y")
    assert task.get_name() == "y"
    run(task)


def test_name_given_to_create_task(loop, run):
    task = loop.create_task(nothing(), name="given")
    assert task.get_name() == "given"
    run(task)


def test_a_name_whose_str_fails(loop, run):
    class Bad:
        def __str__(self):
            raise LookupError("str")

    task = loop.create_task(nothing(), name="kept")
    with pytest.raises(LookupError):
        task.set_name(Bad())
    assert task.get_name() == "kept"
    run(task)


def test_get_coro_gives_the_coroutine(loop, run):
    coro = nothing()
    task = loop.create_task(coro)
    assert task.get_coro() is coro
    run(task)
    assert task.get_coro() is coro


@pytest.mark.skipif(sys.version_info < (3, 12), reason="came with 3.12")
def test_get_context_gives_the_context(loop, run):
    ctx = contextvars.copy_context()
    task = loop.create_task(nothing(), context=ctx)
    assert task.get_context() is ctx
    other = loop.create_task(nothing())
    assert isinstance(other.get_context(), contextvars.Context)
    run(asyncio.wait([task, other]))


def test_each_task_has_a_copy_of_the_context(loop, run):
    var = contextvars.ContextVar("var", default=0)

    async def child(n):
        seen = [var.get()]
        var.set(n)
        await asyncio.sleep(0)
        seen.append(var.get())
        return seen

    async def main():
        var.set(100)
        a, b = loop.create_task(child(1)), loop.create_task(child(2))
        var.set(200)
        assert await a == [100, 1]
        assert await b == [100, 2]
        assert var.get() == 200

    run(main())
    assert var.get() == 0


def test_context_argument_is_shared_not_copied(loop, run):
    var = contextvars.ContextVar("var", default=0)

    async def add():
        var.set(var.get() + 1)
        await asyncio.sleep(0)
        var.set(var.get() + 10)

    ctx = contextvars.copy_context()

    async def main():
        await asyncio.gather(*(loop.create_task(add(), context=ctx) for _ in range(2)))

    run(main())
    assert ctx[var] == 22
    assert var.get() == 0


# --- Exceptions


def test_exception_of_the_body_is_the_result(loop, run):
    exc = ValueError("x")
    task = loop.create_task(raises(exc))
    with pytest.raises(ValueError) as caught:
        run(task)
    assert caught.value is exc
    assert task.exception() is exc
    exc.__traceback__ = None


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_exiting_exceptions_leave_the_loop_and_stay_in_the_task(loop, kind):
    task = loop.create_task(raises(kind("out")))
    with pytest.raises(kind):
        loop.run_until_complete(task)
    assert type(task.exception()) is kind
    assert loop.run_until_complete(returns(1)) == 1
    task.exception().__traceback__ = None


def test_base_exception_stays_in_the_task(loop, run):
    class Mine(BaseException):
        pass

    async def main():
        task = loop.create_task(raises(Mine()))
        with pytest.raises(Mine):
            await task
        return "on"

    assert run(main()) == "on"


def test_stop_iteration_raised_in_the_body_is_a_runtime_error(loop, run):
    with pytest.raises(RuntimeError, match="coroutine raised StopIteration"):
        run(loop.create_task(raises(StopIteration(1))))


def test_cancelled_error_raised_in_the_body_cancels_the_task(loop, run):
    task = loop.create_task(raises(asyncio.CancelledError("own")))
    with pytest.raises(asyncio.CancelledError) as caught:
        run(task)
    assert task.cancelled()
    assert caught.value.args == ("own",)


def test_exception_never_retrieved_is_reported(loop, turn, reports):
    loop.create_task(raises(ValueError("lost")), name="loser")
    turn()
    gc.collect()
    (report,) = reports.take()
    assert set(report) == {"message", "exception", "future"}
    assert report["message"] == "Task exception was never retrieved"
    assert str(report["exception"]) == "lost"
    assert report["future"].get_name() == "loser"


def test_coroutine_awaited_twice(loop, run):
    coro = nothing()
    run(loop.create_task(coro))
    task = loop.create_task(coro)
    with pytest.raises(RuntimeError, match="^cannot reuse already awaited coroutine$"):
        run(task)


def test_coroutine_given_to_two_tasks_at_once(loop, run):
    fut = loop.create_future()
    coro = waits(fut)
    first, second = loop.create_task(coro), loop.create_task(coro)
    loop.call_later(0, fut.set_result, None)
    result, error = run(asyncio.gather(first, second, return_exceptions=True))
    assert isinstance(error, RuntimeError)
    assert "coroutine" in str(error) and "already" in str(error)


# --- Bad awaits


class Yields:
    def __init__(self, value):
        self.value = value

    def __await__(self):
        yield self.value


async def awaits(value):
    await Yields(value)


@pytest.mark.parametrize("value", [1, "x", object(), (), [None], False, 0])
def test_bad_yield(loop, run, value):
    with pytest.raises(RuntimeError, match=rf"^Task got bad yield: {re.escape(repr(value))}$"):
        run(loop.create_task(awaits(value)))


def test_bad_yield_can_be_caught_and_the_task_goes_on(loop, run):
    async def main():
        with pytest.raises(RuntimeError, match="bad yield"):
            await Yields(1)
        await asyncio.sleep(0)
        return "on"

    assert run(main()) == "on"


def test_bare_yield_means_one_turn(loop, run):
    seen = []

    async def main():
        loop.call_soon(seen.append, 1)
        await Yields(None)
        assert seen == [1]

    run(main())


def test_yield_of_a_future_without_await(loop, run):
    fut = loop.create_future()

    async def main():
        await Yields(fut)

    task = loop.create_task(main())
    with pytest.raises(RuntimeError) as caught:
        run(task)
    assert str(caught.value).startswith("yield was used instead of yield from in task <Task ")
    assert str(caught.value).endswith(" with <Future pending>")


def test_yield_of_a_generator(loop, run):
    def gen():
        yield

    with pytest.raises(RuntimeError) as caught:
        run(loop.create_task(awaits(gen())))
    assert str(caught.value).startswith(
        "yield was used instead of yield from for generator in task <Task "
    )


def test_task_awaiting_itself(loop, run):
    async def body():
        await task

    task = loop.create_task(body(), name="selfish")
    with pytest.raises(RuntimeError) as caught:
        run(task)
    assert str(caught.value).startswith("Task cannot await on itself: <Task pending name='selfish'")


@pytest.mark.parametrize("kind", ["future", "task", "stock"])
def test_future_of_another_loop(impl, loop, run, kind):
    other = impl.new_event_loop()
    if kind == "future":
        fut = other.create_future()
    elif kind == "task":
        fut = other.create_task(nothing())
    else:
        fut = asyncio.Future(loop=other)
    with pytest.raises(RuntimeError) as caught:
        run(loop.create_task(waits(fut)))
    assert re.match(
        r"^Task <Task pending .*> got (Future|Task) <(Future|Task) pending.*> "
        r"attached to a different loop$",
        str(caught.value),
    )
    if kind == "task":
        other.run_until_complete(fut)
    other.close()


# --- Cancellation


def test_cancel_before_first_step_never_runs_body(loop, run):
    async def body():
        raise AssertionError("ran")

    task = loop.create_task(body())
    assert task.cancel() is True
    assert not task.done()
    with pytest.raises(asyncio.CancelledError):
        run(task)
    assert task.cancelled()


def test_cancel_while_waiting_cancels_what_it_waits_for(loop, run):
    fut = loop.create_future()
    seen = []

    async def body():
        try:
            await fut
        finally:
            seen.append("finally")

    async def main():
        task = loop.create_task(body())
        await asyncio.sleep(0)
        assert task._fut_waiter is fut
        assert task.cancel()
        assert fut.cancelled()
        assert not task.done()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    run(main())
    assert seen == ["finally"]


def test_cancel_reaches_the_innermost_task(loop, run):
    fut = loop.create_future()

    async def main():
        inner = loop.create_task(waits(fut))
        middle = loop.create_task(waits(inner))
        outer = loop.create_task(waits(middle))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer
        return inner.cancelled(), middle.cancelled(), outer.cancelled(), fut.cancelled()

    assert run(main()) == (True, True, True, True)


def test_cancel_message_in_the_body_and_at_the_waiter(loop, run):
    seen = []

    async def body():
        try:
            await loop.create_future()
        except asyncio.CancelledError as exc:
            seen.append(exc.args)
            raise

    async def main():
        task = loop.create_task(body())
        await asyncio.sleep(0)
        task.cancel("the message")
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert caught.value.args == ("the message",)
        with pytest.raises(asyncio.CancelledError):
            task.result()

    run(main())
    assert seen == [("the message",)]


def test_cancel_message_before_the_first_step(loop, run):
    task = loop.create_task(nothing())
    task.cancel("early")
    with pytest.raises(asyncio.CancelledError) as caught:
        run(task)
    assert caught.value.args == ("early",)


def test_cancel_between_wakeup_and_step(loop, run):
    fut = loop.create_future()
    seen = []

    async def body():
        try:
            seen.append(await fut)
        except asyncio.CancelledError:
            seen.append("cancelled")

    async def main():
        task = loop.create_task(body())
        await asyncio.sleep(0)
        fut.set_result("result")
        task.cancel()
        await task

    run(main())
    assert seen == ["cancelled"]


def test_task_that_cancels_itself_fails_at_its_next_await(loop, run):
    seen = []

    async def body():
        asyncio.current_task().cancel()
        seen.append("on")
        await asyncio.sleep(0)
        seen.append("never")

    task = loop.create_task(body())
    with pytest.raises(asyncio.CancelledError):
        run(task)
    assert seen == ["on"]


def test_task_that_cancels_itself_and_returns_is_cancelled(loop, run):
    async def body():
        asyncio.current_task().cancel("late")
        return "result"

    task = loop.create_task(body())
    with pytest.raises(asyncio.CancelledError) as caught:
        run(task)
    assert caught.value.args == ("late",)
    assert task.cancelled()


def test_cancel_of_a_finished_task_returns_false(loop, run):
    task = loop.create_task(returns(1))
    run(task)
    assert task.cancel() is False
    assert task.cancelling() == 0
    assert task.result() == 1


def test_cancellation_can_be_swallowed(loop, run):
    async def body():
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            pass
        await asyncio.sleep(0)
        return "survived"

    async def main():
        task = loop.create_task(body())
        await asyncio.sleep(0)
        task.cancel()
        assert await task == "survived"
        assert task.cancelling() == 1
        assert not task.cancelled()

    run(main())


def test_exception_instead_of_cancellation(loop, run):
    async def body():
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            raise ValueError("instead") from None

    async def main():
        task = loop.create_task(body())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(ValueError, match="instead"):
            await task

    run(main())


def test_cancelling_counts_and_uncancel_counts_down(loop, run):
    async def main():
        task = loop.create_task(waits(loop.create_future()))
        await asyncio.sleep(0)
        assert task.cancelling() == 0
        assert task.uncancel() == 0
        assert task.cancel() is True
        assert task.cancel() is True
        assert task.cancelling() == 2
        assert task.uncancel() == 1
        assert task.uncancel() == 0
        assert task.uncancel() == 0
        assert task.cancelling() == 0
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="uncancel clears it from 3.13 on")
def test_uncancel_before_the_next_await_takes_the_cancellation_back(loop, run):
    async def body():
        task = asyncio.current_task()
        task.cancel()
        assert task._must_cancel
        task.uncancel()
        assert not task._must_cancel
        await asyncio.sleep(0)
        return "on"

    assert run(loop.create_task(body())) == "on"


def test_every_cancel_interrupts_again(loop, run):
    seen = []

    async def body():
        for n in range(3):
            try:
                await loop.create_future()
            except asyncio.CancelledError as exc:
                seen.append((n, exc.args))

    async def main():
        task = loop.create_task(body())
        for n in range(3):
            await asyncio.sleep(0)
            task.cancel(n)
            await asyncio.sleep(0)
        await task

    run(main())
    assert seen == [(0, (0,)), (1, (1,)), (2, (2,))]


def test_awaiting_a_cancelled_future_cancels_the_task(loop, run):
    fut = loop.create_future()
    fut.cancel("fut")
    task = loop.create_task(waits(fut))
    with pytest.raises(asyncio.CancelledError, match="fut"):
        run(task)
    assert task.cancelled()


# --- repr


def test_repr_pending_before_the_first_step(loop, run):
    task = loop.create_task(nothing(), name="n")
    where = f"{HERE}:{line_of(nothing)}"
    assert repr(task) == f"<Task pending name='n' coro=<nothing() running at {where}>>"
    run(task)
    assert repr(task) == (
        f"<Task finished name='n' coro=<nothing() done, defined at {where}> result=None>"
    )


def test_repr_waiting_with_callbacks(loop, run, turn):
    fut = loop.create_future()
    task = loop.create_task(waits(fut), name="n")
    task.add_done_callback(done_callback)
    turn()
    waiting = f"coro=<waits() running at {HERE}:{line_of(waits) + 1}>"
    assert repr(task) == (
        f"<Task pending name='n' {waiting} wait_for=<Future pending cb=[Task.task_wakeup()]> "
        f"cb=[done_callback() at {HERE}:{line_of(done_callback)}]>"
    )
    task.cancel()
    assert repr(task).startswith(
        f"<Task cancelling name='n' {waiting} wait_for=<Future cancelled> cb="
    )
    with pytest.raises(asyncio.CancelledError):
        run(task)
    assert repr(task) == (
        f"<Task cancelled name='n' coro=<waits() done, defined at {HERE}:{line_of(waits)}>>"
    )


def test_repr_of_a_failed_task(loop, run):
    task = loop.create_task(raises(ValueError("why")), name="n")
    with pytest.raises(ValueError):
        run(task)
    assert repr(task) == (
        f"<Task finished name='n' coro=<raises() done, defined at {HERE}:{line_of(raises)}> "
        "exception=ValueError('why')>"
    )


def test_repr_of_a_subclass_names_it(impl, loop, run):
    class Job(impl.Task):
        pass

    task = Job(nothing(), loop=loop, name="n")
    assert repr(task).startswith("<Job pending name='n' coro=<nothing() running at ")
    run(task)


def test_repr_in_debug_mode_says_where_it_was_created(loop, run):
    loop.set_debug(True)
    task, line = loop.create_task(nothing(), name="n"), sys._getframe().f_lineno
    assert repr(task) == (
        f"<Task pending name='n' coro=<nothing() running at {HERE}:{line_of(nothing)}> "
        f"created at {HERE}:{line}>"
    )
    run(task)


# --- Stacks


def test_get_stack_of_a_waiting_task(loop, run, turn):
    fut = loop.create_future()
    task = loop.create_task(waits(fut))
    turn()
    (frame,) = task.get_stack()
    assert frame.f_code is waits.__code__
    assert task.get_stack(limit=0) == []
    assert [f.f_code for f in task.get_stack(limit=1)] == [waits.__code__]
    del frame
    fut.set_result(None)
    run(task)
    assert task.get_stack() == []


def test_print_stack_of_a_waiting_task(loop, run, turn):
    fut = loop.create_future()
    task = loop.create_task(waits(fut), name="n")
    turn()
    out = io.StringIO()
    text = repr(task)
    assert task.print_stack(file=out) is None
    assert out.getvalue() == (
        f"Stack for {text} (most recent call last):\n"
        f'  File "{HERE}", line {line_of(waits) + 1}, in waits\n'
        "    return await fut\n"
    )
    fut.set_result(None)
    run(task)
    out = io.StringIO()
    task.print_stack(file=out)
    assert out.getvalue() == f"No stack for {task!r}\n"


def test_print_stack_of_a_failed_task(loop, run):
    task = loop.create_task(raises(ValueError("why")), name="n")
    with pytest.raises(ValueError):
        run(task)
    frames = [frame.f_code for frame in task.get_stack()]
    assert frames[-1] is raises.__code__
    out = io.StringIO()
    task.print_stack(file=out)
    lines = out.getvalue().splitlines()
    assert lines[0] == f"Traceback for {task!r} (most recent call last):"
    assert lines[-1] == "ValueError: why"
    task.exception().__traceback__ = None


# --- Destruction


def test_pending_task_that_is_collected_is_reported(impl, loop, turn, reports):
    async def forever():
        await loop.create_future()

    task = loop.create_task(forever(), name="lost")
    turn()
    text = repr(task)
    del task
    gc.collect()
    (report,) = reports.take()
    assert set(report) == {"task", "message"}
    assert report["message"] == "Task was destroyed but it is pending!"
    assert type(report["task"]) is impl.Task
    assert report["task"].get_name() == "lost"
    assert repr(report["task"])[:40] == text[:40]


def test_pending_report_has_the_source_in_debug_mode(loop, turn, reports):
    loop.set_debug(True)
    task = loop.create_task(waits(loop.create_future()))
    traceback = task._source_traceback
    turn()
    del task
    gc.collect()
    (report,) = reports.take()
    assert set(report) == {"task", "message", "source_traceback"}
    assert report["source_traceback"] == traceback


def test_pending_report_in_the_log(loop, turn, logs):
    task = loop.create_task(waits(loop.create_future()), name="lost")
    turn()
    del task
    gc.collect()
    (record,) = logs.take()
    assert record.getMessage().startswith(
        "Task was destroyed but it is pending!\ntask: <Task pending name='lost' coro=<waits() "
    )


def test_pending_report_can_be_switched_off(loop, turn, reports):
    task = loop.create_task(waits(loop.create_future()))
    assert task._log_destroy_pending is True
    task._log_destroy_pending = False
    turn()
    del task
    gc.collect()
    assert reports == []


def test_finished_task_lets_its_result_go(loop, run):
    class Value:
        pass

    async def body():
        return Value()

    task = loop.create_task(body())
    ref = weakref.ref(run(task))
    assert ref() is task.result()
    del task
    gc.collect()
    assert ref() is None


# --- Subclasses and duck types


def test_subclass_of_task_works_as_a_task(impl, loop, run):
    class Job(impl.Task):
        def __init__(self, coro, *, loop, tag):
            super().__init__(coro, loop=loop)
            self.tag = tag

    async def main():
        task = Job(returns(5), loop=loop, tag="t")
        assert await task == 5
        return task.tag

    assert run(main()) == "t"


def test_overridden_cancel_is_used_by_whoever_cancels(impl, loop, run):
    calls = []

    class Job(impl.Task):
        def cancel(self, msg=None):
            calls.append(msg)
            return super().cancel(msg=msg)

    async def main():
        inner = Job(waits(loop.create_future()), loop=loop)
        outer = loop.create_task(waits(inner))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        outer.cancel("m")
        with pytest.raises(asyncio.CancelledError):
            await outer
        assert inner.cancelled()

    run(main())
    assert calls == ["m"]


def test_overridden_add_done_callback_is_used_by_the_waiting_task(impl, loop, run):
    calls = []

    class Job(impl.Task):
        def add_done_callback(self, fn, *, context=None):
            calls.append(fn)
            super().add_done_callback(fn, context=context)

    async def main():
        job = Job(returns(1), loop=loop)
        return await job

    assert run(main()) == 1
    assert len(calls) == 1


class Duck:
    """A future of nobody's family."""

    _asyncio_future_blocking = False

    def __init__(self, loop):
        self._loop = loop
        self.callbacks = []
        self.value = None
        self.cancelled_with = []

    def get_loop(self):
        return self._loop

    def add_done_callback(self, fn, *, context=None):
        self.callbacks.append((fn, context))

    def finish(self, value):
        self.value = value
        for fn, context in self.callbacks:
            self._loop.call_soon(fn, self, context=context)

    def result(self):
        return self.value

    def cancel(self, msg=None):
        self.cancelled_with.append(msg)
        return False

    def __await__(self):
        self._asyncio_future_blocking = True
        yield self
        return self.result()


def test_duck_future_can_be_awaited(loop, run):
    duck = Duck(loop)

    async def main():
        loop.call_soon(duck.finish, "quack")
        return await duck

    assert run(main()) == "quack"
    assert duck._asyncio_future_blocking is False
    ((_, context),) = duck.callbacks
    assert isinstance(context, contextvars.Context)
    duck.callbacks.clear()


def test_duck_future_without_get_loop_is_asked_for_its_loop_attribute(loop, run):
    class Plain(Duck):
        get_loop = property()

    duck = Plain(loop)

    async def main():
        loop.call_soon(duck.finish, "quack")
        return await duck

    assert run(main()) == "quack"
    duck.callbacks.clear()


def test_duck_future_is_cancelled_with_the_task(loop, run):
    duck = Duck(loop)

    async def main():
        task = loop.create_task(waits(duck))
        await asyncio.sleep(0)
        task.cancel("m")
        assert duck.cancelled_with == ["m"]
        duck.finish(None)
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    duck.callbacks.clear()


def test_duck_future_whose_result_raises(loop, run):
    class Sick(Duck):
        def result(self):
            raise LookupError("sick")

    duck = Sick(loop)

    async def main():
        loop.call_soon(duck.finish, None)
        await duck

    with pytest.raises(LookupError, match="sick"):
        run(main())
    duck.callbacks.clear()


# --- Eager start


@eager
def test_eager_task_that_finishes_at_once_never_touches_the_loop(impl, loop, run):
    async def main():
        task = impl.Task(returns(4), loop=loop, eager_start=True)
        assert task.done()
        assert task.result() == 4
        assert task not in asyncio.all_tasks()

    run(main())


@eager
def test_eager_task_runs_to_its_first_wait(impl, loop, run):
    seen = []

    async def body():
        seen.append(1)
        await asyncio.sleep(0)
        seen.append(2)
        return 3

    async def main():
        task = impl.Task(body(), loop=loop, eager_start=True)
        assert seen == [1]
        assert not task.done()
        assert task in asyncio.all_tasks()
        assert await task == 3

    run(main())
    assert seen == [1, 2]


@eager
def test_current_task_during_an_eager_start(impl, loop, run):
    async def body(depth):
        inner = asyncio.current_task()
        assert inner is not None
        if depth:
            child = impl.Task(body(depth - 1), loop=loop, eager_start=True)
            assert asyncio.current_task() is inner
            assert child.result() != inner.get_name()
        return inner.get_name()

    async def main():
        outer = asyncio.current_task()
        task = impl.Task(body(3), loop=loop, eager_start=True, name="eager")
        assert task.result() == "eager"
        assert asyncio.current_task() is outer

    run(main())


@eager
def test_exception_of_an_eager_start_is_in_the_task(impl, loop, run):
    async def main():
        task = impl.Task(raises(ValueError("eager")), loop=loop, eager_start=True)
        assert task.done()
        with pytest.raises(ValueError, match="eager"):
            await task

    run(main())


@eager
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_exiting_exception_of_an_eager_start_propagates(impl, loop, run, kind, reports):
    async def main():
        with pytest.raises(kind):
            impl.Task(raises(kind()), loop=loop, eager_start=True)
        assert asyncio.current_task() is not None

    run(main())
    gc.collect()
    assert [r["message"] for r in reports.take()] == ["Task exception was never retrieved"]


@eager
def test_cancelled_error_in_an_eager_start(impl, loop, run):
    async def main():
        task = impl.Task(raises(asyncio.CancelledError("m")), loop=loop, eager_start=True)
        assert task.cancelled()

    run(main())


@eager
def test_eager_start_without_a_running_loop_schedules(impl, loop, run):
    seen = []

    async def body():
        seen.append(1)

    task = impl.Task(body(), loop=loop, eager_start=True)
    assert seen == []
    run(task)
    assert seen == [1]


@eager
def test_context_of_an_eager_start(impl, loop, run):
    var = contextvars.ContextVar("var", default="outer")

    async def body():
        seen = var.get()
        var.set("inner")
        return seen

    async def main():
        task = impl.Task(body(), loop=loop, eager_start=True)
        assert task.result() == "outer"
        assert var.get() == "outer"
        ctx = contextvars.copy_context()
        impl.Task(body(), loop=loop, eager_start=True, context=ctx)
        assert ctx[var] == "inner"

    run(main())


@eager
def test_eager_task_factory_of_asyncio(loop, run):
    loop.set_task_factory(asyncio.eager_task_factory)

    async def main():
        task = asyncio.create_task(returns(1), name="n")
        assert task.done() and task.get_name() == "n"
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(returns(n)) for n in range(3)]
        return [t.result() for t in tasks]

    assert run(main()) == [0, 1, 2]


@eager
def test_eager_task_factory_made_from_the_class(impl, loop, run):
    loop.set_task_factory(asyncio.create_eager_task_factory(impl.Task))

    async def main():
        task = asyncio.create_task(returns(1))
        assert type(task) is impl.Task
        return await task

    assert run(main()) == 1


@eager
def test_swap_current_task(loop, run):
    async def main():
        me = asyncio.current_task()
        other = loop.create_task(nothing())
        assert asyncio.tasks._swap_current_task(loop, other) is me
        assert asyncio.current_task() is other
        assert asyncio.tasks._swap_current_task(loop, None) is other
        assert asyncio.current_task() is None
        assert asyncio.tasks._swap_current_task(loop, me) is None
        await other

    run(main())


# --- Call graph


@graph
def test_awaited_by_names_the_waiting_task(loop, run):
    fut = loop.create_future()

    async def main():
        task = loop.create_task(waits(fut), name="waiter")
        await asyncio.sleep(0)
        assert fut._asyncio_awaited_by == {task}
        second = loop.create_task(waits(fut), name="second")
        await asyncio.sleep(0)
        assert fut._asyncio_awaited_by == {task, second}
        fut.set_result(None)
        await task
        await second
        assert not fut._asyncio_awaited_by

    run(main())


@graph
def test_call_graph_of_a_chain_of_tasks(loop, run):
    fut = loop.create_future()

    async def main():
        inner = loop.create_task(waits(fut), name="inner")
        outer = loop.create_task(waits(inner), name="outer")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        captured = asyncio.capture_call_graph(fut)
        assert captured.future is fut
        (level,) = captured.awaited_by
        assert level.future is inner
        assert level.call_stack[0].frame.f_code is waits.__code__
        (level,) = level.awaited_by
        assert level.future is outer
        text = asyncio.format_call_graph(fut)
        assert f"* Future(id={id(fut):#x})" in text
        assert f"* Task(name='inner', id={id(inner):#x})" in text
        assert f"* Task(name='outer', id={id(outer):#x})" in text
        assert text.index("'inner'") < text.index("'outer'")
        assert "in async waits()" in text
        del captured, level
        fut.set_result(None)
        await outer

    run(main())


@graph
def test_call_graph_of_the_current_task(loop, run):
    async def main():
        task = loop.create_task(child(), name="child")
        await task

    async def child():
        return asyncio.format_call_graph()

    async def parent():
        task = loop.create_task(child(), name="child")
        return await task

    text = run(loop.create_task(parent(), name="parent"))
    assert text.startswith("* Task(name='child'")
    assert "* Task(name='parent'" in text


@graph
def test_awaited_by_added_and_discarded_by_hand(loop, run):
    a, b = loop.create_future(), loop.create_future()
    asyncio.future_add_to_awaited_by(a, b)
    assert a._asyncio_awaited_by == {b}
    asyncio.future_discard_from_awaited_by(a, b)
    assert not a._asyncio_awaited_by
    asyncio.future_discard_from_awaited_by(a, b)


@graph
def test_awaited_by_in_gather_and_task_group(loop, run):
    fut = loop.create_future()

    async def in_group():
        async with asyncio.TaskGroup() as group:
            group.create_task(waits(fut), name="member")

    async def in_gather():
        await asyncio.gather(waits(fut))

    async def main():
        a = loop.create_task(in_group(), name="group")
        b = loop.create_task(in_gather(), name="gatherer")
        for _ in range(3):
            await asyncio.sleep(0)
        text = asyncio.format_call_graph(fut)
        assert "'group'" in text and "'member'" in text and "'gatherer'" in text
        fut.set_result(None)
        await a
        await b

    run(main())


# ---- without memory ----


TURNS_WITHOUT_MEMORY = """
import _testcapi

def turns(loop, n):
    for _ in range(n):
        loop.call_soon(loop.stop)
        try:
            loop.run_forever()
        except MemoryError:
            pass
        finally:
            _testcapi.remove_mem_hooks()
"""


@pytest.mark.ctask_only  # asyncio's are never woken again
@pytest.mark.parametrize("waits", ["first step", "bare yield", "future", "other future"])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("short", [1, 2, 3])
def test_a_task_that_cannot_go_on_without_memory_hears_of_it(script, waits, plain, short):
    pytest.importorskip("_testcapi")
    out = script(
        f"waits, plain, short = {waits!r}, {plain}, {short}",
        TURNS_WITHOUT_MEMORY,
        """
    class Other(impl.Future):
        pass

    class Loop(type(impl.new_event_loop())):
        def call_soon(self, callback, *args, context=None):
            return super().call_soon(callback, *args, context=context)

    async def body(future):
        try:
            if waits == "bare yield":
                await asyncio.sleep(0)
            elif waits != "first step":
                await future
            return "went on"
        except MemoryError:
            return "heard"

    results = set()
    for n in range(30):
        loop = impl.new_event_loop() if plain else Loop()
        loop.set_exception_handler(lambda loop, context: None)
        future = (Other if waits == "other future" else impl.Future)(loop=loop)
        coro = body(future)
        loop.call_soon(_testcapi.set_nomemory, n, n + short)
        task = loop.create_task(coro)
        loop.call_soon(_testcapi.remove_mem_hooks)
        turns(loop, 2)
        if not future.done():
            future.set_result(None)
        turns(loop, 5)
        assert task.done(), n
        loop.close()
        try:
            results.add(task.result())
        except MemoryError:
            results.add("heard")
    print("went on" in results)
    """,
    )
    assert out.out == "True\n"


@pytest.mark.ctask_only  # asyncio's have theirs from the start
def test_a_task_without_memory_for_its_context_hears_of_it(script):
    pytest.importorskip("_testcapi")
    script(
        TURNS_WITHOUT_MEMORY,
        """
    async def body(future):
        try:
            loop.call_later(1000, int)  # keeps the context
            await future
        except MemoryError:
            pass

    for n in range(0, 1000, 5):
        loop = impl.new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)
        future = loop.create_future()
        loop.call_soon(_testcapi.set_nomemory, n, n + 1)
        # More than there are contexts to be used again.
        tasks = [loop.create_task(body(future)) for _ in range(400)]
        turns(loop, 3)
        future.set_result(None)
        turns(loop, 2)
        assert all(task.done() for task in tasks), n
        loop.close()
    """,
    )
