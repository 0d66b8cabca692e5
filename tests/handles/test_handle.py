"""Handle: what call_soon returns, cancellation, reprs and failing callbacks."""

import asyncio
import contextvars
import gc
import sys
import weakref
from asyncio import format_helpers

import pytest

HERE = __file__


def callback(*args):
    pass


def where(func):
    return f"{HERE}:{func.__code__.co_firstlineno}"


def described(func, args=(), debug=False):
    if sys.version_info >= (3, 13):
        return format_helpers._format_callback_source(func, args, debug=debug)
    return format_helpers._format_callback_source(func, args)


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
def test_handle_is_asyncios_and_ours(impl, loop, method):
    handle = getattr(loop, method)(callback)
    assert isinstance(handle, asyncio.Handle)
    assert isinstance(handle, impl.Handle)
    assert not isinstance(handle, asyncio.TimerHandle)
    assert issubclass(impl.Handle, asyncio.Handle)


def test_cancel_keeps_the_callback_from_running(loop, turn):
    seen = []
    handle = loop.call_soon(seen.append, 1)
    loop.call_soon(seen.append, 2)
    assert handle.cancelled() is False
    assert handle.cancel() is None
    assert handle.cancelled() is True
    handle.cancel()
    turn()
    assert seen == [2]


def test_cancel_from_an_earlier_callback_of_the_same_turn(loop, turn):
    seen = []
    loop.call_soon(lambda: later.cancel())
    later = loop.call_soon(seen.append, 1)
    turn()
    assert seen == []


def test_cancel_lets_callback_and_arguments_go(loop):
    class Thing:
        def __call__(self, *args):
            pass

    thing, arg = Thing(), Thing()
    refs = [weakref.ref(thing), weakref.ref(arg)]
    handle = loop.call_soon(thing, arg)
    del thing, arg
    gc.collect()
    assert all(ref() for ref in refs)
    handle.cancel()
    gc.collect()
    assert [ref() for ref in refs] == [None, None]
    assert handle._callback is None
    assert handle._args is None


def test_running_lets_the_arguments_go(loop, turn):
    class Thing:
        pass

    thing = Thing()
    ref = weakref.ref(thing)
    loop.call_soon(callback, thing)
    del thing
    turn()
    gc.collect()
    assert ref() is None


def test_cancel_after_it_ran_is_harmless(loop, turn):
    seen = []
    handle = loop.call_soon(seen.append, 1)
    turn()
    assert not handle.cancelled()
    handle.cancel()
    assert handle.cancelled()
    turn()
    assert seen == [1]


def test_cancel_from_inside_the_callback(loop, turn, reports):
    seen = []

    def body(arg):
        handle.cancel()
        seen.append((arg, handle.cancelled()))

    handle = loop.call_soon(body, "arg")
    turn()
    assert seen == [("arg", True)]


def test_private_names_that_libraries_read(loop):
    handle = loop.call_soon(callback, 1, 2)
    assert handle._callback is callback
    assert handle._args == (1, 2)
    assert handle._loop is loop
    assert handle._cancelled is False
    assert handle._source_traceback is None
    assert isinstance(handle._context, contextvars.Context)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="came with 3.12")
def test_get_context(loop):
    ctx = contextvars.copy_context()
    assert loop.call_soon(callback, context=ctx).get_context() is ctx
    assert isinstance(loop.call_soon(callback).get_context(), contextvars.Context)


def test_weak_references(loop):
    handle = loop.call_soon(callback)
    ref = weakref.ref(handle)
    assert ref() is handle
    handle.cancel()


def test_handle_made_by_hand_can_run(impl, loop):
    seen = []
    ctx = contextvars.copy_context()
    handle = impl.Handle(lambda *args: seen.append(args), (1, 2), loop, ctx)
    handle._run()
    assert seen == [(1, 2)]
    handle.cancel()
    assert handle.cancelled()


# --- repr


