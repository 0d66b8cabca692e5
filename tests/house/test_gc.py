"""Garbage collection: cycles of every shape end, and the collector sees every reference."""

import asyncio
import contextvars
import gc
import sys
import warnings
import weakref

import pytest


def callback(*args):
    pass


async def nothing():
    pass


async def waits(fut):
    return await fut


class Thing:
    def __call__(self, *args):
        pass


@pytest.fixture
def collected():
    """Asserts that after a collection nothing that `build` returned weak references to is alive."""

    def collected(build):
        gc.collect()
        gc.disable()  # the cycle must be there for our collection
        try:
            refs = build()
            gc.collect()
            assert [ref() for ref in refs] == [None] * len(refs)
        finally:
            gc.enable()

    return collected


def test_future_that_is_its_own_result(impl, loop, collected):
    def build():
        fut = impl.Future(loop=loop)
        fut.set_result([fut])
        return [weakref.ref(fut)]

    collected(build)


def test_future_in_its_own_exception(impl, loop, collected):
    def build():
        fut = impl.Future(loop=loop)
        exc = ValueError()
        exc.fut = fut
        fut.set_exception(exc)
        fut._log_traceback = False
        return [weakref.ref(fut)]

    collected(build)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_future_whose_callbacks_hold_it(impl, loop, collected, count):
    def build():
        fut = impl.Future(loop=loop)
        things = []
        for _ in range(count):
            thing = Thing()
            thing.fut = fut
            fut.add_done_callback(thing)
            things.append(weakref.ref(thing))
        return [weakref.ref(fut), *things]

    collected(build)


def test_future_whose_callbacks_context_holds_it(impl, loop, collected):
    var = contextvars.ContextVar("var")

    def build():
        fut = impl.Future(loop=loop)
        ctx = contextvars.copy_context()
        ctx.run(var.set, fut)
        fut.add_done_callback(callback, context=ctx)
        return [weakref.ref(fut)]

    collected(build)


def test_future_that_holds_itself_as_an_attribute(impl, loop, collected):
    def build():
        fut = impl.Future(loop=loop)
        fut.me = fut
        return [weakref.ref(fut)]

    collected(build)


def test_future_that_is_its_own_cancel_message(impl, loop, collected):
    def build():
        fut = impl.Future(loop=loop)
        fut.cancel(msg=fut)
        return [weakref.ref(fut)]

    collected(build)


def test_iterator_that_its_future_holds(impl, loop, collected):
    def build():
        fut = impl.Future(loop=loop)
        fut.it = fut.__await__()
        next(fut.it)
        return [weakref.ref(fut)]

    collected(build)


def test_task_that_is_its_own_result(impl, loop, run, collected):
    def build():
        async def body():
            return [asyncio.current_task()]

        task = loop.create_task(body())
        run(task)
        return [weakref.ref(task)]

    collected(build)


def test_pending_tasks_that_wait_for_each_other(impl, loop, turn, collected):
    def build():
        tasks = []

        async def body(n):
            await asyncio.sleep(0)
            await tasks[1 - n]

        tasks += [loop.create_task(body(n)) for n in range(2)]
        for task in tasks:
            task._log_destroy_pending = False
        turn(3)
        return [weakref.ref(task) for task in tasks]

    collected(build)


def test_pending_task_that_waits_for_a_lost_future(impl, loop, turn, collected):
    def build():
        fut = loop.create_future()
        task = loop.create_task(waits(fut))
        task._log_destroy_pending = False
        turn()
        return [weakref.ref(fut), weakref.ref(task)]

    collected(build)


def test_many_tasks_that_wait_for_one_lost_future(impl, loop, turn, collected):
    def build():
        fut = loop.create_future()
        tasks = [loop.create_task(waits(fut)) for _ in range(5)]
        for task in tasks:
            task._log_destroy_pending = False
        turn()
        return [weakref.ref(fut), *map(weakref.ref, tasks)]

    collected(build)


