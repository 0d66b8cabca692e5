"""Steps of tasks: what a task, its loop and its context are let go of for meanwhile."""

# mypy: ignore-errors
# ruff: noqa: B023, F821
# (Attributes that types do not know are what this is about; each call is made in its turn.)

from __future__ import annotations

import _asyncio
import asyncio
import collections.abc
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import ctask

from ..objects import World
from ..scenes.things import Key
from .tasks import Driven
from .tools import acting, collecting, guarded, overridden, patched, playing, turns

var = contextvars.ContextVar[Any]("var", default=None)


def context(world: World) -> contextvars.Context:
    """One that alone has something evil."""
    made = contextvars.Context()
    made.run(var.set, world.Last())
    return made


def in_vain(world: World, obj: Any, *args: Any) -> None:
    """`_asyncio` starts it anew, and finds no loop."""
    kind = _asyncio.Task if isinstance(obj, _asyncio.Task) else _asyncio.Future
    before = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    asyncio.set_event_loop(None)
    with world.quietly():
        kind.__init__(obj, *args)
    asyncio._set_running_loop(before)
    asyncio.set_event_loop(world.loop)


class Loop:
    """A loop that forgets what it is to call, or has the caller start anew."""

    def __init__(self, world: World, again: Callable[[], Any]) -> None:
        self.world, self.again = world, again

    def call_soon(self, *args: Any, **more: Any) -> Any:
        self.world.act()
        with self.world.quietly():
            self.again()
        return self.world.Last()

    def get_debug(self) -> bool:
        self.world.act()
        return False

    def is_running(self) -> bool:
        self.world.act()
        return True

    def call_exception_handler(self, context: Any) -> None:
        self.world.act()

    def __hash__(self) -> int:
        self.world.act()
        return 1

    def __eq__(self, other: object) -> bool:
        self.world.act()
        return self is other

    def __del__(self) -> None:
        self.world.act()


def started_anew(world: World) -> None:
    """Futures and tasks whose loop has them start anew as it is called, for good or in vain."""
    plain = ctask.new_event_loop()
    for how in range(4):

        def again(obj: Any, *args: Any) -> None:
            var.set(None)
            if how == 0:
                type(obj).__init__(obj, *args, loop=plain)
            elif how == 1:
                in_vain(world, obj, *args)
            elif how == 2:
                raise ValueError(world.Last())

        for end in ("set_result", "set_exception", "cancel"):
            future = ctask.Future(loop=Loop(world, lambda: again(future)))
            for _ in range(3):
                future.add_done_callback(guarded(world), context=context(world))
            with world.quietly():
                getattr(future, end)(ValueError(world.Last()))
            var.set(world.Last())
            with world.quietly():
                future.add_done_callback(guarded(world))
            del future
        with world.quietly():
            coroutine = Driven(world)
            task = ctask.Task.__new__(ctask.Task)
            loop = Loop(world, lambda: again(task, coroutine))
            arguments = {"loop": loop, "context": context(world), "name": world.Last()}
            del loop
            task.__init__(coroutine, **arguments)
        with world.quietly():
            arguments.clear()
            del task, coroutine
    plain.close()


def anew_in_a_step(world: World) -> None:
    """The coroutine has its own task start anew: in another context, on another loop, in vain."""

    async def other() -> None:
        await asyncio.sleep(0)

    def again(how: int) -> None:
        task = asyncio.current_task(world.loop)
        if how == 0:
            task.__init__(other(), loop=world.loop, context=context(world))
        elif how == 1:
            in_vain(world, task, other())
        elif how == 2:
            _asyncio.Future.set_result(task, world.Last())
        elif how == 3:
            _asyncio.Future.__init__(task, loop=Loop(world, lambda: None))
        elif how == 4:
            _asyncio.Task.__init__(task, other(), loop=world.loop)

    class Steps(Driven):
        def send(self, value: Any) -> Any:
            self.world.act()
            how, then = self.values
            if self.left:
                self.left -= 1
                with self.world.quietly():
                    again(how)
                return then()
            return super().send(value)

        left = 2

    collections.abc.Coroutine.register(Driven)

    def done() -> Any:
        future = world.loop.create_future()
        future.set_result(world.Last())
        future._asyncio_future_blocking = True
        return future

    def raises() -> Any:
        raise ValueError(world.Last())

    def ends() -> Any:
        raise StopIteration(world.Last())

    def is_cancelled() -> Any:
        raise asyncio.CancelledError(world.Last())

    for how in range(5):
        for then in (world.Last, done, raises, ends, is_cancelled, lambda: None):
            made = Steps(world, how, then)
            with world.quietly():
                task = asyncio.Task(made, loop=world.loop, context=context(world))
                del made
                world.undo.append(task.cancel)
                del task
            turns(world, 2)


