"""Future: results, exceptions, callbacks, cancellation, reprs and the await protocol."""

import asyncio
import collections.abc
import contextvars
import copy
import gc
import pickle
import re
import sys
import types
import weakref
from asyncio import format_helpers

import pytest

HERE = __file__
WAYS = ["result", "exception", "cancel"]


def noop(fut):
    pass


def source(func):
    return f"{func.__qualname__}() at {HERE}:{func.__code__.co_firstlineno}"


def finish(fut, how):
    if how == "result":
        fut.set_result(1)
    elif how == "exception":
        fut.set_exception(ValueError())
        fut.exception()
    else:
        fut.cancel()


@pytest.fixture
def fut(impl, loop):
    return impl.Future(loop=loop)


# --- Construction


def test_loop_argument_is_keyword_only(impl, loop):
    with pytest.raises(TypeError):
        impl.Future(loop)


def test_unknown_keyword_is_refused(impl, loop):
    with pytest.raises(TypeError):
        impl.Future(loop=loop, name="x")


def test_loop_none_means_the_running_loop(impl, loop, run):
    async def main():
        return impl.Future().get_loop(), impl.Future(loop=None).get_loop()

    assert run(main()) == (loop, loop)


def test_without_a_loop_anywhere_construction_raises(impl):
    asyncio.set_event_loop(None)
    with pytest.raises(RuntimeError, match="There is no current event loop in thread"):
        impl.Future()


def test_create_future_makes_one_of_the_implementation(impl, loop):
    assert type(loop.create_future()) is impl.Future
    assert loop.create_future().get_loop() is loop


def test_is_an_asyncio_future_in_every_sense(impl, fut):
    assert isinstance(fut, asyncio.Future)
    assert issubclass(impl.Future, asyncio.Future)
    assert asyncio.isfuture(fut)
    assert fut is asyncio.ensure_future(fut)


def test_class_attributes_say_that_it_is_a_duck_future(impl, fut):
    assert fut._asyncio_future_blocking is False
    assert hasattr(impl.Future, "_asyncio_future_blocking")
    assert impl.Future.__name__ == impl.Future.__qualname__ == "Future"


def test_class_getitem_gives_an_alias(impl):
    alias = impl.Future[int]
    assert isinstance(alias, types.GenericAlias)
    assert alias.__origin__ is impl.Future
    assert alias.__args__ == (int,)


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="refused from 3.15 on")
def test_init_of_a_live_future_resets_it(loop, fut):
    fut.set_result(1)
    fut.__init__(loop=loop)
    assert not fut.done()
    fut.set_result(2)
    assert fut.result() == 2


@pytest.mark.skipif(sys.version_info < (3, 15), reason="resets it before 3.15")
def test_init_of_a_live_future_is_refused(loop, fut):
    fut.set_result(1)
    with pytest.raises(RuntimeError, match="Future object is already initialized$"):
        fut.__init__(loop=loop)
    assert fut.result() == 1


# --- Results and exceptions


def test_new_future_is_pending(fut):
    assert not fut.done()
    assert not fut.cancelled()
    assert fut._state == "PENDING"
    with pytest.raises(asyncio.InvalidStateError, match=r"^Result is not set\.$"):
        fut.result()
    with pytest.raises(asyncio.InvalidStateError, match=r"^Exception is not set\.$"):
        fut.exception()


def test_result_can_be_read_again_and_again(fut):
    value = object()
    assert fut.set_result(value) is None
    assert fut.done() and not fut.cancelled()
    assert fut._state == "FINISHED"
    assert fut.result() is fut.result() is value
    assert fut._result is value
    assert fut.exception() is None


def test_none_is_a_result(fut):
    fut.set_result(None)
    assert fut.done()
    assert fut.result() is None


def test_an_exception_object_is_a_fine_result(fut):
    exc = ValueError("x")
    fut.set_result(exc)
    assert fut.result() is exc
    assert fut.exception() is None


@pytest.mark.parametrize("first", WAYS)
@pytest.mark.parametrize("second", ["result", "exception"])
def test_finishing_twice_raises_invalid_state(fut, first, second):
    finish(fut, first)
    with pytest.raises(asyncio.InvalidStateError, match="^invalid state$"):
        if second == "result":
            fut.set_result(2)
        else:
            fut.set_exception(TypeError())
    assert fut._state == ("CANCELLED" if first == "cancel" else "FINISHED")


def test_exception_is_raised_and_returned(fut):
    exc = ValueError("reason")
    assert fut.set_exception(exc) is None
    assert fut.done() and not fut.cancelled()
    assert fut._state == "FINISHED"
    assert fut.exception() is exc
    with pytest.raises(ValueError) as caught:
        fut.result()
    assert caught.value is exc
    assert fut._exception is exc
    exc.__traceback__ = None


def test_exception_class_is_instantiated(fut):
    fut.set_exception(ZeroDivisionError)
    assert type(fut.exception()) is ZeroDivisionError
    assert fut.exception().args == ()


def test_traceback_of_the_stored_exception_is_kept(fut):
    def origin():
        raise ValueError

    try:
        origin()
    except ValueError as exc:
        fut.set_exception(exc)
    with pytest.raises(ValueError) as caught:
        fut.result()
    assert [entry.name for entry in caught.traceback][-1] == "origin"
    fut._exception.__traceback__ = None


@pytest.mark.parametrize("bad", [1, "x", None, int, object(), asyncio])
def test_what_is_not_an_exception_is_refused(fut, bad):
    with pytest.raises(TypeError, match="^invalid exception object$"):
        fut.set_exception(bad)
    assert not fut.done()


