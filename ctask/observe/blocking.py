"""What keeps a loop: the report of it, and how it is seen while it goes on.

watch.py has the threads that look.  Nothing here runs in the loop's thread but what notes
collections of garbage.
"""

import asyncio
import contextlib
import gc
import linecache
import logging
import os
import sys
import sysconfig
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from importlib import import_module
from types import CodeType, FrameType
from typing import Any, Literal

from ctask._ctask import _watchdog_end
from ctask._loop import EventLoop

logger = logging.getLogger("ctask.watch")

_FRAMES = 50  # of a stack are kept
_DEEPEST = 5000  # frames that are walked to find the callback
_SHOWN = 12  # frames in a report's text


# ---- what is reported ----


@dataclass(frozen=True)
class Frame:
    """A line that was being executed."""

    file: str
    line: int
    function: str
    """Its qualified name."""
    source: str
    """The line's text, without spaces around it; empty if it cannot be read."""

    def __str__(self) -> str:
        text = f"{self.file}:{self.line} in {self.function}"
        return f"{text}: {self.source}" if self.source else text


@dataclass(frozen=True)
class BlockReport:
    """What kept a loop for longer than the threshold; its str() is a text for people."""

    seconds: float
    """How long: to within an eighth of the threshold."""
    began: float
    """When it began, by time.monotonic()."""
    blame: Frame | None
    """The innermost line that is not of a library; None if no Python code ran."""
    frames: tuple[Frame, ...]
    """The stack while it blocked, innermost first, without the loop's own frames.

    Of the stacks that were seen, the one that took the most of the time.
    """
    cause: Literal[
        "computing",
        "collecting garbage",
        "sleeping",
        "system call",
        "lock",
        "interpreter lock",
        "keeping the interpreter lock",
        "unknown",
    ]
    """What it did.

    "computing", "collecting garbage", "sleeping", "system call" (see `system_call`), "lock" (of
    a thread's), "interpreter lock" (another thread had it), "keeping the interpreter lock" (C code
    that did not let other threads run), "unknown".
    """
    system_call: str | None
    """The system call that it waited in, or its number; None if there was none, or not known."""
    cpu: float | None
    """The share of the time in which the loop's thread had a processor; None if not known."""
    starved: float | None
    """The share in which it waited for a processor; None if not known."""
    collecting: float
    """The share of garbage collection."""
    held: float
    """The share in which no other thread could have the interpreter lock, as far as was seen."""
    task: str | None
    """The name of the task whose step it was; None if it was no task's."""
    coroutine: str | None
    """The qualified name of the task's coroutine."""
    created: Frame | None
    """Where the task was created: known in debug mode."""
    callback: str | None
    """The callback, if it was no task; None if it is not known, being written in C."""
    ready: int
    """How many callbacks and steps waited for it, at the last look."""
    thread: str
    """The name of the loop's thread."""
    ended: bool
    """False if the watch was stopped before it came to its end."""
    stacks: tuple[tuple[float, Frame | None], ...] = field(repr=False)
    """What was to blame after so many seconds, each time that it was looked at.

    Empty if it had ended by then.
    """

    def __str__(self) -> str:
        so_far = "" if self.ended else " so far"
        whom: object = "what ended before its stack was seen"
        if self.stacks:
            whom = self.blame or self.callback or "a callback written in C"
        lines = [f"blocked for {self.seconds:.3f} s{so_far}: {whom}", f"  {self._doing()}"]
        if self.task is not None:
            lines.append(f"  task {self.task!r}, coroutine {self.coroutine}")
            if self.created is not None:
                lines.append(f"  created at {self.created}")
        elif self.callback is not None:
            lines.append(f"  callback {self.callback}")
        if self.thread != "MainThread":
            lines.append(f"  thread {self.thread!r}")
        if self.ready > 1:
            lines.append(f"  {self.ready} callbacks and steps were waiting for it")
        took = _weigh(self.stacks, self.seconds)
        if len(took) > 1:
            lines += [
                f"  {took[frame] / self.seconds:.0%} of the time: {frame}"
                for frame in sorted(took, key=took.__getitem__, reverse=True)
            ]
        for index, frame in enumerate(self.frames[:_SHOWN]):
            if index or frame != self.blame:  # said above
                lines.append(f"  {'called from' if index else 'in'} {frame}")
        if len(self.frames) > _SHOWN:
            lines.append(f"  called from {len(self.frames) - _SHOWN} more")
        return "\n".join(lines)

    def _doing(self) -> str:
        call = self.system_call or "one that is not known"
        text = {
            "computing": "computing",
            "collecting garbage": "collecting garbage",
            "sleeping": f"sleeping (system call {call})",
            "system call": f"waiting in the system call {call}",
            "lock": "waiting for a lock of threads",
            "interpreter lock": "waiting for the interpreter lock, which another thread had",
            "keeping the interpreter lock": "in C code that keeps the interpreter lock",
            "unknown": "what it did was not seen",
        }[self.cause]
        shares = [("CPU", self.cpu), ("garbage collection", self.collecting or None)]
        if (self.starved or 0) >= 0.1:
            shares.append(("waiting for a processor", self.starved))
        if self.held >= 0.1:
            shares.append(("interpreter lock not given up", self.held))
        return "; ".join([text, *(f"{name} {x:.0%}" for name, x in shares if x is not None)])


