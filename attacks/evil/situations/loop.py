"""The loop: what it watches, what it reports, what it is made to run by others."""

# mypy: ignore-errors
# ruff: noqa: B023, F821, RUF006, SIM117
# (Attributes that types do not know are what this is about; each call is made in its turn.)

from __future__ import annotations

import asyncio
import builtins
import importlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import ctask

from ..objects import Evil, Many, Number, Real, Text, World
from .tools import (
    Proxy,
    Truth,
    acting,
    collecting,
    cycle,
    descriptor,
    failing,
    guarded,
    haunted,
    overridden,
    patched,
    playing,
    turns,
)

METHODS = (
    *("call_soon", "call_later", "call_at", "call_soon_threadsafe", "time", "create_future"),
    *("create_task", "get_debug", "_run_once", "is_running", "call_exception_handler"),
    *("_check_thread", "_check_callback", "_timer_handle_cancelled", "is_closed"),
)


def numbers(world: World) -> list[Any]:
    return [Number(world, 1), Real(world, 0.001), Evil(world), Many(world, [1]), Text(world, "1")]


def times(world: World) -> None:
    loop = world.loop
    for number in numbers(world):
        for call in (
            lambda: loop.call_later(number, guarded(world)),
            lambda: loop.call_at(number, guarded(world)),
            lambda: loop._poll(number),
            lambda: loop._ready_at(number),
            lambda: loop._ready_put(number, Evil(world)),
            lambda: loop._ready_take(number),
        ):
            with world.quietly():
                call()
    turns(world)


def derived(world: World) -> None:
    """A loop whose methods are a program's own, each called by ours."""
    names = [name for name in METHODS if world.rng.random() < 0.5]
    loop = overridden(world, ctask.EventLoop, *names)()
    try:
        for debug in (False, True):
            loop.set_debug(debug)
            for call in (
                lambda: loop.call_soon(guarded(world), world.Last()),
                lambda: loop.call_later(0, guarded(world)),
                lambda: loop.call_later(Real(world, 0.0), guarded(world), context=None),
                lambda: loop.call_soon(failing(world)),
                lambda: loop.create_task(world.coroutine()),
                lambda: loop.create_future().add_done_callback(guarded(world)),
                lambda: loop.call_soon(loop.stop),
                lambda: loop._run(),
                lambda: loop._run_once(),
            ):
                with world.quietly():
                    call()
    finally:
        with world.quietly():
            loop.close()


def late_by_another(world: World) -> None:
    """call_later() calls a call_at() that is not ours, with all that it was given."""
    loop = overridden(world, ctask.EventLoop, "call_at")()
    try:
        for delay in numbers(world):
            with world.quietly():
                loop.call_later(delay, guarded(world), world.Last(), Evil(world))
        type(loop).call_at = descriptor(world, lambda loop: lambda *args, **kwargs: Evil(world))
        loop.call_later(1, guarded(world), world.Last(), context=Evil(world))
    finally:
        del type(loop).call_at
        loop.close()


def evil_time(world: World) -> None:
    loop = type("Loop", (ctask.EventLoop,), {"time": lambda loop: Evil(world)})()
    try:
        for call in (
            lambda: loop.call_later(0, guarded(world)),
            lambda: loop._run_once(),
            lambda: loop.call_later(Evil(world), guarded(world)),
        ):
            with world.quietly():
                call()
        loop.set_debug(True)
        loop.call_soon(int)
        loop._run_once()
    finally:
        loop.close()


def descriptors(world: World) -> None:
    loop = world.loop

    class File:
        def __init__(self, fd: Any) -> None:
            self.fd = fd

        def fileno(self) -> Any:
            world.act()
            return self.fd

        def __repr__(self) -> str:
            world.act()
            return "evil"

        def __del__(self) -> None:
            world.act()

    one, other = socket.socketpair()
    world.keep(one)
    world.keep(other)
    numbers = [File(one.fileno()), File(Number(world, one.fileno())), File(-1), File("x")]
    numbers += [File(Number(world, -1)), File(None), Evil(world), Number(world, -5), 1 << 70]
    world.undo.extend((lambda: loop._remove_reader(one), lambda: loop._remove_writer(one)))
    for file in numbers:
        for call in (
            lambda: loop._add_reader(file, guarded(world), world.Last()),
            lambda: loop._add_writer(file, guarded(world), world.Last()),
            lambda: loop._add_reader(file, guarded(world), world.Last()),
            lambda: loop._watched(file),
            lambda: loop._owner(file),
            lambda: loop._remove_reader(file),
            lambda: loop._remove_writer(file),
            lambda: loop._selector.get_key(file),
        ):
            with world.quietly():
                call()


