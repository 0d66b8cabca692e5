"""Queue, PriorityQueue and LifoQueue: one C core over asyncio's own classes.

They work on any loop.
"""

import asyncio
from typing import TYPE_CHECKING, TypeVar

from ctask import _ctask

if TYPE_CHECKING:
    from _typeshed import SupportsRichComparison

_T = TypeVar("_T")
_Comparable = TypeVar("_Comparable", bound="SupportsRichComparison")


class Queue(_ctask.Queue[_T], asyncio.Queue[_T]):
    """A first in, first out queue of items between tasks: put(), get(), join().

    Stands for asyncio.Queue, which it derives from.
    """

    __slots__ = ()


class PriorityQueue(Queue[_Comparable], asyncio.PriorityQueue[_Comparable]):
    """A queue that gives out the smallest item first.

    Stands for asyncio.PriorityQueue, which it derives from.
    """

    __slots__ = ()


class LifoQueue(Queue[_T], asyncio.LifoQueue[_T]):
    """A queue that gives out the newest item first.

    Stands for asyncio.LifoQueue, which it derives from.
    """

    __slots__ = ()


_ctask._over(Queue, asyncio.Queue)
_ctask._over(PriorityQueue, asyncio.PriorityQueue)
_ctask._over(LifoQueue, asyncio.LifoQueue)
