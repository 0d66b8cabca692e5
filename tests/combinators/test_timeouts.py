"""Timeout, timeout() and timeout_at(): cancelling at a deadline; the same on asyncio's own."""

import asyncio
import gc
import inspect
import sys
import weakref
from asyncio import timeouts
from types import SimpleNamespace

import pytest

State = timeouts._State


@pytest.fixture
def own(impl):
    """Timeout, timeout and timeout_at of the implementation under test."""
    if impl.name == "asyncio":
        module = timeouts
    else:
        import ctask as module
    return SimpleNamespace(
        Timeout=module.Timeout, timeout=module.timeout, timeout_at=module.timeout_at
    )


@pytest.fixture
def timeout(own):
    return own.timeout


@pytest.fixture(params=["own", "stock", "debug", "overridden"])
def any_loop(request, impl):
    """Runs a coroutine on a loop of ours, on asyncio's, in debug mode, and where calls are seen."""
    loop = asyncio.SelectorEventLoop() if request.param == "stock" else impl.new_event_loop()
    loop.set_debug(request.param == "debug")
    loop.slow_callback_duration = 3600  # nothing is to be logged on a slow machine
    if request.param == "overridden":
        loop.call_at = lambda *args, _call_at=loop.call_at, **kwargs: _call_at(*args, **kwargs)
    yield loop.run_until_complete
    vars(loop).pop("call_at", None)
    loop.close()
    asyncio.set_event_loop(None)


async def forever():
    await asyncio.get_running_loop().create_future()


# ---- nothing times out ----


def test_a_body_that_ends_in_time_is_left_alone(any_loop, timeout):
    async def body():
        async with timeout(60) as cm:
            assert cm._state is State.ENTERED
            assert cm._timeout_handler.when() == cm.when()
            assert cm._task is asyncio.current_task()
            assert cm._cancelling == 0
            await asyncio.sleep(0)
            handler = cm._timeout_handler
        assert handler.cancelled()
        assert cm._timeout_handler is None
        assert cm._state is State.EXITED
        assert not cm.expired()
        return cm.when() - asyncio.get_running_loop().time()

    assert 0 < any_loop(body()) <= 60


@pytest.mark.parametrize("delay", [60, 60.0, True, 10**9])
def test_the_deadline_counts_from_the_call(loop, run, timeout, delay):
    async def body():
        before = loop.time()
        cm = timeout(delay)
        after = loop.time()
        assert before + delay <= cm.when() <= after + delay
        assert type(cm.when()) is float

    run(body())


def test_None_never_times_out(any_loop, timeout):
    async def body():
        async with timeout(None) as cm:
            assert cm.when() is None
            assert cm._timeout_handler is None
            await asyncio.sleep(0)
        assert not cm.expired()

    any_loop(body())


def test_timeout_at_takes_the_time_itself(loop, run, own):
    when = loop.time() + 50

    async def body():
        async with own.timeout_at(when) as cm:
            assert cm.when() is when
            assert cm._timeout_handler.when() == when
        async with own.timeout_at(None):
            pass

    run(body())


@pytest.mark.parametrize("exc", [ValueError("a"), asyncio.CancelledError("b"), SystemExit(3)])
def test_an_exception_in_time_passes(any_loop, timeout, exc):
    async def body():
        async with timeout(60):
            raise exc

    async def main():
        with pytest.raises(type(exc)) as caught:
            await body()
        assert caught.value is exc
        assert exc.__context__ is None and exc.__cause__ is None

    any_loop(main())
    exc.__traceback__ = None


def test_a_keyword_is_accepted_and_others_are_refused(loop, run, own):
    async def body():
        assert own.timeout(delay=None).when() is None
        assert own.timeout_at(when=5).when() == 5
        assert own.Timeout(when=6).when() == 6
        with pytest.raises(TypeError, match=r"timeout\(\) missing 1 required positional"):
            own.timeout()
        with pytest.raises(TypeError, match=r"timeout\(\) got an unexpected keyword"):
            own.timeout(seconds=1)
        with pytest.raises(TypeError, match=r"timeout_at\(\) takes 1 positional"):
            own.timeout_at(1, 2)
        with pytest.raises(TypeError):
            own.Timeout()
        with pytest.raises(TypeError, match="unsupported operand"):
            own.timeout("1")

    run(body())


