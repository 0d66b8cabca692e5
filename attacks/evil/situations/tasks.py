"""Futures and tasks: who is told, what is waited for, what a step runs into."""

# mypy: ignore-errors
# ruff: noqa: B023, F821
# (Attributes that types do not know are what this is about; each call is made in its turn.)

from __future__ import annotations

import _asyncio
import asyncio
import contextlib
import contextvars
import inspect
import traceback
import weakref
from collections.abc import Callable, Generator
from typing import Any

import ctask

from ..objects import Error, Evil, Text, World
from .tools import (
    Proxy,
    Truth,
    acting,
    cycle,
    failing,
    guarded,
    haunted,
    overridden,
    patched,
    playing,
    turns,
)


def pending(world: World) -> Any:
    """A future with callbacks in both of its places, which nobody else has."""
    future = world.loop.create_future()
    for _ in range(3):
        context = contextvars.copy_context()
        context.run(contextvars.ContextVar[Any]("variable").set, world.Last())
        future.add_done_callback(guarded(world), context=context)
    return future


def ended(world: World) -> None:
    for end in (
        lambda future: future.set_result(world.Last()),
        lambda future: future.set_exception(ValueError(world.Last())),
        lambda future: future.cancel(world.Last()),
        lambda future: _asyncio.Future.set_result(future, world.Last()),
        lambda future: _asyncio.Future.cancel(future, world.Last()),
    ):
        future = pending(world)
        end(future)
        with world.quietly():
            future.result()
        with world.quietly():
            future.exception()
        del future
        turns(world, 1)


def dying(world: World) -> None:
    """What they hold goes with them: by reference counts, and by the collector."""
    for collected in (False, True):
        for state in range(4):
            future = pending(world)
            task = asyncio.Task(world.waits(future), loop=world.loop, name=Text(world, "evil"))
            turns(world, 1)
            with world.quietly():
                task.cancel(world.Last())
            if state == 1:
                future.set_result(world.Last())
            elif state == 2:
                future.set_exception(ValueError(world.Last()))
            elif state == 3:
                future.cancel(world.Last())
            world.keep(weakref.ref(task, lambda ref: world.act()))
            iterator = iter(pending(world))
            next(iterator)
            if collected:
                cycle(world, future, task, iterator, future._callbacks)
            del future, task, iterator
            world.collect()


class Kept(asyncio.Future):
    """One with attributes, and an end of its own."""

    guard: Any


def derived(world: World) -> None:
    kind = type("Future", (Kept,), {"__del__": lambda future: world.act()})
    for collected in (False, True):
        future = kind(loop=world.loop)
        future.guard = world.Last()
        future.add_done_callback(guarded(world))
        if collected:
            cycle(world, future)
        del future
        world.collect()
    tasks = type("Task", (asyncio.Task,), {"__del__": lambda task: world.act()})
    task = tasks(world.coroutine(), loop=world.loop)
    task.guard = world.Last()
    turns(world)
    del task


def strange_loops(world: World) -> None:
    """The loop of a future is any object whose call_soon() is evil."""
    for loop in (
        Proxy(world, world.loop),
        Evil(world),
        overridden(world, ctask.EventLoop, "call_soon", "get_debug", "is_running")(),
    ):
        for make in (
            lambda: asyncio.Future(loop=loop),
            lambda: asyncio.Task(world.coroutine(), loop=loop),
            lambda: asyncio.Task(world.waits(pending(world)), loop=loop),
            lambda: ctask.Future(loop=loop),
        ):
            with world.quietly():
                future = make()
                world.undo.append(
                    lambda future=future: _asyncio.Future.__init__(future, loop=world.loop)
                )
                for _ in range(3):
                    future.add_done_callback(guarded(world))
                world.keep(playing(world, world.waits(future)))
                with world.quietly():
                    future.cancel(world.Last())
                with world.quietly():
                    future.set_result(world.Last())
            turns(world, 1)
        with world.quietly():
            loop.close()


def made_in_debug_mode(world: World) -> None:
    with patched(traceback, "extract_stack", acting(world, traceback.extract_stack)):
        world.loop.set_debug(True)
        for make in (
            world.loop.create_future,
            lambda: asyncio.Future(loop=world.loop),
            lambda: world.loop.create_task(world.coroutine()),
            lambda: asyncio.Future(loop=Proxy(world, world.loop)),
        ):
            with world.quietly():
                make()
        turns(world)
    module = _asyncio.Future.__module__ and asyncio.format_helpers
    with patched(module, "extract_stack", failing(world)), world.quietly():
        world.loop.create_future()


