"""What a loop has done: stats()."""

import asyncio
from dataclasses import dataclass, fields

from ctask import _ctask
from ctask._loop import EventLoop

_GAUGES = frozenset({"tasks_pending", "ready", "timers", "connections"})


@dataclass(frozen=True)
class Stats:
    """What stats() returns: totals since the loop was made, and what is there now.

    The difference of two, `later - earlier`, is what was done between them; of what is there now
    it has the later.
    """

    iterations: int
    """Turns of the loop."""
    callbacks: int
    """Callbacks and steps of tasks that were run, in the iterations that have ended."""
    polls: int
    """Times that the kernel was asked for events."""
    events: int
    """Descriptors that it then said were ready."""
    wakeups: int
    """Times that another thread, or a signal, ended the loop's wait."""
    tasks_created: int
    """Tasks made for this loop."""
    bytes_received: int
    """Bytes that its transports and `sock_recv()` and the like got; over TLS, encrypted ones."""
    bytes_sent: int
    """Bytes that the kernel took; not those of `sendfile()`, which no program sees."""
    busy: float
    """Seconds in which the loop ran, and did not wait for events."""
    idle: float
    """Seconds in which it ran, and waited for events with nothing to do."""
    tasks_pending: int
    """Tasks that are not done now."""
    ready: int
    """Callbacks and steps that wait for their turn now."""
    timers: int
    """Timers that wait for their time now."""
    connections: int
    """Transports of sockets that are open now."""

    @property
    def utilization(self) -> float:
        """The share of its time in which the loop was busy, 0.0 to 1.0.

        Of a difference it is that of the time between (as Node.js's eventLoopUtilization()).
        """
        ran = self.busy + self.idle
        return self.busy / ran if ran > 0 else 0.0

    def __sub__(self, earlier: "Stats") -> "Stats":
        if not isinstance(earlier, Stats):
            return NotImplemented
        return Stats(
            **{
                name: getattr(self, name) - (0 if name in _GAUGES else getattr(earlier, name))
                for name in (field.name for field in fields(Stats))
            }
        )


def loop_of_ours(loop: asyncio.AbstractEventLoop | None) -> EventLoop:
    """Return the loop, by default the running one; raises what stats() does."""
    if loop is None:
        loop = asyncio.get_running_loop()
    if not isinstance(loop, _ctask.Loop):
        raise TypeError(f"a loop of ctask was expected, got {loop!r}")
    assert isinstance(loop, EventLoop)
    return loop


def stats(loop: asyncio.AbstractEventLoop | None = None) -> Stats:
    """Return what a loop has done so far, and what waits in it.

    loop is the running one unless it is given; any thread may ask. What is counted is counted
    always, and asking takes some microseconds.

    Raises RuntimeError if no loop is given and none runs, TypeError if it is not ctask's.
    """
    ours = loop_of_ours(loop)
    numbers = ours._counters()
    idle = numbers["waited"]
    return Stats(
        iterations=numbers["iterations"],
        callbacks=numbers["callbacks"],
        polls=numbers["polls"],
        events=numbers["events"],
        wakeups=numbers["wakeups"],
        tasks_created=numbers["tasks"],
        bytes_received=numbers["bytes_in"],
        bytes_sent=numbers["bytes_out"],
        busy=(numbers["ran"] - idle) / 1e9,
        idle=idle / 1e9,
        tasks_pending=numbers["tasks_pending"],
        ready=numbers["ready"],
        timers=numbers["timers"],
        connections=numbers["transports"] + len(ours._transports),
    )
