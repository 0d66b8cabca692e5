"""What the loop says beyond asyncio: where a task waits, and was created, and what is stuck.

Nothing here is imported before there is a message, nor raises: where something cannot be found out
the message is asyncio's.
"""

import asyncio
import gc
import importlib
import linecache
import logging
import sys
import time
import weakref
from typing import Any

_logger = logging.getLogger("asyncio")


class _Text(str):
    """A text that asyncio's handler, which takes the repr() of what it is given, shows as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def explain(context: dict[str, Any]) -> dict[str, Any]:
    """Return what the default exception handler is to log: what it was given, and more lines.

    Of a task or future there is `task_created` or `future_created`, if debug mode has noted it, and
    of a task that is pending `waits`, unless the program has given values of these names.  Both
    come after the thing itself, which programs look for first.
    """
    try:
        waits = _waits()
        name = "future" if context.get("task") is None else "task"
        subject = context.get(name)
        if not issubclass(type(subject), waits.FUTURES):
            return context
        made = waits.created_at(subject)
        more = {}
        if made is not None:
            more[f"{name}_created"] = _Text("at\n" + "\n".join(_lines(made)))
        if waits.is_task(subject) and not waits.is_done(subject):
            said = _wait(subject)
            if said:
                more["waits"] = _Text(said)
        return {**more, **context}
    except Exception:  # the interpreter ends, for one
        return context


def place_step(text: str, handle: Any) -> str:
    """Return what asyncio says of a step that took long, with the line where the task is now."""
    try:
        waits = _waits()
        task = getattr(handle._callback, "__self__", None)
        if not waits.is_task(task) or waits.is_done(task) or not text.endswith(">"):
            return text
        frames = [link.frame for link in waits.chain_of(waits.read(task, "_coro"))]
        own = [frame for frame in frames if frame and not waits.is_own_file(frame.file)]
        if len(own) < 2:  # asyncio has said it
            return text
        at = own[-1]
        return f"{text[:-1]} now at {at.file}:{at.line} in {at.name}>"
    except Exception:
        return text


# Of each loop what was told, and when it is looked at again.
_told: weakref.WeakKeyDictionary[Any, tuple[set[frozenset[int]], float]]
_told = weakref.WeakKeyDictionary()


def report_deadlocks(loop: Any) -> None:
    """In debug mode, when a loop has stopped: warn of the tasks that are left and cannot go on.

    Each is told once.  If the loop is run again and again, for a hundredth of the time at most.
    """
    try:
        told, due = _told.get(loop) or (set(), 0.0)
        began = time.monotonic()
        if began < due or not asyncio.all_tasks(loop):
            return
        from ctask.observe.blocking import is_only_interpreter
        from ctask.observe.deadlocks import find_deadlocks

        for one in find_deadlocks(loop, unreachable=is_only_interpreter()):
            tasks = frozenset(task.id for task in one.tasks)
            # A queue that only its reader has is what main() has left: the reader is cancelled.
            wait = one.tasks[0].waits_for
            if tasks in told or (one.kind == "unreachable" and wait and wait.kind != "future"):
                continue
            told.add(tasks)
            _logger.warning("the loop has stopped, and tasks are left that cannot go on: %s", one)
        now = time.monotonic()
        _told[loop] = told, now + 100 * (now - began)
    except Exception:
        _logger.debug("the tasks that are left could not be looked at", exc_info=True)


def _waits() -> Any:
    """The module, whole: a collection while it is imported may have the next message made."""
    name = "ctask.observe.waits"
    if name in sys.modules or not gc.isenabled():
        return importlib.import_module(name)
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.enable()


def _wait(task: Any) -> str:
    """For what a task waits, and its coroutines' lines as a traceback has them."""
    waits = _waits()
    links = waits.chain_of(waits.read(task, "_coro"))
    own = [link.frame for link in links if link.frame is not None and not link.ours]
    if not links or links[0].frame is None:  # the collector has closed it
        return ""
    if links[0].unstarted:
        return "for its first turn"
    waiter, what = waits.read(task, "_fut_waiter"), "its turn"
    if waiter is not None and not waits.is_done(waiter):
        what = waits.describe(links, waiter)[1].what
    lines = [f"for {what}, at (most recent call last):" if own else f"for {what}"]
    return "\n".join([*lines, *(line for frame in own for line in _lines(frame))])


def _lines(frame: Any) -> list[str]:
    place = f'  File "{frame.file}", line {frame.line}, in {frame.name}'
    source = linecache.getline(frame.file, frame.line).strip()
    return [place, f"    {source}"] if source else [place]
