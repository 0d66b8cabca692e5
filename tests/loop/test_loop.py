"""The loop: running, stopping, closing, debug mode, exception handler, factories, fairness."""

import asyncio
import concurrent.futures
import contextvars
import gc
import inspect
import os
import re
import socket
import sys
import threading
import warnings
import weakref

import pytest

HERE = __file__


def callback(*args):
    pass


async def nothing():
    pass


async def returns(value):
    return value


# --- Running and stopping


def test_stop_before_run_runs_what_is_ready_once(loop):
    seen = []
    loop.call_soon(seen.append, 1)
    loop.call_soon(lambda: loop.call_soon(seen.append, 2))
    loop.stop()
    loop.run_forever()
    assert seen == [1]
    loop.stop()
    loop.run_forever()
    assert seen == [1, 2]


def test_stop_in_a_callback_finishes_the_batch(loop):
    seen = []

    def first():
        seen.append(1)
        loop.stop()
        loop.call_soon(seen.append, 3)

    loop.call_soon(first)
    loop.call_soon(seen.append, 2)
    loop.run_forever()
    assert seen == [1, 2]
    loop.stop()
    loop.run_forever()
    assert seen == [1, 2, 3]


def test_stop_is_forgotten_after_the_run(loop):
    seen = []
    loop.stop()
    loop.run_forever()
    loop.call_soon(seen.append, 1)
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert seen == [1]


def test_is_running_and_the_running_loop(loop):
    seen = []

    def look():
        seen.append((loop.is_running(), asyncio.get_running_loop() is loop))
        seen.append(asyncio.get_event_loop() is loop)
        loop.stop()

    assert not loop.is_running()
    loop.call_soon(look)
    loop.run_forever()
    assert seen == [(True, True), True]
    assert not loop.is_running()
    assert asyncio._get_running_loop() is None


def test_run_until_complete_returns_the_result(loop):
    fut = loop.create_future()
    loop.call_soon(fut.set_result, 1)
    assert loop.run_until_complete(fut) == 1
    assert loop.run_until_complete(fut) == 1
    assert loop.run_until_complete(returns(2)) == 2
    assert loop.run_until_complete(loop.create_task(returns(3))) == 3


def test_run_until_complete_of_an_awaitable(loop):
    class Awaitable:
        def __await__(self):
            yield
            return 5

    assert loop.run_until_complete(Awaitable()) == 5


def test_run_until_complete_raises_the_exception(loop):
    async def fails():
        raise ValueError("why")

    with pytest.raises(ValueError, match="why"):
        loop.run_until_complete(fails())


@pytest.mark.parametrize("bad", [None, 1, "x", callback, nothing, object()])
def test_run_until_complete_of_anything_else(loop, bad):
    with pytest.raises(TypeError, match="^An asyncio.Future, a coroutine or an awaitable is"):
        loop.run_until_complete(bad)


def test_run_until_complete_of_another_loops_future(impl, loop):
    other = impl.new_event_loop()
    fut = other.create_future()
    with pytest.raises(ValueError, match="The future belongs to a different loop than the one"):
        loop.run_until_complete(fut)
    other.close()


def test_run_until_complete_stopped_too_early(loop):
    fut = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match=r"^Event loop stopped before Future completed\.$"):
        loop.run_until_complete(fut)
    assert not fut._callbacks


def test_unfinished_task_of_run_until_complete_is_not_reported(loop, reports):
    async def forever():
        await loop.create_future()

    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match="stopped before"):
        loop.run_until_complete(forever())
    gc.collect()
    assert reports == []


@pytest.mark.parametrize("method", ["run_forever", "run_until_complete"])
def test_running_twice(loop, run, method):
    async def main():
        with pytest.raises(RuntimeError, match="^This event loop is already running$"):
            getattr(loop, method)(*([loop.create_future()] * (method == "run_until_complete")))

    run(main())


def test_running_inside_another_loop(impl, loop, run):
    other = impl.new_event_loop()

    async def main():
        with pytest.raises(
            RuntimeError, match="^Cannot run the event loop while another loop is running$"
        ):
            other.run_forever()

    run(main())
    assert not other.is_running()
    other.close()


