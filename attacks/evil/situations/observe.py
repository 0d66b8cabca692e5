"""A loop that is traced, measured, watched: what begins and ends that, and what it lets go of."""

# mypy: ignore-errors
# ruff: noqa: B023, F821
# (Attributes that types do not know are what this is about; each call is made in its turn.)

from __future__ import annotations

import _asyncio
import asyncio
import contextlib
import contextvars
import functools
import importlib.util
import os
import socket
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from ctask import _ctask

from ..objects import Evil, Number, Real, World
from . import combinators, coro, handles, io, loop, streams, sync, tasks
from .tools import Truth, collecting, failing, guarded, patched, playing, turns

MEMORY = 1 << 13  # of a trace: its ring is full after some records


@contextlib.contextmanager
def traced(world: World, module: Any = _ctask) -> Iterator[None]:
    """Meanwhile evil code may end the trace, and begin another."""

    def stops() -> None:
        module._trace_stop(world.rng.random() < 0.5)

    def again() -> None:
        stops()
        module._trace_start(MEMORY)

    changes = (stops, again, lambda: module._trace_collection(-1), lambda: None)
    world.undo.append(lambda: world.rng.choice(changes)())
    module._trace_start(MEMORY)
    try:
        yield
    finally:
        with world.quietly():
            stops()
        with world.quietly():
            module._trace_stop(False)


def measured(world: World) -> None:
    """Evil code may begin to measure, and end it."""
    made = world.loop
    made._observe(True)
    world.undo.append(lambda: made._observe(world.rng.random() < 0.5))
    world.undo.append(made._histograms)


class Index:
    """A number that is evil, and then `value`."""

    def __init__(self, world: World, value: Any) -> None:
        self.world, self.value = world, value

    def __index__(self) -> Any:
        self.world.act()
        return self.value

    def __float__(self) -> Any:
        self.world.act()
        return float(self.value)

    def __del__(self) -> None:
        self.world.act()


def in_a_turn(world: World, call: Callable[[], Any]) -> None:
    """Outside the loop, and while it runs."""
    with world.quietly():
        call()

    def quiet() -> None:
        with world.quietly():
            call()

    world.loop.call_soon(quiet)
    world.loop.call_later(0, quiet)
    turns(world)


# ---- arguments ----


def arguments_of_a_trace(world: World) -> None:
    numbers = [Index(world, MEMORY), Index(world, -1), Index(world, 1 << 80), Index(world, "x")]
    numbers += [Number(world, MEMORY), Evil(world), Real(world, 1.0), world.Last(), -5, 1 << 62]
    for number in numbers:
        world.undo[:] = [lambda: _ctask._trace_start(number), lambda: _ctask._trace_stop(True)]
        in_a_turn(world, lambda: _ctask._trace_start(number))
        for generation in (Index(world, -1), Index(world, 2), Index(world, 1 << 70), number):
            in_a_turn(world, lambda: _ctask._trace_collection(generation))
        in_a_turn(world, lambda: _ctask._trace_stop(Truth(world, world.rng.random() < 0.5)))
    _ctask._trace_stop(False)


def arguments_of_a_measurement(world: World) -> None:
    made = world.loop
    world.undo.append(lambda: made._observe(False))
    world.undo.append(lambda: made._observe(True))
    for yes in (Truth(world, True), Truth(world, False), Evil(world), [world.Last()]):
        in_a_turn(world, lambda: made._observe(yes))
        in_a_turn(world, made._histograms)
    made.close()
    in_a_turn(world, lambda: made._observe(Truth(world, True)))


# ---- what a trace keeps, and lets go of ----


def functions_that_are_gone(world: World) -> None:
    """Code, and names of coroutines, that only the trace has: it may run anything at its end."""

    class Name(str):
        __slots__ = ("__weakref__",)

        def __del__(self) -> None:
            world.act()

    refs = []
    for number in range(3):
        with traced(world):
            code = (lambda: None).__code__
            code = code.replace(co_consts=(*code.co_consts, world.Last()))
            refs.append(weakref.ref(code, lambda ref: world.act()))
            world.loop.call_soon(types.FunctionType(code, {}))
            coroutine = world.coroutine()
            coroutine.__qualname__ = Name("evil")
            task = world.loop.create_task(coroutine)
            del code, coroutine, task
            turns(world)
            if number == 1:
                world.loop.close()


