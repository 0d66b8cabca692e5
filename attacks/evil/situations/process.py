"""Child processes: their start by parts that are evil, and transports whose attributes are."""

# mypy: ignore-errors

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any

import ctask
from ctask import _ctask, _process, _spawn

from ..objects import World
from .tools import Truth, acting, failing, patched, turns

Transport = _process._UnixSubprocessTransport
_hooks: list[Callable[..., Any]] = []


def hook(event: str, args: Any) -> None:
    if _hooks and event in ("subprocess.Popen", "os.posix_spawn"):
        _hooks[-1](*args)


def restore() -> None:
    _hooks.clear()
    _process.set_class(ctask.EventLoop)


def haunting(world: World, base: type = object, **values: Any) -> type:
    """A class whose attributes are evil to read, and to write."""

    class Haunted(base):
        def __getattribute__(self, name: str) -> Any:
            if not name.startswith("__") and world.rng.random() < 0.4:
                world.act()
                if world.rng.random() < 0.2:
                    raise AttributeError(name, world.Last())
            return super().__getattribute__(name)

        def __setattr__(self, name: str, value: Any) -> None:
            if world.rng.random() < 0.4:
                world.act()
                if world.rng.random() < 0.2:
                    raise AttributeError(name, world.Last())
            super().__setattr__(name, value)

    for name, value in values.items():
        setattr(Haunted, name, value)
    return Haunted


class Waiter:
    """A future that is somebody's own."""

    def __init__(self, world: World, waiting: list[Any]) -> None:
        self.world, self.waiting = world, waiting

    def done(self) -> Any:
        self.waiting.clear()
        self.world.act()
        return Truth(self.world, False)

    def set_result(self, result: Any) -> Any:
        self.waiting.append(self.world.Last())
        self.world.act()
        return self.world.Last()

    def __del__(self) -> None:
        self.world.act()


def give_parts(world: World, look: Any, active: Any, cleanup: Any, child: Any) -> None:
    """What starts children is of others, who act."""

    def spawned(*args: Any, **kwargs: Any) -> Any:
        world.act()
        if world.rng.random() < 0.5:
            _process.set_class(ctask.EventLoop)
        return world.rng.choice((os.getpid(), world.Last(), 1 << 70, -5))

    def namespace(**values: Any) -> Any:
        return haunting(world, types.SimpleNamespace)(**values)

    def policy() -> Any:
        watcher = None if world.rng.random() < 0.8 else world.Last()
        return haunting(world, get_child_watcher=_process._NO_WATCHER, _watcher=watcher)()

    truth = Truth(world, True)
    _ctask._set_child_parts(
        ctask.EventLoop,
        _process.make_subprocess_transport,
        _process.subprocess_exec,
        haunting(world, Transport),
        world.rng.choice((failing(world), acting(world, lambda *args: world.Last()))),
        child,
        acting(world, lambda loop: None),
        _process._NO_WATCHER,
        namespace(get_event_loop_policy=acting(world, policy)),
        namespace(
            Popen=subprocess.Popen,
            _active=active,
            _cleanup=cleanup,
            _USE_POSIX_SPAWN=truth,
            _HAVE_POSIX_SPAWN_CLOSEFROM=truth,
        ),
        namespace(posix_spawn=spawned),
        subprocess.Popen,
        spawned,
        look,
        [13],
        [world.Last()],
    )


def starts(world: World) -> None:
    """By the parts of others: each is called, asked or compared somewhere."""
    made = world.loop
    world.undo.append(restore)
    acts, wrong = acting(world, lambda *args: world.Last()), failing(world)
    truth = Truth(world, True)
    for look in (lambda: truth, wrong):
        for active, cleanup in (([], wrong), (Truth(world, True), acts), ([1], wrong)):
            for child in (acts, wrong):
                give_parts(world, look, active, cleanup, child)
                protocol = haunting(world, asyncio.SubprocessProtocol)
                for command in ("/\u00e9", world.Last()), ("/no/such/program", "x"):
                    with (
                        world.quietly(),
                        patched(os, "pidfd_open", wrong if child is acts else acts),
                    ):
                        world.keep(made._start_child(protocol, command))
    name, function = "_make_subprocess_transport", _process.make_subprocess_transport
    for get in (acting(world, lambda self: world.Last()), acting(world, function.__get__), wrong):
        with patched(ctask.EventLoop, name, property(get)), world.quietly():
            made._start_child(asyncio.SubprocessProtocol, ("/no/such/program",))
    for parts in ((), (ctask.EventLoop,) * 16, (world.Last(),) * 16):
        with world.quietly():
            _ctask._set_child_parts(*parts)
    restore()
    turns(world, 1)


def recipe(world: World, *given: str) -> tuple[Any, ...]:
    """An object has what is given, and more that is evil to make."""
    values: list[Any] = ["made", 1, acting(world, list), "future", 2, None, "last", 0, world.Last()]
    for i, name in enumerate(given):
        values += name, 3 + i, None
    if world.rng.random() < 0.2:
        values += "fails", 1, failing(world)
    return tuple(values)


