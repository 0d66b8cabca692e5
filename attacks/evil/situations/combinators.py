"""What waits for many or not for long: for futures, in tasks and on loops that are a program's."""

# mypy: ignore-errors
# ruff: noqa: B023, F821
# (Attributes that types do not know are what this is about; each call is made in its turn.)

from __future__ import annotations

import _asyncio
import asyncio
import contextlib
import contextvars
import gc
import importlib.util
import sys
import time
import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import ctask

from ..objects import Evil, World
from .tasks import Driven
from .tools import (
    Truth,
    acting,
    collecting,
    cycle,
    descriptor,
    failing,
    guarded,
    overridden,
    patched,
    playing,
    turns,
)

var = contextvars.ContextVar[Any]("var", default=None)


def round_and_round(world: World) -> ValueError:
    """An error whose contexts go round."""
    error, other = ValueError(world.Last()), ValueError(world.Last())
    error.__context__, other.__context__ = other, error
    return error


class Strange(asyncio.Future):
    """Its methods are evil, and give, or raise, what it was made for."""

    world: World
    gives: dict[str, Callable[[], Any]]

    def __init__(self, world: World, **gives: Callable[[], Any]) -> None:
        super().__init__(loop=world.loop)
        self.world, self.gives = world, gives

    def _given(self, name: str, *args: Any, **more: Any) -> Any:
        self.world.act()
        if name in self.gives:
            return self.gives[name]()
        return getattr(super(), name)(*args, **more)

    def done(self) -> Any:
        return self._given("done")

    def cancelled(self) -> Any:
        return self._given("cancelled")

    def exception(self) -> Any:
        return self._given("exception")

    def result(self) -> Any:
        return self._given("result")

    def set_result(self, value: Any) -> Any:
        return self._given("set_result", value)

    def cancel(self, *args: Any, **more: Any) -> Any:
        return self._given("cancel", *args, **more)

    def add_done_callback(self, *args: Any, **more: Any) -> Any:
        return self._given("add_done_callback", *args, **more)

    def remove_done_callback(self, *args: Any) -> Any:
        return self._given("remove_done_callback", *args)

    def _make_cancelled_error(self) -> Any:
        return self._given("_make_cancelled_error")

    def set_name(self, name: Any) -> None:
        self.world.act()

    def __del__(self) -> None:
        self.world.act()


class Hashed(Strange):
    """One that is told by its hash."""

    def __eq__(self, other: object) -> bool:
        self.world.act()
        return self is other

    def __hash__(self) -> int:
        self.world.act()
        return 1


def raising(make: Callable[[], BaseException]) -> Callable[[], Any]:
    def call() -> Any:
        raise make()

    return call


def strange(world: World) -> list[Strange]:
    """One of each kind."""
    last = world.Last
    error = lambda: ValueError(last())  # noqa: E731
    return [
        Hashed(world),
        Strange(world, done=lambda: Truth(world, False)),
        Strange(world, cancelled=raising(error)),
        Strange(world, exception=error),
        Strange(world, exception=last),
        Strange(world, exception=raising(error)),
        Strange(world, exception=lambda: None, result=raising(error)),
        Strange(world, exception=lambda: None, result=last),
        Strange(world, cancelled=lambda: True, _make_cancelled_error=error),
        Strange(world, remove_done_callback=raising(error)),
        Strange(world, remove_done_callback=raising(lambda: round_and_round(world))),
        Strange(world, remove_done_callback=last, add_done_callback=last),
        Strange(world, add_done_callback=raising(error)),
        Strange(world, add_done_callback=lambda: var.set(None)),
    ]


def some(world: World) -> list[int]:
    """Numbers of those."""
    return world.rng.sample(range(14), 5)


