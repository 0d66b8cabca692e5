"""Scenes: what the programs of `programs.py` do not come upon by themselves.

Each makes the state and the objects that some functions of C need to call Python, and goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

from ..objects import Error, Evil, Many, Number, Real, World, method
from . import things

Scene = Callable[[World], Any]


def named(world: World, subject: Any, names: tuple[str, ...], *args: Any) -> Any:
    with world.quietly():
        return getattr(subject, world.rng.choice(names))(*args)


def derived(world: World, cls: Any, *names: str) -> Any:
    """A class from it: with evil methods, with an evil attribute, or so that it has no core."""
    rng = world.rng

    def wrapped(name: str) -> Callable[..., Any]:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            world.act()
            if rng.random() < 0.3:
                return world.value()
            return getattr(super(made, self), name)(*args, **kwargs)

        return call

    body: dict[str, Any] = {name: wrapped(name) for name in names if rng.random() < 0.3}
    body["spoiled"] = property(lambda self: world.act(), lambda self, value: world.act())
    body["__del__"] = lambda self: world.act()
    if rng.random() < 0.3:
        body["__slots__"] = ("more",)
    made = type(cls.__name__, (cls,), body)
    return made


def waiters(world: World) -> Any:
    rng = world.rng
    futures = [things.future(world) for _ in range(rng.randrange(1, 3))]
    kind = rng.randrange(5)
    if kind < 2:
        return deque(futures, world.rng.choice((None, 1)))
    if kind == 2:
        return things.Thing(world)
    if kind == 3:
        return type("deque", (deque,), {"__len__": method(lambda world: 1), "world": world})(
            futures
        )
    return rng.choice((None, Many(world, futures), Evil(world)))


# What waits, and what wakes; whose attributes can be written; what a class may have otherwise.
PRIMITIVES: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "Lock": (("acquire", "__aenter__"), ("release", "locked"), ("_locked",)),
    "Event": (("wait",), ("set", "clear", "is_set"), ("_value",)),
    "Semaphore": (("acquire", "__aenter__"), ("release", "locked"), ("_value",)),
    "BoundedSemaphore": (
        ("acquire", "__aenter__"),
        ("release", "locked"),
        ("_value", "_bound_value"),
    ),
    "Condition": (
        ("wait", "__aenter__", "acquire"),
        ("notify", "notify_all", "release", "locked"),
        ("_lock", "locked", "acquire", "release"),
    ),
    "Queue": (
        ("get", "join"),
        ("task_done", "get_nowait", "qsize", "empty", "full"),
        ("_getters", "_putters", "_queue", "_maxsize", "_finished", "_is_shutdown"),
    ),
}
PRIMITIVES["LifoQueue"] = PRIMITIVES["PriorityQueue"] = PRIMITIVES["Queue"]
OVERRIDES: tuple[str, ...] = (
    "_get_loop",
    "_wake_up_first",
    "_wake_up_next",
    "_notify",
    "acquire",
    "release",
)
OVERRIDES += ("locked", "wait", "notify", "_wakeup_next", "empty", "full", "get_nowait")
OVERRIDES += ("put_nowait", "qsize", "_put", "_get", "_init")


def primitive(world: World) -> Any:
    """A lock or a queue in an evil loop."""
    rng = world.rng
    name = rng.choice(list(PRIMITIVES))
    waits, wakes, attributes = PRIMITIVES[name]
    cls = getattr(asyncio, name)
    if rng.random() < 0.4:
        cls = derived(world, cls, *OVERRIDES)
    with things.running(world, things.loop(world)):
        subject = cls()
        if "Queue" in name:
            subject = cls(rng.choice((0, 1, 1, 2, Number(world, 1), Real(world, 1.0))))
        if name == "Condition" and rng.random() < 0.5:
            with world.quietly():
                inner = derived(world, asyncio.Lock, *OVERRIDES)()
                subject = cls(rng.choice((asyncio.Lock(), inner, things.Thing(world))))
        if rng.random() < 0.7:
            world.keep(subject)
        coroutines = []
        for _ in range(rng.randrange(2, 8)):
            kind = rng.randrange(8)
            with world.quietly():
                if kind < 3:
                    made = named(world, subject, waits)
                    coroutines.append(made)
                    things.drive(world, made, 1)
                elif kind == 3 and "Queue" in name:
                    made = subject.put(Evil(world))
                    coroutines.append(made)
                    things.drive(world, made, 1)
                elif kind == 3 and name == "Condition":
                    made = subject.wait_for(Evil(world))
                    coroutines.append(made)
                    things.drive(world, made, 2)
                elif kind == 4:
                    setattr(subject, "_waiters", waiters(world))  # noqa: B010
                elif kind == 5:
                    target = rng.choice((*attributes, "_loop", "spoiled", "_waiters"))
                    ends = target in ("_getters", "_putters", "_queue", "_waiters")
                    setattr(subject, target, waiters(world) if ends else world.value())
                elif kind == 6 and "Queue" in name:
                    subject.put_nowait(Evil(world))
                else:
                    named(world, subject, wakes)
        for made in coroutines:
            things.drive(world, made, rng.randrange(3))
        with world.quietly():
            if rng.random() < 0.3:
                subject.__init__(*world.arguments())
    return subject


def stock_methods(world: World) -> Any:
    """asyncio's own methods of a class with a core, with other code."""
    rng = world.rng
    names = [*PRIMITIVES, "Timeout", "TaskGroup", "as_completed"]
    name = rng.choice(names)
    subject: Any = None
    with things.running(world, things.loop(world)):
        if name == "Timeout":
            cls, subject = asyncio.Timeout, asyncio.timeout(rng.choice((None, 0, 5)))
        elif name == "as_completed":
            subject = asyncio.as_completed([world.loop.create_future()])
            cls = type(subject)
        else:
            cls = getattr(asyncio, name)
            subject = derived(world, cls, *OVERRIDES)() if rng.random() < 0.5 else cls()
        methods = {function.__name__ for function in things.stock_functions(cls)}
        methods -= {"__init_subclass__", "__repr__", "__getattribute__", "__init__"}
        with things.patched(world, cls):
            for _ in range(rng.randrange(1, 5)):
                with world.quietly():
                    method = getattr(subject, rng.choice(sorted(methods)))
                    args = world.arguments() if rng.random() < 0.7 else [None, None, None]
                    made = method(*args, **({"evil": 1} if rng.random() < 0.5 else {}))
                    if hasattr(made, "send"):
                        things.drive(world, made, 2)
    return subject


