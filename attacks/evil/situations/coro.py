"""Coroutines in C, the stand-ins of asyncio's functions, and objects with a core."""

# mypy: ignore-errors
# ruff: noqa: B023
# (Attributes that types do not know are what this is about; each call is made in its turn.)

from __future__ import annotations

import asyncio
import builtins
import copy
import inspect
import pickle
import sys
import types
import warnings
import weakref
from collections.abc import Callable, Generator
from typing import Any

from ..objects import Evil, Text, World
from .tasks import Driven, Waits, pending
from .tools import (
    acting,
    cycle,
    descriptor,
    failing,
    haunted,
    patched,
    playing,
)

CORES = (
    *("Lock", "Event", "Semaphore", "BoundedSemaphore", "Condition"),
    *("Queue", "LifoQueue", "PriorityQueue", "TaskGroup", "StreamReader"),
)


class Awaits:
    """Its iterator is what it was given."""

    def __init__(self, world: World, iterator: Any) -> None:
        self.world, self.iterator = world, iterator

    def __await__(self) -> Any:
        self.world.act()
        return self.iterator

    def __del__(self) -> None:
        self.world.act()


class Answers:
    """An iterator that answers send(), throw() and close() by evil code."""

    def __init__(self, world: World, *answers: Any) -> None:
        self.world, self.answers = world, [*answers]

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        self.world.act()
        answer = self.answers.pop(0) if self.answers else self.world.Last()
        if answer is None:
            return None
        if isinstance(answer, BaseException):
            raise answer
        raise StopIteration(answer)

    @property
    def throw(self) -> Any:
        self.world.act()
        return lambda *args: self.send(None)

    @property
    def close(self) -> Any:
        self.world.act()
        return lambda: self.world.act()

    def __del__(self) -> None:
        self.world.act()


class Forgets(Answers):
    """One that lacks them."""

    @property
    def throw(self) -> Any:
        self.world.act()
        raise AttributeError

    close = throw


def awaiting(world: World, awaitable: Any) -> list[Any]:
    """Coroutines in C that await it."""
    lock = asyncio.Lock()
    with world.quietly():
        return [
            asyncio.wait_for(awaitable, None),
            asyncio.wait_for(awaitable, 0.001),
            asyncio.Condition(lock).wait_for(lambda: awaitable),
        ]
    return []


def steps(world: World, coroutine: Any, kind: int) -> None:
    world.undo.append(coroutine.close)
    for call in (
        lambda: coroutine.send(None),
        lambda: coroutine.cr_await,
        lambda: coroutine.cr_frame,
        lambda: coroutine.cr_code,
        lambda: coroutine.send(world.Last()) if kind else coroutine.throw(ValueError(world.Last())),
        lambda: coroutine.throw(GeneratorExit) if kind else coroutine.throw(ValueError, "evil"),
        lambda: coroutine.close(),
        lambda: coroutine.send(None),
    ):
        with world.quietly():
            call()


def awaited(world: World) -> None:
    for make in (
        lambda: Awaits(world, Answers(world, None, None)),
        lambda: Awaits(world, Forgets(world, None, None)),
        lambda: Awaits(world, Answers(world, ValueError(world.Last()))),
        lambda: Awaits(world, Evil(world)),
        lambda: Awaits(world, 5),
        lambda: Awaits(world, world.coroutine()),
        lambda: Evil(world),
        lambda: Waits(world, world.loop, True),
        lambda: Driven(world, None, None),
        lambda: pending(world),
        lambda: world.coroutine(),
        lambda: world.loop.create_task(world.coroutine()),
    ):
        for kind in (0, 1):
            for coroutine in awaiting(world, make()):
                playing(world, within(world, lambda: coroutine, kind), 1)


async def within(world: World, make: Callable[[], Any], kind: int) -> None:
    world.act()
    steps(world, make(), kind)


def primitives(world: World) -> list[Callable[[], Any]]:
    """What makes coroutines in C, in a state in which they have to wait."""
    lock, queue, full = asyncio.Lock(), asyncio.Queue[Any](), asyncio.Queue[Any](1)
    condition, semaphore, event = asyncio.Condition(), asyncio.Semaphore(0), asyncio.Event()
    full.put_nowait(world.Last())
    reader = asyncio.StreamReader(loop=world.loop)
    lock._locked = True
    return [
        lock.acquire,
        lock.__aenter__,
        queue.get,
        full.put,
        full.join,
        lambda: full.put(world.Last()),
        condition.acquire,
        condition.wait,
        lambda: condition.wait_for(world.callback()),
        semaphore.acquire,
        event.wait,
        reader.read,
        reader.readline,
        lambda: asyncio.sleep(0, world.Last()),
        lambda: asyncio.sleep(5, world.Last()),
        lambda: asyncio.wait([pending(world), world.loop.create_future()]),
        lambda: asyncio.wait_for(pending(world), 5),
        lambda: asyncio.wait_for(asyncio.sleep(5), 5),
        lambda: asyncio.wait_for(queue.get(), 5),
    ]