def ended(future: Any, how: int, world: World) -> None:
    """By the base's methods: nobody is asked."""
    with world.quietly():
        if how == 0:
            _asyncio.Future.set_result(future, world.Last())
        elif how == 1:
            _asyncio.Future.set_exception(future, ValueError(world.Last()))
        elif how == 2:
            _asyncio.Future.cancel(future, world.Last())


def each_way(world: World, play: Callable[..., Any]) -> None:
    """`play(futures)` with each kind of future beside one of ours, which end, or do not."""
    for number in some(world):
        futures = [strange(world)[number], world.loop.create_future()]
        if number % 2:
            futures.reverse()
        var.set(world.Last())
        task = playing(world, play(*futures), 1)
        var.set(None)
        world.undo.append(futures.clear)
        for future in [*futures]:
            ended(future, world.rng.randrange(4), world)
        del future
        turns(world, 1)
        time.sleep(0.0001)
        turns(world, 1)
        with world.quietly():
            task.cancel(world.Last())
        del task
        futures.clear()
        turns(world, 1)


def waited_for(world: World) -> None:
    for mode in (asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION, asyncio.ALL_COMPLETED):

        async def play(*futures: Any) -> Any:
            guard = world.Last()
            try:
                return await asyncio.wait(futures, timeout=0.0001, return_when=mode), guard
            finally:
                world.act()

        each_way(world, play)


def gathered(world: World) -> None:
    for given in (False, True):

        async def play(*futures: Any) -> Any:
            outer = asyncio.gather(*futures, return_exceptions=given)
            outer.add_done_callback(guarded(world))
            world.undo.append(outer.cancel)
            return await outer

        each_way(world, play)


def gathered_and_dropped(world: World) -> None:
    """Who gathers goes, and its children end later, or with it."""
    for number in some(world):
        children = [strange(world)[number], world.loop.create_future()]

        async def play() -> Any:
            outer = asyncio.gather(*children, world.waits(children[1]))
            outer.add_done_callback(guarded(world))
            outer.guard = world.Last()
            outer._children  # noqa: B018
            with world.quietly():
                outer.cancel(world.Last())
            outer._callbacks  # noqa: B018
            del outer
            children.clear()

        playing(world, play(), 2)
        children.clear()
        turns(world, 1)

    async def alone() -> Any:
        child = world.loop.create_future()
        outer = asyncio.gather(child)
        outer.add_done_callback(guarded(world))
        outer.guard = world.Last()
        callback = child._callbacks[0][0]
        del outer
        child.set_result(world.Last())
        world.collect()
        callback(Evil(world))
        callback(strange(world)[4])
        cycle(world, callback)

    playing(world, alone(), 3)


def results_go(world: World) -> None:
    """A child does not give its result when others have given theirs, which nobody else has."""
    wrong = raising(lambda: ValueError(world.Last()))
    none = lambda: None  # noqa: E731

    async def play(given: bool) -> Any:
        children = [
            Strange(world, exception=none, result=world.Last),
            Strange(world, exception=none, result=wrong),
        ]
        outer = asyncio.gather(*children, return_exceptions=given)
        outer.add_done_callback(guarded(world))
        for child in children:
            ended(child, 0, world)
        return await outer

    for given in (False, True):
        playing(world, play(given), 4)


def collections(world: World) -> None:
    """Where C asks for memory (3.11)."""

    def gathering() -> Any:
        asyncio._set_running_loop(world.loop)
        try:
            return asyncio.gather(*[world.loop.create_future() for _ in range(3)])
        finally:
            asyncio._set_running_loop(None)

    def last_done() -> Callable[[], Any]:
        outer = gathering()
        children = [*gathering_children(outer)]
        callback = children[0]._callbacks[0][0]
        for child in children:
            child.set_result(world.Last())
            call = partial(callback, child)
            if child is not children[-1]:
                call()
        world.undo.append(outer.cancel)
        return call

    def gathering_children(outer: Any) -> list[Any]:
        return [obj for obj in gc.get_referents(outer) if isinstance(obj, asyncio.Future)]

    collecting(world, lambda: partial(getattr, gathering(), "_children"))
    collecting(world, last_done)

    def shielding() -> Callable[[], Any]:
        inner = world.loop.create_future()
        world.undo.extend((partial(inner.set_result, 1), inner.__init__, world.loop.close))
        return partial(asyncio.shield, inner)

    collecting(world, shielding)


