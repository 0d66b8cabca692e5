"""Timers: call_later and call_at, TimerHandle, the order and punctuality of timers."""

import asyncio
import contextvars
import gc
import math
import random
import sys
import weakref
from asyncio import format_helpers

import pytest

HERE = __file__


def callback(*args):
    pass


@pytest.fixture
def until(loop):
    """Runs the loop until a condition holds."""

    def until(condition):
        def check():
            if condition():
                loop.stop()
            else:
                loop.call_later(0.0005, check)

        check()
        loop.run_forever()

    return until


def test_timer_is_asyncios_and_ours(impl, loop):
    for handle in (loop.call_later(10, callback), loop.call_at(loop.time() + 10, callback)):
        assert isinstance(handle, asyncio.TimerHandle) and isinstance(handle, asyncio.Handle)
        assert isinstance(handle, impl.TimerHandle) and isinstance(handle, impl.Handle)
        handle.cancel()
    assert issubclass(impl.TimerHandle, asyncio.TimerHandle)
    assert issubclass(impl.TimerHandle, impl.Handle)


def test_when_is_exactly_what_was_asked_for(loop):
    when = loop.time() + 1000.123456789
    handle = loop.call_at(when, callback)
    assert handle.when() == when
    before = loop.time()
    later = loop.call_later(1000, callback)
    assert before + 1000 <= later.when() <= loop.time() + 1000
    handle.cancel()
    later.cancel()
    assert handle.when() == when


def test_when_keeps_an_int_an_int(loop):
    when = int(loop.time()) + 1000
    handle = loop.call_at(when, callback)
    assert handle.when() == when
    handle.cancel()


def test_zero_delay_has_a_when_too(loop, turn):
    seen = []
    handle = loop.call_later(0, seen.append, 1)
    assert isinstance(handle.when(), float)
    turn()
    assert seen == [1]


@pytest.mark.parametrize("delay", [0, 0.0, -1, -0.001, -1e9, float("-inf"), False])
def test_delay_of_zero_or_less_runs_in_the_next_turn(loop, turn, delay):
    seen = []
    loop.call_later(delay, seen.append, 1)
    assert seen == []
    turn()
    assert seen == [1]


def test_call_at_in_the_past_runs_in_the_next_turn(loop, turn):
    seen = []
    loop.call_at(0, seen.append, 1)
    loop.call_at(-5.5, seen.append, 0)
    turn()
    assert seen == [0, 1]


def test_zero_delay_runs_after_what_is_ready(loop, turn):
    seen = []
    loop.call_later(0, seen.append, "timer")
    loop.call_soon(seen.append, "soon")
    turn()
    assert seen == ["soon", "timer"]


def test_timers_run_in_order_of_time(loop, turn):
    seen = []
    now = loop.time()
    for n in (5, 3, 9, 1, 7, 2, 8, 0, 6, 4):
        loop.call_at(now - 100 + n, seen.append, n)
    turn()
    assert seen == list(range(10))


def test_many_timers_run_in_order_of_time(loop, turn):
    seen = []
    order = list(range(2000))
    random.Random(1).shuffle(order)
    handles = {n: loop.call_at(n / 1000, seen.append, n) for n in order}
    for n in range(0, 2000, 3):
        handles[n].cancel()
    turn()
    assert seen == [n for n in range(2000) if n % 3]


def test_timers_of_equal_time_all_run_once(loop, turn):
    seen = []
    for n in range(50):
        loop.call_at(1.0, seen.append, n)
    turn()
    assert sorted(seen) == list(range(50))


def test_two_timers_of_equal_time_run_first_come_first_served(loop, turn):
    seen = []
    loop.call_at(1.0, seen.append, "a")
    loop.call_at(1.0, seen.append, "b")
    turn()
    assert seen == ["a", "b"]


# --- Delays that are not numbers


