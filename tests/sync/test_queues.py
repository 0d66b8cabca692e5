"""Queue, PriorityQueue, LifoQueue: items, waiting, cancelling, and what Python code sees of it."""

from __future__ import annotations

import asyncio
import collections
import copy
import gc
import heapq
import inspect
import sys
import types
import weakref
from unittest import mock

import pytest

shutdown = pytest.mark.skipif(
    sys.version_info < (3, 13), reason="Queue.shutdown() is new in Python 3.13"
)


@pytest.fixture
def ns(impl):
    """Where the classes are taken from."""
    if impl.name == "asyncio":
        return asyncio
    import ctask

    return ctask


@pytest.fixture(params=["Queue", "LifoQueue", "PriorityQueue"])
def cls(request, ns):
    return getattr(ns, request.param)


def failure(function, *args):
    with pytest.raises(Exception) as caught:
        function(*args)
    return type(caught.value), str(caught.value)


class Item:
    """Can be referred to weakly, and compared."""

    def __lt__(self, other):
        return False


# ---- items ----


def test_queue_is_first_in_first_out(ns, run):
    q = ns.Queue()
    for i in [3, 1, 2]:
        run(q.put(i))
    assert [run(q.get()) for _ in range(3)] == [3, 1, 2]


def test_lifo_queue_gives_the_newest(ns, run):
    q = ns.LifoQueue()
    for i in [3, 1, 2]:
        run(q.put(i))
    assert [run(q.get()) for _ in range(3)] == [2, 1, 3]


def test_priority_queue_gives_the_smallest(ns, run):
    q = ns.PriorityQueue()
    for i in [3, 1, 2, 0, 7]:
        run(q.put(i))
    assert [run(q.get()) for _ in range(5)] == [0, 1, 2, 3, 7]


def test_put_returns_none_and_get_the_item_itself(cls, run):
    q = cls()
    item = Item()
    assert run(q.put(item)) is None
    assert run(q.get()) is item
    assert q.put_nowait(item) is None
    assert q.get_nowait() is item


@pytest.mark.parametrize("item", [None, (), (1,), StopIteration(5), ValueError, ""])
def test_any_item_can_be_got(ns, run, item):
    q = ns.Queue()

    async def main():
        await q.put(item)
        return await q.get()

    assert run(main()) is item


def test_qsize_empty_full(cls):
    q = cls(2)
    assert (q.qsize(), q.empty(), q.full(), q.maxsize) == (0, True, False, 2)
    q.put_nowait(1)
    assert (q.qsize(), q.empty(), q.full()) == (1, False, False)
    q.put_nowait(2)
    assert (q.qsize(), q.empty(), q.full()) == (2, False, True)
    assert failure(q.put_nowait, 3) == (asyncio.QueueFull, "")
    q.get_nowait()
    q.get_nowait()
    assert failure(q.get_nowait) == (asyncio.QueueEmpty, "")


@pytest.mark.parametrize(
    ("maxsize", "room"),
    [
        (0, 50),
        (-1, 50),
        (1, 1),
        (3, 3),
        (True, 1),
        (False, 50),
        (2.0, 2),
        (2.5, 3),
        (float("inf"), 50),
        (float("nan"), 50),
        (-0.5, 50),
        (2**70, 50),
        (-(2**70), 50),
    ],
)
def test_maxsize(cls, maxsize, room):
    q = cls(maxsize)
    assert q.maxsize is maxsize
    n = 0
    while n < 50 and not q.full():
        q.put_nowait(n)
        n += 1
    assert n == room


def test_maxsize_of_a_type_that_compares_itself(cls, run):
    class Number(int):
        def __le__(self, other):
            return super().__le__(other)

    q = cls(Number(1))
    run(q.put(1))
    assert q.full()
    q = cls(None)
    assert failure(q.full)[0] is TypeError
    assert failure(run, q.put(1))[0] is TypeError
    q = cls("2")
    assert failure(q.put_nowait, 1)[0] is TypeError


def test_maxsize_can_be_changed(cls, start, turn, run):
    q = cls(1)
    q.put_nowait(1)
    putting = start(q.put(2))
    q._maxsize = 3
    assert q.maxsize == 3
    q.put_nowait(3)
    assert q.get_nowait() in (1, 3)
    run(putting)
    assert q.qsize() == 2