FUNCTIONS: tuple[str, ...] = (
    "sleep",
    "wait_for",
    "wait",
    "gather",
    "shield",
    "timeout",
    "timeout_at",
)
FUNCTIONS += ("ensure_future", "create_task", "as_completed")


def stock_function(world: World) -> None:
    rng = world.rng
    function = getattr(asyncio, rng.choice(FUNCTIONS))
    with things.running(world, things.loop(world)), things.patched(world, function):
        for _ in range(3):
            with world.quietly():
                args = rng.choice((world.arguments(), [things.future(world), 1], [[], 1]))
                made = function(*args, **({"evil": 1} if rng.random() < 0.5 else {}))
                if hasattr(made, "send"):
                    things.drive(world, made, 2)


# ---- combinators/ ----


def several(world: World) -> Any:
    rng = world.rng
    made = [things.future(world) for _ in range(rng.randrange(1, 4))]
    made += [asyncio.sleep(rng.choice((0, 5)), Evil(world)) for _ in range(rng.randrange(2))]
    made += [world.loop.create_future() for _ in range(rng.randrange(2))]
    kind = rng.randrange(5)
    if kind == 0:
        return Many(world, made)
    if kind == 1:
        return tuple(made)
    return made if kind < 4 else set(made)


def settled(world: World, futures: Any) -> None:
    for fut in futures:
        with world.quietly():
            things.end(world, fut)


def function(world: World) -> Any:
    """One of asyncio's functions, on futures of all kinds, on a loop of any kind."""
    rng = world.rng
    made: Any = None
    given = several(world)
    delay: Any = rng.choice((0.001, 5, None, Number(world, 1), Real(world, 0.5)))
    boolean: Any = rng.choice((True, False, Evil(world)))
    mode = rng.choice(("ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION", "evil"))
    calls: tuple[Callable[[], Any], ...] = (
        lambda: asyncio.gather(*given, return_exceptions=boolean),
        lambda: asyncio.wait(given, timeout=delay, return_when=mode),
        lambda: asyncio.as_completed(given, timeout=delay),
        lambda: asyncio.shield(rng.choice(list(given))),
        lambda: asyncio.wait_for(rng.choice(list(given)), delay),
        lambda: asyncio.sleep(delay, Evil(world)),
        lambda: asyncio.timeout(delay),
        lambda: asyncio.timeout_at(delay),
        lambda: asyncio.ensure_future(world.coroutine()),
        lambda: asyncio.create_task(world.coroutine()),
        asyncio.TaskGroup,
    )
    where = things.loop(world) if rng.random() < 0.5 else world.loop
    with things.running(world, where):
        del where
        made = rng.choice((*calls, *calls[:3]))()
        if rng.random() < 0.5:
            world.keep(made)
        for _ in range(rng.randrange(1, 6)):
            with world.quietly():
                played(world, made)
            if rng.random() < 0.3:
                settled(world, given)
                things.turns(world, 1)
    if rng.random() < 0.7:
        settled(world, given)
        things.turns(world, 2)
    return made


