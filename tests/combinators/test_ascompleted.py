"""as_completed: results as they come; the same on asyncio's own function."""

import asyncio
import contextvars
import gc
import inspect
import sys
import types
import warnings
import weakref

import pytest
from conftest import primitive, turns

HAS_CLASS = sys.version_info >= (3, 13)

has_class = pytest.mark.skipif(not HAS_CLASS, reason="a generator before 3.13")
has_generator = pytest.mark.skipif(HAS_CLASS, reason="no generator from 3.13 on")


as_completed = primitive("as_completed")


async def fails(n, exc):
    await turns(n)
    raise exc


def running(n, x=None):
    return asyncio.ensure_future(turns(n, x))


async def plain(iterator):
    return [await coming for coming in iterator]


async def asynchronous(iterator):
    return [await future async for future in iterator]


WAYS = [plain, asynchronous] if HAS_CLASS else [plain]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def collect(request):
    return request.param


async def end(*futures):
    for future in futures:
        future.cancel()
    await asyncio.gather(*futures, return_exceptions=True)


# ---- results ----


@pytest.mark.parametrize("n", [0, 1, 10, 100])
def test_results_in_the_order_in_which_they_come(run, as_completed, collect, n):
    async def body():
        delays = [(i * 7) % (n or 1) for i in range(n)]
        return await collect(as_completed([turns(d, d) for d in delays]))

    assert run(body()) == sorted((i * 7) % (n or 1) for i in range(n))


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset, dict.fromkeys])
def test_any_collection(run, as_completed, collect, kind):
    async def body():
        return await collect(as_completed(kind([running(i, i) for i in range(12)])))

    assert run(body()) == list(range(12))


@pytest.mark.parametrize(
    "kind", [iter, lambda x: dict.fromkeys(x).keys(), lambda x: map(asyncio.ensure_future, x)]
)
def test_any_iterable(run, as_completed, collect, kind):
    async def body():
        return await collect(as_completed(kind([running(i, i) for i in range(12)])))

    assert run(body()) == list(range(12))


def test_a_generator_of_awaitables(run, as_completed, collect):
    async def body():
        given = (running(i, i) for i in range(3))
        if sys.version_info < (3, 12):  # asyncio.iscoroutine() takes it for one
            with pytest.raises(TypeError, match="not generator"):
                await collect(as_completed(given))
            return
        assert await collect(as_completed(given)) == [0, 1, 2]

    run(body())


@pytest.mark.parametrize("n", [2, 20])
def test_duplicates_count_once(run, as_completed, collect, n):
    async def body():
        tasks = [running(1, "a"), running(2, "b")]
        coro = turns(3, "c")
        return await collect(as_completed((tasks + [coro]) * n))

    assert run(body()) == ["a", "b", "c"]


class Equal:
    """An awaitable that equals all of its kind."""

    def __eq__(self, other):
        return type(other) is Equal

    def __hash__(self):
        return 1

    def __await__(self):
        return turns(1, "equal").__await__()


def test_equal_awaitables_count_once(run, as_completed, collect):
    async def body():
        return await collect(as_completed([Equal(), Equal(), turns(3, 1)]))

    assert run(body()) == ["equal", 1]


def test_a_future_that_two_awaitables_lead_to_counts_once(run, loop, as_completed, collect):
    made = []

    def factory(loop, coro, **kwargs):
        if made:
            coro.close()
        else:
            made.append(asyncio.Task(coro, loop=loop, **kwargs))
        return made[0]

    async def body():
        loop.set_task_factory(factory)
        try:
            iterator = as_completed([turns(1, "x"), turns(1, "x")])
            return await collect(iterator)
        finally:
            loop.set_task_factory(None)

    assert run(body()) == ["x"]


def test_futures_that_are_done_already(run, loop, as_completed, collect, make_future):
    async def body():
        futures = [make_future() for _ in range(3)]
        for i, future in enumerate(futures):
            future.set_result(i)
        assert sorted(await collect(as_completed(futures))) == [0, 1, 2]

    run(body())


def test_kinds_of_futures_together(run, loop, impl, as_completed, collect):
    async def body():
        class Sub(impl.Future):
            pass

        futures = [asyncio.Future(), impl.Future(), Sub()]
        for i, future in enumerate(futures):
            loop.call_soon(future.set_result, i)
        results = await collect(as_completed([*futures, running(8, 3), turns(9, 4)]))
        assert results == [0, 1, 2, 3, 4]

    run(body())