def ring_goes_round(world: World) -> None:
    """The youngest records take the place of the oldest, which have names."""

    class Text(str):
        def __del__(self) -> None:
            world.act()

    async def ends(number: int) -> Any:
        return world.Last() if number % 20 == 0 else None

    with traced(world):
        for number in range(200):
            name = Text(f"evil {number}") if number % 2 else f"evil {number}"
            with world.quietly():
                world.loop.create_task(ends(number), name=name)
            del name
            if number % 50 == 0:
                turns(world, 1)
        turns(world)


def wake_ups_by_hand(world: World) -> None:
    """The wake-up of a task is called by a handle, which is cancelled: the trace alone has it."""

    class Task(asyncio.Task):
        def __del__(self) -> None:
            world.act()

    async def waits(future: Any, handles: list[Any]) -> Any:
        guard = world.Last()
        with contextlib.suppress(asyncio.InvalidStateError):
            await future
        for handle in handles:
            handle.cancel()
        handles.clear()
        if world.rng.random() < 0.3:
            raise ValueError(guard)
        return guard

    for kind in (asyncio.Task, Task):
        for make in (world.loop.call_soon, world.loop.call_soon_threadsafe):
            with traced(world):
                future, found = world.loop.create_future(), []
                task = kind(waits(future, found), loop=world.loop)
                turns(world, 1)
                (wake_up, _), *_ = future._callbacks
                future.remove_done_callback(wake_up)
                task._log_destroy_pending = False
                with world.quietly():
                    found.append(make(wake_up, future))
                del task, wake_up
                turns(world)


def partial_class(world: World) -> type:
    """functools.partial as it is without its module in C, and evil."""

    class Partial:
        def __init__(self, function: Any, handles: list[Any]) -> None:
            self.function, self.handles = function, handles

        @property
        def func(self) -> Any:
            for handle in self.handles:
                handle.cancel()
            self.handles.clear()
            world.act()
            return self.function()

        def __call__(self, *args: Any) -> Any:
            world.act()

        def __del__(self) -> None:
            world.act()

    return Partial


def partials(world: World) -> None:
    """What a trace asks a partial for, which is a program's own."""
    spec = sys.modules["ctask._ctask"].__spec__
    kind = partial_class(world)
    with patched(functools, "partial", kind):
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    made = module.Loop()
    world.undo.append(lambda: made._observe(world.rng.random() < 0.5))
    inside = (
        lambda: guarded(world),
        lambda: Evil(world),
        lambda: types.MethodType(Evil(world), world.Last()),
        lambda: kind(lambda: guarded(world), []),
        lambda: kind(failing(world), []),
        failing(world),
        functools.partial(guarded, world),
        lambda: made._run_once,
    )
    try:
        for function in inside:
            with traced(world, module):
                made._observe(world.rng.random() < 0.5)
                found: list[Any] = []
                for make in (made.call_soon, functools.partial(made.call_later, 0)):
                    with world.quietly():
                        found.append(make(kind(function, found)))
                    with world.quietly():
                        make(kind(function, []), world.Last())
                    with world.quietly():
                        make(types.MethodType(kind(function, []), world.Last()))
                for _ in range(8):
                    with world.quietly():
                        made.call_soon(int)  # it does not wait
                        made._run_once()
    finally:
        with world.quietly():
            made._release()


def collections_while_measured(world: World) -> None:
    """Where C asks for memory to tell what it has seen (3.11)."""
    measured(world)
    collecting(world, lambda: world.loop._histograms)


def collections_as_a_trace_ends(world: World) -> None:
    def prepared() -> Callable[[], Any]:
        with contextlib.suppress(RuntimeError):
            _ctask._trace_start(MEMORY)
        world.loop.call_soon(guarded(world))
        turns(world, 1)
        lists: list[Any] = [[] for _ in range(90)]  # those that are there to be used again
        return lambda: (_ctask._trace_stop(True), lists)

    world.undo.append(lambda: _ctask._trace_start(MEMORY))
    try:
        collecting(world, prepared)
    finally:
        _ctask._trace_stop(False)