def played(world: World, made: Any) -> None:
    rng = world.rng
    kind = rng.randrange(6)
    if hasattr(made, "__aenter__"):
        args = rng.choice(([None] * 3, [ValueError, ValueError(), None]))
        made_of = (made.__aenter__, lambda: made.__aexit__(*args))
        things.drive(world, made_of[kind % 2](), 2)
        if kind == 2 and hasattr(made, "create_task"):
            name = rng.choice(({}, {"name": Evil(world)}))
            world.keep(made.create_task(world.coroutine(), **name))
        elif kind == 3 and hasattr(made, "reschedule"):
            made.reschedule(rng.choice((Evil(world), Real(world, 0.1), 0, None)))
        elif kind == 4:
            names = [n for n in dir(made) if n[0] == "_" and n[1] != "_"]
            value = rng.choice(
                (Evil(world), None, {Evil(world)}, [Evil(world)], things.task(world))
            )
            setattr(made, rng.choice(names), value)
        elif kind == 5 and hasattr(made, "_on_timeout"):
            made._on_timeout()
        elif hasattr(made, "_on_task_done"):
            made._on_task_done(things.future(world))
    elif hasattr(made, "send"):
        things.drive(world, made, 2)
    elif hasattr(made, "__next__"):
        if kind == 0:
            world.keep(made._done)
        elif kind == 1:
            made._handle_timeout()
        else:
            things.drive(world, next(made), 2)
    elif kind == 0:
        made.cancel(Evil(world))
    elif kind == 1:
        made._children = rng.choice((several(world), Evil(world), Many(world, [Evil(world)])))
    elif kind == 2:
        things.end(world, made)


def group(world: World) -> Any:
    """A TaskGroup in a task, whose children, attributes and methods are odd."""
    rng = world.rng
    cls = asyncio.TaskGroup
    if rng.random() < 0.4:
        cls = derived(world, cls, "_on_task_done", "_abort", "_aexit", "_is_base_error")

    async def play() -> None:
        tasks = cls()
        world.keep(tasks)
        async with tasks:
            for _ in range(rng.randrange(1, 4)):
                coroutine = world.coroutine() if rng.random() < 0.5 else asyncio.sleep(0)
                world.keep(tasks.create_task(coroutine))
            spoil(world, tasks, {"_tasks": {Evil(world)}, "_errors": [Error(world)]})

    return world.loop.create_task(play())


def spoil(world: World, subject: Any, values: dict[str, Any]) -> None:
    if world.rng.random() < 0.4:
        name = world.rng.choice(list(values))
        setattr(subject, name, values[name])


NAMED: list[tuple[str, str]] = [
    ("Queue", "maxsize"),
    ("Condition", "lock"),
    ("Timeout", "when"),
]


def keywords(world: World) -> Any:
    """Names that are compared as they like; and an object that is made twice."""
    rng = world.rng
    cls, name = rng.choice(NAMED)
    made = getattr(asyncio, cls)(**{things.Key(world, name): rng.choice((1, 2, Evil(world)))})
    with world.quietly():
        made.__init__(**{things.Key(world, name): None})
    future: Any = type(asyncio.gather(world.loop.create_future()))
    given = {things.Key(world, "loop"): world.loop, things.Key(world, "children"): several(world)}
    with world.quietly():
        gathering = future(**given)
        gathering.cancel(**{things.Key(world, "msg"): Evil(world)})
        gathering._children = Evil(world)
        gathering._children = several(world)
        gathering.cancel()
    return made


def together(world: World) -> Any:
    """gather() of what is done or is about to be, in one way or another."""
    rng, loop = world.rng, world.loop
    given = several(world)

    async def play() -> Any:
        made = asyncio.gather(*given, return_exceptions=rng.random() < 0.5)
        world.keep(made)
        if rng.random() < 0.3:
            made._cancel_requested = Evil(world)  # type: ignore[attr-defined]
        if rng.random() < 0.3:
            loop.call_soon(made.cancel, Evil(world))
        return await made

    made = loop.create_task(play())
    things.turns(world, 2)
    settled(world, given)
    things.turns(world, 3)
    return made