def test_exception_class_whose_constructor_fails(fut):
    class Bad(Exception):
        def __init__(self):
            raise LookupError("in constructor")

    with pytest.raises(LookupError, match="in constructor"):
        fut.set_exception(Bad)
    assert not fut.done()


def test_exception_class_whose_new_returns_no_exception(fut):
    class Odd(Exception):
        def __new__(cls):
            return 42

    with pytest.raises(TypeError, match="^invalid exception object$"):
        fut.set_exception(Odd)
    assert not fut.done()


def test_what_is_no_exception_ends_when_the_callbacks_are_there(loop, fut):
    called = []
    fut.add_done_callback(lambda fut: called.append("first"))

    class Instance:
        def __del__(self):
            fut.add_done_callback(lambda fut: called.append("second"))
            fut.set_result(1)

    class Odd(Exception):
        def __new__(cls):
            return Instance()

    with pytest.raises(TypeError, match="^invalid exception object$"):
        fut.set_exception(Odd)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert called == ["first", "second"]


STOP = "StopIteration interacts badly with generators and cannot be raised into a Future"


@pytest.fixture
def converts(loop):
    """Whether this Python's asyncio converts StopIteration (3.11.7 and 3.12.1 refuse it)."""
    fut = asyncio.Future(loop=loop)
    try:
        fut.set_exception(StopIteration)
    except TypeError:
        return False
    fut.exception()
    return True


@pytest.mark.parametrize("as_class", [True, False])
def test_stop_iteration_is_refused_or_becomes_a_runtime_error(fut, converts, as_class):
    stop = StopIteration if as_class else StopIteration(3)
    if not converts:
        with pytest.raises(TypeError, match=f"^{STOP}$"):
            fut.set_exception(stop)
        assert not fut.done()
        return
    fut.set_exception(stop)
    exc = fut.exception()
    assert type(exc) is RuntimeError
    assert str(exc) == STOP
    assert type(exc.__cause__) is StopIteration
    assert exc.__context__ is exc.__cause__
    if not as_class:
        assert exc.__cause__ is stop


def test_subclass_of_stop_iteration_is_converted_where_stop_iteration_is(fut, converts):
    class Mine(StopIteration):
        pass

    stop = Mine(3)
    fut.set_exception(stop)
    if converts:
        assert type(fut.exception()) is RuntimeError
        assert fut.exception().__cause__ is stop
    else:
        assert fut.exception() is stop


def test_stop_async_iteration_is_an_ordinary_exception(fut):
    exc = StopAsyncIteration()
    fut.set_exception(exc)
    assert fut.exception() is exc


def test_base_exceptions_may_be_stored(fut):
    exc = KeyboardInterrupt()
    fut.set_exception(exc)
    assert fut.exception() is exc


# --- Cancellation


def test_cancel_pending(fut):
    assert fut.cancel() is True
    assert fut.cancelled() and fut.done()
    assert fut._state == "CANCELLED"
    with pytest.raises(asyncio.CancelledError) as caught:
        fut.result()
    assert caught.value.args == ()
    with pytest.raises(asyncio.CancelledError):
        fut.exception()


@pytest.mark.parametrize("how", WAYS)
def test_cancel_of_a_finished_future_returns_false(fut, how):
    finish(fut, how)
    state = fut._state
    assert fut.cancel() is False
    assert fut.cancel(msg="late") is False
    assert fut._state == state


@pytest.mark.parametrize("message", ["why", "", 0, (1, 2), object()])
def test_cancel_message_becomes_the_only_argument(fut, message):
    fut.cancel(msg=message)
    assert fut._cancel_message is message
    with pytest.raises(asyncio.CancelledError) as caught:
        fut.result()
    assert caught.value.args == (message,)
    with pytest.raises(asyncio.CancelledError) as caught:
        fut.exception()
    assert caught.value.args == (message,)


def test_cancel_message_may_be_positional(fut):
    assert fut.cancel("why") is True
    assert fut._cancel_message == "why"


def test_cancel_takes_nothing_but_a_message(fut):
    with pytest.raises(TypeError):
        fut.cancel("a", "b")
    with pytest.raises(TypeError):
        fut.cancel(message="a")
    assert not fut.done()


def test_cancel_replaces_an_earlier_message(fut):
    assert fut._cancel_message is None
    fut._cancel_message = "early"
    fut.cancel("later")
    assert fut._cancel_message == "later"


def test_make_cancelled_error_carries_the_message(fut):
    assert fut._make_cancelled_error().args == ()
    fut._cancel_message = "m"
    assert fut._make_cancelled_error().args == ("m",)


def test_cancel_message_arrives_through_await(fut, run):
    fut.cancel("the message")

    async def main():
        await fut

    with pytest.raises(asyncio.CancelledError, match="the message"):
        run(main())


# --- Callbacks


def test_callbacks_run_later_in_order_with_the_future(fut, turn):
    seen = []
    assert fut.add_done_callback(lambda f: seen.append((1, f))) is None
    fut.add_done_callback(lambda f: seen.append((2, f)))
    fut.add_done_callback(lambda f: seen.append((3, f)))
    fut.set_result(None)
    assert seen == []
    turn()
    assert seen == [(1, fut), (2, fut), (3, fut)]


@pytest.mark.parametrize("how", WAYS)
def test_callbacks_run_however_it_finishes(fut, turn, how):
    seen = []
    fut.add_done_callback(seen.append)
    finish(fut, how)
    turn()
    assert seen == [fut]


def test_callback_of_a_finished_future_is_scheduled_not_called(fut, turn):
    fut.set_result(1)
    seen = []
    fut.add_done_callback(seen.append)
    assert seen == []
    assert fut._callbacks is None
    turn()
    assert seen == [fut]


