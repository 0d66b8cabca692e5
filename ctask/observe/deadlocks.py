"""Tasks that wait for what cannot come: find_deadlocks().

Tasks of a deadlock do not move.  So what one look at the tasks suspects a second one has to see
again, each task at the very same future: then all of it was true at once, between the two.
"""

import asyncio
import gc
import sys
from collections import deque
from dataclasses import dataclass
from types import FrameType
from typing import Any

from ctask import _ctask
from ctask.observe import graph, waits
from ctask.observe.graph import Look, TaskInfo

MAX_SUSPECTS = 1000  # of those that wait for what nobody may refer to
MAX_NAMES = 10


@dataclass(frozen=True)
class Deadlock:
    """Tasks that will not go on by themselves; str() of it is a report of some lines."""

    kind: str
    """`circle`: each waits for the next, and the last for the first. `lost lock`: the task that
    took the lock is done. `unreachable`: nobody but the task refers to what it waits for."""
    tasks: tuple[TaskInfo, ...]
    """In a circle in the order in which they wait for each other."""
    waiting: tuple[TaskInfo, ...]
    """The other tasks that cannot go on because of these."""

    def __str__(self) -> str:
        lines = [self._title()]
        for index, task in enumerate(self.tasks):
            after = self.tasks[(index + 1) % len(self.tasks)]
            lines.append(f"  {_where(task)} waits for {self._what(task, after)}")
        if self.waiting:
            names = ", ".join(task.name for task in self.waiting[:MAX_NAMES])
            more = len(self.waiting) - MAX_NAMES
            lines.append(f"  because of that also: {names}" + (f" and {more} more" * (more > 0)))
        return "\n".join(lines)

    def _title(self) -> str:
        if self.kind == "lost lock":
            return "a lock was not released by the task that took it"
        if self.kind == "unreachable":
            return "a task waits for what nobody else can reach"
        if len(self.tasks) == 1:
            return "a task waits for itself"
        return f"{len(self.tasks)} tasks wait for each other"

    def _what(self, task: TaskInfo, after: TaskInfo) -> str:
        assert task.waits_for is not None
        what = task.waits_for.what
        if self.kind == "unreachable":
            return what
        if self.kind == "lost lock":
            return f"a {what} that a task took that is done"
        name = "itself" if after.id == task.id else after.name
        if task.waits_for.kind in ("lock", "semaphore"):
            return f"a {what} that {'it' if name == 'itself' else name} holds"
        return name if task.waits_for.kind == "task" else f"{name}, by {what}"


def _where(task: TaskInfo) -> str:
    # Where the program's own code is, not asyncio's below it.
    frames = [frame for frame in task.frames if not waits.is_own_file(frame.file)]
    at = (frames or list(task.frames))[-1:]
    return f"{task.name} ({at[0].name}(), {at[0].file}:{at[0].line})" if at else task.name


def find_deadlocks(
    loop: asyncio.AbstractEventLoop | None = None, *, unreachable: bool = False
) -> list[Deadlock]:
    """Return the deadlocks of a loop, of all loops if none is given; any thread may ask.

    A wait that a timeout ends is none, and a lock that another task releases than the one that
    took it looks like one.  With unreachable=True also tasks are found that wait for a future, an
    event, a queue, ... which nobody else refers to.  For that all objects of the program are
    looked at, while nothing else runs: with millions of them it takes a second or so.
    """
    loops = [loop] if loop is not None else graph.all_loops()
    return [deadlock for one in loops for deadlock in _find(one, unreachable)]


def find_among(most: int) -> list[Deadlock]:
    """The deadlocks of so many tasks of each loop, those that were made first."""
    return [deadlock for one in graph.all_loops() for deadlock in _find(one, False, most)]


def _find(loop: Any, unreachable: bool, most: int | None = None) -> list[Deadlock]:
    tasks = graph.tasks_of(loop)
    if most is not None:
        tasks = sorted(tasks, key=graph.task_id)[:most]
    first = graph.look_at(loop, tasks)
    again: list[Look] = []
    try:
        before = {one.info.id: one for one in first}
        suspects = _stuck(before)
        lonely = _unreachable(first) if unreachable else set()
        if not suspects and not lonely:
            return []
        again = graph.look_at(loop, tasks)
        after = {one.info.id: one for one in again}
        same = {
            number: one
            for number, one in after.items()
            if number in before
            and before[number].waiter is one.waiter is not None
            and not waits.is_done(one.waiter)
        }
        lost = _lost(after) & same.keys()
        return _sort_out(same, _stuck(same, lost) & suspects, lost, lonely & same.keys())
    finally:
        for one in (*first, *again):
            one.let_go()


# ---- circles, and locks that are not released ----


def _lost(looks: dict[int, Look]) -> set[int]:
    """The tasks that wait for a lock whose holder is done."""
    pending = {graph.task_id(task) for task in _ctask._registered_tasks()}
    return {
        number
        for number, one in looks.items()
        if one.info.waits_for is not None
        and one.info.waits_for.kind == "lock"
        and one.info.awaits
        and not any(holder in looks or holder in pending for holder in one.info.awaits)
    }


