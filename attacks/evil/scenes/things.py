"""Look-alikes: what stands in the place of a loop, a future, a transport, ..., and is evil."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

from ..objects import Base, Error, Evil, World


class Thing(Base):
    """Every attribute is a method, which is evil and then gives what `answers` has for its name."""

    def __init__(self, world: World, **answers: Callable[..., Any]) -> None:
        super().__init__(world)
        object.__setattr__(self, "answers", answers)

    def __getattr__(self, name: str) -> Any:
        if name[:2] == "__":
            raise AttributeError(name)
        world: World = self.world
        answer = object.__getattribute__(self, "answers").get(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            guard = Evil(world)  # dies with the frame, which an exception keeps
            world.act()
            world.leave()
            if answer is None and world.rng.random() < 0.1:
                raise world.error()
            del guard
            return world.rng.choice((None, True, Evil(world))) if answer is None else answer(*args)

        return call


def future_class(world: World, base: Any) -> Any:
    """A future all of whose methods are evil; they may do nothing else."""

    def wrapped(name: str) -> Callable[..., Any]:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            guard = Evil(world)
            world.act()
            if world.rng.random() < 0.05:
                raise world.error()
            del guard
            if world.rng.random() < 0.1:
                return world.value()
            return getattr(base, name)(self, *args, **kwargs)

        return call

    names: tuple[str, ...] = (
        "done",
        "cancelled",
        "result",
        "exception",
        "set_result",
        "set_exception",
        "cancel",
    )
    names += ("add_done_callback", "remove_done_callback", "_make_cancelled_error", "get_loop")
    body: dict[str, Any] = {name: wrapped(name) for name in names}
    body["__del__"] = lambda self: world.act()
    body["_cancel_message"] = property(lambda self: world.act(), lambda self, value: world.act())
    return type("Future", (base,), body)


def future(world: World) -> Any:
    """Of any kind, perhaps done."""
    rng, loop = world.rng, world.loop
    kind = rng.randrange(6)
    if kind == 0:
        return Thing(world)
    if kind == 1:
        return loop.create_future()
    base = asyncio.Future if kind < 5 else asyncio.futures._PyFuture  # type: ignore[attr-defined]
    made = future_class(world, base)(loop=loop)
    with world.quietly():
        end = rng.randrange(6)
        if end == 0:
            made.set_result(Evil(world))
        elif end == 1:
            made.set_exception(Error(world))
        elif end == 2:
            made.cancel(Evil(world))
    return made


def task(world: World) -> Any:
    return Thing(world, cancelling=lambda: world.rng.choice((0, Evil(world), world.value())))


def loop(world: World) -> Any:
    """Anything can be the running loop."""
    rng = world.rng

    def handle(*args: Any, **kwargs: Any) -> Any:
        for arg in args:
            if rng.random() < 0.1 and callable(arg):
                arg()
        return rng.choice((Thing(world), Thing(world), Evil(world), None))

    def create_task(coro: Any, *args: Any, **kwargs: Any) -> Any:
        with world.quietly():
            coro.close()
        return future(world)

    return Thing(
        world,
        create_future=lambda: future(world),
        create_task=create_task,
        time=lambda: rng.choice((0.0, 1e9, Evil(world), world.value())),
        get_debug=lambda: rng.choice((False, True, Evil(world))),
        call_soon=handle,
        call_later=handle,
        call_at=handle,
    )


@contextlib.contextmanager
def running(world: World, made: Any) -> Iterator[None]:
    """As if this loop ran, with a task that is evil, too; evil code may end that."""
    before = asyncio._get_running_loop()
    swap = getattr(asyncio.tasks, "_swap_current_task", None)
    world.subjects.append(made)
    asyncio._set_running_loop(made)
    try:
        with world.quietly():
            if swap and world.rng.random() < 0.8:
                swap(made, task(world))
        del made
        yield
    finally:
        now = asyncio._get_running_loop()
        with world.quietly():
            if swap and now is not None and now is not before:
                swap(now, None)
        asyncio._set_running_loop(before)


def drive(world: World, coroutine: Any, times: int = 4) -> None:
    """Runs it by hand; what it waits for ends in one way or another."""
    for _ in range(times):
        with world.quietly():
            kind = world.rng.randrange(10)
            if kind == 0:
                coroutine.throw(world.error())
            elif kind == 1:
                coroutine.throw(asyncio.CancelledError())
            elif kind == 2:
                coroutine.close()
            else:
                end(world, coroutine.send(None))


def end(world: World, waited: Any) -> None:
    kind = world.rng.randrange(4)
    if kind == 0:
        waited.set_result(Evil(world))
    elif kind == 1:
        waited.cancel()
    elif kind == 2:
        waited.set_exception(Error(world))


def asked(world: World, before: Any) -> Callable[..., Any]:
    """The same function, but evil."""

    def call(*args: Any, **kwargs: Any) -> Any:
        world.act()
        world.leave()
        return before(*args, **kwargs)

    return call


def turns(world: World, number: int) -> None:
    for _ in range(number):
        with world.quietly():
            world.loop.call_soon(world.loop.stop)
            world.loop.run_forever()


class Key(str):
    """Of a dictionary, and of keyword arguments: found, and then compared."""

    world: World

    def __new__(cls, world: World, text: str) -> Any:
        made = super().__new__(cls, text)
        made.world = world
        return made

    def __eq__(self, other: object) -> bool:
        self.world.act()
        return str.__eq__(self, other)

    __hash__ = str.__hash__


# ---- asyncio's own functions ----


def stock_functions(thing: Any) -> list[FunctionType]:
    """Of a class: its methods in asyncio; of a function that stands for asyncio's: that."""
    if not isinstance(thing, type):
        return [found for found in gc.get_referents(thing) if isinstance(found, FunctionType)]
    found = []
    for cls in thing.__mro__:
        if cls.__module__.startswith("asyncio"):
            found += [value for value in vars(cls).values() if isinstance(value, FunctionType)]
    return found


def _code(*args, **kwargs):  # type: ignore[no-untyped-def]
    import sys

    return sys.evil_code(*args, **kwargs)  # type: ignore[attr-defined]


@contextlib.contextmanager
def patched(world: World, thing: Any) -> Iterator[None]:
    """One of asyncio's functions has other code, though it is the same object."""
    functions = [f for f in stock_functions(thing) if not f.__code__.co_freevars]

    def evil(*args: Any, **kwargs: Any) -> Any:
        guard = Evil(world)
        world.act()
        world.leave()
        if world.rng.random() < 0.1:
            raise world.error()
        del guard
        return world.rng.choice((None, world.coroutine(), world.value()))

    sys.evil_code = evil  # type: ignore[attr-defined]
    before = [(function, function.__code__) for function in functions]
    for function in functions:
        if world.rng.random() < 0.7:
            function.__code__ = _code.__code__
    try:
        yield
    finally:
        for function, code in before:
            function.__code__ = code


class Meta(type):
    """Of a class, which is asked for its attributes."""

    world: World

    def __getattribute__(cls, name: str) -> Any:
        if name not in ("world", "__dict__"):
            world = type.__getattribute__(cls, "world")
            world.act()
        return type.__getattribute__(cls, name)

    def __setattr__(cls, name: str, value: Any) -> None:
        type.__getattribute__(cls, "world").act()
        type.__setattr__(cls, name, value)