def no_memory(world: World) -> None:
    """What is asked on the way says that memory is short."""

    class Short(MemoryError):
        def __del__(self) -> None:
            world.act()

    class Asked:
        def __await__(self) -> Any:
            yield self

        @property
        def _asyncio_future_blocking(self) -> Any:
            world.act()
            raise Short(world.Last())

        def __del__(self) -> None:
            world.act()

    async def play() -> None:
        await Asked()

    ours = world.loop
    for loop in (world.loop, overridden(world, ctask.EventLoop, "call_soon")()):
        world.loop = loop
        with world.quietly():
            playing(world, play(), 2)
        coroutine = play()
        with world.quietly():
            task = asyncio.Task(coroutine, loop=Loop(world, lambda: None))
            world.undo.append(lambda: task.__init__(coroutine, loop=ours))
            steps: list[Any] = []
            forgets = Loop(world, lambda: None)
            forgets.call_soon = lambda callback, *args, **more: steps.append(callback)
            task = asyncio.Task(play(), loop=forgets)
            forgets.call_soon = lambda callback, *args, **more: world.act()
            while steps:
                with world.quietly():
                    steps.pop()()
            del task, forgets
        world.loop = ours
    loop.close()


def haunted_entries(world: World) -> None:
    """The loop's entry among the current tasks is beside an evil key, which raises."""
    names = getattr(asyncio.tasks, "_current_tasks", {})
    loop = world.loop
    make: list[Callable[[], BaseException]] = [lambda: ValueError(world.Last())]
    raising: list[int] = []

    class Haunts:
        def __hash__(self) -> int:
            return hash(loop)

        def __eq__(self, other: object) -> bool:
            world.act()
            if raising:
                raise make[0]()
            return self is other

    class Strange(asyncio.Future):
        def __del__(self) -> None:
            world.act()

    async def play(how: int) -> None:
        if how == 1:
            raising.append(1)
        if how == 2:
            names.update((key, None) for key in others)
            raising.append(1)
            raise KeyboardInterrupt(world.Last())
        future = Strange(loop=loop)
        loop.call_soon(future.set_result, world.Last())
        loop.call_soon(raising.append, 1)
        await future

    class Yields(Driven):
        def send(self, value: Any) -> Any:
            if self.values:
                self.values.clear()
                future = Strange(loop=loop)
                future._asyncio_future_blocking = True
                return future
            return super().send(value)

    collections.abc.Coroutine.register(Driven)
    ghost, others = Haunts(), [object() for _ in range(50)]
    make[0] = lambda: MemoryError(world.Last())
    for _ in range(2):
        task = loop.create_task(Yields(world, 1))
        steps = [handle._callback for handle in loop._ready if handle._callback is not None]
        turns(world, 1)
        names[ghost] = None
        for step in steps:
            with world.quietly():
                raising.append(1)
                step()
        raising.clear()
        names.pop(ghost, None)
        turns(world, 1)
        del task, steps, step
    for kind in (ValueError, MemoryError):
        make[0] = lambda: kind(world.Last())
        for how in range(3):
            names[ghost] = None
            task = loop.create_task(play(how))
            steps = [handle._callback for handle in loop._ready if handle._callback is not None]
            if how == 0:
                turns(world, 1)
            for step in steps:
                with world.quietly():
                    step()
            turns(world, 1)
            with world.quietly():
                asyncio.current_task(loop)
            with world.quietly():
                asyncio.tasks._enter_task(loop, world.Last())
            raising.clear()
            for key in (ghost, loop, *others):
                names.pop(key, None)
            turns(world, 2)
            task.cancel()
            del task, steps
            turns(world, 2)


def eager_starts(world: World) -> None:
    """On loops with an evil hash, of coroutines that are a program's, in contexts that go."""
    collections.abc.Coroutine.register(Driven)
    swap = getattr(asyncio.tasks, "_swap_current_task", None)
    if swap is None:
        return

    class Leaves(Driven):
        def send(self, value: Any) -> Any:
            asyncio._set_running_loop(None)
            return super().send(value)

    class Again(Driven):
        def send(self, value: Any) -> Any:
            with self.world.quietly():
                self.task.__init__(Driven(self.world), loop=world.loop)
            return super().send(value)

    class Task(asyncio.Task):
        def __init__(self, coroutine: Any, **more: Any) -> None:
            coroutine.task = self
            super().__init__(coroutine, **more)

    for kind in (Driven, Leaves, Again):
        for values in ((), (None,), (world.Last(),)):
            with world.quietly():
                loop = Loop(world, lambda: None)
                asyncio._set_running_loop(loop)
                swap(loop, world.Last())
                made = kind(world, *values)
                arguments = {"loop": loop, "context": context(world), "eager_start": True}
                del loop
                ctask.Task(made, **arguments)
            with world.quietly():
                made = kind(world, *values)
                Task(made, **arguments)
            with world.quietly():
                del made
                ctask.Task(kind(world, *values), **arguments)
            with world.quietly():
                swap(arguments["loop"], None)
            asyncio._set_running_loop(None)
            arguments.clear()