def test_repr_of_each_state(impl, loop):
    handle = loop.call_soon(callback)
    assert repr(handle) == f"<Handle callback() at {where(callback)}>"
    handle.cancel()
    assert repr(handle) == "<Handle cancelled>"


def test_repr_with_arguments(loop):
    handle = loop.call_soon(callback, 1, "x")
    shown = "1, 'x'" if sys.version_info < (3, 13) else ""
    assert repr(handle) == f"<Handle callback({shown}) at {where(callback)}>"


def test_repr_of_a_built_in(loop):
    handle = loop.call_soon(print)
    assert repr(handle) == "<Handle print()>"


def test_repr_in_debug_mode(loop):
    loop.set_debug(True)
    handle, line = loop.call_soon(callback, 1), sys._getframe().f_lineno
    assert repr(handle) == (f"<Handle callback(1) at {where(callback)} created at {HERE}:{line}>")
    assert handle._source_traceback[-1].lineno == line
    handle.cancel()
    assert repr(handle) == (
        f"<Handle cancelled callback(1) at {where(callback)} created at {HERE}:{line}>"
    )


def test_repr_of_call_soon_threadsafe_names_the_caller_in_debug_mode(loop):
    loop.set_debug(True)
    handle, line = loop.call_soon_threadsafe(callback), sys._getframe().f_lineno
    assert repr(handle).endswith(f" callback() at {where(callback)} created at {HERE}:{line}>")


# --- Failing callbacks


def test_exception_reaches_the_handler(impl, loop, turn, reports):
    exc = ValueError("why")

    def bad(arg):
        raise exc

    handle = loop.call_soon(bad, 1)
    turn()
    (report,) = reports.take()
    assert report == {
        "message": f"Exception in callback {described(bad, (1,))}",
        "exception": exc,
        "handle": handle,
    }
    exc.__traceback__ = None


def test_exception_in_a_callback_whose_name_is_no_text(loop, turn, reports):
    class Name:
        def __add__(self, other):
            return self

        def __str__(self):
            return "odd"

    class Bad:
        def __call__(self):
            raise ValueError

    bad = Bad()
    bad.__qualname__ = Name()
    loop.call_soon(bad)
    turn()
    (report,) = reports.take()
    assert report["message"] == "Exception in callback odd"


def test_exception_in_debug_mode_comes_with_the_source(loop, turn, reports):
    loop.set_debug(True)

    def bad(arg):
        raise ValueError

    handle = loop.call_soon(bad, 1)
    turn()
    (report,) = reports.take()
    assert set(report) == {"message", "exception", "handle", "source_traceback"}
    assert report["source_traceback"] == handle._source_traceback
    assert report["message"] == f"Exception in callback {described(bad, (1,), True)}"


def test_exception_in_the_log(loop, turn, logs):
    def bad():
        raise ValueError("why")

    handle = loop.call_soon(bad)
    text = repr(handle)
    turn()
    (record,) = logs.take()
    assert record.getMessage() == (f"Exception in callback {described(bad)}\nhandle: {text}")
    assert record.exc_info[0] is ValueError


def test_base_exception_that_is_not_an_exit_is_reported(loop, turn, reports):
    class Mine(BaseException):
        pass

    def bad():
        raise Mine

    loop.call_soon(bad)
    turn()
    (report,) = reports.take()
    assert type(report["exception"]) is Mine


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_exits_leave_the_loop_and_the_rest_runs_later(loop, turn, kind):
    seen = []

    def bad():
        raise kind

    loop.call_soon(seen.append, 1)
    loop.call_soon(bad)
    loop.call_soon(seen.append, 2)
    with pytest.raises(kind):
        loop.run_forever()
    assert seen == [1]
    assert not loop.is_running()
    turn()
    assert seen == [1, 2]


def test_wrong_number_of_arguments_is_an_exception_in_the_callback(loop, turn, reports):
    def one(arg):
        pass

    loop.call_soon(one)
    turn()
    (report,) = reports.take()
    assert type(report["exception"]) is TypeError