def waiting(world: World) -> None:
    for make in primitives(world):
        for kind in (0, 1):
            playing(world, within(world, make, kind), 1)
        with world.quietly():
            task = playing(world, make(), 1)
            world.undo.append(task.cancel)
            del task


def let_go(world: World) -> None:
    """They end where they wait: by reference counts, by the collector, and before they began."""
    for make in primitives(world):
        for collected in (False, True):
            for begun in (False, True):
                with world.quietly():
                    playing(world, begin(world, make, begun, collected), 1)
    world.collect()


async def begin(world: World, make: Callable[[], Any], begun: bool, collected: bool) -> None:
    coroutine = make()
    if begun:
        with world.quietly():
            coroutine.send(None)
    if collected:
        with world.quietly():
            cycle(world, coroutine, coroutine.cr_frame)


def results(world: World) -> None:
    """What they return, by send(), next(), `await` and __await__()."""
    full = asyncio.Queue[Any]()

    def make() -> Any:
        full.put_nowait(world.Last())
        return full.get()

    async def play() -> None:
        await make()
        kept = make()
        value = await kept
        del value
        await asyncio.sleep(0, world.Last())
        await asyncio.wait_for(make(), 1)
        with world.quietly():
            next(iter(make()))
        coroutine = make()
        with world.quietly():
            coroutine.send(None)
        for _ in range(2):
            iterator = iter(make())
            try:
                next(iterator)
            except StopIteration as stop:
                world.keep(stop)
                stop.evil = world.Last()
            del iterator
            await make()
        loop = [make() for _ in range(3)]
        for each in loop:
            await each

    for _ in range(2):
        playing(world, play(), 4)


def frames(world: World) -> None:
    """What shows where a coroutine in C waits, as those who look into them see it."""
    names = ("f_code", "f_globals", "f_lineno", "f_locals", "cr_await", "__qualname__", "cr_code")

    def look(coroutine: Any) -> None:
        with world.quietly():
            frame = coroutine.cr_frame
            world.keep(frame)
            while frame is not None:
                for name in names:
                    with world.quietly():
                        getattr(frame, name)
                with world.quietly():
                    repr(frame)
                frame = getattr(getattr(frame, "cr_await", None), "cr_frame", None)

    async def waits(make: Callable[[], Any]) -> None:
        coroutine = make()
        world.undo.append(coroutine.close)
        with world.quietly():
            coroutine.send(None)
        look(coroutine)

    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(5))

    async def completed() -> None:
        for each in asyncio.as_completed([pending(world)]):
            look(each)
            await each

    async def locked() -> None:
        lock = kind()
        await lock.acquire()
        async with lock:
            pass

    kind = type("Lock", (asyncio.Lock,), {"acquire": asyncio.Lock.acquire})
    for make in primitives(world):
        with world.quietly():
            playing(world, waits(make), 1)
    for play in (group, completed, locked):
        task = playing(world, play(), 2)
        with world.quietly():
            look(task.get_coro().cr_await)
        with world.quietly():
            task.get_stack()
        with world.quietly():
            task.print_stack(file=Evil(world))
        task.cancel()
    meta = type("Meta", (type,), {"__getattribute__": acting(world, type.__getattribute__)})
    lock = meta("Lock", (asyncio.Lock,), {})()
    with world.quietly():
        playing(world, waits(lock.__aenter__), 1)
    with patched(asyncio.Queue, "get", descriptor(world)):
        playing(world, completed(), 2)


