"""The loops that are open in this process, for exporters of what they count."""

from ctask import _ctask
from ctask._loop import EventLoop
from ctask.observe.stats import Stats, stats


def stats_of_open_loops() -> list[tuple[int, EventLoop, Stats]]:
    """Return each loop that is not closed: its number, itself, and what it has done.

    Numbers are small, as that of a closed loop is the next one's: a program that runs one loop
    after the other has number 0 only.  Any thread may ask.
    """
    return [
        (number, loop, stats(loop))
        for number, loop in _ctask._open_loops()
        # Not one that another thread is just making.
        if isinstance(loop, EventLoop) and hasattr(loop, "_transports")
    ]