def test_arguments(cls, run):
    q = cls(maxsize=4)
    assert q.maxsize == 4
    run(q.put(item=1))
    q.put_nowait(item=2)
    assert q.qsize() == 2
    for call in [
        lambda: cls(1, 2),
        lambda: cls(size=1),
        lambda: q.put(),
        lambda: q.put(1, 2),
        lambda: q.put(thing=1),
        lambda: q.get(1),
        lambda: q.join(1),
        lambda: q.put_nowait(),
        lambda: q.put_nowait(1, 2),
        lambda: q.put_nowait(thing=1),
        lambda: q.get_nowait(1),
        lambda: q.task_done(1),
        lambda: q.qsize(1),
    ]:
        assert failure(call)[0] is TypeError


# ---- waiting ----


def test_get_waits_for_an_item(cls, start, run):
    q = cls()
    getting = start(q.get())
    assert len(q._getters) == 1
    q.put_nowait(1)
    assert len(q._getters) == 0
    assert run(getting) == 1


def test_put_waits_for_room(cls, start, run):
    q = cls(1)
    q.put_nowait(1)
    putting = start(q.put(2))
    assert len(q._putters) == 1
    assert q.get_nowait() == 1
    assert len(q._putters) == 0
    run(putting)
    assert q.get_nowait() == 2


def test_getters_are_served_in_order(cls, start, turn):
    q = cls()
    getting = [start(q.get()) for _ in range(3)]
    for i in range(3):
        q.put_nowait(i)
    assert q.qsize() == 3
    turn()
    results = [task.result() for task in getting]
    assert results == ([2, 1, 0] if "Lifo" in cls.__name__ else [0, 1, 2])


def test_putters_go_in_order(ns, start, turn):
    q = ns.Queue(1)
    q.put_nowait("a")
    putting = [start(q.put(x)) for x in "bcd"]
    for x in "abcd":
        assert q.get_nowait() == x
        turn()
    assert all(task.done() for task in putting)


def test_one_who_overtakes_makes_the_getter_wait_again(cls, start, turn, run):
    q = cls()
    getting = start(q.get())
    q.put_nowait(1)
    assert q.get_nowait() == 1
    turn()
    assert not getting.done()
    assert len(q._getters) == 1
    q.put_nowait(2)
    assert run(getting) == 2


def test_one_who_overtakes_makes_the_putter_wait_again(cls, start, turn, run):
    q = cls(1)
    q.put_nowait(1)
    putting = start(q.put(3))
    q.get_nowait()
    q.put_nowait(2)
    turn()
    assert not putting.done()
    assert q.get_nowait() == 2
    run(putting)
    assert q.get_nowait() == 3


def test_nothing_is_done_before_the_first_step(cls, run):
    q = cls()
    putting, getting = q.put(1), q.get()
    assert q.qsize() == 0
    run(putting)
    assert q.qsize() == 1
    assert run(getting) == 1


def test_put_and_get_that_need_not_wait_take_no_turn(cls, loop, turn):
    q = cls(1)

    async def main():
        for i in range(5):
            await q.put(i)
            assert await q.get() == i
        await q.join()
        return "done"

    q.put_nowait(0)
    q.get_nowait()
    q.task_done()
    q._unfinished_tasks = -5
    task = loop.create_task(main())
    turn()
    assert task.result() == "done"


def test_a_producer_and_a_consumer(cls, run):
    q = cls(3)

    async def produce():
        for i in range(100):
            await q.put(i)

    async def consume():
        seen = []
        for _ in range(100):
            seen.append(await q.get())
            q.task_done()
        return seen

    async def main():
        _, seen = await asyncio.gather(produce(), consume())
        await q.join()
        return seen

    assert sorted(run(main())) == list(range(100))


def test_it_works_on_a_loop_of_asyncios(cls):
    loop = asyncio.SelectorEventLoop()
    q = cls(1)

    async def produce():
        for i in range(10):
            await q.put(i)
        await q.join()

    async def consume():
        for i in range(10):
            assert await q.get() == i
            q.task_done()

    async def main():
        await asyncio.wait_for(asyncio.gather(produce(), consume()), 10)

    loop.run_until_complete(main())
    loop.close()


# ---- cancelling ----


def test_a_cancelled_getter_is_forgotten(cls, start, turn):
    q = cls()
    getting = start(q.get())
    getting.cancel()
    turn()
    assert getting.cancelled()
    assert len(q._getters) == 0
    q.put_nowait(1)
    assert q.get_nowait() == 1


def test_a_cancelled_putter_is_forgotten(cls, start, turn):
    q = cls(1)
    q.put_nowait(1)
    putting = start(q.put(2))
    putting.cancel()
    turn()
    assert putting.cancelled()
    assert len(q._putters) == 0
    assert q.qsize() == 1


def test_a_getter_cancelled_after_its_call_hands_it_on(cls, start, turn):
    q = cls()
    first, second = start(q.get()), start(q.get())
    q.put_nowait(1)
    first.cancel()
    turn()
    assert first.cancelled()
    turn()
    assert second.result() == 1