# --- Contexts


def test_callback_runs_in_a_copy_of_the_callers_context(loop, turn):
    var = contextvars.ContextVar("var", default="none")
    seen = []

    def body():
        seen.append(var.get())
        var.set("inside")

    var.set("outside")
    loop.call_soon(body)
    loop.call_soon(body)
    var.set("later")
    turn()
    assert seen == ["outside", "outside"]
    assert var.get() == "later"


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
def test_callback_runs_in_the_given_context(loop, turn, method):
    var = contextvars.ContextVar("var", default="none")
    ctx = contextvars.copy_context()
    seen = []

    def body(value):
        seen.append(var.get())
        var.set(value)

    getattr(loop, method)(body, 1, context=ctx)
    getattr(loop, method)(body, 2, context=ctx)
    turn()
    assert seen == ["none", 1]
    assert ctx[var] == 2


def test_callback_in_a_context_that_is_already_entered_is_reported(loop, logs):
    ctx = contextvars.copy_context()
    seen = []

    def inside():
        loop.call_soon(seen.append, 1, context=ctx)
        loop.stop()
        loop.run_forever()

    ctx.run(inside)
    assert seen == []
    (record,) = logs.take()
    assert record.getMessage().startswith("Exception in callback list.append(")
    assert record.exc_info[0] is RuntimeError
    assert "is already entered" in str(record.exc_info[1])


# --- Handles that are used again, and handles that must not be


def handles(impl):
    return [o for o in gc.get_objects() if type(o) is impl.Handle]


def test_kept_handle_is_as_it_was_after_it_ran(impl, loop, turn):
    arg, ctx = object(), contextvars.copy_context()
    given = loop.call_soon(callback, arg, context=ctx)
    copied = loop.call_soon(callback, arg)
    context = copied._context
    for _ in range(3):
        others = [loop.call_soon(callback, n) for n in range(100)]
        turn()
        assert not any(other is kept for other in others for kept in (given, copied))
        del others
        for kept in (given, copied):
            assert kept._callback is callback
            assert kept._args == (arg,) and kept._args[0] is arg
            assert kept._loop is loop
            assert kept.cancelled() is False
            assert f"{callback.__name__}(" in repr(kept)
        assert given._context is ctx
        assert copied._context is context
    kept = copied
    kept.cancel()
    assert repr(kept) == "<Handle cancelled>"


def test_handle_kept_by_its_own_callback(loop, turn):
    waiting, kept = [], []

    def body(n):
        kept.append(waiting.pop(0))

    for n in range(100):
        waiting.append(loop.call_soon(body, n))
    turn()
    for _ in range(2):
        for n in range(100):
            loop.call_soon(callback, "other")
        turn()
    assert [handle._args for handle in kept] == [(n,) for n in range(100)]
    assert {handle._callback for handle in kept} == {body}
    assert len(set(map(id, kept))) == 100
    kept.clear()


def test_handles_that_have_run_do_not_pile_up(impl, loop, turn):
    seen = []
    for n in range(2):
        kept = [loop.call_soon(seen.append, i) for i in range(1000)]
        assert len(handles(impl)) >= 1000
        del kept
        turn()
        assert seen == [*range(1000)] * (n + 1)
        assert len(handles(impl)) <= 100
    loop.close()
    assert handles(impl) == []


def test_callbacks_that_schedule_callbacks_see_their_own_arguments(loop, run):
    seen = []
    done = loop.create_future()

    def body(*args):
        seen.append(args)
        n = len(seen)
        if n < 1000:
            loop.call_soon(body, *range(n % 4))
        else:
            done.set_result(None)

    loop.call_soon(body)
    run(done)
    assert seen == [tuple(range(n % 4)) for n in range(1000)]


