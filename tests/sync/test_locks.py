"""Lock, Event, Semaphore, Condition: who waits, who is woken, in which order; as with asyncio's."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
import inspect
import io
import random
import types
import warnings
import weakref

import pytest

NAMES = ("Lock", "Event", "Semaphore", "BoundedSemaphore")


@pytest.fixture
def sync(impl):
    """The classes under test."""
    if impl.name == "asyncio":
        return asyncio
    import ctask

    return ctask


@pytest.fixture
def start(loop, turn):
    """start(coro): a task that has begun to run."""

    def start(coro):
        task = loop.create_task(coro)
        turn()
        return task

    return start


@pytest.fixture(params=["loop's", "foreign"])
def futures(request, loop, monkeypatch):
    """Waiters are what loop.create_future() returns, which may be anything like a future."""
    if request.param == "foreign":

        class Future(asyncio.Future):
            pass

        monkeypatch.setattr(loop, "create_future", lambda: Future(loop=loop))
    return request.param


def shape(waiters):
    assert type(waiters) is collections.deque
    return ["cancelled" if w.cancelled() else "done" if w.done() else "pending" for w in waiters]


# ---- Lock ----


def test_lock_is_taken_without_a_turn_if_it_is_free(sync, run):
    async def main():
        lock = sync.Lock()
        assert not lock.locked()
        assert await lock.acquire() is True
        assert lock.locked() is True
        assert lock.release() is None
        assert lock.locked() is False
        async with lock as got:
            assert got is None
            assert lock.locked()
        assert not lock.locked()

    run(main())


def test_lock_goes_to_those_who_wait_in_their_order(sync, run, futures):
    async def main():
        lock, seen = sync.Lock(), []

        async def worker(name):
            async with lock:
                seen.append(name)
                await asyncio.sleep(0)
                assert lock.locked()
            await lock.acquire()
            seen.append(name.upper())
            lock.release()

        await asyncio.gather(*[worker(name) for name in "abcd"])
        assert seen == list("abcdABCD")
        assert not lock.locked()

    run(main())


def test_nobody_overtakes_the_one_who_was_chosen(sync, run, futures):
    async def main():
        lock, seen = sync.Lock(), []

        async def worker(name):
            await lock.acquire()
            seen.append(name)

        await lock.acquire()
        first = asyncio.create_task(worker("first"))
        await asyncio.sleep(0)
        lock.release()
        assert not lock.locked()
        late = asyncio.create_task(worker("late"))
        await worker_or_wait(worker("now"), lock)
        assert seen == ["first"]
        lock.release()
        await late
        assert seen == ["first", "late"]
        lock.release()
        await first

    async def worker_or_wait(coro, lock):
        task = asyncio.create_task(coro)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(main())


def test_who_is_cancelled_after_being_chosen_passes_the_lock_on(sync, run, futures):
    async def main():
        lock, seen = sync.Lock(), []

        async def worker(name):
            async with lock:
                seen.append(name)

        await lock.acquire()
        tasks = [asyncio.create_task(worker(name)) for name in "abc"]
        await asyncio.sleep(0)
        lock.release()
        tasks[0].cancel()
        await asyncio.wait(tasks)
        assert tasks[0].cancelled()
        assert seen == ["b", "c"]
        assert not lock.locked()
        assert shape(lock._waiters) == []

    run(main())


def test_cancelled_waiters_do_not_keep_a_free_lock(sync, run, futures):
    async def main():
        lock = sync.Lock()
        await lock.acquire()
        tasks = [asyncio.create_task(lock.acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        for task in tasks[1:]:
            task.cancel()
        assert shape(lock._waiters) == ["pending", "cancelled", "cancelled"]
        tasks[0].cancel()
        lock.release()
        assert await lock.acquire() is True  # at once: all who wait are cancelled
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        assert lock.locked()
        lock.release()

    run(main())


def test_cancel_message_and_instance_come_through_acquire(sync, run):
    async def main():
        lock = sync.Lock()
        await lock.acquire()
        caught = []

        async def worker():
            try:
                await lock.acquire()
            except asyncio.CancelledError as exc:
                caught.append(exc.args)
                raise

        task = asyncio.create_task(worker())
        await asyncio.sleep(0)
        task.cancel("why")
        await asyncio.wait([task])
        assert caught == [("why",)]
        lock.release()
        assert not lock.locked()

    run(main())


def test_release_of_a_free_lock_is_an_error(sync, run):
    async def main():
        lock = sync.Lock()
        with pytest.raises(RuntimeError, match=r"^Lock is not acquired\.$"):
            lock.release()
        with pytest.raises(RuntimeError, match=r"^Lock is not acquired\.$"):
            async with lock:
                lock.release()

    run(main())


def test_an_exception_leaves_the_block_and_the_lock(sync, run):
    async def main():
        lock = sync.Lock()
        with pytest.raises(ZeroDivisionError):
            async with lock:
                1 / 0  # noqa: B018
        assert not lock.locked()

    run(main())


def test_acquire_and_exit_do_nothing_until_awaited(sync, run):
    async def main():
        lock = sync.Lock()
        taking = lock.acquire()
        assert not lock.locked()
        await taking
        leaving = lock.__aexit__(None, None, None)
        assert lock.locked()
        assert await leaving is None
        assert not lock.locked()

    run(main())


def test_closing_a_waiting_acquire_takes_it_off_the_list(sync, run, futures):
    async def main():
        lock = sync.Lock()
        await lock.acquire()
        waits = [lock.acquire(), lock.acquire(), lock.acquire()]
        for coro in waits:
            coro.send(None)
        assert shape(lock._waiters) == ["pending"] * 3
        waits[1].close()
        assert shape(lock._waiters) == ["pending"] * 2
        del waits[0], coro
        gc.collect()
        assert len(lock._waiters) == 1
        with pytest.raises(KeyError):
            waits[1].throw(KeyError())
        assert shape(lock._waiters) == []

    run(main())


def test_waiters_are_released_without_being_looked_at(sync, run):
    async def main():
        lock = sync.Lock()
        await lock.acquire()
        waits = [lock.acquire() for _ in range(5)]
        for coro in waits:
            coro.send(None)
        for i in 2, 3, 0:
            waits[i].close()
        del waits[0], coro
        gc.collect()
        assert shape(lock._waiters) == ["pending", "pending"]
        for coro in waits:
            coro.close()

    run(main())


# ---- Event ----


def test_event_wakes_all_in_their_order(sync, run, futures):
    async def main():
        event, seen = sync.Event(), []

        async def worker(name):
            assert await event.wait() is True
            seen.append(name)

        tasks = [asyncio.create_task(worker(name)) for name in "abc"]
        await asyncio.sleep(0)
        assert event.is_set() is False
        assert event.set() is None
        assert event.is_set() is True
        assert event.clear() is None
        assert event.is_set() is False
        assert seen == []
        await asyncio.wait(tasks)
        assert seen == ["a", "b", "c"]
        event.set()
        event.set()
        assert await event.wait() is True

    run(main())


def test_event_passes_over_who_is_cancelled(sync, run, futures):
    async def main():
        event = sync.Event()
        tasks = [asyncio.create_task(event.wait()) for _ in range(5)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[3].cancel()
        event.set()
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [True, False, False, True, False]
        assert shape(event._waiters) == []

    run(main())


def test_waiting_again_after_clear(sync, run, futures):
    async def main():
        event, turns = sync.Event(), 0

        async def worker():
            nonlocal turns
            for _ in range(3):
                await event.wait()
                turns += 1
                event.clear()

        task = asyncio.create_task(worker())
        for expected in 1, 2, 3:
            await asyncio.sleep(0)
            event.set()
            await asyncio.sleep(0)
            assert turns == expected
        await task

    run(main())


# ---- Semaphore and BoundedSemaphore ----


@pytest.fixture(params=["Semaphore", "BoundedSemaphore"])
def semaphore(request, sync):
    return getattr(sync, request.param)


def test_semaphore_has_as_many_places_as_its_value(run, semaphore, futures):
    async def main():
        places, inside, most = semaphore(3), 0, 0

        async def worker():
            nonlocal inside, most
            async with places as got:
                assert got is None
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1

        assert not places.locked()
        await asyncio.gather(*[worker() for _ in range(10)])
        assert most == 3
        assert places._value == 3
        assert await places.acquire() is True
        assert places._value == 2
        assert places.release() is None
        assert shape(places._waiters) == []

    run(main())


def test_semaphore_gives_places_in_their_order(run, semaphore, futures):
    async def main():
        places, seen = semaphore(2), []

        async def worker(name):
            await places.acquire()
            seen.append(name)

        tasks = [asyncio.create_task(worker(name)) for name in "abcdef"]
        await asyncio.sleep(0)
        assert seen == ["a", "b"]
        assert places.locked()
        places.release()
        places.release()
        assert places._value == 0  # both are promised
        tasks[2].cancel()
        await asyncio.wait(tasks[2:4])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert seen == ["a", "b", "d", "e"]
        places.release()
        await tasks[5]
        assert seen == ["a", "b", "d", "e", "f"]

    run(main())


def test_bounded_semaphore_is_not_released_too_often(sync, run):
    async def main():
        places = sync.BoundedSemaphore(2)
        assert places._bound_value == 2
        await places.acquire()
        places.release()
        with pytest.raises(ValueError, match=r"^BoundedSemaphore released too many times$"):
            places.release()
        assert places._value == 2
        with pytest.raises(ValueError, match="released too many times"):
            async with places:
                places.release()
        places = sync.Semaphore(2)
        places.release()
        assert places._value == 3
        assert not hasattr(places, "_bound_value")

    run(main())


def test_semaphores_arguments(semaphore):
    with pytest.raises(ValueError, match=r"^Semaphore initial value must be >= 0$"):
        semaphore(-1)
    with pytest.raises(TypeError):
        semaphore("1")
    with pytest.raises(TypeError):
        semaphore(1, 2)
    assert semaphore(value=4)._value == 4
    assert semaphore()._value == 1
    assert semaphore(True)._value is True
    assert semaphore(0).locked()


def test_bounded_semaphore_is_a_semaphore(sync):
    assert issubclass(sync.BoundedSemaphore, sync.Semaphore)
    assert isinstance(sync.BoundedSemaphore(), asyncio.BoundedSemaphore)


@pytest.mark.parametrize("value", [2.0, 2**100, 2**62])
def test_unusual_values_of_a_semaphore(run, semaphore, value):
    async def main():
        places = semaphore(value)
        async with places:
            assert places._value == value - 1
        assert places._value == value
        assert not places.locked()
        places._value = 0.0
        task = asyncio.create_task(places.acquire())
        await asyncio.sleep(0)
        assert places.locked()
        places.release()
        await task
        assert places._value == 0
        places._value = 1
        await places.acquire()

    run(main())


def test_overridden_methods_of_a_semaphore_are_called(run, semaphore):
    calls = []

    class Places(semaphore):
        def locked(self):
            calls.append("locked")
            return super().locked()

        def _wake_up_next(self):
            calls.append("wake")
            return super()._wake_up_next()

        def release(self):
            calls.append("release")
            super().release()

    async def main():
        places = Places(1)

        async def worker():
            async with places:
                await asyncio.sleep(0)

        await asyncio.gather(worker(), worker())
        assert calls == ["locked", "locked", "release", "wake", "release", "wake"]
        assert places._value == 1

    run(main())


# ---- Condition ----


@pytest.fixture(params=["plain", "lock", "asyncio's lock", "subclass", "subclass of the lock"])
def condition(request, sync):
    """Makes conditions, of all kinds that work alike."""

    class Condition(sync.Condition):
        async def acquire(self):  # the lock's is an attribute of each instance, and is called
            raise AssertionError

    class Lock(sync.Lock):
        def release(self):
            super().release()

    return {
        "plain": sync.Condition,
        "lock": lambda: sync.Condition(sync.Lock()),
        "asyncio's lock": lambda: sync.Condition(lock=asyncio.locks.Lock()),
        "subclass": Condition,
        "subclass of the lock": lambda: sync.Condition(Lock()),
    }[request.param]


@pytest.fixture
def passes_on(request, impl, condition):
    """Does a cancelled wait pass its notification on?  In early releases asyncio's does not."""
    kind = request.node.callspec.params["condition"]
    ours = impl.name == "ctask" and kind in ("plain", "lock")
    return ours or hasattr(asyncio.locks.Condition, "_notify")


