"""TaskGroup: a C core over asyncio's own class."""

import asyncio
from typing import Any

from ctask import _ctask

_stock_exit: Any = asyncio.TaskGroup.__aexit__


class TaskGroup(_ctask.TaskGroup, asyncio.TaskGroup):
    """Tasks that end together: `async with` waits for all, and one that fails cancels the others.

    Stands for asyncio.TaskGroup, which it derives from.
    """

    __slots__ = ()


_ctask._over(TaskGroup, asyncio.TaskGroup)


async def leave(
    group: Any, kind: type[BaseException] | None, exception: BaseException | None, traceback: Any
) -> Any:
    """Do what `__aexit__` does in the latest releases of 3.11 to 3.13, by that of their first.

    Those take no class but CancelledError itself for a cancellation, and leave an exception that
    they raise in their frame's variables, from where it refers to itself.
    """
    if kind is not None and issubclass(kind, asyncio.CancelledError):
        kind = asyncio.CancelledError
    coro = _stock_exit(group, kind, exception, traceback)
    frame = coro.cr_frame
    try:
        return await coro
    finally:
        frame.clear()
        del coro, exception, frame, traceback