def completed_without_memory(world: World) -> None:
    """There is none for what debug mode makes of a callback; the error takes something along."""

    def short(*_args: Any) -> Any:
        raise MemoryError(world.Last(), Evil(world))

    world.loop.set_debug(True)
    for end in (lambda future: future.set_result(world.Last()), lambda future: future.cancel()):
        future = pending(world)
        with patched(world.loop, "_check_callback", short), world.quietly():
            end(future)
    turns(world)


def without_a_loop(world: World) -> None:
    policy = asyncio.events.get_event_loop
    for function in (acting(world, policy), lambda: Evil(world), failing(world)):
        with patched(asyncio.events, "get_event_loop", function):
            for make in (asyncio.Future, lambda: asyncio.Task(world.coroutine())):
                with world.quietly():
                    make()
    kind = type("Policy", (asyncio.DefaultEventLoopPolicy,), {})
    before = asyncio.get_event_loop_policy()
    for function in (lambda policy: world.loop, lambda policy: Evil(world)):
        kind.get_event_loop = acting(world, function)
        asyncio.set_event_loop_policy(kind())
        try:
            for make in (asyncio.Future, lambda: asyncio.Task(world.coroutine())):
                with world.quietly():
                    make()
        finally:
            asyncio.set_event_loop_policy(before)


def removed_callbacks(world: World) -> None:
    for callback in (Evil(world), guarded(world), world.Last()):
        future = pending(world)
        future.add_done_callback(Evil(world))
        future.add_done_callback(callback)
        world.undo.extend((future.cancel, lambda: _asyncio.Future.set_result(future, 1)))
        with world.quietly():
            future.remove_done_callback(callback)
        with world.quietly():
            future._callbacks[:] = [world.Last()]
        with world.quietly():
            future.remove_done_callback(Evil(world))
        playing(world, world.waits(future))
        with world.quietly():
            future.remove_done_callback(Evil(world))
        del future


def asked_for_callbacks(world: World) -> None:
    future = pending(world)
    world.undo.extend((future.cancel, lambda: future.__init__(loop=world.loop)))
    for _ in range(3):
        with world.quietly():
            list(future._callbacks or ())
    other = world.loop.create_future()
    playing(world, world.waits(other))
    world.undo.append(other.cancel)
    for _ in range(3):
        with world.quietly():
            list(other._callbacks or ())


def evil_exceptions(world: World) -> None:
    class Raises(Exception):
        def __init__(self, *args: Any) -> None:
            world.act()

        def __del__(self) -> None:
            world.act()

    class Instance(Exception):
        def __new__(cls, *args: Any) -> Any:
            world.act()
            return Evil(world)

    class Fails(Exception):
        def __init__(self, *args: Any) -> None:
            failing(world)()

    for error in (
        Raises,
        Instance,
        Fails,
        Error(world),
        StopIteration,
        StopIteration(world.Last()),
    ):
        future = pending(world)
        world.undo.extend((future.cancel, lambda: future.set_result(1)))
        with world.quietly():
            future.set_exception(error)
        with world.quietly():
            future.exception()
        del future
        turns(world, 1)

    async def raises(error: Any) -> None:
        raise error

    for error in (Raises, Fails, asyncio.CancelledError(world.Last()), KeyboardInterrupt):
        playing(world, raises(error))


def iterators(world: World) -> None:
    future = pending(world)
    error = ValueError(world.Last())
    for call in (
        lambda: iter(future).throw(ValueError(world.Last())),
        lambda: iter(future).throw(ValueError, error, None),
        lambda: iter(future).throw(Error(world)),
        lambda: iter(future).send(Evil(world)),
        lambda: iter(future).close(),
        lambda: iter(future).throw(Evil(world)),
        lambda: future.__await__().throw(ValueError, world.Last()),
    ):
        with world.quietly():
            call()
    for make in (lambda: iter(pending(world)), lambda: pending(world).__await__()):
        for call in (
            lambda it: it.close(),
            lambda it: it.throw(ValueError),
            lambda it: it.throw(ValueError, "evil"),
            next,
            lambda it: cycle(world, it),
        ):
            iterator = make()
            with world.quietly():
                call(iterator)
            del iterator
    world.collect()
    for end in ("set_result", "set_exception", "cancel"):
        future = pending(world)
        iterator = iter(future)
        world.undo.append(iterator.close)
        next(iterator)
        getattr(future, end)(ValueError(world.Last()))
        del future
        with world.quietly():
            next(iterator)
        with world.quietly():
            next(iterator)


