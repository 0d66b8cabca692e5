"""Locks and queues: whose loop makes other futures, who wait and are let go, what is made late."""

# mypy: ignore-errors
# ruff: noqa: B023, F821
# (Attributes that types do not know are what this is about; each call is made in its turn.)

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import ctask

from ..objects import Evil, World
from .combinators import Strange, raising, round_and_round, strange
from .tools import (
    acting,
    collecting,
    cycle,
    descriptor,
    failing,
    overridden,
    patched,
    playing,
    turns,
)


class Given:
    """What await gets of it, evil code says: an iterator, or what is none."""

    def __init__(self, world: World, gives: Callable[[], Any]) -> None:
        self.world, self.gives = world, gives

    def __await__(self) -> Any:
        self.world.act()
        return self.gives()

    def done(self) -> bool:
        self.world.act()
        return False

    cancelled = done

    def cancel(self, *args: Any) -> Any:
        self.world.act()
        return self.world.Last()

    def set_result(self, value: Any) -> Any:
        self.world.act()
        raise round_and_round(self.world)

    def __del__(self) -> None:
        self.world.act()


class Yields:
    """An iterator that suspends; it goes on, ends, or raises as it was told to."""

    def __init__(self, world: World, *answers: Any) -> None:
        self.world, self.answers = world, [*answers]

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        self.world.act()
        answer = self.answers.pop(0)() if self.answers else None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def throw(self, *args: Any) -> Any:
        return next(self)

    def close(self) -> Any:
        self.world.act()
        if self.answers:
            next(self)
        return self.world.Last()

    def __del__(self) -> None:
        self.world.act()


def awaitables(world: World) -> list[Any]:
    last = world.Last
    stop = lambda: StopIteration(last())  # noqa: E731
    error = lambda: ValueError(last())  # noqa: E731
    return [
        lambda: Given(world, last),
        lambda: Given(world, world.coroutine),
        lambda: Given(world, lambda: Yields(world, last, stop)),
        lambda: Given(world, lambda: Yields(world, stop)),
        lambda: Given(world, lambda: Yields(world, error)),
        lambda: Given(world, lambda: Yields(world, lambda: None, error, last)),
        lambda: Given(world, lambda: Yields(world, lambda: None, last, last, last)),
        lambda: Given(world, lambda: Yields(world, lambda: None, stop)),
        lambda: Given(world, raising(error)),
        lambda: world.coroutine(),
        lambda: asyncio.sleep(0, last()),
        lambda: strange(world)[world.rng.randrange(14)],
        lambda: last(),
    ]


@contextlib.contextmanager
def running(world: World, make: Callable[[], Any]) -> Iterator[Any]:
    """A loop runs whose futures are these; it is nobody's but the thread's."""

    class Loop:
        def create_future(self) -> Any:
            world.act()
            if world.rng.random() < 0.3:
                asyncio._set_running_loop(None)
            return make()

        def get_debug(self) -> bool:
            world.act()
            return False

        def call_later(self, *args: Any, **more: Any) -> Any:
            world.act()
            return make()

        call_at = call_soon = call_later

        def time(self) -> float:
            world.act()
            return 0.0

        def __hash__(self) -> int:
            world.act()
            return 1

        def __eq__(self, other: object) -> bool:
            world.act()
            return self is other

        def __del__(self) -> None:
            world.act()

    before = asyncio._get_running_loop()
    asyncio._set_running_loop(Loop())
    try:
        yield
    finally:
        asyncio._set_running_loop(before)


def primitives(world: World) -> list[Any]:
    """Things of which one has to wait, and how."""
    lock, condition, held = asyncio.Lock(), asyncio.Condition(), asyncio.Condition()
    semaphore, empty, full = asyncio.Semaphore(0), asyncio.Queue[Any](), asyncio.Queue[Any](1)
    joined = asyncio.Queue[Any]()
    with world.quietly():
        lock.acquire().send(None)
    with world.quietly():
        condition.acquire().send(None)
    with world.quietly():
        held.acquire().send(None)
    full.put_nowait(world.Last())
    joined.put_nowait(world.Last())
    return [
        (lock, lock.acquire),
        (asyncio.Event(), None),
        (semaphore, semaphore.acquire),
        (condition, condition.wait),
        (held, held.acquire),
        (empty, empty.get),
        (full, lambda: full.put(world.Last())),
        (joined, joined.join),
    ]