def watchers(world: World) -> None:
    """Handles of descriptors: replaced, cancelled, dropped with their objects, and garbage."""
    loop = world.loop
    one, other = socket.socketpair()
    world.keep(other)

    class File:
        def fileno(self) -> int:
            return one.fileno()

        def __del__(self) -> None:
            world.act()

    world.undo.extend((lambda: loop._remove_reader(one), lambda: loop._remove_writer(one)))
    for _ in range(2):
        for add in (loop._add_reader, loop._add_writer):
            handle = add(File(), guarded(world), world.Last())
            handle._cancelled = Truth(world, False)
            handle._loop = Proxy(world, loop)
            del handle
            with world.quietly():
                add(File(), failing(world))
    with world.quietly():
        list(loop._selector.get_map().items())
    other.send(b"evil")
    turns(world)
    loop._add_reader(File(), guarded(world), world.Last())
    loop._add_writer(File(), guarded(world), world.Last())
    loop.close()


def transports_in_the_way(world: World) -> None:
    """A number that belongs to a transport, which dies, is watched by others."""

    async def play() -> None:
        one, other = socket.socketpair()
        one.setblocking(False)
        transport, protocol = await world.loop.create_connection(
            lambda: type("P", (asyncio.Protocol,), {"guard": world.Last()})(), sock=one
        )
        fd = one.fileno()
        world.keep(other)
        for call in (
            lambda: transport.abort(),
            lambda: world.loop._add_reader(fd, guarded(world), world.Last()),
            lambda: os.close(fd),
        ):
            with world.quietly():
                call()
        del transport, protocol, one
        for call in (
            lambda: world.loop._owner(fd),
            lambda: world.loop._add_reader(other, guarded(world)),
            lambda: world.loop._remove_reader(fd),
        ):
            with world.quietly():
                call()

    playing(world, play(), 5)


def waiting_socks(world: World) -> None:
    """What sock_*() wait for, looked at and dropped."""
    loop = world.loop
    one, other = socket.socketpair()
    one.setblocking(False)
    world.keep(other)
    playing(world, loop.sock_recv(one, 5), 1)
    playing(world, loop.sock_accept(one), 1)
    other.send(b"evil")
    loop._poll(0)
    world.undo.append(loop._ready.clear)
    kind = type(loop)
    sub = type("Loop", (kind,), {"_sock_ready": descriptor(world, lambda loop: guarded(world))})
    with world.quietly():
        loop.__class__ = sub
    with world.quietly():
        list(loop._ready)
    with world.quietly():
        loop._ready.popleft()
    with world.quietly():
        loop.set_debug(True)
    turns(world)


def fields(world: World) -> None:
    loop = world.loop
    for name in ("_task_factory", "_current_handle", "_thread_id", "_scheduled", "_ready"):
        for _ in range(2):
            with world.quietly():
                setattr(loop, name, world.Last())
        with world.quietly():
            setattr(loop, name, None)
    for name in ("_debug", "_stopping", "_closed"):
        for truth in (True, False):
            with world.quietly():
                setattr(loop, name, Truth(world, truth))


def dying(world: World) -> None:
    """A loop that goes with all that it has."""
    for collected in (False, True):
        kind = type("Loop", (ctask.EventLoop,), {"__del__": lambda loop: world.act()})
        loop = kind()
        loop._task_factory = world.Last()
        loop._current_handle = world.Last()
        loop.call_soon(guarded(world), world.Last())
        loop.call_later(100, guarded(world), world.Last())
        world.keep(loop.call_later(100, guarded(world), world.Last()))
        loop._debug = Truth(world, False)
        one, other = socket.socketpair()
        world.keep(one)
        world.keep(other)
        loop._add_reader(one, guarded(world), world.Last())
        loop.task = loop.create_task(world.coroutine())
        if collected:
            cycle(world, loop)
        del loop
        world.collect()