def test_task_in_its_own_context(impl, loop, turn, collected):
    var = contextvars.ContextVar("var")

    def build():
        async def body():
            var.set(asyncio.current_task())
            await loop.create_future()

        task = loop.create_task(body())
        task._log_destroy_pending = False
        turn()
        return [weakref.ref(task)]

    collected(build)


def test_handle_that_is_its_own_argument(impl, loop, collected):
    def build():
        box = []
        handle = impl.Handle(callback, (box,), loop, None)
        box.append(handle)
        return [weakref.ref(handle)]

    collected(build)


def test_timer_that_is_its_own_argument(impl, loop, collected):
    def build():
        box = []
        handle = impl.TimerHandle(5.0, callback, (box,), loop, None)
        box.append(handle)
        return [weakref.ref(handle)]

    collected(build)


def test_executed_handle_that_holds_itself(impl, loop, turn, collected):
    def build():
        thing = Thing()
        thing.handle = loop.call_soon(thing, thing)
        turn()
        return [weakref.ref(thing.handle), weakref.ref(thing)]

    collected(build)


def lost_loop(impl, fill):
    """A loop that nobody closed; returns weak references to it and to what `fill` returns."""
    loop = impl.new_event_loop()
    refs = [weakref.ref(loop), *map(weakref.ref, fill(loop))]
    return refs


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    "what",
    [
        "call_soon",
        "call_soon_threadsafe",
        "call_later",
        "step",
        "wakeup",
        "future_callback",
        "handler",
        "factory",
        "attribute",
    ],
)
def test_unreachable_loop_with_work_is_collected(impl, collected, what):
    def fill(loop):
        thing = Thing()
        thing.loop = loop
        if what == "call_soon":
            loop.call_soon(thing, thing)
        elif what == "call_soon_threadsafe":
            loop.call_soon_threadsafe(thing, thing)
        elif what == "call_later":
            loop.call_later(1000, thing, thing)
        elif what == "step":
            task = loop.create_task(waits(loop.create_future()))
            task._log_destroy_pending = False
            task.get_coro().close()
            task.thing = thing
        elif what == "wakeup":
            fut = loop.create_future()
            task = loop.create_task(waits(fut))
            task._log_destroy_pending = False
            task.thing = thing
            loop.stop()
            loop.run_forever()
            fut.set_result(None)
        elif what == "future_callback":
            fut = loop.create_future()
            fut.add_done_callback(thing)
            fut.set_result(None)
        elif what == "handler":
            loop.set_exception_handler(thing)
        elif what == "factory":
            loop.set_task_factory(thing)
        else:
            loop.thing = thing
        return [thing]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        collected(lambda: lost_loop(impl, fill))


@pytest.mark.parametrize("what", ["handle", "timer", "step", "wakeup", "callback", "watcher"])
def test_collector_sees_what_the_loop_holds(impl, loop, what, turn):
    import socket

    thing = Thing()
    a, b = socket.socketpair()
    if what == "handle":
        loop.call_soon(thing)
    elif what == "timer":
        loop.call_later(1000, thing)
    elif what == "step":
        thing = loop.create_task(nothing())
    elif what == "wakeup":
        fut = loop.create_future()
        thing = loop.create_task(waits(fut))
        turn()
        fut.set_result(None)
    elif what == "callback":
        fut = loop.create_future()
        fut.add_done_callback(thing)
        fut.set_result(None)
    else:
        loop.add_reader(a, thing)
    # Breadth first through what the collector sees, not into modules and their dictionaries.
    shared = (type, type(sys), type(callback))
    seen, level, found = set(), [loop], False
    for _ in range(7):
        level = [
            o for o in gc.get_referents(*level) if id(o) not in seen and not isinstance(o, shared)
        ]
        seen.update(map(id, level))
        found = found or any(o is thing for o in level)
    assert found
    del level
    loop.remove_reader(a)
    a.close()
    b.close()
    turn(3)


