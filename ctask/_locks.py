"""Lock, Event and their relatives: C cores over asyncio's own classes.  They work on any loop."""

import asyncio

from ctask import _ctask


class Lock(_ctask.Lock, asyncio.Lock):
    """A lock for tasks, who get it in the order in which they ask for it.

    Stands for asyncio.Lock, which it derives from.
    """

    __slots__ = ()


class Event(_ctask.Event, asyncio.Event):
    """A flag that tasks can wait for: wait(), set(), clear(), is_set().

    Stands for asyncio.Event, which it derives from.
    """

    __slots__ = ()


class Condition(_ctask.Condition, asyncio.Condition):
    """Waiting, with a lock given up meanwhile, for what somebody else notifies of.

    Stands for asyncio.Condition, which it derives from.
    """

    __slots__ = ()


class Semaphore(_ctask.Semaphore, asyncio.Semaphore):
    """A number of places, which tasks get in the order in which they ask for them.

    Stands for asyncio.Semaphore, which it derives from.
    """

    __slots__ = ()


class BoundedSemaphore(_ctask.BoundedSemaphore, Semaphore, asyncio.BoundedSemaphore):
    """A Semaphore that is never released more often than it was acquired: ValueError.

    Stands for asyncio.BoundedSemaphore, which it derives from.
    """

    __slots__ = ()


class Barrier(asyncio.Barrier):
    """A place where tasks wait until there are as many as it was made for.

    Stands for asyncio.Barrier, which it derives from, with a ctask.Condition.
    """

    def __init__(self, parties: int) -> None:
        super().__init__(parties)
        self._cond = Condition()


_ctask._over(Lock, asyncio.Lock)
_ctask._over(Event, asyncio.Event)
_ctask._over(Condition, asyncio.Condition)
_ctask._over(Semaphore, asyncio.Semaphore)
_ctask._over(BoundedSemaphore, asyncio.BoundedSemaphore)
