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