def test_a_putter_cancelled_after_its_call_hands_it_on(cls, start, turn):
    q = cls(1)
    q.put_nowait(1)
    first, second = start(q.put(2)), start(q.put(3))
    q.get_nowait()
    first.cancel()
    turn()
    assert first.cancelled()
    turn()
    assert second.done()
    assert q.get_nowait() == 3


def test_a_getter_cancelled_after_its_call_calls_nobody_if_there_is_nothing(cls, start, turn):
    q = cls()
    first, second = start(q.get()), start(q.get())
    q.put_nowait(1)
    first.cancel()
    q.get_nowait()
    turn(3)
    assert first.cancelled()
    assert not second.done()
    assert len(q._getters) == 1
    second.cancel()
    turn()


def test_the_next_one_is_not_called_by_those_who_were_cancelled_while_waiting(cls, start, turn):
    q = cls()
    getting = [start(q.get()) for _ in range(3)]
    getting[0].cancel()
    getting[1].cancel()
    q.put_nowait(1)
    turn(2)
    assert [task.cancelled() for task in getting[:2]] == [True, True]
    assert getting[2].result() == 1


def test_close_of_a_waiting_get_gives_up(cls, run, loop):
    async def main():
        q = cls()
        coro = q.get()
        fut = coro.send(None)
        assert list(q._getters) == [fut]
        coro.close()
        assert list(q._getters) == []
        assert fut.cancelled()
        coro = q.get()
        fut = coro.send(None)
        q.put_nowait(1)
        second = q.get()
        assert q._getters == collections.deque()
        with pytest.raises(ZeroDivisionError):
            coro.throw(ZeroDivisionError)
        assert q.get_nowait() == 1
        second.close()

    run(main())


def test_waiters_of_python_code_are_called(cls, loop, run):
    q = cls(1)

    async def main():
        waiter, done = loop.create_future(), loop.create_future()
        done.cancel()
        q._getters.append(done)
        q._getters.append(waiter)
        q.put_nowait(1)
        assert waiter.done()
        assert not q._getters
        waiter = loop.create_future()
        q._putters.append(waiter)
        q.get_nowait()
        assert waiter.done()

    run(main())


def test_waiters_may_be_futures_of_any_kind(cls, loop, run):
    class Waiter:
        def __init__(self):
            self.calls = []

        def done(self):
            self.calls.append("done")
            return False

        def set_result(self, value):
            self.calls.append(value)

    q = cls()
    waiter = Waiter()
    q._getters.append(waiter)
    q.put_nowait(1)
    assert waiter.calls == ["done", None]
    q._getters.append(object())
    assert failure(q.put_nowait, 2)[0] is AttributeError
    assert q.qsize() == 2


@pytest.fixture
def foreign():
    """A loop of asyncio's whose create_future() makes what `loop.make` says."""

    class Loop(asyncio.SelectorEventLoop):
        def create_future(self):
            return self.make()

        def make(self):
            return super().create_future()

    loop = Loop()
    yield loop
    loop.close()


def test_futures_of_any_kind_are_waited_for(cls, foreign):
    class Fut(asyncio.futures._PyFuture):
        pass

    q = cls()

    async def main():
        foreign.make = lambda: Fut(loop=foreign)
        getting = foreign.create_task(q.get())
        other = foreign.create_task(q.get())
        await asyncio.sleep(0)
        assert [type(waiter) for waiter in q._getters] == [Fut, Fut]
        q.put_nowait(1)
        getting.cancel()
        assert await other == 1
        assert getting.cancelled()
        getting = foreign.create_task(q.get())
        await asyncio.sleep(0)
        getting.cancel()
        await asyncio.sleep(0)
        assert not q._getters
        del foreign.make

    foreign.run_until_complete(main())


def test_what_fails_when_one_gives_up_tells_the_whole_story(cls, run):
    class Odd(collections.deque):
        def remove(self, waiter):
            try:
                super().remove(waiter)
                super().remove(waiter)
            except ValueError:
                raise LookupError from None

    async def main():
        q = cls()
        q._getters = Odd()
        getting = asyncio.ensure_future(q.get())
        await asyncio.sleep(0)
        getting.cancel()
        with pytest.raises(LookupError) as caught:
            await getting
        story = [caught.value]
        while story[-1].__context__ is not None:
            story.append(story[-1].__context__)
        assert [type(exc) for exc in story] == [LookupError, ValueError, asyncio.CancelledError]

    run(main())


