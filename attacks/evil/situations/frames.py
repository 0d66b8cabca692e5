"""What a coroutine in C shows and keeps; a new extension module over other functions."""

# mypy: ignore-errors
# ruff: noqa: B007, B023, F821
# (Attributes that types do not know are what this is about; each call is made in its turn.)

from __future__ import annotations

import asyncio
import contextlib
import copy
import importlib.util
import pickle
import sys
import types
from collections.abc import Callable
from functools import partial
from typing import Any

from ..objects import Evil, World
from .tasks import Driven
from .tools import acting, collecting, descriptor, failing, guarded, haunted, patched


class Function:
    """Stands in the place of one of asyncio's functions: each attribute is evil."""

    def __init__(self, world: World, real: Any) -> None:
        vars(self).update(world=world, real=real)

    def __getattr__(self, name: str) -> Any:
        if name[:2] == "__" and name not in ("__code__", "__globals__", "__qualname__", "__name__"):
            raise AttributeError(name)
        self.world.act()
        if name == "__code__" and self.world.rng.random() < 0.5:
            return Shown(self.world)
        return getattr(self.real, name) if self.world.rng.random() < 0.7 else Shown(self.world)

    def __call__(self, *args: Any, **more: Any) -> Any:
        self.world.act()
        return self.world.Last() if self.world.rng.random() < 0.3 else self.real(*args, **more)

    def __repr__(self) -> str:
        self.world.act()
        return "evil"

    def __del__(self) -> None:
        self.world.act()


class Shown:
    """Says that it is in a line, and how it looks."""

    def __init__(self, world: World) -> None:
        self.world = world

    @property
    def co_firstlineno(self) -> Any:
        self.world.act()
        return self.world.Last()

    def __repr__(self) -> str:
        self.world.act()
        return "evil"

    def __getitem__(self, name: str) -> Any:
        self.world.act()
        return self.world.Last()

    def __del__(self) -> None:
        self.world.act()


REPLACED = (
    *(("asyncio.tasks", name) for name in ("sleep", "wait", "wait_for", "gather", "shield")),
    *(("asyncio.tasks", name) for name in ("ensure_future", "create_task", "as_completed")),
    *(("asyncio.timeouts", name) for name in ("timeout", "timeout_at")),
    *(("_asyncio", name) for name in ("get_running_loop", "current_task", "_swap_current_task")),
)


def new_module(world: World, wrong: Callable[[str], bool] = lambda name: True) -> Any:
    """The extension once more, made while asyncio's functions are others."""
    spec = sys.modules["ctask._ctask"].__spec__
    module = importlib.util.module_from_spec(spec)
    with contextlib.ExitStack() as stack:
        for owner, name in REPLACED:
            real = getattr(sys.modules[owner], name, None)
            if real is not None and wrong(name):
                function = Function(world, real)
                stack.enter_context(patched(sys.modules[owner], name, function))
        spec.loader.exec_module(module)
    return module


def looked_at(world: World, coroutine: Any) -> None:
    world.undo.append(coroutine.close)
    with world.quietly():
        coroutine.send(None)
    for _ in range(2):
        for look in (
            lambda: coroutine.cr_code,
            lambda: coroutine.cr_frame.f_code,
            lambda: coroutine.cr_frame.f_globals,
            lambda: coroutine.cr_frame.f_lineno,
            lambda: coroutine.cr_frame.f_locals,
            lambda: coroutine.cr_frame.__qualname__,
            lambda: repr(coroutine.cr_frame),
            lambda: coroutine.cr_frame.cr_await,
            lambda: coroutine.cr_await,
            lambda: coroutine.cr_await.cr_await,
            lambda: coroutine.cr_await.f_code,
            lambda: coroutine.cr_await.f_lineno,
            lambda: coroutine.cr_await.__qualname__,
            lambda: repr(coroutine.cr_await),
        ):
            with world.quietly():
                look()
    kept: list[Any] = [{} for _ in range(100)]  # no empty dictionary is at hand
    for _ in range(5):
        with world.quietly():
            kept.append(coroutine.cr_frame.f_locals)
    with world.quietly():
        coroutine.throw(ValueError(world.Last()))