def test_exceptions_come_out_of_the_coroutine(run, as_completed):
    async def body():
        error = ValueError("no")
        seen = []
        for coming in as_completed([fails(1, error), turns(3, 1)]):
            try:
                seen.append(await coming)
            except ValueError as exc:
                seen.append(exc)
        assert seen == [error, 1]

    run(body())


def test_a_cancelled_child(run, as_completed):
    async def body():
        tasks = [running(5), running(6, 1)]
        tasks[0].cancel("why")
        seen = []
        for coming in as_completed(tasks):
            try:
                seen.append(await coming)
            except asyncio.CancelledError as exc:
                seen.append(exc.args)
        return seen

    assert run(body()) in ([("why",), 1], [(), 1])


def test_coroutines_can_be_awaited_in_any_order(run, as_completed):
    async def body():
        coming = list(as_completed([turns(i, i) for i in range(4)]))
        assert len(coming) == 4
        return [await coro for coro in reversed(coming)]

    assert run(body()) == [0, 1, 2, 3]


def test_coroutines_awaited_by_tasks_of_their_own(run, as_completed):
    async def body():
        coming = list(as_completed([turns(9 - i, i) for i in range(4)]))
        return await asyncio.gather(*coming)

    assert run(body()) == [3, 2, 1, 0]


def test_the_iterator_ends_for_good(run, as_completed):
    async def body():
        iterator = as_completed([turns(1)])
        await next(iterator)
        for _ in range(2):
            with pytest.raises(StopIteration):
                next(iterator)
        assert next(iterator, "end") == "end"
        assert iter(iterator) is iterator

    run(body())


# ---- turns of the loop ----


def count_turns(loop):
    counted = []

    def tick():
        counted.append(loop.call_soon(tick))

    tick()
    return counted


def test_how_many_turns_it_takes(run, loop, as_completed, collect):
    async def body():
        future = loop.create_future()
        done = loop.create_future()
        done.set_result(2)
        for _ in collect, collect:  # the second time from the freelists
            ticks = count_turns(loop)
            loop.call_soon(future.set_result, 1)
            results = await collect(as_completed([future]))
            n = len(ticks)
            ticks[-1].cancel()
            assert results == [1]
            future = loop.create_future()
            results = await collect(as_completed([done]))
            assert results == [2]
        return n

    assert run(body()) == 4


def test_what_is_there_is_taken_at_once(run, loop, as_completed):
    async def body():
        futures = [loop.create_future() for _ in range(3)]
        for i, future in enumerate(futures):
            future.set_result(i)
        iterator = as_completed(futures)
        first = await next(iterator)
        ticks = count_turns(loop)
        rest = [await coming for coming in iterator]
        n = len(ticks)
        ticks[-1].cancel()
        assert sorted([first, *rest]) == [0, 1, 2]
        return n

    assert run(body()) == 1


# ---- timeouts ----


def test_a_timeout_ends_all_that_are_left(run, loop, as_completed):
    async def body():
        futures = [loop.create_future() for _ in range(3)]
        futures[0].set_result("in time")
        seen = []
        for coming in as_completed(futures, timeout=0.01):
            try:
                seen.append(await coming)
            except TimeoutError as exc:
                seen.append(exc.args)
        assert seen == ["in time", (), ()]
        assert not any(future.cancelled() for future in futures)
        assert [future.remove_done_callback(print) for future in futures] == [0, 0, 0]
        assert all("cb=" not in repr(future) for future in futures)

    run(body())


@has_class
def test_a_timeout_of_asynchronous_iteration(run, loop, as_completed):
    async def body():
        futures = [loop.create_future() for _ in range(3)]
        futures[1].set_result("in time")
        seen = []
        iterator = as_completed(futures, timeout=0.01)
        with pytest.raises(TimeoutError):
            async for future in iterator:
                seen.append(future)
        assert seen == [futures[1]]
        with pytest.raises(TimeoutError):
            await anext(iterator)
        with pytest.raises(StopAsyncIteration):
            await anext(iterator)

    run(body())


def test_a_timeout_that_nobody_waits_for_yet(run, loop, as_completed):
    async def body():
        pending = loop.create_future()
        coming = list(as_completed([pending, turns(0, 1)], timeout=0.001))
        await asyncio.sleep(0.01)
        assert await coming[0] == 1
        with pytest.raises(TimeoutError):
            await coming[1]

    run(body())