def test_none_is_refused(loop):
    with pytest.raises(TypeError, match="^delay must not be None$"):
        loop.call_later(None, callback)
    with pytest.raises(TypeError, match="^when cannot be None$"):
        loop.call_at(None, callback)


# asyncio accepts a complex when there is no other timer to compare it with.
@pytest.mark.parametrize(
    "bad", ["1", b"1", [], object(), pytest.param(1j, marks=pytest.mark.ctask_only)]
)
def test_delay_that_cannot_be_added_is_refused(loop, bad):
    with pytest.raises(TypeError):
        loop.call_later(bad, callback)


def test_missing_arguments_are_refused(loop):
    with pytest.raises(TypeError):
        loop.call_later()
    with pytest.raises(TypeError):
        loop.call_later(1)
    with pytest.raises(TypeError):
        loop.call_at(1)
    with pytest.raises(TypeError):
        loop.call_later(1, callback, nonsense=1)


def test_infinite_delay_never_runs_and_does_not_keep_others_from_running(loop, turn):
    handle = loop.call_later(math.inf, callback)
    assert handle.when() == math.inf
    seen = []
    loop.call_later(0, seen.append, 1)
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert seen == [1]
    handle.cancel()


def test_fractions_and_decimals_of_the_clock(loop, turn):
    import fractions

    seen = []
    loop.call_later(fractions.Fraction(0), seen.append, 1)
    turn()
    assert seen == [1]


def test_huge_delay(loop, turn):
    handles = [loop.call_later(d, callback) for d in (1e10, 1e300, 2**62, 86400 * 365)]
    turn()
    assert not any(h.cancelled() for h in handles)
    for h in handles:
        h.cancel()


# --- Punctuality: the only assertions about time


@pytest.mark.parametrize("delay", [0.0001, 0.0004, 0.001, 0.0015, 0.0101])
def test_sleep_is_never_early(loop, run, delay):
    async def main():
        for _ in range(5):
            start = loop.time()
            await asyncio.sleep(delay)
            assert loop.time() - start >= delay

    run(main())


@pytest.mark.parametrize("delay", [0.0002, 0.0013, 0.005])
def test_timer_is_never_early(loop, delay):
    start = loop.time()
    loop.call_later(delay, loop.stop)
    loop.run_forever()
    assert loop.time() - start >= delay


def test_timer_set_in_a_callback_of_the_same_turn_waits_for_the_next(loop, turn):
    seen = []

    def first():
        seen.append(1)
        loop.call_later(0, seen.append, 2)
        loop.call_soon(seen.append, 3)

    loop.call_soon(first)
    turn()
    assert seen == [1]
    turn()
    assert seen == [1, 3, 2]


# --- Cancellation


def test_cancelled_timer_does_not_run(loop, turn):
    seen = []
    handle = loop.call_later(0, seen.append, 1)
    assert not handle.cancelled()
    handle.cancel()
    handle.cancel()
    assert handle.cancelled()
    turn(2)
    assert seen == []


def test_timer_cancelled_by_another_of_the_same_time(loop, turn):
    seen = []

    def first():
        seen.append("first")
        second.cancel()

    loop.call_at(1.0, first)
    second = loop.call_at(2.0, seen.append, "second")
    turn()
    assert seen == ["first"]


def test_timer_that_cancels_itself(loop, turn):
    seen = []

    def body():
        handle.cancel()
        seen.append(handle.cancelled())

    handle = loop.call_later(0, body)
    turn()
    assert seen == [True]


def test_cancel_lets_the_callback_go(loop):
    class Thing:
        def __call__(self, *args):
            pass

    thing, arg = Thing(), Thing()
    refs = [weakref.ref(thing), weakref.ref(arg)]
    handle = loop.call_later(1000, thing, arg)
    del thing, arg
    assert all(ref() for ref in refs)
    handle.cancel()
    gc.collect()
    assert [ref() for ref in refs] == [None, None]
    assert handle._callback is None and handle._args is None