def evil_functions(world: World) -> None:
    """asyncio's functions, for which ours stand in, with evil attributes."""

    class Function:
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            world.act()
            return world.coroutine()

        def __getattr__(self, name: str) -> Any:
            world.act()
            if name in ("__qualname__", "__name__", "__module__"):
                return Text(world, "evil")
            if name == "__globals__":
                return {"_wait": Evil(world)}
            raise AttributeError(name)

        def __repr__(self) -> str:
            world.act()
            return "evil"

    for name in ("sleep", "wait", "wait_for", "gather", "shield", "ensure_future"):
        function = getattr(asyncio, name)
        for call in (
            lambda: function(Evil(world), Evil(world)),
            lambda: function(*[Evil(world)] * 5),
            lambda: function(evil=Evil(world)),
            lambda: repr(function),
            lambda: getattr(function, Text(world, "__name__")),
            lambda: setattr(function, "evil", world.Last()),
            lambda: delattr(function, "evil"),
            lambda: setattr(function, Text(world, "__code__"), Evil(world)),
            lambda: weakref.ref(function, lambda _: world.act()),
            lambda: pickle.dumps(function),
            lambda: copy.copy(function),
            lambda: function.__get__(Evil(world)),
            lambda: inspect.signature(function),
        ):
            with world.quietly():
                call()
    for cls, name in ((asyncio.Lock, "acquire"), (asyncio.Queue, "get"), (asyncio.Event, "wait")):
        method = vars(cls.__mro__[1]).get(name) or getattr(cls, name)
        for call in (
            lambda: method(Evil(world)),
            lambda: method(),
            lambda: method(Evil(world), Evil(world)),
            lambda: method.__get__(None, cls),
            lambda: repr(method),
            lambda: method.__reduce_ex__(2),
            lambda: method.evil,
        ):
            with world.quietly():
                call()


def warned(world: World) -> None:
    """One that was never awaited, and a program that has made the warning its own."""
    for show in (acting(world, lambda *args, **kwargs: None), failing(world)):
        with patched(warnings, "showwarning", show):
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.showwarning = show
                for collected in (False, True):
                    coroutine = asyncio.sleep(1, world.Last())
                    if collected:
                        cycle(world, coroutine)
                    del coroutine
                    world.collect()
                with world.quietly():
                    asyncio.sleep(1).throw(ValueError, world.Last())
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                asyncio.sleep(1, world.Last())


def closes_badly(world: World) -> None:
    """Who is let go while it waits for what ignores that, or raises."""

    class Ignores(Answers):
        @property
        def close(self) -> Any:
            return failing(self.world)

    async def play(answers: Any) -> None:
        coroutine = asyncio.wait_for(Awaits(world, answers), None)
        with world.quietly():
            coroutine.send(None)
        del coroutine

    for make in (Ignores, Answers, Forgets):
        playing(world, play(make(world, None, None)), 1)


def cores(world: World) -> list[Any]:
    made = []
    for name in CORES:
        base = getattr(asyncio, name)
        more = {"loop": world.loop} if name == "StreamReader" else {}
        for kind in (base, type(name, (base,), {}), type(name, (base,), {"__slots__": ()})):
            with world.quietly():
                made.append(kind(**more))
    return made


def shown(world: World) -> None:
    """Their __dict__, in which fields are when somebody asks."""
    for obj in cores(world):
        for call in (
            lambda: obj.__dict__.update(evil=world.Last(), _loop=world.Last()),
            lambda: obj._loop,
            lambda: obj.__dict__.update({Text(world, "_loop"): world.Last()}),
            lambda: obj.__dict__.update({Text(world, "evil"): Evil(world)}),
            lambda: setattr(obj, "_loop", world.Last()),
            lambda: delattr(obj, "_loop"),
            lambda: setattr(obj, "_waiters", world.Last()),
            lambda: vars(obj),
            lambda: setattr(obj, "__dict__", {"_loop": world.Last()}),
            lambda: setattr(obj, "__dict__", {Text(world, "_loop"): Evil(world)}),
            lambda: obj._loop,
            lambda: copy.copy(obj),
            lambda: obj.__reduce_ex__(Evil(world)),
            lambda: obj.__reduce_ex__(True),
            lambda: pickle.dumps(obj, 0),
            lambda: obj.__getstate__(),
        ):
            with world.quietly():
                call()


def haunted_dicts(world: World) -> None:
    for obj in cores(world):
        names = vars(obj)
        for name in ("_loop", "_waiters", "_value", "_maxsize"):
            with world.quietly(), haunted(world, names, name):
                world.undo.append(lambda obj=obj, name=name: delattr(obj, name))
                for call in (
                    lambda: getattr(obj, name),
                    lambda: setattr(obj, name, world.Last()),
                    lambda: vars(obj),
                    lambda: delattr(obj, name),
                ):
                    with world.quietly():
                        call()


