"""install() and uninstall(): ctask as the default of everything that uses asyncio.

What asyncio's modules hold by name is replaced by ctask's.  They look these names up when they
need them, with one exception that was made from asyncio's own class when it was imported and is
made anew: `eager_task_factory`.
"""

import asyncio
import os
import sys
import threading
from asyncio import (
    events,
    futures,
    locks,
    queues,
    streams,
    subprocess,
    taskgroups,
    tasks,
    timeouts,
    unix_events,
)
from typing import TYPE_CHECKING, Any

from ctask import _which
from ctask._ctask import (
    Future,
    Task,
    _GatheringFuture,
    _pass_for_asyncio,
    as_completed,
    create_subprocess_exec,
    create_task,
    ensure_future,
    gather,
    shield,
    sleep,
    timeout,
    timeout_at,
    wait,
    wait_for,
)
from ctask._locks import BoundedSemaphore, Condition, Event, Lock, Semaphore
from ctask._loop import EventLoop
from ctask._queues import LifoQueue, PriorityQueue, Queue
from ctask._streams import StreamReader, StreamReaderProtocol, StreamWriter
from ctask._taskgroups import TaskGroup
from ctask._timeouts import Timeout

if sys.version_info >= (3, 14):
    _POLICY_NAME = "_DefaultEventLoopPolicy"
    _get_policy = events._get_event_loop_policy
    _set_policy = events._set_event_loop_policy
else:
    _POLICY_NAME = "DefaultEventLoopPolicy"
    _get_policy = asyncio.get_event_loop_policy
    _set_policy = asyncio.set_event_loop_policy

if TYPE_CHECKING:
    _StockPolicy = asyncio.DefaultEventLoopPolicy
else:
    _StockPolicy = getattr(unix_events, _POLICY_NAME)


class EventLoopPolicy(_StockPolicy):
    """An event loop policy that makes ctask's loops; stands for asyncio.DefaultEventLoopPolicy.

    asyncio deprecates policies from 3.14 on: use ctask.run() or a loop factory there.
    """

    _loop_factory = EventLoop


class DefaultPolicy(EventLoopPolicy):
    """What install() makes asyncio's default; of its own class, to tell it from a user's choice."""


class CommandPolicy(DefaultPolicy):
    """The default under `python -m ctask`.

    On 3.14 and later its get_event_loop() still makes a loop where up to 3.13 there always was
    one: in the main thread, as long as none was set.
    """

    if sys.version_info >= (3, 14):

        def __init__(self) -> None:
            super().__init__()
            self._was_set = False

        def get_event_loop(self) -> asyncio.AbstractEventLoop:
            if not self._was_set and threading.current_thread() is threading.main_thread():
                self.set_event_loop(self.new_event_loop())
            return super().get_event_loop()

        def set_event_loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
            if threading.current_thread() is threading.main_thread():
                self._was_set = True
            super().set_event_loop(loop)


_lock = threading.RLock()
# What install() replaced: (module, name, what was there, what is there now).
_replaced: list[tuple[Any, str, Any, Any]] = []
_previous_policy: Any = None


def install() -> None:
    """Make ctask the default of asyncio: its loop, Task and Future, also in asyncio.run().

    What was imported from asyncio by name before keeps working beside ctask's.  Calling it twice
    is harmless, and so is calling it while a loop of ctask's runs.  Raises RuntimeError while
    another event loop runs in this thread.  If one runs later, a line on stderr says so, once in a
    process and not with CTASK_QUIET=1 in the environment.
    """
    install_with(DefaultPolicy)


def installed() -> bool:
    """Return whether install() is in force: whether asyncio's default is ctask."""
    return bool(_replaced)