def test_running_in_two_threads(loop, run):
    errors = []

    def other():
        try:
            loop.run_forever()
        except RuntimeError as exc:
            errors.append(str(exc))

    async def main():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    saved = sys.get_asyncgen_hooks()
    run(main())
    sys.set_asyncgen_hooks(*saved)  # 3.13.0's own loop loses them to the other thread
    assert errors == ["This event loop is already running"]


def test_loop_can_run_in_a_thread_and_again_in_another(loop):
    seen = []
    for n in range(2):

        def body(n=n):
            seen.append(loop.run_until_complete(returns(n)))

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
    seen.append(loop.run_until_complete(returns(2)))
    assert seen == [0, 1, 2]


def test_two_loops_in_two_threads(impl):
    results = []

    def body(n):
        loop = impl.new_event_loop()

        async def main():
            assert asyncio.get_running_loop() is loop
            for _ in range(100):
                await asyncio.sleep(0)
            assert asyncio.current_task().get_loop() is loop
            return n

        results.append(loop.run_until_complete(main()))
        loop.close()

    threads = [threading.Thread(target=body, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, 1, 2, 3]


def test_time_is_the_monotonic_clock(loop):
    import time

    before = time.monotonic()
    now = loop.time()
    assert before <= now <= time.monotonic()
    assert isinstance(now, float)


def test_repr(impl, loop, run):
    name = impl.EventLoop.__name__ if impl.name == "asyncio" else "ctask.EventLoop"
    assert repr(loop) == f"<{name} running=False closed=False debug=False>"

    async def main():
        return repr(loop)

    assert run(main()) == f"<{name} running=True closed=False debug=False>"
    loop.set_debug(True)
    loop.close()
    assert repr(loop) == f"<{name} running=False closed=True debug=True>"


def test_callbacks_rescheduling_themselves_do_not_starve_timers_and_io(loop):
    a, b = socket.socketpair()
    seen = []
    spinning = True

    def spin():
        if spinning:
            loop.call_soon(spin)

    def readable():
        seen.append(a.recv(10))
        loop.remove_reader(a)

    loop.add_reader(a, readable)
    loop.call_soon(spin)
    loop.call_soon(b.send, b"x")
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    spinning = False
    assert seen == [b"x"]
    a.close()
    b.close()


def test_tasks_that_sleep_zero_do_not_starve_each_other(loop, run):
    counts = [0, 0]

    async def spin(n):
        while max(counts) < 1000:
            counts[n] += 1
            await asyncio.sleep(0)

    async def main():
        await asyncio.gather(spin(0), spin(1))

    run(main())
    assert abs(counts[0] - counts[1]) <= 1


def test_order_holds_while_the_queue_grows_with_its_beginning_anywhere(loop, run):
    """Each callback schedules two more: what is ready grows while the first of it is run."""

    async def main():
        def call(number):
            seen.append(number)
            for child in (2 * number + 1, 2 * number + 2):
                if child < total:
                    loop.call_soon(call, child)

        call(0)
        while len(seen) < total:
            await asyncio.sleep(0)

    seen = []
    total = 20_000
    run(main())
    assert seen == list(range(total))


def test_many_ready_callbacks_fit(loop, turn):
    count = 0

    def tick():
        nonlocal count
        count += 1

    for _ in range(100_000):
        loop.call_soon(tick)
    turn()
    assert count == 100_000


# --- Closing


def test_close_twice(loop):
    assert not loop.is_closed()
    loop.close()
    assert loop.is_closed()
    loop.close()
    assert loop.is_closed()


def test_close_while_running(loop, run):
    async def main():
        with pytest.raises(RuntimeError, match="^Cannot close a running event loop$"):
            loop.close()
        return "on"

    assert run(main()) == "on"


def test_closed_loop_forgets_what_was_ready(loop):
    class Thing:
        def __call__(self):
            raise AssertionError("ran")

    thing = Thing()
    ref = weakref.ref(thing)
    loop.call_soon(thing)
    del thing
    loop.close()
    gc.collect()
    assert ref() is None


@pytest.mark.ctask_only
def test_what_is_let_go_opens_the_loop_again_and_sets_a_timer(script):
    script("""
    from ctask import _ctask

    class Last:
        def __call__(self):
            pass
        def __del__(self):
            loop._closed = False
            loop.call_later(2000, print)

    loop = impl.new_event_loop()
    timers = [loop.call_later(3000, print) for _ in range(10_000)]
    loop.call_later(5000, Last())
    loop.call_later(1000, Last())
    for timer in timers:  # as many that are free as are kept
        timer.cancel()
    del timer, timers
    _ctask.Loop._release(loop)
    loop.close()
    """)


@pytest.mark.ctask_only
def test_what_is_let_go_has_a_thread_wait_for_events(script):
    """The thread is in the kernel, which writes to what close() frees."""
    done = script("""
    import threading
    from ctask import _ctask

    class Last:
        def __call__(self):
            pass
        def __del__(self):
            loop._closed = False
            thread.start()
            try:
                while True:
                    _ctask.Loop._poll(loop, 0)
            except RuntimeError:
                pass  # another thread waits

    loop = impl.new_event_loop()
    thread = threading.Thread(target=_ctask.Loop._poll, args=(loop, None), daemon=True)
    loop.call_soon(int)
    loop.call_soon(Last())
    try:
        _ctask.Loop._release(loop)
    except RuntimeError as exc:
        print(exc)
    loop._write_to_self()
    thread.join(20)
    print(thread.is_alive())
    loop.close()
    """)
    assert done.out == "Cannot close a running event loop\nFalse\n"


CLOSED = "^Event loop is closed$"


@pytest.mark.parametrize(
    "call",
    [
        lambda loop: loop.run_forever(),
        lambda loop: loop.run_until_complete(loop.create_future()),
        lambda loop: loop.call_soon(callback),
        lambda loop: loop.call_soon_threadsafe(callback),
        lambda loop: loop.call_later(1, callback),
        lambda loop: loop.call_later(0, callback),
        lambda loop: loop.call_at(1, callback),
        lambda loop: loop.run_in_executor(None, callback),
        lambda loop: loop.add_signal_handler(10, callback),
        lambda loop: loop.add_reader(0, callback),
        lambda loop: loop.add_writer(0, callback),
    ],
    ids=[
        "run_forever",
        "run_until_complete",
        "call_soon",
        "call_soon_threadsafe",
        "call_later",
        "call_later_0",
        "call_at",
        "run_in_executor",
        "add_signal_handler",
        "add_reader",
        "add_writer",
    ],
)
def test_use_after_close(loop, call):
    loop.close()
    with pytest.raises(RuntimeError, match=CLOSED):
        call(loop)


def test_create_task_after_close(loop):
    loop.close()
    coro = nothing()
    with pytest.raises(RuntimeError, match=CLOSED):
        loop.create_task(coro)
    coro.close()


def test_task_constructor_after_close(impl, loop, reports):
    loop.close()
    coro = nothing()
    with pytest.raises(RuntimeError, match=CLOSED):
        impl.Task(coro, loop=loop)
    coro.close()
    gc.collect()
    messages = [report["message"] for report in reports.take()]
    assert messages == ["Task was destroyed but it is pending!"]


def test_what_still_works_after_close(loop):
    loop.close()
    assert loop.remove_reader(0) is False
    assert loop.remove_writer(0) is False
    assert isinstance(loop.time(), float)
    fut = loop.create_future()
    fut.set_result(1)
    assert fut.result() == 1
    assert loop.is_running() is False
    loop.stop()
    loop.set_debug(True)
    assert loop.get_debug() is True


def test_completing_an_awaited_future_after_close(loop):
    fut = loop.create_future()
    fut.add_done_callback(callback)
    loop.close()
    with pytest.raises(RuntimeError, match=CLOSED):
        fut.set_result(1)
    assert fut.result() == 1


def test_unclosed_loop_warns(impl):
    loop = impl.new_event_loop()
    text = repr(loop)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del loop
        gc.collect()
    warned = [str(w.message) for w in caught if w.category is ResourceWarning]
    assert f"unclosed event loop {text}" in warned


def test_unclosed_loop_with_work_is_collected_and_closes_its_descriptors(impl):
    before = set(os.listdir("/proc/self/fd"))
    loop = impl.new_event_loop()
    loop.call_soon(callback, loop)
    loop.call_later(1000, callback, loop)
    a, b = socket.socketpair()
    loop.add_reader(a, callback, loop)
    a_number = a.fileno()
    assert a_number > 0
    ref = weakref.ref(loop)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        del loop
        gc.collect()
    a.close()
    b.close()
    assert ref() is None
    assert set(os.listdir("/proc/self/fd")) == before


# --- Debug mode


def test_debug_is_off_and_can_be_switched(loop):
    assert loop.get_debug() is False
    loop.set_debug(True)
    assert loop.get_debug() is True
    loop.set_debug(False)
    assert loop.get_debug() is False


def test_debug_comes_from_the_environment(script):
    import os as o

    o.environ["PYTHONASYNCIODEBUG"] = "1"
    try:
        out = script("""
            loop = impl.new_event_loop()
            print(loop.get_debug())
            loop.close()
        """).out
    finally:
        del o.environ["PYTHONASYNCIODEBUG"]
    assert out == "True\n"


@pytest.mark.parametrize("method", ["call_soon", "call_later", "call_at"])
def test_debug_calls_from_another_thread_are_refused(loop, run, method):
    loop.set_debug(True)
    errors = []

    def other():
        try:
            getattr(loop, method)(*([1] * (method != "call_soon")), callback)
        except RuntimeError as exc:
            errors.append(str(exc))

    async def main():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    run(main())
    assert errors == [
        "Non-thread-safe operation invoked on an event loop other than the current one"
    ]


def test_debug_completing_a_future_from_another_thread_is_refused(loop, run):
    loop.set_debug(True)
    errors = []

    def other(fut):
        try:
            fut.set_result(1)
        except RuntimeError as exc:
            errors.append(str(exc))

    async def main():
        fut = loop.create_future()
        fut.add_done_callback(callback)
        thread = threading.Thread(target=other, args=(fut,))
        thread.start()
        thread.join()

    run(main())
    assert len(errors) == 1 and errors[0].startswith("Non-thread-safe operation")


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_at"])
def test_debug_callback_that_is_not_callable(loop, method):
    loop.set_debug(True)
    with pytest.raises(
        TypeError, match=rf"^a callable object was expected by {method}\(\), got 123$"
    ):
        getattr(loop, method)(*([1] * (method == "call_at")), 123)


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_at"])
def test_debug_coroutine_function_as_callback(loop, method):
    loop.set_debug(True)
    lead = [1] * (method == "call_at")
    match = rf"^coroutines cannot be used with {method}\(\)$"
    with pytest.raises(TypeError, match=match):
        getattr(loop, method)(*lead, nothing)
    coro = nothing()
    with pytest.raises(TypeError, match=match):
        getattr(loop, method)(*lead, coro)
    coro.close()


def test_without_debug_anything_is_scheduled_and_fails_when_called(loop, turn, reports):
    loop.call_soon(123)
    turn()
    (report,) = reports.take()
    assert type(report["exception"]) is TypeError


def test_slow_callback_is_logged(loop, turn, logs):
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    handle = loop.call_soon(callback, 1)
    turn()
    messages = [r.getMessage() for r in logs.take()]
    assert len([m for m in messages if m.startswith(f"Executing {handle!r} took ")]) == 1
    assert all(re.search(r" took \d+\.\d{3} seconds$", m) for m in messages)


def test_slow_task_step_is_logged_with_the_task(loop, run, logs):
    loop.set_debug(True)
    loop.slow_callback_duration = 0

    async def slow():
        await asyncio.sleep(0)

    task = loop.create_task(slow(), name="snail")
    run(task)
    records = logs.take()
    messages = [r.getMessage() for r in records]
    assert all(r.levelname == "WARNING" for r in records)
    assert any(m.startswith("Executing <Task ") and "name='snail'" in m for m in messages)
    assert all(re.search(r" took \d+\.\d{3} seconds$", m) for m in messages)


def test_quick_callbacks_are_not_logged(loop, turn, logs):
    loop.set_debug(True)
    loop.slow_callback_duration = 100
    loop.call_soon(callback)
    turn()
    assert logs == []


def test_set_debug_while_running_takes_effect(loop, run):
    async def main():
        loop.set_debug(True)
        fut = loop.create_future()
        assert fut._source_traceback is not None
        with pytest.raises(TypeError, match="callable object was expected"):
            loop.call_soon(1)
        await asyncio.sleep(0)
        assert sys.get_coroutine_origin_tracking_depth() > 0
        loop.set_debug(False)
        assert loop.create_future()._source_traceback is None
        await asyncio.sleep(0)
        assert sys.get_coroutine_origin_tracking_depth() == 0

    run(main())


def test_coroutine_origin_is_tracked_in_debug_mode_and_restored(loop, run):
    loop.set_debug(True)
    assert sys.get_coroutine_origin_tracking_depth() == 0

    async def main():
        return sys.get_coroutine_origin_tracking_depth()

    assert run(main()) > 0
    assert sys.get_coroutine_origin_tracking_depth() == 0


# --- Exception handler


def test_exception_handler_can_be_set_and_read(loop):
    def handler(loop, context):
        pass

    assert loop.get_exception_handler() is None
    loop.set_exception_handler(handler)
    assert loop.get_exception_handler() is handler
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None


@pytest.mark.parametrize("bad", [1, "x", object()])
def test_exception_handler_must_be_callable(loop, bad):
    with pytest.raises(TypeError, match="^A callable object or None is expected, got "):
        loop.set_exception_handler(bad)


def test_default_handler_logs_message_and_sorted_keys(loop, logs):
    exc = ValueError("why")
    loop.call_exception_handler({"message": "m", "b": 2, "a": "x", "exception": exc})
    (record,) = logs.take()
    assert record.getMessage() == "m\na: 'x'\nb: 2"
    assert record.exc_info == (ValueError, exc, None)


def test_default_handler_without_a_message(loop, logs):
    loop.call_exception_handler({})
    (record,) = logs.take()
    assert record.getMessage() == "Unhandled exception in event loop"


def test_failing_handler_is_logged_with_the_original_context(loop, turn, logs):
    def handler(loop, context):
        raise LookupError("handler")

    def bad():
        raise ValueError("original")

    loop.set_exception_handler(handler)
    loop.call_soon(bad)
    turn()
    (record,) = logs.take()
    assert record.getMessage().startswith("Unhandled error in exception handler\ncontext: {")
    assert "ValueError('original')" in record.getMessage()
    assert record.exc_info[0] is LookupError


def test_exception_handler_is_called_while_the_callbacks_exception_is_handled(loop, turn, logs):
    handled = []

    def handler(loop, context):
        handled.append((sys.exc_info()[1], context["exception"]))
        raise LookupError("handler")

    def bad():
        raise ValueError("original")

    async def bad_task():
        loop.set_exception_handler(handler)
        loop.call_soon(bad)
        loop.call_later(0, bad)

    loop.run_until_complete(bad_task())
    turn(2)
    assert [exc.args for exc, _ in handled] == [("original",)] * 2
    assert all(exc is told for exc, told in handled)
    records = logs.take()
    assert [record.exc_info[1].__context__ for record in records] == [exc for exc, _ in handled]
    assert sys.exc_info() == (None, None, None)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_handler_may_end_the_loop(loop, kind):
    def handler(loop, context):
        raise kind

    def bad():
        raise ValueError

    loop.set_exception_handler(handler)
    loop.call_soon(bad)
    with pytest.raises(kind):
        loop.run_forever()


def test_overridden_default_handler_is_used(impl):
    seen = []

    class Mine(impl.EventLoop):
        def default_exception_handler(self, context):
            seen.append(context["message"])

    loop = Mine()
    loop.call_exception_handler({"message": "m"})
    loop.close()
    assert seen == ["m"]


# --- Task factories


def test_task_factory_can_be_set_and_read(loop):
    assert loop.get_task_factory() is None
    loop.set_task_factory(callback)
    assert loop.get_task_factory() is callback
    loop.set_task_factory(None)
    assert loop.get_task_factory() is None


@pytest.mark.parametrize("bad", [1, "x", object()])
def test_task_factory_must_be_callable(loop, bad):
    with pytest.raises(TypeError, match="^task factory must be a callable or None$"):
        loop.set_task_factory(bad)


def test_task_factory_makes_the_tasks(impl, loop, run):
    made = []

    def factory(loop, coro, **kwargs):
        made.append(coro.__name__)
        return impl.Task(coro, loop=loop, **kwargs)

    loop.set_task_factory(factory)

    async def main():
        await asyncio.create_task(returns(1))
        await loop.create_task(nothing(), name="given")
        return asyncio.current_task().get_name()

    run(main())
    assert made == ["main", "returns", "nothing"]
    loop.set_task_factory(None)


def test_task_factory_gets_the_context_only_when_one_is_given(impl, loop, run):
    made = []

    def factory(loop, coro, **kwargs):
        made.append(kwargs.get("context", "absent"))
        return impl.Task(coro, loop=loop, **kwargs)

    loop.set_task_factory(factory)
    ctx = contextvars.copy_context()
    run(loop.create_task(nothing(), context=ctx))
    run(loop.create_task(nothing()))
    assert made[0] is ctx
    assert made[1] in ("absent", None)
    loop.set_task_factory(None)


def test_task_factory_may_return_a_stock_task(loop, run):
    loop.set_task_factory(lambda loop, coro, **kw: asyncio.Task(coro, loop=loop, **kw))
    assert run(loop.create_task(returns(1))) == 1
    loop.set_task_factory(None)


def test_name_reaches_a_task_whose_factory_ignores_it(impl, loop, run):
    if sys.version_info >= (3, 14):
        pytest.skip("3.14 hands the name to the factory")
    loop.set_task_factory(lambda loop, coro, context=None: impl.Task(coro, loop=loop))
    task = loop.create_task(nothing(), name="given")
    assert task.get_name() == "given"
    run(task)
    loop.set_task_factory(None)


# --- Overriding


def test_overridden_call_soon_sees_what_tasks_and_futures_schedule(impl):
    calls = []

    class Mine(impl.EventLoop):
        def call_soon(self, callback, *args, context=None):
            calls.append(args)
            return super().call_soon(callback, *args, context=context)

    loop = Mine()
    fut = loop.create_future()

    async def main():
        return await fut

    task = loop.create_task(main())
    assert len(calls) == 1
    super(Mine, loop).call_soon(fut.set_result, 3)
    assert loop.run_until_complete(task) == 3
    assert (fut,) in calls
    assert (task,) in calls
    loop.close()


def test_call_soon_replaced_on_the_instance_is_used(impl, loop, run):
    calls = []
    original = loop.call_soon

    def call_soon(callback, *args, context=None):
        calls.append(args)
        return original(callback, *args, context=context)

    loop.call_soon = call_soon
    fut = loop.create_future()

    async def main():
        await asyncio.sleep(0)
        original(fut.set_result, 3)
        return await fut

    task = loop.create_task(main())
    assert run(task) == 3
    assert calls.count(()) >= 2
    assert (fut,) in calls and (task,) in calls
    del loop.call_soon
    n = len(calls)
    run(nothing())
    assert len(calls) == n


def test_call_soon_replaced_while_running_is_used(loop, run):
    calls = []
    original = loop.call_soon

    def call_soon(callback, *args, context=None):
        calls.append(callback)
        return original(callback, *args, context=context)

    async def main():
        loop.call_soon = call_soon
        await asyncio.sleep(0)
        assert len(calls) == 1
        del loop.call_soon
        await asyncio.sleep(0)
        assert len(calls) == 1

    run(main())


def test_call_soon_replaced_on_the_class_later_is_used(impl):
    class Mine(impl.EventLoop):
        pass

    loop = Mine()
    loop.run_until_complete(nothing())
    calls = []

    def call_soon(self, callback, *args, context=None):
        calls.append(callback)
        return super(Mine, self).call_soon(callback, *args, context=context)

    Mine.call_soon = call_soon
    loop.run_until_complete(nothing())
    assert calls
    del Mine.call_soon
    n = len(calls)
    loop.run_until_complete(nothing())
    assert len(calls) == n
    loop.close()


def test_overridden_create_task_is_used_by_asyncio(impl):
    made = []

    class Mine(impl.EventLoop):
        def create_task(self, coro, **kwargs):
            made.append(coro.__name__)
            return super().create_task(coro, **kwargs)

    loop = Mine()

    async def main():
        await asyncio.gather(returns(1))
        await asyncio.create_task(nothing())

    loop.run_until_complete(main())
    loop.close()
    assert made == ["main", "returns", "nothing"]


def test_overridden_create_future_is_used_by_asyncio(impl):
    made = []

    class Mine(impl.EventLoop):
        def create_future(self):
            made.append(1)
            return super().create_future()

    loop = Mine()
    loop.run_until_complete(asyncio.sleep(0.0001))
    loop.close()
    assert made


def test_overridden_call_at_is_used_by_call_later(impl):
    calls = []

    class Mine(impl.EventLoop):
        def call_at(self, when, callback, *args, context=None):
            calls.append(callback)
            return super().call_at(when, callback, *args, context=context)

    loop = Mine()
    loop.call_later(1000, callback).cancel()
    loop.close()
    assert calls == [callback]


def test_subclass_can_have_attributes_and_its_own_init(impl):
    class Mine(impl.EventLoop):
        def __init__(self, tag):
            super().__init__()
            self.tag = tag

    loop = Mine("t")
    loop.extra = 1
    assert (loop.tag, loop.extra) == ("t", 1)
    assert loop.run_until_complete(returns(1)) == 1
    loop.close()


def test_is_a_selector_event_loop(impl, loop):
    assert isinstance(loop, asyncio.SelectorEventLoop)
    assert isinstance(loop, asyncio.AbstractEventLoop)
    assert isinstance(loop, impl.EventLoop)


def test_every_public_method_of_asyncios_loop_is_there(impl):
    for name, member in inspect.getmembers(asyncio.SelectorEventLoop):
        if not name.startswith("_"):
            assert callable(getattr(impl.EventLoop, name)) == callable(member), name


# --- Asynchronous generators


def test_shutdown_asyncgens_closes_them(loop, run):
    closed = []

    async def agen():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def main():
        it = agen()
        assert await anext(it) == 1
        return it

    it = run(main())
    run(loop.shutdown_asyncgens())
    assert closed == [True]
    del it


def test_abandoned_asyncgen_is_closed_by_the_loop(loop, run):
    closed = []

    async def agen():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def main():
        it = agen()
        await anext(it)
        del it
        gc.collect()
        for _ in range(4):
            await asyncio.sleep(0)

    run(main())
    assert closed == [True]


def test_asyncgen_that_fails_to_close_is_reported(loop, run, reports):
    async def agen():
        try:
            yield 1
        finally:
            raise LookupError("closing")

    async def main():
        it = agen()
        await anext(it)
        return it

    it = run(main())
    run(loop.shutdown_asyncgens())
    (report,) = reports.take()
    assert set(report) == {"message", "exception", "asyncgen"}
    assert report["asyncgen"] is it
    assert report["message"] == (
        f"an error occurred during closing of asynchronous generator {it!r}"
    )


def test_asyncgen_started_after_the_shutdown_warns(loop, run):
    async def agen():
        yield 1

    run(loop.shutdown_asyncgens())

    async def main():
        it = agen()
        with pytest.warns(ResourceWarning, match="was scheduled after loop.shutdown_asyncgens"):
            await anext(it)
        await it.aclose()

    run(main())


def test_asyncgen_hooks_are_restored(loop, run):
    def first(agen):
        pass

    saved = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=first)
    try:

        async def main():
            assert sys.get_asyncgen_hooks().firstiter is not first

        run(main())
        assert sys.get_asyncgen_hooks().firstiter is first
    finally:
        sys.set_asyncgen_hooks(*saved)