def stand_ins(world: World) -> None:
    for wrong in (lambda name: True, lambda name: name not in ("get_running_loop", "current_task")):
        with world.quietly():
            module = new_module(world, wrong)
            future = world.loop.create_future()
            asyncio._set_running_loop(world.loop)
            for call in (
                lambda: module.sleep(1, world.Last()),
                lambda: module.sleep(0, world.Last()),
                lambda: module.wait([future], timeout=5),
                lambda: module.wait_for(future, None),
                lambda: module.wait_for(future, 5),
                lambda: module.as_completed([future]).__next__(),
                lambda: module.shield(future),
                lambda: module.gather(future),
                lambda: module.create_task(world.coroutine()),
                lambda: module.ensure_future(world.coroutine()),
                lambda: module.timeout(5).__aenter__(),
            ):
                with world.quietly():
                    looked_at(world, call())
            asyncio._set_running_loop(None)
            for name in sorted(vars(module)):
                function = vars(module)[name]
                if type(function).__name__ == "Standin":
                    for call in (
                        lambda: repr(function),
                        lambda: copy.copy(function),
                        lambda: pickle.dumps(function),
                        lambda: function.__reduce_ex__(2),
                        lambda: function.__wrapped__,
                        lambda: function(),
                        lambda: function(Evil(world), Evil(world), evil=Evil(world)),
                    ):
                        with world.quietly():
                            call()
            del function, call
        module = None
        world.collect()


def frames_of_others(world: World) -> None:
    """What a coroutine awaits is asked of its owner's class, which may say anything."""

    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            if name in ("acquire", "_aexit", "_wait_for_one"):
                world.act()
                with contextlib.suppress(AttributeError):
                    return type.__getattribute__(cls, "inner")()
                if world.rng.random() < 0.3:
                    raise world.error()
            return type.__getattribute__(cls, name)

    for base in (asyncio.Lock, asyncio.TaskGroup):
        for how in range(4):
            inner = (lambda: Function(world, print), world.Last, lambda: Shown(world), None)[how]
            body = {"inner": staticmethod(inner)} if inner else {}
            with world.quietly():
                owner = Meta(base.__name__, (base,), body)()
                asyncio._set_running_loop(world.loop)
                if base is asyncio.Lock:
                    owner._locked = True
                    coroutine = owner.__aenter__()
                else:
                    owner._loop, owner._entered = world.loop, True
                    owner._tasks = {world.loop.create_future()}
                    owner._on_completed_fut = Driven(world, None)
                    coroutine = owner.__aexit__(None, None, None)
                looked_at(world, coroutine)
                del coroutine
            asyncio._set_running_loop(None)
    queue = [cls for cls in asyncio.Queue.__mro__ if cls.__module__ == "asyncio.queues"][-1]
    for value in (descriptor(world, lambda obj: world.Last()), descriptor(world)):
        with patched(queue, "get", value), world.quietly():
            asyncio._set_running_loop(world.loop)
            found = asyncio.as_completed([world.loop.create_future()])
            looked_at(world, next(iter(found)))
        asyncio._set_running_loop(None)
    names = vars(sys.modules["asyncio.tasks"])
    with world.quietly(), haunted(world, names, "_wait"):
        asyncio._set_running_loop(world.loop)
        looked_at(world, asyncio.wait([world.loop.create_future()]))
    asyncio._set_running_loop(None)


def ended_as_they_are_looked_at(world: World) -> None:
    """Who is asked what a coroutine awaits ends it, and nobody else has what it waited for."""

    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            if name == "acquire" and held:
                held.pop().close()
                world.act()
                if how == 0:
                    raise KeyboardInterrupt(world.Last())
                if how == 1:
                    raise ValueError(world.Last())
            return type.__getattribute__(cls, name)

    held: list[Any] = []
    for how in range(3):
        owner = Meta("Lock", (asyncio.Lock,), {})()
        owner._locked = True
        asyncio._set_running_loop(world.loop)
        coroutine = owner.__aenter__()
        with world.quietly():
            coroutine.send(None).add_done_callback(guarded(world))
        asyncio._set_running_loop(None)
        held.append(coroutine)
        with world.quietly():
            coroutine.cr_await  # noqa: B018