def test_collector_sees_what_a_future_holds(impl, loop):
    fut = impl.Future(loop=loop)
    thing = Thing()
    ctx = contextvars.copy_context()
    fut.add_done_callback(thing, context=ctx)
    referents = gc.get_referents(fut)
    assert loop in referents and thing in referents and ctx in referents
    other = impl.Future(loop=loop)
    result = [1]
    other.set_result(result)
    assert any(o is result for o in gc.get_referents(other))


def test_collector_sees_what_a_task_holds(loop, turn, run):
    fut = loop.create_future()
    coro = waits(fut)
    task = loop.create_task(coro)
    turn()
    referents = gc.get_referents(task)
    assert any(o is coro for o in referents)
    assert any(o is fut for o in referents)
    assert any(o is loop for o in referents)
    assert any(o is task for o in gc.get_referents(fut)) or any(
        task in gc.get_referents(o) for o in gc.get_referents(fut)
    )
    fut.set_result(None)
    run(task)


def test_collector_sees_what_a_handle_holds(loop, turn):
    thing, arg = Thing(), Thing()
    handle = loop.call_soon(thing, arg)
    seen = gc.get_referents(handle)
    seen += [o for t in seen if type(t) is tuple for o in t]
    assert any(o is thing for o in seen) and any(o is arg for o in seen)
    assert any(o is loop for o in seen)
    handle.cancel()


def test_types_are_tracked_by_the_collector(impl, loop):
    fut, handle = impl.Future(loop=loop), loop.call_soon(callback)
    timer = loop.call_later(1000, callback)
    assert all(gc.is_tracked(o) for o in (fut, handle, timer, loop))
    timer.cancel()


def test_collection_in_every_step(loop, run):
    # A collection between any two allocations must find every structure consistent.
    async def worker(n):
        for _ in range(3):
            await asyncio.sleep(0)
        fut = loop.create_future()
        loop.call_soon(fut.set_result, n)
        timer = loop.call_later(1000, callback)
        assert await fut == n
        timer.cancel()
        return n

    async def main():
        return await asyncio.gather(*(worker(n) for n in range(5)))

    saved = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        assert run(main()) == list(range(5))
    finally:
        gc.set_threshold(*saved)


def test_weak_references_die_before_the_callbacks_of_a_collected_task(loop, turn, reports):
    seen = []
    task = loop.create_task(waits(loop.create_future()))
    ref = weakref.ref(task, lambda r: seen.append(r()))
    turn()
    del task
    gc.collect()
    assert seen == [None]
    assert ref() is None
    assert [r["message"] for r in reports.take()] == ["Task was destroyed but it is pending!"]


def test_coroutine_of_a_collected_task_is_closed(loop, turn, reports):
    seen = []

    async def body():
        try:
            await loop.create_future()
        except GeneratorExit:
            seen.append("closed")
            raise

    task = loop.create_task(body())
    task._log_destroy_pending = False
    turn()
    del task
    gc.collect()
    assert seen == ["closed"]


def test_resurrected_task_can_still_be_looked_at(loop, turn):
    saved = []
    loop.set_exception_handler(lambda loop, context: saved.append(context["task"]))
    task = loop.create_task(waits(loop.create_future()), name="phoenix")
    turn()
    del task
    gc.collect()
    (task,) = saved
    assert task.get_name() == "phoenix"
    assert "phoenix" in repr(task)
    assert not task.done()
    saved.clear()


def test_references_do_not_leak(loop, run):
    marker = object()

    async def child(arg):
        await asyncio.sleep(0)
        fut = loop.create_future()
        loop.call_soon(fut.set_result, arg)
        assert await fut is arg
        loop.call_later(0, callback, arg)
        loop.call_later(1000, callback, arg).cancel()
        loop.call_soon_threadsafe(callback, arg)
        task = asyncio.current_task()
        task.add_done_callback(callback)
        task.remove_done_callback(callback)
        failed = loop.create_future()
        failed.set_exception(ValueError(arg))
        try:
            await failed
        except ValueError:
            pass
        return arg

    async def main():
        for _ in range(20):
            await asyncio.gather(*(child(marker) for _ in range(10)))
        await asyncio.sleep(0)

    run(main())
    gc.collect()
    before = sys.getrefcount(marker)
    run(main())
    gc.collect()
    assert sys.getrefcount(marker) == before
    assert sys.getrefcount(loop) < 30