# ---- it times out ----


@pytest.mark.parametrize("delay", [0, -1, 0.001, -0.5, float("-inf")])
def test_the_body_is_cancelled_and_TimeoutError_comes_out(any_loop, timeout, delay):
    async def body():
        task = asyncio.current_task()
        with pytest.raises(TimeoutError) as caught:
            async with timeout(delay) as cm:
                try:
                    await forever()
                except asyncio.CancelledError:
                    assert cm.expired()
                    assert cm._state is State.EXPIRING
                    assert cm._timeout_handler is None
                    assert task.cancelling() == 1
                    raise
        assert cm.expired()
        assert cm._state is State.EXPIRED
        assert task.cancelling() == 0
        exc = caught.value
        assert type(exc.__cause__) is asyncio.CancelledError
        assert exc.__context__ is exc.__cause__
        assert exc.args == ()

    any_loop(body())


def test_a_deadline_that_has_passed_is_a_plain_callback(loop, run, timeout):
    async def body():
        with pytest.raises(TimeoutError):
            async with timeout(0) as cm:
                assert not isinstance(cm._timeout_handler, asyncio.TimerHandle)
                assert isinstance(cm._timeout_handler, asyncio.Handle)
                await forever()

    run(body())


def test_a_body_that_swallows_the_cancellation_is_left_alone(any_loop, timeout):
    async def body():
        async with timeout(0) as cm:
            with pytest.raises(asyncio.CancelledError):
                await forever()
        assert cm.expired()
        assert asyncio.current_task().cancelling() == 0

    any_loop(body())


def test_the_inner_of_two_strikes(any_loop, timeout):
    async def body():
        async with timeout(60) as outer:
            with pytest.raises(TimeoutError):
                async with timeout(0.001) as inner:
                    await forever()
        assert inner.expired() and not outer.expired()

    any_loop(body())


def test_the_outer_of_two_strikes(any_loop, timeout):
    async def body():
        with pytest.raises(TimeoutError) as caught:
            async with timeout(0.001) as outer:
                async with timeout(60) as inner:
                    await forever()
        assert outer.expired() and not inner.expired()
        assert type(caught.value.__cause__) is asyncio.CancelledError

    any_loop(body())


def test_both_strike_at_once(any_loop, timeout):
    async def body():
        with pytest.raises(TimeoutError):
            async with timeout(0) as outer:
                async with timeout(0) as inner:
                    await forever()
        assert outer.expired() and inner.expired()
        assert asyncio.current_task().cancelling() == 0

    any_loop(body())


def test_a_cancellation_from_outside_wins(any_loop, timeout):
    async def victim(started):
        async with timeout(0):
            started.set()
            await forever()

    async def body():
        started = asyncio.Event()
        task = asyncio.create_task(victim(started))
        await started.wait()
        task.cancel("outside")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1

    any_loop(body())


def test_a_cancellation_before_entering_counts(any_loop, timeout):
    async def body():
        task = asyncio.current_task()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with timeout(0) as cm:
                assert cm._cancelling == 1
                await forever()
        assert task.uncancel() == 0

    any_loop(body())


@pytest.mark.parametrize("wrap", [False, True])
def test_another_exception_from_the_cancelled_body(any_loop, timeout, wrap):
    async def body():
        with pytest.raises(ExceptionGroup if wrap else KeyError) as caught:
            async with timeout(0):
                try:
                    await forever()
                finally:
                    if wrap:
                        try:
                            raise KeyError
                        except KeyError as exc:
                            group = ExceptionGroup("g", [exc])
                        raise group
                    raise KeyError
        exc = caught.value
        if sys.version_info < (3, 13):
            assert type(exc.__context__) is asyncio.CancelledError
            return
        inserted = exc.__context__
        assert type(inserted) is TimeoutError
        assert type(inserted.__cause__) is asyncio.CancelledError
        assert inserted.__context__ is inserted.__cause__
        if wrap:
            assert type(exc.exceptions[0].__context__) is TimeoutError

    any_loop(body())


# ---- reschedule ----