def test_cancelled_timers_do_not_pile_up(impl, loop, turn):
    keep = [loop.call_later(1000 + n, callback) for n in range(10)]
    refs = []
    for _ in range(20):
        for n in range(500):
            handle = loop.call_later(2000 + n, callback)
            refs.append(weakref.ref(handle))
            handle.cancel()
        del handle
        turn()
    gc.collect()
    alive = sum(1 for ref in refs if ref() is not None)
    assert alive < 1000
    assert not any(h.cancelled() for h in keep)
    for h in keep:
        h.cancel()


def test_cancel_after_it_ran_is_harmless(loop, turn):
    handle = loop.call_later(0, callback)
    turn()
    handle.cancel()
    later = [loop.call_later(0, callback) for _ in range(3)]
    handle.cancel()
    turn()
    assert handle.cancelled() and not any(h.cancelled() for h in later)


def test_timers_are_forgotten_when_the_loop_closes(loop):
    seen = []
    handle = loop.call_later(0, seen.append, 1)
    ref = weakref.ref(handle)
    loop.close()
    handle.cancel()
    del handle
    gc.collect()
    assert ref() is None
    assert seen == []


# --- repr, comparison, hash


def test_repr_of_each_state(loop):
    when = loop.time() + 1000
    handle = loop.call_at(when, callback)
    where = f"{HERE}:{callback.__code__.co_firstlineno}"
    assert repr(handle) == f"<TimerHandle when={when} callback() at {where}>"
    handle.cancel()
    assert repr(handle) == f"<TimerHandle cancelled when={when}>"


@pytest.mark.parametrize("method", ["call_at", "call_later"])
def test_repr_in_debug_mode(loop, method):
    loop.set_debug(True)
    handle, line = getattr(loop, method)(1e9, callback, 1), sys._getframe().f_lineno
    where = f"{HERE}:{callback.__code__.co_firstlineno}"
    when = handle.when()
    assert repr(handle) == (
        f"<TimerHandle when={when} callback(1) at {where} created at {HERE}:{line}>"
    )
    handle.cancel()
    assert repr(handle) == (
        f"<TimerHandle cancelled when={when} callback(1) at {where} created at {HERE}:{line}>"
    )


def test_comparison_is_by_time(loop):
    now = loop.time() + 1000
    early, late = loop.call_at(now, callback), loop.call_at(now + 1, callback)
    assert early < late and early <= late and late > early and late >= early
    assert not late < early and not late <= early
    assert early != late
    assert hash(early) == hash(now)
    same = loop.call_at(now, callback)
    assert early == same and early <= same and early >= same and not early < same
    other = loop.call_at(now, print)
    assert early != other
    same.cancel()
    assert early != same
    assert sorted([late, early]) == [early, late]
    for handle in (early, late, other):
        handle.cancel()


def test_comparison_with_anything_else_is_not_implemented(loop):
    handle = loop.call_later(1000, callback)
    assert handle != 5
    assert not handle == object()  # noqa: SIM201
    for op in ("__lt__", "__le__", "__gt__", "__ge__", "__eq__"):
        assert getattr(handle, op)(5) is NotImplemented
        assert getattr(handle, op)(handle._loop.call_soon(callback)) is NotImplemented
    with pytest.raises(TypeError):
        handle < 5  # noqa: B015
    handle.cancel()


def test_timer_made_by_hand(impl, loop):
    handle = impl.TimerHandle(123.5, callback, (1,), loop)
    assert handle.when() == 123.5
    assert handle._args == (1,)
    assert not handle.cancelled()
    handle.cancel()
    assert handle.cancelled()


# --- Callbacks