class Waits:
    """What a coroutine yields: it looks like a future."""

    def __init__(self, world: World, loop: Any, flag: Any) -> None:
        vars(self).update(world=world, loop=loop, flag=flag)

    def __await__(self) -> Generator[Any, Any, Any]:
        yield self

    @property
    def _asyncio_future_blocking(self) -> Any:
        self.world.act()
        return self.flag

    @_asyncio_future_blocking.setter
    def _asyncio_future_blocking(self, value: Any) -> None:
        self.world.act()

    @property
    def get_loop(self) -> Any:
        self.world.act()
        return acting(self.world, lambda: self.loop)

    def add_done_callback(self, callback: Any, context: Any = None) -> Any:
        self.world.act()
        self.world.loop.call_soon(callback, self, context=context)
        return Evil(self.world)

    def cancel(self, *args: Any, **kwargs: Any) -> Any:
        self.world.act()
        return Truth(self.world, self.world.rng.random() < 0.5)

    def result(self) -> Any:
        self.world.act()
        if self.world.rng.random() < 0.5:
            raise ValueError(self.world.Last())
        return self.world.Last()

    def __repr__(self) -> str:
        self.world.act()
        return "evil"

    def __del__(self) -> None:
        self.world.act()


class NoLoop(Waits):
    @property
    def get_loop(self) -> Any:
        self.world.act()
        raise AttributeError

    @property
    def _loop(self) -> Any:
        self.world.act()
        return self.loop


def looks_like_a_future(world: World) -> None:
    async def waits(made: Any) -> Any:
        task = asyncio.current_task()
        assert task
        if world.rng.random() < 0.5:
            task.cancel(world.Last())
        with contextlib.suppress(ValueError):
            return await made

    for kind in (Waits, NoLoop):
        for loop, flag in (
            (world.loop, Truth(world, True)),
            (world.loop, Truth(world, False)),
            (Evil(world), Truth(world, True)),
            (world.loop, None),
            (world.loop, Evil(world)),
        ):
            task = world.loop.create_task(waits(kind(world, loop, flag)))
            world.undo.append(task.cancel)
            turns(world, 1)
            with world.quietly():
                task.cancel(world.Last())
            turns(world, 1)


def bad_yields(world: World) -> None:
    class Yields:
        def __init__(self, value: Any) -> None:
            self.value = value

        def __await__(self) -> Generator[Any, Any, Any]:
            yield self.value

    def generator() -> Generator[Any, Any, Any]:
        yield world.Last()

    async def waits(made: Any) -> Any:
        await Yields(made)

    kind = type("Future", (Kept,), {"__repr__": lambda future: str(world.act())})
    other = ctask.new_event_loop()
    for value in (
        Evil(world),
        world.Last(),
        generator(),
        kind(loop=world.loop),
        other.create_future(),
        pending(world),
    ):
        playing(world, waits(value))

    async def own() -> Any:
        await Yields(asyncio.current_task())

    playing(world, own())
    other.close()


class Driven:
    """A coroutine whose methods are evil; it can be stepped while it steps."""

    def __init__(self, world: World, *values: Any) -> None:
        self.world, self.values = world, [*values]

    def send(self, value: Any) -> Any:
        self.world.act()
        if self.values:
            return self.values.pop(0)
        raise StopIteration(self.world.Last())

    def throw(self, *args: Any) -> Any:
        self.world.act()
        return self.send(None)

    def close(self) -> None:
        self.world.act()

    def __await__(self) -> Any:
        return self

    __iter__ = __await__
    __next__ = lambda self: self.send(None)  # noqa: E731

    def __del__(self) -> None:
        self.world.act()


