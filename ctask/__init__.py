"""ctask: asyncio's Task, Future, handles and event loop, in C.

Run a program with ``python -m ctask app.py``, a coroutine with ``ctask.run(main())``, give
``ctask.new_event_loop`` wherever a loop factory is accepted, or call ``ctask.install()`` to make
ctask the default of everything that uses asyncio.
"""

import sys
from typing import Any

try:
    from ctask import _ctask
except ImportError:
    # Started in a checkout, where the extension is not compiled: take the installed one.
    from pkgutil import extend_path

    __path__ = extend_path(__path__, __name__)
    from ctask import _ctask
from ctask._ctask import (
    Future,
    Handle,
    Task,
    TimerHandle,
    as_completed,
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
from ctask._install import EventLoopPolicy, install, uninstall
from ctask._locks import Barrier, BoundedSemaphore, Condition, Event, Lock, Semaphore
from ctask._loop import EventLoop, new_event_loop
from ctask._queues import LifoQueue, PriorityQueue, Queue
from ctask._runner import Runner, run
from ctask._streams import StreamReader, StreamReaderProtocol, StreamWriter
from ctask._taskgroups import TaskGroup
from ctask._timeouts import Timeout

if sys.version_info < (3, 14):
    from ctask import _registry

    _registry.join()

__version__ = "0.1.0"

__all__ = (
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "EventLoop",
    "EventLoopPolicy",
    "Future",
    "Handle",
    "LifoQueue",
    "Lock",
    "PriorityQueue",
    "Queue",
    "Runner",
    "Semaphore",
    "StreamReader",
    "StreamReaderProtocol",
    "StreamWriter",
    "Task",
    "TaskGroup",
    "Timeout",
    "TimerHandle",
    "as_completed",
    "create_task",
    "ensure_future",
    "gather",
    "install",
    "new_event_loop",
    "run",
    "shield",
    "sleep",
    "timeout",
    "timeout_at",
    "uninstall",
    "wait",
    "wait_for",
)


def __getattr__(name: str) -> Any:
    """The other names of `_asyncio`, so that ctask can stand in its place."""
    return getattr(_ctask, name)