def test_condition_wakes_in_order_as_many_as_it_is_told(run, condition, futures):
    async def main():
        cond, seen = condition(), []

        async def worker(name):
            async with cond:
                assert await cond.wait() is True
                assert cond.locked()
                seen.append(name)

        tasks = [asyncio.create_task(worker(name)) for name in "abcde"]
        await asyncio.sleep(0)
        assert not cond.locked()
        assert shape(cond._waiters) == ["pending"] * 5
        async with cond:
            assert cond.notify() is None
            cond.notify(n=2)
            cond.notify(0)
            assert shape(cond._waiters) == ["done"] * 3 + ["pending"] * 2
            await asyncio.sleep(0)
            assert seen == []  # the lock is not theirs yet
        await asyncio.wait(tasks[:3])
        assert seen == ["a", "b", "c"]
        async with cond:
            assert cond.notify_all() is None
        await asyncio.wait(tasks)
        assert seen == ["a", "b", "c", "d", "e"]
        assert not cond.locked()

    run(main())


def test_condition_wants_the_lock(run, condition):
    async def main():
        cond = condition()
        with pytest.raises(RuntimeError, match=r"^cannot wait on un-acquired lock$"):
            await cond.wait()
        for call in cond.notify, cond.notify_all:
            with pytest.raises(RuntimeError, match=r"^cannot notify on un-acquired lock$"):
                call()
        await cond.acquire()
        assert cond.locked()
        with pytest.raises(TypeError):
            cond.notify(1, 2)
        cond.notify(0.5)
        cond.release()
        assert not cond._lock.locked()

    run(main())