def not_a_coroutine(world: World) -> None:
    """Who asks whether it is one runs its code, and a registered class is one."""
    import collections.abc

    collections.abc.Coroutine.register(Driven)

    def blocking(future: Any) -> Any:
        future._asyncio_future_blocking = True
        return future

    for values in ((), (None, None), (blocking(pending(world)), None), (Evil(world), None)):
        with world.quietly():
            playing(world, Driven(world, *values))
    for made in (Evil(world), Proxy(world, world.coroutine())):
        for make in (
            lambda: world.loop.create_task(made),
            lambda: asyncio.Task(made, loop=world.loop),
        ):
            with world.quietly():
                make()
        turns(world, 1)


def stepped_in_a_step(world: World) -> None:
    """Its coroutine runs the task's own step, so what it waits for is replaced while it is set."""
    loop = overridden(world, ctask.EventLoop, "get_debug")()
    steps: list[Any] = []
    kind = type("Future", (Kept,), {"__del__": lambda future: (world.act(), again())})

    def again() -> None:
        for step in steps[:2]:
            with world.quietly():
                step()

    def blocking() -> Any:
        future = kind(loop=world.loop)
        future._asyncio_future_blocking = True
        return future

    class Steps(Driven):
        def send(self, value: Any) -> Any:
            if self.values:
                made = self.values.pop(0)
                world.act()
                with world.quietly():
                    again()
                with world.quietly():
                    task.cancel(world.Last())
                return made()
            return super().send(value)

    import collections.abc

    collections.abc.Coroutine.register(Driven)
    task = asyncio.Task(Steps(world, *[blocking] * 6), loop=world.loop)
    steps.extend(handle._callback for handle in world.loop._ready if handle._callback is not None)
    turns(world)
    with world.quietly():
        again()
    turns(world)
    steps.clear()
    loop.close()


def steps_by_hand(world: World) -> None:
    """The callables of a step and of a wake-up, as the ready queue and a future show them."""
    for more in ((), (Evil(world),)):
        task = world.loop.create_task(world.coroutine())
        future = pending(world)
        waiting = playing(world, world.waits(future), 2)
        future = waiting._fut_waiter or pending(world)
        callables = [handle._callback for handle in world.loop._ready]
        callables += [callback for callback, _ in future._callbacks or ()]
        world.undo.extend((task.cancel, callables.clear))
        for call in [*callables]:
            with world.quietly():
                call(*more)
            with world.quietly():
                repr(call)
        cycle(world, *callables)
        del callables, task, waiting, future, call
        world.collect()
    # A step that was thrown into, and goes with what it throws.
    playing(world, world.waits(Evil(world)), 1)
    cycle(world, *[handle._callback for handle in world.loop._ready])
    world.loop._ready.clear()
    world.collect()


def cancelled(world: World) -> None:
    class Future(asyncio.Future):
        def cancel(self, *args: Any, **kwargs: Any) -> Any:
            world.act()
            return Truth(world, super().cancel(*args, **kwargs))

        def __del__(self) -> None:
            world.act()

    kinds = (lambda: Future(loop=world.loop), world.loop.create_future, lambda: Evil(world))
    for make in kinds:
        made = make()
        task = playing(world, world.waits(made))
        world.undo.append(lambda made=made: made.set_result(world.Last()))
        outer = playing(world, world.waits(task))
        for each in (outer, task):
            for _ in range(2):
                with world.quietly():
                    each.cancel(world.Last())
        with world.quietly():
            task.cancel(message=world.Last())
        with world.quietly():
            task.cancel(msg=world.Last())
        del made, task, outer
        turns(world, 2)


def cancelled_early(world: World) -> None:
    """The cancellation reaches what is waited for when that is known."""

    async def waits(future: Any) -> Any:
        task = asyncio.current_task()
        assert task
        task.cancel(world.Last())
        task.cancel(world.Last())
        await future

    class Future(asyncio.Future):
        def cancel(self, *args: Any, **kwargs: Any) -> Any:
            world.act()
            return Truth(world, False)

        def __del__(self) -> None:
            world.act()

    for future in (
        Future(loop=world.loop),
        pending(world),
        world.loop.create_task(world.coroutine()),
    ):
        playing(world, waits(future))

    async def returns() -> Any:
        task = asyncio.current_task()
        assert task
        task.cancel(world.Last())
        return world.Last()

    playing(world, returns())
    task = world.loop.create_task(world.coroutine())
    task.cancel(world.Last())
    turns(world)


