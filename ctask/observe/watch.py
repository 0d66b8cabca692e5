"""Threads that watch a loop: watch() has one that looks at the stack while one callback goes on.

The thread sleeps in C, without the interpreter lock, until a callback or step of a task has taken
half of the time that it may (src/loop/watchdog.c).  Only then does it look, and follow it to its
end (blocking.py).  In the loop's thread nothing is done but to note the begin of a run.
"""

import asyncio
import atexit
import contextlib
import logging
import math
import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from ctask import _loop
from ctask._ctask import _watchdog_stop, _watchdog_wait
from ctask._loop import EventLoop
from ctask.observe import growth
from ctask.observe.blocking import (
    BlockReport,
    Incident,
    Usage,
    clock,
    garbage_collections,
    native_id,
    queueing,
    usage,
)
from ctask.observe.growth import Growth, GrowthReport
from ctask.observe.stats import loop_of_ours

logger = logging.getLogger("ctask.watch")

_LONGEST_THRESHOLD = 24 * 3600.0  # seconds
_SLICE = 0.05  # seconds, in which one who stops a watch is answered
_PATIENCE = 1.0  # seconds that stop() and close() wait for a report


# ---- threads that watch ----

_lock = threading.RLock()
# By the id of the loop, which is kept alive while it is watched.
_dogs: dict[int, list["_Dog"]] = {}
_everywhere: list["Watch"] = []  # those of each loop that begins to run
_daemons = True


class _Dog:
    """A thread that watches a loop for what takes longer than one threshold.

    It ends with the last watch that needs it, or when the loop is closed.
    """

    def __init__(self, loop: EventLoop, threshold: float, watch: "Watch") -> None:
        self.loop = loop
        self.threshold = threshold
        self.watches = [watch]
        self._leaving: list[tuple[Watch, threading.Event]] = []
        self._flag = bytearray(
            1
        )  # with it _watchdog_stop() ends this thread's waits, and no other's
        self._growth = Growth()
        self._ended = False
        self._follows = False
        self._before: Usage | None = None
        self._on_guard = threading.Event()
        self._thread = _start_thread(self._watch)
        # It needs the lock for its first steps, and what comes may keep that.
        self._on_guard.wait(_PATIENCE)

    def join(self, watch: "Watch") -> None:
        """Tell that one, too."""
        self.watches.append(watch)

    def leave(self, watch: "Watch") -> None:
        """Tell that one no more, but of what goes on now: before this returns, if it can be."""
        if watch not in self.watches:
            return
        self.watches.remove(watch)
        if threading.current_thread() is self._thread:
            return
        told = threading.Event()
        self._leaving.append((watch, told))
        if self._follows:
            told.wait(_PATIENCE)
        else:
            with contextlib.suppress(ValueError):  # it has just been told
                self._leaving.remove((watch, told))

    def end(self) -> None:
        """End the thread: nobody needs it, the loop is closed, or the program ends."""
        for watch in self.watches[:]:
            self.leave(watch)
        self._ended = True
        _watchdog_stop(self.loop, self._flag)
        if threading.current_thread() is not self._thread:
            self._thread.join(_PATIENCE)

    def end_here(self) -> None:
        """In a forked child: if it was this thread that forked, in on_block()."""
        self._ended = True

    def note_begin(self) -> None:
        """The loop begins to run, in this thread."""
        self._before = usage(self.loop, threading.get_native_id(), queued=False)

    def _watch(self) -> None:
        try:
            while not self._ended:
                queued = queueing(threading.get_native_id())
                self._on_guard.set()
                found = _watchdog_wait(self.loop, self.threshold / 2, self._flag, growth.EVERY)
                if found is None:
                    if not self._ended:
                        self._look_for_growth()
                    continue
                self._follows = True
                try:
                    self._follow(*found, queued)
                finally:
                    self._follows = False
                    self._tell_leaving(None)
                    ident = self.loop._thread_id
                    if ident is not None:
                        self._before = usage(self.loop, native_id(ident), queued=False)
        except Exception:
            logger.exception("a loop is no longer watched")
        finally:
            self._before = None
            self._tell_leaving(None)

    def _follow(
        self, which: tuple[int, int], since: float, queued: tuple[float, int] | None
    ) -> None:
        """See what a callback does that takes long, and tell of it if it takes too long."""
        if not self.watches:
            return  # all left while this thread slept
        incident = Incident(self.loop, which, since, self._before, self._flag)
        due = self.threshold
        late = clock() - since - due * 5 / 8  # it looks eight times in the time
        now_queued = queueing(threading.get_native_id())
        if queued is not None and now_queued is not None and now_queued[1] > queued[1]:
            # How late it comes by itself, on a machine that has much to do.
            late -= 3 * (now_queued[0] - queued[0]) / (now_queued[1] - queued[1])
        incident.note_held(late)
        # What kept the lock while this thread waited for it may have ended with that.
        too_long = late + due * 5 / 8 >= due
        while incident.ended is None and not self._ended:
            if clock() - since >= due:
                incident.look()
                while due <= clock() - since:
                    due *= 2
            else:
                incident.wait(min(since + due - clock(), _SLICE))
            too_long = too_long or incident.seen_until - since >= self.threshold
            if self._leaving and incident.ended is None:
                incident.wait(0)  # it may have ended while this thread waited for the lock
                if incident.ended is None:
                    self._tell_leaving(incident.report(clock()) if too_long else None)
        end = incident.ended or clock()
        if too_long and end - since >= self.threshold:
            report = incident.report(end)
            self._tell(self.watches[:], report)
            self._tell_leaving(report)

    def _look_for_growth(self) -> None:
        if self not in _dogs.get(id(self.loop), ())[:1]:
            return  # one of a loop's threads is enough
        for report in self._growth.look(self.loop, clock()):
            self._tell(self.watches[:], report)

    def _tell_leaving(self, report: BlockReport | None) -> None:
        while self._leaving:
            watch, told = self._leaving.pop()
            try:
                if report is not None:
                    self._tell([watch], report)
            finally:
                told.set()

    def _tell(self, watches: list["Watch"], report: BlockReport | GrowthReport) -> None:
        if not watches:
            return
        try:
            logger.warning("%s", report, extra={"report": report})
        except Exception:
            logger.exception("a report could not be logged")
        name = "on_block" if isinstance(report, BlockReport) else "on_growth"
        for watch in watches:
            call: Callable[[Any], object] | None = getattr(watch, name)
            if call is not None:
                try:
                    call(report)
                except BaseException:
                    logger.exception("%s=%r raised", name, call)