def test_condition_wait_for(run, condition, futures):
    async def main():
        cond, value, asked = condition(), 0, 0

        def predicate():
            nonlocal asked
            asked += 1
            return value and [value]

        async def worker():
            async with cond:
                return await cond.wait_for(predicate)

        task = asyncio.create_task(worker())
        for value in 0, 0, 7:  # noqa: B007
            await asyncio.sleep(0)
            async with cond:
                cond.notify()
            await asyncio.sleep(0)
        assert await task == [7]
        assert asked == 4
        async with cond:
            assert await cond.wait_for(lambda: "now") == "now"
            with pytest.raises(ZeroDivisionError):
                await cond.wait_for(lambda: 1 / 0)
            assert cond.locked()

    run(main())


def test_a_cancelled_wait_has_the_lock_again(run, condition, futures):
    async def main():
        cond, seen = condition(), []

        async def worker():
            async with cond:
                try:
                    await cond.wait()
                except asyncio.CancelledError as exc:
                    seen.append((exc.args, cond.locked()))
                    raise

        task = asyncio.create_task(worker())
        await asyncio.sleep(0)
        await cond.acquire()
        task.cancel("one")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()
        assert shape(cond._waiters) == []
        cond.release()
        await asyncio.wait([task])
        assert seen == [(("one",), True)]
        assert not cond.locked()

    run(main())


