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