def forgotten(world: World) -> None:
    """Steps by hand of tasks whose loop forgets them, and has them start anew."""
    plain = ctask.new_event_loop()

    class Context:
        """One that is none."""

        def __init__(self, world: World) -> None:
            self.world = world

        def __del__(self) -> None:
            self.world.act()

    class Blocking(asyncio.Future):
        def __del__(self) -> None:
            world.act()

    for how in range(8):
        steps: list[Any] = []
        loops: list[Any] = []

        def again() -> None:
            if steps[1:]:
                task = steps[0].__self__
                more = {"context": context(world)} if how % 2 else {}
                coroutine = Driven(world)
                loops.clear()
                task.__init__(coroutine, loop=plain, **more)

        class Keeps(Loop):
            def call_soon(self, callback: Any, *args: Any, **more: Any) -> Any:
                if not steps:
                    steps.append(callback)
                    return None
                return super().call_soon(callback)

        def blocking() -> Any:
            if how < 2:
                return world.Last()
            future = (Blocking if how < 4 else ctask.Future)(loop=loops[0])
            future._asyncio_future_blocking = True
            if how > 5:
                future.set_result(world.Last())
            return future

        class Gives(Driven):
            def send(self, value: Any) -> Any:
                if self.values:
                    return self.values.pop(0)()
                return super().send(value)

        with world.quietly():
            loops.append(Keeps(world, again))
            made = Context(world) if how % 2 else context(world)
            task = ctask.Task(Gives(world, blocking, blocking), loop=loops[0], context=made)
            del made, task
            steps.append(1)
            world.undo.append(loops.clear)
            asyncio._set_running_loop(loops[0])
            for _ in range(2):
                with world.quietly():
                    steps[0]()
        asyncio._set_running_loop(None)
        steps.clear()
        loops.clear()
    plain.close()


def cancelled_errors(world: World) -> None:
    """The class of cancellations is a program's to change."""
    kind = asyncio.CancelledError
    kind.__init__ = acting(world, lambda self, *args: None)
    try:
        for message in (world.Last, lambda: None):
            future = world.loop.create_future()
            world.undo.append(lambda: _asyncio.Future.__init__(future, loop=world.loop))
            future.cancel(message())
            for call in (future.result, future.exception, future._make_cancelled_error):
                with world.quietly():
                    call()
            task = world.loop.create_task(world.waits(world.loop.create_future()))
            task.cancel(message())
            turns(world, 1)
            task = world.loop.create_task(world.waits(world.loop.create_future()))
            turns(world, 1)
            task.cancel(message())
            turns(world, 2)
            with world.quietly():
                task.result()
            del task
    finally:
        del kind.__init__


def keywords(world: World) -> None:
    """Names of arguments that are equal to those that are known, and say so by evil code."""
    task = world.loop.create_task(world.coroutine())
    for call in (
        lambda name: ctask.Future(**{Key(world, "loop"): world.loop}),
        lambda name: ctask.Future(**{Key(world, name): world.loop}),
        lambda name: world.loop.create_future().cancel(**{Key(world, "msg"): world.Last()}),
        lambda name: world.loop.create_future().cancel(**{Key(world, name): world.Last()}),
        lambda name: ctask.Task(world.coroutine(), **{Key(world, "loop"): world.loop}),
        lambda name: task.cancel(1, **{Key(world, name): 1}),
        lambda name: task.cancel(**{Key(world, name): 1}),
    ):
        for name in ("evil", "loop", "msg"):
            with world.quietly():
                call(name)
    turns(world, 1)


def dying_iterators(world: World) -> None:
    """Those of futures that nobody else has."""
    kind = type("Future", (asyncio.Future,), {"__del__": lambda future: world.act()})
    for base in (kind, ctask.Future):
        for end in ("set_result", "set_exception", "cancel"):
            future = base(loop=world.loop)
            getattr(future, end)(ValueError(world.Last()))
            iterator = ctask.Future.__iter__(future) if base is not kind else iter(future)
            world.undo.append(iterator.close)
            del future
            with world.quietly():
                next(iterator)
            with world.quietly():
                next(iterator)
            del iterator
    derived = type("Future", (ctask.Future,), {"__del__": lambda future: world.act()})
    for end in ("set_result", "cancel"):
        future = derived(loop=world.loop)
        getattr(future, end)(world.Last())
        iterator = iter(future)
        del future
        with world.quietly():
            next(iterator)
        del iterator


