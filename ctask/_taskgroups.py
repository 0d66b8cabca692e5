"""TaskGroup: a C core over asyncio's own class."""

import asyncio

from ctask import _ctask


class TaskGroup(_ctask.TaskGroup, asyncio.TaskGroup):
    """Tasks that end together: `async with` waits for all, and one that fails cancels the others.

    Stands for asyncio.TaskGroup, which it derives from.
    """

    __slots__ = ()


_ctask._over(TaskGroup, asyncio.TaskGroup)
