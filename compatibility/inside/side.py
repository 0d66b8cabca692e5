"""Run by each interpreter of a library's environment as it starts (a .pth file imports it).

Puts ctask in place before anything else has imported asyncio, or does not, as the variable
COMPATIBILITY_SIDE says; processes that the tests start inherit it.  Remembers which loops ran:
recorder.py tells it.  Without the variable, as for pip, nothing is done.
"""

import os
import sys
from typing import Any

SIDE = os.environ.get("COMPATIBILITY_SIDE")
ran: set[str] = set()


def name_of(loop: Any) -> str:
    """install() gives our classes asyncio's names; so not by the name."""
    ours = getattr(sys.modules.get("ctask"), "EventLoop", None)
    if ours is not None and isinstance(loop, ours):
        return "ctask"
    return f"{type(loop).__module__}.{type(loop).__qualname__}"


def watch(cls: Any) -> None:
    run_forever = cls.run_forever

    def run_and_tell(self: Any) -> Any:
        ran.add(name_of(self))
        return run_forever(self)

    cls.run_forever = run_and_tell


if SIDE:
    import asyncio

    watch(asyncio.BaseEventLoop)
    if SIDE == "ctask":
        import ctask

        watch(ctask.EventLoop)
        ctask.install()