def test_callbacks_attribute_is_none_or_pairs_with_contexts(fut):
    assert fut._callbacks is None
    ctx = contextvars.copy_context()
    fut.add_done_callback(noop, context=ctx)
    assert fut._callbacks == [(noop, ctx)]
    fut.add_done_callback(print)
    (first, second) = fut._callbacks
    assert first == (noop, ctx)
    assert second[0] is print
    assert isinstance(second[1], contextvars.Context)
    fut.remove_done_callback(print)
    fut.set_result(None)
    assert fut._callbacks is None


def test_callbacks_attribute_is_a_copy(fut):
    fut.add_done_callback(noop)
    fut.add_done_callback(noop)
    fut._callbacks.clear()
    assert len(fut._callbacks) == 2


def test_callback_runs_in_the_context_of_its_registration(fut, turn):
    var = contextvars.ContextVar("var", default="none")
    seen = []
    var.set("at registration")
    fut.add_done_callback(lambda f: seen.append(var.get()))
    var.set("after")
    fut.add_done_callback(lambda f: seen.append(var.get()))
    fut.set_result(None)
    turn()
    assert seen == ["at registration", "after"]


def test_callback_runs_in_the_given_context(fut, turn):
    var = contextvars.ContextVar("var", default="none")
    ctx = contextvars.copy_context()
    ctx.run(var.set, "given")
    seen = []

    def callback(f):
        seen.append(var.get())
        var.set("changed")

    fut.add_done_callback(callback, context=ctx)
    fut.add_done_callback(callback, context=ctx)
    fut.set_result(None)
    turn()
    assert seen == ["given", "changed"]
    assert ctx[var] == "changed"
    assert var.get() == "none"


def test_callback_of_a_finished_future_runs_in_the_given_context(fut, turn):
    var = contextvars.ContextVar("var", default="none")
    ctx = contextvars.copy_context()
    ctx.run(var.set, "given")
    seen = []
    fut.set_result(None)
    fut.add_done_callback(lambda f: seen.append(var.get()), context=ctx)
    turn()
    assert seen == ["given"]


def test_context_of_a_callback_is_keyword_only(fut):
    with pytest.raises(TypeError):
        fut.add_done_callback(noop, contextvars.copy_context())


def test_add_done_callback_needs_a_callback(fut):
    with pytest.raises(TypeError):
        fut.add_done_callback()


def test_remove_done_callback_counts_each_registration(fut):
    def other(f):
        pass

    assert fut.remove_done_callback(noop) == 0
    for cb in (noop, other, noop, noop, other):
        fut.add_done_callback(cb)
    assert fut.remove_done_callback(noop) == 3
    assert [cb for cb, _ in fut._callbacks] == [other, other]
    assert fut.remove_done_callback(noop) == 0
    assert fut.remove_done_callback(other) == 2
    assert not fut._callbacks


def test_remove_done_callback_uses_equality(fut, turn):
    class Callback:
        __hash__ = None

        def __call__(self, f):
            raise AssertionError("removed")

        def __eq__(self, other):
            return type(other) is Callback

    fut.add_done_callback(Callback())
    fut.add_done_callback(noop)
    fut.add_done_callback(Callback())
    assert fut.remove_done_callback(Callback()) == 2
    fut.set_result(None)
    turn()


def test_removed_callbacks_do_not_run(fut, turn):
    seen = []
    fut.add_done_callback(seen.append)
    fut.add_done_callback(noop)
    fut.remove_done_callback(seen.append)
    fut.set_result(None)
    turn()
    assert seen == []


def test_remove_after_done_finds_nothing(fut, turn):
    fut.add_done_callback(noop)
    fut.set_result(None)
    assert fut.remove_done_callback(noop) == 0
    turn()


def test_remove_passes_on_what_eq_raises(fut, turn):
    class Evil:
        __hash__ = None

        def __eq__(self, other):
            raise LookupError("eq")

        def __call__(self, f):
            pass

    for count in (1, 2, 3):
        fut.add_done_callback(Evil())
        with pytest.raises(LookupError, match="eq"):
            fut.remove_done_callback(noop)
        assert len(fut._callbacks) == count
    fut.cancel()
    turn()


@pytest.mark.parametrize("before", [0, 1, 2, 5])
def test_remove_survives_an_eq_that_changes_the_list(fut, before, turn):
    class Evil:
        __hash__ = None

        def __eq__(self, other):
            if other is not noop:
                fut.remove_done_callback(noop)
            return False

        def __call__(self, f):
            pass

    for _ in range(before):
        fut.add_done_callback(noop)
    fut.add_done_callback(Evil())
    fut.add_done_callback(noop)
    fut.add_done_callback(noop)
    fut.remove_done_callback(Evil())
    fut.set_result(None)
    turn()


def test_callback_that_adds_a_callback(fut, turn):
    seen = []

    def first(f):
        seen.append("first")
        f.add_done_callback(lambda f: seen.append("second"))

    fut.add_done_callback(first)
    fut.set_result(None)
    turn()
    assert seen == ["first"]
    turn()
    assert seen == ["first", "second"]


def test_callback_that_finishes_another_future(impl, fut, loop, turn):
    other = impl.Future(loop=loop)
    seen = []
    other.add_done_callback(seen.append)
    fut.add_done_callback(lambda f: other.set_result(f.result()))
    fut.set_result(7)
    turn()
    assert other.result() == 7
    assert seen == []
    turn()
    assert seen == [other]