def bare(world: World) -> None:
    """The part that is C, by itself: no Python code of asyncio's tidies it away."""
    from ctask import _ctask

    loop = _ctask.Loop()
    for name in ("_task_factory", "_current_handle", "_thread_id"):
        with world.quietly():
            setattr(loop, name, world.Last())
    with world.quietly():
        loop._debug = Truth(world, False)
    for call in (
        lambda: loop.call_soon(guarded(world), world.Last()),
        lambda: loop.call_later(5, guarded(world), world.Last()),
        lambda: loop._ready_put(0, Evil(world)),
    ):
        with world.quietly():
            call()
    del loop


def adopting(world: World) -> None:
    """A class of loops that is evil itself."""

    class Kind(type(ctask.EventLoop)):
        def __getattribute__(cls, name: str) -> Any:
            world.act()
            return super().__getattribute__(name)

        def __setattr__(cls, name: str, value: Any) -> None:
            world.act()
            super().__setattr__(name, value)

    kind = Kind("Loop", (ctask.EventLoop,), {})
    kind._adopt_methods()
    loop = kind()
    try:
        loop.call_soon(guarded(world))
        loop.call_later(0, guarded(world))
        loop._run_once()
    finally:
        loop.close()


def looked_at(world: World) -> None:
    """The ready queue and the timers, seen as lists."""
    loop = world.loop
    for _ in range(2):
        loop.call_soon(guarded(world), world.Last())
        loop.call_later(0, guarded(world), world.Last())
        loop.call_later(100, guarded(world), world.Last())
        future = loop.create_future()
        future.add_done_callback(guarded(world))
        world.keep(playing(world, world.waits(future), 2))
        future.set_result(world.Last())
        loop.create_task(world.coroutine())
    world.undo.append(loop._ready.clear)
    loop._poll(0)
    ready = loop._ready
    for call in (
        lambda: list(ready),
        lambda: ready[0],
        lambda: ready.rotate(1),
        lambda: list(loop._scheduled),
        lambda: ready.popleft(),
        lambda: ready.pop(),
        lambda: loop._ready_take(1),
        lambda: ready.remove(Evil(world)),
        lambda: ready.append(loop._scheduled[0]),
    ):
        with world.quietly():
            call()
    turns(world)


def reports(world: World) -> None:
    """What callbacks raise, told by evil texts to an evil handler."""
    loop = world.loop

    class Callback:
        def __call__(self, *args: Any) -> Any:
            raise ValueError(world.Last())

        def __repr__(self) -> str:
            world.act()
            return "evil"

        @property
        def __qualname__(self) -> str:
            world.act()
            return Text(world, "evil")

        @property
        def __class__(self) -> type:
            world.act()
            return Callback

        def __del__(self) -> None:
            world.act()

    for debug in (False, True):
        loop.set_debug(debug)
        loop.slow_callback_duration = Real(world, 0.0)
        for make in (
            lambda: loop.call_soon(Callback(), Evil(world)),
            lambda: loop.call_later(0, Callback(), Evil(world)),
            lambda: loop.create_future().add_done_callback(Callback()),
            lambda: loop.call_soon_threadsafe(Callback()),
        ):
            with world.quietly():
                make()
            with world.quietly():
                make()._source_traceback = Truth(world, True)
        turns(world)
    loop.call_soon(Callback(), context=Evil(world))
    future = loop.create_future()
    future.add_done_callback(Callback(), context=Evil(world))
    future.set_result(None)
    turns(world)