def test_what_is_done_when_the_timeout_comes_is_too_late_by_its_callback(run, loop, as_completed):
    async def body():
        future = loop.create_future()
        coming = next(as_completed([future], timeout=0.001))
        loop.call_later(0.001, future.set_result, 1)
        with pytest.raises(TimeoutError):
            await coming
        await asyncio.sleep(0.002)
        assert future.result() == 1

    run(body())


def test_the_timer_ends_with_the_last(run, loop, as_completed, collect, monkeypatch):
    handles = []
    call_later = loop.call_later

    def spy(*args, **kwargs):
        handles.append(call_later(*args, **kwargs))
        return handles[-1]

    monkeypatch.setattr(loop, "call_later", spy)

    async def body():
        iterator = as_completed([turns(1, 1), turns(2, 2)], timeout=600)
        assert await collect(iterator) == [1, 2]

    run(body())
    assert [handle.cancelled() for handle in handles] == [True]
    handles.clear()


@pytest.mark.parametrize("timeout", [None, 0, 1])
def test_nothing_to_do_needs_no_timer(run, loop, as_completed, collect, monkeypatch, timeout):
    async def body():
        monkeypatch.setattr(loop, "call_later", None)
        result = await collect(as_completed([], timeout=timeout))
        monkeypatch.undo()
        return result

    assert run(body()) == []


def test_a_late_child_is_left_alone(run, loop, as_completed):
    async def body():
        task = running(30, "late")
        for coming in as_completed([task], timeout=0):
            with pytest.raises(TimeoutError):
                await coming
        return await task

    assert run(body()) == "late"


# ---- cancelling ----


def test_cancelling_the_consumer_leaves_the_children(run, loop, as_completed, collect):
    async def body():
        children = [loop.create_future(), loop.create_future()]
        consumer = asyncio.ensure_future(collect(as_completed(children)))
        await turns(3)
        consumer.cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await consumer
        assert not any(child.done() for child in children)
        children[0].set_result(1)
        await turns(3)

    run(body())


def test_a_cancelled_wait_gives_its_turn_away(run, loop, as_completed):
    async def body():
        children = [loop.create_future(), loop.create_future()]
        coming = list(as_completed(children))
        waiting = [asyncio.ensure_future(coro) for coro in coming]
        await turns(2)
        children[0].set_result(1)
        await turns(1)  # the callback has woken the first
        waiting[0].cancel()
        assert await waiting[1] == 1
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        children[1].set_result(2)
        await turns(2)

    run(body())


def test_a_cancelled_wait_while_nothing_is_done(run, loop, as_completed):
    async def body():
        children = [loop.create_future(), loop.create_future()]
        coming = list(as_completed(children))
        waiting = [asyncio.ensure_future(coro) for coro in coming]
        await turns(2)
        waiting[0].cancel()
        await turns(2)
        assert waiting[0].cancelled()
        children[1].set_result(2)
        assert await waiting[1] == 2
        children[0].set_result(1)
        await turns(2)

    run(body())


def test_how_many_come_after_a_cancelled_wait(impl, run, loop, as_completed):
    async def body():
        child = loop.create_future()
        iterator = as_completed([child])
        waiting = asyncio.ensure_future(next(iterator))
        await turns(2)
        waiting.cancel()
        await turns(2)
        child.set_result(1)
        if sys.version_info < ((3, 14) if impl.name == "asyncio" else (3, 13)):
            assert list(iterator) == []
            await turns(2)
        else:  # it is given back
            assert await plain(iterator) == [1]

    run(body())


@has_class
def test_how_many_come_after_a_cancelled_anext(impl, run, loop, as_completed):
    async def body():
        child = loop.create_future()
        iterator = as_completed([child])
        waiting = asyncio.ensure_future(asynchronous(iterator))
        await turns(2)
        waiting.cancel()
        await turns(2)
        child.set_result(1)
        expected = [] if impl.name == "asyncio" and sys.version_info < (3, 14) else [1]
        assert await asynchronous(iterator) == expected
        await turns(2)

    run(body())


def test_an_abandoned_iteration(run, loop, as_completed):
    async def body():
        children = [loop.create_future(), loop.create_future()]
        for coming in as_completed(children):
            children[0].set_result(1)
            assert await coming == 1
            break
        del coming
        children[1].set_result(2)
        await turns(2)

    run(body())