def done_already(world: World) -> None:
    """It has ended when the others are asked, who raise, or give what is no exception."""

    async def play(number: int, given: bool) -> Any:
        first, second = world.loop.create_future(), world.loop.create_future()
        other = strange(world)[number]
        outer = asyncio.gather(first, other, second, return_exceptions=given)
        callback = first._callbacks[0][0]
        if number % 3 == 0:
            _asyncio.Future.cancel(outer)
        for how, future in enumerate((first, other, second)):
            ended(future, (number + how) % 3, world)
            with world.quietly():
                callback(future)
        for future in strange(world):
            with world.quietly():
                callback(future)
        return await outer

    for number in some(world):
        playing(world, play(number, False), 2)
        playing(world, play(number, True), 2)


def shielded(world: World) -> None:
    def play(number: int) -> Callable[[], Any]:
        async def play() -> Any:
            inner = world.loop.create_future()
            var.set(world.Last())
            outer = asyncio.shield(inner)
            var.set(None)
            outer.add_done_callback(guarded(world))
            below = inner._callbacks[0][0]
            above = outer._callbacks[0][0]
            world.undo.extend((inner.cancel, outer.cancel))
            with world.quietly():
                below(strange(world)[number])
            with world.quietly():
                outer.cancel(world.Last())
            with world.quietly():
                above(Evil(world))
            del outer
            ended(inner, number % 3, world)

        return play

    for number in some(world):
        playing(world, play(number)(), 2)

    async def others() -> None:
        for future in strange(world):
            with world.quietly():
                outer = asyncio.shield(future)
                outer.add_done_callback(guarded(world))
                ended(future, world.rng.randrange(3), world)

    playing(world, others(), 3)


def shielded_by_evil_tasks(world: World) -> None:
    """From 3.14 on who shields is noted beside others, for which it is asked for its hash; and the
    variables which the shield's context has are those of nobody else then.
    """

    class Task(asyncio.Task):
        def __hash__(self) -> int:
            var.set(None)
            world.act()
            if armed:
                raise ValueError(world.Last())
            return id(self)

    async def shields(inner: Any) -> None:
        var.set(world.Last())
        with world.quietly():
            outer = asyncio.shield(inner)
            outer.add_done_callback(guarded(world))

    armed: list[int] = []
    for _ in range(3):
        inner = world.loop.create_future()
        world.undo.extend((inner.cancel, lambda inner=inner: inner.__init__(loop=world.loop)))
        playing(world, world.waits(inner), 2)
        with world.quietly():
            Task(shields(inner), loop=world.loop)
        armed.append(1)
        turns(world, 2)
        with world.quietly():
            inner.cancel()


def timer_loops(world: World) -> Iterator[Any]:
    """Loops whose timers are other things, or are called at once."""

    def handle() -> Any:
        return types.SimpleNamespace(cancel=acting(world, lambda: None), guard=world.Last())

    for how in range(5):

        def call_later(loop: Any, delay: Any, callback: Any, *args: Any, **more: Any) -> Any:
            world.act()
            if how == 0:
                with world.quietly():
                    callback(*args)
            if how == 1:
                world.keep(callback)
                return world.Last()
            if how == 2:
                raise ValueError(world.Last())
            if how == 3:
                empty = contextvars.Context()
                return super(kind, loop).call_later(0, callback, *args, context=empty)
            return handle()

        def create_future(loop: Any) -> Any:
            world.act()
            return (
                world.rng.choice(strange(world)) if how == 4 else super(kind, loop).create_future()
            )

        body = {"call_later": call_later, "call_at": call_later, "create_future": create_future}
        kind = type("Loop", (ctask.EventLoop,), body)
        yield kind()


