"""All of ctask for a server that takes a loop factory: give it `ctask.full:new_event_loop`."""

from ctask._install import install
from ctask._loop import EventLoop

__all__ = ("new_event_loop",)


def new_event_loop() -> EventLoop:
    """Call ctask.install() in this process, and return a new event loop of ctask's.

    Stands for asyncio.new_event_loop().  Raises what install() raises, and OSError if the process
    has no file descriptors left for the loop.
    """
    install()
    return EventLoop()