def collections(world: World) -> None:
    """Where C asks for memory (3.11)."""

    def looked_at() -> Callable[[], Any]:
        coroutine = asyncio.sleep(5)
        asyncio._set_running_loop(world.loop)
        coroutine.send(None)
        asyncio._set_running_loop(None)
        world.undo.append(coroutine.close)
        return partial(getattr, coroutine.cr_frame, "f_locals")

    collecting(world, looked_at)
    kind = type("Lock", (asyncio.Lock,), {"__slots__": ("more",)})
    collecting(world, lambda: kind)


def results_kept(world: World) -> None:
    """The StopIteration that is kept for results, and who else has had it."""

    def got() -> Any:
        queue = asyncio.Queue[Any]()
        queue.put_nowait(world.Last())
        return queue.get()

    for _ in got():
        pass
    list(got())

    def kept(more: Callable[[Any], Any]) -> Any:
        mapped = map(world.callback(), got())
        try:
            next(mapped)
        except StopIteration as stop:
            with contextlib.suppress(BaseException):
                more(stop)
        return mapped

    for more in (
        lambda stop: setattr(stop, "guard", world.Last()),
        lambda stop: stop.add_note("evil"),
        lambda stop: setattr(stop, "value", world.Last()),
        lambda stop: setattr(stop, "args", (world.Last(),)),
        lambda stop: setattr(stop, "__context__", ValueError(world.Last())),
        world.keep,
    ):
        mapped = kept(more)
        list(got())
        del mapped
        mapped, other = kept(more), kept(more)
        del mapped, other
        world.collect()
    for _ in range(3):
        for coroutine in (got(), asyncio.sleep(0, world.Last())):
            with world.quietly():
                coroutine.send(None)
            with world.quietly():
                coroutine.send(None)