def test_failing_callback_is_reported_and_the_next_one_runs(fut, turn, reports):
    seen = []

    def bad(f):
        raise ValueError("bad callback")

    fut.add_done_callback(bad)
    fut.add_done_callback(seen.append)
    fut.set_result(1)
    turn()
    assert seen == [fut]
    (report,) = reports.take()
    assert set(report) == {"message", "exception", "handle"}
    assert str(report["exception"]) == "bad callback"
    described = format_helpers._format_callback_source(bad, (fut,))  # 3.13 omits arguments
    assert report["message"] == f"Exception in callback {described}"


def test_callbacks_go_through_the_loops_call_soon(impl):
    calls = []

    class Loop:
        def get_debug(self):
            return False

        def call_soon(self, *args, **kwargs):
            calls.append((args, kwargs))

    fut = impl.Future(loop=Loop())
    ctx = contextvars.copy_context()
    fut.add_done_callback(noop, context=ctx)
    fut.add_done_callback(print, context=ctx)
    fut.set_result(1)
    assert calls == [((noop, fut), {"context": ctx}), ((print, fut), {"context": ctx})]


def test_call_soon_that_raises_leaves_the_future_done(impl):
    class Loop:
        def get_debug(self):
            return False

        def call_soon(self, *args, **kwargs):
            raise LookupError("call_soon")

    fut = impl.Future(loop=Loop())
    fut.add_done_callback(noop)
    fut.add_done_callback(noop)
    with pytest.raises(LookupError, match="call_soon"):
        fut.set_result(1)
    assert fut.done()
    assert fut.result() == 1


# --- repr


def test_repr_pending(fut):
    assert repr(fut) == "<Future pending>"


def test_repr_names_callbacks(fut):
    def one(f):
        pass

    def two(f):
        pass

    def three(f):
        pass

    fut.add_done_callback(one)
    assert repr(fut) == f"<Future pending cb=[{source(one)}]>"
    fut.add_done_callback(two)
    assert repr(fut) == f"<Future pending cb=[{source(one)}, {source(two)}]>"
    fut.add_done_callback(three)
    expected = f"<Future pending cb=[{source(one)}, <1 more>, {source(three)}]>"
    assert repr(fut) == expected
    for _ in range(9):
        fut.add_done_callback(three)
    assert repr(fut) == expected.replace("<1 more>", "<10 more>")


def test_repr_finished(impl, loop, fut):
    fut.set_result([1, "x"])
    assert repr(fut) == "<Future finished result=[1, 'x']>"
    long = impl.Future(loop=loop)
    long.set_result("a" * 1000)
    assert re.fullmatch(r"<Future finished result='a{3,20}\.\.\.a{3,20}'>", repr(long))


def test_repr_exception(fut):
    fut.set_exception(ValueError("why"))
    assert repr(fut) == "<Future finished exception=ValueError('why')>"
    fut.exception()


def test_repr_cancelled(fut):
    fut.cancel(msg="unseen")
    assert repr(fut) == "<Future cancelled>"


def test_repr_of_a_subclass_names_it(impl, loop):
    class Promise(impl.Future):
        pass

    assert repr(Promise(loop=loop)) == "<Promise pending>"


def test_repr_of_a_future_that_is_its_own_result_ends(fut):
    fut.set_result([fut])
    assert repr(fut) == "<Future finished result=[...]>"


def test_repr_in_debug_mode_says_where_it_was_created(impl, loop):
    loop.set_debug(True)
    fut, line = impl.Future(loop=loop), sys._getframe().f_lineno
    assert repr(fut) == f"<Future pending created at {HERE}:{line}>"
    assert fut._source_traceback[-1].filename == HERE
    assert fut._source_traceback[-1].name == sys._getframe().f_code.co_name


def test_create_future_in_debug_mode_records_the_caller(loop):
    loop.set_debug(True)
    fut = loop.create_future()
    assert any(frame.filename == HERE for frame in fut._source_traceback)


def test_no_source_traceback_without_debug(fut):
    assert fut._source_traceback is None


# --- Exceptions that nobody asked for


def test_exception_never_retrieved_is_reported(impl, loop, reports):
    fut = impl.Future(loop=loop)
    exc = ValueError("lost")
    fut.set_exception(exc)
    text = repr(fut)
    del fut
    gc.collect()
    (report,) = reports.take()
    assert set(report) == {"message", "exception", "future"}
    assert report["message"] == "Future exception was never retrieved"
    assert report["exception"] is exc
    assert type(report["future"]) is impl.Future
    assert repr(report["future"]) == text


def test_exception_never_retrieved_names_the_subclass_and_the_source(impl, loop, reports):
    class Promise(impl.Future):
        pass

    loop.set_debug(True)
    fut = Promise(loop=loop)
    traceback = fut._source_traceback
    fut.set_exception(ValueError("lost"))
    del fut
    gc.collect()
    (report,) = reports.take()
    assert set(report) == {"message", "exception", "future", "source_traceback"}
    assert report["message"] == "Promise exception was never retrieved"
    assert report["source_traceback"] == traceback


@pytest.mark.parametrize("how", ["result", "exception", "await", "flag"])
def test_retrieved_exception_is_not_reported(impl, loop, reports, how):
    fut = impl.Future(loop=loop)
    fut.set_exception(ValueError())
    assert fut._log_traceback is True
    if how == "result":
        with pytest.raises(ValueError):
            fut.result()
    elif how == "exception":
        fut.exception()
    elif how == "await":
        with pytest.raises(ValueError):
            loop.run_until_complete(fut)
    else:
        fut._log_traceback = False
    assert fut._log_traceback is False
    del fut
    gc.collect()
    assert reports == []


