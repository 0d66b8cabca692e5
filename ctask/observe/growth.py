"""What grows and should not: what is ready in a loop, and queues.

watch.py looks every ten seconds while the loop works.  How much is ready is a number that the loop
has.  Queues are nowhere listed: they are searched for among all objects, which stops everything for
about as long as a full collection does, only while the process's memory grows.
"""

import gc
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from ctask._loop import EventLoop
from ctask.observe.blocking import clock

EVERY = 10.0  # seconds between two looks
LOOKS = 7  # in a minute
SEARCHES = 3  # a queue has to have grown in
LEAST = 100  # callbacks or items: less is nothing
_MEMORY = 1 << 20  # bytes more in a minute
_SHARE = 1000  # searches take at most one part of so many of the time
_TASKS = 1000  # are looked at, to say who it is
_SHOWN = 5
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class GrowthReport:
    """What has grown at each look for a minute; its str() is a text for people."""

    what: Literal["ready", "queue"]
    """`ready`: the callbacks and steps that wait for their turn. `queue`: the items of a queue."""
    name: str
    """The queue's type; empty for what is ready."""
    lengths: tuple[int, ...]
    """How many there were, at one look after the other."""
    seconds: float
    """From the first look to the last."""
    tasks: tuple[str, ...]
    """The tasks that are ready, or that use the queue, as far as they were looked at."""

    def __str__(self) -> str:
        lengths = ", ".join(map(str, self.lengths))
        if self.what == "ready":
            first = f"what is ready grows, for {self.seconds:.0f} s: {lengths} callbacks and steps"
        else:
            first = f"a {self.name} grows, for {self.seconds:.0f} s: {lengths} items"
        more = len(self.tasks) - _SHOWN
        lines = [first, *(f"  {task}" for task in self.tasks[:_SHOWN])]
        return "\n".join(lines + ([f"  and {more} more"] if more > 0 else []))


class Growth:
    """What one loop's lengths were."""

    def __init__(self) -> None:
        self._ready: deque[tuple[float, int]] = deque(maxlen=LOOKS)
        self._memory: deque[tuple[float, int]] = deque(maxlen=LOOKS)
        self._queues: dict[int, deque[tuple[float, int]]] = {}
        self._next_search = 0.0

    def look(self, loop: EventLoop, now: float) -> list[GrowthReport]:
        """See how much there is at a moment, in seconds, and report what has grown all the time."""
        if self._ready and now - self._ready[-1][0] > 3 * EVERY:
            self._ready.clear()  # it was idle in between
            self._memory.clear()
            self._queues.clear()
        self._ready.append((now, loop._ready_length()))
        self._memory.append((now, resident()))
        reports = []
        if _grows(self._ready, LOOKS):
            reports.append(_report("ready", "", self._ready, _who_is_ready(loop)))
        memory = [size for _, size in self._memory]
        if len(memory) == LOOKS and memory[-1] - memory[0] >= _MEMORY and now >= self._next_search:
            began = clock()
            reports += self._search(loop, now)
            self._next_search = now + _SHARE * (clock() - began)
        return reports

    def _search(self, loop: EventLoop, now: float) -> Iterator[GrowthReport]:
        before, self._queues = self._queues, {}
        for queue, length in _queues():
            seen = before.get(id(queue), deque[tuple[float, int]](maxlen=LOOKS))
            seen.append((now, length))
            self._queues[id(queue)] = seen
            if _grows(seen, SEARCHES):
                yield _report("queue", type(queue).__name__, seen, _who_uses(loop, queue))


def _grows(seen: deque[tuple[float, int]], looks: int) -> bool:
    lengths = [length for _, length in seen]
    return (
        len(lengths) >= looks and lengths[-1] >= LEAST and all(a < b for a, b in pairwise(lengths))
    )


def _report(
    what: Literal["ready", "queue"],
    name: str,
    seen: deque[tuple[float, int]],
    tasks: Iterable[str],
) -> GrowthReport:
    """A report; the next one needs looks of its own."""
    times, lengths = zip(*seen, strict=True)
    seen.clear()
    return GrowthReport(what, name, lengths, times[-1] - times[0], tuple(tasks))


def resident() -> int:
    """The bytes of memory that the process has; 0 if that is not known."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


# ---- queues ----


def _kinds(kind: type) -> Iterator[type]:
    yield kind
    below: list[type] = type.__subclasses__(kind)
    for derived in below:
        yield from _kinds(derived)


def _queues() -> Iterator[tuple[Any, int]]:
    """The queues of this process that are not short."""
    from ctask.observe import waits

    kinds = {kind for base in waits.QUEUES for kind in _kinds(base)}
    for obj in gc.get_referrers(*kinds):
        if type(obj) in kinds:
            items = waits.read(obj, "_queue")
            if type(items) in (list, deque) and len(items) >= LEAST:
                yield obj, len(items)


# ---- who ----


def _who_is_ready(loop: EventLoop) -> list[str]:
    """How many tasks are ready at the same place, the most first."""
    from ctask.observe import graph

    counts: Counter[str] = Counter()
    for one in graph.look_at(loop, graph.tasks_of(loop)[:_TASKS]):
        if one.info.state in ("ready", "new"):
            counts[f"{one.info.coroutine}(){_place(one.info.frames)}"] += 1
        one.let_go()
    return [f"{n} in {where}" for where, n in counts.most_common()]


def _who_uses(loop: EventLoop, queue: Any) -> list[str]:
    """The tasks that have the queue in a variable, or in an attribute of one."""
    from ctask.observe import graph, waits

    found = []
    for n, task in enumerate(sorted(graph.tasks_of(loop), key=graph.task_id)[:_TASKS]):
        links = waits.chain_of(waits.read(task, "_coro"))
        if any(obj is queue for link in links for obj in _refers(link)):
            frames = tuple(link.frame for link in links if link.frame is not None)
            found.append(f"{graph.name_of(task)}, {links[0].name}(){_place(frames)}")
        graph.give_way(n)
    return found


def _refers(link: Any) -> Iterator[Any]:
    """What a coroutine refers to, and what its objects and outer variables do, as `self.queue`."""
    for obj in link.refers:
        yield obj
        if not issubclass(type(obj), (list, dict, set, frozenset, tuple, str, bytes, type)):
            yield from gc.get_referents(obj)


def _place(frames: Any) -> str:
    from ctask.observe import waits

    own = [frame for frame in frames if not waits.is_own_file(frame.file)]
    return f" at {own[-1].file}:{own[-1].line}" if own else ""