def test_object_counts_do_not_grow(loop, run):
    async def main():
        for _ in range(200):
            task = loop.create_task(asyncio.sleep(0))
            await task
            loop.call_later(1000, callback).cancel()
            fut = loop.create_future()
            fut.cancel()
        await asyncio.sleep(0)

    run(main())
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(3):
        run(main())
    gc.collect()
    assert len(gc.get_objects()) - before < 50


def count(kind):
    return sum(type(o) is kind for o in gc.get_objects())


def test_future_with_itself_as_an_attribute_is_freed(impl, loop, collected):
    before = count(impl.Future)

    def build():
        refs = []
        for make in (loop.create_future, lambda: impl.Future(loop=loop)) * 5:
            fut = make()
            fut.me = fut
            refs.append(weakref.ref(fut))
        assert count(impl.Future) == before + 10
        return refs

    collected(build)
    assert count(impl.Future) == before  # an object may outlive its weak references


@pytest.mark.parametrize("ran", [True, False])
def test_task_with_itself_as_an_attribute_is_freed(impl, loop, turn, collected, ran):
    before = count(impl.Task)

    def build():
        refs = []
        for _ in range(10):
            task = loop.create_task(nothing() if ran else waits(loop.create_future()))
            task._log_destroy_pending = False
            task.me = task
            refs.append(weakref.ref(task))
        turn(3)
        assert count(impl.Task) == before + 10
        return refs

    collected(build)
    assert count(impl.Task) == before


@pytest.mark.parametrize("how", ["create_future", "Future", "create_task", "Task"])
def test_attributes_do_not_show_up_on_a_later_object(impl, loop, turn, how):
    def make():
        if how == "create_future":
            return loop.create_future()
        if how == "Future":
            return impl.Future(loop=loop)
        if how == "create_task":
            return loop.create_task(nothing())
        return impl.Task(nothing(), loop=loop)

    def attributes(obj):  # some versions have them without a __dict__ to ask
        return [*getattr(obj, "__dict__", ()), *(name for name in ("thing",) if hasattr(obj, name))]

    thing = Thing()
    ref = weakref.ref(thing)
    for _ in range(3):
        first = [make() for _ in range(5)]
        for obj in first:
            assert attributes(obj) == []
            obj.thing = thing
        del obj
        turn(2)
        first.clear()
        again = [make() for _ in range(5)]
        assert [attributes(obj) for obj in again] == [[]] * 5
        turn(2)
    del thing
    gc.collect()
    assert ref() is None


@pytest.mark.ctask_only
@pytest.mark.skipif(sys.version_info < (3, 12), reason="no __release_buffer__()")
def test_a_loop_that_the_collector_has_emptied_can_be_asked(script):
    """A buffer is released when the memoryview of it is let go, by no finalizer; tuples are
    not emptied."""
    done = script("""
    warnings.simplefilter("ignore")

    class Buffer(tuple):
        __slots__ = ()
        def __buffer__(self, flags):
            return memoryview(bytearray(1))
        def __release_buffer__(self, view):
            loop = self[0]
            for name in dir(loop):
                if name in ("run_forever", "__class__", "__init__"):
                    continue
                try:
                    value = getattr(loop, name)
                    if callable(value):
                        asyncio.iscoroutine(result := value()) and result.close()
                except BaseException:
                    pass
            print("released", flush=True)

    gc.disable()
    loop = impl.new_event_loop()
    cycle = [memoryview(Buffer([loop]))]
    cycle.append(cycle)
    del loop, cycle
    gc.collect()
    """)
    assert done.out == "released\n"