@has_class  # the generator's frame has one of the futures
def test_results_are_let_go_when_they_are_taken(run, loop, as_completed):
    class Result:
        pass

    async def body():
        iterator = as_completed([turns(0, Result()), turns(50)])
        result = weakref.ref(await next(iterator))
        await turns(2)
        gc.collect()
        assert result() is None
        await next(iterator)

    run(body())


def test_what_nobody_has_any_more_is_collected(run, loop, as_completed):
    async def body():
        future = loop.create_future()
        iterator = as_completed([future])
        waiting = next(iterator)
        waiting.send(None)
        assert future.remove_done_callback(print) == 0
        ref = weakref.ref(future)
        del future, iterator
        waiting.close()
        del waiting
        gc.collect()
        assert ref() is None

    run(body())


# ---- mistakes ----


def test_a_coroutine_in_place_of_a_collection(run, as_completed, collect):
    async def body():
        coro = turns(1)
        with pytest.raises(TypeError, match="not coroutine"):
            await collect(as_completed(coro))
        coro.close()

    run(body())


def test_a_future_in_place_of_a_collection(run, as_completed, collect, make_future):
    async def body():
        future = make_future()
        with pytest.raises(TypeError, match=f"not {type(future).__name__}"):
            await collect(as_completed(future))

    run(body())


def test_no_iterable(run, as_completed, collect):
    async def body():
        with pytest.raises(TypeError, match="'int' object is not iterable"):
            await collect(as_completed(5))

    run(body())


def test_what_cannot_be_hashed(run, as_completed, collect):
    async def body():
        with pytest.raises(TypeError, match="unhashable type: 'list'"):
            await collect(as_completed([[]]))

    run(body())


def test_what_cannot_be_awaited(run, as_completed, collect):
    async def body():
        with pytest.raises(TypeError, match="An asyncio.Future, a coroutine or an awaitable"):
            await collect(as_completed([5]))

    run(body())


def test_a_future_of_another_loop(run, impl, as_completed, collect):
    other = impl.new_event_loop()

    async def body():
        future = asyncio.Future(loop=other)
        with pytest.raises(ValueError, match="belongs to a different loop"):
            await collect(as_completed([future]))

    run(body())
    other.close()


@pytest.mark.parametrize(
    "args, kwargs",
    [((), {}), (([], 1), {}), (([],), {"time": 1}), (([],), {"timeout": 1, "x": 2})],
)
def test_wrong_arguments(run, as_completed, args, kwargs):
    async def body():
        with pytest.raises(TypeError) as ours:
            as_completed(*args, **kwargs)
        with pytest.raises(TypeError) as stock:
            asyncio.as_completed(*args, **kwargs)
        assert str(ours.value) == str(stock.value)

    run(body())


def test_the_collection_by_name(run, as_completed, collect):
    async def body():
        return await collect(as_completed(fs=[turns(1, 1)], timeout=5))

    assert run(body()) == [1]


def test_an_error_while_the_collection_is_gone_through(run, as_completed, collect):
    class Error(Exception):
        pass

    class Bad:
        def __iter__(self):
            raise Error

    async def body():
        with pytest.raises(Error):
            await collect(as_completed(Bad()))

    run(body())


@has_generator
def test_nothing_happens_before_the_first_next(run, as_completed):
    async def body():
        iterator = as_completed(5)
        with pytest.raises(TypeError):
            next(iterator)
        as_completed(5).close()
        coro = turns(1)
        iterator = as_completed([coro])
        await turns(2)
        assert inspect.getcoroutinestate(coro) == "CORO_CREATED"
        await next(iterator)

    run(body())


@has_class
def test_all_is_started_at_once(run, as_completed):
    async def body():
        with pytest.raises(TypeError):
            as_completed(5)
        coro = turns(1)
        iterator = as_completed([coro])
        await turns(2)
        assert inspect.getcoroutinestate(coro) == "CORO_CLOSED"
        await next(iterator)

    run(body())


def test_without_a_loop_that_runs(loop, run, as_completed):
    asyncio.set_event_loop(loop)
    try:
        future = loop.create_future()
        future.set_result(1)
        if sys.version_info >= (3, 14):  # which asks for the current task
            with pytest.raises(RuntimeError, match="no running event loop"):
                as_completed([future])
            return
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            coming = list(as_completed([future]))
        assert [warning.category for warning in caught] in ([], [DeprecationWarning])
        assert [run(coro) for coro in coming] == [1]
    finally:
        asyncio.set_event_loop(None)


