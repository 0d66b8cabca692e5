"""Callbacks whose handle is dropped at once, among others whose handle is kept.

Nobody can tell what became of the handle, except by the memory that it takes.
"""

import contextvars
import gc
import random
import weakref

import pytest

var = contextvars.ContextVar("var", default="none")


def callback(*args):
    pass


class Thing:
    """Can be weakly referenced."""


def long_ago(loop):
    """A time that has come: the clock may have begun with the machine, a moment ago."""
    return float(int(loop.time()) - 1_000_000)


@pytest.fixture(params=["call_soon", "call_at"])
def schedule(request, loop):
    """call_soon(), or call_at() with a time that has come."""
    if request.param == "call_soon":
        return loop.call_soon

    def schedule(callback, *args, context=None):
        when = past + next(numbers)
        return loop.call_at(when, callback, *args, context=context)

    past = long_ago(loop)
    numbers = iter(range(100_000))
    return schedule


def handles(impl):
    return [each for each in gc.get_objects() if isinstance(each, impl.Handle)]


def waiting(loop):
    """The handles that the loop has, in the order of their calls."""
    return [*sorted(loop._scheduled), *loop._ready]


@pytest.mark.parametrize("keep", [1, 2, 3, 1000])
def test_calls_are_made_in_order_with_their_arguments(loop, schedule, turn, keep):
    seen, kept = [], []

    def body(*args):
        seen.append(args)

    for n in range(300):
        handle = schedule(body, *range(n % 4), n)
        if n % keep == 0:
            kept.append(handle)
    turn()
    assert seen == [(*range(n % 4), n) for n in range(300)]
    assert [handle._args[-1] for handle in kept] == [*range(0, 300, keep)]