def uninstall() -> None:
    """Put back everything that install() replaced; harmless if nothing was.

    What somebody else has replaced since then, the policy or a name, stays as it is.  Raises
    RuntimeError while an event loop is running.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("ctask.uninstall() cannot be called while an event loop is running")
    with _lock:
        _put_back()


def install_as_environment_says() -> None:
    """install() for a process that CTASK_INSTALL reached; a line on stderr if that cannot be."""
    try:
        install_with(CommandPolicy)
    except RuntimeError as error:
        print(f"ctask: CTASK_INSTALL: {error}", file=sys.stderr)


def inherit() -> None:
    """Have Python programs that this one starts install ctask, too.

    Those which multiprocessing starts anew, or a reloader.  What a child makes of it is in
    ctask/child-site/sitecustomize.py; one that ignores its environment (-E, -I) takes no notice.
    """
    os.environ["CTASK_INSTALL"] = "1"
    directory = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child-site")
    path = os.environ.get("PYTHONPATH")
    if directory not in (path or "").split(os.pathsep):
        os.environ["PYTHONPATH"] = f"{directory}{os.pathsep}{path}" if path else directory


def install_with(policy: type[DefaultPolicy]) -> None:
    """install(), with `policy` as the default policy."""
    global _previous_policy
    with _lock:
        if _replaced:
            return
        running = asyncio._get_running_loop()
        if running is not None and not isinstance(running, EventLoop):
            raise RuntimeError(
                "ctask.install() cannot be called while an event loop is running that is not "
                f"ctask's ({_which.name_of(running)}): {_which.remedy()}"
            )
        replacements = _replacements(policy)
        try:
            _previous_policy = _get_policy()
            for module, name, value in replacements:
                if hasattr(module, name):
                    _replaced.append((module, name, getattr(module, name), value))
                    setattr(module, name, value)
            _pass_for_asyncio(True)
            _which.asked = True
            for module, _, before, value in _replaced:
                if module in (locks, queues, streams, taskgroups, timeouts):
                    _rename(value, before)
            new = policy()
            if running is not None:
                _hand_over(_previous_policy, new, running)
            _set_policy(new)
        except BaseException:
            _put_back()
            raise


def _hand_over(old: Any, new: DefaultPolicy, loop: asyncio.AbstractEventLoop) -> None:
    """Have a loop that runs stay this thread's current one, under the new policy."""
    local = getattr(old, "_local", None)  # of asyncio's own, which warn when they are asked
    if getattr(local, "_loop", None) is loop:
        new.set_event_loop(loop)
        local._loop = None  # type: ignore[union-attr]


def _replacements(policy: type[DefaultPolicy]) -> list[tuple[Any, str, Any]]:
    set_running = _which.looked_at(events._set_running_loop)
    found: list[tuple[Any, str, Any]] = [
        (asyncio, "Future", Future),
        (futures, "Future", Future),
        (futures, "_CFuture", Future),
        (asyncio, "Task", Task),
        (tasks, "Task", Task),
        (tasks, "_CTask", Task),
        (tasks, "_GatheringFuture", _GatheringFuture),
        *_both(tasks, as_completed, create_task, ensure_future, gather),
        *_both(tasks, shield, sleep, wait, wait_for),
        *_both(locks, BoundedSemaphore, Condition, Event, Lock, Semaphore),
        *_both(queues, LifoQueue, PriorityQueue, Queue),
        *_both(streams, StreamReader, StreamReaderProtocol, StreamWriter),
        *_both(subprocess, create_subprocess_exec),
        *_both(taskgroups, TaskGroup),
        *_both(timeouts, Timeout, timeout, timeout_at),
        # asyncio.set_event_loop_policy(None) makes the default again: it stays ctask's.
        (unix_events, _POLICY_NAME, policy),
        *((place, "_set_running_loop", set_running) for place in (asyncio, events)),
    ]
    if sys.version_info >= (3, 12):
        factory = tasks.create_eager_task_factory(Task)
        found += [(module, "eager_task_factory", factory) for module in (asyncio, tasks)]
    if sys.version_info >= (3, 13):
        found += [(module, "EventLoop", EventLoop) for module in (asyncio, unix_events)]
    if sys.version_info < (3, 14):
        found.append((asyncio, _POLICY_NAME, policy))
    return found


def _both(module: Any, *values: Any) -> list[tuple[Any, str, Any]]:
    """What takes the place of asyncio's of the same name, in its module and in asyncio."""
    return [(place, value.__name__, value) for value in values for place in (asyncio, module)]


# The names of our classes while they pass for asyncio's: what they said before.
_renamed: dict[type, dict[str, Any]] = {}


def _rename(ours: Any, stock: Any) -> None:
    """Have a class of ours say that it is asyncio's, so that it is found by that name.

    Pickles are then the same as asyncio's.
    """
    if isinstance(stock, type):
        _renamed[ours] = {key: getattr(ours, key) for key in ("__module__", "__doc__")}
        ours.__module__ = stock.__module__
        ours.__doc__ = stock.__doc__
        if sys.version_info >= (3, 13) and "__firstlineno__" in vars(stock):
            ours.__firstlineno__ = vars(stock)["__firstlineno__"]


def _put_back() -> None:
    global _previous_policy
    _pass_for_asyncio(False)
    _which.asked = False
    while _renamed:
        ours, names = _renamed.popitem()
        for key, value in names.items():
            setattr(ours, key, value)
    while _replaced:
        module, name, before, now = _replaced.pop()
        if getattr(module, name, None) is now:
            setattr(module, name, before)
    if isinstance(_get_policy(), DefaultPolicy):
        _set_policy(_previous_policy)
    _previous_policy = None
