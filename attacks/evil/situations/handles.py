"""Handles: what they hold, what cancels them, what runs them, what is put into their slots."""

# mypy: ignore-errors
# ruff: noqa: B008, B023, SIM117
# (Attributes that types do not know are what this is about; each call is made in its turn.)

from __future__ import annotations

import _thread
import asyncio
import builtins
import contextvars
import gc
import signal
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import ctask

from ..objects import Evil, World
from .frames import new_module
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
    turns,
    unseen,
)

SLOTS = ("_args", "_callback", "_cancelled", "_context", "_loop", "_repr", "_source_traceback")


def each_kind(world: World) -> list[Any]:
    loop = world.loop
    return [
        loop.call_soon(guarded(world), world.Last()),
        loop.call_later(100, guarded(world), world.Last()),
        loop.call_soon_threadsafe(guarded(world), world.Last()),
        asyncio.Handle(guarded(world), (world.Last(),), loop),
        asyncio.TimerHandle(1.0, guarded(world), (world.Last(),), loop),
    ]


def dropped_calls(world: World) -> None:
    for _ in range(3):
        world.loop.call_soon(guarded(world), world.Last())
        world.loop.call_later(0, guarded(world), world.Last())
        world.loop.call_at(1e9, guarded(world), world.Last())
    turns(world)


def forgotten_calls(world: World) -> None:
    for _ in range(3):
        world.loop.call_soon(guarded(world), world.Last())
        world.loop.call_later(100, guarded(world), world.Last())
        kept = world.loop.call_later(100, guarded(world), world.Last())
        world.keep(kept)
    del kept
    world.loop.close()


def slots(world: World) -> None:
    for handle in each_kind(world):
        for name in (*SLOTS, "_when", "_lock"):
            for _ in range(2):
                with world.quietly():
                    setattr(handle, name, world.Last())
        with world.quietly():
            handle._run()
        with world.quietly():
            handle.cancel()
        with world.quietly():
            del handle._context


def slots_of_garbage(world: World) -> None:
    loop = world.loop
    for handle in each_kind(world):
        handle._repr = handle._source_traceback = world.Last()
        with world.quietly():
            handle._when = world.Last()
        with world.quietly():
            handle._lock = world.Last()
        handle._args = (world.Last(), handle)
    turns(world)
    del handle
    cycle(world, loop.call_later(100, guarded(world)), loop.call_soon_threadsafe(guarded(world)))
    loop.close()
    world.collect()


def derived_kinds(world: World) -> None:
    loop = world.loop
    for base in (asyncio.Handle, ctask.Handle):
        kind = type("Kind", (base,), {"guard": world.Last(), "_run": acting(world, base._run)})
        with world.quietly():
            handle = kind(guarded(world), (world.Last(),), loop)
            loop._ready.append(handle)
            weakref.ref(handle, lambda ref: world.act())
            handle._repr = handle._source_traceback = world.Last()
            del handle
        turns(world)
    kind = type("Timer", (ctask.TimerHandle,), {"guard": world.Last()})
    timer = kind(5, guarded(world), (world.Last(),), loop)
    timer._when = world.Last()
    timer.cancel()


def weakly_referenced(world: World) -> None:
    for handle in each_kind(world):
        world.keep(weakref.ref(handle, lambda ref: world.act()))
    task = world.loop.create_task(world.coroutine())
    future = world.loop.create_future()
    for obj in (task, future):
        world.keep(weakref.ref(obj, lambda ref: world.act()))
    del handle, task, future, obj
    turns(world)
    world.loop.close()


def truths(world: World) -> None:
    for handle in each_kind(world):
        for truth in (True, False):
            handle._cancelled = Truth(world, truth)
            with world.quietly():
                handle.cancelled()
            with world.quietly():
                handle._run()
            with world.quietly():
                handle.cancel()
    turns(world)