def test_exception_in_a_timer_reaches_the_handler(loop, turn, reports):
    exc = ValueError("why")

    def bad():
        raise exc

    handle = loop.call_later(0, bad)
    turn()
    (report,) = reports.take()
    message = f"Exception in callback {format_helpers._format_callback_source(bad, ())}"
    assert report == {"message": message, "exception": exc, "handle": handle}
    exc.__traceback__ = None


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_exit_in_a_timer_keeps_the_others(loop, turn, kind):
    seen = []

    def bad():
        raise kind

    loop.call_at(1.0, bad)
    loop.call_at(2.0, seen.append, 2)
    with pytest.raises(kind):
        loop.run_forever()
    turn()
    assert seen == [2]


def test_timer_runs_in_its_context(loop, turn):
    var = contextvars.ContextVar("var", default="none")
    ctx = contextvars.copy_context()
    ctx.run(var.set, "given")
    seen = []
    var.set("caller")
    loop.call_later(0, lambda: seen.append(var.get()))
    var.set("later")
    loop.call_at(1.0, lambda: seen.append(var.get()), context=ctx)
    turn()
    assert sorted(seen) == ["caller", "given"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="came with 3.12")
def test_get_context(loop):
    ctx = contextvars.copy_context()
    handle = loop.call_later(1000, callback, context=ctx)
    assert handle.get_context() is ctx
    handle.cancel()


def test_overridden_time_rules_the_timers(impl):
    class Slow(impl.EventLoop):
        now = 50.0

        def time(self):
            return self.now

        def _turn(self):
            self.stop()
            self.run_forever()

    loop = Slow()
    seen = []
    handle = loop.call_later(10, seen.append, 1)
    assert handle.when() == 60.0
    loop._turn()
    assert seen == []
    loop.now = 59.9
    loop._turn()
    assert seen == []
    loop.now = 60.0
    loop._turn()
    assert seen == [1]
    loop.close()


def test_timeout_fires_while_others_sleep(loop, run):
    async def main():
        seen = []

        async def sleeper(n):
            await asyncio.sleep(n / 1000)
            seen.append(n)

        await asyncio.gather(*(sleeper(n) for n in (5, 1, 3, 0, 2, 4)))
        return seen

    assert run(main()) == [0, 1, 2, 3, 4, 5]


def test_next_timer_after_the_nearest_was_cancelled(loop):
    seen = []
    near = loop.call_later(0.002, seen.append, "near")
    loop.call_later(0.004, loop.stop)
    loop.call_soon(near.cancel)
    loop.run_forever()
    assert seen == []


def test_earlier_timer_set_from_a_callback_is_served_in_time(loop):
    seen = []
    far = loop.call_later(1000, callback)
    loop.call_soon(lambda: loop.call_later(0.001, loop.stop))
    loop.run_forever()
    far.cancel()
    assert seen == []


# --- Many timers: how they are kept depends on their number, and on how their times are spread


@pytest.fixture
def clocked(impl):
    """A loop whose clock the test sets: `turn(now)` is one iteration at that time."""

    class Clocked(impl.EventLoop):
        now = 1000.0

        def time(self):
            return self.now

        def turn(self, now=None):
            if now is not None:
                self.now = now
            self.stop()
            self.run_forever()

    loop = Clocked()
    yield loop
    loop.close()


class Model:
    """What a loop's timers have to do, by a sorted list; each callback is checked as it runs."""

    def __init__(self, loop, exact, seed):
        self.loop = loop
        self.exact = exact  # asyncio leaves open which of two equal times is first
        self.random = random.Random(seed)
        self.pending = {}  # number: (time, number, handle)
        self.due = []
        self.count = 0
        self.ran = 0
        self.when = None  # makes up a time

    def set(self):
        when = self.when()
        number = self.count
        self.count += 1
        handle = self.loop.call_at(when, self.run, number)
        assert handle.when() == when or math.isnan(when)
        self.pending[number] = (-math.inf if math.isnan(when) else when, number, handle)

    def cancel(self):
        if self.pending:
            number = self.random.choice(list(self.pending)[-50:])
            self.pending.pop(number)[2].cancel()

    def run(self, number):
        time, _, handle = self.pending.pop(number)
        assert not handle.cancelled()
        due = [entry for entry in self.due if entry[1] == number or entry[1] in self.pending]
        assert due[0][0] == time
        assert due[0][1] == number or not self.exact
        self.due = [entry for entry in due if entry[1] != number]
        self.ran += 1
        for _ in range(self.random.choice([0, 0, 0, 1, 2])):
            self.random.choice([self.set, self.cancel])()

    def turn(self, now):
        self.due = sorted(entry for entry in self.pending.values() if entry[0] < now + 1e-9)
        self.loop.turn(now)
        assert not [entry for entry in self.due if entry[1] in self.pending]