def test_each_call_has_the_variables_of_its_time(schedule, turn):
    seen = []

    def body(n):
        seen.append((n, var.get()))
        var.set("changed")

    for n in range(10):
        token = var.set(n // 2)
        schedule(body, n)
        var.reset(token)
    turn()
    assert seen == [(n, n // 2) for n in range(10)]
    assert var.get() == "none"


def test_calls_in_a_given_context(schedule, turn):
    context = contextvars.copy_context()
    seen = []

    def body(n):
        seen.append(var.get())
        var.set(n)

    for n in range(5):
        schedule(body, n, context=context)
    turn()
    assert seen == ["none", 0, 1, 2, 3]
    assert context[var] == 4


def test_kept_ones_can_be_cancelled(schedule, turn):
    seen = []
    kept = []
    for n in range(30):
        handle = schedule(seen.append, n)
        if n % 3 == 0:
            kept.append(handle)
    del handle
    for handle in kept[::2]:
        handle.cancel()
    turn()
    gone = {*range(0, 30, 6)}
    assert seen == [n for n in range(30) if n not in gone]
    assert [handle.cancelled() for handle in kept] == [True, False] * 5


def test_handle_dropped_after_others_were_made(schedule, turn):
    seen = []
    kept = [schedule(seen.append, n) for n in range(10)]
    while kept:
        kept.pop()
        schedule(seen.append, "more")
    turn()
    assert seen == [*range(10), *["more"] * 10]


def test_cancelled_and_dropped(schedule, turn):
    seen = []
    for n in range(10):
        handle = schedule(seen.append, n)
        if n % 2:
            handle.cancel()
        del handle
    turn()
    assert seen == [0, 2, 4, 6, 8]


def test_what_was_written_to_a_handle_holds_when_it_is_dropped(schedule, turn):
    seen = []
    context = contextvars.copy_context()
    context.run(var.set, "given")
    for attribute, value in [
        ("_callback", lambda n: seen.append(("other", n))),
        ("_args", ("other",)),
        ("_args", ["list"]),
        ("_context", context),
        ("_cancelled", True),
    ]:
        setattr(schedule(lambda n: seen.append((var.get(), n)), 1), attribute, value)
        schedule(callback)
    turn()
    assert seen == [("other", 1), ("none", "other"), ("none", "list"), ("given", 1)]


def test_weak_reference_lives_as_long_as_the_call_waits(schedule, turn):
    refs = []
    for n in range(10):
        refs.append(weakref.ref(schedule(callback, n)))
        schedule(callback)
    gc.collect()
    assert [ref()._args for ref in refs] == [(n,) for n in range(10)]
    turn()
    assert [ref() for ref in refs] == [None] * 10


def test_exception_is_reported_with_a_handle(impl, loop, schedule, turn, reports):
    def fail(n):
        raise ValueError(n)

    shown = []
    for n in range(3):
        shown.append(repr(schedule(fail, n)))
        schedule(callback)
    kind = type(schedule(fail, 3))
    turn()
    taken = reports.take()
    assert [str(report["exception"]) for report in taken] == ["0", "1", "2", "3"]
    assert [repr(report["handle"]) for report in taken[:3]] == shown
    assert {type(report["handle"]) for report in taken} == {kind}
    assert all(report["message"].startswith("Exception in callback ") for report in taken)
    assert all("fail(" in report["message"] for report in taken)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_exits_leave_the_loop_and_the_rest_runs_later(schedule, turn, error):
    seen = []

    def leave():
        raise error

    schedule(seen.append, 1)
    schedule(leave)
    schedule(seen.append, 2)
    with pytest.raises(error):
        turn()
    turn()
    assert seen == [1, 2]


def test_context_that_is_none_is_reported_as_with_a_kept_handle(schedule, turn, reports):
    kept = schedule(callback, 1, context=5)
    schedule(callback, 2, context=5)
    schedule(callback)
    turn()
    first, second = reports.take()
    assert first["handle"] is kept
    assert type(first["exception"]) is type(second["exception"])
    assert str(first["exception"]) == str(second["exception"])


def test_loop_shows_a_handle_for_each(impl, loop, schedule, turn):
    kept = {}
    for n in range(10):
        token = var.set(n)
        handle = schedule(callback, n)
        if n % 3 == 0:
            kept[n] = handle
        var.reset(token)
    kind = type(handle)
    del handle
    shown = waiting(loop)
    assert {type(handle) for handle in shown} == {kind}
    assert [handle._args for handle in shown] == [(n,) for n in range(10)]
    assert [handle._context[var] for handle in shown] == [*range(10)]
    assert all(handle._callback is callback and handle._loop is loop for handle in shown)
    assert all(shown[n] is handle for n, handle in kept.items())
    again = waiting(loop)
    assert all(one is other for one, other in zip(shown, again, strict=True))
    turn()


def test_handles_that_the_loop_shows_can_be_cancelled(loop, schedule, turn):
    seen = []
    for n in range(10):
        schedule(seen.append, n)
    for handle in waiting(loop)[1::2]:
        handle.cancel()
    schedule(seen.append, "last")
    turn()
    assert seen == [0, 2, 4, 6, 8, "last"]


def test_timers_that_the_loop_shows_keep_their_times_and_order(loop, turn):
    seen = []
    times = [long_ago(loop) + n * 7919 % 2000 for n in range(2000)]
    for n, when in enumerate(times):
        loop.call_at(when, seen.append, (when, n))
    shown = [*loop._scheduled]
    assert sorted(handle.when() for handle in shown) == sorted(times)
    del shown[::2]
    turn()
    assert seen == sorted((when, n) for n, when in enumerate(times))


def test_what_refers_only_to_its_own_handle_is_not_garbage(schedule, turn):
    class Own:
        def __init__(self):
            self.handle = schedule(self.run)

        def run(self):
            seen.append(self.handle)

    seen = []
    for _ in range(5):
        Own()
        schedule(seen.append, None)
    gc.collect()
    turn()
    assert [each is None for each in seen] == [False, True] * 5


def test_running_lets_go_of_callback_and_arguments(schedule, turn):
    things = [Thing() for _ in range(5)]
    refs = [weakref.ref(thing) for thing in things]
    for thing in things:
        schedule(callback, thing)
    del things, thing
    assert all(ref() for ref in refs)
    turn()
    assert not any(ref() for ref in refs)


def test_closing_lets_go_of_callback_and_arguments(loop, schedule):
    things = [Thing() for _ in range(5)]
    refs = [weakref.ref(thing) for thing in things]
    for thing in things:
        schedule(callback, thing)
    schedule(callback)
    del things, thing
    loop.close()
    gc.collect()
    assert not any(ref() for ref in refs)


@pytest.mark.parametrize("method", ["call_soon", "call_later"])
def test_loop_that_nobody_can_reach_is_collected_with_its_calls(impl, method):
    loop = impl.EventLoop()
    thing = Thing()
    before = [] if method == "call_soon" else [1000]
    for _ in range(10):
        getattr(loop, method)(*before, callback, loop, thing)
    thing = weakref.ref(thing)
    gc.collect()
    assert thing() is not None
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        del loop
        gc.collect()
    assert thing() is None


def test_debug_mode_begun_and_ended_while_they_wait(loop, schedule, turn):
    seen = []
    for n in range(4):
        schedule(seen.append, n)
        loop.set_debug(n % 2 == 0)
    turn()
    loop.set_debug(True)
    for n in range(4, 8):
        loop.set_debug(n % 2 == 0)
        schedule(seen.append, n)
    loop.set_debug(True)
    turn()
    loop.set_debug(False)
    assert seen == [*range(8)]


def test_arguments_that_schedule_when_they_are_dropped(loop, schedule, turn):
    seen = []

    class Dropped:
        def __del__(self):
            schedule(seen.append, "more")
            schedule(seen.append, "more")

    for _ in range(5):
        schedule(callback, Dropped())
    turn()
    turn()
    assert seen == ["more"] * 10


def test_calls_from_calls(loop, schedule, run):
    seen = []
    done = loop.create_future()

    def body(n):
        seen.append(n)
        if n < 100:
            schedule(callback)
            schedule(body, n + 1)
            schedule(callback)
        else:
            done.set_result(None)

    schedule(body, 0)
    run(done)
    assert seen == [*range(101)]


@pytest.mark.parametrize("seed", range(20))
def test_anything_in_any_order(loop, turn, seed):
    """Handles are kept, dropped sooner or later, cancelled, and asked of the loop."""
    pick = random.Random(seed)
    past = long_ago(loop)
    seen = []

    class Call:
        def __init__(self, when):
            self.order = (when, next(numbers))

        def run(self, token):
            assert token is self
            seen.append(self)

    for _ in range(10):
        numbers = iter(range(10_000))
        expected, kept = [], []
        for _ in range(pick.randrange(300)):
            action = pick.random()
            if action < 0.7:
                call = Call(0.0 if action < 0.35 else pick.randrange(1, 1000) + pick.random())
                when = call.order[0]
                schedule = [loop.call_at, past + when] if when else [loop.call_soon]
                handle = schedule[0](*schedule[1:], call.run, call)
                expected.append(call)
                if pick.random() < 0.3:
                    kept.append(handle)
                del handle
            elif action < 0.85 and kept:
                handle = kept.pop(pick.randrange(len(kept)))
                if not handle.cancelled() and pick.random() < 0.5:
                    expected.remove(handle._args[0])
                    handle.cancel()
                del handle
            elif action < 0.86 and expected:
                shown = [each for each in waiting(loop) if not each.cancelled()]
                assert [each._args[0].order for each in shown if each in loop._scheduled] == sorted(
                    call.order for call in expected if call.order[0]
                )
                handle = pick.choice(shown)
                expected.remove(handle._args[0])
                handle.cancel()
                del shown, handle
            elif action < 0.87:
                gc.collect()
        turn()
        assert seen == sorted(expected, key=lambda call: call.order)
        seen.clear()
        kept.clear()


@pytest.mark.ctask_only
def test_they_take_no_handle(impl, loop, schedule, turn):
    seen = []
    before = len(handles(impl))
    for n in range(1000):
        schedule(seen.append, n)
    assert len(handles(impl)) - before <= 2
    turn()
    assert seen == [*range(1000)]