def handlers(world: World) -> None:
    loop = world.loop
    kind = type("Loop", (type(loop),), {"call_exception_handler": failing(world)})
    for handler in (failing(world), Evil(world), guarded(world)):
        with world.quietly():
            loop.set_exception_handler(handler)
        loop.call_soon(failing(world))
        loop.call_later(0, failing(world))
        playing(world, world.waits(Evil(world)), 2)
    with world.quietly():
        loop.__class__ = kind
    loop.call_soon(failing(world), world.Last())
    turns(world)


def slow(world: World) -> None:
    loop = world.loop
    loop.set_debug(True)
    names = vars(logging.getLogger("asyncio"))
    with patched(logging.getLogger("asyncio"), "warning", world.callback()):
        for limit in (*numbers(world), 0, Truth(world, True)):
            loop.slow_callback_duration = limit
            loop.call_soon(Evil(world), Evil(world))
            turns(world, 1)
    names.pop("warning", None)
    with world.quietly():
        loop.__class__ = type(
            "Loop", (type(loop),), {"slow_callback_duration": descriptor(world, lambda loop: 0)}
        )
    loop.call_soon(guarded(world))
    turns(world)


def current_handle(world: World) -> None:
    """In debug mode the handle that runs can be seen, and replaced."""
    loop = world.loop
    loop.set_debug(True)

    def spoil() -> None:
        loop._current_handle = world.Last()
        world.act()

    loop.call_soon(spoil)
    loop.call_later(0, spoil)
    loop.create_task(world.coroutine())
    turns(world)


def exits(world: World) -> None:
    for error in (KeyboardInterrupt, SystemExit):
        for make in (world.loop.call_soon, world.loop.call_soon_threadsafe):
            make(guarded(world), world.Last())

            def stop(error: Any = error) -> None:
                raise error(world.Last())

            make(stop)
            world.loop.call_later(0, stop)
            turns(world)


def factories(world: World) -> None:
    loop = world.loop
    for factory in (
        lambda loop, coro, **more: Evil(world),
        lambda loop, coro, **more: asyncio.Task(coro, loop=loop, **more),
        failing(world),
        Evil(world),
    ):
        with world.quietly():
            loop.set_task_factory(factory)
        for more in ({}, {"name": Evil(world)}, {"context": Evil(world)}, {"name": world.Last()}):
            with world.quietly():
                loop.create_task(world.coroutine(), **more)
        turns(world)
    loop.set_task_factory(None)
    for eager in (True, False):
        with world.quietly():
            loop.create_task(world.coroutine(), eager_start=Truth(world, eager))


def other_task_class(world: World) -> None:
    loop = world.loop
    kind = type("Task", (asyncio.Task,), {"__init__": acting(world, asyncio.Task.__init__)})
    with patched(asyncio.tasks, "Task", kind), world.quietly():
        loop.create_task(world.coroutine())
    with haunted(world, vars(asyncio.tasks), "Task"), world.quietly():
        loop.create_task(world.coroutine())
    turns(world)


def stored_waiters(world: World) -> None:
    """`_asyncio` hands the task that waits to call_soon(), on a loop that may be changed."""
    loop = world.loop
    future = loop.create_future()
    playing(world, world.waits(future))
    import _asyncio

    for kind in (None, type("Loop", (type(loop),), {"call_soon": acting(world, world.act)})):
        with world.quietly():
            _asyncio.Future.set_result(future, world.Last())
        with world.quietly():
            loop.__class__ = kind or loop.__class__
    turns(world)


def signals(world: World) -> None:
    """Handlers of signals run where the loop lets them."""
    signal.signal(signal.SIGUSR1, lambda number, frame: world.act())
    try:
        main = threading.main_thread().ident

        async def yields() -> None:
            for _ in range(5):
                os.kill(os.getpid(), signal.SIGUSR1)
                await asyncio.sleep(0)

        playing(world, yields())
        timer = threading.Timer(0.01, signal.pthread_kill, (main, signal.SIGUSR1))
        timer.start()
        with world.quietly():
            world.loop._poll(0.05)
        timer.join()
        for _ in range(3):
            world.loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
            turns(world, 1)
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # some may come late


def forked(world: World) -> None:
    from ctask import _ctask

    with patched(builtins, "__import__", acting(world, __import__)), world.quietly():
        _ctask._after_fork()
    world.loop.call_soon(guarded(world))
    turns(world)
    with patched(builtins, "__import__", failing(world)), world.quietly():
        _ctask._after_fork()