def test_log_traceback_can_only_be_switched_off(fut):
    assert fut._log_traceback is False
    with pytest.raises(ValueError, match="^_log_traceback can only be set to False$"):
        fut._log_traceback = True
    with pytest.raises(AttributeError):
        del fut._log_traceback


def test_report_goes_to_the_log_by_default(impl, loop, logs):
    fut = impl.Future(loop=loop)
    fut.set_exception(ValueError("lost"))
    del fut
    gc.collect()
    (record,) = logs.take()
    assert record.getMessage() == (
        "Future exception was never retrieved\n"
        "future: <Future finished exception=ValueError('lost')>"
    )
    assert record.levelname == "ERROR"
    assert record.exc_info[0] is ValueError


def test_an_exception_handler_that_raises_while_reporting(impl, unraisable):
    class Loop:
        def get_debug(self):
            return False

        def call_exception_handler(self, context):
            raise LookupError("handler")

    fut = impl.Future(loop=Loop())
    fut.set_exception(ValueError())
    del fut
    gc.collect()
    assert unraisable.take() == [(LookupError, "handler")]


def test_an_exception_in_flight_survives_the_report(impl, loop, reports):
    def scope():
        fut = impl.Future(loop=loop)
        fut.set_exception(ValueError("lost"))
        del fut
        raise TypeError("in flight")

    with pytest.raises(TypeError, match="in flight"):
        scope()
    assert [r["message"] for r in reports.take()] == ["Future exception was never retrieved"]


# --- The await protocol, by hand


def test_await_yields_the_future_and_marks_it(fut):
    it = fut.__await__()
    assert next(it) is fut
    assert fut._asyncio_future_blocking is True
    fut.set_result(5)
    with pytest.raises(StopIteration) as stop:
        next(it)
    assert stop.value.value == 5


def test_iter_is_await(fut):
    assert next(iter(fut)) is fut


def test_send_resumes_whatever_is_sent(fut):
    it = fut.__await__()
    assert it.send(None) is fut
    fut.set_result((1, 2))
    with pytest.raises(StopIteration) as stop:
        it.send("anything")
    assert stop.value.value == (1, 2)


@pytest.mark.parametrize("value", [None, (), (1,), (1, 2), StopIteration(3), ValueError("x")])
def test_any_result_arrives_unchanged_through_await(fut, run, value):
    fut.set_result(value)

    async def main():
        return await fut

    assert run(main()) is value


def test_resuming_a_pending_future_says_await_was_not_used(fut):
    it = fut.__await__()
    next(it)
    with pytest.raises(RuntimeError, match="^await wasn't used with future$"):
        next(it)


def test_exhausted_iterator_stays_exhausted(fut):
    fut.set_result(1)
    it = fut.__await__()
    with pytest.raises(StopIteration) as stop:
        next(it)
    assert stop.value.value == 1
    for _ in range(2):
        with pytest.raises(StopIteration) as stop:
            next(it)
        assert stop.value.value in (None, 1)  # 3.14's reads the future again


def test_exception_comes_out_of_the_iterator(fut):
    it = fut.__await__()
    next(it)
    fut.set_exception(ValueError("x"))
    with pytest.raises(ValueError, match="x"):
        next(it)
    with pytest.raises((ValueError, StopIteration)):  # 3.14's reads the future again
        next(it)


def test_throw_into_the_iterator_raises_it_and_ends(fut):
    it = fut.__await__()
    next(it)
    with pytest.raises(ValueError, match="thrown"):
        it.throw(ValueError("thrown"))
    with pytest.raises(StopIteration):
        next(it)
    assert not fut.done()


def test_throw_a_class_into_the_iterator(fut):
    it = fut.__await__()
    with pytest.raises(LookupError):
        it.throw(LookupError)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_throw_with_three_arguments(fut):
    it = fut.__await__()
    with pytest.raises(LookupError) as caught:
        it.throw(LookupError, "value", None)
    assert caught.value.args == ("value",)


@pytest.mark.parametrize("bad", [1, None, int, "x"])
def test_throw_of_no_exception_is_a_type_error(fut, bad):
    with pytest.raises(TypeError):
        fut.__await__().throw(bad)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_throw_with_a_bad_traceback_is_a_type_error(fut):
    with pytest.raises(TypeError):
        fut.__await__().throw(ValueError, ValueError(), 5)
    with pytest.raises(TypeError):
        fut.__await__().throw(ValueError(), 1, None)


def test_close_ends_the_iterator(fut):
    it = fut.__await__()
    next(it)
    assert it.close() is None
    with pytest.raises(StopIteration):
        next(it)
    assert not fut.done()


def test_iterator_is_an_iterator_that_refers_to_its_future(fut):
    it = fut.__await__()
    assert iter(it) is it
    assert fut in gc.get_referents(it)


def test_iterator_made_by_hand_does_not_crash(fut):
    cls = type(fut.__await__())
    try:
        it = cls()
    except TypeError:
        return
    with pytest.raises(StopIteration):
        next(it)
    assert it.close() is None
    with pytest.raises(LookupError):
        it.throw(LookupError)


def test_second_iterator_of_a_blocking_future_refuses(fut):
    next(fut.__await__())
    with pytest.raises(RuntimeError, match="^await wasn't used with future$"):
        next(fut.__await__())
    fut._asyncio_future_blocking = False
    assert next(fut.__await__()) is fut


def test_many_iterators_of_one_future(fut):
    its = [fut.__await__() for _ in range(300)]
    for it in its:
        assert next(it) is fut
        fut._asyncio_future_blocking = False  # as the task does that takes it
    fut.set_result(1)
    for it in its:
        with pytest.raises(StopIteration):
            next(it)