def _stuck(looks: dict[int, Look], lost: set[int] | None = None) -> set[int]:
    """The most tasks of which each can go on only after another of them, or never."""
    lost = _lost(looks) if lost is None else lost & looks.keys()
    stuck = {
        number
        for number, one in looks.items()
        if one.waiting and one.info.timeout is None and one.info.awaits
    }
    blocks: dict[int, list[int]] = {}
    for number in stuck:
        for awaited in looks[number].info.awaits:
            blocks.setdefault(awaited, []).append(number)
    todo = deque(stuck)
    while todo:
        number = todo.popleft()
        info = looks[number].info
        if number not in stuck or number in lost:
            continue
        left = [awaited for awaited in info.awaits if awaited in stuck]
        if not left or (not info.needs_all and len(left) < len(info.awaits)):
            stuck.discard(number)
            todo.extend(blocks.get(number, ()))
    return stuck


def _sort_out(
    looks: dict[int, Look], stuck: set[int], lost: set[int], lonely: set[int]
) -> list[Deadlock]:
    circles = _circles({n: [a for a in looks[n].info.awaits if a in stuck] for n in stuck})
    roots = [("circle", circle) for circle in circles]
    by_lock: dict[int, list[int]] = {}
    for number in sorted(lost & stuck):
        by_lock.setdefault(id(looks[number].subject), []).append(number)
    roots += [("lost lock", numbers) for numbers in by_lock.values()]
    roots += [("unreachable", [number]) for number in sorted(lonely)]
    return [
        Deadlock(
            kind=kind,
            tasks=tuple(looks[number].info for number in numbers),
            waiting=tuple(looks[number].info for number in _behind(looks, stuck, numbers)),
        )
        for kind, numbers in roots
    ]


def _behind(looks: dict[int, Look], stuck: set[int], roots: list[int]) -> list[int]:
    """Those of the stuck that wait for one of these, or for one who does."""
    behind, before = set(roots), 0
    while len(behind) > before:
        before = len(behind)
        behind |= {n for n in stuck if not behind.isdisjoint(looks[n].info.awaits)}
    return sorted(behind.difference(roots))


def _circles(edges: dict[int, list[int]]) -> list[list[int]]:
    """One way round for each set of tasks that all wait for each other."""
    circles: list[list[int]] = []
    seen: set[int] = set()
    for start in sorted(edges):
        path: dict[int, None] = {}
        number: int | None = start
        while number is not None and number not in seen:
            if number in path:
                way = list(path)
                circles.append(way[way.index(number) :])
                break
            path[number] = None
            after = [a for a in edges[number] if a not in seen]
            number = after[0] if after else None
        seen.update(path)
    return circles


# ---- what nobody refers to ----

_KINDS = ("future", "event", "condition", "queue", "semaphore", "barrier")


def _unreachable(looks: list[Look]) -> set[int]:
    """The tasks that wait for what only they and their coroutines refer to.

    Who refers to it from a list or an attribute counts, even if nobody refers to that: what is
    said is true, and something may be missing.
    """
    suspects = [
        one
        for one in looks
        if one.waits_for is not None
        and one.waits_for.kind in _KINDS
        and one.info.timeout is None
        and not one.info.awaits
    ][:MAX_SUSPECTS]
    wanted = {id(obj): obj for one in suspects for obj in (one.waiter, one.subject)}
    referrers = _referrers(wanted, looks, suspects)
    return {
        one.info.id
        for one in suspects
        if not any(
            id(referrer) not in _own(one) and type(referrer).__name__ != "FutureIter"
            for obj in (one.waiter, one.subject)
            for referrer in referrers[id(obj)]
        )
    }


def _referrers(
    wanted: dict[int, Any], looks: list[Look], suspects: list[Look]
) -> dict[int, list[Any]]:
    """By its address who refers to each of the objects, but for ourselves."""
    found: dict[int, list[Any]] = {key: [] for key in wanted}
    _note_stacks(found)
    mine: list[Any] = [wanted, looks, suspects]
    for one in looks:
        mine += [one, one.__dict__, one.told, *one.links]
        mine += [part for link in one.links for part in (link.__dict__, link.refers)]
    arguments = tuple(wanted.values())
    skip = {id(obj) for obj in (*mine, arguments, mine)}
    for referrer in gc.get_referrers(*arguments):
        if id(referrer) in skip or (type(referrer) is FrameType and _is_mine(referrer)):
            continue
        for obj in gc.get_referents(referrer):
            if id(obj) in found:
                found[id(obj)].append(referrer)
    return found


def _note_stacks(found: dict[int, list[Any]]) -> None:
    """What the variables of running functions refer to, which the collector may not see."""
    for top in sys._current_frames().values():
        frame: FrameType | None = top
        while frame is not None:
            if not _is_mine(frame):
                for obj in list(frame.f_locals.values()):
                    if id(obj) in found:
                        found[id(obj)].append(frame)
            frame = frame.f_back


def _is_mine(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__") in (__name__, graph.__name__, waits.__name__)


def _own(one: Look) -> set[int]:
    """What is only there for the wait: the task, its coroutines, and the insides of a lock."""
    own = {id(one.task)} | {id(obj) for obj in waits.exits_in(one.links)}
    for link in one.links:
        own |= {id(link.coroutine), id(link.python_frame)}
    inside = [one.subject]
    for _ in range(4):
        own |= {id(obj) for obj in inside}
        inside = [
            part
            for obj in inside
            for part in gc.get_referents(obj)
            if type(part) in (deque, dict) or waits.is_subject(part)
        ]
    return own