def done_callbacks(world: World) -> None:
    """The callbacks in C of gather(), wait() and shield(), on futures that are not ours."""
    loop = world.loop

    class Future(_asyncio.Future):
        def add_done_callback(self, *args: Any, **kwargs: Any) -> Any:
            world.act()
            super().add_done_callback(*args, **kwargs)
            return world.Last()

        def remove_done_callback(self, *args: Any) -> Any:
            world.act()
            super().remove_done_callback(*args)
            return world.Last()

    async def wait(*futures: Any) -> None:
        await asyncio.wait(futures, timeout=0.001)

    async def gather(*futures: Any) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*futures), 0.001)

    async def shield(*futures: Any) -> None:
        await asyncio.shield(futures[0])

    for play in (wait, gather, shield):
        futures = [Future(loop=loop), pending(world), Future(loop=loop), loop.create_future()]
        world.undo.extend(future.cancel for future in futures)
        task = playing(world, play(*futures), 1)
        for future in futures:
            callbacks = future._callbacks or []
            cycle(world, callbacks)
            for callback, _ in callbacks:
                for args in ((Evil(world),), (), (future,)):
                    with world.quietly():
                        callback(*args)
                with world.quietly():
                    repr(callback)
        with world.quietly():
            task.cancel()
        del task, future, callbacks
        futures.clear()
        turns(world)
    world.collect()


async def switches(world: World, loop: Any) -> None:
    world.act()
    for _ in range(2):
        world.switch()
        await asyncio.sleep(0)


def current_tasks(world: World) -> None:
    """Who is current: other tasks are, while one steps, and lookups are evil."""
    loop = world.loop
    names = asyncio.tasks._current_tasks if hasattr(asyncio.tasks, "_current_tasks") else {}
    kind = type("Loop", (ctask.EventLoop,), {"__hash__": lambda loop: hash(world.act())})
    own = kind()
    for each in (loop, own):
        with haunted(world, names, each):
            for call in (
                lambda: each.create_task(world.coroutine()),
                lambda: each._run_once(),
                lambda: each.create_task(switches(world, each)),
                lambda: each._run_once(),
                lambda: each._run_once(),
                lambda: asyncio.current_task(each),
                lambda: asyncio.all_tasks(each),
            ):
                with world.quietly():
                    call()
    own.close()
    for task in (loop.create_task(world.coroutine()), Evil(world)):
        with world.quietly():
            held = asyncio.current_task(loop)  # see World.switch()
            asyncio.tasks._enter_task(loop, task)
            del held
        loop.create_task(world.coroutine())
        turns(world, 1)
        with world.quietly():
            asyncio.tasks._leave_task(loop, task)


def left_entered(world: World) -> None:
    """Tasks step one after the other, and end as the last to be held."""

    async def step() -> Any:
        task = asyncio.current_task()
        contextvars.ContextVar[Any]("variable").set(world.Last())
        await asyncio.sleep(0)
        world.act()
        del task
        return world.Last()

    for _ in range(4):
        world.loop.create_task(step())
    turns(world, 4)
    for _ in range(2):
        world.loop.create_task(world.coroutine())
        world.loop.call_soon(guarded(world))
    turns(world, 2)


def eager(world: World) -> None:
    """Tasks that are started at once, within others."""
    if not hasattr(asyncio, "eager_task_factory"):
        return
    loop = world.loop
    loop.set_task_factory(asyncio.eager_task_factory)

    async def inner() -> Any:
        asyncio.current_task()
        world.act()
        return world.Last()

    async def raises() -> Any:
        raise ValueError(world.Last())

    async def outer() -> None:
        for make in (inner, raises, world.coroutine, lambda: world.waits(pending(world))):
            with world.quietly():
                loop.create_task(make())
            with world.quietly():
                asyncio.Task(make(), loop=loop, eager_start=True)
            try:
                raise KeyError(world.Last())
            except KeyError:
                with world.quietly():
                    loop.create_task(make(), name=Evil(world), context=Evil(world))

    playing(world, outer())
    loop.set_task_factory(None)
    with patched(asyncio.tasks, "_swap_current_task", failing(world)):
        playing(world, outer())
    own = overridden(world, ctask.EventLoop, "is_running", "call_soon", "get_debug")()
    with world.quietly():
        asyncio.Task(inner(), loop=own, eager_start=True)
    own.close()