def test_waiters_wake_in_the_order_in_which_they_waited(fut, loop, run):
    seen = []

    async def waiter(n):
        seen.append((n, await fut))

    async def main():
        tasks = [loop.create_task(waiter(n)) for n in range(10)]
        await asyncio.sleep(0)
        fut.set_result("r")
        await asyncio.gather(*tasks)

    run(main())
    assert seen == [(n, "r") for n in range(10)]


def test_waiters_and_callbacks_share_one_order(fut, loop, run):
    seen = []

    async def waiter(n):
        await fut
        seen.append(n)

    async def main():
        a = loop.create_task(waiter("a"))
        await asyncio.sleep(0)
        fut.add_done_callback(lambda f: seen.append("callback"))
        b = loop.create_task(waiter("b"))
        await asyncio.sleep(0)
        fut.set_result(None)
        await asyncio.gather(a, b)

    run(main())
    assert seen == ["a", "callback", "b"]


def test_awaiting_a_done_future_does_not_switch(fut, loop, run):
    fut.set_result(1)
    seen = []

    async def main():
        loop.call_soon(seen.append, "turn")
        for _ in range(5):
            await fut
        assert seen == []
        await asyncio.sleep(0)
        assert seen == ["turn"]

    run(main())


def test_blocking_flag_can_be_set_and_not_deleted(fut):
    fut._asyncio_future_blocking = True
    assert fut._asyncio_future_blocking is True
    fut._asyncio_future_blocking = 0
    assert fut._asyncio_future_blocking is False
    with pytest.raises(AttributeError):
        del fut._asyncio_future_blocking


# --- Other protocols


def test_weak_references(impl, loop):
    fut = impl.Future(loop=loop)
    ref = weakref.ref(fut)
    assert ref() is fut
    del fut
    gc.collect()
    assert ref() is None


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copies_and_pickles_are_refused(fut, copier):
    with pytest.raises(TypeError):
        copier(fut)


def test_hash_and_equality_are_identity(impl, loop, fut):
    other = impl.Future(loop=loop)
    assert fut == fut and fut != other
    assert len({fut, other, fut}) == 2


def test_read_only_attributes(fut, loop):
    for name in ("_state", "_result", "_exception", "_callbacks", "_loop", "_source_traceback"):
        with pytest.raises(AttributeError):
            setattr(fut, name, 1)
    assert fut._loop is loop


def test_attributes_of_ones_own_can_be_set(impl, loop):
    class Sub(impl.Future):
        pass

    for cls in (impl.Future, Sub):
        fut = cls(loop=loop)
        assert not hasattr(fut, "anything")
        fut.anything = [1]
        assert fut.anything == [1]
        del fut.anything
        assert not hasattr(fut, "anything")


# --- Subclasses


def test_overridden_add_done_callback_is_used_by_a_waiting_task(impl, loop, run):
    calls = []

    class Mine(impl.Future):
        def add_done_callback(self, fn, *, context=None):
            calls.append(context)
            super().add_done_callback(fn, context=context)

    fut = Mine(loop=loop)

    async def main():
        loop.call_soon(fut.set_result, 3)
        return await fut

    assert run(main()) == 3
    assert len(calls) == 1
    assert isinstance(calls[0], contextvars.Context)


def test_await_reads_the_result_itself_in_subclasses_too(impl, loop, run):
    class Mine(impl.Future):
        def result(self):
            return "overridden"

    fut = Mine(loop=loop)

    async def main():
        loop.call_soon(fut.set_result, "stored")
        return await fut

    assert run(main()) == "stored"
    assert fut.result() == "overridden"


def test_overridden_cancel_is_used_when_the_waiting_task_is_cancelled(impl, loop, run):
    calls = []

    class Mine(impl.Future):
        def cancel(self, msg=None):
            calls.append(msg)
            return super().cancel(msg=msg)

    fut = Mine(loop=loop)

    async def waiter():
        await fut

    async def main():
        task = loop.create_task(waiter())
        await asyncio.sleep(0)
        task.cancel("why")
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert calls == ["why"]
    assert fut.cancelled()


def test_future_that_refuses_cancellation_delays_it_until_it_is_done(impl, loop, run):
    class Stubborn(impl.Future):
        def cancel(self, msg=None):
            return False

    fut = Stubborn(loop=loop)
    seen = []

    async def waiter():
        try:
            await fut
        except asyncio.CancelledError:
            seen.append("cancelled")

    async def main():
        task = loop.create_task(waiter())
        await asyncio.sleep(0)
        assert task.cancel() is True
        await asyncio.sleep(0)
        assert seen == [] and not fut.done()
        fut.set_result(None)
        await task

    run(main())
    assert seen == ["cancelled"]


def test_overridden_get_loop_decides_whose_future_it_is(impl, loop, run):
    class Mine(impl.Future):
        def get_loop(self):
            return "another"

    fut = Mine(loop=loop)

    async def main():
        await fut

    with pytest.raises(RuntimeError, match="attached to a different loop"):
        run(main())


def test_subclass_that_never_calls_init(impl):
    class Lazy(impl.Future):
        def __init__(self):
            pass

    fut = Lazy()
    with pytest.raises(RuntimeError, match=r"^Future object is not initialized\.$"):
        fut.set_result(1)
    with pytest.raises(RuntimeError, match=r"^Future object is not initialized\.$"):
        fut.get_loop()


def test_subclass_with_its_own_init_and_attributes(impl, loop, run):
    class Named(impl.Future):
        def __init__(self, name, *, loop):
            super().__init__(loop=loop)
            self.name = name

    fut = Named("n", loop=loop)
    loop.call_soon(fut.set_result, 1)
    assert run(fut) == 1
    assert fut.name == "n"


