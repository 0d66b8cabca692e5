"""What an evil program is made of: values whose every method does something bad, and what it does.

All choices are those of a generator that is set anew for each step, so that a step does the same
whether or not the steps before it are left out.
"""

from __future__ import annotations

import asyncio
import gc
import io
import random
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

ERRORS = (ValueError, AttributeError, KeyError, RuntimeError, StopIteration, OSError, MemoryError)
WORSE = (asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit)

# Methods that would stop the program, or that leave the process.
FORBIDDEN = {
    "_make_legacy_subprocess_transport",
    "_make_subprocess_transport",
    "_run_forever_cleanup",
    "get_extra_info_process",
    "getaddrinfo",
    "getnameinfo",
    "kill",
    "run_forever",
    "run_in_executor",
    "run_until_complete",
    "send_signal",
    "set_default_executor",
    "shutdown_default_executor",
    "subprocess_exec",
    "subprocess_shell",
    "terminate",
    "__class__",
    "__getattribute__",
    "__init_subclass__",
    "__reduce__",
    "__reduce_ex__",
    "__setstate__",
    "__subclasshook__",
}


def owns_descriptor(subject: object) -> bool:
    """Of the numbers that it may be given, some are descriptors of others."""
    return issubclass(type(subject), (socket.socket, io.IOBase))