def other_attributes(world: World) -> None:
    """Classes that hide a core's attributes, and whose bases are not its own."""
    for name in CORES:
        base = getattr(asyncio, name)
        for field in ("_loop", "_waiters", "_value", "__getstate__", "__reduce_ex__", "__dict__"):
            with world.quietly():
                kind = type(name, (base,), {field: descriptor(world)})
                obj = kind()
                for call in (
                    lambda: setattr(obj, "__dict__", {field: world.Last()}),
                    lambda: obj.__dict__.update({field: world.Last()}),
                    lambda: getattr(obj, field),
                    lambda: repr(obj),
                    lambda: copy.copy(obj),
                ):
                    with world.quietly():
                        call()
        with world.quietly():
            mixed = type(name, (Mixed, base), {"world": world})
            obj = mixed(world.Last())
            obj._loop = world.Last()
            vars(obj)
            copy.copy(obj)
    for name in ("_loop", "_waiters"):
        stock = asyncio.Event.__mro__[-2]
        for owner in (stock, asyncio.Lock.__mro__[1], asyncio.mixins._LoopBoundMixin):
            with world.quietly(), patched(owner, name, descriptor(world)):
                for obj in (asyncio.Event(), asyncio.Lock()):
                    vars(obj)
                    with world.quietly():
                        getattr(type(obj), name)


class Mixed:
    world: World

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        cls.world.act()
        return super().__new__(cls, *args, **kwargs)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.world.act()
        super().__init__()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    def __getstate__(self) -> Any:
        self.world.act()
        return None

    def __reduce_ex__(self, protocol: Any) -> Any:
        self.world.act()
        return super().__reduce_ex__(protocol)


class Plain:
    """Comes behind asyncio's classes, and is told what they are."""

    world: World

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        cls.world.act()
        return object.__new__(cls)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__()
        getattr(cls, "world", Nobody).act()

    @property
    def __getstate__(self) -> Any:
        self.world.act()
        return acting(self.world, lambda: {})

    @property
    def __reduce_ex__(self) -> Any:
        self.world.act()
        return acting(self.world, lambda protocol: (type(self), ()))


class Nobody:
    act = staticmethod(lambda: None)


def behind_cores(world: World) -> None:
    """A class without a core's layout whose mro has one: what comes next is a program's."""
    for name in CORES:
        base = getattr(asyncio, name)
        for bases in ((base, Plain), (Plain, base), (base, Exception), (base, dict)):
            with world.quietly():
                kind = type(name, bases, {"world": world, "evil": world.Last()})
                for call in (
                    lambda: kind(),
                    lambda: kind(Evil(world), evil=Evil(world)),
                    lambda: type("Sub", (kind,), {}, evil=world.Last()),
                    lambda: kind().__getstate__(),
                    lambda: kind().__reduce_ex__(0),
                    lambda: copy.copy(kind()),
                    lambda: setattr(kind(), "_loop", world.Last()),
                    lambda: base.__new__(kind, Evil(world)),
                    lambda: base.__new__(Evil(world)),
                    lambda: base.acquire(kind()),
                    lambda: base.get(kind()),
                    lambda: base.wait(kind()),
                ):
                    with world.quietly():
                        call()


def evil_metaclasses(world: World) -> None:
    """Which of its bases are cores is asked of a class with an evil type."""

    class Meta(type):
        def __hash__(cls) -> int:
            world.act()
            return id(cls)

        def __eq__(cls, other: object) -> bool:
            world.act()
            return cls is other

        def __getattribute__(cls, name: str) -> Any:
            world.act()
            return super().__getattribute__(name)

        def mro(cls) -> Any:
            world.act()
            return super().mro()

    for name in CORES:
        base = getattr(asyncio, name)
        with world.quietly():
            first = Meta(name, (base,), {})
            kind = Meta("Sub", (first,), {})
            world.undo.append(lambda kind=kind, base=base: setattr(kind, "__bases__", (base,)))
            for cls in (first, kind):
                for call in (
                    lambda: cls(),
                    lambda: vars(cls()),
                    lambda: cls().__init__(Evil(world)),
                    lambda: cls().__init__(evil=Evil(world)),
                    lambda: copy.copy(cls()),
                    lambda: cls().__getstate__(),
                    lambda: cls().__reduce_ex__(0),
                    lambda: setattr(cls(), "__dict__", {"_loop": 5}),
                ):
                    with world.quietly():
                        call()