@pytest.mark.filterwarnings("ignore:There is no current event loop:DeprecationWarning")
def test_without_any_loop(as_completed):
    asyncio.set_event_loop(None)
    coro = turns(1)
    with pytest.raises(RuntimeError):
        list(as_completed([coro]))
    coro.close()


def test_waiting_on_another_loop(impl, run, loop, as_completed):
    other = impl.new_event_loop()

    async def begin():
        futures = [loop.create_future(), loop.create_future()]
        coming = list(as_completed(futures))
        waiting = asyncio.ensure_future(coming[0])
        await turns(2)
        return futures, coming, waiting

    futures, coming, waiting = run(begin())
    with pytest.raises(RuntimeError, match=r"<Queue at .* is bound to a different event loop"):
        other.run_until_complete(coming[1])
    futures[0].set_result(1)
    assert run(waiting) == 1
    futures[1].set_result(2)
    run(turns(2))
    other.close()


# ---- what is seen from outside ----


def test_the_functions_looks(as_completed):
    stock = asyncio.tasks.as_completed
    assert as_completed.__name__ == as_completed.__qualname__ == "as_completed"
    assert as_completed.__doc__ == stock.__doc__
    assert inspect.signature(as_completed) == inspect.signature(stock)
    assert inspect.isgeneratorfunction(as_completed) is not HAS_CLASS
    assert not inspect.iscoroutinefunction(as_completed)
    assert inspect.isfunction(as_completed)


@has_generator
def test_a_generator(run, as_completed):
    async def body():
        generator = as_completed([turns(1)])
        assert inspect.isgenerator(generator)
        assert type(generator) is types.GeneratorType
        assert generator.__name__ == generator.__qualname__ == "as_completed"
        assert inspect.getgeneratorstate(generator) == "GEN_CREATED"
        await next(generator)
        with pytest.raises(ValueError):
            generator.throw(ValueError)
        assert list(generator) == []
        generator.close()

    run(body())


@has_generator
def test_what_is_sent_to_the_generator_means_nothing(run, as_completed):
    async def body():
        generator = as_completed([turns(1, 1), turns(2, 2)])
        with pytest.raises(
            TypeError, match="can't send non-None value to a just-started generator"
        ):
            generator.send(5)
        coming = [generator.send(None), generator.send(5)]
        assert [await coro for coro in coming] == [1, 2]
        with pytest.raises(StopIteration):
            generator.send(5)

    run(body())


@has_class
def test_an_iterator_of_both_kinds(run, as_completed):
    async def body():
        iterator = as_completed([turns(1, 1), turns(2, 2), turns(3, 3)])
        assert type(iterator).__name__ == type(iterator).__qualname__ == "_AsCompletedIterator"
        assert isinstance(iterator, asyncio.tasks._AsCompletedIterator)
        assert aiter(iterator) is iterator
        assert iter(iterator) is iterator
        assert inspect.iscoroutinefunction(type(iterator).__anext__)
        first = next(iterator)
        second = await anext(iterator)
        assert type(second) is type(asyncio.current_task())
        assert second.result() == 1
        assert await first == 2
        assert await plain(iterator) == [3]
        with pytest.raises(StopAsyncIteration):
            await anext(iterator)
        iterator.more = 1
        assert vars(iterator)["more"] == 1
        assert weakref.ref(iterator)() is iterator

    run(body())


@has_class
def test_asynchronous_iteration_gives_the_futures_themselves(run, impl, loop, as_completed):
    async def body():
        class Sub(impl.Future):
            pass

        futures = [asyncio.Future(), impl.Future(), Sub(), running(9)]
        for i, future in enumerate(futures[:3]):
            loop.call_soon(future.set_result, i)
        seen = [future async for future in as_completed(reversed(futures))]
        assert [id(future) for future in seen] == [id(future) for future in futures]

    run(body())


@has_class
def test_asynchronous_iteration_does_not_raise_what_a_child_has(run, as_completed):
    async def body():
        error = ValueError("no")
        cancelled = running(5)
        cancelled.cancel()
        seen = [task async for task in as_completed([fails(6, error), cancelled])]
        assert seen[0] is cancelled
        assert seen[1].exception() is error

    run(body())