def on_timer_loops(world: World) -> None:
    ours = world.loop

    def futures() -> list[Any]:
        return [world.loop.create_future(), strange(world)[world.rng.randrange(14)]]

    async def waits() -> None:
        with world.quietly():
            asyncio.wait(futures(), timeout=world.Last()).send(None)
        await asyncio.wait(futures(), timeout=0.0001)

    async def completes() -> None:
        var.set(world.Last())
        found = asyncio.as_completed(futures(), timeout=0.0001)
        var.set(None)
        world.keep(found)
        for each in found:
            await each

    async def sleeps() -> None:
        await asyncio.sleep(0.0001, world.Last())

    async def waits_for() -> None:
        await asyncio.wait_for(world.loop.create_future(), 0.0001)

    async def times() -> None:
        async with asyncio.timeout(0.0001) as limit:
            world.keep(limit)
            await world.loop.create_future()

    for loop in timer_loops(world):
        world.loop = loop
        loop.set_exception_handler(lambda loop, context: world.act())
        try:
            for play in (waits, completes, sleeps, waits_for, times):
                with world.quietly():
                    task = playing(world, play(), 2)
                    time.sleep(0.0002)
                    turns(world, 2)
                    task.cancel(world.Last())
                    del task
                    turns(world, 1)
        finally:
            world.loop = ours
            with world.quietly():
                loop.close()


def completed(world: World) -> None:
    """Iterators of as_completed(): looked at, dropped, emptied by others."""

    async def play(number: int, look: int) -> None:
        futures = [strange(world)[number], world.loop.create_future(), world.loop.create_future()]
        var.set(world.Last())
        found = asyncio.as_completed(futures, timeout=(None, 0.0001)[look % 2])
        var.set(None)
        world.undo.append(lambda: found._done)
        taken = iter(found)
        one = next(taken)
        with world.quietly():
            one.send(None)
        callback = futures[1]._callbacks[0][0]
        futures[1].set_result(world.Last())
        with world.quietly():
            callback(Evil(world))
        if look > 1:
            with world.quietly():
                found._done.put_nowait(world.Last())
            with world.quietly():
                found._done._loop = world.Last()
        with world.quietly():
            found.guard = world.Last()
        with world.quietly():
            found._handle_timeout()
        with world.quietly():
            await found.__anext__()
        with world.quietly():
            type(found).__anext__(found, Evil(world))
        with world.quietly():
            type(found).__anext__(Evil(world))
        with world.quietly():
            await next(taken)
        with world.quietly():
            one.throw(ValueError(world.Last()))
        ended(futures[0], look % 3, world)
        world.undo.append(futures.clear)
        futures.clear()
        if look == 3:
            cycle(world, found, taken, one)
        del found, taken, one

    for number in some(world):
        playing(world, play(number, number % 4), 3)