def test_cancelled_while_it_takes_the_lock_again(run, condition, passes_on, futures):
    async def main():
        cond, seen = condition(), []

        async def worker():
            async with cond:
                try:
                    await cond.wait()
                except asyncio.CancelledError as exc:
                    seen.append((exc.args, cond.locked()))
                    raise

        task = asyncio.create_task(worker())
        await asyncio.sleep(0)
        async with cond:
            cond.notify()
            for message in "first", "second":
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                task.cancel(message)
            await asyncio.sleep(0)
            assert not task.done()
        await asyncio.wait([task])
        assert task.cancelled()
        assert seen == [(("second",) if passes_on else (), True)]
        assert not cond.locked()

    run(main())


def test_a_notification_is_not_lost_with_a_cancelled_task(run, condition, passes_on, futures):
    async def main():
        cond, seen = condition(), []

        async def worker(name):
            async with cond:
                await cond.wait()
                seen.append(name)

        tasks = [asyncio.create_task(worker(name)) for name in "ab"]
        await asyncio.sleep(0)
        async with cond:
            cond.notify()
            await asyncio.sleep(0)
            tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        for _ in range(3):
            await asyncio.sleep(0)
        assert seen == (["b"] if passes_on else [])
        tasks[1].cancel()
        await asyncio.wait(tasks)

    run(main())


def test_closing_a_waiting_condition(run, condition):
    async def main():
        cond = condition()
        await cond.acquire()
        coro = cond.wait()
        coro.send(None)
        assert not cond.locked()
        coro.close()
        assert cond.locked()
        assert shape(cond._waiters) == []
        coro = cond.wait_for(lambda: False)
        coro.send(None)
        await cond.acquire()
        with pytest.raises(RuntimeError, match="coroutine ignored GeneratorExit"):
            coro.close()
        assert cond.locked()
        cond.release()
        assert shape(cond._lock._waiters) == []

    run(main())


def test_what_fails_when_one_gives_up_tells_the_whole_story(sync, run):
    class Odd(collections.deque):
        odd = False

        def __iter__(self):
            try:
                return {False: super().__iter__()}[self.odd]
            except KeyError:
                raise ValueError from None

    async def main():
        lock = sync.Lock()
        await lock.acquire()
        lock._waiters = Odd()
        waiting, other = (asyncio.ensure_future(lock.acquire()) for _ in range(2))
        await asyncio.sleep(0)
        lock.release()
        waiting.cancel()
        lock._waiters.odd = True
        with pytest.raises(ValueError) as caught:
            await waiting
        other.cancel()
        lock._waiters.odd = False
        await asyncio.wait([other])
        story = [caught.value]
        while story[-1].__context__ is not None:
            story.append(story[-1].__context__)
        assert [type(exc) for exc in story] == [ValueError, KeyError, asyncio.CancelledError]

    run(main())


@pytest.mark.parametrize(("notified", "length"), [(True, 1), (False, 2)])
def test_cancelled_twice_while_it_takes_the_lock_again_has_no_context_of_the_first(
    sync, run, notified, length
):
    story = []

    async def wait(cond):
        async with cond:
            try:
                await cond.wait()
            except asyncio.CancelledError as error:
                while error is not None:
                    story.append(error.args)
                    error = error.__context__

    async def main():
        cond = sync.Condition()
        waiting = asyncio.ensure_future(wait(cond))
        await asyncio.sleep(0)
        await cond.acquire()
        if notified:
            cond.notify()
        else:
            waiting.cancel()
        await asyncio.sleep(0)
        for _ in range(2):
            waiting.cancel()
            await asyncio.sleep(0)
        cond.release()
        await waiting

    run(main())
    assert story == [()] * length


def test_cancelled_while_it_takes_the_lock_again_has_for_context_what_the_caller_handles(sync, run):
    async def wait(cond):
        async with cond:
            try:
                raise KeyError
            except KeyError:
                try:
                    await cond.wait()
                except asyncio.CancelledError as error:
                    return error.__context__

    async def main():
        cond = sync.Condition()
        waiting = asyncio.ensure_future(wait(cond))
        await asyncio.sleep(0)
        await cond.acquire()
        cond.notify()
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
        cond.release()
        return await waiting

    assert type(run(main())) is KeyError