def test_reschedule_moves_the_deadline(any_loop, timeout):
    async def body():
        loop = asyncio.get_running_loop()
        async with timeout(60) as cm:
            first = cm._timeout_handler
            cm.reschedule(loop.time() + 70)
            assert first.cancelled()
            assert cm._timeout_handler.when() == cm.when()
            second = cm._timeout_handler
            cm.reschedule(None)
            assert second.cancelled()
            assert cm._timeout_handler is None and cm.when() is None
            cm.reschedule(when=loop.time() + 80)
            assert "when=" in repr(cm)
        with pytest.raises(TimeoutError):
            async with timeout(None) as cm:
                cm.reschedule(loop.time() - 1)
                assert not cm.expired()
                await forever()
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'when'"):
            cm.reschedule()

    any_loop(body())


def test_reschedule_needs_one_that_is_entered(loop, run, timeout):
    async def body():
        cm = timeout(60)
        with pytest.raises(RuntimeError, match="^Timeout has not been entered$"):
            cm.reschedule(1)
        async with cm:
            pass
        with pytest.raises(RuntimeError, match="^Cannot change state of finished Timeout$"):
            cm.reschedule(1)
        with pytest.raises(TimeoutError):
            async with timeout(0) as cm:
                try:
                    await forever()
                finally:
                    with pytest.raises(RuntimeError, match="^Cannot change state of expiring"):
                        cm.reschedule(1)
        with pytest.raises(RuntimeError, match="^Cannot change state of expired Timeout$"):
            cm.reschedule(1)

    run(body())


def test_reschedule_to_what_is_no_time(loop, run, timeout):
    async def body():
        async with timeout(60) as cm:
            with pytest.raises(TypeError, match="'<=' not supported"):
                cm.reschedule("soon")
        assert cm._state is State.EXITED

    run(body())


# ---- wrong use ----


def test_it_is_entered_once(loop, run, timeout):
    async def body():
        async with timeout(60) as cm:
            with pytest.raises(RuntimeError, match="^Timeout has already been entered$"):
                async with cm:
                    pass
            assert cm._state is State.ENTERED
        with pytest.raises(RuntimeError, match="^Timeout has already been entered$"):
            await cm.__aenter__()

    run(body())


def test_a_loop_is_needed(timeout, own):
    with pytest.raises(RuntimeError, match="^no running event loop$"):
        timeout(1)
    cm = own.timeout_at(1)
    coro = cm.__aenter__()
    with pytest.raises(RuntimeError, match="^no running event loop$"):
        coro.send(None)
    assert cm._state is State.CREATED


def test_a_task_is_needed(loop, timeout, turn):
    seen = []

    def callback():
        coro = timeout(1).__aenter__()
        with pytest.raises(RuntimeError, match="^Timeout should be used inside a task$"):
            coro.send(None)
        seen.append(True)

    loop.call_soon(callback)
    turn()
    assert seen


def test_leaving_what_was_not_entered_is_an_error(loop, run, timeout):
    async def body():
        with pytest.raises(AssertionError):
            await timeout(1).__aexit__(None, None, None)

    run(body())


def test_the_timer_of_one_that_was_left_is_refused(loop, run, timeout):
    async def body():
        async with timeout(60) as cm:
            strike = cm._on_timeout
        with pytest.raises(AssertionError):
            strike()

    run(body())


def test_uninitialized_objects_do_not_crash(loop, run, own):
    async def body():
        cm = own.Timeout.__new__(own.Timeout)
        for call in (cm.when, cm.expired, cm._on_timeout, lambda: cm.reschedule(1)):
            with pytest.raises((AttributeError, AssertionError)):
                call()
        for enter in (cm.__aenter__, lambda: cm.__aexit__(None, None, None)):
            with pytest.raises((AttributeError, AssertionError)):
                await enter()
        cm.__init__(None)
        async with cm:
            pass

    run(body())


# ---- shape ----


def test_repr(loop, run, timeout, own):
    async def body():
        cm = own.Timeout(12.34567)
        assert repr(cm) == "<Timeout [created]>"
        with pytest.raises(TimeoutError):
            async with cm:
                assert repr(cm) == "<Timeout [active] when=12.346>"
                try:
                    await forever()
                finally:
                    assert repr(cm) == "<Timeout [expiring]>"
        assert repr(cm) == "<Timeout [expired]>"
        async with timeout(None) as cm:
            assert repr(cm) == "<Timeout [active] when=None>"
        assert repr(cm) == "<Timeout [finished]>"

    run(body())


