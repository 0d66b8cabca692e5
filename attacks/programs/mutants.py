"""Planted faults: the attack is worth something only if it finds them.

PYTHON are changes of asyncio's own classes, made in a process that plays on asyncio; C are changes
of ctask's source, compiled in a temporary folder.
"""

from __future__ import annotations

import asyncio
import heapq
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._edits import Edit, built
from .driver import Team, steady
from .generate import generate

BATCH = 100

PYTHON: dict[str, Callable[[], None]] = {}
NOTHING = "nothing"  # the control: no fault is planted, and none found


def mutant(function: Callable[[], None]) -> Callable[[], None]:
    PYTHON[function.__name__] = function
    return function


def apply(name: str) -> None:
    if name != NOTHING:
        PYTHON[name]()


def put(owner: Any, **names: Any) -> None:
    for name, value in names.items():
        setattr(owner, name, value)


@mutant
def queue_gives_the_last_first() -> None:
    put(asyncio.Queue, _get=lambda self: self._queue.pop())


@mutant
def queue_gives_the_largest_first() -> None:
    put(asyncio.PriorityQueue, _get=lambda self: self._queue.pop())


@mutant
def queue_wakes_no_putter() -> None:
    def get_nowait(self: Any) -> Any:
        if self.empty():
            if getattr(self, "_is_shutdown", False):
                raise asyncio.QueueShutDown
            raise asyncio.QueueEmpty
        return self._get()

    put(asyncio.Queue, get_nowait=get_nowait)


@mutant
def queue_join_ends_one_late() -> None:
    old = asyncio.Queue.task_done

    def task_done(self: Any) -> None:
        self._unfinished_tasks += self._unfinished_tasks == 1 and len(self._getters) > 0
        old(self)

    put(asyncio.Queue, task_done=task_done)


@mutant
def queue_wakes_the_last_getter() -> None:
    def _wakeup_next(self: Any, waiters: Any) -> None:
        while waiters:
            waiter = waiters.pop()
            if not waiter.done():
                waiter.set_result(None)
                break

    put(asyncio.Queue, _wakeup_next=_wakeup_next)


@mutant
def lock_lets_newcomers_pass() -> None:
    old = asyncio.Lock.acquire

    async def acquire(self: Any) -> bool:
        if not self._locked:
            self._locked = True
            return True
        return bool(await old(self))

    put(asyncio.Lock, acquire=acquire)


@mutant
def lock_loses_a_wake_up_when_cancelled() -> None:
    async def acquire(self: Any) -> bool:
        if not self._locked and all(w.cancelled() for w in self._waiters or ()):
            self._locked = True
            return True
        if self._waiters is None:
            self._waiters = asyncio.locks.collections.deque()  # type: ignore[attr-defined]
        fut = self._get_loop().create_future()
        self._waiters.append(fut)
        try:
            await fut
        finally:
            self._waiters.remove(fut)
        self._locked = True
        return True

    put(asyncio.Lock, acquire=acquire)


@mutant
def event_wakes_one() -> None:
    def set(self: Any) -> None:
        self._value = True
        for fut in self._waiters:
            if not fut.done():
                fut.set_result(True)
                break

    put(asyncio.Event, set=set)


@mutant
def condition_notifies_one_more() -> None:
    old = asyncio.Condition.notify
    put(asyncio.Condition, notify=lambda self, n=1: old(self, n + 1))


@mutant
def semaphore_lets_newcomers_pass() -> None:
    put(asyncio.Semaphore, locked=lambda self: self._value == 0)


@mutant
def bounded_semaphore_has_no_bound() -> None:
    put(asyncio.BoundedSemaphore, release=asyncio.Semaphore.release)


@mutant
def barrier_is_never_broken() -> None:
    async def abort(self: Any) -> None: ...

    put(asyncio.Barrier, abort=abort)


@mutant
def timeout_is_a_cancellation() -> None:
    old = asyncio.Timeout.__aexit__

    async def __aexit__(self: Any, *exc: Any) -> None:
        try:
            await old(self, *exc)
        except TimeoutError as error:
            raise error.__cause__ or error from None

    put(asyncio.Timeout, __aexit__=__aexit__)


@mutant
def group_does_not_cancel() -> None:
    def _abort(self: Any) -> None:
        self._aborting = True

    put(asyncio.TaskGroup, _abort=_abort)


@mutant
def gather_makes_results_of_errors() -> None:
    old: Any = asyncio.gather
    put(asyncio, gather=lambda *fs, return_exceptions=False: old(*fs, return_exceptions=True))


@mutant
def wait_waits_for_all() -> None:
    old: Any = asyncio.wait
    put(asyncio, wait=lambda fs, timeout=None, return_when=None: old(fs, timeout=timeout))


@mutant
def shield_does_not_shield() -> None:
    put(asyncio, shield=asyncio.ensure_future)


@mutant
def callbacks_have_the_callers_context() -> None:
    old: Any = asyncio.BaseEventLoop.call_soon
    put(
        asyncio.BaseEventLoop,
        call_soon=lambda self, call, *args, context=None: old(
            self, call, *args, context=context if "Task" in repr(call) else None
        ),
    )


@mutant
def cancelled_handles_run() -> None:
    def cancel(self: Any) -> None: ...

    put(asyncio.TimerHandle, cancel=cancel)


@mutant
def timers_are_late() -> None:
    old: Any = asyncio.BaseEventLoop.call_at
    put(
        asyncio.BaseEventLoop,
        call_at=lambda self, when, *a, **k: old(self, when + (when % 1 > 0.00001), *a, **k),
    )