def _start_thread(target: Callable[[], None]) -> threading.Thread:
    global _daemons
    if _daemons:
        try:
            thread = threading.Thread(target=target, name="ctask.watch", daemon=True)
            thread.start()
            return thread
        except RuntimeError as error:
            if "daemon" not in str(error):
                raise
            # A sub-interpreter waits for all threads, so they have to be told before.
            _daemons = False
            threading._register_atexit(_end_all)  # type: ignore[attr-defined]
    thread = threading.Thread(target=target, name="ctask.watch", daemon=False)
    thread.start()
    return thread


def _join(watch: "Watch", loop: EventLoop) -> _Dog:
    """Have a loop watched for a watch: by a thread that is there, or a new one."""
    for dog in _dogs.get(id(loop), ()):
        if dog.threshold == watch.threshold:
            if watch not in dog.watches:
                dog.join(watch)
            return dog
    dog = _Dog(loop, watch.threshold, watch)
    _dogs.setdefault(id(loop), []).append(dog)
    return dog


def _retire(dog: _Dog) -> bool:
    """Whether nobody needs a thread, and nobody will."""
    with _lock:
        dogs = _dogs.get(id(dog.loop), [])
        if dog.watches or dog not in dogs:
            return False
        dogs.remove(dog)
        if not dogs:
            del _dogs[id(dog.loop)]
        _set_hooks()
        return True


# ---- watches ----


class Watch:
    """What watch() returns: stop() ends it, and so does leaving the `with` block."""

    def __init__(
        self,
        threshold: float,
        on_block: Callable[[BlockReport], object] | None = None,
        on_growth: Callable[[GrowthReport], object] | None = None,
    ) -> None:
        self.threshold = threshold
        self.on_block = on_block
        self.on_growth = on_growth
        self._dogs: list[_Dog] = []
        self._on = True

    def stop(self) -> None:
        """End the watch; harmless if it has ended.

        What blocks at this moment is reported with its length so far: before this returns, unless
        on_block() calls this, or takes more than a second.
        """
        with _lock:
            if not self._on:
                return
            self._on = False
            if self in _everywhere:
                _everywhere.remove(self)
            dogs, self._dogs = self._dogs, []
            _set_hooks()
        for dog in dogs:
            dog.leave(self)
            if _retire(dog):
                dog.end()
        garbage_collections.need_no_more()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _begin(self, loop: EventLoop) -> None:
        dog = _join(self, loop)
        if dog not in self._dogs:
            self._dogs.append(dog)