def test_the_functions_make_objects_of_the_class(loop, run, own):
    async def body():
        for cm in (own.timeout(1), own.timeout_at(1), own.Timeout(1)):
            assert type(cm) is own.Timeout
            assert isinstance(cm, asyncio.Timeout)

    run(body())


def test_its_methods_make_coroutines(own):
    assert inspect.iscoroutinefunction(own.Timeout.__aenter__)
    assert inspect.iscoroutinefunction(own.Timeout.__aexit__)
    for ours, stock in ((own.timeout, timeouts.timeout), (own.timeout_at, timeouts.timeout_at)):
        assert inspect.signature(ours) == inspect.signature(stock)
        assert ours.__name__ == stock.__name__
    with pytest.warns(RuntimeWarning, match="coroutine 'Timeout.__aenter__' was never awaited"):
        own.Timeout(1).__aenter__()
        gc.collect()


def test_objects_take_attributes_and_weak_references(loop, run, own):
    async def body():
        cm = own.timeout(60)
        cm.note = ref = weakref.ref(cm)
        async with cm:
            assert cm.note() is cm
        assert ref is cm.note
        del cm
        gc.collect()
        assert ref() is None

    run(body())


def test_a_timeout_that_was_left_is_let_go(loop, run, own):
    """No cycle is left for the collector."""

    async def body():
        gc.disable()
        try:
            async with own.timeout(60) as cm:
                await asyncio.sleep(0)
            ref = weakref.ref(cm)
            del cm
            assert ref() is None
        finally:
            gc.enable()

    run(body())


def test_many_of_them_do_not_mix_up(loop, run, own):
    async def one(i):
        async with own.timeout(60 + i) as cm:
            cm.number = i
            await asyncio.sleep(0)
            assert cm.number == i
        assert vars(cm)["number"] == i

    async def body():
        for _ in range(3):
            await asyncio.gather(*[one(i) for i in range(50)])
        async with own.timeout(60) as cm:
            assert not hasattr(cm, "number")

    run(body())


def test_a_subclass_overrides_what_it_likes(any_loop, own):
    calls = []

    class Mine(own.Timeout):
        def reschedule(self, when):
            calls.append(("reschedule", when))
            super().reschedule(when)

        def _on_timeout(self):
            calls.append("struck")
            super()._on_timeout()

        async def __aexit__(self, *exc):
            calls.append("exit")
            return await super().__aexit__(*exc)

    async def body():
        with pytest.raises(TimeoutError):
            async with Mine(0) as cm:
                assert type(cm) is Mine
                await forever()

    any_loop(body())
    assert calls == [("reschedule", 0), "struck", "exit"]


def test_methods_replaced_on_the_instance_are_called(loop, run, timeout):
    calls = []

    async def body():
        cm = timeout(60)
        cm.reschedule = calls.append
        async with cm:
            assert calls == [cm.when()]
            assert cm._timeout_handler is None

    run(body())


def test_methods_replaced_on_the_class_are_called(loop, run, own, monkeypatch):
    calls = []

    async def body():
        async with own.timeout(60):
            pass
        with monkeypatch.context() as patch:
            patch.setattr(own.Timeout, "reschedule", lambda self, when: calls.append(when))
            async with own.timeout(60) as cm:
                assert calls == [cm.when()]
        async with own.timeout(60) as cm:
            assert cm._timeout_handler is not None
        assert len(calls) == 1

    run(body())


def test_attributes_can_be_written(loop, run, timeout):
    async def body():
        async with timeout(60) as cm:
            handler = cm._timeout_handler
            cm._timeout_handler = None
        assert cm._state is State.EXITED
        assert not handler.cancelled()
        handler.cancel()
        async with timeout(60) as cm:
            cm._state = State.EXPIRING
        assert cm.expired()

    run(body())


def test_the_collector_sees_through(loop, run, own):
    async def body():
        cm = own.timeout(60)
        coro = cm.__aenter__()
        with pytest.raises(StopIteration):
            coro.send(None)
        cm._timeout_handler.cancel()
        cm.me = cm
        return weakref.ref(cm)

    ref = run(body())
    gc.collect()
    assert ref() is None