def taken(world: World) -> None:
    """Nobody else has what is done: it goes as it is taken, or with the queue's items."""

    async def play(number: int, look: bool) -> None:
        found = asyncio.as_completed([strange(world)[number], strange(world)[1], Strange(world)])
        for how, future in enumerate([*found._todo]):
            callback = (future._callbacks or [(None, None)])[0][0]
            ended(future, how, world)
            if callback is not None:
                with world.quietly():
                    callback(future)
        del future, callback
        await asyncio.sleep(0)
        if look:
            with world.quietly():
                found._done  # noqa: B018
        for each in found:
            with world.quietly():
                each.send(None)
        found = asyncio.as_completed([Strange(world), Strange(world)], timeout=0.0001)
        time.sleep(0.0003)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def alone(wait: Callable[..., Any]) -> None:
        """They keep no context, and the variable is another by the time."""
        var.set(world.Last())
        forgets = Strange(world, add_done_callback=lambda: var.set(None))
        with world.quietly():
            made = wait([forgets, forgets])
            made.send(None)
        fails = lambda: Strange(world, exception=raising(lambda: ValueError(world.Last())))  # noqa: E731
        fresh = Strange(world, exception=lambda: ValueError(world.Last()))
        children = [fresh, fails(), world.loop.create_future()]
        with world.quietly():
            outer = asyncio.gather(*children, return_exceptions=True)
            children[2].set_result(1)
            for child in children[:2]:
                _asyncio.Future.set_result(child, 1)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        kept: list[Any] = [[] for _ in range(200)]  # no empty list is at hand
        outer = asyncio.gather(*[world.loop.create_future() for _ in range(3)])
        outer._children  # noqa: B018
        del kept

    for number in some(world):
        playing(world, play(number, number % 2 == 0), 4)
    for wait in (asyncio.wait, asyncio.as_completed):
        playing(world, alone(wait), 3)


def completed_elsewhere(world: World) -> None:
    """Bound to one loop, used on another; a queue in between that is a program's."""

    async def make() -> Any:
        return asyncio.as_completed([world.loop.create_future(), world.loop.create_future()])

    found = [playing(world, make(), 2).result() for _ in range(12)]
    for each in found[3:]:
        with world.quietly():
            next(iter(each._todo)).set_result(world.Last())
    turns(world, 1)
    with world.quietly():
        next(found[0]).send(None)
    stock = [cls for cls in asyncio.Queue.__mro__ if cls.__module__ == "asyncio.queues"]
    for name in ("__init__", "put_nowait", "_init", "__setattr__"):
        for cls in stock:
            if name in vars(cls) or name == "__setattr__":
                for value in (acting(world, getattr(cls, name)), failing(world)):
                    more = [playing(world, make(), 2).result() for _ in range(2)]
                    with world.quietly():
                        next(iter(more[0]._todo)).set_result(world.Last())
                        turns(world, 1)
                    with patched(cls, name, value):
                        for each in more:
                            with world.quietly():
                                each._done  # noqa: B018
    for each in found:
        with world.quietly():
            each._done  # noqa: B018
    other = ctask.new_event_loop()

    async def use() -> None:
        for each in found:
            world.act()
            with world.quietly():
                next(each).send(None)

    with world.quietly():
        other.run_until_complete(use())
    asyncio._set_running_loop(world.loop)
    with world.quietly():
        next(found[1]).send(None)
    asyncio._set_running_loop(other)
    for each in found:
        with world.quietly():
            next(each).send(None)
    asyncio._set_running_loop(None)
    other.close()


def refused_coroutines(world: World) -> None:
    """Of which nobody makes a task: they are closed, and what they do then is theirs."""

    @types.coroutine
    def pause() -> Any:
        yield

    async def suspended(how: int) -> Any:
        guard = world.Last()
        try:
            await pause()
        finally:
            world.act()
            if how:
                raise ValueError(world.Last(), guard)

    for factory in (
        raising(lambda: RuntimeError(world.Last())),
        raising(lambda: ValueError(world.Last())),
        lambda: strange(world)[0],
        lambda: Evil(world),
        lambda: HidesNothing(world),
    ):
        world.loop.set_task_factory(lambda loop, coro, **more: (world.act(), factory())[1])
        for how in (0, 1):

            async def play(call: Callable[..., Any]) -> None:
                coroutine = suspended(how)
                coroutine.send(None)
                with world.quietly():
                    call(coroutine)

            for call in (asyncio.ensure_future, asyncio.gather, asyncio.shield):
                world.loop.set_task_factory(None)
                task = world.loop.create_task(play(call))
                world.loop.set_task_factory(lambda loop, coro, **more: (world.act(), factory())[1])
                turns(world, 1)
                del task
    world.loop.set_task_factory(None)