def evil_inits(world: World) -> None:
    for name in CORES:
        base = getattr(asyncio, name)
        with world.quietly():
            kind = type(name, (base,), {})
            obj = kind.__new__(kind)
            for args, more in (
                ((Evil(world),), {}),
                ((), {"evil": Evil(world)}),
                ((), {Text(world, "evil"): Evil(world)}),
                ((Evil(world), Evil(world), Evil(world)), {}),
                ((), {}),
            ):
                with world.quietly():
                    obj.__init__(*args, **more)
                with world.quietly():
                    base.__init__(obj, *args, **more)
        stock = base.__mro__[2]
        with world.quietly(), patched(stock, "__init__", acting(world, stock.__init__)):
            base(Evil(world))
    with patched(asyncio.Lock.__mro__[2], "__doc__", world.Last()):
        pass


def completed_classes(world: World) -> None:
    """What a module of ctask does with a class once: by hand, with evil ones."""
    from ctask import _ctask

    for name in ("Lock", "Event", "Queue"):
        core = getattr(_ctask, name, None)
        if core is None:
            continue
        meta = type("Meta", (type,), {"__setattr__": acting(world, type.__setattr__)})
        for stock in (Evil(world), type("Stock", (), {"__doc__": descriptor(world)})):
            with world.quietly():
                _ctask._over(meta(name, (core,), {}), stock)
            with world.quietly():
                _ctask._over(meta(name, (core,), {"__slots__": ()}), stock)


def late_imports(world: World) -> None:
    """What is looked up in asyncio's modules when it is first needed, in a new extension module."""
    import ctask

    module = types.ModuleType("asyncio.locks")
    with patched(builtins, "__import__", acting(world, __import__)):
        for name in ("locks", "queues", "tasks", "taskgroups", "timeouts"):
            for value in (Evil(world), module):
                with world.quietly(), patched(asyncio, name, value):
                    for call in (asyncio.Condition, asyncio.Queue, lambda: asyncio.timeout(5)):
                        with world.quietly():
                            call()
    for full in ("asyncio.locks", "asyncio.queues", "asyncio.timeouts", "asyncio.taskgroups"):
        before = sys.modules[full]
        sys.modules[full] = Evil(world)
        try:
            for call in (asyncio.Condition, asyncio.Queue, lambda: asyncio.timeout(5)):
                with world.quietly():
                    call()
            queue = asyncio.Queue[Any]()
            with world.quietly():
                queue._finished  # noqa: B018
        finally:
            sys.modules[full] = before
    assert ctask


def derived_coroutines(world: World) -> None:
    """A subclass's methods, seen by whoever calls them through ours."""

    def made(base: Any, *names: str) -> Any:
        more = {name: acting(world, getattr(base, name)) for name in names}
        return type(base.__name__, (base,), more)()

    for obj, call in (
        (made(asyncio.Lock, "acquire", "release", "locked"), "acquire"),
        (made(asyncio.Queue, "get_nowait", "empty", "_get", "full"), "get"),
        (made(asyncio.Event, "is_set"), "wait"),
        (made(asyncio.Semaphore, "locked", "release"), "acquire"),
    ):
        for kind in (0, 1):
            playing(world, within(world, getattr(obj, call), kind), 1)
        world.keep(weakref.ref(obj, lambda ref: world.act()))
        with haunted(world, dict(vars(type(obj))), call):
            pass
    del obj


class Holds(Generator):
    """A generator in Python, which a coroutine in C waits for."""

    def __init__(self, world: World) -> None:
        self.world = world

    def send(self, value: Any) -> Any:
        self.world.act()

    def throw(self, *args: Any) -> Any:
        self.world.act()
        raise StopIteration(self.world.Last())

    def __await__(self) -> Any:
        return self

    def __del__(self) -> None:
        self.world.act()


def awaited_generators(world: World) -> None:
    for kind in (0, 1):
        for coroutine in awaiting(world, Holds(world)):
            playing(world, within(world, lambda: coroutine, kind), 1)
    coroutine = world.waits(pending(world))
    with world.quietly():
        coroutine.send(None)
    for each in awaiting(world, coroutine):
        playing(world, within(world, lambda: each, 0), 1)


SITUATIONS: list[Callable[[World], Any]] = [
    awaited,
    waiting,
    let_go,
    results,
    frames,
    evil_functions,
    warned,
    closes_badly,
    shown,
    haunted_dicts,
    other_attributes,
    behind_cores,
    evil_metaclasses,
    evil_inits,
    completed_classes,
    late_imports,
    derived_coroutines,
    awaited_generators,
]