def test_condition_of_another_loop(impl, run, condition):
    cond = condition()

    async def wait_in_it():
        async with cond:
            await cond.wait()

    async def bind():
        task = asyncio.ensure_future(wait_in_it())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    async def main():
        async with cond:
            with pytest.raises(RuntimeError) as caught:
                await cond.wait()
            assert cond.locked()
            return str(caught.value).partition("[")[0], caught.value.__context__

    run(bind())
    other = impl.new_event_loop()
    try:
        message, context = other.run_until_complete(main())
    finally:
        other.close()
    assert message == repr(cond).partition("[")[0]
    assert context is None


def test_condition_shares_its_lock(sync, run):
    async def main():
        lock = sync.Lock()
        one, other = sync.Condition(lock), sync.Condition(lock)
        assert one._lock is lock
        async with one:
            assert other.locked()
            assert lock.locked()
            other.notify_all()
        assert one.acquire == lock.acquire
        assert one.acquire is one.acquire

    run(main())


def test_condition_with_methods_of_its_own(sync, run):
    calls = []

    class Condition(sync.Condition):
        async def wait(self):
            calls.append("wait")
            return await super().wait()

        def notify(self, n=1):
            calls.append(n)
            super().notify(n)

    async def main():
        cond, ready = Condition(), False

        async def worker():
            async with cond:
                await cond.wait_for(lambda: ready)

        tasks = [asyncio.create_task(worker()) for _ in range(2)]
        await asyncio.sleep(0)
        ready = True
        async with cond:
            cond.notify_all()
        await asyncio.wait(tasks)
        assert calls == ["wait", "wait", 2]
        cond = sync.Condition()
        release = cond.release
        cond.release = lambda: (calls.append("mine"), release())
        async with cond:
            pass
        assert calls[-1] == "mine"
        assert not cond.locked()

    run(main())


def test_condition_over_something_like_a_lock(sync, run):
    class Lock:
        held = 0

        def locked(self):
            return bool(self.held)

        async def acquire(self):
            self.held += 1
            return True

        def release(self):
            self.held -= 1

    async def main():
        cond = sync.Condition(Lock())

        async def worker():
            async with cond:
                return await cond.wait()

        task = asyncio.create_task(worker())
        await asyncio.sleep(0)
        async with cond:
            cond.notify()
        assert await task is True
        with pytest.raises(AttributeError):
            sync.Condition(object())

    run(main())


def test_condition_is_collected(sync, loop, turn, logs):
    cond = sync.Condition()

    async def worker(cond):
        async with cond:
            await cond.wait()

    # One: a second would be notified in its place.
    task = loop.create_task(worker(cond))
    turn()
    refs = [weakref.ref(cond), weakref.ref(cond._lock), weakref.ref(task)]
    del cond, task
    gc.collect()
    gc.collect()
    assert [ref() for ref in refs] == [None] * 3
    assert len(logs.take()) == 1


# ---- Barrier ----


def test_barrier(sync, run):
    async def main():
        barrier, seen = sync.Barrier(3), []
        assert isinstance(barrier, asyncio.Barrier)
        assert type(barrier._cond) is sync.Condition

        async def worker(name):
            for _ in range(2):
                seen.append(name)
                async with barrier as position:
                    seen.append(position)

        await asyncio.gather(*[worker(name) for name in "abc"])
        assert seen[:3] == ["a", "b", "c"]
        assert sorted(x for x in seen if isinstance(x, int)) == [0, 0, 1, 1, 2, 2]
        task = asyncio.create_task(worker("d"))
        await asyncio.sleep(0)
        assert barrier.n_waiting == 1
        await barrier.abort()
        with pytest.raises(asyncio.BrokenBarrierError):
            await task

    run(main())


# ---- the same as asyncio's own, whatever happens ----