def driven(world: World, coroutine: Any, how: int) -> None:
    world.undo.append(coroutine.close)
    with world.quietly():
        coroutine.send(None)
    for call in (
        lambda: coroutine.cr_await,
        (
            lambda: coroutine.send(None),
            lambda: coroutine.throw(ValueError(world.Last())),
            lambda: coroutine.throw(asyncio.CancelledError(world.Last())),
            lambda: coroutine.throw(GeneratorExit),
            lambda: coroutine.close(),
        )[how % 5],
        lambda: coroutine.send(None),
        lambda: coroutine.close(),
    ):
        with world.quietly():
            call()


def other_futures(world: World) -> None:
    """What a program's loop makes is waited for, told, and withdrawn from."""
    makers = awaitables(world)
    for number in world.rng.sample(range(len(makers)), 5):
        for how in world.rng.sample(range(5), 2):
            with running(world, makers[number]):
                for obj, wait in primitives(world):
                    world.undo.append(lambda: asyncio._set_running_loop(None))
                    world.undo.append(lambda obj=obj: setattr(obj, "_loop", None))
                    with world.quietly():
                        driven(world, (wait or obj.wait)(), how)
                with world.quietly():
                    driven(world, asyncio.sleep(1, world.Last()), how)
                with world.quietly():
                    driven(world, asyncio.wait([ctask.Future(loop=world.loop)]), how)
                with world.quietly():
                    found = asyncio.as_completed([ctask.Future(loop=world.loop)])
                    driven(world, next(iter(found)), how)


def woken(world: World) -> None:
    """Who waits is a program's future, which is asked and told."""
    for number in world.rng.sample(range(14), 5):
        with running(world, lambda: strange(world)[number]):
            for obj, wait in primitives(world):
                waiting = [(wait or obj.wait)() for _ in range(3)]
                for coroutine in waiting:
                    with world.quietly():
                        coroutine.send(None)
                del coroutine
                world.undo.append(waiting.clear)
                kept: list[Any] = [[] for _ in range(200)]  # no empty list is at hand
                for call in (
                    lambda: setattr(obj, "_locked", False),
                    lambda: obj.acquire().send(None),
                    lambda: obj.set(),
                    lambda: obj.release(),
                    lambda: obj.notify(2),
                    lambda: obj.notify_all(),
                    lambda: obj.put_nowait(world.Last()),
                    lambda: obj.get_nowait(),
                    lambda: obj.task_done(),
                    lambda: obj.acquire().send(None),
                    lambda: setattr(obj, "_loop", world.Last()),
                    lambda: obj._waiters,
                    kept.clear,
                ):
                    with world.quietly():
                        call()
                for how, coroutine in enumerate(waiting):
                    driven(world, coroutine, how)
                del waiting


def gone_meanwhile(world: World) -> None:
    """Who waits goes as its future is asked; the loop goes as it makes one."""
    waiting: list[Any] = []

    def goes(answer: Any) -> Callable[[], Any]:
        return lambda: (waiting.clear(), answer)[1]

    def make() -> Any:
        return Strange(world, done=goes(False), cancelled=goes(True), set_result=goes(None))

    for obj, wait in primitives(world):
        with running(world, make):
            loop = asyncio._get_running_loop()
            for _ in range(3):
                asyncio._set_running_loop(loop)
                with world.quietly():
                    waiting.append((wait or obj.wait)())
                    waiting[-1].send(None)
                if isinstance(obj, asyncio.Condition):
                    obj._lock._locked = True
            del loop
            for call in (
                lambda: obj.set(),
                lambda: setattr(obj, "_locked", False),
                lambda: setattr(obj, "_value", 1),
                lambda: obj.acquire().send(None),
                lambda: obj.notify(3),
                lambda: obj.release(),
            ):
                with world.quietly():
                    call()
    queue: Any = None

    def last() -> Any:
        queue._loop = None
        asyncio._set_running_loop(None)
        return world.Last()

    for cls in (asyncio.Queue, asyncio.LifoQueue):
        with running(world, last), world.quietly():
            queue = cls()
            queue.get().send(None)