def test_what_is_no_future_is_not_waited_for(cls, foreign):
    class Odd:
        def cancel(self):
            seen.append("cancel")

        def cancelled(self):
            return False

    class Worse(Odd):
        def cancel(self):
            raise ZeroDivisionError

    q = cls()
    seen: list[str] = []

    async def main():
        foreign.make = Odd
        with pytest.raises(TypeError):
            await q.get()
        foreign.make = Worse
        with pytest.raises(ZeroDivisionError) as caught:
            await q.get()
        assert type(caught.value.__context__) is TypeError
        del foreign.make

    foreign.run_until_complete(main())
    assert seen == ["cancel"]
    assert len(q._getters) == 1


# ---- join() ----


def test_join_returns_when_all_is_done(cls, start, turn):
    q = cls()
    for i in range(2):
        q.put_nowait(i)
    joining = start(q.join())
    q.task_done()
    turn()
    assert not joining.done()
    q.task_done()
    turn()
    assert joining.result() is None


def test_join_of_nothing_returns_at_once(cls, run):
    q = cls()
    assert run(q.join()) is None
    q.put_nowait(1)
    q.task_done()
    assert run(q.join()) is None


def test_join_again_and_again(cls, start, run, turn):
    q = cls()
    for i in range(3):
        q.put_nowait(i)
        joining = [start(q.join()) for _ in range(2)]
        q.task_done()
        turn()
        assert [task.done() for task in joining] == [True, True]


def test_a_join_that_was_woken_does_not_look_again(cls, start, turn):
    q = cls()
    q.put_nowait(1)
    joining = start(q.join())
    q.task_done()
    q.put_nowait(2)
    turn()
    assert joining.done()


def test_task_done_too_often(cls):
    q = cls()
    assert failure(q.task_done) == (ValueError, "task_done() called too many times")
    q.put_nowait(1)
    q.task_done()
    assert failure(q.task_done) == (ValueError, "task_done() called too many times")


def test_unfinished_tasks_can_be_set(cls, start, turn):
    q = cls()
    assert q._unfinished_tasks == 0
    q.put_nowait(1)
    q.put_nowait(2)
    assert q._unfinished_tasks == 2
    joining = start(q.join())
    q._unfinished_tasks -= 1
    q.task_done()
    assert q._unfinished_tasks == 0
    turn()
    assert joining.done()


def test_finished_is_an_event(cls, start, turn):
    q = cls()
    assert isinstance(q._finished, asyncio.Event)
    assert q._finished is q._finished
    assert q._finished.is_set()
    q.put_nowait(1)
    assert not q._finished.is_set()
    waiting = start(q._finished.wait())
    joining = start(q.join())
    q.task_done()
    assert q._finished.is_set()
    turn()
    assert waiting.done() and joining.done()


def test_finished_may_be_set_and_cleared_by_others(cls, start, turn):
    q = cls()
    q.put_nowait(1)
    q._finished.set()
    joining = start(asyncio.sleep(0, q.join()))
    turn()
    coro = joining.result()
    assert not q._unfinished_tasks == 0
    q.put_nowait(2)
    assert not q._finished.is_set()
    coro.close()


def test_finished_can_be_replaced(cls, start, turn):
    q = cls()
    q._finished = event = asyncio.Event()
    q.put_nowait(1)
    joining = start(q.join())
    event.set()
    turn()
    assert joining.done()
    q.task_done()
    assert q._finished is event


# ---- loops ----


def test_it_is_bound_to_the_loop_of_its_first_wait(ns, cls, impl):
    def once(coro):
        loop = impl.new_event_loop()
        try:
            return loop.run_until_complete(coro)
        finally:
            loop.close()

    q = cls()

    async def use():
        await q.put(1)
        return await q.get()

    assert once(use()) == 1
    assert q._loop is None
    assert once(use()) == 1

    async def wait():
        asyncio.get_running_loop().call_soon(q.put_nowait, 2)
        return await q.get()

    assert once(wait()) == 2
    assert q._loop.is_closed()
    kind, message = failure(once, q.get())
    assert kind is RuntimeError
    assert message == f"{q!r} is bound to a different event loop"
    assert not q._getters
    q._loop = None
    assert once(wait()) == 2
    q._loop = None


def test_waiting_without_a_loop(cls):
    coro = cls().get()
    assert failure(coro.send, None)[0] is AttributeError


# ---- attributes ----


def test_attributes_are_asyncios(ns):
    q = ns.Queue()
    assert type(q._queue) is type(q._getters) is type(q._putters) is collections.deque
    assert type(ns.LifoQueue()._queue) is type(ns.PriorityQueue()._queue) is list
    assert q._maxsize == 0
    assert q._loop is None
    assert q._getters is q._getters
    assert q._getters is not q._putters
    if sys.version_info >= (3, 13):
        assert q._is_shutdown is False
    else:
        assert not hasattr(q, "_is_shutdown")
        assert not hasattr(q, "shutdown")