def steady(pick, now):
    return now + pick.random()


def clustered(pick, now):
    return now + pick.choice([0.001, 1, 60]) + pick.random() * 1e-4


def tied(pick, now):
    return now + pick.randrange(5)


def outlying(pick, now):
    far = (math.inf, -math.inf, 1e300, -1e308, now + 3e8, now - 5)
    return pick.choice(far) if pick.random() < 0.05 else now + pick.random()


def of_all_sizes(pick, now):
    return now + 10.0 ** pick.randrange(-9, 300)


def next_to_each_other(pick, now):
    for _ in range(pick.randrange(4)):
        now = math.nextafter(now, math.inf)
    return now


SPREADS = [steady, clustered, tied, outlying, of_all_sizes, next_to_each_other]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spread", [*SPREADS, None])
def test_any_sequence_of_setting_and_cancelling_keeps_the_order(impl, clocked, spread, seed):
    pick = random.Random(seed)
    model = Model(clocked, impl.name == "ctask", seed)
    for _ in range(25):
        chosen = spread or pick.choice(SPREADS)
        model.when = lambda chosen=chosen: chosen(pick, clocked.now)
        for _ in range(pick.choice([1, 10, 200])):
            model.set()
        for _ in range(pick.choice([0, 5, 100])):
            model.cancel()
        model.turn(clocked.now + pick.choice([0, 0.0005, 0.2, 2]))
    model.when = lambda: clocked.now + 1e6
    model.turn(1e305)
    assert model.ran > 20
    for _, _, handle in model.pending.values():
        handle.cancel()


@pytest.mark.ctask_only  # asyncio compares, and a NaN is neither before nor after
def test_nan_is_due_at_once_among_many(clocked):
    seen = []
    for n in range(600):
        clocked.call_at(2000 + n, seen.append, n)
    handle = clocked.call_at(math.nan, seen.append, "nan")
    assert math.isnan(handle.when())
    other = clocked.call_at(math.nan, seen.append, "cancelled")
    other.cancel()
    clocked.turn()
    assert seen == ["nan"]
    clocked.turn(3000)
    assert seen == ["nan", *range(600)]


def test_150_000_timers_run_in_order_and_leave_nothing(clocked):
    seen = []
    order = list(range(150_000))
    random.Random(2).shuffle(order)
    for n in order:
        clocked.call_at(2000 + n * 0.01, seen.append, n)
    for now in (2000, 2000.005, 2123, 2123.4, 2800):
        clocked.turn(now)
        assert seen == [n for n in range(150_000) if 2000 + n * 0.01 < now + 1e-9]
    clocked.turn(4000)
    assert seen == list(range(150_000))
    assert not clocked._scheduled


def test_timers_at_every_order_of_magnitude_run_in_order(clocked):
    """The times of each 300 are together next to nothing beside those of the 300 after them."""
    seen, expected = [], []
    pick = random.Random(3)
    for k in range(20):
        for _ in range(300):
            expected.append(10.0 ** (30 * k - 300) * (1 + pick.random()))
    for when in pick.sample(expected, len(expected)):
        clocked.call_at(when, seen.append, when)
    clocked.turn(1e304)
    assert seen == sorted(expected)