class HidesNothing(asyncio.Task):
    """Does not let anybody say whether its end is told of."""

    def __init__(self, world: World) -> None:
        super().__init__(world.coroutine(), loop=world.loop)
        object.__setattr__(self, "world", world)

    def __setattr__(self, name: str, value: Any) -> None:
        self.world.act()
        raise ValueError(self.world.Last())


def groups(world: World) -> None:
    errors = lambda: ValueError(world.Last())  # noqa: E731

    class Group(asyncio.TaskGroup):
        def _abort(self) -> None:
            world.act()
            super()._abort()

    class Fails(asyncio.TaskGroup):
        def _abort(self) -> None:
            world.act()
            super()._abort()
            raise round_and_round(world)

    class Cancels(asyncio.CancelledError):
        def __del__(self) -> None:
            world.act()

    class Breaks(Driven):
        def send(self, value: Any) -> Any:
            if self.values:
                return self.values.pop()
            world.act()
            raise Cancels(world.Last())

    async def fails() -> None:
        await asyncio.sleep(0)
        raise errors()

    async def child(group: Any) -> None:
        world.act()
        await asyncio.sleep(0)

    for kind in (asyncio.TaskGroup, Group, Fails):
        for how in range(8):

            async def play() -> None:
                group = kind()
                world.keep(group)
                world.undo.extend(
                    (lambda: group.__init__(), lambda: setattr(group, "_tasks", set()))
                )
                if how == 1:
                    group._loop = None
                    group._parent_task = world.Last()
                async with group:
                    group.create_task(child(group))
                    group._parent_task = group._parent_task
                    if how == 2:
                        group.create_task(fails())
                    if how == 3:
                        group._errors = [world.Last()]
                    if how == 4:
                        group._parent_task = world.Last()
                        group._base_error = None
                    if how == 5:
                        group._on_completed_fut = strange(world)[0]
                    if how == 6:
                        group._tasks = {strange(world)[0], Evil(world)}
                    if how == 7:
                        raise errors()

            task = playing(world, play(), 1)
            for _ in range(3):
                turns(world, 1)
                with world.quietly():
                    task.cancel(world.Last())
            del task
            turns(world, 2)

    async def by_hand() -> None:
        """The coroutines of entering and leaving, sent to and thrown into."""
        for throw in (Cancels(world.Last()), ValueError(world.Last()), None):
            group = asyncio.TaskGroup()
            group._parent_task = world.Last()
            entering = group.__aenter__()
            with world.quietly():
                entering.send(None)
            group.create_task(asyncio.sleep(1))
            group._errors = [world.Last()]
            leaving = group.__aexit__(None, None, None)
            with world.quietly():
                leaving.send(None)
            group._tasks = set()
            world.undo.append(lambda: group.__init__())
            with world.quietly():
                leaving.throw(throw) if throw else leaving.send(None)
            with world.quietly():
                group = asyncio.TaskGroup()
                with contextlib.suppress(StopIteration):
                    group.__aenter__().send(None)
                group._tasks = {world.loop.create_future()}
                group._on_completed_fut = Breaks(world, None)
                group._aborting = throw is not None
                group._parent_task, group._errors = world.Last(), [world.Last()]
                leaving = group.__aexit__(None, None, None)
                leaving.send(None)
                group._tasks, group._errors = set(), []
                leaving.send(None)
            with world.quietly():
                leaving.close()
            with world.quietly():
                group.__aexit__(ValueError, errors(), None).send(None)
            with world.quietly():
                group.__aexit__(*[Evil(world)] * 3).send(None)

    playing(world, by_hand(), 2)