def truths_that_run(world: World) -> None:
    for make in (world.loop.call_soon, world.loop.call_soon_threadsafe):
        for truth in (True, False):
            make(guarded(world))._cancelled = Truth(world, truth)
    turns(world)


def strange_handles(world: World) -> None:
    ready = world.loop._ready
    for handle in (
        Evil(world),
        Proxy(world, asyncio.Handle(guarded(world), (), world.loop)),
        type("Handle", (), {"_cancelled": Truth(world, False), "_run": world.callback()})(),
        type("Handle", (), {"_cancelled": False, "_run": failing(world)})(),
    ):
        with world.quietly():
            ready.append(handle)
        with world.quietly():
            ready.appendleft(handle)
        del handle
        turns(world)


def strange_loops(world: World) -> None:
    proxy = Proxy(world, world.loop)
    world.loop.set_debug(True)
    for kind, lead in ((asyncio.Handle, ()), (asyncio.TimerHandle, (5,)), (ctask.Handle, ())):
        with world.quietly():
            handle = kind(*lead, Evil(world), (world.Last(),), proxy)
            handle.cancel()
        with world.quietly():
            handle = kind(*lead, Evil(world), (world.Last(),), proxy)
            handle._repr = world.Last()
            handle._loop = world.Last()
            handle.cancel()


def cancelled_in_debug_mode(world: World) -> None:
    loop = overridden(world, ctask.EventLoop, "get_debug")()
    loop.set_debug(True)
    try:
        for handle in (loop.call_soon(Evil(world), Evil(world)), loop.call_later(9, Evil(world))):
            handle._repr = world.Last()
            handle.cancel()
    finally:
        loop.close()


def cancelled_timers(world: World) -> None:
    timers = [world.loop.call_later(100, guarded(world), world.Last()) for _ in range(3)]
    world.undo.extend(timer.cancel for timer in timers)
    world.undo.append(timers.clear)
    for timer in [*timers]:
        timer._when = world.Last()
        timer._cancelled = Truth(world, False)
        with world.quietly():
            timer.cancel()


def made_in_debug_mode(world: World) -> None:
    loop = world.loop
    loop.set_debug(True)
    with patched(traceback, "walk_stack", acting(world, traceback.walk_stack)):
        for make in (
            lambda: loop.call_soon(guarded(world), world.Last()),
            lambda: loop.call_later(5, guarded(world), world.Last()),
            lambda: loop.call_soon_threadsafe(guarded(world), world.Last()),
        ):
            with world.quietly():
                make()
    with patched(traceback, "walk_stack", failing(world)):
        with world.quietly():
            loop.call_soon(guarded(world), world.Last())
        with world.quietly():
            loop.call_later(5, guarded(world), world.Last())


def seen_half_made(world: World) -> None:
    """What is made is not made in the end, and the collector has shown it."""
    world.loop.set_debug(True)
    fail = failing(world)

    def spoil(*args: Any) -> Any:
        World.found(world)
        return fail()

    with patched(traceback, "walk_stack", spoil):
        for make in (
            lambda: world.loop.call_soon(guarded(world)),
            lambda: world.loop.call_later(5, guarded(world)),
            lambda: world.loop.create_task(world.coroutine()),
        ):
            with world.quietly():
                make()


def seen_spare(world: World) -> None:
    """Handles that wait to be used again."""
    for _ in range(4):
        world.loop.call_soon(int)
        world.loop.call_soon_threadsafe(int)
    turns(world)
    World.found(world)
    world.loop.call_soon(guarded(world), world.Last())
    turns(world)
    World.found(world)
    world.loop.close()


def replaced_run(world: World) -> None:
    before = asyncio.Handle._run
    for replaced in (acting(world, before), descriptor(world), failing(world)):
        with patched(asyncio.Handle, "_run", replaced):
            with patched(builtins, "__import__", acting(world, __import__)):
                world.loop.call_soon(guarded(world), world.Last())
                world.loop.create_task(world.coroutine())
                world.loop.call_later(0, guarded(world))
                turns(world)
        world.loop.call_soon(guarded(world))
        turns(world, 1)


