"""Timeout: a C core over asyncio's own class, of which timeout() and timeout_at() make objects."""

import asyncio
from typing import final

from ctask import _ctask


@final
class Timeout(_ctask.Timeout, asyncio.Timeout):  # type: ignore[misc]
    """Cancels the task that entered it at a deadline, and raises TimeoutError in its place.

    Stands for asyncio.Timeout, which it derives from.
    """

    __slots__ = ()


_ctask._over(Timeout, asyncio.Timeout)