def test_items_can_be_reached_past_the_queue(ns, run):
    q = ns.Queue(3)
    run(q.put(1))
    q._queue.appendleft(0)
    assert q.qsize() == 2
    q._queue.extend([2, 3])
    assert q.full()
    assert failure(q.put_nowait, 9)[0] is asyncio.QueueFull
    assert list(q._queue) == [0, 1, 2, 3]
    assert run(q.get()) == 0
    q._queue.clear()
    assert q.empty()
    assert q._unfinished_tasks == 1


@pytest.mark.parametrize(
    "items", [collections.deque([5, 6]), collections.UserList([5, 6]), [5, 6], {5: 6, 6: 6}]
)
def test_what_holds_the_items_can_be_replaced(ns, items):
    items = copy.copy(items)
    q = ns.Queue()
    q._queue = items
    assert q._queue is items
    assert q.qsize() == 2
    assert not q.empty()
    if isinstance(items, collections.deque):
        assert q.get_nowait() == 5
        q.put_nowait(7)
        assert list(items) == [6, 7]
    else:
        assert failure(q.get_nowait)[0] is AttributeError


def test_a_deque_that_is_not_plain(ns, run):
    class Deque(collections.deque):
        def popleft(self):
            return "popped", super().popleft()

    q = ns.Queue()
    q._queue = Deque()
    q.put_nowait(1)
    assert q.get_nowait() == ("popped", 1)
    q._queue = collections.deque(maxlen=1)
    q.put_nowait(1)
    q.put_nowait(2)
    assert run(q.get()) == 2


def test_a_list_for_the_lifo_queue_that_is_not_plain(ns, run):
    class List(list):
        def append(self, item):
            super().append((item, "appended"))

    q = ns.LifoQueue()
    q._queue = List()
    q.put_nowait(1)
    assert run(q.get()) == (1, "appended")


def test_waiters_can_be_replaced(cls, start, turn, run):
    class Deque(collections.deque):
        def popleft(self):
            seen.append("popleft")
            return super().popleft()

    seen: list[str] = []
    q = cls()
    q._getters = Deque()
    getting = start(q.get())
    other = start(q.get())
    q.put_nowait(1)
    assert run(getting) == 1
    assert seen == ["popleft"]
    other.cancel()
    turn()
    assert not q._getters


def test_a_program_may_set_attributes_of_its_own(cls):
    q = cls()
    q.name = "mine"
    assert vars(q)["name"] == "mine"
    assert weakref.ref(q)() is q


def test_repr(cls, start, turn):
    q = cls(2)
    assert repr(q) == f"<{cls.__name__} at {id(q):#x} maxsize=2>"
    assert str(q) == f"<{cls.__name__} maxsize=2>"
    getting = start(q.get())
    assert str(q) == f"<{cls.__name__} maxsize=2 _getters[1]>"
    q.put_nowait(1)
    turn()
    assert getting.done()
    assert str(q) == f"<{cls.__name__} maxsize=2 tasks=1>"
    q.put_nowait(2)
    q.put_nowait(3)
    putting = start(q.put(4))
    held = [3, 2] if isinstance(q, asyncio.LifoQueue) else [2, 3]
    assert str(q) == f"<{cls.__name__} maxsize=2 _queue={sorted(held)} _putters[1] tasks=3>"
    putting.cancel()
    turn()
    if sys.version_info >= (3, 13):
        q.shutdown()
        assert str(q).endswith(" shutdown>")


def test_classes(ns, cls):
    assert isinstance(cls(), asyncio.Queue)
    assert isinstance(cls(), ns.Queue)
    assert issubclass(cls, getattr(asyncio, cls.__name__))
    alias = cls[int]
    assert type(alias) is types.GenericAlias
    assert alias.__origin__ is cls and alias.__args__ == (int,)
    assert alias(3).maxsize == 3

    class Sub(cls[int]):
        pass

    assert Sub(2).maxsize == 2


def test_methods_say_what_they_are(cls):
    for name in ("put", "get", "join"):
        ours, stock = getattr(cls, name), getattr(asyncio.Queue, name)
        assert inspect.iscoroutinefunction(ours)
        assert ours.__doc__ == stock.__doc__
        assert inspect.signature(ours) == inspect.signature(stock)
    spec = mock.create_autospec(cls, instance=True)
    assert isinstance(spec.get, mock.AsyncMock)
    assert not isinstance(spec.get_nowait, mock.AsyncMock)


def test_a_mock_with_a_queues_spec_passes_for_one(cls):
    spec = mock.Mock(spec=cls)
    assert isinstance(spec, asyncio.Queue)
    assert isinstance(spec, cls)