async def play_condition(cond, seed):
    """The same with a condition."""
    choose = random.Random(seed)
    trace, tasks, turns = [], [], []

    async def worker(name):
        try:
            async with cond:
                trace.append(("in", name))
                for _ in range(turns[name] % 3):
                    await asyncio.sleep(0)
                await cond.wait()
                trace.append(("notified", name, cond.locked()))
                for _ in range(turns[name] // 3):
                    await asyncio.sleep(0)
        except asyncio.CancelledError as exc:
            trace.append(("cancelled", name, exc.args, cond.locked()))
            raise

    async def notify(n):
        async with cond:
            cond.notify(n)
            await asyncio.sleep(0)

    def begin():
        turns.append(choose.randrange(9))
        tasks.append(asyncio.create_task(worker(len(tasks))))

    def cancel():
        waiting = [task for task in tasks if not task.done()]
        if waiting:
            choose.choice(waiting).cancel(choose.random())

    def tell():
        others.append(asyncio.create_task(notify(choose.randrange(3))))

    others = []
    actions = [begin] * 3 + [cancel] * 3 + [tell] * 3
    for _ in range(80):
        for _ in range(choose.randrange(4)):
            choose.choice(actions)()
        trace.append(repr(cond).partition("[")[2] if choose.random() < 0.3 else cond.locked())
        await asyncio.sleep(0)
    await asyncio.gather(*others)
    while not all(task.done() for task in tasks):
        await notify(1)
    trace.append(repr(cond).partition("[")[2])
    return trace


# Releases whose own conditions and semaphores follow the rules that ctask's follow on all of them.
late_release = pytest.mark.skipif(
    not hasattr(asyncio.locks.Condition, "_notify"), reason="asyncio's own have older rules"
)


@late_release
@pytest.mark.parametrize("seed", range(20))
def test_random_conditions_do_what_they_do_with_asyncios(sync, run, seed):
    ours = run(play_condition(sync.Condition(), seed))
    assert ours == run(play_condition(asyncio.locks.Condition(), seed))


async def play(make, seed):
    """What a semaphore or lock does in a random program, step by step."""
    choose = random.Random(seed)
    primitive, trace, tasks, held = make(), [], [], []

    async def worker(name):
        try:
            assert await primitive.acquire()
        except asyncio.CancelledError:
            trace.append(("cancelled", name))
            raise
        trace.append(("acquired", name))
        held.append(name)

    def release():
        if held:
            trace.append(("released by", held.pop(0)))
            primitive.release()

    def cancel():
        waiting = [task for task in tasks if not task.done()]
        if waiting:
            choose.choice(waiting).cancel()

    def begin():
        tasks.append(asyncio.create_task(worker(len(tasks))))

    actions = [release] * 4 + [begin] * 4 + [cancel] * 3
    for _ in range(60):
        for _ in range(choose.randrange(4)):
            choose.choice(actions)()
            if choose.random() < 0.2:
                trace.append((primitive.locked(), repr(primitive).partition("[")[2]))
        trace.append(getattr(primitive, "_value", None))
        await asyncio.sleep(0)
    for _ in range(200):
        release()
        await asyncio.sleep(0)
    assert all(task.done() for task in tasks)
    trace.append(repr(primitive).partition("[")[2])
    return trace


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    "name",
    [
        "Lock",
        pytest.param("Semaphore", marks=late_release),
        pytest.param("BoundedSemaphore", marks=late_release),
    ],
)
def test_random_programs_do_what_they_do_with_asyncios(sync, run, name, seed):
    value = () if name == "Lock" else (1 + seed % 3,)
    stock = getattr(asyncio.locks, name)
    ours = run(play(lambda: getattr(sync, name)(*value), seed))
    assert ours == run(play(lambda: stock(*value), seed))


# ---- what all share ----


def wait(primitive):
    """A coroutine that has to wait, once block() was called."""
    return primitive.wait() if hasattr(primitive, "wait") else primitive.acquire()


def block(primitive):
    if isinstance(primitive, asyncio.Lock):
        primitive._locked = True
    elif isinstance(primitive, asyncio.Semaphore):
        primitive._value = 0


def wake(primitive):
    if hasattr(primitive, "set"):
        primitive.set()
    else:
        primitive.release()


@pytest.mark.parametrize("name", NAMES)
def test_another_loop_is_refused(sync, impl, loop, run, name):
    primitive = getattr(sync, name)()
    assert primitive._loop is None
    block(primitive)

    async def wait_a_little():
        task = asyncio.ensure_future(wait(primitive))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    run(wait_a_little())
    assert primitive._loop is loop
    other = impl.new_event_loop()
    try:
        with pytest.raises(RuntimeError) as caught:
            other.run_until_complete(wait(primitive))
    finally:
        other.close()
    assert str(caught.value) == f"{primitive!r} is bound to a different event loop"
    assert shape(primitive._waiters) == []


@pytest.mark.parametrize("name", NAMES)
def test_repr(sync, run, name):
    async def main():
        primitive = getattr(sync, name)()
        free, busy = {
            "Lock": ("unlocked", "locked"),
            "Event": ("unset", "unset"),
            "Semaphore": ("unlocked, value:1", "locked"),
            "BoundedSemaphore": ("unlocked, value:1", "locked"),
        }[name]
        assert repr(primitive).endswith(f"[{free}]>")
        block(primitive)
        tasks = [asyncio.create_task(wait(primitive)) for _ in range(2)]
        await asyncio.sleep(0)
        assert repr(primitive).endswith(f"[{busy}, waiters:2]>")
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    run(main())


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_checked(sync, name):
    cls = getattr(sync, name)
    with pytest.raises(TypeError) as caught:
        cls(loop=None)
    assert f"{name}.__init__() got an unexpected keyword argument 'loop'" in str(caught.value)
    with pytest.raises(TypeError):
        getattr(cls(), "wait" if name == "Event" else "acquire")(1)


