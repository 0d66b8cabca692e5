"""What situations are made of."""

from __future__ import annotations

import contextlib
import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from ..objects import Evil, World


class Truth:
    """Its truth is evil, and its end."""

    def __init__(self, world: World, value: object) -> None:
        self.world, self.value = world, value

    def __bool__(self) -> bool:
        self.world.act()
        return bool(self.value)

    def __del__(self) -> None:
        self.world.act()


class Proxy:
    """Anything, by way of evil methods: each does what the real one does."""

    def __init__(self, world: World, target: Any) -> None:
        vars(self).update(world=world, target=target)

    def __getattr__(self, name: str) -> Any:
        world = self.world
        world.act()
        value = getattr(self.target, name)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            world.act()
            result = value(*args, **kwargs)
            world.act()
            return Truth(world, result) if type(result) in (bool, type(None)) else result

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        self.world.act()
        setattr(self.target, name, value)


def overridden(world: World, base: type, *names: str, **more: Any) -> type:
    """A subclass whose methods of these names are evil, and then what they were."""

    def method(name: str) -> Callable[..., Any]:
        before = getattr(base, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            world.act()
            result = before(*args, **kwargs)
            return Truth(world, result) if isinstance(result, bool) else result

        return call

    return type(base.__name__, (base,), {**{name: method(name) for name in names}, **more})


def acting(world: World, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        world.act()
        return function(*args, **kwargs)

    return call


def descriptor(world: World, function: Callable[..., Any] | None = None) -> Any:
    """An attribute that is evil to read, write and delete."""

    class Descriptor:
        def __get__(self, obj: Any, kind: Any = None) -> Any:
            world.act()
            return None if function is None else function(obj)

        def __set__(self, obj: Any, value: Any) -> None:
            world.act()

        def __delete__(self, obj: Any) -> None:
            world.act()

    return Descriptor()


@contextlib.contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """`owner.name` is `value` for a while."""
    before = vars(owner)[name] if name in vars(owner) else getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def haunted(world: World, names: dict[Any, Any], key: Any) -> Iterator[None]:
    """Before `key` is found in a dictionary it is compared with an evil key of the same hash."""

    class Key:
        def __hash__(self) -> int:
            return hash(key)

        def __eq__(self, other: object) -> bool:
            world.act()
            return self is other

    ghost, there = Key(), key in names
    before = names.pop(key, None)
    names[ghost] = None
    if there:
        names[key] = before
    try:
        yield
    finally:
        deed, world.deed = world.deed, World.nothing
        names.pop(ghost, None)
        world.deed = deed


def guarded(world: World, *args: Any) -> Callable[..., Any]:
    """A callback whose end is evil, and which nobody else has."""
    guard = world.Last(), *args

    def call(*args: Any) -> Any:
        world.act()
        return guard

    return call


def cycle(world: World, *objects: Any) -> None:
    """These and what is evil are garbage, in a cycle that the collector has to break."""
    ring: list[Any] = [world.Last(), *objects]
    ring.append(ring)


def unseen(world: World) -> Any:
    """Evil at its end, which comes when a cycle is broken: the collector does not know of it, and
    would have ended all else before.
    """
    code = compile("", "evil", "exec")
    world.keep(weakref.ref(code, lambda ref: world.act()))
    return code


def failing(world: World) -> Any:
    """Raises what takes something evil along."""

    def call(*args: Any, **kwargs: Any) -> Any:
        world.act()
        raise ValueError(world.Last(), Evil(world))

    return call


def turns(world: World, number: int = 2) -> None:
    for _ in range(number):
        with world.quietly():
            world.loop.call_soon(world.loop.stop)
            world.loop.run_forever()


def playing(world: World, coroutine: Any, number: int = 3) -> Any:
    """A task, after some turns of the loop."""
    task = world.loop.create_task(coroutine)
    world.keep(task)
    turns(world, number)
    return task


def collecting(world: World, prepared: Callable[[], Callable[[], Any]]) -> None:
    """Call what `prepared` gives; up to 3.11 a collection comes where C asks for memory, and runs
    what is evil.
    """
    if sys.version_info >= (3, 12):
        with world.quietly():
            prepared()()
        return

    def keep(number: int) -> None:
        """What the interpreter keeps to be used again is not asked for."""
        kept.extend((tuple([size] * size), [], {}) for size in range(1, 5) for _ in range(number))
        kept.extend(([], []))  # the tuples were made of them

    def collects(phase: str, info: dict[str, int]) -> None:
        world.act()
        kept.append(info)
        keep(20)

    kept: list[Any] = []
    keep(2100)
    usual = gc.get_threshold()
    gc.callbacks.append(collects)
    try:
        for number in range(8):
            gc.set_threshold(0)
            call, quiet, odd = prepared(), world.quietly(), []
            keep(20)
            world.litter()
            with quiet:
                gc.set_threshold(1 + number % 4)
                if number > 3:
                    odd.append([])
                call()
            gc.set_threshold(*usual)
    finally:
        gc.set_threshold(*usual)
        gc.callbacks.remove(collects)
        kept.clear()