def contexts(world: World) -> None:
    """Contexts that go: from the pool, as they are left, and with those who had them copied."""

    class Sets:
        """Its end changes the variable in the context in which the loop runs."""

        def __del__(self) -> None:
            var.set(None)
            world.loop.call_soon(int)
            world.act()

    def gone(handle: list[Any]) -> None:
        with world.quietly():
            handle[0]._context = contextvars.Context()
        with world.quietly():
            handle[0].__init__(int, (), world.loop)

    var.set(world.Last())
    for _ in range(3):
        playing(world, asyncio.sleep(0), 1)
        world.loop.call_soon(guarded(world), Sets())
        world.loop.call_soon(int)
        playing(world, asyncio.sleep(0), 2)
        var.set(world.Last())
    for call in (
        world.loop.call_soon,
        lambda *args, **more: world.loop.call_later(0, *args, **more),
    ):
        handle: list[Any] = []
        handle.append(call(gone, handle, context=context(world)))
        del handle
        turns(world, 2)
    var.set(None)


def without_a_context(world: World) -> None:
    """A thread that has none yet, and no memory at hand for one; lists of many tasks."""
    kept = [contextvars.copy_context() for _ in range(300)]

    def play() -> None:
        with world.quietly():
            ctask.Task(asyncio.sleep(0), loop=world.loop)

    for _ in range(8):
        kept.append(contextvars.copy_context())
        thread = threading.Thread(target=play)
        thread.start()
        thread.join()
    tasks = [world.loop.create_task(world.coroutine()) for _ in range(5)]
    world.undo.append(tasks.clear)
    lists: list[Any] = [[] for _ in range(200)]
    for _ in range(9):
        with world.quietly():
            lists.append(asyncio.all_tasks(world.loop))
            lists.append(ctask._ctask._registered_tasks())
    del kept
    for _ in range(20):
        with world.quietly():
            outer = asyncio.gather(*[world.loop.create_future() for _ in range(3)])
            outer._children  # noqa: B018
        with world.quietly():
            asyncio._set_running_loop(world.loop)
            outer = asyncio.gather(*[world.loop.create_future() for _ in range(3)])
            world.undo.append(outer.cancel)
            outer._children  # noqa: B018
            outer.cancel()
            world.keep(asyncio.shield(world.loop.create_future()))
        asyncio._set_running_loop(None)


def awaited_by(world: World) -> None:
    """The call graph: who waits is a task whose hash is evil, and is put among others."""

    class Task(asyncio.Task):
        def __hash__(self) -> int:
            world.act()
            return 1

        def __eq__(self, other: object) -> bool:
            var.set(None)
            world.act()
            if world.rng.random() < 0.3:
                raise ValueError(world.Last())
            return self is other

        def __del__(self) -> None:
            world.act()

    future, other = world.loop.create_future(), world.loop.create_future()
    world.undo.extend((future.cancel, lambda: _asyncio.Future.__init__(future, loop=world.loop)))

    async def waits() -> None:
        await future

    async def gathers() -> None:
        await asyncio.gather(future, other, return_exceptions=True)

    async def any_of() -> None:
        await asyncio.wait([future, other], timeout=0.001)

    async def first_of() -> None:
        for each in asyncio.as_completed([future, other], timeout=0.001):
            await each

    async def shields() -> None:
        var.set(world.Last())
        outer = asyncio.shield(future)
        var.set(None)
        await outer

    for play in (waits, gathers, any_of, first_of, shields, waits, gathers, shields):
        with world.quietly():
            Task(play(), loop=world.loop)
        turns(world, 1)
    for end in (other, future):
        with world.quietly():
            end.set_result(world.Last())
        turns(world, 2)
    with world.quietly(), patched(asyncio.tasks, "current_task", acting(world, lambda *args: 5)):
        asyncio.gather(world.loop.create_future())


def collections(world: World) -> None:
    """Where C asks for memory (3.11)."""

    def registered() -> Callable[[], Any]:
        tasks = [world.loop.create_task(asyncio.sleep(1)) for _ in range(3)]
        world.undo.append(tasks.clear)
        return ctask._ctask._registered_tasks

    collecting(world, registered)


SITUATIONS: list[Callable[[World], Any]] = [
    started_anew,
    anew_in_a_step,
    no_memory,
    haunted_entries,
    eager_starts,
    forgotten,
    cancelled_errors,
    keywords,
    dying_iterators,
    contexts,
    without_a_context,
    awaited_by,
    collections,
]