@pytest.mark.parametrize("name", NAMES)
def test_derived_from_asyncios(sync, name):
    cls = getattr(sync, name)
    assert issubclass(cls, getattr(asyncio, name))
    primitive = cls()
    primitive.label = "of a program"
    assert vars(primitive)["label"] == "of a program"
    ref = weakref.ref(primitive)
    del primitive
    assert ref() is None


@pytest.mark.parametrize(
    ("name", "method"), [("Lock", "acquire"), ("Event", "wait"), ("Semaphore", "acquire")]
)
def test_methods_are_coroutine_functions(sync, name, method):
    primitive = getattr(sync, name)()
    assert inspect.iscoroutinefunction(getattr(primitive, method))
    coro = getattr(primitive, method)()
    assert inspect.iscoroutine(coro)
    assert isinstance(coro, types.CoroutineType)
    assert coro.__qualname__ == f"{name}.{method}"
    with pytest.warns(RuntimeWarning, match=f"coroutine '{name}.{method}' was never awaited"):
        del coro


@pytest.mark.parametrize("name", NAMES)
def test_waiting_without_a_loop(sync, name):
    primitive = getattr(sync, name)()
    block(primitive)
    coro = wait(primitive)
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'create_future'"):
        coro.send(None)
    assert shape(primitive._waiters) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_looked_at_deque_goes_on_to_be_the_list(sync, run, futures, name):
    async def main():
        primitive = getattr(sync, name)()
        block(primitive)
        tasks = [asyncio.create_task(wait(primitive)) for _ in range(3)]
        await asyncio.sleep(0)
        deque = primitive._waiters
        assert shape(deque) == ["pending"] * 3
        assert primitive._waiters is deque
        tasks.append(asyncio.create_task(wait(primitive)))
        await asyncio.sleep(0)
        assert shape(deque) == ["pending"] * 4
        tasks[1].cancel()
        await asyncio.sleep(0)
        assert shape(deque) == ["pending"] * 3
        wake(primitive)
        await tasks[0]
        assert primitive._waiters is deque
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert primitive._waiters is deque
        assert shape(deque) == []

    run(main())


@pytest.mark.parametrize("name", NAMES)
def test_waiters_keep_their_tasks_alive(sync, loop, turn, name):
    primitive = getattr(sync, name)()
    block(primitive)
    seen = []

    async def worker():
        await wait(primitive)
        seen.append(name)

    ref = weakref.ref(loop.create_task(worker()))
    turn()
    gc.collect()
    assert ref() is not None
    wake(primitive)
    turn(2)
    assert seen == [name]


@pytest.mark.parametrize("name", NAMES)
def test_what_nobody_can_reach_any_more_is_collected(sync, loop, turn, logs, name):
    primitive = getattr(sync, name)()
    block(primitive)
    task = loop.create_task(wait(primitive))
    turn()
    refs = [weakref.ref(primitive), weakref.ref(task)]
    del primitive, task
    gc.collect()
    gc.collect()  # the report of a pending task may keep it in the first
    assert [ref() for ref in refs] == [None, None]
    assert "Task was destroyed but it is pending!" in logs.take()[0].getMessage()


@pytest.mark.parametrize("name", NAMES)
def test_an_uninitialised_object_has_no_state(sync, name):
    cls = getattr(sync, name)
    primitive = cls.__new__(cls)
    assert primitive._loop is None
    for attribute in ("_waiters", "_locked" if name == "Lock" else "_value"):
        with pytest.raises(AttributeError, match=attribute):
            getattr(primitive, attribute)
    with pytest.raises(AttributeError):
        wait(primitive).send(None)


def test_private_attributes_can_be_set(sync, run):
    async def main():
        lock, event = sync.Lock(), sync.Event()
        lock._locked = True
        assert lock.locked() is True
        lock.release()
        assert lock._locked is False
        event._value = True
        assert event.is_set()
        assert await event.wait()
        event._waiters = collections.deque()
        event._value = False
        future = asyncio.get_running_loop().create_future()
        event._waiters.append(future)
        event.set()
        assert future.result() is True
        lock._waiters = None
        assert lock._waiters is None
        assert await lock.acquire()

    run(main())


def test_overridden_methods_are_called(sync, run, futures):
    calls = []

    class Lock(sync.Lock):
        def release(self):
            calls.append("release")
            super().release()

        async def acquire(self):
            calls.append("acquire")
            return await super().acquire()

    class Choosy(sync.Lock):
        def _wake_up_first(self):
            calls.append("wake")
            super()._wake_up_first()

    class Bound(sync.Event):
        def _get_loop(self):
            calls.append("loop")
            return super()._get_loop()

    async def main():
        lock = Lock()

        async def worker(lock):
            async with lock:
                await asyncio.sleep(0)

        await asyncio.gather(worker(lock), worker(lock))
        assert calls == ["acquire", "acquire", "release", "release"]
        calls.clear()
        lock = Choosy()
        await asyncio.gather(worker(lock), worker(lock))
        assert calls == ["wake", "wake"]
        calls.clear()
        event = Bound()
        task = asyncio.create_task(event.wait())
        await asyncio.sleep(0)
        event.set()
        await task
        assert calls == ["loop"]
        calls.clear()
        lock = sync.Lock()
        lock.release = lambda: calls.append("mine")
        async with lock:
            pass
        assert calls == ["mine"]
        assert lock.locked()

    run(main())