def imported_again(world: World) -> None:
    """A second extension module, made while imports are evil."""
    spec = importlib.util.find_spec("ctask._ctask")
    loader = spec.loader if spec else None
    if sys.version_info < (3, 12) or loader is None or world.rng.random() < 0.8:
        return
    with patched(builtins, "__import__", acting(world, __import__)), world.quietly():
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)


def rerun(world: World) -> None:
    """Loops that run within each other, each with its contexts."""
    loop, inner = world.loop, ctask.new_event_loop()

    def nest() -> None:
        asyncio._set_running_loop(None)
        with world.quietly():
            inner.call_soon(guarded(world), world.Last())
            inner.call_soon(inner.stop)
            inner.run_forever()
        asyncio._set_running_loop(loop)
        world.act()

    try:
        loop.call_soon(nest)
        loop.call_soon(guarded(world), world.Last())
        loop.create_task(world.coroutine())
        turns(world)
    finally:
        inner.close()


def collections(world: World) -> None:
    """Where C asks for memory (3.11); a loop may go then."""
    from ctask import _ctask

    collecting(world, lambda: world.loop._counters)
    collecting(world, lambda: _ctask._open_loops)


def ready_changes(world: World) -> None:
    """The queue is another when what is in it has been shown."""
    loop = world.loop
    one, other = socket.socketpair()
    one.setblocking(False)
    other.send(b"evil")
    made = loop._make_socket_transport(one, asyncio.Protocol())
    world.undo.append(made.abort)
    del made
    kind = type(loop)

    def look(loop: Any) -> Any:
        world.act()
        loop._ready_clear()
        guard = world.Last()
        return lambda *args: guard

    sub = type("Loop", (kind,), {"_sock_ready": descriptor(world, look)})
    playing(world, loop.sock_recv(other, 5), 1)
    for call in (lambda: loop._ready_at(0), lambda: loop._ready_take(0)):
        two, three = socket.socketpair()
        two.setblocking(False)
        playing(world, loop.sock_recv(two, 5), 1)
        three.send(b"evil")
        loop._poll(0)
        with world.quietly():
            loop.__class__ = sub
        with world.quietly():
            call()
        with world.quietly():
            loop.__class__ = kind
        turns(world, 1)
    world.keep(other)

    class Clears:
        def __del__(self) -> None:
            loop._ready.clear()
            world.act()

    def lost(transport: Any) -> Any:
        guard = world.Last()
        transport._call_connection_lost(None)
        return lambda *args: guard

    for call in (lambda: loop._ready_take(0), lambda: loop._ready_at(0)):
        turns(world, 1)
        mine, _theirs = socket.socketpair()
        mine.setblocking(False)
        extra = {"evil": Clears()}
        made = loop._make_socket_transport(mine, asyncio.Protocol(), extra=extra)
        kind = type(made)
        extra.clear()
        del made
        with patched(kind, "_read_ready", descriptor(world, lost)), world.quietly():
            call()

    for call in (lambda: loop._ready_take(0), lambda: loop._ready_at(0)):
        for make in (
            lambda: loop.call_soon(guarded(world), Clears()),
            lambda: loop.call_later(0, guarded(world), Clears()),
            lambda: loop.create_task(world.coroutine()),
        ):
            with world.quietly():
                make()
            with world.quietly():
                call()
            turns(world, 1)


def told_sources(world: World) -> None:
    """Where a handle was made is anything: its truth takes it out of the handle."""

    class Source:
        def __init__(self, handle: Any) -> None:
            self.handle = handle

        def __bool__(self) -> bool:
            if self.handle is not None:
                self.handle._source_traceback = None
            world.act()
            return False

        def __del__(self) -> None:
            world.act()

    for make in (loop_call(world), loop_later(world)):
        handle = make(failing(world))
        handle._source_traceback = Source(handle)
        del handle
        turns(world)


def loop_call(world: World) -> Callable[..., Any]:
    return lambda callback: world.loop.call_soon(callback)