@pytest.mark.ctask_only  # asyncio leaves it open
@pytest.mark.parametrize("count", [100, 1000, 50_000])
def test_many_timers_of_equal_time_run_first_come_first_served(clocked, count):
    seen = []
    for n in range(count):
        clocked.call_at(2000, seen.append, n)
    later = clocked.call_at(2001, seen.append, "later")
    clocked.turn()
    for n in range(count, count + 500):
        clocked.call_at(2000, seen.append, n)
    clocked.turn(2000)
    assert seen == list(range(count + 500))
    later.cancel()


@pytest.mark.parametrize("phase", ["set", "looked at", "some fired", "set before them"])
@pytest.mark.parametrize("count", [5, 100, 1000, 40_000])
def test_all_can_be_cancelled_at_any_time(clocked, count, phase):
    seen = []
    pick = random.Random(4)
    times = [2000 + pick.random() for _ in range(count)]
    handles = [clocked.call_at(when, seen.append, when) for when in times]
    if phase != "set":
        clocked.turn()
    if phase == "some fired":
        clocked.turn(2000.3)
        assert seen == sorted(when for when in times if when <= 2000.3)
    if phase == "set before them":
        earlier = [1500 + pick.random() for _ in range(count)]
        handles += [clocked.call_at(when, seen.append, when) for when in earlier]
    fired = list(seen)
    pick.shuffle(handles)
    for handle in handles:
        handle.cancel()
    refs = [weakref.ref(handle) for handle in handles]
    del handle, handles
    clocked.turn(1001)
    clocked.turn(3000)
    assert seen == fired
    assert not any(ref() for ref in refs)
    clocked.call_at(3001, seen.append, "after")
    clocked.turn(3001)
    assert seen == [*fired, "after"]


@pytest.mark.parametrize("count", [1, 100, 1000, 40_000])
def test_list_of_timers_has_all_of_them_and_begins_with_the_first(clocked, count):
    pick = random.Random(5)
    handles = [clocked.call_at(2000 + pick.random(), callback) for _ in range(count)]
    first = min(handles)
    for _ in range(2):
        listed = clocked._scheduled
        assert listed[0] is first
        assert len(listed) == count
        assert set(map(id, listed)) == set(map(id, handles))
        clocked.turn()
    for handle in handles:
        handle.cancel()


@pytest.mark.parametrize("count", [10, 1000, 40_000])
def test_timers_of_a_loop_that_nobody_can_reach_are_collected(impl, count):
    class Clocked(impl.EventLoop):
        pass

    loop = Clocked()
    far = loop.time() + 1000
    refs = [weakref.ref(loop.call_at(far + n * 7 % 1000, loop.stop)) for n in range(count)]
    loop.stop()
    loop.run_forever()
    refs += [weakref.ref(loop.call_at(far - n * 7 % 1000, loop.stop)) for n in range(count)]
    gc.collect()
    assert all(ref() for ref in refs)
    loop.close()
    del loop
    gc.collect()
    assert not any(ref() for ref in refs)


def test_timer_of_another_loop_is_not_taken_for_ones_own(impl, clocked):
    """Its place among the other loop's timers says nothing about ours."""
    other = impl.EventLoop()
    ours = [clocked.call_at(2000 + n, callback) for n in range(1000)]
    theirs = [other.call_at(1e9 + n, callback) for n in range(1000)]
    clocked.turn()
    for handle in theirs:
        handle._loop = clocked
        handle.cancel()
    assert len(clocked._scheduled) == 1000
    assert not any(handle.cancelled() for handle in ours)
    other.close()
    for handle in ours:
        handle.cancel()


@pytest.mark.ctask_only
def test_what_is_due_within_microseconds_is_not_slept_for(loop, run):
    """The kernel lets a sleep end some 50 us late, and falling asleep costs more than it saves."""
    import ctask

    async def main():
        for _ in range(50):
            await asyncio.sleep(1e-6)

    run(main())
    assert ctask.stats(loop).idle == 0