@has_class
def test_private_attributes(run, loop, as_completed):
    async def body():
        futures = [loop.create_future() for _ in range(3)]
        iterator = as_completed(futures, timeout=600)
        assert iterator._todo == set(futures)
        assert iterator._todo_left == 3
        assert iterator._timeout_handle in loop._scheduled
        assert as_completed([])._timeout_handle is None
        futures[0].set_result(0)
        await turns(2)
        assert iterator._todo == set(futures[1:])
        coming = next(iterator)
        assert iterator._todo_left == 2
        assert isinstance(iterator._done, asyncio.Queue)
        assert iterator._done.qsize() == 1
        assert await coming == 0
        waiting = asyncio.ensure_future(next(iterator))
        await turns(2)
        assert len(iterator._done._getters) == 1
        futures[1].set_result(1)
        assert await waiting == 1
        futures[2].set_result(2)
        assert [future async for future in iterator] == [futures[2]]
        assert iterator._timeout_handle.cancelled()
        assert iterator._done is iterator._done

    run(body())


@has_class
def test_the_queue_is_asked_for_while_somebody_waits(run, loop, as_completed):
    async def body():
        futures = [loop.create_future() for _ in range(4)]
        iterator = as_completed(futures, timeout=0.5)
        waiting = [asyncio.ensure_future(next(iterator)) for _ in range(3)]
        await turns(2)
        assert len(iterator._done._getters) == 3
        waiting[0].cancel()
        await turns(2)
        assert len(iterator._done._getters) == 2
        futures[0].set_result(0)
        assert await waiting[1] == 0
        with pytest.raises(TimeoutError):
            await waiting[2]
        with pytest.raises(TimeoutError):
            await anext(iterator)
        assert iterator._todo == set()

    run(body())


@has_class
def test_the_queue_is_asked_for_between_a_wake_and_its_cancellation(run, loop, as_completed):
    async def body():
        futures = [loop.create_future() for _ in range(2)]
        iterator = as_completed(futures)
        waiting = [asyncio.ensure_future(next(iterator)) for _ in range(2)]
        await turns(2)
        futures[0].set_result(0)
        await turns(1)
        waiting[0].cancel()
        assert iterator._done.qsize() == len(iterator._done._getters) == 1
        assert await waiting[1] == 0
        assert waiting[0].cancelled()
        futures[1].set_result(1)
        await turns(2)

    run(body())


@has_class
@pytest.mark.ctask_only
def test_the_queue_is_asked_for_while_it_is_made(run, loop, as_completed, monkeypatch):
    def init(queue, maxsize):
        stock(queue, maxsize)
        made.append(weakref.ref(queue))
        if len(made) == 1:
            future.set_result(1)
            asked.append(iterator._done)

    async def body():
        nonlocal iterator
        iterator = as_completed([future])
        waiting = asyncio.ensure_future(next(iterator))
        await turns(2)
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.Queue, "_init", init)
            asked.append(iterator._done)
        assert asked[0] is asked[1] is iterator._done
        assert await waiting == 1
        iterator = None

    future, iterator, made, asked = loop.create_future(), None, [], []
    stock = asyncio.Queue._init
    run(body())
    asked.clear()
    gc.collect()
    assert {ref() for ref in made} == {None}


@has_class
@pytest.mark.ctask_only
def test_what_is_put_into_the_queue_is_taken_away_meanwhile(run, loop, as_completed, monkeypatch):
    """The collector shows the list in which it waits to anybody."""

    class Puts:
        def __get__(self, queue, kind=None):
            for found in gc.get_objects():
                if type(found) is list and len(found) == 1 and found[0] is ref():
                    found.clear()
            with pytest.raises(StopIteration):
                next(iterator).send(None)
            if ref() is None:
                raise LookupError("the queue would get what is no more")
            return put.append

    async def body():
        nonlocal iterator, ref
        future = loop.create_future()
        iterator, ref = as_completed([future]), weakref.ref(future)
        future.set_result(1)
        del future
        await turns(1)
        with monkeypatch.context() as patch:
            patch.setattr(queue, "put_nowait", Puts())
            assert iterator._done.empty()
        assert [future.result() for future in put] == [1]

    (queue, *_) = [cls for cls in asyncio.Queue.__mro__ if "put_nowait" in vars(cls)]
    iterator, ref, put = None, None, []
    run(body())


@has_class
def test_more_are_left_than_there_can_be(run, loop, as_completed):
    async def body():
        future = loop.create_future()
        iterator = as_completed([future])
        coming = next(iterator)
        coming.send(None)
        iterator._todo_left = sys.maxsize
        with pytest.raises(asyncio.CancelledError):
            coming.throw(asyncio.CancelledError())
        future.set_result(1)
        await turns(2)
        assert await next(iterator) == 1

    run(body())