def bound_elsewhere(world: World) -> None:
    for cls in (asyncio.Lock, asyncio.Semaphore, asyncio.Condition, asyncio.Queue):
        kind = overridden(world, cls, "__repr__", _loop=world.Last())
        for made in (kind, cls):
            with world.quietly(), running(world, world.loop.create_future):
                obj = made()
                obj._loop = world.Last()
                for name in ("acquire", "get", "wait", "join"):
                    with world.quietly():
                        driven(world, getattr(obj, name)(), 0)
                obj._loop = None
                with world.quietly():
                    driven(world, getattr(obj, "get", None)(), 0)

    class Shown(asyncio.Lock):
        def __repr__(self) -> str:
            world.act()
            return "evil"

    lock = Shown()
    lock._locked = True
    lock._loop = ctask.new_event_loop()
    playing(world, lock.acquire(), 1)
    lock._loop.close()


def late_events(world: World) -> None:
    """The event of join(), made when it is first asked for, by others as well."""
    queue: Any = None

    def event(*args: Any, **more: Any) -> Any:
        world.act()
        with world.quietly():
            if queue is not None and depth:
                depth.pop()
                queue._finished  # noqa: B018
        return world.rng.choice((world.Last, real, lambda: Sets(world)))()

    class Sets:
        def __init__(self, world: World) -> None:
            self.world = world

        def set(self) -> Any:
            self.world.act()
            if self.world.rng.random() < 0.5:
                raise ValueError(self.world.Last())
            return self.world.Last()

        clear = set

        def __del__(self) -> None:
            self.world.act()

    real = asyncio.Event
    modules = [sys.modules[name] for name in ("asyncio.locks", "ctask._locks")]
    depth = [1]
    for module in modules:
        with patched(module, "Event", event):
            for cls in (asyncio.Queue, asyncio.LifoQueue, asyncio.PriorityQueue):
                for _ in range(4):
                    depth[:] = [1]
                    with world.quietly():
                        queue = cls()
                        queue._finished  # noqa: B018
                    with world.quietly():
                        queue = cls()
                        queue.put_nowait(1)
                        queue._finished  # noqa: B018
                    with world.quietly():
                        queue.task_done()
                    with world.quietly():
                        queue.join().send(None)


