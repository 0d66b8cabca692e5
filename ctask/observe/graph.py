"""Who waits for whom: snapshot().

Any thread may take one while the loops run, and they are not stopped for it: each task is looked at
by itself, and again if it has moved on meanwhile.  No code of the program is called: attributes are
read of asyncio's and ctask's own types only, and what else is to be known the garbage collector
tells, which sees what an object refers to (gc.get_referents()).
"""

import _asyncio
import asyncio
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from ctask import _ctask
from ctask.observe import waits
from ctask.observe.waits import Awaited, Frame, read, text

MAX_TASKS = 10_000
_RUNS = ("run_forever", "_run_once")  # of a loop: below its frame is what the loop runs


@dataclass(frozen=True)
class TaskInfo:
    """A task that is not done."""

    id: int
    """Its number, which no other task of ctask's has; of other tasks the address."""
    name: str
    coroutine: str
    state: str
    """`new`, `ready` (waits for its turn), `waiting` or `running`."""
    since: float | None
    """Seconds since its last step; None before the first, and for a task that is not ctask's."""
    frames: tuple[Frame, ...]
    """The coroutines that await each other, the innermost last."""
    waits_for: Awaited | None
    timeout: float | None
    """Seconds until a timeout that is entered ends the wait."""
    awaits: tuple[int, ...]
    """Tasks that it waits for, and the holder of the lock that it waits for."""
    needs_all: bool
    """Whether it waits for each of these; if not, some of them may be enough."""
    group: int | None
    """The task whose TaskGroup it belongs to."""
    created: Frame | None = None
    """The program's line that created it: known in debug mode."""


@dataclass(frozen=True)
class LoopInfo:
    """A loop and its tasks."""

    id: int
    kind: str
    thread: str | None
    """The name of the thread that it runs in; None if it does not run."""
    state: str
    """`idle` (waits for events), `busy` or `stopped`."""
    stack: tuple[Frame, ...]
    """What it is busy with, the innermost frame last."""
    tasks: tuple[TaskInfo, ...]
    left_out: int
    """Tasks beyond the number that was asked for."""
    counters: dict[str, int] = field(default_factory=dict)
    """Of a loop of ctask's what stats() is made of."""
    blocked: float | None = None
    """Seconds that one callback or step has lasted at least, if it is long."""


@dataclass(frozen=True)
class Snapshot:
    """What snapshot() returns."""

    pid: int
    when: float
    """time.time()"""
    loops: tuple[LoopInfo, ...]


def snapshot(
    loop: asyncio.AbstractEventLoop | None = None, *, max_tasks: int = MAX_TASKS
) -> Snapshot:
    """Return the tasks of a loop, of all if none is given, and what each of them waits for."""
    running = dict(_running_loops())
    loops = [loop] if loop is not None else all_loops(running)
    looks = []
    for one in loops:
        looks.append(look(one, running.get(id(one)), max_tasks))
        max_tasks = max(0, max_tasks - len(looks[-1].tasks))
    return Snapshot(pid=os.getpid(), when=time.time(), loops=tuple(looks))


# ---- loops ----


def _running_loops() -> Iterator[tuple[int, tuple[Any, int, list[FrameType]]]]:
    """By its address each loop that runs: itself, its thread, and the frames that it called."""
    for ident, top in sys._current_frames().items():
        frames: list[FrameType] = []
        frame: FrameType | None = top
        while frame is not None:
            if frame.f_code.co_name in _RUNS and waits.is_ours(frame):
                one = frame.f_locals.get("self")
                if isinstance(one, asyncio.AbstractEventLoop):
                    yield id(one), (one, ident, frames[::-1])
                    frames = []
                    if frame.f_code.co_name == "_run_once":
                        frame = frame.f_back  # that is run_forever()
                        assert frame is not None
                        frame = frame.f_back
                        continue
            frames.append(frame)
            frame = frame.f_back


def all_loops(running: dict[int, tuple[Any, int, list[FrameType]]] | None = None) -> list[Any]:
    """The loops that run, and others that have tasks: of ctask's, or tasks of its up to 3.13."""
    if running is None:
        running = dict(_running_loops())
    found = {key: entry[0] for key, entry in running.items()}
    for _, loop in _ctask._open_loops():
        # Not one that another thread is just making.
        if id(loop) not in found and read(loop, "_transports") is not None and tasks_of(loop):
            found[id(loop)] = loop
    for task in _ctask._registered_tasks():
        loop = read(task, "_loop")
        if isinstance(loop, asyncio.AbstractEventLoop):
            found.setdefault(id(loop), loop)
    return list(found.values())


def look(loop: Any, running: tuple[Any, int, list[FrameType]] | None, max_tasks: int) -> LoopInfo:
    """A loop's part of a snapshot."""
    thread, state, stack = None, "stopped", tuple[Frame, ...]()
    if running is not None:
        thread = _thread_name(running[1])
        called = [frame for frame in running[2] if not _is_the_wait(frame)]
        state = "busy" if called else "idle"
        stack = tuple(waits.frame_of(frame) for frame in called[-waits.MAX_FRAMES :])
    all_tasks = sorted(tasks_of(loop), key=task_id)
    tasks = all_tasks[:max_tasks]
    return LoopInfo(
        id=id(loop),
        kind=f"{type(loop).__module__}.{type(loop).__qualname__}",
        thread=thread,
        state=state,
        stack=stack,
        tasks=tuple(_infos(look_at(loop, tasks))),
        left_out=len(all_tasks) - len(tasks),
        counters=loop._counters() if isinstance(loop, _ctask.Loop) else {},
    )


