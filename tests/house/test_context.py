"""Contexts: every callback and task has its own, though the loop uses dropped ones again."""

import asyncio
import contextvars
import gc
import sys
import weakref

import pytest
from conftest import turns

KINDS = ["call_soon", "call_soon_threadsafe", "call_later", "add_done_callback", "create_task"]
var = contextvars.ContextVar("var", default="unset")


class Thing:
    pass


def schedule(loop, kind, func, **kwargs):
    """Have `func()` called by the loop, in a context of its own unless `context` is given."""
    if kind == "call_later":
        loop.call_later(0, func, **kwargs)
    elif kind == "add_done_callback":
        fut = loop.create_future()
        fut.add_done_callback(lambda fut: func(), **kwargs)
        fut.set_result(None)
    elif kind == "create_task":

        async def body():
            func()

        loop.create_task(body(), **kwargs)
    else:
        getattr(loop, kind)(func, **kwargs)


def context_of(handle):
    return handle.get_context() if sys.version_info >= (3, 12) else handle._context


async def use_contexts(loop, count=100):
    """Have many contexts made and dropped, with a value set in every other one."""
    seen = []
    for n in range(count):
        loop.call_soon(lambda: seen.append(var.get()))
        loop.call_soon(var.set, n)
        if n % 10 == 0:
            await turns(1)
    await turns(2)
    assert seen == [var.get()] * count


@pytest.mark.parametrize("outside", ["unset", "outside"])
@pytest.mark.parametrize("kind", KINDS)
def test_value_set_in_one_callback_is_not_seen_in_another(loop, run, kind, outside):
    seen = []

    def body(n):
        seen.append(var.get())
        if n % 3 == 0:
            var.set(n)

    async def main():
        # Nothing is set here: what is scheduled from here must see what was set outside.
        for n in range(1000):
            schedule(loop, kind, lambda n=n: body(n))
            if n % 20 == 0:
                await turns(2)
        while len(seen) < 1000:
            await turns(1)

    def start():
        if outside != "unset":
            var.set(outside)
        run(main())
        assert var.get() == outside

    contextvars.copy_context().run(start)
    assert seen == [outside] * 1000


def test_value_set_in_one_callback_is_not_seen_in_another_of_any_kind(loop, run):
    seen = []

    def body(n):
        seen.append(var.get())
        if n % 3 == 0:
            var.set(n)

    async def main():
        for n in range(1000):
            schedule(loop, KINDS[n % len(KINDS)], lambda n=n: body(n))
            if n % 7 == 0:
                await turns(1)
        while len(seen) < 1000:
            await turns(1)

    run(main())
    assert seen == ["unset"] * 1000


@pytest.mark.parametrize("kind", KINDS)
def test_value_is_inherited_at_the_time_of_scheduling(loop, run, kind):
    seen = []

    async def main():
        await use_contexts(loop, 20)  # there are used contexts, without the value
        for n in range(100):
            var.set(n)
            schedule(loop, kind, lambda: seen.append(var.get()))
            if n % 9 == 0:
                await turns(2)
        var.set("later")
        while len(seen) < 100:
            await turns(1)

    run(main())
    assert sorted(seen) == list(range(100))


@pytest.mark.parametrize("kind", KINDS)
def test_value_that_was_set_and_reset_leaves_no_trace(loop, run, kind):
    seen, tokens = [], []

    def body():
        seen.append(var.get())
        first = var.set(1)
        tokens.append(var.set(2))
        var.reset(first)

    def reset(token):
        with pytest.raises(ValueError, match="was created in a different Context"):
            var.reset(token)

    async def main():
        for _ in range(50):
            schedule(loop, kind, body)
            await turns(2)
            for token in tokens:
                schedule(loop, kind, lambda token=token: reset(token))
            await turns(2)
            del tokens[:-3]
        while len(seen) < 50:
            await turns(1)

    run(main())
    assert seen == ["unset"] * 50


# --- Contexts that somebody keeps