def test_weak_references_to_handles_end_with_them(impl, loop, turn):
    died = []
    refs = [weakref.ref(loop.call_soon(callback), died.append) for _ in range(10)]
    assert all(type(ref()) is impl.Handle for ref in refs)
    turn()
    assert died == refs
    for _ in range(20):
        loop.call_soon(callback)
    assert [ref() for ref in refs] == [None] * 10
    turn()
    assert died == refs
    del refs[:], died[:]


def test_weak_reference_to_a_kept_handle_lives(loop, turn):
    handle = loop.call_soon(callback)
    ref = weakref.ref(handle)
    turn()
    loop.call_soon(callback)
    assert ref() is handle
    del handle
    assert ref() is None
    turn()


def test_cancelled_handles_are_not_used_again(loop, turn):
    seen = []
    for n in range(1, 4):
        for i in range(100):
            handle = loop.call_soon(seen.append, i)
            if i % 2:
                handle.cancel()
            del handle
        turn()
        later = [loop.call_soon(callback) for _ in range(100)]
        assert not any(handle.cancelled() for handle in later)
        assert all(handle._callback is callback and handle._args == () for handle in later)
        del later
        turn()
        assert seen == [*range(0, 100, 2)] * n


def test_handles_cancelled_in_their_own_callback_are_not_used_again(loop, turn):
    seen, waiting = [], []

    def body(n):
        waiting.pop(0).cancel()
        seen.append(n)

    for n in range(100):
        waiting.append(loop.call_soon(body, n))
    turn()
    assert seen == [*range(100)]
    later = [loop.call_soon(seen.append, n) for n in range(100)]
    assert not any(handle.cancelled() for handle in later)
    turn()
    assert seen == [*range(100)] * 2


def test_handle_whose_callback_fails_is_kept_by_the_report(loop, turn, reports):
    def bad(n):
        raise ValueError

    for n in range(10):
        loop.call_soon(bad, n)
    turn()
    for _ in range(100):
        loop.call_soon(callback)
    turn()
    taken = reports.take()
    assert [report["handle"]._args for report in taken] == [(n,) for n in range(10)]


def test_scheduling_while_the_arguments_are_dropped(loop, turn):
    seen = []

    class Last:
        def __init__(self, n):
            self.n = n

        def __del__(self):
            loop.call_soon(seen.append, self.n)

    for n in range(100):
        loop.call_soon(callback, Last(n))
    turn(2)
    assert seen == [*range(100)]


def test_handles_of_debug_mode_are_not_used_again(loop, turn):
    loop.set_debug(True)
    for _ in range(10):
        loop.call_soon(callback)
    turn()
    loop.set_debug(False)
    for _ in range(10):
        loop.call_soon(callback)
    turn()
    later = [loop.call_soon(callback) for _ in range(30)]
    assert [handle._source_traceback for handle in later] == [None] * 30
    turn()
    del later
    loop.set_debug(True)
    assert loop.call_soon(callback)._source_traceback is not None


@pytest.mark.ctask_only  # asyncio does not look
def test_run_replaced_while_memory_is_short_is_called_once_there_is_some(script):
    pytest.importorskip("_testcapi")
    out = script("""
    import _testcapi
    loop = impl.new_event_loop()
    told = []
    stock = asyncio.Handle._run

    def replaced(handle):
        told.append(handle)
        return stock(handle)

    def turn():
        loop.call_soon(loop.stop)
        loop.run_forever()

    asyncio.Handle._run = stock
    turn()
    for n in range(12):
        asyncio.Handle._run = replaced
        loop.call_soon(_testcapi.remove_mem_hooks)
        _testcapi.set_nomemory(n, n + 1)
        try:
            loop._run_once()
        except MemoryError:
            pass
        _testcapi.remove_mem_hooks()
        told.clear()
        turn()
        assert told, n
        asyncio.Handle._run = stock
        turn()
    loop.close()
    print("done")
    """)
    assert out.out == "done\n"