# ---- subclasses ----


def test_hooks_in_a_subclass(ns, run):
    class Unique(ns.Queue):
        def _init(self, maxsize):
            self.seen_maxsize = maxsize
            self._queue = {}

        def _put(self, item):
            self._queue[item] = None

        def _get(self):
            return self._queue.popitem()[0]

    q = Unique(2)
    assert q.seen_maxsize == 2
    run(q.put(1))
    q.put_nowait(1)
    assert q.qsize() == 1
    assert q._unfinished_tasks == 2
    q.put_nowait(2)
    assert q.full()
    assert run(q.get()) == 2
    assert q.get_nowait() == 1
    assert q.empty()


def test_hooks_that_extend_asyncios(cls, run):
    class Counting(cls):
        def _init(self, maxsize):
            super()._init(maxsize)
            self.calls = []

        def _put(self, item):
            self.calls.append("put")
            super()._put(item)

        def _get(self):
            self.calls.append("get")
            return super()._get()

    q = Counting()
    run(q.put(1))
    q.put_nowait(2)
    assert sorted([run(q.get()), q.get_nowait()]) == [1, 2]
    assert q.calls == ["put", "put", "get", "get"]


def test_init_alone_overridden(ns, run):
    class Filled(ns.Queue):
        def _init(self, maxsize):
            self._queue = collections.deque([7, 8])

    for _ in range(2):
        q = Filled()
        assert q.qsize() == 2
        q.put_nowait(9)
        assert [run(q.get()) for _ in range(3)] == [7, 8, 9]


def test_put_alone_overridden(ns):
    class Priority(ns.Queue):
        def _init(self, maxsize):
            self._queue = []

        def _put(self, item, heappush=heapq.heappush):
            heappush(self._queue, item)

        def _get(self, heappop=heapq.heappop):
            return heappop(self._queue)

    q = Priority()
    for i in [3, 1, 2]:
        q.put_nowait(i)
    assert [q.get_nowait() for _ in range(3)] == [1, 2, 3]


def test_a_hook_that_raises(cls, run):
    class Refusing(cls):
        def _put(self, item):
            raise ZeroDivisionError

    q = Refusing()
    assert failure(run, q.put(1))[0] is ZeroDivisionError
    assert failure(q.put_nowait, 1)[0] is ZeroDivisionError
    assert q._unfinished_tasks == 0


def test_an_item_that_cannot_be_compared(ns, run):
    q = ns.PriorityQueue()
    q.put_nowait(1)
    assert failure(q.put_nowait, "a")[0] is TypeError
    assert q.qsize() == 2
    assert q._unfinished_tasks == 1


@pytest.mark.parametrize(
    "name", ["full", "empty", "put_nowait", "get_nowait", "qsize", "_wakeup_next", "_get_loop"]
)
def test_an_overridden_method_is_called(cls, loop, run, name):
    seen = []

    def override(self, *args):
        seen.append(name)
        return getattr(super(Sub, self), name)(*args)

    Sub = type("Sub", (cls,), {name: override})
    q = Sub(1)

    async def main():
        getting = loop.create_task(q.get())
        await asyncio.sleep(0)
        await q.put(1)
        putting = loop.create_task(q.put(2))
        assert await getting == 1
        await putting
        assert await q.get() == 2

    run(main())
    assert seen


@pytest.mark.parametrize("name", ["full", "empty", "put_nowait", "get_nowait", "_put", "_get"])
def test_a_method_replaced_on_the_instance_is_called(cls, run, name):
    q = cls(1)
    run(q.put(1))
    assert run(q.get()) == 1
    with mock.patch.object(q, name, mock.Mock(wraps=getattr(q, name))) as method:
        run(q.put(1))
        assert run(q.get()) == 1
        method.assert_called()
    run(q.put(1))
    assert run(q.get()) == 1


def test_a_method_replaced_in_the_class_is_called(ns, run):
    class Sub(ns.Queue):
        pass

    q = Sub()
    q.put_nowait(1)
    Sub._put = lambda self, item: self._queue.appendleft(item)
    q.put_nowait(2)
    run(q.put(3))
    assert list(q._queue) == [3, 2, 1]
    del Sub._put
    q.put_nowait(4)
    assert list(q._queue) == [3, 2, 1, 4]
    Sub.full = lambda self: True
    assert failure(q.put_nowait, 5)[0] is asyncio.QueueFull