# --- Executors


def test_run_in_executor(loop, run):
    main_thread = threading.get_ident()

    async def main():
        ident = await loop.run_in_executor(None, threading.get_ident)
        assert ident != main_thread
        with pytest.raises(ValueError):
            await loop.run_in_executor(None, int, "x")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            assert await loop.run_in_executor(pool, lambda *a: a, 1, 2) == (1, 2)
        assert await asyncio.to_thread(threading.get_ident) != main_thread

    run(main())
    run(loop.shutdown_default_executor())
    with pytest.raises(RuntimeError, match="^Executor shutdown has been called$"):
        loop.run_in_executor(None, callback)


def test_default_executor_must_be_a_thread_pool(loop):
    with pytest.raises(TypeError, match="^executor must be ThreadPoolExecutor instance$"):
        loop.set_default_executor(object())


def test_executor_futures_are_the_implementations(impl, loop, run):
    async def main():
        fut = loop.run_in_executor(None, callback)
        assert isinstance(fut, asyncio.Future)
        assert fut.get_loop() is loop
        await fut

    run(main())
    run(loop.shutdown_default_executor())


# --- Running programs


def test_run_runs_and_closes(impl):
    async def main():
        loop = asyncio.get_running_loop()
        assert isinstance(loop, impl.EventLoop)
        return weakref.ref(loop)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        ref = impl.run(main())
    loop = ref()
    assert loop is None or loop.is_closed()