def creates(world: World) -> None:
    """create_subprocess_exec(): its coroutine is ended in each way, its classes are of others."""
    world.undo.append(restore)
    acts, truth = acting(world, lambda *args: world.Last()), Truth(world, True)
    wrong, opens = failing(world), acting(world, os.pidfd_open)
    names = ("_loop", "_transport", "_protocol", "pid")
    for n in range(40):
        protocol = haunting(world, asyncio.subprocess.SubprocessStreamProtocol)
        process = haunting(world, asyncio.subprocess.Process)
        module = haunting(world, types.SimpleNamespace)(
            SubprocessStreamProtocol=protocol, Process=process
        )

        def look(classes: tuple[type, ...] = (protocol, process)) -> Any:
            world.act()
            assert all(kind.__init__ for kind in classes)  # gives them a version
            return recipe(world, *names), recipe(world, *names)

        odd = acting(world, lambda: ((1, 2, 3), ("a", -1, 0)))
        looks = (look, look, look, wrong, odd)
        _ctask._set_subprocess_parts(
            module, protocol, process, world.rng.choice(looks), *[world.Last()] * 3
        )
        give_parts(world, lambda: truth, [], wrong, acts if n % 2 else wrong)

        def create(end: int, module: Any) -> None:
            coroutine = _ctask.create_subprocess_exec("/\u00e9", world.Last())
            with world.quietly(), patched(os, "pidfd_open", opens):
                coroutine.send(None)
                if end == 3:
                    vars(module)["Process"] = acts
                if end in (0, 3):
                    world.keep(coroutine.send(None))
                elif end == 1:
                    coroutine.throw(ValueError(world.Last()))
            coroutine.close()

        with world.quietly():
            world.loop.call_soon(create, n % 4, module)
        turns(world, 1)
    for parts in ((), (world.Last(),) * 7, (asyncio, int, int, *[world.Last()] * 4)):
        with world.quietly():
            _ctask._set_subprocess_parts(*parts)
    restore()
    turns(world, 1)


def audits(world: World) -> None:
    """A hook changes the arguments, and the parts."""
    if _spawn.PARTS is None:
        return
    made = world.loop
    world.undo.append(restore)
    if not getattr(sys, "_evil_hooked", False):
        sys._evil_hooked = True
        sys.addaudithook(hook)

    def changes(executable: Any, arguments: Any, *rest: Any) -> None:
        world.act()
        _process.set_class(ctask.EventLoop)
        arguments[:] = ["/no/such/program", world.Last()]

    for told in (changes, failing(world), lambda *args: world.act()):
        with world.quietly():
            _hooks.append(told)
            try:
                made._start_child(asyncio.SubprocessProtocol, ("/no/such/program", "x" * 500))
            finally:
                _hooks.clear()


def ends(world: World) -> None:
    """The methods that every child runs through."""

    class Pipe:
        pipe = None

        @property
        def disconnected(self) -> Any:
            world.act()
            return Truth(world, True)

    calls = (
        ("get_pid",),
        ("get_pipe_transport", 1),
        ("_try_finish",),
        ("_process_exited", world.Last()),
        ("_try_finish",),
        ("close",),
        ("_call_connection_lost", world.Last()),
        ("_wait",),
    )
    world.undo.append(restore)
    for n in range(12):
        transport = object.__new__(haunting(world, Transport))
        waiting: list[Any] = []
        waiting += [Waiter(world, waiting), world.loop.create_future(), Waiter(world, waiting)]
        popen = haunting(world, returncode=None)()
        protocol = haunting(world, asyncio.SubprocessProtocol)()
        kind = haunting(world, asyncio.subprocess.SubprocessStreamProtocol)
        streamed = object.__new__(kind)
        parts = (kind.process_exited, kind._maybe_close_transport, kind.connection_lost)
        _ctask._set_subprocess_parts(asyncio.subprocess, kind, kind, lambda: None, *parts)
        for name in ("_paused", "_process_exited", "_connection_lost"):
            object.__setattr__(streamed, name, False)
        object.__setattr__(streamed, "_pipe_fds", [])
        object.__setattr__(streamed, "_transport", transport)
        values = {
            "_loop": world.loop,
            "_protocol": streamed if n % 3 else protocol,
            "_pipes": {} if n % 2 else {1: Pipe(), 2: Pipe(), world.Last(): Pipe()},
            "_waiting": waiting,
            "_made": popen,
            "_pid": world.Last(),
            "_closed": Truth(world, False),
        }
        for name, value in values.items():
            object.__setattr__(transport, name, value)
        with world.quietly():
            waits = [transport._wait()]
            waits[0].send(None)
        for name, *args in calls:
            with world.quietly():
                result = getattr(transport, name)(*args)
                if name == "_wait":
                    result.send(None)
                del result
        values.clear()
        object.__setattr__(transport, "_waiting", None)
        waiting.append(world.Last())
        del waiting
        with world.quietly():
            waits.pop().close()
        turns(world, 1)
        del transport, popen, protocol, streamed


SITUATIONS: list[Callable[[World], Any]] = [starts, creates, audits, ends]