def test_a_class_that_changes_while_one_waits(ns, start, run, turn):
    class Sub(ns.Queue):
        pass

    q = Sub()
    getting, other = start(q.get()), start(q.get())
    seen = []

    def get_nowait(self):
        seen.append("get_nowait")
        return super(Sub, self).get_nowait()

    Sub.get_nowait = get_nowait
    q.put_nowait(1)
    getting.cancel()
    assert run(other) == 1
    assert seen == ["get_nowait"]
    assert getting.cancelled()


def test_put_and_get_overridden(cls, run):
    class Doubling(cls):
        async def put(self, item):
            await super().put(item)
            await super().put(item)

        async def get(self):
            return await super().get(), await super().get()

    q = Doubling()

    async def main():
        await q.put(4)
        return await q.get()

    assert run(main()) == (4, 4)


def test_full_overridden(ns, start, run, turn):
    class Gated(ns.Queue):
        closed = True

        def full(self):
            return self.closed

    q = Gated()
    putting = start(q.put(1))
    Gated.closed = False
    q._wakeup_next(q._putters)
    run(putting)
    assert run(q.get()) == 1


def test_an_attribute_that_a_class_defines(ns, run):
    class Shared(ns.Queue):
        store = collections.deque()

        @property
        def _queue(self):
            return self.store

        def _init(self, maxsize):
            pass

    q = Shared()
    run(q.put(1))
    assert list(Shared.store) == [1]
    assert q.qsize() == 1
    assert run(Shared().get()) == 1


def test_setattr_overridden(cls, run):
    class Watching(cls):
        def __setattr__(self, name, value):
            names.add(name)
            super().__setattr__(name, value)

    names: set[str] = set()
    q = Watching()
    run(q.put(1))
    assert run(q.get()) == 1
    q.task_done()
    assert "_unfinished_tasks" in names


def test_without_init(ns, run):
    class Late(ns.Queue):
        def __init__(self):
            pass

    q = Late()
    for call in (q.get_nowait, q.qsize, q.empty, q.full, repr):
        with pytest.raises(AttributeError):
            call(q) if call is repr else call()
    assert failure(run, q.put(1))[0] is AttributeError
    assert failure(run, q.get())[0] is AttributeError
    assert failure(lambda: q._getters)[0] is AttributeError
    assert failure(lambda: q._finished)[0] is AttributeError
    ns.Queue.__init__(q, 1)
    run(q.put(1))
    assert run(q.get()) == 1


def test_an_init_of_its_own(ns, start, turn, run):
    class Own(ns.Queue):
        def __init__(self):
            self._maxsize = 1
            self._getters = collections.deque()
            self._putters = collections.deque()
            self._unfinished_tasks = 0
            self._finished = asyncio.Event()
            self._finished.set()
            self._queue = collections.deque()
            self._is_shutdown = False

    q = Own()
    q.put_nowait(1)
    putting = start(q.put(2))
    assert q.get_nowait() == 1
    run(putting)
    joining = start(q.join())
    q.task_done()
    q.task_done()
    run(joining)


def test_init_again_starts_anew(cls, start, turn):
    q = cls(1)
    q.put_nowait(1)
    getters, finished = q._getters, q._finished
    q.__init__(5)
    assert q._getters is not getters and q._finished is not finished
    assert (q.qsize(), q.maxsize, q._unfinished_tasks) == (0, 5, 0)
    assert q._finished.is_set()


def test_slots_and_other_bases(cls, run):
    class Mixin:
        def __init__(self, *args, label=None, **kwargs):
            super().__init__(*args, **kwargs)
            self.label = label

    class Labelled(Mixin, cls):
        __slots__ = ("extra",)

    q = Labelled(2, label="x")
    q.extra = 1
    assert (q.maxsize, q.label) == (2, "x")
    run(q.put(1))
    assert run(q.get()) == 1


def test_asyncios_methods_work_on_ours(cls, start, run):
    stock = asyncio.queues.Queue
    q = cls(1)
    run(stock.put(q, 1))
    putting = start(stock.put(q, 2))
    assert stock.get_nowait(q) == 1
    run(putting)
    assert run(q.get()) == 2
    getting = start(stock.get(q))
    q.put_nowait(3)
    assert run(getting) == 3


# ---- shutdown ----


@shutdown
def test_shutdown_refuses_put_and_lets_get_go_on(cls, run):
    q = cls()
    q.put_nowait(1)
    q.shutdown()
    assert q._is_shutdown is True
    assert failure(q.put_nowait, 2) == (asyncio.QueueShutDown, "")
    assert failure(run, q.put(2)) == (asyncio.QueueShutDown, "")
    assert run(q.get()) == 1
    assert failure(run, q.get()) == (asyncio.QueueShutDown, "")
    assert failure(q.get_nowait) == (asyncio.QueueShutDown, "")