@mutant
def timers_of_a_turn_run_backwards() -> None:
    old: Any = asyncio.BaseEventLoop._run_once  # type: ignore[attr-defined]

    def _run_once(self: Any) -> None:
        ready = len(self._ready)
        due = []
        end = self.time() + self._clock_resolution
        while self._scheduled and self._scheduled[0]._when < end:
            due.append(heapq.heappop(self._scheduled))
        for handle in reversed(due):
            handle._scheduled = False
            self._ready.append(handle)
        del ready
        old(self)

    put(asyncio.BaseEventLoop, _run_once=_run_once)


@mutant
def handlers_are_not_told_of_the_handle() -> None:
    old: Any = asyncio.BaseEventLoop.call_exception_handler

    def call_exception_handler(self: Any, context: Any) -> None:
        context.pop("handle", None)
        old(self, context)

    put(asyncio.BaseEventLoop, call_exception_handler=call_exception_handler)


C: dict[str, Edit] = {
    "lock_release_wakes_nobody": Edit(
        "src/sync/lock.c",
        "lock->locked = 0;\n    return waiters_wake_first(&lock->waiters, lock->st);",
        "lock->locked = 0;\n    return 0;",
    ),
    "lock_loses_a_wake_up_when_cancelled": Edit(
        "src/sync/lock.c",
        "if (!lock->locked && PyErr_ExceptionMatches(",
        "if (lock->locked && PyErr_ExceptionMatches(",
    ),
    "semaphore_loses_a_place_when_cancelled": Edit(
        "src/sync/semaphore.c",
        "sem->value++; /* the place that it was given, and will not take */",
        ";",
    ),
    "event_wakes_one": Edit(
        "src/sync/event.c",
        "waiters_wake(&event->waiters, event->st, PY_SSIZE_T_MAX, Py_True)",
        "waiters_wake(&event->waiters, event->st, 1, Py_True)",
    ),
    "cancel_loses_its_message": Edit(
        "src/tasks/future.c",
        "fut->state = FUTURE_CANCELLED;\n    Py_XSETREF(fut->cancel_msg, Py_XNewRef(msg));",
        "fut->state = FUTURE_CANCELLED;\n    Py_XSETREF(fut->cancel_msg, NULL);",
    ),
    "second_callback_is_forgotten": Edit(
        "src/tasks/future.c",
        "for (Py_ssize_t i = 0; result == 0 && i < PyList_GET_SIZE(callbacks); i++) {\n"
        "            PyObject *pair",
        "for (Py_ssize_t i = 1; result == 0 && i < PyList_GET_SIZE(callbacks); i++) {\n"
        "            PyObject *pair",
    ),
    "cancellations_are_not_counted": Edit(
        "src/tasks/cancel.c", "    task->num_cancels_requested++;\n", ""
    ),
    "cancellation_before_the_first_step_is_lost": Edit(
        "src/tasks/cancel.c",
        "    task->must_cancel = 1;\n"
        "    Py_XSETREF(task->cancel_msg, Py_NewRef(msg));\n    return 1;",
        "    return 1;",
    ),
    "cancellation_while_returning_is_lost": Edit(
        "src/tasks/task.c",
        "status = future_cancel((FutureObj *)task, st, msg) < 0 ? -1 : 0;",
        "status = future_set_result((FutureObj *)task, st, Py_None);",
    ),
    "gather_returns_exceptions": Edit(
        "src/combinators/gather.c",
        "if (!done->flag) {\n        int cancelled",
        "if (0) {\n        int cancelled",
    ),
    "wait_takes_results_for_errors": Edit(
        "src/combinators/wait.c",
        "return exc == NULL ? -1 : exc != Py_None;",
        "return exc == NULL ? -1 : exc == Py_None;",
    ),
    "queue_wakes_no_putter": Edit(
        "src/sync/queues_items.h",
        "UNLIKELY(queues_wake_next(q, q->putters) < 0)",
        "0",
    ),
    "yielders_are_overtaken": Edit(
        "src/loop/iterate.c",
        "return loop->yielded_at != 0 && loop->turn_average > LONG_AVERAGE;",
        "return loop->yielded_at != 0;",
    ),
}


def found_at(team: Team, seed: int, count: int) -> int | None:
    """The number of programs after which a difference was seen; None if there was none."""
    for first in range(seed, seed + count, BATCH):
        seeds = range(first, min(first + BATCH, seed + count))
        sources = [generate(s).source() for s in seeds]
        for number, source, differ in zip(seeds, sources, team.play(sources), strict=True):
            if any(steady(team, source, mode) for mode in differ):
                return number - seed + 1
    return None


def find_python(name: str, seed: int, count: int) -> int | None:
    with Team(["asyncio"], name) as team:
        return found_at(team, seed, count)


def find_c(name: str, seed: int, count: int) -> int | None:
    with tempfile.TemporaryDirectory() as folder:
        path = built([C[name]], Path(folder))
        with Team(["installed"], path=str(path)) as team:
            return found_at(team, seed, count)


def hunt(seed: int, count: int) -> int:
    """Say for each mutant after how many programs it was found; returns how many were not."""
    missed = int(find_python(NOTHING, seed, count) is not None)
    print("Python, nothing:", "FOUND, though there is none" if missed else "not found", flush=True)
    kinds: list[tuple[str, Any, Any]] = [("Python", PYTHON, find_python), ("C", C, find_c)]
    for kind, names, find in kinds:
        for name in names:
            number = find(name, seed, count)
            missed += number is None
            told = "MISSED" if number is None else f"found by program {number}"
            print(f"{kind}, {name}: {told}", flush=True)
    return missed