def others_observed(world: World) -> None:
    """Other situations, while the loop is traced and measured."""
    situations = [
        situation
        for room in (loop, tasks, handles, io, coro, combinators, sync, streams)
        for situation in room.SITUATIONS
        if situation.__module__ != __name__ and situation.__name__ != "collections"
    ]
    with traced(world):
        measured(world)
        with world.quietly():
            world.rng.choice(situations)(world)
        turns(world)


# ---- descriptors ----


class File:
    """Its fileno() raises once it was registered, its repr() always; it takes something along."""

    def __init__(self, world: World, fd: int, error: type[Exception]) -> None:
        self.world, self.fd, self.error = world, fd, error

    def fileno(self) -> int:
        self.world.act()
        if self.fd < 0:
            raise self.error(self.world.Last())
        return self.fd

    def __repr__(self) -> str:
        self.world.act()
        raise self.error(self.world.Last(), Evil(self.world))

    def __del__(self) -> None:
        self.world.act()


def raising(world: World, error: type[Exception]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        world.act()
        raise error(world.Last())

    return call


def files_that_fail(world: World) -> None:
    made = world.loop
    one, other = socket.socketpair()
    world.keep(one)
    world.keep(other)
    world.undo.extend((lambda: made._remove_reader(one), made.close))
    errors = [type("Error", (kind,), {}) for kind in (ValueError, OverflowError, AttributeError)]
    asked = made._owner, made._watched, made._remove_writer, made._remove_reader
    for error in errors:
        for value in (-5, 1 << 40):
            for call in asked:
                with world.quietly():
                    call(type("Number", (int,), {"__str__": raising(world, error)})(value))
        for registered in (True, False):
            file = File(world, one.fileno(), error)
            with world.quietly():
                if registered:
                    made._add_reader(file, guarded(world), world.Last())
            file.fd = -1
            for call in asked:
                with world.quietly():
                    call(file)
            with world.quietly():
                made._add_writer(file, guarded(world))


def handles_that_cannot_be_cancelled(world: World) -> None:
    """What is watched in place of a handle, by who cannot hear of that."""
    made = world.loop

    class Raises:
        def __bool__(self) -> bool:
            world.act()
            raise ValueError(world.Last())

        def __del__(self) -> None:
            world.act()

    async def receives(sock: Any) -> Any:
        await made.sock_recv(sock, 5)

    async def connects(sock: Any) -> Any:
        await made.create_connection(asyncio.Protocol, sock=sock)

    async def lost(sock: Any) -> Any:
        transport, _ = await made.create_connection(asyncio.Protocol, sock=sock)
        fd = sock.fileno()
        made._add_writer(fd, guarded(world))._cancelled = Raises()
        transport.abort()

    for use in (receives, connects, lost):
        one, other = socket.socketpair()
        one.setblocking(False)
        world.keep(other)
        world.undo.append(lambda: made._remove_reader(one.fileno()))
        for add in (made._add_reader, made._add_writer):
            with world.quietly():
                add(one.fileno(), guarded(world), world.Last())._cancelled = Raises()
        playing(world, use(one), 2)
        world.keep(one)
        del one


# ---- children ----


def children(world: World) -> None:
    """The pidfd of a child, and its status, are asked of functions that are evil."""
    made = world.loop
    var = contextvars.ContextVar[Any]("var", default=None)

    class Transport:
        def _process_exited(self, returncode: Any) -> Any:
            world.act()
            return world.Last()

        def _status_taken(self) -> Any:
            world.act()
            return world.Last()

        def __del__(self) -> None:
            world.act()

    class Waited:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            world.act()
            return Index(world, 0)

    class Leaves:
        """The handle that is replaced has the new one taken away, and its context go."""

        def __bool__(self) -> bool:
            var.set(None)
            made._remove_reader(descriptors[-1])
            world.act()
            return world.rng.random() < 0.5

    one, other = socket.socketpair()
    other.send(b"evil")
    world.keep(one)
    world.keep(other)
    descriptors: list[int] = []

    def opened(pid: Any) -> Any:
        world.act()
        descriptors.append(os.dup(one.fileno()))
        return Index(world, descriptors[-1]) if world.rng.random() < 0.5 else descriptors[-1]

    def watched(pid: Any) -> Any:
        number = opened(pid)
        made._add_reader(descriptors[-1], guarded(world))._cancelled = Leaves()
        return number

    def closed(pid: Any) -> Any:
        made.close()
        return opened(pid)

    wrong = raising(world, ChildProcessError), raising(world, OSError), failing(world)
    for opens in (opened, watched, *wrong, lambda pid: Index(world, -5), closed):
        for reaps in (lambda *args: Waited(), *wrong, lambda *args: (0, Index(world, 256))):
            with patched(os, "pidfd_open", opens), patched(os, "waitpid", reaps):
                with world.quietly():
                    var.set(world.Last())
                    made._watch_child(Transport(), world.Last())
                turns(world, 1)
                if world.rng.random() < 0.2:
                    world.collect()


# ---- watchdogs ----


def flag(world: World, size: int, value: int) -> Any:
    """A buffer that is evil when it is asked for and given back."""
    memory = bytearray([value] * size)
    if sys.version_info < (3, 12):
        return memory

    class Flag:
        def __buffer__(self, flags: int) -> memoryview:
            world.act()
            return memoryview(memory)

        def __release_buffer__(self, view: memoryview) -> None:
            world.act()
            memory.extend(b"")

        def __del__(self) -> None:
            world.act()

    return Flag()


class Which(list):
    """A sequence in place of a tuple."""


def watchdogs(world: World) -> None:
    """They wait as long as the loop works: outside it the flag is set."""
    made = world.loop
    world.undo.append(lambda: _ctask._watchdog_stop(made, bytearray(1)))
    short, none = Index(world, 0.001), Index(world, 0)
    short.value = 0.001

    def with_flags(value: int) -> None:
        which = (Index(world, 1), 1)
        for size in (0, 1):
            for call in (
                lambda: _ctask._watchdog_wait(made, 0.001, flag(world, size, value), 0.001),
                lambda: _ctask._watchdog_wait(made, short, flag(world, size, value), short),
                lambda: _ctask._watchdog_wait(made, 0.001, flag(world, size, value), none),
                lambda: _ctask._watchdog_wait(made, 0.001, flag(world, size, value), world.Last()),
                lambda: _ctask._watchdog_wait(made, -1.0, flag(world, size, value), 0.001),
                lambda: _ctask._watchdog_wait(made, short, Evil(world), short),
                lambda: _ctask._watchdog_end(made, which, short, flag(world, size, value)),
                lambda: _ctask._watchdog_end(made, Which(which), 0.001, flag(world, size, value)),
                lambda: _ctask._watchdog_end(made, (1, world.Last()), none, Evil(world)),
                lambda: _ctask._watchdog_stop(made, flag(world, size, value)),
                lambda: _ctask._watchdog_stop(made, Evil(world)),
                lambda: _ctask._watchdog_stop(Evil(world), flag(world, size, value)),
            ):
                with world.quietly():
                    call()

    with_flags(1)
    made.call_soon(with_flags, 1)
    made.call_soon(with_flags, 0)
    turns(world, 1)


# ---- callbacks without a context ----


def called_bare(world: World) -> None:
    """`_asyncio`'s own add_done_callback() takes None for a context: the loop calls without one."""
    made = world.loop

    class Callback:
        def __call__(self, future: Any) -> Any:
            world.act()
            return world.Last()

        def __del__(self) -> None:
            world.act()

    class Future(asyncio.Future):
        __del__ = Callback.__del__

    measured(world)
    for traces in (False, True):
        with traced(world) if traces else contextlib.nullcontext():
            for callback in (Callback(), failing(world), Evil(world), guarded(world), os.getpid):
                future = world.rng.choice((asyncio.Future, Future))(loop=made)
                with world.quietly():
                    _asyncio.Future.add_done_callback(future, callback, context=None)
                del callback
                with world.quietly():
                    future.set_result(world.Last())
                del future
                turns(world, 1)


SITUATIONS: list[Callable[[World], Any]] = [
    arguments_of_a_trace,
    arguments_of_a_measurement,
    functions_that_are_gone,
    ring_goes_round,
    wake_ups_by_hand,
    partials,
    collections_while_measured,
    collections_as_a_trace_ends,
    others_observed,
    others_observed,
    files_that_fail,
    handles_that_cannot_be_cancelled,
    children,
    watchdogs,
    called_bare,
]
