"""Which loop runs: ctask.which(), and a line on stderr if it is not ctask's after install().

Whoever runs a loop tells asyncio's _set_running_loop(), once when it begins and once when it ends:
install() puts a function in its place that looks at the type and calls it.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

from ctask._loop import EventLoop

# What to do, by the module that a program has imported if that server runs it.
_REMEDIES = {
    "uvicorn_worker": "a worker class with CONFIG_KWARGS = {'loop': 'ctask.full:new_event_loop'}",
    "uvicorn": "start uvicorn with --loop ctask.full:new_event_loop",
    "granian": "start it with python -m ctask -m granian --loop asyncio",
    "gunicorn": "start python -m ctask -m gunicorn, on asyncio's loop (--asgi-loop asyncio)",
    "hypercorn": "start it with python -m ctask -m hypercorn --worker-class asyncio",
}
_ELSE = "make the loop with ctask.new_event_loop, or start the program with python -m ctask"

asked = False  # is install() in force?
_told: int | None = None  # the process that has been told


def which() -> str | None:
    """Return whose event loop runs in this thread: "ctask", "asyncio", "uvloop", ...

    It is the name of the package that the loop's class is from, and "ctask" for each class that
    is derived from ctask.EventLoop.  None if no loop runs.
    """
    loop = asyncio._get_running_loop()
    if loop is None:
        return None
    return "ctask" if isinstance(loop, EventLoop) else type(loop).__module__.partition(".")[0]


def name_of(loop: Any) -> str:
    """The public name of a loop's class: "uvloop.Loop", "asyncio.SelectorEventLoop"."""
    cls = type(loop)
    if cls is asyncio.SelectorEventLoop:
        return "asyncio.SelectorEventLoop"
    return f"{cls.__module__}.{cls.__qualname__}"


def remedy() -> str:
    """What to do to have ctask's loop in this program."""
    return next((text for name, text in _REMEDIES.items() if name in sys.modules), _ELSE)


def looked_at(set_running_loop: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return asyncio's function of that name, with a look at what begins to run.

    uvloop keeps what it finds when it is imported, also beyond uninstall().
    """

    def _set_running_loop(loop: Any, /) -> None:
        if not isinstance(loop, EventLoop) and loop is not None and asked:
            _tell(loop)
        set_running_loop(loop)

    return _set_running_loop


def _tell(loop: Any) -> None:
    global _told
    if _told == os.getpid() or os.environ.get("CTASK_QUIET", "0") not in ("", "0"):
        return
    _told = os.getpid()
    line = f"ctask: {name_of(loop)} runs in process {_told}, not ctask's loop: {remedy()}"
    try:
        if sys.stderr is not None:
            sys.stderr.write(f"{line} (CTASK_QUIET=1 silences this)\n")
    except (OSError, ValueError):
        pass  # nobody to tell