@shutdown
def test_shutdown_calls_those_who_wait(cls, start, turn):
    q = cls(1)
    getting = [start(q.get()) for _ in range(2)]
    q.shutdown()
    turn()
    assert all(isinstance(task.exception(), asyncio.QueueShutDown) for task in getting)
    q = cls(1)
    q.put_nowait(1)
    putting = [start(q.put(2)) for _ in range(2)]
    q.shutdown()
    turn()
    assert all(isinstance(task.exception(), asyncio.QueueShutDown) for task in putting)
    assert q.get_nowait() == 1


@shutdown
def test_shutdown_at_once_drops_the_items(cls, start, turn):
    q = cls(3)
    for i in range(3):
        q.put_nowait(i)
    joining = start(q.join())
    putting = start(q.put(3))
    q.shutdown(immediate=True)
    turn()
    assert joining.done()
    assert isinstance(putting.exception(), asyncio.QueueShutDown)
    assert (q.qsize(), q._unfinished_tasks) == (0, 0)
    assert q._finished.is_set()
    assert failure(q.get_nowait)[0] is asyncio.QueueShutDown


@shutdown
def test_shutdown_flag_can_be_set(cls):
    q = cls()
    q._is_shutdown = True
    assert failure(q.get_nowait)[0] is asyncio.QueueShutDown
    q._is_shutdown = False
    q.put_nowait(1)


# ---- memory ----


def test_an_item_is_let_go_when_it_was_got(cls, run):
    q = cls()
    item = Item()
    ref = weakref.ref(item)

    async def main():
        nonlocal item
        await q.put(item)
        item = None
        assert ref() is not None
        got = await q.get()
        assert ref() is got
        got = None
        assert ref() is None
        item = Item()
        coro = q.put(item)
        await coro
        item = None
        coro = q.get()
        seen = weakref.ref(await coro)
        assert seen() is None

    run(main())


def test_each_item_let_go_runs_code_that_gets_the_next(ns, run):
    class Chain:
        def __init__(self, depth):
            self.depth = depth

        def __del__(self):
            if self.depth:
                q.put_nowait(Chain(self.depth - 1))
                coro = once()
                with pytest.raises(StopIteration):
                    coro.send(None)
            seen.append(self.depth)

    async def once():
        coro = q.get()
        await coro

    q = ns.Queue()
    seen: list[int] = []
    q.put_nowait(Chain(5))
    run(once())
    assert seen == [0, 1, 2, 3, 4, 5]


@pytest.mark.ctask_only
def test_the_exception_that_carries_an_item_can_be_kept(ns):
    def stop():
        with pytest.raises(StopIteration) as caught:
            next(q.get())
        return caught.value

    q = ns.Queue()
    for i in range(5):
        q.put_nowait([i])
    first = stop()
    gc.collect()
    second = stop()
    assert first is not second
    assert (first.value, first.args) == ([0], ([0],))
    assert (second.value, second.args) == ([1], ([1],))
    first.args = second.args = ()
    second.value = None
    del first, second
    third = stop()
    assert (third.value, third.args) == ([2], ([2],))
    assert gc.is_tracked(third.args)
    third.mine = 1
    del third
    assert not hasattr(stop(), "mine")
    gc.collect()
    assert stop().args == ([4],)


def test_a_queue_in_a_cycle_is_collected(cls):
    class Sub(cls):
        pass

    q = Sub()
    q.me = q
    q.put_nowait((1, q))
    q._finished.me = q
    ref = weakref.ref(q)
    del q
    gc.collect()
    assert ref() is None


def test_a_queue_and_one_who_waits_for_it_are_collected(cls, run):
    async def main():
        q = cls()
        q.coro = q.get()
        q.coro.send(None)
        return weakref.ref(q)

    ref = run(main())
    gc.collect()
    assert ref() is None


def test_a_comparison_that_takes_the_items_away(ns):
    class Evil:
        def __lt__(self, other):
            q._queue = []
            gc.collect()
            return False

    q = ns.PriorityQueue()
    q.put_nowait(Evil())
    q.put_nowait(Evil())
    assert q._queue == []
    assert q._unfinished_tasks == 2


def test_an_item_whose_end_takes_the_deque_away(ns):
    class Evil:
        def __del__(self):
            q._queue = collections.deque()

    q = ns.Queue()
    q._queue = collections.deque(maxlen=1)
    q.put_nowait(Evil())
    q.put_nowait(1)
    assert q.qsize() == 0


def test_a_waiter_that_takes_the_waiters_away(cls):
    class Evil:
        def done(self):
            q._getters = collections.deque()
            return True

    q = cls()
    q._getters.extend([Evil(), Evil()])
    q.put_nowait(1)
    assert q.qsize() == 1