@pytest.mark.parametrize("keep", ["context", "handle"])
def test_context_that_is_kept_is_never_used_again(loop, run, keep):
    async def main():
        await use_contexts(loop)
        kept = []
        for n in range(40):
            handle = loop.call_soon(var.set if n % 2 else int, n)
            kept.append(context_of(handle) if keep == "context" else handle)
            del handle
            await turns(1)
        contexts = kept if keep == "context" else [context_of(handle) for handle in kept]
        values = [n if n % 2 else "unset" for n in range(40)]
        for _ in range(5):
            others = [context_of(loop.call_soon(var.set, "other")) for _ in range(50)]
            assert not any(other is context for other in others for context in contexts)
            await turns(1)
            del others
            assert [context.get(var, "unset") for context in contexts] == values
        assert len(set(map(id, contexts))) == 40

    run(main())


def test_setting_a_value_in_a_kept_context_is_seen_nowhere_else(loop, run):
    async def main():
        await use_contexts(loop)
        contexts = [context_of(loop.call_soon(int)) for _ in range(40)]
        await turns(1)
        for context in contexts:
            context.run(var.set, "kept")
        await use_contexts(loop)
        assert [context[var] for context in contexts] == ["kept"] * 40

    run(main())


@pytest.mark.parametrize("method", ["call_soon", "call_later"])
def test_weak_reference_to_a_context_dies_with_it(loop, run, method):
    async def main():
        await use_contexts(loop)
        args = (int,) if method == "call_soon" else (0, int)
        refs = [weakref.ref(context_of(getattr(loop, method)(*args))) for _ in range(10)]
        assert all(ref() is not None for ref in refs)
        await turns(3)
        assert [ref() for ref in refs] == [None] * 10
        await use_contexts(loop)
        assert [ref() for ref in refs] == [None] * 10

    run(main())


# --- What waits has only the values; the context comes when it runs or somebody asks


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later"])
def test_context_of_a_handle_is_that_in_which_it_runs(loop, run, method):
    def schedule(func, *args):
        return getattr(loop, method)(*([0] if method == "call_later" else []), func, *args)

    async def main():
        await use_contexts(loop)
        before = schedule(var.set, "before")
        asked = context_of(before)
        during = []
        handle = schedule(lambda: (var.set("during"), during.append(context_of(handle))))
        after = schedule(var.set, "after")
        await turns(3)
        assert context_of(before) is asked
        assert asked[var] == "before"
        assert context_of(handle) is during[0]
        assert during[0][var] == "during"
        assert context_of(after) is context_of(after)
        assert context_of(after)[var] == "after"

    run(main())


def test_context_of_a_handle_has_the_values_of_the_time_of_scheduling(loop, run):
    async def main():
        var.set("then")
        handle = loop.call_soon(int)
        var.set("now")
        assert context_of(handle)[var] == "then"
        assert var.get() == "now"

    run(main())


@pytest.mark.parametrize("wait", ["future", "yield", "task"])
def test_values_of_a_task_outlast_its_waits(loop, run, wait):
    """Nobody asks for its context, and the others use many."""

    async def body(name, futures):
        for n in range(5):
            var.set((name, n))
            if wait == "yield":
                await asyncio.sleep(0)
            else:
                future = loop.create_future()
                futures.append(future)
                await future if wait == "future" else await loop.create_task(wait_for(future))
            assert var.get() == (name, n)

    async def wait_for(future):
        assert var.get()[1] < 5
        var.set("inner")
        await future

    async def main():
        futures = []
        tasks = [loop.create_task(body(name, futures)) for name in range(50)]
        while not all(task.done() for task in tasks):
            await use_contexts(loop, 20)
            while futures:
                futures.pop().set_result(None)
        for task in tasks:
            task.result()

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="get_context() is new in 3.12")
def test_context_of_a_task_is_one_from_when_it_was_asked_for(loop, run):
    async def body(future):
        var.set("first")
        await asyncio.sleep(0)
        await future
        seen.append(asyncio.current_task().get_context())
        var.set("last")

    async def main():
        for asked in range(5):
            future = loop.create_future()
            task = loop.create_task(body(future))
            contexts = [task.get_context()] if asked == 0 else []
            await turns(1)
            contexts += [task.get_context()] if asked == 1 else []
            await turns(2)
            contexts += [task.get_context()] if asked == 2 else []
            future.set_result(None)
            contexts += [task.get_context()] if asked == 3 else []
            await use_contexts(loop)
            await task
            contexts += [seen.pop(), task.get_context()]
            assert all(context is contexts[0] for context in contexts)
            assert contexts[0][var] == "last"

    seen = []
    run(main())