def _is_the_wait(frame: FrameType) -> bool:
    """Whether the loop waits for events in it, or we are it."""
    module = frame.f_globals.get("__name__")
    if type(module) is not str:
        return False
    return (module == "selectors" and frame.f_code.co_name == "select") or module.startswith(
        "ctask.observe."
    )


def _thread_name(ident: int) -> str:
    # Not threading.enumerate(), which takes a lock that whom we observe may hold.
    thread = threading._active.get(ident)  # type: ignore[attr-defined]
    return text(getattr(thread, "_name", None) or f"thread {ident}")


def tasks_of(loop: Any) -> list[Any]:
    """The tasks of a loop that are not done."""
    try:
        return list(asyncio.all_tasks(loop))
    except RuntimeError:  # they were made faster than they can be listed
        return [task for task in _ctask._registered_tasks() if read(task, "_loop") is loop]


def task_id(task: Any) -> int:
    """TaskInfo.id."""
    return _ctask._task_serial(task) or id(task)


def name_of(task: Any) -> str:
    """A task's name."""
    if issubclass(type(task), _ctask.Task):
        return text(_ctask.Task.get_name(task))
    if issubclass(type(task), _asyncio.Task):
        return text(_asyncio.Task.get_name(task))
    return text(read(task, "_name"))


# ---- tasks ----


class Look:
    """A task at one moment, with the objects themselves."""

    info: TaskInfo

    def __init__(self, task: Any) -> None:
        self.task = task
        self.waiter = read(task, "_fut_waiter")
        self.links = waits.chain_of(read(task, "_coro"))
        self.subject, self.waits_for = None, None
        self.waiting = self.waiter is not None and not waits.is_done(self.waiter)
        if self.waiting:
            self.subject, self.waits_for = waits.describe(self.links, self.waiter)
        self.told = waits.told_by(task)

    def let_go(self) -> None:
        """Forget the objects, whose ends it would put off, and which may refer to our frames."""
        self.__dict__ = {"info": self.info}


def look_at(loop: Any, tasks: Iterable[Any]) -> list[Look]:
    """Each of the tasks, and how they hang together."""
    looks = {}
    for task in tasks:
        looks[task_id(task)] = _look_at_one(task)
        give_way(len(looks))
    # By address whom it tells when a task is done: the future, the TaskGroup, ... of another.
    tellers: dict[int, list[int]] = {}
    for number, one in looks.items():
        for told in one.told:
            tellers.setdefault(id(told), []).append(number)
    holders = waits.holders((number, one.links, one.subject) for number, one in looks.items())
    for number, one in looks.items():
        one.info = _info(loop, number, one, tellers, holders)
    return list(looks.values())


def give_way(n: int) -> None:
    """After some of many steps of ours, let a loop go on that waits for the interpreter."""
    if n % 16 == 0:
        time.sleep(0)


def iteration_of(number: int) -> int | None:
    """The iteration that a running loop of ctask's is in, LoopInfo.id given."""
    loop = next((entry[0] for key, entry in _running_loops() if key == number), None)
    return loop._counters()["iterations"] if isinstance(loop, _ctask.Loop) else None


def _infos(looks: list[Look]) -> Iterator[TaskInfo]:
    for one in looks:
        yield one.info
        one.let_go()


def _look_at_one(task: Any) -> Look:
    for _ in range(3):
        one = Look(task)
        if read(task, "_fut_waiter") is one.waiter:
            break
    return one


def _info(
    loop: Any,
    number: int,
    one: Look,
    tellers: dict[int, list[int]],
    holders: dict[int, list[int]],
) -> TaskInfo:
    awaits: list[int] = []
    needs_all = True
    if one.waits_for is not None:
        kind, subject = one.waits_for.kind, one.subject
        if kind == "lock":
            held_by = _ctask._lock_holder(subject)
            awaits = [held_by] if held_by else holders.get(id(subject), [])
            awaits = awaits if read(subject, "_locked") else []
        elif kind == "semaphore":
            awaits, needs_all = holders.get(id(subject), []), False
        elif waits.is_task(one.waiter):
            awaits = [task_id(one.waiter)]
        else:
            told = [*waits.gathers_in(one.waiter), *waits.told_through(one.links)]
            for key in {id(obj) for obj in told}:
                awaits += tellers.get(key, ())
            awaits.sort()
            needs_all = kind not in ("some", "next")
    group = next((read(told, "_parent_task") for told in one.told if waits.is_group(told)), None)
    state = "waiting" if one.waiting else "ready"
    if one.links and one.links[0].running:
        state = "running"
    since = _since(loop, one.task)
    if since is None and state == "ready" and one.links and one.links[0].unstarted:
        state = "new"
    return TaskInfo(
        id=number,
        name=name_of(one.task),
        coroutine=one.links[0].name if one.links else "?",
        state=state,
        since=since,
        frames=tuple(link.frame for link in one.links if link.frame is not None),
        waits_for=one.waits_for,
        timeout=waits.timeout_of(one.links) if one.waiting else None,
        awaits=tuple(dict.fromkeys(awaits)),
        needs_all=needs_all,
        group=None if group is None else task_id(group),
        created=waits.created_at(one.task),
    )


def _since(loop: Any, task: Any) -> float | None:
    if not isinstance(loop, _ctask.Loop) or not issubclass(type(task), _ctask.Task):
        return None
    try:
        since = loop._waits_since(task)
    except TypeError:
        return None
    return None if since is None else max(0.0, round(time.monotonic() - since, 3))