class Haunts:
    """In the group's set of tasks: with the hash of each task."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __hash__(self) -> int:
        return self.world.hash

    def __eq__(self, other: object) -> bool:
        self.world.act()
        raise ValueError(self.world.Last())


def haunted_groups(world: World) -> None:
    """A new task's hash is that of something evil in `_tasks`."""

    async def play() -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asyncio.sleep(0)) for _ in range(3)]
            for _ in range(20):
                gone = world.loop.create_task(asyncio.sleep(0))
                world.hash = hash(gone)
                group._tasks.add(Haunts(world))
                world.undo.append(group._tasks.clear)
                gone.cancel()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                del gone  # whose place the next is likely to have
                with world.quietly():
                    tasks.append(group.create_task(world.coroutine()))
            group._tasks = {task for task in tasks if not task.done()}

    playing(world, play(), 60)


def timeouts(world: World) -> None:
    class Limit(asyncio.Timeout):
        evil = descriptor(world)

    class Task(asyncio.Task):
        def cancelling(self) -> int:
            world.act()
            return super().cancelling()

        def uncancel(self) -> int:
            world.act()
            return super().uncancel()

    def limits() -> Iterator[Any]:
        for when in (None, 0.0, world.loop.time() + 100, Evil(world)):
            for kind in (asyncio.Timeout, Limit):
                yield kind(when)

    async def play(limit: Any, how: int) -> None:
        world.undo.extend((lambda: limit.__init__(None), lambda: setattr(limit, "_state", None)))
        if how == 1:
            with world.quietly():
                limit.evil = world.Last()
            with world.quietly():
                del limit.evil
        if how == 2:
            limit._timeout_handler = world.Last()
        async with limit:
            world.act()
            if how == 3:
                limit.reschedule(world.loop.time() + 10)
                limit._timeout_handler = types.SimpleNamespace(
                    cancel=acting(world, lambda: setattr(limit, "_timeout_handler", world.Last()))
                )
            if how == 4:
                limit._timeout_handler = types.SimpleNamespace(cancel=failing(world))
            await asyncio.sleep(0)

    for how in range(5):
        for limit in limits():
            with world.quietly():
                task = Task(play(limit, how), loop=world.loop)
                turns(world, 2)
                task.cancel(world.Last())
                del task, limit
            turns(world, 1)


def in_time(world: World) -> None:
    """wait_for() whose timer has struck when what it waits for ends."""

    class Task(asyncio.Task):
        def uncancel(self) -> Any:
            world.act()
            if failing_now:
                raise ValueError(world.Last())
            super().uncancel()
            return world.Last()

        def cancel(self, *args: Any, **more: Any) -> Any:
            world.act()
            return super().cancel(*args, **more)

    class Returns:
        """Answers a cancellation with a result, or something else."""

        def __init__(self, how: int) -> None:
            self.how = how

        def __await__(self) -> Any:
            try:
                yield
                while True:
                    yield
            except BaseException:
                world.act()
                if self.how == 0:
                    return world.Last()
                if self.how == 1:
                    raise ValueError(world.Last()) from None
                raise

    async def answers(how: int) -> Any:
        return await Returns(how)

    stock = [cls for cls in asyncio.Timeout.__mro__ if cls.__module__ == "asyncio.timeouts"]
    for fails in (False, True):
        failing_now = fails
        for how in range(3):
            with world.quietly():
                Task(asyncio.wait_for(answers(how), 0.00001), loop=world.loop)
            turns(world, 6)
    for cls in stock:
        for function in (acting(world, cls.__aexit__), failing(world)):
            with patched(cls, "__aexit__", function):
                for how in range(3):
                    with world.quietly():
                        Task(asyncio.wait_for(answers(how), 0.00001), loop=world.loop)
                    turns(world, 6)