def test_a_method_may_be_replaced_in_the_class_later(sync, run, monkeypatch):
    calls = []

    class Lock(sync.Lock):
        pass

    async def main():
        lock = Lock()
        async with lock:
            pass
        assert calls == []
        release = Lock.release
        monkeypatch.setattr(Lock, "release", lambda self: (calls.append(self), release(self)))
        async with lock:
            pass
        assert calls == [lock]
        assert not lock.locked()

    run(main())


@pytest.mark.parametrize("name", NAMES)
def test_it_works_on_asyncios_loop(sync, name):
    async def main():
        primitive = getattr(sync, name)()
        block(primitive)
        tasks = [asyncio.create_task(wait(primitive)) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        wake(primitive)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        done = [task.done() for task in tasks]
        assert done == [True, True, name == "Event"]
        if name != "Event":
            wake(primitive)
        await asyncio.wait(tasks)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        loop = asyncio.SelectorEventLoop()
    loop.run_until_complete(main())
    loop.close()


@pytest.mark.parametrize("name", NAMES)
def test_in_debug_mode(sync, loop, run, name):
    loop.set_debug(True)

    async def main():
        primitive = getattr(sync, name)()
        block(primitive)
        tasks = [asyncio.create_task(wait(primitive)) for _ in range(2)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        wake(primitive)
        await asyncio.wait(tasks)
        assert tasks[0].cancelled()
        assert tasks[1].result() is True

    run(main())


def test_a_future_that_changes_the_list_stops_set(sync, run, loop, monkeypatch):
    """As a deque that is changed while it is iterated over."""
    event = sync.Event()
    waits = []

    class Future(asyncio.Future):
        def set_result(self, result):
            super().set_result(result)
            waits.pop().close()

    async def main():
        monkeypatch.setattr(loop, "create_future", lambda: Future(loop=loop))
        waits.extend(event.wait() for _ in range(4))
        for coro in waits:
            coro.send(None)
        with pytest.raises(RuntimeError, match="deque mutated during iteration"):
            event.set()
        assert event.is_set()
        assert len(event._waiters) == 3
        for coro in waits:
            coro.close()

    run(main())


def test_an_awaitable_of_the_loops_that_is_none(sync, run, loop, monkeypatch):
    async def main():
        lock = sync.Lock()
        await lock.acquire()
        with monkeypatch.context() as patch:
            patch.setattr(loop, "create_future", lambda: "no future")
            with pytest.raises(TypeError):
                await lock.acquire()
        assert lock._waiters == collections.deque()

    run(main())


@pytest.mark.parametrize("method", ["acquire", "release", "set"])
def test_waiters_that_go_when_they_are_gone_through(sync, run, method):
    class Last(io.IOBase):
        @property
        def closed(self):
            obj._waiters = collections.deque()
            return False

    async def main():
        nonlocal obj
        obj = sync.Event() if method == "set" else sync.Lock()
        if method == "release":
            await obj.acquire()
        obj._waiters = Last()
        with contextlib.suppress(Exception):
            res = getattr(obj, method)()
            if res is not None:
                await res
        obj = None

    obj = None
    run(main())
    gc.collect()


def test_waiters_are_looked_at_when_their_deque_goes(sync, run, loop):
    def look(ref):
        if event is not None:
            seen.append(event._waiters)

    async def main():
        nonlocal event
        event = sync.Event()
        ref = weakref.ref(event._waiters, look)
        waiting = asyncio.ensure_future(event.wait())
        await asyncio.sleep(0)
        event.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert waiting.done()
        event = None
        del ref

    event, seen = None, []
    run(main())


def test_a_condition_over_a_lock_that_cannot_tell_its_state(sync):
    class Locked:
        def __bool__(self):
            raise KeyError

    lock = sync.Lock()
    vars(lock)["_locked"] = Locked()
    with contextlib.suppress(KeyError):
        sync.Condition(lock)


def test_a_condition_that_is_initialised_while_it_is(sync):
    class Last:
        def __del__(self):
            condition.__init__(locks.pop())

    condition = sync.Condition.__new__(sync.Condition)
    locks = [sync.Lock(), sync.Lock()]
    refs = [weakref.ref(lock) for lock in locks]
    condition._waiters = Last()
    condition.__init__(locks.pop(0))
    assert not locks
    condition = None
    gc.collect()
    assert [ref() for ref in refs] == [None, None]