def conditions(world: World) -> None:
    """Its lock's methods as its own attributes; what ends its waits."""
    lock = overridden(world, asyncio.Lock, "locked", "acquire", "release")()
    plain = asyncio.Lock()
    for given in (lock, plain, None):
        condition = asyncio.Condition(given)
        world.undo.append(lambda: condition.__init__())
        for name in ("locked", "acquire", "release"):
            with world.quietly():
                getattr(condition, name)
            with world.quietly():
                setattr(condition, name, world.Last())
            with world.quietly():
                delattr(condition, name)
            with world.quietly():
                getattr(condition, name)
    empty = asyncio.Condition.__new__(asyncio.Condition)
    for name in ("locked", "acquire", "release", "_lock"):
        with world.quietly():
            getattr(empty, name)

    class Inner(asyncio.Lock):
        acquire = descriptor(world)

    with world.quietly():
        condition = asyncio.Condition(Inner())
        condition.acquire  # noqa: B018
    for value in (descriptor(world, lambda obj: world.Last()), Raising(world), descriptor(world)):
        kind = type("Lock", (asyncio.Lock,), {})
        condition = asyncio.Condition(kind())
        world.undo.append(lambda: setattr(condition, "acquire", world.Last()))
        kind.acquire = kind.locked = value
        for name in ("acquire", "locked"):
            with world.quietly():
                getattr(condition, name)
    with world.quietly():
        condition = asyncio.Condition()
        vars(condition)
        with patched(asyncio.Lock.__mro__[-2], "locked", descriptor(world)):
            condition.locked  # noqa: B018

    async def play(how: int) -> None:
        condition = asyncio.Condition()
        await condition.acquire()
        waiting = condition.wait()
        world.undo.append(lambda: condition.__init__())
        with world.quietly():
            waiting.send(None)
        await condition.acquire()
        errors = (
            lambda: asyncio.CancelledError(world.Last()),
            lambda: ValueError(world.Last()),
            lambda: round_and_round(world),
            lambda: Unset(world),
        )
        for make in errors[how % 4], errors[(how + 1) % 4], errors[(how // 4) % 4]:
            with world.quietly():
                waiting.throw(make())
        condition.release()
        for _ in range(2):
            with world.quietly():
                waiting.send(None)

    for how in range(16):
        playing(world, play(how), 1)

    last = world.Last
    gives = lambda: Given(world, lambda: Yields(world, last, last, last))  # noqa: E731
    with world.quietly(), running(world, gives):
        condition = asyncio.Condition()
        inner = condition._lock
        inner._locked = True
        waiting = condition.wait()
        waiting.send(None)
        inner._locked = True
        waiting.close()

    async def told(number: int) -> None:
        """As it ends it wakes another, who raises."""
        condition = asyncio.Condition()
        await condition.acquire()
        waiting = [condition.wait() for _ in range(2)]
        for coroutine in waiting:
            with world.quietly():
                coroutine.send(None)
            condition._lock._locked = True
        condition._waiters = deque([strange(world)[number], Given(world, world.Last)])
        condition._lock._locked = False
        for coroutine in waiting:
            with world.quietly():
                coroutine.throw(ValueError(world.Last()))

    for number in world.rng.sample(range(14), 5):
        playing(world, told(number), 1)


class Raising:
    """An attribute that raises."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __get__(self, obj: Any, kind: Any = None) -> Any:
        self.world.act()
        raise ValueError(self.world.Last())


class Unset(asyncio.CancelledError):
    def __init__(self, world: World) -> None:
        self.guard = world.Last()
        self.world = world

    def __del__(self) -> None:
        self.world.act()


def values(world: World) -> None:
    for cls in (asyncio.Semaphore, asyncio.BoundedSemaphore):
        for kind in (cls, type(cls.__name__, (cls,), {})):
            semaphore = kind()
            for name in ("_value", "_bound_value", "_waiters", "_loop"):
                with world.quietly():
                    setattr(semaphore, name, world.Last())
            world.undo.append(lambda: setattr(semaphore, "_value", world.Last()))
            for args in ((), (2,), (Evil(world),), (-1,)):
                with world.quietly():
                    setattr(semaphore, "_value", world.Last())  # noqa: B010
                with world.quietly():
                    setattr(semaphore, "_bound_value", world.Last())  # noqa: B010
                with world.quietly():
                    semaphore.__init__(*args)
    queue = asyncio.Queue[Any]()
    queue._getters = queue._putters = kept = deque([world.Last()])
    world.undo.append(kept.clear)
    with world.quietly():
        queue.put_nowait(world.Last())
    with world.quietly():
        queue.get_nowait()


def let_go(world: World) -> None:
    """Who waits goes, with what it waits for, by reference counts and by the collector."""
    for collected in (False, True):
        for obj, wait in primitives(world):

            async def play() -> None:
                coroutine = (wait or obj.wait)()
                with world.quietly():
                    coroutine.send(None)
                waiter = coroutine.cr_await
                with world.quietly():
                    waiter.add_done_callback(world.callback())
                obj.guard = world.Last()
                if collected:
                    cycle(world, coroutine, obj, waiter)
                del coroutine, waiter
                world.collect()

            playing(world, play(), 1)
            with world.quietly():
                vars(obj).update(_waiters=world.Last())
            del obj, wait, play
            turns(world, 1)


def failing_hooks(world: World) -> None:
    for name in ("_put", "_get", "_init", "_wakeup_next", "_get_loop", "full", "empty"):
        for function in (failing(world), acting(world, lambda *args: world.Last())):
            with world.quietly():
                queue = type("Queue", (asyncio.Queue,), {name: function})()
                for call in (
                    lambda: queue.put_nowait(world.Last()),
                    lambda: queue.get_nowait(),
                    lambda: queue.put(world.Last()).send(None),
                    lambda: queue.get().send(None),
                    lambda: queue.get().send(None),
                ):
                    with world.quietly():
                        call()


def collections(world: World) -> None:
    """Where C asks for memory (3.11)."""

    def waited_for() -> Callable[[], Any]:
        event = asyncio.Event()
        asyncio._set_running_loop(world.loop)
        waiting = [event.wait() for _ in range(3)]
        for coroutine in waiting:
            coroutine.send(None)
        asyncio._set_running_loop(None)
        world.undo.extend(coroutine.close for coroutine in waiting)
        return lambda: (event._waiters, waiting)

    collecting(world, waited_for)


SITUATIONS: list[Callable[[World], Any]] = [
    other_futures,
    woken,
    gone_meanwhile,
    bound_elsewhere,
    late_events,
    conditions,
    values,
    let_go,
    failing_hooks,
    collections,
]