# --- A task as a callback, and coroutines that are driven by hand


async def waits(fut):
    return await fut


@pytest.mark.parametrize("place", ["first", "second", "done"])
@pytest.mark.parametrize("how", WAYS)
def test_task_as_a_callback_is_not_callable(impl, fut, loop, run, turn, reports, place, how):
    other = impl.Future(loop=loop)
    task = loop.create_task(waits(other))
    turn()
    if place == "second":
        fut.add_done_callback(noop)
    if place == "done":
        finish(fut, how)
    fut.add_done_callback(task)
    if place != "done":
        assert fut._callbacks[-1][0] is task
        finish(fut, how)
    turn(2)
    (report,) = reports.take()
    assert type(report["exception"]) is TypeError
    assert str(report["exception"]).endswith("object is not callable")
    assert not task.done()
    other.set_result(2)
    assert run(task) == 2


def test_task_as_a_callback_can_be_removed(impl, fut, loop, run, turn):
    other = impl.Future(loop=loop)
    task = loop.create_task(waits(other))
    fut.add_done_callback(task)
    assert fut.remove_done_callback(task) == 1
    assert fut._callbacks is None or fut._callbacks == []
    fut.set_result(1)
    turn(2)
    assert not task.done()
    other.set_result(2)
    assert run(task) == 2


def test_task_that_waits_can_be_a_callback_of_the_same_future(fut, loop, run, turn, reports):
    task = loop.create_task(waits(fut))
    turn()
    fut.add_done_callback(task)
    fut.set_result(1)
    assert run(task) == 1
    turn()
    (report,) = reports.take()
    assert type(report["exception"]) is TypeError


def test_is_no_iterator(impl, loop, fut):
    class Mine(impl.Future):
        pass

    task = loop.create_task(waits(fut))
    for obj in (fut, Mine(loop=loop), task):
        assert not isinstance(obj, collections.abc.Iterator)
        assert isinstance(obj, collections.abc.Awaitable)
        assert not isinstance(obj, collections.abc.Generator)
        for name in ("__next__", "send", "throw", "close"):
            assert not hasattr(obj, name)
        assert iter(obj) is not obj
        assert obj.__await__() is not obj
    task.cancel()
    fut.cancel()
    loop.run_until_complete(asyncio.wait([task]))


def test_coroutine_driven_by_hand(fut):
    coro = waits(fut)
    assert coro.send(None) is fut
    assert fut._asyncio_future_blocking is True
    fut._asyncio_future_blocking = False
    fut.set_result(7)
    with pytest.raises(StopIteration) as stop:
        coro.send(None)
    assert stop.value.value == 7


def test_coroutine_resumed_by_hand_too_early(fut):
    coro = waits(fut)
    assert coro.send(None) is fut
    with pytest.raises(RuntimeError, match="^await wasn't used with future$"):
        coro.send(None)
    assert not fut.done()


@pytest.mark.parametrize("how", ["exception", "cancel"])
def test_coroutine_driven_by_hand_gets_the_failure(fut, how):
    seen = []

    async def body():
        try:
            await fut
        except BaseException as exc:
            seen.append(type(exc))
        return "after"

    coro = body()
    assert coro.send(None) is fut
    finish(fut, how)
    with pytest.raises(StopIteration) as stop:
        coro.send(None)
    assert stop.value.value == "after"
    assert seen == [ValueError if how == "exception" else asyncio.CancelledError]


@pytest.mark.parametrize("deep", [False, True])
def test_throw_raises_at_the_await_of_a_coroutine_driven_by_hand(fut, deep):
    seen = []

    async def body():
        try:
            await (waits(fut) if deep else fut)
        except LookupError as exc:
            seen.append(exc)
        return "after"

    coro = body()
    assert coro.send(None) is fut
    exc = LookupError("thrown")
    with pytest.raises(StopIteration) as stop:
        coro.throw(exc)
    assert stop.value.value == "after"
    assert seen == [exc]
    assert not fut.done()
    exc.__traceback__ = None


def test_throw_that_is_not_caught_leaves_a_coroutine_driven_by_hand(fut):
    coro = waits(fut)
    assert coro.send(None) is fut
    with pytest.raises(LookupError, match="thrown"):
        coro.throw(LookupError("thrown"))
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coro.send(None)
    assert not fut.done()


def test_coroutine_that_catches_what_was_thrown_can_await_again(fut):
    async def body():
        try:
            await fut
        except LookupError:
            fut._asyncio_future_blocking = False
            return await fut

    coro = body()
    assert coro.send(None) is fut
    assert coro.throw(LookupError()) is fut
    fut.set_result(3)
    with pytest.raises(StopIteration) as stop:
        coro.send(None)
    assert stop.value.value == 3


@pytest.mark.parametrize("deep", [False, True])
def test_close_of_a_coroutine_driven_by_hand_runs_its_finally_blocks(fut, deep):
    seen = []

    async def body():
        try:
            await (waits(fut) if deep else fut)
        except GeneratorExit:
            seen.append("exit")
            raise
        finally:
            seen.append("finally")

    coro = body()
    assert coro.send(None) is fut
    assert coro.close() is None
    assert seen == ["exit", "finally"]
    assert not fut.done()
    coro.close()


@pytest.mark.parametrize("how", WAYS)
def test_awaiting_an_instance_of_a_subclass(impl, loop, run, how):
    class Mine(impl.Future):
        pass

    class Derived(Mine):
        def __init__(self, *, loop):
            super().__init__(loop=loop)
            self.extra = [self]

    for cls in (Mine, Derived):
        fut = cls(loop=loop)
        coro = waits(fut)
        assert coro.send(None) is fut
        coro.close()
        fut._asyncio_future_blocking = False
        loop.call_soon(finish, fut, how)
        if how == "result":
            assert run(waits(fut)) == 1
        else:
            with pytest.raises(ValueError if how == "exception" else asyncio.CancelledError):
                run(waits(fut))