def test_the_coroutines_looks(run, as_completed):
    async def body():
        coro = next(iter(as_completed([turns(1, 1)])))
        assert inspect.iscoroutine(coro)
        assert asyncio.iscoroutine(coro)
        name = "_AsCompletedIterator" if HAS_CLASS else "as_completed.<locals>"
        assert coro.__qualname__ == f"{name}._wait_for_one"
        assert coro.__name__ == coro.cr_code.co_name == "_wait_for_one"
        assert repr(coro).startswith(f"<coroutine object {name}._wait_for_one at 0x")
        return await coro

    assert run(body()) == 1


def test_a_coroutine_that_is_never_awaited(run, as_completed):
    async def body():
        iterator = iter(as_completed([turns(1)]))
        with pytest.warns(RuntimeWarning, match="_wait_for_one' was never awaited"):
            next(iterator)
        await turns(3)

    run(body())


def test_a_coroutine_that_is_closed(run, loop, as_completed):
    async def body():
        future = loop.create_future()
        iterator = as_completed([future])
        coro = next(iterator)
        assert asyncio.isfuture(coro.send(None))
        coro.close()
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await coro
        assert not future.done()

    run(body())


def test_what_is_thrown_into_a_coroutine(run, loop, as_completed):
    async def body():
        first, second = (next(iter(as_completed([loop.create_future()]))) for _ in range(2))
        with pytest.raises(KeyError):
            first.throw(KeyError)
        waiter = second.send(None)
        with pytest.raises(KeyError):
            second.throw(KeyError())
        assert waiter.cancelled()

    run(body())


def test_the_callbacks_name(run, loop, as_completed):
    async def body():
        future = loop.create_future()
        coro = next(as_completed([future]))
        name = (
            "_AsCompletedIterator._handle_completion"
            if HAS_CLASS
            else "as_completed.<locals>._on_completion"
        )
        assert f"cb=[{name}()" in repr(future)
        future.set_result(1)
        await coro

    run(body())


def test_callbacks_do_not_see_the_context_of_the_child(run, loop, as_completed):
    var = contextvars.ContextVar("var", default=0)
    seen = []

    class Look(asyncio.Future):
        def result(self):
            seen.append(var.get())
            return super().result()

    async def body():
        var.set(1)
        future = Look()
        coro = next(as_completed([future]))
        context = contextvars.copy_context()
        context.run(var.set, 2)
        loop.call_soon(future.set_result, 5, context=context)
        assert await coro == 5

    run(body())
    assert seen == [1]


class Alike:
    """Looks like a future, by its methods."""

    _asyncio_future_blocking = False

    def __init__(self, loop):
        self.future = asyncio.Future(loop=loop)
        self.removed = []

    def get_loop(self):
        return self.future.get_loop()

    def add_done_callback(self, callback, *, context=None):
        self.callback = callback
        self.future.add_done_callback(lambda future: callback(self), context=context)

    def remove_done_callback(self, callback):
        self.removed.append(callback)
        return 1

    def result(self):
        return self.future.result()

    def __await__(self):
        return self.future.__await__()


def test_what_looks_like_a_future(run, loop, as_completed, collect):
    async def body():
        alike, late = Alike(loop), Alike(loop)
        loop.call_soon(alike.future.set_result, 1)
        assert await collect(as_completed([alike])) == [1]
        iterator = as_completed([late], timeout=0)
        with pytest.raises(TimeoutError):
            await next(iterator)
        assert late.removed == [late.callback]
        late.callback(late)  # too late

    run(body())


def test_a_callback_that_is_called_twice(run, loop, as_completed):
    async def body():
        alike = Alike(loop)
        iterator = as_completed([alike, loop.create_future()])
        coro = next(iterator)
        alike.future.set_result(1)
        assert await coro == 1
        with pytest.raises(KeyError):
            alike.callback(alike)

    run(body())


@pytest.mark.parametrize("cancelled", [False, True])
def test_on_asyncios_loop(as_completed, collect, cancelled):
    async def body():
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in range(3)]
        consumer = asyncio.ensure_future(collect(as_completed(futures, timeout=600)))
        for i, future in enumerate(futures):
            await turns(3)
            if cancelled and i == 1:
                consumer.cancel()
            future.set_result(i)
        return (await asyncio.gather(consumer, return_exceptions=True))[0]

    loop = asyncio.SelectorEventLoop()
    result = loop.run_until_complete(body())
    loop.close()
    assert type(result) is asyncio.CancelledError if cancelled else result == [0, 1, 2]