def texts(world: World) -> None:
    loop = world.loop
    for name in (Evil(world), Text(world, "evil"), world.Last(), 5):
        for make in (
            lambda: asyncio.Task(world.coroutine(), loop=loop, name=name),
            lambda: loop.create_task(world.coroutine(), name=name),
        ):
            with world.quietly():
                task = make()
                task.set_name(Evil(world))
                task.get_name()
                repr(task)
    for _ in range(2):
        task = loop.create_task(world.coroutine())
        world.undo.append(lambda task=task: task.set_name(Evil(world)))
        task.get_name()
        task.get_context()
        inspect.getcoroutinestate(task.get_coro())
    turns(world)


def parsed(world: World) -> None:
    loop = world.loop
    for more in ({"eager_start": Truth(world, True)}, {"eager_start": Evil(world)}, {"evil": 1}):
        with world.quietly():
            asyncio.Task(world.coroutine(), loop=loop, **more)
    future = pending(world)
    for call in (
        lambda: future.__init__(loop=Evil(world)),
        lambda: asyncio.Future(**{Text(world, "loop"): loop}),
        lambda: future.cancel(**{Text(world, "msg"): world.Last()}),
        lambda: future.add_done_callback(guarded(world), **{Text(world, "context"): None}),
        lambda: asyncio.Task(world.coroutine(), **{Text(world, "loop"): loop}),
        lambda: loop.call_soon(guarded(world), **{Text(world, "context"): None}),
    ):
        with world.quietly():
            call()


def ended_by_others(world: World) -> None:
    """A task that is done when its step comes, by a method of Future."""
    for end in (
        lambda task: _asyncio.Future.set_result(task, world.Last()),
        lambda task: _asyncio.Future.set_exception(task, ValueError(world.Last())),
        lambda task: _asyncio.Future.cancel(task, world.Last()),
        lambda task: _asyncio.Task.__init__(task, world.coroutine(), loop=world.loop),
    ):
        kind = type("Task", (asyncio.Task,), {"__repr__": lambda task: str(world.act())})
        for cls in (asyncio.Task, kind):
            task = cls(world.coroutine(), loop=world.loop)
            with world.quietly():
                end(task)
            turns(world, 1)
            task = cls(world.waits(pending(world)), loop=world.loop)
            turns(world, 1)
            with world.quietly():
                end(task)
            turns(world, 1)


def foreign_contexts(world: World) -> None:
    context = contextvars.copy_context()
    context.run(contextvars.ContextVar[Any]("variable").set, world.Last())
    for given in (Evil(world), context, Proxy(world, context), world.Last()):
        for make in (
            lambda: world.loop.create_task(world.coroutine(), context=given),
            lambda: pending(world).add_done_callback(guarded(world), context=given),
            lambda: world.loop.call_soon(guarded(world), context=given),
        ):
            with world.quietly():
                make()
        turns(world, 1)
    del context


def call_graph(world: World) -> None:
    """From 3.14 on who awaits is noted in what is awaited."""
    future = type("Future", (Kept,), {"__hash__": lambda future: hash(world.act())})(
        loop=world.loop
    )
    first = playing(world, world.waits(future), 1)
    second = playing(world, world.waits(future), 1)
    for function in ("future_add_to_awaited_by", "future_discard_from_awaited_by"):
        with world.quietly():
            getattr(asyncio, function)(future, first)
    with world.quietly():
        asyncio.future_add_to_awaited_by(pending(world), second)
    future.set_result(world.Last())
    turns(world)


SITUATIONS: list[Callable[[World], Any]] = [
    ended,
    dying,
    derived,
    strange_loops,
    made_in_debug_mode,
    completed_without_memory,
    without_a_loop,
    removed_callbacks,
    asked_for_callbacks,
    evil_exceptions,
    iterators,
    looks_like_a_future,
    bad_yields,
    not_a_coroutine,
    stepped_in_a_step,
    steps_by_hand,
    cancelled,
    cancelled_early,
    done_callbacks,
    current_tasks,
    left_entered,
    eager,
    texts,
    parsed,
    ended_by_others,
    foreign_contexts,
    call_graph,
]