def haunted_clock(world: World) -> None:
    with haunted(world, vars(time), "monotonic"):
        world.loop.call_later(0, guarded(world))
        world.loop.time()
        turns(world)


def other_clock(world: World) -> None:
    with patched(time, "monotonic", acting(world, time.monotonic)):
        world.loop.call_later(0, guarded(world))
        world.loop.time()
        turns(world)
    with patched(time, "monotonic", lambda: Evil(world)):
        with world.quietly():
            world.loop.time()
        with world.quietly():
            world.loop.call_later(Evil(world), guarded(world))
        turns(world)


def overridden_methods(world: World) -> None:
    """Is it still ours? To look may run a property, whose error has to be dropped."""

    def fail(loop: Any) -> Any:
        raise ValueError(world.Last())

    for name in ("call_soon", "time", "create_task", "_run_once"):
        kind = type("Loop", (ctask.EventLoop,), {})
        loop = kind()
        try:
            setattr(kind, name, descriptor(world, fail))
            for call in (
                lambda: loop.call_soon(guarded(world)),
                lambda: loop.call_later(0, guarded(world)),
                lambda: setattr(loop, name, Evil(world)),
                lambda: loop.create_future().set_result(None),
                lambda: loop._run(),
            ):
                with world.quietly():
                    call()
        finally:
            delattr(kind, name)
            loop.close()


def dropped_transports(world: World) -> None:
    with world.quietly():
        world.loop._transports = world.Last()
    with world.quietly():
        world.loop._transports[0] = world.Last()
    with world.quietly():
        world.loop._transports = None


def waited_for_by_a_thread(world: World) -> None:
    """From 3.14 on who cancels a thread's call waits while it runs; signals come meanwhile."""
    began, end = threading.Event(), threading.Event()

    def run() -> None:
        began.set()
        end.wait(1)

    handle = world.loop.call_soon_threadsafe(run)
    if sys.version_info < (3, 14):
        return
    handle._lock = world.Last()
    thread = threading.Thread(target=handle._run)
    thread.start()
    began.wait(1)
    signal.signal(signal.SIGUSR1, lambda number, frame: world.act())
    timer = threading.Timer(0.01, signal.pthread_kill, (threading.main_thread().ident, 10))
    closer = threading.Timer(0.05, end.set)
    timer.start()
    closer.start()
    try:
        handle.cancelled()
        handle.cancel()
    finally:
        end.set()
        for each in (thread, timer, closer):
            each.join()
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # some may come late


def contexts(world: World) -> None:
    """Contexts whose variables are the last to hold something evil."""
    variable = contextvars.ContextVar[Any]("variable")

    def enter() -> None:
        variable.set(world.Last())
        world.loop.call_soon(guarded(world))
        world.loop.call_later(0, guarded(world))
        world.loop.create_task(world.coroutine())
        world.keep(world.loop.call_soon(guarded(world)))
        world.loop.create_future().add_done_callback(guarded(world))
        with world.quietly():
            world.loop.call_soon(world.loop.stop)
            world.loop.run_forever()
        variable.set(world.Last())
        world.loop.call_soon(inner)

    def inner() -> None:
        variable.set(world.Last())
        world.loop.call_soon(guarded(world))
        world.loop.create_task(changes())

    async def changes() -> None:
        variable.set(world.Last())
        await asyncio.sleep(0)
        variable.set(world.Last())
        world.loop.call_soon(guarded(world))

    contextvars.copy_context().run(enter)
    turns(world, 3)
    contextvars.copy_context().run(enter)