@pytest.mark.parametrize("kind", ["future", "task"])
def test_what_a_task_waits_for_shows_its_context(loop, run, kind):
    async def wait(future):
        var.set("waiting")
        await future

    async def main():
        future = loop.create_future()
        obj = future if kind == "future" else loop.create_task(wait(future))
        task = loop.create_task(wait(obj))
        await turns(1)
        assert "cb=[" in repr(obj)
        [(callback, context)] = obj._callbacks
        assert isinstance(context, contextvars.Context)
        assert context[var] == "waiting"
        if sys.version_info >= (3, 12):
            assert context is task.get_context()
        assert callable(callback)
        assert obj.remove_done_callback(callback) == 1
        obj.add_done_callback(callback, context=context)
        future.set_result(None)
        await task

    run(main())


def test_ready_steps_show_their_contexts(loop, run):
    async def main():
        var.set("main")
        loop.create_task(asyncio.sleep(0))
        [handle] = loop._ready
        assert context_of(handle)[var] == "main"
        await turns(2)

    run(main())


def test_callbacks_of_a_task_group_run_while_it_ends(loop, run):
    async def body(n):
        var.set(n)
        await asyncio.sleep(0)
        assert var.get() == n

    async def main():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(body(n)) for n in range(10)]
            [(_, context)] = tasks[0]._callbacks
            assert isinstance(context, contextvars.Context)
        assert var.get() == "unset"

    run(main())


def test_context_of_a_handle_can_be_deleted_and_replaced(loop, run):
    async def main():
        loop.set_exception_handler(lambda loop, context: errors.append(context["exception"]))
        handle = loop.call_soon(lambda: calls.append(var.get()))
        del handle._context
        with pytest.raises(AttributeError, match="Handle' object has no attribute '_context'"):
            context_of(handle)
        with pytest.raises(AttributeError, match="_context"):
            del handle._context
        handle._context = context
        other = loop.call_soon(calls.append, 2)
        other._context = 5
        await turns(2)

    calls, errors = [], []
    context = contextvars.Context()
    context.run(var.set, 3)
    run(main())
    assert calls == [3]
    assert list(map(type, errors)) == [AttributeError]


@pytest.mark.parametrize("debug", [False, True])
def test_context_of_garbage_is_not_used_again(loop, run, debug):
    """The collector may empty it, after it has freed what the context belonged to."""

    async def wait(future):
        await future

    async def main():
        loop.set_debug(debug)
        loop.set_exception_handler(lambda loop, context: None)
        await use_contexts(loop)
        for _ in range(20):
            for method, args in (("call_soon", ()), ("call_later", (0,))):
                thing = Thing()
                handle = getattr(loop, method)(*args, lambda thing: None, thing)
                thing.handle = handle
                context_of(handle)
                del handle
            future = loop.create_future()
            thing.task = loop.create_task(wait(future))
            future.add_done_callback(lambda _, thing=thing: None)
            await turns(3)
            assert thing.task in {thing.task} and len(future._callbacks) == 2
            del future, thing
            gc.collect()
            loop.create_task(turns(1))
            await use_contexts(loop, 10)
            await asyncio.create_task(asyncio.sleep(0))
            assert var.get() == "unset"

    run(main())


# --- How long values live