def late_classes(world: World) -> None:
    """What a new extension module imports when it first needs it is another thing."""
    spec = sys.modules["ctask._ctask"].__spec__
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def found(name: str) -> Any:
        world.act()
        return world.Last()

    class Adds:
        def __radd__(self, other: object) -> Any:
            world.act()
            return world.Last()

    asyncio._set_running_loop(world.loop)
    for name in ("ctask._timeouts", "ctask._locks", "ctask._ascompleted", "ctask._queues"):
        before = sys.modules.get(name)
        stub = types.ModuleType(name)
        stub.__getattr__ = found
        sys.modules[name] = stub
        try:
            for call in (
                lambda: module.timeout_at(world.Last()),
                lambda: module.timeout(Adds()),
                lambda: module.timeout_at(world.loop.time()),
                lambda: module.as_completed([world.loop.create_future()]),
            ):
                with world.quietly():
                    call()
        finally:
            if before is None:
                del sys.modules[name]
            else:
                sys.modules[name] = before
    asyncio._set_running_loop(None)


def meddled(world: World) -> None:
    """A loop is asked whether it debugs while a future is made, which the collector knows."""

    class Other:
        def get_debug(self) -> bool:
            world.act()
            return False

        def __del__(self) -> None:
            world.act()

    def is_future(obj: object) -> bool:
        return issubclass(type(obj), _asyncio.Future)

    def get_debug(how: int) -> Any:
        world.act()
        if not meddling:
            return False
        meddling.clear()
        for obj in gc.get_objects():
            with contextlib.suppress(BaseException):
                if is_future(obj) and id(obj) not in known:
                    if how == 0:
                        obj.add_done_callback(guarded(world))
                    elif how == 1:
                        asyncio.Future.__init__(obj, loop=Other())
        raise ValueError(world.Last())

    known: set[int] = set()
    meddling: list[int] = []
    for how in (0, 1):
        loop = overridden(world, ctask.EventLoop)()
        loop.get_debug = lambda: get_debug(how)
        asyncio._set_running_loop(loop)
        try:
            child = ctask.Future(loop=loop)
            for call in (
                lambda: ctask.EventLoop.create_future(loop),
                lambda: ctask.Future(loop=loop),
                lambda: asyncio.gather(child),
                lambda: asyncio.Task(world.coroutine(), loop=loop),
            ):
                known.clear()
                known.update(id(obj) for obj in gc.get_objects() if is_future(obj))
                meddling.append(1)
                with world.quietly():
                    call()
        finally:
            asyncio._set_running_loop(None)
            with world.quietly():
                loop.close()


def lists_of_what_is_done(world: World) -> None:
    """Who is asked to put it into a queue takes it away, also from the list that C has made."""

    class Puts:
        def __get__(self, obj: Any, kind: Any = None) -> Any:
            for found in gc.get_objects():
                if type(found) is list and found and any(each is guard for each in marked(found)):
                    found.clear()
            for each in found_iterator:
                with world.quietly():
                    each.send(None)
            world.act()
            return acting(world, lambda item: world.Last())

    def marked(found: list[Any]) -> list[Any]:
        return [getattr(each, "guard", None) for each in found if isinstance(each, Strange)]

    guard = world.Last()
    queue = [cls for cls in asyncio.Queue.__mro__ if cls.__module__ == "asyncio.queues"][-1]

    async def play() -> None:
        nonlocal found_iterator
        futures = [Strange(world) for _ in range(3)]
        found = asyncio.as_completed(futures)
        for future in futures:
            future.guard = guard
            ended(future, 0, world)
        futures.clear()
        del future
        await asyncio.sleep(0)
        found_iterator = iter(found)
        with patched(queue, "put_nowait", Puts()):
            found._done  # noqa: B018

    found_iterator: Any = iter(())
    playing(world, play(), 3)


SITUATIONS: list[Callable[[World], Any]] = [
    waited_for,
    gathered,
    gathered_and_dropped,
    done_already,
    shielded,
    shielded_by_evil_tasks,
    on_timer_loops,
    completed,
    taken,
    completed_elsewhere,
    refused_coroutines,
    groups,
    haunted_groups,
    timeouts,
    in_time,
    late_classes,
    meddled,
    results_go,
    collections,
    lists_of_what_is_done,
]