def loop_later(world: World) -> Callable[..., Any]:
    return lambda callback: world.loop.call_later(0, callback)


def slow_steps(world: World) -> None:
    """In debug mode what was slow is written down, by functions that are evil."""
    import ctask._messages as messages

    loop = world.loop
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    with patched(messages, "place_step", acting(world, messages.place_step)):
        with patched(builtins, "__import__", acting(world, __import__)):
            loop.call_soon(guarded(world))
            loop.create_task(world.coroutine())
            turns(world)
    before = sys.modules["ctask._messages"]
    del sys.modules["ctask._messages"]
    try:
        with patched(builtins, "__import__", failing(world)):
            loop.call_soon(guarded(world))
            turns(world)
    finally:
        sys.modules["ctask._messages"] = before


def called_without_a_context(world: World) -> None:
    """Done callbacks that were given none, and what waits for futures of others."""
    import _asyncio

    loop = world.loop

    class Future(_asyncio.Future):
        def __del__(self) -> None:
            world.act()

    async def waits(future: Any) -> Any:
        return await future

    for kind in (Future, asyncio.futures._PyFuture, asyncio.Future):
        future = kind(loop=loop)
        task = type("Task", (asyncio.Task,), {})(waits(future), loop=loop)
        turns(world, 1)
        future.set_result(world.Last())
        del future, task
        turns(world)
        future = kind(loop=loop)
        for call in (
            lambda: loop.create_task(asyncio.wait([future])),
            lambda: asyncio.shield(future),
        ):
            with world.quietly():
                world.keep(call())
        turns(world, 1)
        future.set_result(world.Last())
        del future
        turns(world)


def stored_in_closed_loops(world: World) -> None:
    """A task that is handed over as a callback cannot be, as the loop is closed meanwhile."""
    import _asyncio

    class Loop(ctask.EventLoop):
        pass

    loop = Loop()
    future = loop.create_future()
    kind = type("Task", (asyncio.Task,), {"__del__": lambda task: world.act()})
    for cls in (asyncio.Task, kind):
        task = cls(world.waits(future), loop=loop)
        with world.quietly():
            loop.call_soon(loop.stop)
            loop.run_forever()
        task._log_destroy_pending = False
    loop.close()
    del task
    with world.quietly():
        _asyncio.Future.set_result(future, world.Last())
    del future


def code_of_others(world: World) -> None:
    """Tracers put other code into asyncio's create_task(); what was looked at last goes."""
    function = asyncio.BaseEventLoop.create_task
    code = function.__code__
    try:
        for _ in range(3):
            guard = world.Last()
            function.__code__ = code.replace(co_consts=(*code.co_consts, guard))
            del guard
            with world.quietly():
                world.loop.create_task(world.coroutine())
            function.__code__ = code
            world.collect()
            with world.quietly():
                world.loop.create_task(world.coroutine())
    finally:
        function.__code__ = code
    turns(world)


def tasks_of_other_loops(world: World) -> None:
    """ensure_future() asks a loop that is none of ours."""
    made = world.coroutine
    for loop in (Proxy(world, world.loop), Evil(world)):
        with world.quietly():
            asyncio.ensure_future(made(), loop=loop)
    kind = overridden(world, ctask.EventLoop, "create_task")
    loop = kind()
    try:
        with world.quietly():
            asyncio.ensure_future(made(), loop=loop)
    finally:
        loop.close()
    turns(world)


SITUATIONS: list[Callable[[World], Any]] = [
    times,
    derived,
    late_by_another,
    evil_time,
    descriptors,
    watchers,
    transports_in_the_way,
    waiting_socks,
    fields,
    dying,
    bare,
    adopting,
    looked_at,
    reports,
    handlers,
    slow,
    current_handle,
    exits,
    factories,
    other_task_class,
    stored_waiters,
    signals,
    forked,
    imported_again,
    rerun,
    collections,
    ready_changes,
    told_sources,
    slow_steps,
    called_without_a_context,
    stored_in_closed_loops,
    code_of_others,
    tasks_of_other_loops,
]