def test_await_of_a_subclass_that_overrides_it(impl, loop, run):
    class Mine(impl.Future):
        def __await__(self):
            result = yield from super().__await__()
            return [result]

    fut = Mine(loop=loop)
    loop.call_soon(fut.set_result, 1)
    assert run(waits(fut)) == [1]


def test_two_coroutines_driven_by_hand_await_the_same_future(fut):
    coros = [waits(fut), waits(fut)]
    for coro in coros:
        assert coro.send(None) is fut
        fut._asyncio_future_blocking = False  # as the task does that takes it
    fut.set_result("both")
    for coro in coros:
        with pytest.raises(StopIteration) as stop:
            coro.send(None)
        assert stop.value.value == "both"


@pytest.mark.parametrize("how", WAYS)
def test_two_tasks_await_the_same_future(fut, loop, run, turn, how):
    tasks = [loop.create_task(waits(fut)) for _ in range(2)]
    turn()
    finish(fut, how)
    done = run(asyncio.gather(*tasks, return_exceptions=True))
    if how == "result":
        assert done == [1, 1]
    else:
        kind = ValueError if how == "exception" else asyncio.CancelledError
        assert [type(exc) for exc in done] == [kind, kind]


@types.coroutine
def yields_from(fut):
    return (yield from fut)


@types.coroutine
def yields_from_await(fut):
    return (yield from fut.__await__())


@pytest.mark.parametrize("body", [yields_from, yields_from_await])
@pytest.mark.parametrize("how", WAYS)
def test_yield_from_in_a_generator_based_coroutine(fut, loop, run, body, how):
    async def main():
        return await body(fut)

    loop.call_soon(finish, fut, how)
    if how == "result":
        assert run(main()) == 1
    else:
        with pytest.raises(ValueError if how == "exception" else asyncio.CancelledError):
            run(main())


@pytest.mark.parametrize("body", [yields_from, yields_from_await])
def test_yield_from_driven_by_hand(fut, body):
    gen = body(fut)
    assert gen.send(None) is fut
    with pytest.raises(LookupError):
        gen.throw(LookupError())
    fut._asyncio_future_blocking = False
    gen = body(fut)
    assert next(gen) is fut
    gen.close()
    fut.set_result(4)
    with pytest.raises(StopIteration) as stop:
        next(body(fut))
    assert stop.value.value == 4


# ---- callbacks that change the future while they are compared ----


@pytest.mark.ctask_only  # asyncio's crashes on 3.13.0
def test_the_list_of_callbacks_is_a_copy(impl, loop, turn):
    fut = impl.Future(loop=loop)
    seen = []

    def first(fut):
        raise AssertionError("removed")

    for callback in (first, seen.append, seen.append):
        fut.add_done_callback(callback)
    assert fut.remove_done_callback(first) == 1
    listed = fut._callbacks
    listed[0] = 7
    listed.append(5)
    assert len(fut._callbacks) == 2
    fut.set_result(1)
    turn()
    assert seen == [fut, fut]
    seen.clear()
    assert fut._callbacks is None


@pytest.mark.ctask_only  # asyncio's crashes on some versions
@pytest.mark.parametrize("change", ["cancel", "remove", "add", "init", "result", "raise"])
def test_a_comparison_that_changes_the_callbacks(impl, loop, turn, change):
    if change == "init" and sys.version_info >= (3, 15):
        return
    fut = impl.Future(loop=loop)

    def other(fut):
        pass

    class Evil:
        def __call__(self, fut):
            pass

        def __eq__(self, to):
            if change == "cancel":
                fut.cancel()
            elif change == "remove":
                if to is not other:
                    fut.remove_done_callback(other)
            elif change == "add":
                if len(fut._callbacks) < 50:
                    fut.add_done_callback(other)
            elif change == "init":
                fut.__init__(loop=loop)
            elif change == "result":
                if not fut.done():
                    fut.set_result(1)
            else:
                raise KeyError("compared")
            return False

        __hash__ = None

    for _ in range(3):
        fut.add_done_callback(Evil())
        fut.add_done_callback(other)
    if change == "raise":
        with pytest.raises(KeyError, match="compared"):
            fut.remove_done_callback(Evil())
    else:
        assert fut.remove_done_callback(Evil()) == 0
    gc.collect()
    fut.cancel()
    turn()


def test_all_of_one_callback_are_removed_wherever_they_are(impl, loop, turn):
    fut = impl.Future(loop=loop)
    seen = []
    for n in range(100):
        fut.add_done_callback(seen.append if n % 3 else print)
    assert fut.remove_done_callback(print) == 34
    assert fut.remove_done_callback(print) == 0
    fut.set_result(1)
    turn()
    assert len(seen) == 66
    seen.clear()


@pytest.mark.ctask_only  # with asyncio who waits does so for ever
def test_who_waits_is_woken_without_memory_for_what_debug_mode_makes(loop, run):
    loop.set_debug(True)
    future = loop.create_future()

    def none_is_left(*_args):
        del loop._check_callback
        raise MemoryError

    def settle():
        loop._check_callback = none_is_left
        future.set_result(7)
        assert "_check_callback" not in vars(loop)

    async def main():
        loop.call_soon(settle)
        return await future

    too_long = loop.call_later(10, loop.stop)
    assert run(main()) == 7
    too_long.cancel()