@pytest.mark.parametrize("used", [False, True])
def test_values_of_a_task_are_freed_with_it(loop, run, used):
    async def body(things):
        var.set(things.pop())
        await asyncio.sleep(0)
        await asyncio.create_task(asyncio.sleep(0))

    async def main():
        if used:
            await use_contexts(loop)
        for _ in range(50):
            thing = Thing()
            ref = weakref.ref(thing)
            task = loop.create_task(body([thing]))
            del thing
            await task
            assert ref() is not None or task.done()
            del task
            await turns(2)
            assert ref() is None

    run(main())


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_values_of_a_callback_are_freed_after_it(loop, run, kind, used):
    async def main():
        if used:
            await use_contexts(loop)
        for _ in range(50):
            thing = Thing()
            ref = weakref.ref(thing)
            things = [thing]
            del thing
            schedule(loop, kind, lambda things=things: var.set(things.pop()))
            del things
            await turns(4)
            assert ref() is None

    run(main())


@pytest.mark.parametrize("pending", [False, True])
def test_nothing_keeps_a_value_when_the_loop_has_ended(loop, run, pending):
    thing = Thing()
    ref = weakref.ref(thing)

    async def main():
        for kind in KINDS * 20:
            schedule(loop, kind, int)
            await turns(1)
        await use_contexts(loop)
        assert var.get() is ref()

    def start(things):
        var.set(things.pop())
        if pending:
            loop.call_soon(loop.stop)
            loop.call_later(0, int)
            loop.run_forever()
        run(main())

    things = [thing]
    del thing
    contextvars.copy_context().run(start, things)
    assert ref() is None
    assert not loop.is_closed()


def test_values_of_an_earlier_run_are_not_seen_in_a_later_one(loop, run):
    for value in ["a", "b", "c"]:
        context = contextvars.copy_context()
        context.run(var.set, value)
        context.run(run, use_contexts(loop))
        assert context[var] == value
    run(use_contexts(loop))
    assert var.get() == "unset"


# --- Contexts that somebody gives


@pytest.mark.parametrize("kind", KINDS)
def test_given_context_stays_as_it_is_and_can_be_given_again(loop, run, kind):
    context = contextvars.copy_context()
    others = set(context)
    seen = []

    async def main():
        await use_contexts(loop)
        for n in range(20):
            schedule(loop, kind, lambda: seen.append(var.get()), context=context)
            await turns(3)
            assert set(context) - others == ({var} if n else set())
            schedule(loop, kind, lambda n=n: var.set(n), context=context)
            await turns(3)
            await use_contexts(loop, 10)
            assert context[var] == n

    run(main())
    assert seen == ["unset", *range(19)]
    assert context[var] == 19
    assert context.run(var.get) == 19


@pytest.mark.parametrize("kind", KINDS)
def test_given_context_without_values_is_not_used_for_others(loop, run, kind):
    context = contextvars.copy_context()

    async def main():
        for _ in range(20):
            schedule(loop, kind, int, context=context)
            await turns(3)
        others = [context_of(loop.call_soon(var.set, "other")) for _ in range(50)]
        assert not any(other is context for other in others)
        await turns(2)
        await use_contexts(loop)

    run(main())
    assert list(context.items()) == list(contextvars.copy_context().items())


def test_context_of_a_task_is_used_by_all_its_steps(loop, run):
    context = contextvars.copy_context()

    async def body():
        for n in range(10):
            assert var.get() == (n - 1 if n else "unset")
            var.set(n)
            await asyncio.sleep(0)

    async def main():
        task = loop.create_task(body(), context=context)
        await use_contexts(loop)
        await task

    run(main())
    assert context[var] == 9


def test_change_of_the_loops_own_context_lets_earlier_values_go(loop):
    var = contextvars.ContextVar("var", default=None)

    class Value:
        pass

    class Setter:
        """Dropped between two callbacks, where the loop's own context is the current one."""

        def __init__(self, value):
            self.value = value

        def __del__(self):
            var.set(self.value)
            loop.call_soon(int)

    async def main():
        value = Value()
        seen = weakref.ref(value)
        loop.call_soon(lambda _: None, Setter(value))
        del value
        for _ in range(4):
            await asyncio.sleep(0)
        loop.call_soon(lambda _: None, Setter(None))
        for _ in range(4):
            await asyncio.sleep(0)
        return seen()

    assert contextvars.copy_context().run(loop.run_until_complete, main()) is None