def some(world: World) -> Any:
    """wait(), as_completed(), shield() and wait_for() of the same, in a task."""
    rng, loop = world.rng, world.loop
    given = several(world)
    one = rng.choice(list(given))

    async def completed() -> None:
        made = asyncio.as_completed(given, timeout=rng.choice((None, 5, 0)))
        for waiting in made:
            world.keep(waiting)
            kind = rng.randrange(4)
            if kind == 0:
                world.keep(made._done)  # type: ignore[attr-defined]
            elif kind == 1:
                made._handle_timeout()  # type: ignore[attr-defined]
            await waiting

    plays: tuple[Callable[[], Any], ...] = (
        completed,
        lambda: asyncio.wait(given, timeout=rng.choice((0, 5, None)), return_when=mode),
        lambda: asyncio.wait_for(one, rng.choice((0.001, 5, None))),
        lambda: shielded(world, one),
        completed,
    )
    mode = rng.choice(("ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"))
    made = loop.create_task(rng.choice(plays)())
    things.turns(world, 2)
    if rng.random() < 0.3:
        made.cancel()
    settled(world, given)
    things.turns(world, 3)
    return made


async def shielded(world: World, inner: Any) -> Any:
    outer = asyncio.shield(inner)
    world.keep(outer)
    if world.rng.random() < 0.3:
        outer.cancel(Evil(world))
    return await outer


def queue(world: World) -> Any:
    """A queue whose parts are odd, and those who wait for it give up or go on."""
    rng = world.rng
    cls = rng.choice((asyncio.Queue, asyncio.LifoQueue, asyncio.PriorityQueue))
    made: Any = cls(rng.choice((0, 1)))
    parts: dict[str, Callable[[], Any]] = {
        "_getters": lambda: waiters(world),
        "_putters": lambda: waiters(world),
        "_finished": lambda: things.Thing(world),
        "_queue": lambda: rng.choice(
            (deque([Evil(world)], 1), Many(world, [Evil(world)]), [Evil(world)], Evil(world))
        ),
    }
    coroutines = []
    with things.running(world, things.loop(world) if rng.random() < 0.7 else world.loop):
        for name, part in parts.items():
            if rng.random() < 0.4:
                setattr(made, name, part())
                with world.quietly():
                    setattr(made, name, part())  # the one before goes
        for _ in range(6):
            with world.quietly():
                kind = rng.randrange(6)
                if kind < 3:
                    waits = (made.get, made.join, lambda: made.put(Evil(world)))[kind]
                    coroutines.append(waits())
                    things.drive(world, coroutines[-1], 1)
                else:
                    named(world, made, ("task_done", "get_nowait", "full", "empty", "qsize"))
                    made.put_nowait(Evil(world))
        if rng.random() < 0.3:
            with world.quietly():
                made.__class__ = derived(world, cls, *OVERRIDES)
        with (
            things.patched(world, asyncio.Queue) if rng.random() < 0.3 else contextlib.nullcontext()
        ):
            for coroutine in coroutines:
                things.drive(world, coroutine, 3)
    return made


def ready(world: World) -> Any:
    """as_completed(), its queue shown, with asyncio's queue as it is or not."""
    rng, loop = world.rng, world.loop
    futures = [things.future_class(world, asyncio.Future)(loop=loop) for _ in range(3)]
    with things.running(world, loop), things.patched(world, asyncio.Queue):
        made: Any = asyncio.as_completed(futures, timeout=rng.choice((None, 5)))
        waiting = [next(made) for _ in range(3)]
        for one in waiting:
            things.drive(world, one, 1)
        with world.quietly():
            if rng.random() < 0.6:
                world.keep(made._done)
        settled(world, futures)
        if rng.random() < 0.5:
            with world.quietly():
                made._handle_timeout()
        for one in waiting:
            things.drive(world, one, 2)
    things.turns(world, 2)
    for one in waiting:
        things.drive(world, one, 2)
    return made


SYNC: list[Scene] = [primitive, primitive, primitive, stock_methods, keywords, queue, queue]
COMBINATORS: list[Scene] = [
    function,
    function,
    function,
    stock_function,
    stock_methods,
    group,
    group,
]
COMBINATORS += [together, together, some, some, some, keywords, ready, ready]
