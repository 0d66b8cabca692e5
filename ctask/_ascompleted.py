"""as_completed() up to Python 3.12: a generator, as asyncio's is, over an iterator in C.

From 3.13 on that iterator itself is what as_completed() returns, and this is not used.
"""

import sys

if sys.version_info < (3, 13):
    from collections.abc import Awaitable, Coroutine, Iterable, Iterator
    from typing import Any, TypeVar

    from ctask import _ctask

    _T = TypeVar("_T")

    def as_completed(
        fs: Iterable[Awaitable[_T]], *, timeout: float | None = None
    ) -> Iterator[Coroutine[Any, Any, _T]]:
        yield from _ctask._completions(fs, timeout)