def the_context_below_changes(world: World) -> None:
    """The variables with which a loop began to run are others when a context is given back; the
    contexts that wait to be used again are the last to have the old ones.
    """
    variable = contextvars.ContextVar[Any]("variable")

    class Sets:
        """What goes after a callback goes in the context in which the loop runs."""

        def __del__(self) -> None:
            variable.set(world.Last())

    def ignored(*args: Any) -> None:
        pass

    async def waits() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        world.loop.stop()

    def play(handles: list[Any]) -> None:
        variable.set(world.Last())
        for _ in range(6):
            future = world.loop.create_future()
            future.add_done_callback(ignored)
            future.set_result(None)
        del future
        world.loop.call_soon(ignored, Sets())
        contextvars.Context().run(world.loop.create_task, waits())
        handles.append(contextvars.Context().run(world.loop.call_later, 0, ignored))
        world.loop.run_forever()

    for _ in range(2):
        with world.quietly():
            contextvars.Context().run(play, [])


def retired_and_seen(world: World) -> None:
    """A handle that has run is about to wait for its next use: the collector shows it, others come
    first.
    """

    class Last:
        def __del__(self) -> None:
            World.found(world)
            others = []
            others.append(world.loop.call_soon(others.clear))
            others.extend(world.loop.call_soon(int) for _ in range(300))
            World.turn(world)
            world.act()

    made: list[Any] = []

    def forget(*args: Any) -> None:
        made.clear()

    for make in (world.loop.call_soon, world.loop.call_soon_threadsafe):
        with world.quietly():
            made.append(make(forget, Last()))
        turns(world)


def collections(world: World) -> None:
    """Where C asks for memory (3.11)."""

    collecting(world, lambda: partial(world.loop.call_soon, int, *range(30)))

    def by_a_thread() -> None:
        """One that has no context yet."""

        def run() -> None:
            try:
                with world.quietly():
                    world.loop.call_soon(int)
            finally:
                done.release()

        done = _thread.allocate_lock()
        done.acquire()
        _thread.start_new_thread(run, ())
        done.acquire()

    kept = [contextvars.Context() for _ in range(600)]
    collecting(world, lambda: by_a_thread)
    del kept


def timers_of_others(world: World) -> None:
    """Who cancels a timer asks its loop, or a handle that is none of ours."""
    timer = world.loop.call_later(100, guarded(world))
    timer._loop = Proxy(world, world.loop)
    with world.quietly():
        timer.cancel()
    timer = world.loop.call_later(100, guarded(world))

    class Loop:
        def _timer_handle_cancelled(self, timer: Any) -> None:
            timer._loop = None

        def get_debug(self) -> bool:
            return False

        def __del__(self) -> None:
            world.act()

    timer._loop = Loop()
    with world.quietly():
        timer.cancel()
    kind = overridden(world, ctask.EventLoop, "call_later", "call_at")
    kind.call_later = kind.call_at = lambda loop, *args, **more: Proxy(world, asyncio.Future())
    loop = kind()
    try:
        for coroutine in (asyncio.sleep(100), asyncio.wait([loop.create_future()], timeout=100)):
            task = loop.create_task(coroutine)
            for _ in range(3):
                with world.quietly():
                    loop.call_soon(loop.stop)
                    loop.run_forever()
                task.cancel()
    finally:
        loop.close()


def spoiled_while_it_runs(world: World) -> None:
    """A handle whose callback lets go of what the handle holds, in each way in which it may run."""
    made: list[Any] = []

    def forget(*args: Any) -> None:
        for handle in made:
            handle._callback, handle._args = int, ()
            handle._source_traceback = world.Last()
        made.clear()

    for make in (world.loop.call_soon, world.loop.call_soon_threadsafe):
        made.append(make(lambda *args, guard=world.Last(): forget(), world.Last()))
        turns(world)
    before = asyncio.Handle._run

    def run(handle: Any) -> None:
        handle._repr = world.Last()
        before(handle)

    with patched(asyncio.Handle, "_run", run):
        world.loop.call_soon(guarded(world), world.Last())
        world.loop.call_later(0, guarded(world), world.Last())
        world.loop.create_task(world.coroutine())
        turns(world)
    turns(world, 1)