def _weigh(
    stacks: tuple[tuple[float, Frame | None], ...], seconds: float
) -> dict[Frame | None, float]:
    """For how long what was to blame, as far as the looks tell."""
    took: dict[Frame | None, float] = {}
    for index, (after, frame) in enumerate(stacks):
        since = after if index else 0.0
        until = stacks[index + 1][0] if index + 1 < len(stacks) else seconds
        took[frame] = took.get(frame, 0.0) + max(0.0, until - since)
    return took


# ---- what the process and its threads did ----

# Not time.monotonic: what replaces that (freezegun) means the program's time.
_clock_gettime, _MONOTONIC = time.clock_gettime, time.CLOCK_MONOTONIC


def clock() -> float:
    return _clock_gettime(_MONOTONIC)


def _read(path: str) -> str:
    """What a file of /proc says; nothing if it must not, or cannot, be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, 1000).decode(errors="replace")
        finally:
            os.close(fd)
    except OSError:
        return ""


def native_id(ident: int | None) -> int | None:
    for thread in threading.enumerate():
        if thread.ident == ident:
            return thread.native_id
    return None


def _cpu_time(tid: int | None) -> float | None:
    """Seconds of processor time that a thread has had."""
    if tid is None:
        return None
    try:
        # The clock that pthread_getcpuclockid() names, which must not be asked about a thread
        # that may have ended: the kernel may.
        return _clock_gettime((~tid << 3) | 6)
    except (OSError, OverflowError):
        return None


def queueing(tid: int | None) -> tuple[float, int] | None:
    """Seconds that a thread has waited for a processor, and how often it got one."""
    numbers = _read(f"/proc/self/task/{tid}/schedstat").split()
    try:
        return int(numbers[1]) / 1e9, int(numbers[2])
    except (IndexError, ValueError):
        return None


_CALLS = {
    "x86_64": "read 0 write 1 open 2 stat 4 poll 7 pread64 17 pwrite64 18 readv 19 writev 20 "
    "select 23 pause 34 nanosleep 35 sendfile 40 connect 42 accept 43 sendto 44 recvfrom 45 "
    "sendmsg 46 recvmsg 47 wait4 61 fcntl 72 flock 73 fsync 74 fdatasync 75 rename 82 unlink 87 "
    "rt_sigtimedwait 128 sync 162 futex 202 clock_nanosleep 230 epoll_wait 232 waitid 247 "
    "openat 257 pselect6 270 ppoll 271 epoll_pwait 281 accept4 288 copy_file_range 326 "
    "epoll_pwait2 441",
    "aarch64": "epoll_pwait 22 fcntl 25 flock 32 openat 56 read 63 write 64 readv 65 writev 66 "
    "pread64 67 pwrite64 68 sendfile 71 pselect6 72 ppoll 73 sync 81 fsync 82 fdatasync 83 "
    "waitid 95 futex 98 nanosleep 101 clock_nanosleep 115 rt_sigtimedwait 137 accept 202 "
    "connect 203 sendto 206 recvfrom 207 sendmsg 211 recvmsg 212 accept4 242 wait4 260 "
    "copy_file_range 285 epoll_pwait2 441",
}
_words = _CALLS.get(os.uname().machine, "").split()
_CALL_NAMES = dict(zip(_words[1::2], _words[::2], strict=True))
_SLEEPS = ("nanosleep", "clock_nanosleep", "pause")
_LOCKS = ("futex",)


def _system_call(tid: int | None) -> str | None:
    """The system call that a thread is in; None if it is in none, or it is not told."""
    number = _read(f"/proc/self/task/{tid}/syscall").split(maxsplit=1)
    if number and number[0].isdigit():
        return _CALL_NAMES.get(number[0], number[0])
    wchan = _read(f"/proc/self/task/{tid}/wchan")
    for word, call in ("futex", "futex"), ("nanosleep", "clock_nanosleep"):
        if word in wchan:
            return call
    return None


class _Collections:
    """When which thread collected garbage: noted only while there is a watch."""

    def __init__(self) -> None:
        self._users = 0
        self._running: dict[int, float] = {}
        self._past: deque[tuple[int, float, float]] = deque(maxlen=4096)

    def need(self) -> None:
        self._users += 1
        if self._users == 1:
            gc.callbacks.append(self._note)

    def need_no_more(self) -> None:
        self._users -= 1
        if self._users == 0:
            if self._note in gc.callbacks:
                gc.callbacks.remove(self._note)
            self._running.clear()
            self._past.clear()

    def _note(self, phase: str, info: dict[str, int]) -> None:
        ident = threading.get_ident()
        if phase == "start":
            self._running[ident] = clock()
        else:
            began = self._running.pop(ident, None)
            if began is not None:
                self._past.append((ident, began, clock()))

    def between(self, ident: int | None, begin: float, end: float) -> float:
        """Seconds in which the thread collected, of that time."""
        took = 0.0
        for whose, began, ended in list(self._past):
            if whose == ident and ended > begin:
                took += max(0.0, min(ended, end) - max(began, begin))
        began = self._running.get(ident, end) if ident is not None else end
        return took + max(0.0, end - max(began, begin))


garbage_collections = _Collections()


# ---- stacks ----

_RUN = EventLoop.run_forever.__code__
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_NOT_SHOWN = (__file__, os.path.join(os.path.dirname(__file__), "watch.py"))
_PATHS = sysconfig.get_paths()
LIBRARIES = (  # where files are that are not the program's own
    _OURS,
    "<frozen ",
    *sorted({_PATHS[name] + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}),
)

_Place = tuple[CodeType, int]


def _find_interpreters() -> Any:
    for name in ("_interpreters", "_xxsubinterpreters"):
        with contextlib.suppress(ImportError):
            return import_module(name)
    return None


_interpreters = _find_interpreters()


def is_only_interpreter() -> bool:
    """Whether the frames of all threads can be looked at."""
    return _interpreters is None or len(_interpreters.list_all()) == 1


def _frame(ident: int | None, loop: EventLoop) -> FrameType | None:
    """The innermost frame of a loop's thread.

    sys._current_frames() makes objects of the frames of all interpreters, which is a crash where
    each has a lock of its own. If there are others it is the frame of the task's coroutine.
    """
    if is_only_interpreter():
        return None if ident is None else sys._current_frames().get(ident)
    task = asyncio.current_task(loop)
    return None if task is None else getattr(task.get_coro(), "cr_frame", None)


def _stack(ident: int | None, loop: EventLoop) -> tuple[list[_Place], CodeType | None]:
    """Where a thread is in what its loop runs, innermost first, and the outermost function."""
    frame = _frame(ident, loop)
    places: list[_Place] = []
    outermost = None
    for _ in range(_DEEPEST):
        if frame is None or frame.f_code is _RUN:
            break
        code = frame.f_code
        if code.co_filename not in _NOT_SHOWN:  # or it has just noted a collection
            outermost = code
            if len(places) < _FRAMES:
                places.append((code, frame.f_lineno or 0))
                linecache.lazycache(code.co_filename, frame.f_globals)
        frame = frame.f_back
    return places, outermost


def _as_frame(file: str, line: int, function: str) -> Frame:
    try:
        source = linecache.getline(file, line).strip()
    except Exception:  # a loader may be anybody's
        source = ""
    return Frame(file, line, function, source)


def _as_frames(places: list[_Place]) -> tuple[Frame, ...]:
    return tuple(_as_frame(code.co_filename, line, code.co_qualname) for code, line in places)


def _blame(frames: tuple[Frame, ...]) -> Frame | None:
    for frame in frames:
        if not frame.file.startswith(LIBRARIES):
            return frame
    return frames[0] if frames else None


def _made_at(source_traceback: Any) -> Frame | None:
    """Where the application made a task, of what debug mode has noted."""
    made = None
    for entry in source_traceback or ():
        if made is None or not entry.filename.startswith(LIBRARIES):
            made = Frame(entry.filename, entry.lineno or 0, entry.name, (entry.line or "").strip())
    return made


# ---- one incident ----


@dataclass(frozen=True)
class Usage:
    """What was used up to a moment: in seconds."""

    clock: float
    cpu: float | None
    queued: tuple[float, int] | None
    process: float
    busy: float


def usage(loop: EventLoop, tid: int | None, *, queued: bool) -> Usage:
    numbers = loop._counters()
    return Usage(
        clock(),
        _cpu_time(tid),
        queueing(tid) if queued else None,
        _clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID),
        (numbers["ran"] - numbers["waited"]) / 1e9,
    )


@dataclass
class _Sample:
    """What one look has seen."""

    after: float
    places: list[_Place]
    outermost: CodeType | None
    task: tuple[str, str, Frame | None] | None
    handle: str | None
    call: str | None
    certain: bool


class Incident:
    """A callback that has taken half of the time that it may: what is seen of it."""

    def __init__(
        self,
        loop: EventLoop,
        which: tuple[int, int],
        since: float,
        before: Usage | None,
        flag: bytearray,
    ) -> None:
        self._loop = loop
        self._flag = flag
        self._which = which
        self._since = since
        self._before = before
        self._ident = loop._thread_id
        self._tid = native_id(self._ident)
        self._own_tid = threading.get_native_id()
        self._first = usage(loop, self._tid, queued=True)
        self._collected = 0.0
        self._collected_until = since
        self._held = 0.0
        self._samples: list[_Sample] = []
        self._ready = 0
        self.seen_until = since  # to go on
        self.ended: float | None = None

    def note_held(self, seconds: float) -> None:
        """So long the interpreter lock was not to be had; who computes keeps it for a moment."""
        self._held += max(0.0, seconds - sys.getswitchinterval())

    def wait(self, seconds: float) -> None:
        """Wait until it ends, for so long at most."""
        queued, before, seconds = queueing(self._own_tid), clock(), max(0.0, seconds)
        self.ended = _watchdog_end(self._loop, self._which, seconds, self._flag)
        now, queued_now = clock(), queueing(self._own_tid)
        if self.ended is None:
            self.seen_until = before + seconds
        late = now - (self.ended or self.seen_until)
        if queued is not None and queued_now is not None:
            late -= queued_now[0] - queued[0]
        self.note_held(late)
        self._note_collections(now)

    def _note_collections(self, now: float) -> None:
        self._collected += garbage_collections.between(self._ident, self._collected_until, now)
        self._collected_until = now

    def look(self) -> None:
        """See what it does now."""
        now = clock()
        places, outermost = _stack(self._ident, self._loop)
        task, handle = self._look_at_task()
        same = self._loop._counters()["iterations"] == self._which[1]
        ready = self._loop._ready_length()
        # It goes on, or it had ended before: then this may be what came after it.
        self.ended = _watchdog_end(self._loop, self._which, 0, self._flag)
        if self.ended is None:
            self.seen_until = now
        elif not same:
            return
        call, certain = _system_call(self._tid), self.ended is None
        self._samples.append(
            _Sample(now - self._since, places, outermost, task, handle, call, certain)
        )
        self._ready = max(self._ready, ready)

    def _look_at_task(self) -> tuple[tuple[str, str, Frame | None] | None, str | None]:
        """The task whose step it is; in debug mode otherwise the handle."""
        try:
            task = asyncio.current_task(self._loop)
            if task is not None:
                coro = task.get_coro()
                name = getattr(coro, "__qualname__", None) or type(coro).__name__
                made = _made_at(getattr(task, "_source_traceback", None))
                return (task.get_name(), name, made), None
            handle = getattr(self._loop, "_current_handle", None)
            return None, None if handle is None else repr(handle)
        except Exception:  # a task may be anybody's
            logger.debug("a task could not be looked at", exc_info=True)
            return None, None

    def report(self, end: float) -> BlockReport:
        """What was seen of it up to its end, or to now."""
        seconds = end - self._since
        last = usage(self._loop, self._tid, queued=True)
        self._note_collections(end)
        cpu, starved, others = self._shares(last, seconds)
        collecting = min(1.0, self._collected / seconds)
        held = min(1.0, self._held / seconds)
        sample, frames, stacks = self._choose(seconds)
        call = task = callback = None
        if sample is not None:
            call, task, callback = sample.call, sample.task, sample.handle
            code = sample.outermost
            if task is None and callback is None and code is not None:
                callback = f"{code.co_qualname}() at {code.co_filename}:{code.co_firstlineno}"
        cause = _cause(cpu, starved, others, collecting, held, call)
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        return BlockReport(
            seconds=seconds,
            began=self._since,
            blame=_blame(frames),
            frames=frames,
            cause=cause,
            system_call=call if cause in ("sleeping", "system call", "lock") else None,
            cpu=cpu,
            starved=starved,
            collecting=collecting,
            held=held,
            task=task[0] if task else None,
            coroutine=task[1] if task else None,
            created=task[2] if task else None,
            callback=callback,
            ready=self._ready,
            thread=names.get(self._ident, "a thread"),
            ended=self.ended is not None,
            stacks=stacks,
        )

    def _choose(
        self, seconds: float
    ) -> tuple[_Sample | None, tuple[Frame, ...], tuple[tuple[float, Frame | None], ...]]:
        """The stack that most of the time was seen in, and what was to blame at each look."""
        samples = [s for s in self._samples if s.certain] or self._samples
        if not samples:
            return None, (), ()
        seen: dict[Frame | None, tuple[_Sample, tuple[Frame, ...]]] = {}
        stacks = []
        for sample in samples:
            frames = _as_frames(sample.places)
            blame = _blame(frames)
            stacks.append((sample.after, blame))
            seen.setdefault(blame, (sample, frames))
        took = _weigh(tuple(stacks), seconds)
        return *seen[max(took, key=took.__getitem__)], tuple(stacks)

    def _shares(
        self, last: Usage, seconds: float
    ) -> tuple[float | None, float | None, float | None]:
        """Of the loop's thread having a processor, waiting for one, and of other threads."""
        first = self._first
        looked = last.clock - first.clock
        if last.cpu is None or first.cpu is None:
            return None, None, None
        if looked >= seconds / 4:  # enough of it was seen
            starved = None
            if first.queued is not None and last.queued is not None:
                starved = min(1.0, (last.queued[0] - first.queued[0]) / looked)
            cpu = last.cpu - first.cpu
            others = last.process - first.process - cpu
            return min(1.0, cpu / looked), starved, others / looked
        # The first look came late: what it used is what was used since the last time, but for
        # what other callbacks took.
        before = self._before
        if before is None or before.cpu is None:
            return None, None, None
        cpu = last.cpu - before.cpu
        outside = max(0.0, last.busy - before.busy - seconds)
        least, most = max(0.0, cpu - outside), min(cpu, seconds)
        if most - least > 0.3 * seconds:
            return None, None, None
        others = last.process - before.process - cpu
        return min(1.0, (least + most) / 2 / seconds), None, others / seconds


def _cause(
    cpu: float | None,
    starved: float | None,
    others: float | None,
    collecting: float,
    held: float,
    call: str | None,
) -> Any:  # a BlockReport.cause
    waits = call is not None and call not in _LOCKS  # for a lock it waits while it is looked at
    computes = None if cpu is None else cpu + (0.0 if waits else starved or 0.0) >= 0.5
    if collecting >= 0.5:
        return "collecting garbage"
    if held >= 0.5:
        if cpu is not None and not computes and others is not None and others > 2 * cpu + 0.002:
            return "interpreter lock"
        return "keeping the interpreter lock"
    if computes:
        return "computing"
    if call in _SLEEPS:
        return "sleeping"
    if call in _LOCKS:
        return "lock"
    if call is not None:
        return "system call"
    return "unknown"