class Quiet:
    """Exceptions end here; those that say that C code is wrong are kept."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        for _ in range(100):  # they may go round
            if error is None or isinstance(error, SystemError):
                break
            error = error.__cause__ or error.__context__
        self.world.told(error)
        return True


class World:
    """One program: its subjects, its loop, and what evil code may do now."""

    def __init__(self, seed: str, marks: Callable[[], None] | None) -> None:
        self.seed = seed
        self.marks = marks
        self.rng = random.Random(seed)
        self.subjects: list[Any] = []
        self.makers: list[Callable[[], Any]] = []
        self.scenes: list[Callable[[World], Any]] = []
        self.loop: Any = None
        self.depth = self.budget = self.wait = 0
        self.deed: Callable[[World], None] | None = None  # all that evil code does, if it is given
        self.undo: list[Callable[[], Any]] = []  # what takes back that a situation was made
        self.directed = False  # it goes through situations, in which nothing else is evil
        self.littering = False
        self.broken: list[str] = []
        self.Last = type("Last", (), {"__slots__": (), "__del__": lambda last: self.act()})

    def step(self, number: int) -> None:
        self.rng = random.Random(f"{self.seed}:{number}")
        self.budget = self.rng.choice((0, 1, 2, 4, 8))

    # ---- what evil code does ----

    def act(self) -> None:
        """Called by every evil method."""
        if self.marks:
            self.marks()
        if self.littering and not self.depth:
            self.litter()
        if self.wait > 0:
            self.wait -= 1
            return
        if self.depth >= 3 or self.budget <= 0 or sys.is_finalizing():
            return
        self.budget -= 1
        self.depth += 1
        try:
            action = self.deed or self.rng.choice(self.ACTIONS)
            action(self)
        finally:
            self.depth -= 1

    def quietly(self) -> Quiet:
        return Quiet(self)

    def told(self, error: object) -> None:
        """Of an error that nobody may have asked for."""
        if isinstance(error, SystemError):
            self.broken.append(f"SystemError: {error}")

    def collect(self) -> None:
        gc.collect()

    def free(self) -> None:
        for _ in range(self.rng.randrange(1, 4)):
            if self.subjects:
                del self.subjects[self.rng.randrange(len(self.subjects))]

    def free_all(self) -> None:
        self.subjects.clear()
        gc.collect()

    def reenter(self) -> None:
        for _ in range(self.rng.randrange(1, 4)):
            self.something()

    def spoil(self) -> None:
        subject = self.subject()
        for _ in range(self.rng.randrange(1, 4)):
            with self.quietly():
                name = self.name(subject, private=True)
                if self.rng.random() < 0.6:
                    delattr(subject, name)
                else:
                    setattr(subject, name, self.value())

    def again(self) -> None:
        subject = self.subject()
        with self.quietly():
            if not owns_descriptor(subject):
                subject.__init__(*self.arguments())

    def raises(self) -> None:
        raise self.error()

    def close(self) -> None:
        with self.quietly():
            self.loop.close()

    def stop(self) -> None:
        with self.quietly():
            self.loop.stop()

    def switch(self) -> None:
        """Another task is the current one; and not always back."""
        with self.quietly():
            name = self.rng.choice(("enter", "leave", "register", "unregister", "swap_current"))
            function = getattr(asyncio.tasks, f"_{name}_task")
            arguments = [self.loop, self.value()]
            # _asyncio's own functions show the current task in what they raise, and do not hold it.
            held = asyncio.current_task(self.loop)
            function(*arguments[name.endswith("register") :])
            del held

    def turn(self) -> None:
        with self.quietly():
            self.loop.call_soon(int)
            self.loop._run_once()

    def leave(self) -> None:
        """Now and then: what runs runs no more, and is nobody's."""
        if self.rng.random() < 0.1:
            asyncio._set_running_loop(None)
            self.subjects.clear()

    ACTIONS = (
        [collect] * 3
        + [free] * 3
        + [free_all]
        + [reenter] * 4
        + [spoil] * 4
        + [again]
        + [raises] * 3
        + [close, stop, switch, turn]
    )

    def undoes(self) -> None:
        for function in self.undo:
            with self.quietly():
                function()

    def found(self) -> None:
        """What nobody else can see yet, or any more, the collector can; its slots are spoiled."""
        for kind, name in (("Handle", "_repr"), ("TimerHandle", "_source_traceback")):
            for obj in gc.get_objects():
                if type(obj).__name__ == kind:
                    with self.quietly():
                        setattr(obj, name, self.Last())

    def nothing(self) -> None:
        pass

    # What evil code does in a situation that was made for it: one of them, whenever it runs.
    DEEDS = (
        *(nothing, collect, free_all, undoes, reenter, spoil, found, again, raises),
        *(close, stop, switch, turn),
    )

    def litter(self) -> None:
        """Garbage whose end is evil: up to 3.11 a collection comes where C asks for memory."""
        cycle = Evil(self)
        object.__setattr__(cycle, "cycle", cycle)

    # ---- what there is ----

    def error(self) -> BaseException:
        kind = self.rng.choice(WORSE if self.rng.random() < 0.2 else ERRORS)
        return kind("evil")

    def subject(self) -> Any:
        if not self.subjects or self.rng.random() < 0.05:
            return self.make()
        return self.rng.choice(self.subjects)

    def make(self) -> Any:
        with self.quietly():
            made = self.rng.choice(self.makers)()
            if len(self.subjects) < 40:
                self.subjects.append(made)
            return made
        return None

    def name(self, subject: Any, private: bool = False) -> str:
        names = [name for name in sorted(dir(subject)) if name not in FORBIDDEN]
        if owns_descriptor(subject):
            names.remove("__init__")
        if private:
            names = [name for name in names if not name.startswith("__")] or names
        elif self.rng.random() < 0.7:
            names = [name for name in names if name[0] != "_"] or names
        return self.rng.choice(names) if names else "__doc__"

    def value(self) -> Any:
        rng = self.rng
        kind = rng.randrange(20)
        if kind < 6:
            return Evil(self)
        if kind < 9:
            return self.subject()
        if kind == 9:
            return rng.choice((0, 1, -1, 2, 7, 1 << 40, 1 << 80, True))
        if kind == 10:
            return rng.choice((0.0, 0.001, -1.0, float("nan"), float("inf"), 1e300))
        if kind == 11:
            return rng.choice(("evil", "", "_loop", "socket", Text(self, "evil"), b"evil", b""))
        if kind == 12:
            return rng.choice(([], (), {}, set(), [Evil(self)], (Evil(self),), {Evil(self)}))
        if kind == 13:
            return self.coroutine()
        if kind == 14:
            return self.callback()
        if kind == 15:
            return self.loop
        if kind == 16:
            return rng.choice((Number(self, 1), Real(self, 0.001), Many(self, [1, Evil(self)])))
        if kind == 17:
            return rng.choice((bytearray(b"evil"), memoryview(bytearray(b"evil")), Bytes(self)))
        if kind == 18:
            return self.error() if rng.random() < 0.5 else Error(self)
        return None

    def arguments(self) -> list[Any]:
        return [self.value() for _ in range(self.rng.choice((0, 1, 1, 1, 2, 2, 3)))]

    def callback(self) -> Callable[..., Any]:
        guard = Evil(self)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.act()
            return guard if self.rng.random() < 0.5 else None

        return call

    async def coroutine(self) -> Any:
        guard = Evil(self)
        try:
            for _ in range(self.rng.randrange(3)):
                self.act()
                await self.value()
        except BaseException:
            self.act()
            raise
        self.act()
        return guard

    # ---- what a program does ----

    def scene(self) -> None:
        with self.quietly():
            self.keep(self.rng.choice(self.scenes)(self))

    def something(self) -> None:
        """One thing with one subject, whatever comes of it."""
        with self.quietly():
            subject = self.subject()
            kind = self.rng.randrange(16)
            if kind < 9:
                method = getattr(subject, self.name(subject))
                if callable(method):
                    self.keep(method(*self.arguments()))
            elif kind == 9:
                setattr(subject, self.name(subject, private=True), self.value())
            elif kind == 10:
                delattr(subject, self.name(subject, private=True))
            elif kind == 11:
                self.look(subject)
            elif kind == 12:
                subject.send(None) if hasattr(subject, "send") else next(iter(subject))
            elif kind == 13 and not owns_descriptor(subject):
                self.keep(type(subject)(*self.arguments()))
            elif kind == 14:
                self.keep(self.loop.create_task(self.waits(subject)))
            else:
                self.make()

    def keep(self, value: Any) -> None:
        if len(self.subjects) < 40 and value is not None:
            self.subjects.append(value)

    def look(self, subject: Any) -> None:
        self.rng.choice(
            (repr, str, hash, bool, len, list, iter, lambda value: value == self.value())
        )(subject)

    async def waits(self, subject: Any) -> Any:
        self.act()
        return await subject