def locked_by_threads(world: World) -> None:
    """From 3.14 on: a lock that is evil lets who cancels wait, and is given back."""

    class Lock:
        def acquire(self) -> bool:
            world.act()
            return True

        def release(self) -> None:
            world.act()
            if world.rng.random() < 0.5:
                raise ValueError(world.Last())

        def __del__(self) -> None:
            world.act()

    began, end = threading.Event(), threading.Event()

    def run() -> None:
        began.set()
        end.wait(1)

    handle = world.loop.call_soon_threadsafe(run)
    thread = threading.Thread(target=handle._run)
    thread.start()
    began.wait(1)
    threading.Timer(0.02, end.set).start()
    with world.quietly():
        handle.cancel()
    end.set()
    thread.join()
    for name in ("_lock", "_repr"):
        with world.quietly():
            handle = world.loop.call_soon_threadsafe(guarded(world))
            setattr(handle, name, world.Last())
            cycle(world, handle)
            del handle
            world.loop._ready.clear()
            world.collect()
    handle = world.loop.call_soon_threadsafe(guarded(world))
    with patched(asyncio.Handle, "_run", acting(world, asyncio.Handle._run)), world.quietly():
        handle._run()


def gates(world: World) -> None:
    """From 3.14 on: the lock at which others wait for the thread that runs a handle is evil, is
    released by others, and goes with the handle.
    """
    if sys.version_info < (3, 14):
        return

    class Gate:
        def __init__(self) -> None:
            self.lock = threading.Lock()
            world.act()

        def acquire(self) -> Any:
            world.act()
            self.lock.acquire(timeout=0.005)
            return world.Last()

        def release(self) -> Any:
            world.act()
            with world.quietly():
                self.lock.release()
            if world.rng.random() < 0.5:
                raise ValueError(world.Last())
            return world.Last()

        def __del__(self) -> None:
            world.act()

    def locks(handle: Any) -> list[Any]:
        return [found for found in gc.get_referents(handle) if hasattr(found, "acquire")]

    def open_them(handle: Any) -> None:
        for lock in locks(handle):
            with world.quietly():
                lock.release()

    def play(make: Callable[..., Any], meddle: Callable[[Any], None]) -> None:
        began, end = threading.Event(), threading.Event()

        def run() -> None:
            began.set()
            end.wait(0.5)
            meddle(handle)

        def waits() -> None:
            with world.quietly():
                handle.cancelled()

        handle = make(run, (), world.loop)
        world.undo.append(lambda: handle.__init__(int, (), world.loop))
        threads = [threading.Thread(target=target) for target in (handle._run, waits)]
        threads.append(threading.Timer(0.02, end.set))
        try:
            for thread in threads:
                thread.start()
                began.wait(0.5)
            with world.quietly():
                handle.cancel()
        finally:
            end.set()
            for thread in threads:
                thread.join(1)

    with patched(_thread, "allocate_lock", Gate):
        module = new_module(world, lambda name: False)
    play(module._ThreadSafeHandle, lambda handle: None)
    play(ctask._ctask._ThreadSafeHandle, open_them)
    handle = ctask._ctask._ThreadSafeHandle(int, (), world.loop)
    handle._lock = unseen(world)
    cycle(world, handle)
    handle._args = (handle,)
    del handle
    world.collect()


SITUATIONS: list[Callable[[World], Any]] = [
    dropped_calls,
    forgotten_calls,
    slots,
    slots_of_garbage,
    derived_kinds,
    weakly_referenced,
    truths,
    truths_that_run,
    strange_handles,
    strange_loops,
    cancelled_in_debug_mode,
    cancelled_timers,
    made_in_debug_mode,
    seen_half_made,
    seen_spare,
    replaced_run,
    haunted_clock,
    other_clock,
    overridden_methods,
    dropped_transports,
    waited_for_by_a_thread,
    contexts,
    retired_and_seen,
    collections,
    timers_of_others,
    spoiled_while_it_runs,
    locked_by_threads,
    the_context_below_changes,
    gates,
]
