"""install() and uninstall(): ctask as the default of everything that uses asyncio."""

import asyncio
import sys
from asyncio import events, futures, tasks, unix_events
from typing import Any

from ctask._ctask import Future, Task
from ctask._loop import EventLoop

if sys.version_info >= (3, 14):
    _DefaultPolicy = unix_events._DefaultEventLoopPolicy
    _get_policy = events._get_event_loop_policy
    _set_policy = events._set_event_loop_policy
else:
    _DefaultPolicy = asyncio.DefaultEventLoopPolicy
    _get_policy = asyncio.get_event_loop_policy
    _set_policy = asyncio.set_event_loop_policy


class EventLoopPolicy(_DefaultPolicy):
    """An event loop policy that makes ctask's loops; stands for asyncio.DefaultEventLoopPolicy.

    asyncio deprecates policies from 3.14 on: use ctask.run() or a loop factory there.
    """

    _loop_factory = EventLoop


# What install() replaced: (module, name, what was there).
_replaced: list[tuple[Any, str, Any]] = []
_previous_policy: Any = None
_policy: Any = None


def _refuse_while_running(what: str) -> None:
    if asyncio._get_running_loop() is not None:
        raise RuntimeError(f"ctask.{what}() cannot be called while an event loop is running")


def _replace(module: Any, name: str, value: Any) -> None:
    if hasattr(module, name):
        _replaced.append((module, name, getattr(module, name)))
        setattr(module, name, value)


def install(policy: Any = None) -> None:
    """Make ctask the default of asyncio: its loop, Task and Future, also in asyncio.run().

    Names that were imported from asyncio before keep working beside ctask's.  Calling it twice is
    harmless.  Raises RuntimeError while an event loop is running.
    """
    global _previous_policy, _policy
    _refuse_while_running("install")
    if _replaced:
        return
    for module in (asyncio, futures):
        _replace(module, "Future", Future)
    _replace(futures, "_CFuture", Future)
    for module in (asyncio, tasks):
        _replace(module, "Task", Task)
    _replace(tasks, "_CTask", Task)
    if hasattr(tasks, "create_eager_task_factory"):
        factory = tasks.create_eager_task_factory(Task)
        for module in (asyncio, tasks):
            _replace(module, "eager_task_factory", factory)
    _replace(asyncio, "EventLoop", EventLoop)
    _previous_policy = _get_policy()
    _policy = EventLoopPolicy() if policy is None else policy
    _set_policy(_policy)


def uninstall() -> None:
    """Put back everything that install() replaced; harmless if nothing was.

    Raises RuntimeError while an event loop is running.
    """
    global _previous_policy, _policy
    _refuse_while_running("uninstall")
    while _replaced:
        module, name, value = _replaced.pop()
        setattr(module, name, value)
    if _policy is not None:
        if _get_policy() is _policy:
            _set_policy(_previous_policy)
        _policy = _previous_policy = None