def short_of_memory(world: World) -> None:
    """There is none for the StopIteration that would have the result."""
    try:
        import _testcapi
    except ImportError:
        return

    def got() -> Any:
        queue = asyncio.Queue[Any]()
        queue.put_nowait(world.Last())
        return queue.get()

    def done() -> Any:
        future = world.loop.create_future()
        future.set_result(world.Last())
        return future

    def by_send() -> Any:
        return got().send

    def by_next() -> Any:
        return got()

    for make in (by_send, by_next, done):
        for number in range(4):
            made = make()
            arguments = () if make is not by_send else (None,)
            call = made if make is by_send else made.__await__().__next__ if make is done else None
            if make is done and number % 2:
                call = None
            with world.quietly():
                _testcapi.set_nomemory(number // 2, number // 2 + 1)
                try:
                    next(made) if call is None else call(*arguments)
                finally:
                    _testcapi.remove_mem_hooks()
            del made, call


def haunted_classes(world: World) -> None:
    """A class whose dictionary has an evil key beside the names that are looked up in it."""

    class Key:
        def __init__(self, name: str) -> None:
            self.name = name

        def __hash__(self) -> int:
            return hash(self.name)

        def __eq__(self, other: object) -> bool:
            world.act()
            return False

    for cls, name, call in (
        (asyncio.Lock, "_get_loop", "acquire"),
        (asyncio.Lock, "locked", "acquire"),
        (asyncio.Condition, "_get_loop", "wait"),
        (asyncio.Queue, "_put", "get"),
        (asyncio.Queue, "qsize", "get"),
        (asyncio.TaskGroup, "_on_task_done", "__aenter__"),
        (asyncio.Timeout, "_on_timeout", "__aenter__"),
        (asyncio.StreamReader, "_wait_for_data", "read"),
    ):
        with world.quietly():
            kind = type(cls.__name__, (cls,), {Key(name): None})
            args = (None,) if cls is asyncio.Timeout else ()
            obj = kind(*args)
            world.undo.append(lambda kind=kind: setattr(kind, "evil", 5))
            getattr(obj, call)().send(None)
            for each in ("evil", "_loop", name):
                with world.quietly():
                    vars(obj)[each] = world.Last()
                with world.quietly():
                    getattr(obj, call)().send(None)
            vars(obj)


def put_away(world: World, obj: Any) -> None:
    """The object has another dictionary when the look at its own fails."""

    class Key:
        def __hash__(self) -> int:
            return hash("_loop")

        def __eq__(self, other: object) -> bool:
            if armed:
                armed.clear()
                obj.__dict__ = {}
                world.act()
                raise ValueError(world.Last())
            return self is other

    armed: list[int] = []
    vars(obj).update({Key(): world.Last(), "other": world.Last()})
    armed.append(1)
    vars(obj)


def emptied(world: World) -> None:
    """A core's dictionary, put away or emptied by what goes when it is read or written."""
    for name in ("Lock", "Event", "Semaphore", "Queue", "TaskGroup"):
        base = getattr(asyncio, name)
        with world.quietly():
            put_away(world, base())
        with world.quietly():
            kind = type(name, (base,), {"__slots__": ("more",)})
            for _ in range(10):
                world.act()
                kind()
        for kind in (base, type(name, (base,), {"plain": 5, "evil": descriptor(world)})):
            with world.quietly():
                obj = kind()
                world.undo.extend(
                    (
                        lambda: vars(obj).clear(),
                        lambda: setattr(obj, "__dict__", {}),
                        lambda: setattr(obj, "__class__", base),
                    )
                )
                for field in ("_loop", "_waiters", "_value", "_errors", "_finished", "plain"):
                    names = vars(obj)
                    for value in (world.Last(), world.Last(), Evil(world)):
                        names[field] = value
                    del value
                    with world.quietly():
                        obj._loop  # noqa: B018
                    with world.quietly():
                        obj.__dict__ = {field: world.Last(), "other": world.Last()}
                    with world.quietly():
                        vars(obj)
                    with world.quietly(), haunted(world, vars(obj), field):
                        obj._loop  # noqa: B018
                        vars(obj)
                del names
    for event in (acting(world, asyncio.Event), failing(world)):
        for module in ("asyncio.locks", "ctask._locks"):
            with world.quietly(), patched(sys.modules[module], "Event", event):
                queue = asyncio.Queue[Any]()
                names = vars(queue)
                names["_finished"] = world.Last()
                vars(queue)


def other_makers(world: World) -> None:
    """Who makes the object behind a core is a program's."""

    class Maker:
        def __call__(self, *args: Any, **more: Any) -> Any:
            world.act()
            return world.Last()

        def __eq__(self, other: object) -> bool:
            world.act()
            raise ValueError(world.Last())

        __hash__ = None

        def __del__(self) -> None:
            world.act()

    class Gets:
        def __get__(self, obj: Any, kind: Any = None) -> Any:
            world.act()
            return Maker()

    for name in ("Lock", "Queue", "TaskGroup"):
        base = getattr(asyncio, name)
        for made in (Maker(), Gets(), world.Last()):
            for last in (Exception, dict):
                with world.quietly():
                    behind = type("Behind", (last,), {"__new__": made})
                    kind = type(name, (base, behind), {"__init__": lambda *args: world.act()})
                    for args in ((), (Evil(world),)):
                        with world.quietly():
                            kind(*args)
                with world.quietly():
                    base.__new__(type(name, (base, last), {}))


def awaited_twice(world: World) -> None:
    """A coroutine in Python that somebody else awaits already."""

    @types.coroutine
    def pause() -> Any:
        yield world.Last()

    async def inner() -> None:
        guard = world.Last()
        await pause()
        del guard

    coroutine = inner()

    async def outer() -> None:
        await coroutine

    other = outer()
    with world.quietly():
        other.send(None)
    asyncio._set_running_loop(world.loop)
    for wait in (lambda: asyncio.wait_for(coroutine, None), lambda: asyncio.wait_for(coroutine, 5)):
        with world.quietly():
            wait().send(None)
    asyncio._set_running_loop(None)


SITUATIONS: list[Callable[[World], Any]] = [
    stand_ins,
    frames_of_others,
    results_kept,
    short_of_memory,
    haunted_classes,
    emptied,
    other_makers,
    awaited_twice,
    ended_as_they_are_looked_at,
    collections,
]