def test_run_from_a_running_loop_is_refused(impl, run):
    async def main():
        coro = nothing()
        with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
            impl.run(coro)
        coro.close()

    run(main())


def test_run_in_debug_mode(impl):
    async def main():
        return asyncio.get_running_loop().get_debug()

    assert impl.run(main(), debug=True) is True
    assert impl.run(main(), debug=False) is False


def test_run_cancels_what_is_left(impl):
    seen = []

    async def forever():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            seen.append("cancelled")

    async def main():
        task = asyncio.create_task(forever())
        await asyncio.sleep(0)
        return task.get_name()

    impl.run(main())
    assert seen == ["cancelled"]


@pytest.mark.parametrize("bad", [1, "x", None, nothing])
def test_run_needs_a_coroutine(impl, bad):
    with pytest.raises((TypeError, ValueError)):
        impl.run(bad)


def test_runner_keeps_its_loop_and_context(impl):
    var = contextvars.ContextVar("var", default=0)

    async def bump():
        var.set(var.get() + 1)
        return var.get(), asyncio.get_running_loop()

    with impl.Runner() as runner:
        first, loop = runner.run(bump())
        second, again = runner.run(bump())
        assert (first, second) == (1, 2)
        assert loop is again is runner.get_loop()
        assert isinstance(loop, impl.EventLoop)
    assert loop.is_closed()
    with pytest.raises(RuntimeError, match="^Runner is closed$"):
        runner.get_loop()


@pytest.mark.ctask_only
def test_methods_of_the_class_in_c_are_replaced(script):
    done = script("""
    from ctask import _ctask

    class Mine(_ctask.Loop):
        pass

    for name in ("call_soon", "call_at", "time", "get_debug", "create_future", "create_task"):
        for value in (5, "text", print, str.upper, lambda *args: None):
            saved = getattr(_ctask.Loop, name)
            setattr(_ctask.Loop, name, value)
            Mine._adopt_methods()
            loop = impl.new_event_loop()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
            setattr(_ctask.Loop, name, saved)
    print("done")
    """)
    assert done.out == "done\n"
