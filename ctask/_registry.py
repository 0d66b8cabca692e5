"""Before Python 3.14: makes ctask's tasks visible to asyncio.all_tasks().

`_asyncio` keeps its tasks in a WeakSet, and all_tasks() reads that very object, wherever it was
imported to.  So the object stays, and its class gets a subclass that has ctask's tasks as well.
"""

import asyncio.tasks
import itertools
import weakref
from collections.abc import Iterator
from typing import Any

from ctask import _ctask


class _TaskSet(weakref.WeakSet):  # type: ignore[type-arg]
    """The tasks of `_asyncio` and of ctask."""

    def __iter__(self) -> Iterator[Any]:
        return itertools.chain(super().__iter__(), _ctask._registered_tasks())

    def __len__(self) -> int:
        return super().__len__() + len(_ctask._registered_tasks())

    def __contains__(self, item: object) -> bool:
        return super().__contains__(item) or any(item is t for t in _ctask._registered_tasks())


def join() -> None:
    """Put ctask's tasks beside those of `_asyncio`; harmless to call again."""
    for name in ("_scheduled_tasks", "_all_tasks"):
        tasks = getattr(asyncio.tasks, name, None)
        if type(tasks) is weakref.WeakSet:
            tasks.__class__ = _TaskSet