def watch(
    threshold: float = 0.1,
    *,
    loop: asyncio.AbstractEventLoop | None = None,
    on_block: Callable[[BlockReport], object] | None = None,
    on_growth: Callable[[GrowthReport], object] | None = None,
) -> Watch:
    """Report each callback, or step of a task, that keeps a loop for longer than the threshold.

    threshold is in seconds. loop is the running one unless it is given; where none runs, each loop
    of ctask's that begins to run afterwards is watched, in any thread. Watching begins at once, and
    ends with the `with` block or by stop(), or when the loop is closed.

    There is one BlockReport for each, when it has ended: as a warning of the logger `ctask.watch`
    and to on_block(report), which is called in the thread that watches, while the loop goes on.
    What on_block() raises is logged.

    What is ready, or in a queue, and has grown at each look for a minute, is told in the same way,
    as a GrowthReport to on_growth(report).

    Raises ValueError for what is no threshold, RuntimeError if the loop is closed, TypeError if it
    is not ctask's.
    """
    threshold = _check_threshold(threshold)
    ours = None
    if loop is not None or asyncio._get_running_loop() is not None:
        ours = loop_of_ours(loop)
        ours._check_closed()
    made = Watch(threshold, on_block, on_growth)
    with _lock:
        if ours is None:
            _everywhere.append(made)
        else:
            made._begin(ours)
        garbage_collections.need()
        _set_hooks()
    return made


def _check_threshold(threshold: float) -> float:
    threshold = float(threshold)
    if not 0 < threshold <= _LONGEST_THRESHOLD or math.isnan(threshold):
        raise ValueError("the threshold is more than 0 seconds and a day at most")
    return threshold


def _set_hooks() -> None:
    needed = bool(_everywhere or _dogs)
    _loop.on_run = _run_begins if needed else None
    _loop.on_close = _loop_closed if needed else None


def _run_begins(loop: EventLoop) -> None:
    """A loop is about to run, in this thread."""
    try:
        with _lock:
            for watch in _everywhere:
                watch._begin(loop)
            dogs = _dogs.get(id(loop), [])[:]
        for dog in dogs:
            dog.note_begin()
    except Exception:  # no thread can be started, for example
        logger.exception("a loop is not watched")


def _loop_closed(loop: EventLoop) -> None:
    with _lock:
        dogs = _dogs.pop(id(loop), [])
        for watch in {watch for dog in dogs for watch in dog.watches}:
            watch._dogs = [dog for dog in watch._dogs if dog not in dogs]
        _set_hooks()
    for dog in dogs:
        dog.end()


def _end_all() -> None:
    """The program ends: so do the threads, before the interpreter is taken apart."""
    with _lock:
        _everywhere.clear()
        dogs = [dog for dogs in _dogs.values() for dog in dogs]
        _dogs.clear()
        _set_hooks()
    for dog in dogs:
        dog.end()


def _forked() -> None:
    """In a child there are no such threads; loops that begin to run there are watched anew."""
    global _lock
    _lock = threading.RLock()
    for dogs in _dogs.values():
        for dog in dogs:
            dog.watches.clear()
            dog.end_here()
    _dogs.clear()
    for watch in _everywhere:
        watch._dogs.clear()
    _set_hooks()


atexit.register(_end_all)
os.register_at_fork(after_in_child=_forked)


# ---- the process's own ----

_of_process: Watch | None = None


def watch_process(text: str) -> None:
    """Watch each loop that begins to run from now on, in place of what was said before.

    Raises ValueError for what is no number of seconds, or no threshold.
    """
    global _of_process
    threshold = _check_threshold(float(text))
    if _of_process is not None:
        _of_process.stop()
    _of_process = Watch(threshold)
    with _lock:
        _everywhere.append(_of_process)
        garbage_collections.need()
        _set_hooks()


def watch_as_environment_says(text: str) -> None:
    """Do what CTASK_WATCH asks for; where it makes no sense, say so and watch nothing."""
    try:
        watch_process(text)
    except ValueError:
        print(
            f"ctask: nothing is watched: CTASK_WATCH={text!r} is not a number of seconds, like 0.1",
            file=sys.stderr,
        )