def method(result: Callable[[World], Any]) -> Callable[..., Any]:
    """A method that is evil, and then gives something, or raises."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        world: World = object.__getattribute__(self, "world")
        world.act()
        return result(world)

    return call


def chosen(*values: Any) -> Callable[[World], Any]:
    return lambda world: world.rng.choice(values)


def anything(world: World) -> Any:
    return world.value() if world.depth < 2 else None


def missing(world: World) -> Any:
    if world.rng.random() < 0.5:
        raise AttributeError("evil")
    return anything(world)


def ended(world: World) -> Any:
    if world.rng.random() < 0.6:
        raise StopIteration(None)
    return anything(world)


def iterated(world: World) -> Iterator[Any]:
    return iter([anything(world) for _ in range(world.rng.randrange(3))])


BOOLS = chosen(True, True, False, False, NotImplemented)
TEXTS = chosen("evil", "", "\udcff", "evil" * 99)
METHODS: dict[str, Callable[..., Any]] = {
    **{f"__{name}__": method(BOOLS) for name in ("eq", "ne", "lt", "le", "gt", "ge", "contains")},
    **{f"__{name}__": method(TEXTS) for name in ("str", "repr", "format")},
    **{
        f"__{name}__": method(anything)
        for name in (
            *("call", "getitem", "setitem", "delitem", "add", "radd", "sub", "rsub", "enter"),
            *("exit", "setattr", "delattr", "aiter", "anext", "aenter", "aexit"),
        )
    },
    "__bool__": method(chosen(True, False, True, False, 5)),
    "__len__": method(chosen(0, 1, 2, -1, 1 << 40)),
    "__hash__": method(chosen(0, 1, 2, 3)),
    "__index__": method(chosen(0, 1, 3, -1, 1 << 80)),
    "__int__": method(chosen(0, 1, -1)),
    "__float__": method(chosen(0.0, 0.001, -1.0, float("nan"), float("inf"))),
    "__bytes__": method(chosen(b"", b"evil")),
    "__iter__": method(iterated),
    "__await__": method(iterated),
    "__next__": method(ended),
    "__getattr__": method(missing),
    "__del__": method(lambda world: None),
    "__buffer__": method(lambda world: memoryview(bytearray(world.rng.choice((b"", b"evil"))))),
    "__release_buffer__": method(lambda world: None),
    "send": method(ended),
    "throw": method(ended),
    "close": method(anything),
    "fileno": method(chosen(-1, 1 << 20, None)),
}


class Base:
    """All of its methods are evil."""

    world: World

    def __init__(self, world: World, *args: Any) -> None:
        object.__setattr__(self, "world", world)

    def __getattribute__(self, name: str) -> Any:
        if name[:2] != "__":
            object.__getattribute__(self, "world").act()
        return object.__getattribute__(self, name)


for _name, _function in METHODS.items():
    setattr(Base, _name, _function)


class Evil(Base):
    _asyncio_future_blocking = True

    @property
    def __class__(self) -> type:
        world: World = object.__getattribute__(self, "world")
        world.act()
        return world.rng.choice((Evil, asyncio.Future, int, type))

    @__class__.setter
    def __class__(self, value: Any) -> None:
        pass


def derived(kind: type, *names: str) -> Callable[..., Any]:
    """A kind of `kind` with these methods evil, and its death."""
    methods = {f"__{name}__": METHODS[f"__{name}__"] for name in (*names, "del")}

    def new(cls: type, world: World, *args: Any) -> Any:
        made = kind.__new__(cls, *args)
        object.__setattr__(made, "world", world)
        return made

    def init(self: Any, world: World, *args: Any) -> None:
        if args and kind is list:
            self.extend(*args)

    body = {**methods, "__new__": new, "__init__": init}
    return type(f"Evil_{kind.__name__}", (kind,), body)


Text = derived(str, "eq", "hash", "str", "repr")
Number = derived(int, "index", "int", "float", "bool", "eq", "hash", "lt", "add", "radd")
Real = derived(float, "float", "lt", "gt", "eq", "hash", "add", "radd", "sub", "bool")
Many = derived(list, "len", "iter", "getitem", "bool", "eq")
Raised = derived(ValueError, "str", "repr", "eq", "hash", "bool")


def Bytes(world: World) -> Any:
    if sys.version_info >= (3, 12):
        return Evil(world)
    return derived(bytearray, "len", "bool", "eq")(world, b"evil")


def Error(world: World) -> Any:
    if world.rng.random() < 0.5:
        return Raised(world)
    return type("Kind", (ValueError,), {"__init__": lambda self, *args: world.act()})
