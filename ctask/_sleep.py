"""asyncio.sleep() with a cheaper turn of the loop."""

import asyncio
import math
import sys
from asyncio import futures
from typing import Any, TypeVar, overload

from ctask._ctask import _turn

T = TypeVar("T")

# What asyncio's own sleep() schedules; it leaves a cancelled future alone.
_wake: Any = futures._set_result_unless_cancelled  # type: ignore[attr-defined]
_CHECKS_NAN = sys.version_info >= (3, 13)


@overload
async def sleep(delay: float) -> None: ...
@overload
async def sleep(delay: float, result: T) -> T: ...
async def sleep(delay: float, result: Any = None) -> Any:
    """Return `result` after `delay` seconds; with 0, after one turn of the loop.

    Stands for asyncio.sleep().  Raises ValueError if the delay is not a number (3.13 and later).
    """
    if delay <= 0:
        await _turn()
        return result
    if _CHECKS_NAN and math.isnan(delay):
        raise ValueError("Invalid delay: NaN (not a number)")
    loop = asyncio.get_running_loop()
    woken = loop.create_future()
    timer = loop.call_later(delay, _wake, woken, result)
    try:
        return await woken
    finally:
        timer.cancel()
