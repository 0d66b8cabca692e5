"""ctask: asyncio's Task, Future, handles and event loop, in C.

Run a program with ``python -m ctask app.py``, a coroutine with ``ctask.run(main())``, give a server
``ctask.full:new_event_loop``, give ``ctask.new_event_loop`` wherever a loop factory is accepted, or
call ``ctask.install()`` to make ctask the default of everything that uses asyncio.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

try:
    from ctask import _ctask
except ImportError:
    # Started in a checkout, where the extension is not compiled: take the installed one.
    import importlib.util
    from pkgutil import extend_path

    __path__ = extend_path(__path__, __name__)
    if importlib.util.find_spec("ctask._ctask") is None:
        raise ImportError(
            f"ctask._ctask is not compiled for Python {sys.version.partition(' ')[0]}: run "
            f"`{sys.executable} -m pip install .` in {os.path.dirname(__path__[0])}"
        ) from None
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
from ctask._install import EventLoopPolicy, install, installed, uninstall
from ctask._locks import Barrier, BoundedSemaphore, Condition, Event, Lock, Semaphore
from ctask._loop import EventLoop, new_event_loop
from ctask._queues import LifoQueue, PriorityQueue, Queue
from ctask._runner import Runner, run
from ctask._streams import StreamReader, StreamReaderProtocol, StreamWriter
from ctask._taskgroups import TaskGroup
from ctask._timeouts import Timeout
from ctask._which import which

Loop = EventLoop  # uvloop's name for it

if TYPE_CHECKING:
    from ctask.observe.blocking import BlockReport
    from ctask.observe.deadlocks import Deadlock, find_deadlocks
    from ctask.observe.growth import GrowthReport
    from ctask.observe.inspector import inspect
    from ctask.observe.measure import Histogram, Histograms, Measurement, measure
    from ctask.observe.stats import Stats, stats
    from ctask.observe.trace import Trace, trace
    from ctask.observe.watch import Watch, watch

if sys.version_info < (3, 14):
    from ctask import _registry

    _registry.join()

__version__ = "0.2.0"

__all__ = (
    "Barrier",
    "BlockReport",
    "BoundedSemaphore",
    "Condition",
    "Deadlock",
    "Event",
    "EventLoop",
    "EventLoopPolicy",
    "Future",
    "GrowthReport",
    "Handle",
    "Histogram",
    "Histograms",
    "LifoQueue",
    "Lock",
    "Loop",
    "Measurement",
    "PriorityQueue",
    "Queue",
    "Runner",
    "Semaphore",
    "Stats",
    "StreamReader",
    "StreamReaderProtocol",
    "StreamWriter",
    "Task",
    "TaskGroup",
    "Timeout",
    "TimerHandle",
    "Trace",
    "Watch",
    "as_completed",
    "create_task",
    "ensure_future",
    "find_deadlocks",
    "gather",
    "inspect",
    "install",
    "installed",
    "measure",
    "new_event_loop",
    "run",
    "shield",
    "sleep",
    "stats",
    "timeout",
    "timeout_at",
    "trace",
    "uninstall",
    "wait",
    "wait_for",
    "watch",
    "which",
)


# Imported when they are asked for: most programs never do.
_ON_DEMAND = {
    "BlockReport": "ctask.observe.blocking",
    "Deadlock": "ctask.observe.deadlocks",
    "GrowthReport": "ctask.observe.growth",
    "Histogram": "ctask.observe.measure",
    "Histograms": "ctask.observe.measure",
    "Measurement": "ctask.observe.measure",
    "Stats": "ctask.observe.stats",
    "Trace": "ctask.observe.trace",
    "Watch": "ctask.observe.watch",
    "find_deadlocks": "ctask.observe.deadlocks",
    "inspect": "ctask.observe.inspector",
    "measure": "ctask.observe.measure",
    "stats": "ctask.observe.stats",
    "trace": "ctask.observe.trace",
    "watch": "ctask.observe.watch",
}


def __getattr__(name: str) -> Any:
    """What is imported on demand, and the names of `_asyncio`, in whose place ctask can stand."""
    if name in _ON_DEMAND:
        value = globals()[name] = getattr(import_module(_ON_DEMAND[name]), name)
        return value
    try:
        return getattr(_ctask, name)
    except AttributeError:
        # With the module there, Python adds what may have been meant.
        message = f"module 'ctask' has no attribute {name!r}"
        raise AttributeError(message, name=name, obj=sys.modules[__name__]) from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if os.environ.get("CTASK_WATCH"):
    from ctask.observe.watch import watch_as_environment_says

    watch_as_environment_says(os.environ["CTASK_WATCH"])
if os.environ.get("CTASK_INSPECT", "0") not in ("", "0"):
    from ctask.observe.inspector import inspect_as_told

    inspect_as_told(os.environ["CTASK_INSPECT"])
if os.environ.get("CTASK_INSTALL", "0") not in ("", "0"):
    from ctask._install import install_as_environment_says

    install_as_environment_says()