def test_a_future_that_takes_no_callback(run, loop, as_completed, collect):
    class Refuses(asyncio.Future):
        def add_done_callback(self, callback, *, context=None):
            raise KeyError

    async def body():
        with pytest.raises(KeyError):
            await collect(as_completed([Refuses()]))

    run(body())


def test_a_future_that_has_its_callback_still(run, loop, as_completed, reports):
    class Refuses(asyncio.Future):
        def remove_done_callback(self, callback):
            raise KeyError("no")

    async def body():
        future = Refuses()
        iterator = as_completed([future], timeout=0)
        coming = next(iterator)
        await asyncio.sleep(0.005)
        future.set_result(1)
        return await coming

    assert run(body()) == 1
    (report,) = reports.take()
    assert type(report["exception"]) is KeyError


def test_debug_mode(run, loop, as_completed, collect):
    loop.set_debug(True)

    async def body():
        iterator = as_completed([turns(i, i) for i in range(5)], timeout=600)
        return await collect(iterator)

    assert run(body()) == list(range(5))
    loop.set_debug(False)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks")
def test_eager_tasks(run, loop, impl, as_completed, collect):
    async def body():
        loop.set_task_factory(asyncio.create_eager_task_factory(impl.Task))
        results = await collect(as_completed([turns(0, 0), turns(0, 0), turns(1, 1)]))
        loop.set_task_factory(None)
        return results

    assert run(body()) == [0, 0, 1]


@pytest.mark.skipif(sys.version_info < (3, 14), reason="no call graph")
def test_the_call_graph(run, loop, as_completed):
    async def body():
        futures = [loop.create_future() for _ in range(2)]
        iterator = as_completed(futures, timeout=0.001)
        assert iterator._cur_task is asyncio.current_task()
        for future in futures:
            (waiting,) = future._asyncio_awaited_by
            assert waiting is asyncio.current_task()
        futures[0].set_result(1)
        assert await next(iterator) == 1
        assert futures[0]._asyncio_awaited_by is None
        with pytest.raises(TimeoutError):
            await next(iterator)
        assert futures[1]._asyncio_awaited_by is None
        assert iterator._cur_task is asyncio.current_task()

    run(body())


@pytest.mark.ctask_only
@pytest.mark.parametrize("phase", ["begin", "wait", "take", "show"])
def test_running_out_of_memory(script, phase):
    pytest.importorskip("_testcapi")
    out = script(
        f"phase = {phase!r}",
        """
        import _testcapi

        async def act(n):
            loop = asyncio.get_running_loop()
            futures = [loop.create_future() for _ in range(12)]

            def now(this):
                _testcapi.remove_mem_hooks()
                if this == phase:
                    _testcapi.set_nomemory(n, n + 2)

            try:
                now("begin")
                iterator = impl.as_completed(futures, timeout=5)
                first = next(iterator)
                now("wait")
                first.send(None)
                for future in futures:
                    loop.call_soon(future.set_result, 1)
                now("the loop runs")
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                now("take")
                try:
                    next(iterator).send(None)
                except StopIteration:
                    pass
                now("show")
                if hasattr(iterator, "_done"):
                    iterator._done.qsize()
            except MemoryError:
                pass
            finally:
                _testcapi.remove_mem_hooks()
            for future in futures:
                if not future.done():
                    future.set_result(1)
            first = iterator = None
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        async def noop(x):
            return x

        async def main():
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
            for n in range(1, 40):
                await act(n)
            print(sorted([await coro for coro in impl.as_completed([noop(1), noop(2)])]))

        warnings.simplefilter("ignore")
        impl.run(main())
        gc.collect()
        """,
    )
    assert out.out == "[1, 2]\n"


def test_in_place_of_asyncios(script):
    out = script(
        """
        if not STOCK:
            impl.install()
            assert asyncio.as_completed is asyncio.tasks.as_completed is impl.as_completed

        async def one(x):
            return x

        async def main():
            print(sorted([await coro for coro in asyncio.as_completed([one(1), one(2)])]))
            if sys.version_info >= (3, 13):
                iterator = asyncio.as_completed([one(3)])
                assert isinstance(iterator, asyncio.tasks._AsCompletedIterator)
                print([await task async for task in iterator])
            else:
                print([3])

        asyncio.run(main())
        """
    ).out
    assert out.split("\n") == ["[1, 2]", "[3]", ""]
